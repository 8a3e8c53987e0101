"""Seeds on the command line."""

from __future__ import annotations

import argparse


def one_seed(text: str) -> int:
    """Read a seed, as numpy and scikit-learn take them."""
    number = int(text) if text.strip().isdecimal() else -1
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed, expected a whole number from 0 to {2**32 - 1}")
    return number


def some_seeds(text: str) -> tuple[int, ...]:
    """Read seeds like 0,1,2."""
    return tuple(map(one_seed, text.split(",")))
