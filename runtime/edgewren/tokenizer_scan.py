"""Is this tokenizer.json only what `edgewren export` writes? Answered before the Rust library sees it.

Three kinds of model, and the steps around them that published encoders have. No regular expressions but the known ones:
a hostile one runs for hours. Nothing random (dropout), nothing that makes a text longer without bound, and none of the
settings with which encoding fails half-way. Knows nothing of bundles.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewren import strict_json
from edgewren.errors import BundleTokenizerError
from edgewren.strict_json import JsonError

MAXIMUM_BYTES = 32 * 2**20
MAXIMUM_VOCABULARY = 500_000
MAXIMUM_ADDED_TOKENS = 10_000
MAXIMUM_TOKEN_CHARACTERS = 512

REPLACEMENTS = frozenset(
    {
        # normaliser "http" (edgewren_train.normalisers; a test holds the two together)
        ("Regex", r"https?://\S+", "http"),
        ("Regex", "&lt;", "<"),
        ("Regex", "&gt;", ">"),
        ("Regex", "&quot;", '"'),
        ("Regex", "&#39;", "'"),
        ("Regex", "&nbsp;", "\u00a0"),
        ("Regex", "&amp;", "&"),
        # what transformers writes for SentencePiece models (XLM-R, ALBERT, DeBERTa)
        ("String", "``", '"'),
        ("String", "''", '"'),
        ("Regex", " {2,}", " "),
        ("Regex", " {2,}", "\u2581"),
    }
)
"""Kind of pattern, pattern and content of all `Replace` steps that may occur, each once. None makes a text longer."""

_NORMALIZERS = frozenset(
    "BertNormalizer Lowercase NFC NFD NFKC NFKD Nmt Precompiled Replace Sequence Strip StripAccents".split()  # noqa: SIM905
)
_PRE_TOKENIZERS = frozenset(
    "BertPreTokenizer ByteLevel Digits Metaspace Punctuation Sequence Whitespace WhitespaceSplit".split()  # noqa: SIM905
)
_POST_PROCESSORS = frozenset("BertProcessing ByteLevel RobertaProcessing Sequence TemplateProcessing".split())  # noqa: SIM905
_DECODERS = frozenset("BPEDecoder ByteFallback ByteLevel Fuse Metaspace Replace Sequence Strip WordPiece".split())  # noqa: SIM905
_PARTS = {
    "normalizer": _NORMALIZERS,
    "pre_tokenizer": _PRE_TOKENIZERS,
    "post_processor": _POST_PROCESSORS,
    "decoder": _DECODERS,
}
_CHILDREN = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}
_KEYS = {"version", "truncation", "padding", "added_tokens", "model", *_PARTS}
_ONCE = frozenset({"ByteLevel", "Precompiled"})
"""Steps that can make a text longer, the second of them what the first has made: 31 times ByteLevel is 2^31 times."""

_MAXIMUM_STEPS = 32
_MAXIMUM_SPECIAL_TOKENS = 64
_MAXIMUM_WORD_CHARACTERS = 1000
_MAXIMUM_PIECE_BYTES = 64
_MAXIMUM_ID = 2**24


@dataclass(frozen=True)
class Scanned:
    """What a tokenizer that passed is.

    Attributes:
        model: the type of its model.
        tokens: how many tokens it knows without the added ones.
        settings: what the bytes say, as Python's objects.
    """

    model: str
    tokens: int
    settings: Mapping[str, Any]


def scan(data: bytes, name: str = "tokenizer.json") -> Scanned:
    """Check a tokenizer.json.

    Args:
        data: the file's bytes.
        name: what messages call it.

    Raises:
        BundleTokenizerError: anything in it that `edgewren export` does not write.
    """
    try:
        if len(data) > MAXIMUM_BYTES:
            raise JsonError(f"it has {len(data)} bytes, more than {MAXIMUM_BYTES}")
        settings = _object(strict_json.parse(data), "tokenizer.json")
        _check_settings(settings)
        model = _object(settings.get("model"), "model")
        tokens = _check_model(model)
        _check_added_tokens(settings.get("added_tokens"), tokens)
        for role in _PARTS:
            _check_part(settings.get(role), role)
        return Scanned(model["type"], len(tokens), settings)
    except JsonError as error:
        raise BundleTokenizerError(
            f"{name} is refused: {error}. Expected a tokenizer as 'edgewren export' writes it; export it again."
        ) from error


def _check_settings(settings: dict[str, Any]) -> None:
    unknown = sorted(set(settings) - _KEYS)
    if unknown:
        raise JsonError(f"it has the unknown entry {unknown[0][:64]!r}")
    if settings.get("version") != "1.0":
        raise JsonError(f"its version is {str(settings.get('version'))[:64]!r}, expected '1.0'")
    for key in ("truncation", "padding"):
        if settings.get(key) is not None:
            raise JsonError(f"it sets {key}, which belongs to whoever batches")


def _check_model(model: dict[str, Any]) -> Mapping[str, int]:
    """Check the model and return its tokens with their ids."""
    checks: dict[str, Callable[[dict[str, Any]], Mapping[str, int]]] = {
        "WordPiece": _wordpiece,
        "BPE": _bpe,
        "Unigram": _unigram,
    }
    kind = model.get("type")
    if not isinstance(kind, str) or kind not in checks:
        raise JsonError(f"its model is of type {str(kind)[:64]!r}, expected one of {', '.join(checks)}")
    small = {key: value for key, value in model.items() if key not in ("vocab", "merges")}
    strict_json.check_small(small, depth=2, values=32, characters=MAXIMUM_TOKEN_CHARACTERS)
    return checks[kind](model)


def _wordpiece(model: dict[str, Any]) -> Mapping[str, int]:
    vocabulary = _vocabulary(model.get("vocab"))
    if not _is_token(model.get("unk_token"), vocabulary):  # else encoding fails at the first unknown word
        raise JsonError("its unknown token is not in its vocabulary")
    _integer(model.get("max_input_chars_per_word"), "max_input_chars_per_word", 1, _MAXIMUM_WORD_CHARACTERS)
    return vocabulary


def _bpe(model: dict[str, Any]) -> Mapping[str, int]:
    vocabulary = _vocabulary(model.get("vocab"))
    if model.get("dropout") is not None:
        raise JsonError("its model has a dropout, so a text would get another score each time")
    unknown = model.get("unk_token")
    if unknown is not None and not _is_token(unknown, vocabulary):
        raise JsonError("its unknown token is not in its vocabulary")
    merges = model.get("merges")
    if not isinstance(merges, list) or len(merges) > MAXIMUM_VOCABULARY:
        raise JsonError(f"its merges are no list of at most {MAXIMUM_VOCABULARY}")
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(_is_token(part, vocabulary) for part in pair):
            raise JsonError(f"its merge {str(merge)[:64]!r} is no pair of tokens of its vocabulary")
    return vocabulary


def _unigram(model: dict[str, Any]) -> Mapping[str, int]:
    entries = model.get("vocab")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAXIMUM_VOCABULARY:
        raise JsonError(f"its vocabulary is no list of 1 to {MAXIMUM_VOCABULARY} tokens")
    for entry in entries:
        if (
            not isinstance(entry, list)
            or len(entry) != 2
            or not isinstance(entry[0], str)
            or len(entry[0]) > MAXIMUM_TOKEN_CHARACTERS
            or not isinstance(entry[1], float | int)
            or not math.isfinite(entry[1])
        ):
            raise JsonError(f"its vocabulary holds {str(entry)[:64]!r}, expected a token and a finite number")
    _integer(model.get("unk_id"), "unk_id", 0, len(entries) - 1)  # without it encoding fails at the first unknown word
    return {entry[0]: index for index, entry in enumerate(entries)}


def _vocabulary(value: Any) -> dict[str, int]:
    vocabulary = _object(value, "vocabulary")
    if not 1 <= len(vocabulary) <= MAXIMUM_VOCABULARY:
        raise JsonError(f"its vocabulary has {len(vocabulary)} tokens, expected 1 to {MAXIMUM_VOCABULARY}")
    ids = list(vocabulary.values())
    if set(map(type, ids)) != {int} or not 0 <= min(ids) <= max(ids) < _MAXIMUM_ID:
        raise JsonError(f"its vocabulary holds an id that is no integer from 0 to {_MAXIMUM_ID - 1}")
    if max(map(len, vocabulary)) > MAXIMUM_TOKEN_CHARACTERS:
        raise JsonError(f"its vocabulary holds a token of more than {MAXIMUM_TOKEN_CHARACTERS} characters")
    return vocabulary


def _check_added_tokens(value: Any, vocabulary: Mapping[str, int]) -> None:
    if value is None:
        return
    if not isinstance(value, list) or len(value) > MAXIMUM_ADDED_TOKENS:
        raise JsonError(f"its added tokens are no list of at most {MAXIMUM_ADDED_TOKENS}")
    seen: set[str] = set()
    for entry in value:
        token = _object(entry, "added token")
        content = token.get("content")
        if not isinstance(content, str) or not 1 <= len(content) <= MAXIMUM_TOKEN_CHARACTERS or content in seen:
            raise JsonError(f"its added token {str(content)[:64]!r} has no short text of its own")
        seen.add(content)
        _integer(token.get("id"), f"the id of the added token {content[:64]!r}", 0, _MAXIMUM_ID)
        if content in vocabulary and vocabulary[content] != token["id"]:
            raise JsonError(f"its added token {content[:64]!r} has another id than in the vocabulary")
        strict_json.check_small(token, depth=1, values=16, characters=MAXIMUM_TOKEN_CHARACTERS)


def _check_part(value: Any, role: str) -> None:
    """Check a normaliser, pre-tokenizer, post-processor or decoder with all its steps."""
    if value is None:
        return
    pending, steps, seen = [_object(value, role)], 0, set[object]()
    while pending:
        part = pending.pop()
        steps += 1
        kind = part.get("type")
        if not _is_token(kind, _PARTS[role]) or steps > _MAXIMUM_STEPS:
            raise JsonError(f"its {role} has a step of type {str(kind)[:64]!r}, or too many steps")
        if kind in seen:
            raise JsonError(f"its {role} has two steps of type {kind!r}, so that a text could grow without bound")
        seen |= _ONCE & {kind}
        if kind == "Sequence":
            children = part.get(_CHILDREN[role])
            if (
                set(part) != {"type", _CHILDREN[role]}
                or not isinstance(children, list)
                or len(children) > _MAXIMUM_STEPS
            ):
                raise JsonError(f"its {role} has a sequence without steps, or with too many")
            pending.extend(_object(child, role) for child in children)
        elif kind == "Precompiled":
            _check_charsmap(part.get("precompiled_charsmap"))
        elif kind == "Replace":
            replacement = _replacement(part)
            known = replacement in REPLACEMENTS or (role == "decoder" and replacement[0] == "String")
            if not known or replacement in seen:
                raise JsonError(f"its {role} replaces {str(part.get('pattern'))[:64]!r}, which no exported model does")
            seen.add(replacement)
        else:
            strict_json.check_small(part, depth=6, values=_MAXIMUM_SPECIAL_TOKENS * 8, characters=64)
            _check_special_ids(part)
            _check_template(part)


def _replacement(part: dict[str, Any]) -> tuple[str, str, str]:
    pattern = _object(part.get("pattern"), "pattern")
    content = part.get("content")
    if set(part) != {"type", "pattern", "content"} or len(pattern) != 1 or not isinstance(content, str):
        raise JsonError("it has a Replace step without a pattern and a content")
    ((kind, text),) = pattern.items()
    if not isinstance(text, str) or not 1 <= len(text) <= 64 or len(content) > 64:
        raise JsonError("it has a Replace step with a pattern or content that is no short text")
    return kind, text, content


def _check_special_ids(part: dict[str, Any]) -> None:
    """Bound the ids that a post-processor puts around a text: nothing else compares them with the vocabulary."""
    ids = [part[key][1] for key in ("sep", "cls") if isinstance(part.get(key), list) and len(part[key]) == 2]
    special = part.get("special_tokens")
    if isinstance(special, dict):
        for entry in special.values():
            listed = _object(entry, "special token").get("ids")
            ids += listed if isinstance(listed, list) else [listed]
    for value in ids:
        _integer(value, "the id of a special token", 0, _MAXIMUM_ID)


def _check_template(part: dict[str, Any]) -> None:
    """Refuse a template that takes the text several times: of a text that is cut, all parts are combined with all."""
    single = part.get("single")
    if isinstance(single, list) and sum("Sequence" in _object(piece, "piece") for piece in single) > 1:
        raise JsonError("its post-processor takes the text more than once")


def _check_charsmap(value: Any) -> None:
    """Check a SentencePiece normaliser: a double-array trie of characters, then what they become.

    The Rust library follows it without looking, and panics where it leads outside.
    """
    try:
        blob = base64.b64decode(value if isinstance(value, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise JsonError("its precompiled normaliser is not base64") from error
    size = int.from_bytes(blob[:4], "little")
    # Blocks of 256 units, so that every byte after a node leads to a unit.
    if not 1024 <= size <= min(len(blob) - 4, 2**22) or size % 1024:
        raise JsonError("its precompiled normaliser has no trie")
    text = np.frombuffer(blob, np.uint8, offset=4 + size)
    try:
        pieces = blob[4 + size :].decode().split("\0")
    except UnicodeDecodeError as error:
        raise JsonError("its precompiled normaliser is not UTF-8") from error
    if max(len(piece.encode()) for piece in pieces) > _MAXIMUM_PIECE_BYTES:
        raise JsonError("its precompiled normaliser makes one character into many")
    units = np.frombuffer(blob, "<u4", count=size // 4, offset=4).astype(np.int64)
    nodes = np.flatnonzero(units < 2**31)
    node = units[nodes]
    base = nodes ^ ((node >> 10) << ((node & 512) >> 6))
    if (base | 255).max(initial=0) >= len(units):
        raise JsonError("its precompiled normaliser leads outside its trie")
    leaves = units[base[(node >> 8) & 1 == 1]] & (2**31 - 1)
    if leaves.size and (leaves.max() >= text.size or ((text[leaves] & 0xC0) == 0x80).any()):
        raise JsonError("its precompiled normaliser leads outside its texts")


def _is_token(value: Any, known: Collection[str]) -> bool:
    return isinstance(value, str) and value in known


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise JsonError(f"its {what} is {str(value)[:64]!r}, expected an object")
    return value


def _integer(value: Any, what: str, lowest: int, highest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise JsonError(f"{what} is {str(value)[:64]!r}, expected an integer from {lowest} to {highest}")
