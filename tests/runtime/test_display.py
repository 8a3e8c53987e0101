"""Strangers' texts on a terminal."""

from __future__ import annotations

from edgewren.display import escaped, printable, shortened


def test_a_cell_has_one_column_per_character_and_nothing_that_steers():
    assert printable("neutral \u00e9 \u4e2d \x1b[2J\n\u202e\ud800") == "neutral \u00e9 \u4e2d ?[2J???"
    assert shortened("abc\x1bdef", 7) == "abc?def"
    assert shortened("abc\x1bdefg", 7) == "abc?de\u2026"


def test_a_message_keeps_lines_and_letters_and_shows_the_rest_as_python_writes_it():
    message = "a\tb\nc \u00e9\u3000\u4e2d \U0001f600"
    assert escaped(message) == message
    assert escaped("x\x1b]0;t\x07\r\u202e\udcff\x9b") == "x\\x1b]0;t\\x07\\r\\u202e\\udcff\\x9b"
