"""What Python normalises gives the very token ids that the Rust library gives; what it cannot, it leaves alone."""

from __future__ import annotations

import json

import pytest
from hostile_texts import hostile_texts, is_unicode
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers

from edgewren import names
from edgewren.plain_normaliser import PlainNormaliser
from edgewren.text import TextTokenizer
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


@pytest.fixture(scope="module", params=[*NORMALISERS, "cased"])
def pair(request) -> tuple[TextTokenizer, Tokenizer]:
    data = published("http", lowercase=False) if request.param == "cased" else published(request.param)
    theirs = Tokenizer.from_buffer(data)
    theirs.enable_truncation(64)
    ours = TextTokenizer(data, 64)
    assert ours._normalised is not None
    return ours, theirs


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.booleans())
@example("&amp;lt; https://a.b&amp;c\nD [x", False)
def test_any_text_has_the_token_ids_of_the_rust_library(pair, text, alone):
    ours, theirs = pair
    if not is_unicode(text):
        return
    texts = [text] if alone else [text, "Vote!", text.upper()]
    assert ours.encode(texts).ids == [theirs.encode(each).ids for each in texts]


def test_every_plain_character_alone_and_between_letters(pair):
    ours, theirs = pair
    characters = [*map(chr, range(32, 127)), "\n", *PUNCTUATION]
    texts = [template.replace("?", c) for c in characters for template in ("?", "a?B", "x ? y", "??", "?a")]
    assert ours.encode(texts).ids == [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert sum(ours._normalised(text) is not None for text in texts) == len(texts) - 5, "all but the five with ["


def test_hostile_texts_have_the_token_ids_of_the_rust_library(pair):
    ours, theirs = pair
    texts = [text for text in hostile_texts() if is_unicode(text) and len(text) <= 64 * 250]
    assert ours.encode(texts).ids == [encoding.ids for encoding in theirs.encode_batch(texts)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World", "hello, world"),
        ("RT @A: see https://t.co/x1\nNow", "rt @a: see http now"),
        ("a &amp;lt; b &lt;c&gt; &quot;d&#39;", "a &lt; b <c> \"d'"),
        ("\u201cIt\u2019s\u201d \u2014 no\u2026", "\u201cit\u2019s\u201d \u2014 no\u2026"),
        ("a&nbsp;b", None),
        ("caf\u00e9", None),
        ("tab\t", None),
        ("\x7f", None),
        ("see [MASK]", None),
        ("", ""),
    ],
)
def test_plain_texts_are_normalised_and_others_left(text, expected):
    normalise = PlainNormaliser.of(Tokenizer.from_buffer(published("http")))
    assert normalise is not None
    assert normalise(text) == expected


def test_tokenizers_with_steps_that_are_not_known_are_left_to_the_library():
    tokenizer = Tokenizer.from_buffer(published("http"))
    bert = normalizers.BertNormalizer()
    for other in (
        None,
        normalizers.Lowercase(),
        normalizers.Sequence([]),
        normalizers.Sequence([bert, normalizers.Lowercase()]),
        normalizers.Sequence([normalizers.NFC(), bert]),
        normalizers.Sequence([normalizers.Replace("&amp;", "and"), bert]),
        normalizers.BertNormalizer(clean_text=False),
    ):
        tokenizer.normalizer = other
        assert PlainNormaliser.of(tokenizer) is None, other
    tokenizer.normalizer = bert
    assert PlainNormaliser.of(tokenizer) is not None
    tokenizer.add_tokens([AddedToken("Vote", normalized=True)])
    assert PlainNormaliser.of(tokenizer) is None, "such a token is looked for in the normalised text"
