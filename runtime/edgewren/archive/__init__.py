"""Files with many texts: read row by row, scored window by window, written whole or not at all.

In the order in which data meets them: `lines` (bytes to lines), `readers` and `parquet` (lines to rows), `labelled` (a
labelled file wholly in memory, for training and evaluation), `run` (rows through a classifier), `writers` (rows to
lines), `whole_file` (lines to disk). Nothing here knows the command line; only `run` knows the classifier.
"""
