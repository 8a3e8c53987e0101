"""What the model card says of rows that were held out by group."""

from __future__ import annotations

from edgewren_export.card import _grouped


def test_card_says_which_rows_were_held_out_together():
    assert "By group: rows with the same 'author' were held out together" in _grouped("author")
    assert "\\n" in _grouped("two\nlines"), "a column's name cannot break the line"
    assert _grouped(None) == ""
