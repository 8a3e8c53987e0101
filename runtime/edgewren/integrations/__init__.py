"""A classifier inside other people's libraries: one small file each, which imports its library, and nothing else does.

`scikit_learn` (an estimator), `pandas` and `polars` (columns in, columns out), `hub` (bundles to and from the Hugging
Face Hub); `arrow` (a column in Arrow), `shipped` (a bundle on its way to other machines) and `remote_files` under `ray`
(Ray Data), `ray_archive` (files over a Ray cluster) and `spark`. Nothing here knows formats of files, models or tokens.
"""
