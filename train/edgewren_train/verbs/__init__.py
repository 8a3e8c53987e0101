"""One file per verb: parse, call, print. `options`, `lora_options` and `ridge_options` are what they share, `terminal`
is how they tell people. Imports nothing heavy until a verb runs.
"""
