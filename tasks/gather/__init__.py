"""From files of labelled series to cases: runs of rows with a label, in one table. May import models and tasks.ingest."""
