"""One file per verb that follows training: parse, call, print."""
