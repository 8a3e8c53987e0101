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

from edgewren.batching import TokenRows
from edgewren.word_table import WordTable

_FEW_CHARACTERS = 2_000
"""Less text than this is taken apart in Python: some fifty calls of numpy cost more than they bring."""

_MOST_CHARACTERS = 120_000
"""Looked at in one go, or one text more: some thousand tweets. Arrays take up to sixty times the text's memory."""

_FEW_OTHERS = 4  # parts of one text that the library is asked about one by one; with more, about the text

_MOST_PARTS = 4_096
_LONGEST_PART = 32  # characters; longer ones do not come twice
_TABLES = 16  # threads that find a table of their own; more begin with an empty one

_URL = r"https?://\S+"
_is_entity = re.compile(r"&#?[a-z0-9]+;").fullmatch  # as a pattern, it stands for itself
_shorten_urls = re.compile(_URL).sub
_find_words = re.compile(r"[a-zA-Z0-9]+|[^ \na-zA-Z0-9]").findall  # in plain text

_BETWEEN = "\x1e"  # stands between texts, and
_ASIDE = "\x1d"  # for a part that the library is asked about; neither occurs in what is left in place
_CONTROL = dict.fromkeys((ord(_BETWEEN), ord(_ASIDE)), "\x1f")  # what texts hold instead; the normaliser drops each
_find_gap = re.compile(f"[ {_BETWEEN}]").search
_MARKS = "‘’“”–—…•"  # noqa: RUF001  punctuation outside of ASCII: three bytes of UTF-8 each, the first of them E2
_LETTER, _MARK, _FIRST, _NEXT = 1, 2, 3, 4


def _kinds() -> NDArray[np.uint8]:
    """What a byte is: part of a word, a mark of its own, the first byte of a mark or a further one; 0: a space."""
    kinds = np.zeros(256, dtype=np.uint8)
    for code in range(33, 127):
        kinds[code] = _LETTER if chr(code).isalnum() else _MARK
    kinds[[ord(_BETWEEN), ord(_ASIDE)]] = _MARK
    kinds[0xE2], kinds[0x80:0xC0] = _FIRST, _NEXT
    return kinds


_KINDS = _kinds()


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
        self._find_other = re.compile(f"[^\n{re.escape(plain)}{_MARKS}{_BETWEEN}]").search
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
            elif self._find_other(part) is None and _BETWEEN not in part:
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
        if _ASIDE in joined or joined.count(_BETWEEN) != len(texts) + 1:
            joined = _BETWEEN.join(["", *(text.translate(_CONTROL) for text in texts), ""])
        joined, aside = self._without_others(joined)
        if self._urls:
            joined = _shorten_urls("http", joined)  # \S is not _BETWEEN
        data = joined.encode()
        data = (data.lower() if self._lowercase else data) + bytes(16)
        found = np.frombuffer(data, dtype=np.uint8)
        starts, lengths = _words(found)
        first, count, values = self._look_up(data, starts, lengths, aside)
        ends = np.cumsum(count, dtype=np.int64)
        ids = values[np.repeat(first - (ends - count), count) + np.arange(ends[-1])]
        return self._with_special(ids, np.diff(ends[found[starts] == ord(_BETWEEN)]))

    def _without_others(self, joined: str) -> tuple[str, list[str]]:
        """Return the texts with something in place of each part that is not plain, and these parts in their order."""
        aside: list[tuple[int, int]] = []
        end = neighbours = 0
        while other := self._find_other(joined, end):
            place = other.start()
            start = max(joined.rfind(" ", end, place), joined.rfind(_BETWEEN, end, place)) + 1
            if aside and start == end + 1 and joined[end] == " ":  # neighbours are asked about in one
                start = aside.pop()[0]
                neighbours += 1
            else:
                neighbours = 0
            if neighbours < _FEW_OTHERS and (gap := _find_gap(joined, place)):
                end = gap.start()
            else:  # one after the other: the rest of the text
                end = joined.index(_BETWEEN, place)
            aside.append((start, end))
        ends = [0, *(end for _, end in aside)]
        plain = [joined[end:start] for end, (start, _) in zip(ends, aside, strict=False)]
        return _ASIDE.join([*plain, joined[ends[-1] :]]), [joined[start:end] for start, end in aside]

    def _look_up(
        self, data: bytes, starts: NDArray[np.intp], lengths: NDArray[np.intp], aside: list[str]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Return where each word's ids are, first and count, int32 [words], and in what, int32."""
        try:
            table = self._tables.pop()
        except IndexError:  # all are in use
            table = WordTable()
        first, count, unknown = table.find(data, starts, lengths)
        values = table.values
        if len(unknown):
            where = zip(starts[unknown].tolist(), lengths[unknown].tolist(), strict=True)
            ids = self._learn(table, [data[start : start + length] for start, length in where], aside)
            count[unknown] = [len(each) for each in ids]
            first[unknown] = len(values) + np.cumsum(count[unknown]) - count[unknown]
            values = np.concatenate([values, np.array(list(itertools.chain.from_iterable(ids)), dtype=np.int32)])
        self._tables.append(table)
        return first, count, values

    def _learn(self, table: WordTable, words: list[bytes], aside: list[str]) -> list[Sequence[int]]:
        """Return the ids of words that the table does not know, and teach it."""
        known: dict[bytes, Sequence[int]] = dict.fromkeys(words, ())  # _BETWEEN has no ids
        new = [word for word in known if word not in (_BETWEEN.encode(), _ASIDE.encode())]
        known.update((word, [token.id for token in self._model.tokenize(word.decode())]) for word in new)
        parts, others = self._known(aside)
        parts |= self._asked(others)
        next_one = iter(aside)
        answer = [parts[next(next_one)] if word == _ASIDE.encode() else known[word] for word in words]
        known.pop(_ASIDE.encode(), None)
        table.add(list(known), list(known.values()))
        return answer

    def _with_special(self, ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> tuple[TokenRows, NDArray[np.bool_]]:
        """Cut texts that are too long, and put the special tokens around each."""
        special = len(self._before) + len(self._behind)
        room = self._max_length - special
        truncated = lengths > room
        if truncated.any():
            place = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            ids, lengths = ids[place < room], np.minimum(lengths, room)
        bounds = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths + special, out=bounds[1:])
        rows = np.empty(bounds[-1], dtype=np.int32)
        rows[np.arange(len(ids)) + np.repeat(np.arange(len(lengths)) * special + len(self._before), lengths)] = ids
        for index, token in enumerate(self._before):
            rows[bounds[:-1] + index] = token
        for index, token in enumerate(self._behind):
            rows[bounds[1:] - len(self._behind) + index] = token
        return TokenRows(rows, bounds), truncated


def _words(data: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where words and marks start, and how many bytes they take, [words] each. A text of spaces has none."""
    kinds = _KINDS[data]
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
