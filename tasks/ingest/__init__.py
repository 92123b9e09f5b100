"""From someone's CSV or Parquet to canonical Parquet.

In the order of a row's way: `sources` is what a spec says, `listing`, `files`, `streams` and `remote` are where the bytes
lie, `chunks` cuts them; `parts` is the step `read` (`reading`, `rowwise`, `arrays`, `spellings`, `stamps`, `clock`);
`shards` surveys what was read; `task` is the step `ingest` (`loading`, `arranging`, `panel`, `grid`, `holes`, `rules`,
`segments`, and `resuming` for a series that grew). `locating` finds the line of a fault; `calendar` and `statics` bring
covariates that no row holds.
"""
