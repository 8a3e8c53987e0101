"""Loading and writing weights is quiet; downloads show their bars."""

from __future__ import annotations

import pytest
from transformers.utils import logging

from edgewren_train.quiet import quiet


@pytest.fixture(autouse=True)
def as_it_is_by_itself():
    verbosity = logging.get_verbosity()
    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    yield
    logging.set_verbosity(verbosity)


def state() -> tuple[int, bool]:
    return logging.get_verbosity(), logging.is_progress_bar_enabled()


def test_a_folder_shows_neither_bars_nor_reports(tmp_path):
    with quiet(tmp_path):
        assert state() == (logging.ERROR, False)
    assert state() == (logging.WARNING, True)


def test_a_hub_id_shows_its_download():
    with quiet("someone/some-encoder"):
        assert state() == (logging.ERROR, True)
    assert state() == (logging.WARNING, True)


def test_it_is_as_before_after_an_error_and_where_bars_were_off(tmp_path):
    logging.disable_progress_bar()
    with pytest.raises(ValueError, match="damaged"), quiet(tmp_path):
        raise ValueError("damaged")
    assert state() == (logging.WARNING, False)
