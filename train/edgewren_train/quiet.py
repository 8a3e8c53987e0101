"""What the Hugging Face libraries tell while they load and write weights is not for those who train."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet(location: str | Path) -> Iterator[None]:
    """Silence transformers' bars and reports ("newly initialized … you should probably TRAIN": we are about to).

    Args:
        location: where weights come from or go to. Where it is no folder but a hub id, bars show a download, and stay.
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if Path(location).exists():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
