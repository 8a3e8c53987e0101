"""Any string becomes tokens; what was cut or mended is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewren.errors import BundleError
from edgewren.text import CHARACTERS_PER_TOKEN, TextTokenizer, repair


@pytest.fixture(scope="module")
def tokenizer(tiny_bundle) -> TextTokenizer:
    return TextTokenizer((tiny_bundle / "tokenizer.json").read_bytes(), 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("\U0001f600", "\U0001f600"),
        ("\ud83d\ude00", "\U0001f600"),
        ("a\ud83db", "a\ufffdb"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        ("", ""),
    ],
)
def test_repair_joins_split_pairs_and_replaces_lone_surrogates(text, expected):
    assert repair(text) == expected


@given(st.text(st.characters(), max_size=20))
def test_repair_gives_valid_unicode_and_changes_nothing_that_is_valid(text):
    mended = repair(text)
    mended.encode()
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert mended == text


def test_texts_are_cut_at_max_length_and_marked(tokenizer):
    tokens = tokenizer.encode(["good " * 5, "good " * 6, "good " * 7, "good " * 100])
    assert [len(row) for row in tokens.ids] == [7, 8, 8, 8]
    assert tokens.truncated.tolist() == [False, False, True, True]
    assert tokens.ids[1] == tokens.ids[2] == tokens.ids[3]


def test_rows_are_neither_padded_nor_empty(tokenizer):
    tokens = tokenizer.encode(["", " ", "good vote", "\u200b"])
    assert [len(row) for row in tokens.ids] == [2, 2, 4, 2]
    assert not tokens.truncated.any()


def test_repaired_texts_are_marked_and_equal_the_mended_ones(tokenizer):
    tokens = tokenizer.encode(["good \ud83d", "good \ufffd", "a\ud83d\ude00", "a\U0001f600", "é"])
    assert tokens.repaired.tolist() == [True, False, True, False, False]
    assert tokens.ids[0] == tokens.ids[1]
    assert tokens.ids[2] == tokens.ids[3]


def test_a_text_of_megabytes_is_cut_before_it_is_tokenised(tokenizer):
    tokens = tokenizer.encode(
        [" " * (8 * CHARACTERS_PER_TOKEN) + "good", " " * (8 * CHARACTERS_PER_TOKEN), "x" * 10**7]
    )
    assert tokens.truncated.tolist() == [True, False, True]
    assert tokens.ids[0] == tokens.ids[1]


@given(st.lists(st.text(st.characters(), max_size=30), max_size=5))
def test_any_texts_give_one_short_row_each(tokenizer, texts):
    tokens = tokenizer.encode(texts)
    assert len(tokens.ids) == len(tokens.truncated) == len(tokens.repaired) == len(texts)
    assert all(1 <= len(row) <= 8 for row in tokens.ids)


@pytest.mark.parametrize("data", [b"", b"{}", b"not json", b"\xff\xfe", b"[" * 100_000, b'{"model": {"type": "Nope"}}'])
def test_what_is_no_tokenizer_is_refused(data):
    with pytest.raises(BundleError, match="tokenizer.json cannot be read"):
        TextTokenizer(data, 8)


def test_max_length_must_leave_room_for_text(tiny_bundle):
    with pytest.raises(BundleError, match="max_length 2 leaves no room beside 2 special tokens"):
        TextTokenizer((tiny_bundle / "tokenizer.json").read_bytes(), 2)


@pytest.mark.parametrize("token", ["[MASK]", "vote", "#new", "good vote"])
def test_settings_parsed_before_make_the_same_tokenizer(tiny_bundle, token):
    """Added tokens of the vocabulary keep their ids; one that is not in it gets the next."""
    settings = json.loads((tiny_bundle / "tokenizer.json").read_bytes())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    vocabulary = settings["model"]["vocab"]
    settings["added_tokens"] += [{"id": vocabulary.get(token, len(vocabulary)), "content": token, **flags}]
    data = json.dumps(settings).encode()
    made, read = TextTokenizer(data, 8, settings=settings), TextTokenizer(data, 8)
    texts = [f"a {token} b", token, f"{token}{token}", "good vote", "[CLS] bad [UNK]", ""]
    assert made.encode(texts).ids == read.encode(texts).ids
    assert json.loads(made._tokenizer.to_str()) == json.loads(read._tokenizer.to_str())


def test_settings_that_rust_cannot_hold_are_refused(tiny_bundle):
    data = (tiny_bundle / "tokenizer.json").read_bytes()
    settings = json.loads(data)
    settings["model"]["vocab"]["\ud800"] = 5
    with pytest.raises(BundleError, match="tokenizer.json cannot be read"):
        TextTokenizer(data, 8, settings=settings)
