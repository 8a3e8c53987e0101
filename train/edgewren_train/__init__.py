"""From a labelled file to a trained model: data -> encoders -> ridge | lora -> model (the folder on disk).

Read in that order; `normalisers` and `embedding` stand beside `encoders`, `commands` sits on top. May import the
runtime (`edgewren`), never export: the two meet at the trained model's folder.
"""
