"""The normaliser inside tokenizer.json: the same ids as Python code in front of the tokenizer."""

from __future__ import annotations

import html
import json
import re

import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from edgewren import tokenizer_scan
from edgewren.errors import UsageError
from edgewren.text import TextTokenizer
from edgewren_train.encoders import tokenizer_files
from edgewren_train.normalisers import NORMALISERS, with_normaliser

ENTITIES = ("&lt;", "&gt;", "&quot;", "&#39;", "&nbsp;", "&amp;")
TWEETS = [
    "Thanks! https://t.co/AbCdEf",
    "https://t.co/AbCdEf",
    "two: http://a.b/c?d=e&amp;f=g https://t.co/x, and text",
    "not a link: https:// , httpx://a http:/a",
    "glued:https://t.co/AbC\nnext line http://t.co/x\tTAB",
    "Fish &amp; chips &lt;3 &gt; &quot;salad&quot; &#39;today&#39;&nbsp;!",
    "&amp;lt; stays escaped once, &amp;amp; too",
    "&& & &am p; &ltx &LT; &unknown; &#40;",
    "HTTPS://T.CO/X is upper case",
    "emoji 🔥https://t.co/x🔥 مرحبا https://t.co/x",
    "",
    "https://",
    "&nbsp;&nbsp;",
]
pieces = st.one_of(
    st.sampled_from(
        [*ENTITIES, "https://", "http://", "http", "&", ";", "amp;", "lt;", " ", "\n", "t.co/AbC", "ferry"]
    ),
    st.text(max_size=8),
)


def in_python(text: str) -> str:
    """Do the same before the tokenizer: links first, then each of the entities once, by the standard library."""
    # Python takes U+001C to U+001F for white space, the regular expressions inside tokenizer.json don't.
    text = re.sub(r"https?://[\S\x1c-\x1f]+", "http", text)
    return re.sub("|".join(ENTITIES), lambda match: html.unescape(match.group()), text)


@pytest.fixture(scope="module")
def plain(tokenizer_json):
    return Tokenizer.from_str(with_normaliser(tokenizer_json, "none"))


@pytest.fixture(scope="module")
def http(tokenizer_json):
    return Tokenizer.from_str(with_normaliser(tokenizer_json, "http"))


@pytest.mark.parametrize("text", TWEETS)
def test_http_gives_the_ids_of_python_code_before_the_tokenizer(plain, http, text):
    assert http.encode(text).ids == plain.encode(in_python(text)).ids


@given(st.lists(pieces, max_size=8).map("".join))
def test_http_gives_the_ids_of_python_code_for_any_text(plain, http, text):
    assert http.encode(text).ids == plain.encode(in_python(text)).ids


def test_http_makes_all_links_alike(http):
    assert http.encode("see https://t.co/AbC now").ids == http.encode("see http://example.org/other now").ids
    assert http.encode("see http now").ids == http.encode("see https://t.co/AbC now").ids


def test_http_keeps_the_tokenizers_own_normaliser(http):
    assert http.encode("FERRY").tokens == ["[CLS]", "ferry", "[SEP]"]


def test_http_works_where_the_tokenizer_has_no_normaliser_of_its_own(encoder_folder):
    text = (encoder_folder("roberta") / "tokenizer.json").read_text(encoding="utf-8")
    assert json.loads(text)["normalizer"] is None
    http = Tokenizer.from_str(with_normaliser(text, "http"))
    plain = Tokenizer.from_str(with_normaliser(text, "none"))
    for tweet in TWEETS:
        assert http.encode(tweet).ids == plain.encode(in_python(tweet)).ids


def test_none_changes_nothing_but_padding_and_truncation(tokenizer_json):
    before, after = json.loads(tokenizer_json), json.loads(with_normaliser(tokenizer_json, "none"))
    assert (after.pop("padding"), after.pop("truncation")) == (None, None)
    del before["padding"], before["truncation"]
    assert after == before


def test_unknown_normaliser_is_refused_with_the_known_ones(tokenizer_json):
    with pytest.raises(UsageError, match="Unknown normaliser 'emoji'. Expected one of: none, http"):
        with_normaliser(tokenizer_json, "emoji")


@pytest.mark.parametrize("normaliser", ["none", "http"])
@pytest.mark.parametrize("architecture", ["bert", "mpnet", "roberta"])
def test_files_load_in_transformers_with_the_runtimes_ids(encoder_folder, tmp_path, architecture, normaliser):
    original = AutoTokenizer.from_pretrained(encoder_folder(architecture))
    files = tokenizer_files(original, normaliser=normaliser, max_length=24)
    files.write(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours = TextTokenizer(files.tokenizer.encode(), 24)
    assert type(theirs) is PreTrainedTokenizerFast
    texts = [*TWEETS, *tiny_models.MIXED_TEXTS]
    encoded = theirs(texts, truncation=True)
    assert encoded["input_ids"] == ours.encode(texts).ids
    assert "token_type_ids" not in encoded
    assert theirs.model_max_length == 24
    assert (theirs.pad_token, theirs.unk_token) == (original.pad_token, original.unk_token)


def test_loading_knows_every_step_of_every_normaliser():
    steps = {("Regex", pattern, content) for steps in NORMALISERS.values() for pattern, content in steps}
    assert steps <= tokenizer_scan.REPLACEMENTS
