"""From canonical Parquet to blocks of windows, and from those to what training and validation read.

`task` is the step; `files` writes a window file and reads it back; `folds` tells the windows of many files apart by
fold and scales them; `export` shows them to people.
"""
