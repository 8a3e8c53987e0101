"""Rival services for `serving.py`: the plain ways in which people put the same model behind HTTP."""
