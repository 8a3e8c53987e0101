"""Files with many texts: read block by block, scored window by window, resumable at every window.

In the order in which data meets them: `compression` and `lines` (bytes to lines), `formats` (one file per format: lines
to `rows`, rows to bytes) with `table` as what they have in common, `tweets` (Twitter's JSON), `readers` (which format a
file has), `inputs` (several files as one), `labelled` with `labels` and `texts` (files wholly in memory, for training
and evaluation), `run` (rows through a classifier), `results` and `decimals` (scores to columns), `report` (counts and
fingerprint), `output`, `appended`, `journal` and `disk` (bytes to disk, whatever happens), `whole_file` (small files
that appear whole), `summary`, `tally` and `periods` (what a scored archive says). Nothing here knows the command line;
only `run` and `report` know the classifier.
"""
