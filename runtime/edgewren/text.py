"""From text to token ids: repair, cut, normalise, tokenise. Knows `tokenizer.json`, nothing of models or labels.

The normaliser (lower-casing, URLs to `http`, …) is part of tokenizer.json, so training, export and scoring cannot
differ: all three come through here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from edgewren.batching import TokenRows
from edgewren.errors import BundleTokenizerError
from edgewren.lifetime import native_code
from edgewren.word_tokenizer import WordTokenizer

CHARACTERS_PER_TOKEN = 250
"""Texts are cut at max_length times this many characters before tokenising: no vocabulary entry is longer on average,
and a text of many megabytes must not stall a batch."""


_SHORT = 2_000
"""A single text of so many characters is tokenised in the calling thread. A batch, even of one, goes through threads of
the tokenizer's own, which a busy machine must wake and a fork would cut off (in the child, it then does without).
A longer text goes there nonetheless, since `encode` holds the GIL (60 µs for a tweet)."""


TEXTS_PER_PIECE = {True: 2048, False: 512}
"""Texts to tokenise in one go, word by word or whole, where several threads take pieces of a longer list: while one
fetches ids (under Python's lock) the tokenizer works for another. Whole texts on 16 cores: one thread made 70,000
tweets a second into ids, four with pieces of 512 110,000, with pieces of 2,048 79,000. Word by word, two threads on
two cores, in one go each: 512 460,000 to 500,000, 1,024 640,000 to 680,000, 2,048 600,000 to 750,000, 4,096 740,000 to
780,000."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of a list of texts, in their order.

    Attributes:
        rows: ids of each text, special tokens included, at least one and at most max_length.
        truncated: bool [n], texts of which tokens were cut off.
        repaired: bool [n], texts that held lone surrogates (not valid Unicode), replaced by U+FFFD.
    """

    rows: TokenRows
    truncated: NDArray[np.bool_]
    repaired: NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Tokens]) -> Tokens:
        """Return the tokens of several lists of texts as those of one; at least one list."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            TokenRows.joined([part.rows for part in parts]),
            np.concatenate([part.truncated for part in parts]),
            np.concatenate([part.repaired for part in parts]),
        )

    @cached_property
    def ids(self) -> list[list[int]]:
        """The same ids as one list per text, for those who train and export."""
        ids, ends = self.rows.ids.tolist(), self.rows.bounds.tolist()
        return [ids[start:end] for start, end in itertools.pairwise(ends)]


def repair(text: str) -> str:
    """Return `text` as valid Unicode: split surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_unicode(text: str) -> bool:
    """Whether `text` is valid Unicode: no surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class TextTokenizer:
    """A tokenizer configured once, at load; calls change nothing, so threads can share it.

    Args:
        tokenizer_json: bytes of a tokenizer.json (Hugging Face tokenizers format).
        max_length: tokens kept of a text, special tokens included; at least 3.
        settings: what the bytes say, where somebody has parsed them already: a vocabulary of 30,522 tokens is then
            taken from there (8 ms) instead of being read again (14 ms).

    Raises:
        BundleTokenizerError: the bytes are not a tokenizer, or max_length leaves no room for text.
    """

    def __init__(self, tokenizer_json: bytes, max_length: int, *, settings: Mapping[str, Any] | None = None) -> None:
        try:
            tokenizer = (settings and _from_settings(settings)) or Tokenizer.from_buffer(tokenizer_json)
            special = tokenizer.num_special_tokens_to_add(False)
        except BaseException as error:
            raise _refusal("cannot be read", error) from error
        if max_length <= special:
            raise BundleTokenizerError(f"max_length {max_length} leaves no room beside {special} special tokens.")
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        self._tokenizer = tokenizer
        try:
            self._word_by_word = WordTokenizer.of(tokenizer, max_length)
        except BaseException as error:
            raise _refusal("fails on a text", error) from error
        self.texts_per_piece = TEXTS_PER_PIECE[self._word_by_word is not None]
        self.max_length = max_length
        # A tokenizer without special tokens gives nothing for an empty text; a model needs at least one token.
        self._empty = tokenizer.token_to_id("[UNK]") or tokenizer.token_to_id("<unk>") or 0

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Tokenise texts. Never fails on any string; truncation and repairs are reported per text."""
        truncated = np.zeros(len(texts), dtype=np.bool_)
        repaired = np.zeros(len(texts), dtype=np.bool_)
        prepared = list(texts)
        limit = self.max_length * CHARACTERS_PER_TOKEN
        if max(map(len, prepared), default=0) > limit:
            truncated[:] = [len(text) > limit for text in prepared]
            prepared = [text[:limit] for text in prepared]
        if not all(map(str.isascii, prepared)) and not is_unicode("".join(prepared)):
            repaired[:] = [not is_unicode(text) for text in prepared]
            prepared = [repair(text) for text in prepared]
        try:
            with native_code():
                rows, cut = self._rows(prepared)
        except BaseException as error:
            raise _refusal("fails on a text", error) from error
        return Tokens(rows, truncated | cut, repaired)

    def _rows(self, texts: list[str]) -> tuple[TokenRows, NDArray[np.bool_]]:
        """Return the token ids of valid texts, and which of them were cut."""
        if self._word_by_word is not None:
            return self._word_by_word.rows(texts)
        alone = len(texts) == 1 and len(texts[0]) <= _SHORT
        encodings = [self._tokenizer.encode(texts[0])] if alone else self._tokenizer.encode_batch_fast(texts)
        ids = [encoding.ids or [self._empty] for encoding in encodings]
        full = [len(row) == self.max_length and bool(encodings[index].overflowing) for index, row in enumerate(ids)]
        return TokenRows.of(ids), np.array(full, dtype=np.bool_)


def _from_settings(settings: Mapping[str, Any]) -> Tokenizer | None:
    """Return the tokenizer that these settings describe; None where only the Rust library's own reader can make it.

    It is made with the added tokens alone, which get their ids from the vocabulary, and then gets the whole one.
    """
    model, added = settings["model"], [token["content"] for token in settings["added_tokens"] or ()]
    known = {"type", "vocab", "unk_token", "max_input_chars_per_word", "continuing_subword_prefix"}
    if model["type"] != "WordPiece" or set(model) != known or not set(added) <= set(model["vocab"]):
        return None
    few = {token: model["vocab"][token] for token in (*added, model["unk_token"])}
    tokenizer = Tokenizer.from_str(json.dumps({**settings, "model": {**model, "vocab": few}}))
    tokenizer.model = WordPiece(**{name: value for name, value in model.items() if name != "type"})
    return tokenizer


def _refusal(what: str, error: BaseException) -> BaseException:
    """Return what to raise for an error of the Rust library: it raises bare Exception, and its panics not even that."""
    if isinstance(error, Exception) or type(error).__name__ == "PanicException":
        return BundleTokenizerError(f"tokenizer.json {what}: {error}. Export the bundle again.")
    return error  # KeyboardInterrupt and its like
