"""Whatever a text holds, it gets finite scores, the same alone and in a batch, in time that grows with its length."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hostile_texts import hostile_texts, is_unicode
from trained_tokenizers import KINDS, bundle_with, tokenizer_json

from edgewren import Classifier, tokenizer_scan
from edgewren.text import CHARACTERS_PER_TOKEN, TextTokenizer

MILLISECONDS_PER_MB = 100


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, bytes]:
    """Trained once: training breaks ties at random."""
    return {kind: tokenizer_json(kind) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def classifier(request, tokenizers, tiny_bundle, tmp_path_factory) -> Classifier:
    folder = tmp_path_factory.mktemp("hostile") / "bundle"
    return Classifier.load(bundle_with(tokenizers[request.param], tiny_bundle, folder), device="cpu", threads=2)


def test_there_are_enough_hostile_texts():
    texts = hostile_texts()
    assert len(set(texts)) >= 3000
    assert {chr(code) for code in range(0xD800, 0xE000)} <= {text[-1] for text in texts if text}


def test_hostile_texts_score_finite_and_the_same_alone_and_in_a_batch(classifier):
    texts = hostile_texts()
    scores = classifier.score(texts)
    assert scores.logits.shape == (len(texts), 2)
    assert np.isfinite(scores.logits).all()
    step = 25  # every text alone: in the slow tests
    alone = np.concatenate([classifier.score([text]).logits for text in texts[::step]])
    np.testing.assert_array_equal(alone, scores.logits[::step])
    assert [not is_unicode(text) for text in texts] == scores.repaired.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_token_ids_are_the_same_from_settings_that_were_parsed_before(tokenizers, kind):
    data = tokenizers[kind]
    texts = hostile_texts()
    made = TextTokenizer(data, 64, settings=tokenizer_scan.scan(data).settings).encode(texts)
    assert made.ids == TextTokenizer(data, 64).encode(texts).ids


@pytest.mark.slow
def test_every_hostile_text_scores_the_same_alone_and_in_a_shuffled_batch(classifier):
    texts = hostile_texts()
    alone = np.concatenate([classifier.score([text]).logits for text in texts])
    order = np.random.default_rng(5).permutation(len(texts))
    np.testing.assert_array_equal(classifier.score([texts[index] for index in order]).logits, alone[order])


@pytest.mark.parametrize(
    "unit",
    ["a", "a ", ". ", "\U0001f525", "\u4f60", "\u0301", "\ud83d", "http://x ", "\ufdfa", "\x00", "\n", "ab1!"],
    ids=ascii,
)
def test_ten_megabytes_take_at_most_a_second(classifier, unit):
    text = unit * (10 * 2**20 // max(1, len(unit.encode("utf-8", "surrogatepass"))))
    started = time.process_time()
    scores = classifier.score([text])
    assert time.process_time() - started < 10 * MILLISECONDS_PER_MB / 1000
    assert np.isfinite(scores.logits).all()
    assert scores.truncated.tolist() == [True]


UNITS = ("a", "ab1! ", "\U0001f525", "\u4f60", "\u0301", "\ufdfa")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", UNITS, ids=ascii)
def test_ten_megabytes_take_at_most_a_second_at_a_max_length_of_512_too(tokenizers, kind, unit):
    tokenizer = TextTokenizer(tokenizers[kind], 512)
    text = unit * (10 * 2**20 // len(unit.encode()))
    assert fastest(lambda: tokenizer.encode([text])) < 10 * MILLISECONDS_PER_MB / 1000


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", UNITS, ids=ascii)
def test_the_time_for_a_text_that_is_not_cut_grows_with_its_length_not_with_its_square(tokenizers, kind, unit):
    tokenizer = TextTokenizer(tokenizers[kind], 2**20 // CHARACTERS_PER_TOKEN)
    quarter = unit * (2**18 // len(unit.encode()))
    # Four times as long: 4 times the time if it is linear, 16 times if it is quadratic.
    assert fastest(lambda: tokenizer.encode([quarter * 4])) < 9 * fastest(lambda: tokenizer.encode([quarter])) + 0.05


def fastest(call) -> float:
    """Processor seconds of the best of three."""
    seconds = []
    for _ in range(3):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    return min(seconds)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_token_ids_are_those_of_transformers(tokenizers, kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "tokenizer.json").write_bytes(tokenizers[kind])
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    texts = [text for text in hostile_texts() if is_unicode(text) and len(text) <= 64 * 250]
    ours = TextTokenizer(tokenizers[kind], 64).encode(texts)
    assert ours.ids == theirs(texts, truncation=True, max_length=64)["input_ids"]
