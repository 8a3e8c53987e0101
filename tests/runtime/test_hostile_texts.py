"""Whatever a text holds, it gets finite scores, the same alone and in a batch, in time that grows with its length."""

from __future__ import annotations

import random
import time
import unicodedata

import numpy as np
import pytest
from trained_tokenizers import CORPUS, KINDS, bundle_with, tokenizer_json

from edgewren import Classifier, tokenizer_scan
from edgewren.text import CHARACTERS_PER_TOKEN, TextTokenizer

MILLISECONDS_PER_MB = 100

NAUGHTY = (
    # nothing, nearly nothing, and what looks like nothing
    "", " ", "\t", "\n", "\r\n", "\x00", "\x00\x00a", "\u200b", "\u200d", "\ufeff", "\u2060", "\u00a0", "\u3000", "\u180e", "\u2800",
    # words of other languages for nothing, for yes and no, for numbers
    "None", "null", "NaN", "nan", "inf", "-inf", "undefined", "true", "False", "0", "-0", "1e999", "0x7f", "1/0", "\u0661\u0662\u0663",
    # what programs take for commands, markup, paths, patterns
    "'; DROP TABLE tweets; --", "=1+1", "=cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "${jndi:ldap://x/y}", "{{7*7}}", "%s%n%x", "$(reboot)",
    "`id`", "<script>alert(1)</script>", "<![CDATA[", "<?xml version='1.0'?>", "&amp;lt;&#x41;&lt;", "../../etc/passwd", "C:\\con\\nul",
    "file:///etc/passwd", "http://", "https://\u202eexe.txt", "http://a" + "/b" * 300, "(a+)+$", "\\", "\\u0000", "\"'`", "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "<s></s><pad><unk><mask>", "[CLS][SEP]" * 50, "##ing ##", "\u2581\u2581\u2581", "\u0120\u0120", "<0x41><0xFF>",
    # letters that grow, shrink or turn when normalised
    "\ufdfa", "\ufdfa" * 50, "\u0130\u0131", "\u1e9e\u00df", "\u0149", "\u01c4\u01c5", "\ufb03", "\u2126\u212b", "\u1100\u1161\u11a8", "\uac01", "e\u0301", "\u00e9",
    "a" + "\u0301" * 500, "Z" + "\u0336\u0345\u035c" * 100, "\u0344", "\u0f73", "\u2adc", "\u1d400\U0001d400", "\uff21\uff22", "\u3392\u33c4",
    # directions, joiners, flags, families, tags, private and unassigned places
    "\u202eevil\u202c", "\u2066a\u2069", "\u061c", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f1e9\U0001f1ea", "\U0001f1e9", "\U0001f44d\U0001f3ff",
    "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\ue000", "\U0010fffd", "\ufffe", "\uffff", "\U0001fffe", "\u0378", "\ufff9a\ufffab\ufffb", "\u2028a\u2029b", "\x85",
    # scripts without spaces
    "\u4f60\u597d\u4e16\u754c", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u1019\u103c\u1014\u103a\u1019\u102c", "\u3053\u3093\u306b\u3061\u306f", "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd",
    "\u0627\u0644\u0633\u0644\u0627\u0645", "\u0928\u092e\u0938\u094d\u0924\u0947", "\U00012000\U00012001", "\U00020000\U0002a6d6",
    # long without end, and all alike
    "a" * 5000, "a " * 3000, "." * 5000, "\U0001f525" * 2000, "ab" * 4000, "\u4f60" * 3000, "#" * 999, "9" * 4000, "\n" * 3000, "aA" * 2000, "http://x " * 800,
    # halves of surrogate pairs
    "\ud83d", "\ude00", "\ude00\ud83d", "a\ud83db", "\ud83d\ude00", "\ud83d" * 100, "\udcff\udc80",
)  # fmt: skip


def hostile_texts() -> list[str]:
    """More than three thousand: every lone surrogate, every control and format character, our list, and mixtures."""
    surrogates = [f"late {chr(code)}" for code in range(0xD800, 0xE000)]
    controls = [
        f"fer{chr(code)}ry"
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp", "Zs")
    ]
    draw = random.Random(11)
    mixed = ["".join(draw.choices(NAUGHTY, k=3))[: draw.randint(1, 400)] for _ in range(500)]
    wild = ["".join(chr(draw.randrange(0x110000)) for _ in range(draw.randint(1, 60))) for _ in range(500)]
    return [*surrogates, *controls, *NAUGHTY, *mixed, *wild, *CORPUS]


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


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
