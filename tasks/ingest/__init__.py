"""From someone's CSV or Parquet to canonical Parquet.

`task` is the step; `sources` reads the file and says whose row is wrong; `timeline` puts every series on a regular
grid of instants; `checks` looks at the values.
"""
