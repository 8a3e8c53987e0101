"""Token ids word by word, for BERT's tokenizers: each word is asked for once, then looked up.

What BERT's normaliser, its splitting at punctuation and WordPiece make of a text is what they make of its parts
between spaces, one after the other; and of printable ASCII, what they make of its words. The Rust library follows each
character of each text through every step, since it must tell where a token came from; nobody asks for that here. So
words come from a table, and only new ones from the library: the same ids, at a tenth of the cost. Tokenizers of other
kinds are left to the library.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from edgewren.batching import TokenRows, ranges
from edgewren.word_table import LONGEST, WordTable

_FEW_CHARACTERS = 2_000
"""Less text than this is taken apart in Python: some fifty calls of numpy cost more than they bring."""

_MOST_CHARACTERS = 250_000
"""Looked at in one go, or one text more: two thousand tweets. Arrays take up to sixty times the text's memory."""

_FEW_OTHERS = 4  # parts of one short text that the library is asked about one by one; with more, about the text

_MOST_PARTS = 4_096
_LONGEST_PART = 32  # characters; longer ones do not come twice
_TABLES = 16  # threads that find a table of their own; more begin with an empty one

_URL = r"https?://\S+"
_is_entity = re.compile(r"&#?[a-z0-9]+;").fullmatch  # as a pattern, it stands for itself
_shorten_urls = re.compile(_URL).sub
_find_words = re.compile(r"[a-zA-Z0-9]+|[^ \na-zA-Z0-9]").findall  # in plain text

_BETWEEN = "\x1e"  # stands between texts; they hold another control character instead, which the normaliser drops, too
_MARKS = "‘’“”–—…•"  # noqa: RUF001  punctuation outside of ASCII: three bytes of UTF-8 each, the first of them E2
_LETTER, _MARK, _FIRST, _NEXT, _OTHER = 1, 2, 3, 4, 5


def _kinds(plain: str) -> NDArray[np.uint8]:
    """What a byte of UTF-8 is, uint8 [256].

    Part of a word, a mark of its own, the first byte of one of `_MARKS` (if the next two say so) or a further one,
    something else that the library must be asked about; 0: a space.
    """
    kinds = np.full(256, _OTHER, dtype=np.uint8)
    for character in plain:
        kinds[ord(character)] = _LETTER if character.isalnum() else _MARK
    kinds[[ord(" "), ord("\n")]] = 0
    kinds[ord(_BETWEEN)] = _MARK
    kinds[0xE2], kinds[0x80:0xC0] = _FIRST, _NEXT
    return kinds


_IS_MARK = np.zeros(256, dtype=np.bool_)
"""By the third byte of a character that begins with the bytes E2 80."""
_IS_MARK[[mark.encode()[2] for mark in _MARKS]] = True


class WordTokenizer:
    """A BERT tokenizer, word by word. Safe to call from several threads at once.

    Args:
        tokenizer: truncates to `max_length`.
        max_length: tokens kept of a text, special tokens included.
        special: ids before and behind those of the text.
        urls: the tokenizer makes each URL "http".
        lowercase: it makes letters small.
        reserved: characters with which something begins that is more than words: added tokens, HTML entities.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        special: tuple[Sequence[int], Sequence[int]],
        *,
        urls: bool,
        lowercase: bool,
        reserved: Iterable[str],
    ) -> None:
        self._tokenizer = tokenizer
        self._model: WordPiece = tokenizer.model
        self._max_length = max_length
        self._before, self._behind = special
        self._urls = urls
        self._lowercase = lowercase
        plain = "".join(chr(code) for code in range(32, 127) if chr(code) not in reserved)
        self._find_other = re.compile(f"[^\n{re.escape(plain)}{_MARKS}]").search
        self._kinds = _kinds(plain)
        self._parts: dict[str, Sequence[int]] = {}
        self._tables: deque[WordTable] = deque(maxlen=_TABLES)  # those that no thread uses just now

    @classmethod
    def of(cls, tokenizer: Tokenizer, max_length: int) -> Self | None:
        """Return the same tokenizer word by word; None where it has steps that are not known to go word by word."""
        steps = [] if tokenizer.normalizer is None else _steps(json.loads(tokenizer.normalizer.__getstate__()))
        if not steps or steps[-1]["type"] != "BertNormalizer" or not steps[-1]["clean_text"]:
            return None
        splits = tokenizer.pre_tokenizer and json.loads(tokenizer.pre_tokenizer.__getstate__())["type"]
        if splits != "BertPreTokenizer" or not isinstance(tokenizer.model, WordPiece):
            return None
        added = tokenizer.get_added_tokens_decoder().values()
        if any(token.normalized or " " in token.content for token in added):  # not looked for in the text as it came
            return None
        reserved = {token.content[:1] for token in added}
        urls = False
        for step in steps[:-1]:
            pattern = step.get("pattern", {}).get("Regex") if step["type"] == "Replace" else None
            if pattern == _URL and step["content"] == "http":
                urls = True
            elif pattern is not None and _is_entity(pattern):
                reserved.add("&")
            else:
                return None
        special = _special(tokenizer)
        if special is None or not any(special):
            return None
        return cls(tokenizer, max_length, special, urls=urls, lowercase=steps[-1]["lowercase"], reserved=reserved)

    def rows(self, texts: Sequence[str]) -> tuple[TokenRows, NDArray[np.bool_]]:
        """Return the token ids of valid texts, and which were cut at max_length, bool [n]."""
        lengths = list(map(len, texts))
        if sum(lengths) <= _FEW_CHARACTERS:
            return self._few(texts)
        cuts = np.flatnonzero(np.diff(np.cumsum(lengths) // _MOST_CHARACTERS)) + 1
        bounds = [0, *cuts.tolist(), len(texts)]
        parts = [self._many(texts[start:end]) for start, end in itertools.pairwise(bounds)]
        return TokenRows.joined([rows for rows, _ in parts]), np.concatenate([cut for _, cut in parts])

    def _few(self, texts: Sequence[str]) -> tuple[TokenRows, NDArray[np.bool_]]:
        room = self._max_length - len(self._before) - len(self._behind)
        truncated = np.zeros(len(texts), dtype=np.bool_)
        rows = []
        for row, text in enumerate(texts):
            parts = text.split(" ")
            known, others = self._known(parts)
            if len(others) > _FEW_OTHERS:
                ids = self._ask([text])[0]
            else:
                known |= self._asked(others)
                ids = list(itertools.chain.from_iterable(known[part] for part in parts))
            truncated[row] = len(ids) > room
            rows.append([*self._before, *ids[:room], *self._behind])
        return TokenRows.of(rows), truncated

    def _known(self, parts: Iterable[str]) -> tuple[dict[str, Sequence[int]], list[str]]:
        """Return the ids of parts of texts that stood between spaces, and the parts that the library must be asked."""
        known: dict[str, Sequence[int]] = {}
        others: list[str] = []
        for part in dict.fromkeys(parts):
            ids = self._parts.get(part)
            if ids is not None:
                known[part] = ids
            elif self._find_other(part) is None:
                known[part] = self._kept(part, self._of_plain(part))
            else:
                others.append(part)
        return known, others

    def _asked(self, others: list[str]) -> dict[str, Sequence[int]]:
        return {part: self._kept(part, ids) for part, ids in zip(others, self._ask(others), strict=True)}

    def _kept(self, part: str, ids: Sequence[int]) -> Sequence[int]:
        if len(part) <= _LONGEST_PART:
            if len(self._parts) >= _MOST_PARTS:
                self._parts.clear()
            self._parts[part] = ids
        return ids

    def _of_plain(self, part: str) -> list[int]:
        part = _shorten_urls("http", part) if self._urls else part
        words = _find_words(part.lower() if self._lowercase else part)
        return [token.id for word in words for token in self._model.tokenize(word)]

    def _ask(self, parts: list[str]) -> list[list[int]]:
        """Return what the library makes of each. A batch wakes threads of its own, so few are asked one by one."""
        if len(parts) <= _FEW_OTHERS and sum(map(len, parts)) <= _FEW_CHARACTERS:
            return [self._tokenizer.encode(part, add_special_tokens=False).ids for part in parts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(parts, add_special_tokens=False)]

    def _many(self, texts: Sequence[str]) -> tuple[TokenRows, NDArray[np.bool_]]:
        joined = _BETWEEN.join(["", *texts, ""])
        if joined.count(_BETWEEN) != len(texts) + 1:
            joined = _BETWEEN.join(["", *(text.replace(_BETWEEN, "\x1f") for text in texts), ""])
        data = b"".join([joined.encode(), bytes(LONGEST)])
        codes = np.frombuffer(data, dtype=np.uint8)
        kinds = self._kinds.take(codes[:-LONGEST])
        aside, places = _set_aside(data, codes, kinds)
        if self._urls:
            _leave_http(codes, kinds)
        starts, lengths = _words(kinds)
        is_aside = np.zeros(len(starts), dtype=np.bool_)
        is_aside[np.searchsorted(starts, places)] = True
        data = data.lower() if self._lowercase else data
        first, count, values = self._look_up(data, starts, lengths, is_aside, aside)
        ends = np.cumsum(count, dtype=np.int64)
        ids = values.take(ranges(first, count))
        return self._with_special(ids, np.diff(ends[codes.take(starts) == ord(_BETWEEN)]))

    def _look_up(
        self,
        data: bytes,
        starts: NDArray[np.intp],
        lengths: NDArray[np.intp],
        is_aside: NDArray[np.bool_],
        aside: list[str],
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Return where each word's ids are, first and count, int32 [words], and in what, int32."""
        try:
            table = self._tables.pop()
        except IndexError:  # all are in use
            table = WordTable()
        first, count, unknown = table.find(data, starts, lengths, but=is_aside)
        values = table.values
        if len(unknown):
            where = zip(*(column[unknown].tolist() for column in (starts, lengths, is_aside)), strict=True)
            words = [None if known else data[start : start + length] for start, length, known in where]
            ids = self._learn(table, words, aside)
            count[unknown] = [len(each) for each in ids]
            first[unknown] = len(values) + np.cumsum(count[unknown]) - count[unknown]
            values = np.concatenate([values, np.array(list(itertools.chain.from_iterable(ids)), dtype=np.int32)])
        self._tables.append(table)
        return first, count, values

    def _learn(self, table: WordTable, words: list[bytes | None], aside: list[str]) -> list[Sequence[int]]:
        """Return the ids of words that the table does not know, and teach it; None stands for the next part aside."""
        new = dict.fromkeys(word for word in words if word is not None)
        between = _BETWEEN.encode()
        known: dict[bytes, Sequence[int]] = {
            word: () if word == between else [token.id for token in self._model.tokenize(word.decode())] for word in new
        }
        table.add(list(known), list(known.values()))
        parts, others = self._known(aside)
        parts |= self._asked(others)
        next_one = iter(aside)
        return [parts[next(next_one)] if word is None else known[word] for word in words]

    def _with_special(self, ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> tuple[TokenRows, NDArray[np.bool_]]:
        """Cut texts that are too long, and put the special tokens around each."""
        special = len(self._before) + len(self._behind)
        room = self._max_length - special
        truncated = lengths > room
        if truncated.any():
            ids, lengths = ids[ranges(np.zeros_like(lengths), lengths) < room], np.minimum(lengths, room)
        bounds = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths + special, out=bounds[1:])
        rows = np.empty(bounds[-1], dtype=np.int32)
        rows[ranges(bounds[:-1] + len(self._before), lengths)] = ids
        for index, token in enumerate(self._before):
            rows[bounds[:-1] + index] = token
        for index, token in enumerate(self._behind):
            rows[bounds[1:] - len(self._behind) + index] = token
        return TokenRows(rows, bounds), truncated


def _set_aside(data: bytes, codes: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> tuple[list[str], NDArray[np.intp]]:
    """Return the parts between spaces that the library must be asked about, neighbours in one, and where they start.

    In `kinds`, each becomes a single mark.
    """
    first = np.flatnonzero(kinds == _FIRST)
    kinds[first[(codes[first + 1] != 0x80) | ~_IS_MARK[codes[first + 2]]]] = _OTHER
    others = np.flatnonzero(kinds == _OTHER)
    if not len(others):
        return [], others
    own = codes[: len(kinds)]
    ends = np.flatnonzero((own == ord(" ")) | (own == ord(_BETWEEN)))  # of parts; the first is before them all
    parts = np.searchsorted(ends, others)
    parts = parts[np.diff(parts, prepend=0) > 0]
    apart = (np.diff(parts) > 1) | (own[ends[parts[:-1]]] == ord(_BETWEEN))
    starts = ends[parts[np.concatenate([[True], apart])] - 1] + 1
    stops = ends[parts[np.concatenate([apart, [True]])]]
    _blank(kinds, starts, stops)
    kinds[starts] = _MARK
    return [data[start:stop].decode() for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)], starts


def _leave_http(codes: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> None:
    """Let nothing but "http" be left of each URL in `kinds`: what `_URL` finds, in what was not set aside."""
    colons = np.flatnonzero(kinds == _MARK)
    colons = colons[(codes[colons] == ord(":")) & (codes[colons + 1] == ord("/")) & (codes[colons + 2] == ord("/"))]
    gaps = np.flatnonzero((kinds == 0) | (codes[: len(kinds)] == ord(_BETWEEN)))
    ends = gaps[np.searchsorted(gaps, colons)]
    before = colons - (codes[colons - 1] == ord("s"))  # a URL's scheme ends here, whatever the colon belongs to
    scheme = np.array([codes[np.maximum(before - 4 + place, 0)] == code for place, code in enumerate(b"http")])
    is_url = scheme.all(axis=0) & (ends > colons + 3)
    _blank(kinds, before[is_url], ends[is_url])


def _blank(kinds: NDArray[np.uint8], starts: NDArray[np.intp], stops: NDArray[np.intp]) -> None:
    """Make spaces of what is between these places."""
    kinds[ranges(starts, stops - starts)] = 0


def _words(kinds: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where words and marks start, and how many bytes they take, [words] each. A text of spaces has none."""
    letter, further, starts = kinds == _LETTER, kinds == _NEXT, kinds == _MARK
    ends = starts.copy()
    starts |= kinds == _FIRST
    starts[1:] |= letter[1:] & ~letter[:-1]
    ends[:-1] |= (letter[:-1] & ~letter[1:]) | (further[:-1] & ~further[1:])
    first = np.flatnonzero(starts)
    return first, np.flatnonzero(ends) - first + 1


def _special(tokenizer: Tokenizer) -> tuple[Sequence[int], Sequence[int]] | None:
    """Return the ids that the tokenizer puts before and behind a text's own; None where it does something else."""
    own, whole = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    if len(own) != 1 or whole.count(own[0]) != 1 or len(whole) != 1 + tokenizer.num_special_tokens_to_add(False):
        return None
    place = whole.index(own[0])
    return whole[:place], whole[place + 1 :]


def _steps(normaliser: dict[str, Any]) -> list[dict[str, Any]]:
    nested: list[dict[str, Any]] | None = normaliser.get("normalizers")
    return [normaliser] if nested is None else nested
