"""What a file that nobody described seems to hold, guessed from a part of it; the basis of `convcast init`.

In the order of a guess: `dialect` is how a text is written, `sample` the part that is looked at, `naming` what names tell,
`stamping` finds the stamps, `grouping` the series, `steps` their frequency and faults, `roles` target and covariates;
`labelled` the classes, where there are some. What was found is a `settings.Guess`, from `forecasts` or `labelled`. Values and
stamps are read with the functions of tasks.ingest and tasks.gather. May import those and models.
"""
