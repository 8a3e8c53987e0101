"""One file per verb: parse, call, print. Imports nothing heavy until a verb runs."""
