"""Word by word gives the very token ids that the Rust library gives for whole texts; what goes otherwise is left to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hostile_texts import hostile_texts, is_unicode
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel, WordPiece

from edgewren import names, word_tokenizer
from edgewren.errors import BundleTokenizerError
from edgewren.text import TextTokenizer
from edgewren.word_table import MOST_WORDS
from edgewren.word_tokenizer import _FEW_CHARACTERS, WordTokenizer
from edgewren_train.normalisers import NORMALISERS, with_normaliser

PUNCTUATION = "\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u2022"
PIECES = [
    *"aZ .,:/&;#@[]()'\"-_~\n\t\r\x00\x7f\x85\xa0",
    *PUNCTUATION,
    *(
        "http",
        "http://",
        "https://t.co/Ab1",
        "HTTP://X.Y",
        "://",
        "&lt;",
        "&gt;",
        "&quot;",
        "&#39;",
        "&nbsp;",
        "&amp;",
        "lt;",
    ),
    *(
        "[MASK]",
        "[CLS]",
        "[mask]",
        "\u00e9",
        "e\u0301",
        "\u4f60",
        "\U0001f600",
        "\u200b",
        "\u2028",
        "\ufffd",
        "\u0130",
        "\ud800",
    ),
    *("Obama", "unbelievable", "vote", "#TCOT", "it's"),
]


def published(normaliser: str, **bert: object) -> bytes:
    """The default bundle's tokenizer.json, which has BERT's vocabulary, with another normaliser."""
    settings = json.loads((names.resolve(None) / "tokenizer.json").read_bytes())
    own = settings["normalizer"]["normalizers"][-1]
    assert own["type"] == "BertNormalizer"
    settings["normalizer"] = {**own, **bert}
    return with_normaliser(json.dumps(settings), normaliser).encode()


PADDING = ["Long enough for the table. " * 100]
"""Beside it, texts are looked up in numpy; without it, a few are taken apart in Python."""

assert len(PADDING[0]) > _FEW_CHARACTERS


@pytest.fixture(scope="module", params=[*NORMALISERS, "cased"])
def pair(request) -> tuple[TextTokenizer, Tokenizer]:
    data = published("http", lowercase=False) if request.param == "cased" else published(request.param)
    return both(data)


def both(data: bytes, max_length: int = 64) -> tuple[TextTokenizer, Tokenizer]:
    theirs = Tokenizer.from_buffer(data)
    theirs.enable_truncation(max_length)
    ours = TextTokenizer(data, max_length)
    assert ours._word_by_word is not None
    return ours, theirs


def check(pair: tuple[TextTokenizer, Tokenizer], texts: list[str]) -> None:
    ours, theirs = pair
    expected = theirs.encode_batch([*texts, *PADDING])
    many = ours.encode([*texts, *PADDING])
    assert many.ids == [encoding.ids for encoding in expected]
    assert many.truncated.tolist() == [bool(encoding.overflowing) for encoding in expected]
    for text, encoding in zip(texts, expected, strict=False):
        alone = ours.encode([text])
        assert alone.ids == [encoding.ids], text
        assert alone.truncated.tolist() == [bool(encoding.overflowing)], text


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example("&amp;lt; https://a.b&amp;c\nD [x")
@example("a\x1eb \x1d c http://d\x1ee")
def test_any_text_has_the_token_ids_of_the_rust_library(pair, text):
    if is_unicode(text):
        check(pair, [text, "Vote!", text.upper()])


@given(st.lists(st.text(), max_size=3))
def test_any_texts_have_the_token_ids_of_the_rust_library(pair, texts):
    check(pair, [text for text in texts if is_unicode(text)])


def test_every_character_of_the_first_ten_thousand_alone_and_between_letters(pair):
    characters = [chr(code) for code in range(10_000)]
    check(pair, characters + [f"a{c}B {c} ?{c}" for c in characters])


def test_hostile_texts_have_the_token_ids_of_the_rust_library(pair):
    check(pair, [text for text in hostile_texts() if is_unicode(text) and len(text) <= 64 * 250])


def test_texts_are_cut_at_the_maximum_length():
    texts = [" ".join("a" * count) for count in range(12)] + ["unbelievable unbelievable"] * 2
    for max_length in (3, 4, 7):
        check(both(published("http"), max_length), texts)


def test_more_words_than_are_kept_and_words_of_any_length(pair):
    check(pair, [f"w{number} x{number}y" for number in range(MOST_WORDS + 10)])
    check(pair, ["q" * length for length in range(1, 130)] + ["q1" * length for length in range(1, 130)])


def test_long_texts_are_looked_at_in_bounded_portions(pair, monkeypatch):
    portions = []
    real = WordTokenizer._many
    monkeypatch.setattr(
        WordTokenizer, "_many", lambda self, texts: portions.append(sum(map(len, texts))) or real(self, texts)
    )
    monkeypatch.setattr(word_tokenizer, "_MOST_CHARACTERS", 5_000)
    texts = [f"{number} " + "vote caf\u00e9 " * (number % 700) for number in range(50)]
    ours, theirs = pair
    assert ours.encode(texts).ids == [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert len(portions) > 1
    assert max(portions) <= 5_000 + max(map(len, texts))


def test_several_threads_get_the_same_ids(pair):
    ours, theirs = pair
    texts = [
        f"{word} {number} caf\u00e9 http://t.co/{number}" for number in range(300) for word in ("vote", "unbelievable")
    ]
    expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
    with ThreadPoolExecutor(8) as pool:
        for tokens in pool.map(ours.encode, [texts] * 40):
            assert tokens.ids == expected


def test_tokenizers_with_steps_that_are_not_known_are_left_to_the_library():
    data = published("http")
    bert = normalizers.BertNormalizer()

    def by_words(change: Callable[[Tokenizer], object]) -> bool:
        tokenizer = Tokenizer.from_buffer(data)
        change(tokenizer)
        return WordTokenizer.of(tokenizer, 64) is not None

    assert by_words(lambda tokenizer: None)
    assert by_words(lambda tokenizer: setattr(tokenizer, "normalizer", bert))
    for other in (
        None,
        normalizers.Lowercase(),
        normalizers.Sequence([]),
        normalizers.Sequence([bert, normalizers.Lowercase()]),
        normalizers.Sequence([normalizers.NFC(), bert]),
        normalizers.Sequence([normalizers.Replace("&amp;", "and"), bert]),
        normalizers.BertNormalizer(clean_text=False),
    ):
        assert not by_words(lambda tokenizer, other=other: setattr(tokenizer, "normalizer", other)), other
    for splits in (None, pre_tokenizers.Whitespace()):
        assert not by_words(lambda tokenizer, splits=splits: setattr(tokenizer, "pre_tokenizer", splits)), splits
    twice = processors.TemplateProcessing(single="[CLS] $A [SEP] $A", special_tokens=[("[CLS]", 101), ("[SEP]", 102)])
    assert not by_words(lambda tokenizer: setattr(tokenizer, "post_processor", twice))
    assert not by_words(
        lambda tokenizer: setattr(tokenizer, "model", WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    )
    for token in (AddedToken("Vote", normalized=True), AddedToken("for me", normalized=False)):
        assert not by_words(lambda tokenizer, token=token: tokenizer.add_tokens([token])), token


def test_a_tokenizer_that_fails_on_any_text_is_refused_at_once():
    tokenizer = Tokenizer.from_buffer(published("http"))
    tokenizer.model = WordPiece({"[CLS]": 0, "[SEP]": 1}, unk_token="[UNK]")
    with pytest.raises(BundleTokenizerError, match="fails on a text"):
        TextTokenizer(tokenizer.to_str().encode(), 64)


def test_added_tokens_are_found():
    tokenizer = Tokenizer.from_buffer(published("http"))
    tokenizer.add_tokens([AddedToken("@edgewren", normalized=False), AddedToken("<x>", normalized=False, lstrip=True)])
    check(
        both(tokenizer.to_str().encode()), ["hi @edgewren!", "@Edgewren @edgewren http://a@edgewren", "a <x>b <y>", "@"]
    )
