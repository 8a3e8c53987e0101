"""Twitter's own shapes as rows: v1.1 and v2 line by line, v2 pages, and the personal archive's `tweets.js`.

One row per tweet. Written as JSONL, a tweet that had a line or an array element for itself keeps it byte by byte (line
ends inside it become spaces); one from a v2 page is written out with its numbers in their own spelling, its author
beside it. Written as CSV, TSV or Parquet, it has the columns of `tweets.COLUMNS`.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgewren.archive import lines as lines_module
from edgewren.archive.json_records import JSON_SPACE, ends_early, parse_object, parse_value, type_name
from edgewren.archive.lines import ByteSource, Lines, packing_of
from edgewren.archive.rows import Block, Row, cell_text, json_text
from edgewren.archive.table import BLOCK_CHARACTERS, Format, Opening, Position, SourceTable
from edgewren.archive.tweets import COLUMNS, looks_like_page, looks_like_tweet, page_tweets, tweet_fields
from edgewren.errors import InputError

_ARCHIVE_START = re.compile(r"\s*window\.YTD\.\w+\.part\d+\s*=\s*(?=\[)")
_LINE_END = re.compile(r"[\r\n]+")
_SPACES = re.compile(r"[ \t\r\n]*")
_TELLING = frozenset({"text", "full_text"})
"""Keys of which a record that is no tweet tells that the file is not Twitter's."""


class _Page:
    """A v2 page as it stood. Its tweets are records, which take ten times its text, only while somebody needs them."""

    __slots__ = ("_records", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._records: list[dict[str, Any]] | None = None

    @property
    def records(self) -> list[dict[str, Any]]:
        if self._records is None:
            page, _, _ = parse_value(self._text, _end_of_space(self._text, 0))
            self._records = [record for record, _, _ in _from_page(page)]
        return self._records

    def rest(self) -> None:
        self._records = None


@dataclass(frozen=True, slots=True)
class _Tweet:
    """One row: a tweet's columns, and what is wrong with it.

    Attributes:
        keys: of its record; none where there is no record.
        own: its JSON on one line, or the page that it is out of.
        place: in that page.
    """

    fields: dict[str, Any]
    keys: Collection[str]
    own: str | _Page
    line: int
    error: str | None
    place: int = 0

    def as_json(self) -> str:
        if not self.keys:
            return "{}"
        return self.own if isinstance(self.own, str) else json_text(self.own.records[self.place])


class _Tweets(Block):
    def __init__(self, source: str, first: int, tweets: list[_Tweet], characters: int) -> None:
        errors = {index: tweet.error for index, tweet in enumerate(tweets) if tweet.error is not None}
        super().__init__(source, first, errors, characters)
        self._tweets = tweets

    def __len__(self) -> int:
        return len(self._tweets)

    def row(self, index: int) -> Row:
        tweet = self._tweets[index]
        raw = tweet.own if isinstance(tweet.own, str) else None
        return Row(self.first + index, tweet.line, tweet.fields, raw, tweet.error)

    def values(self, column: str) -> list[Any]:
        return [tweet.fields.get(column) for tweet in self._tweets]

    def cells(self, columns: Sequence[str]) -> list[list[str]]:
        return [[cell_text(tweet.fields.get(column)) for column in columns] for tweet in self._tweets]

    def objects(self) -> list[str]:
        return [tweet.as_json() for tweet in self._tweets]

    def rest(self) -> None:
        for tweet in self._tweets:
            if isinstance(tweet.own, _Page):
                tweet.own.rest()

    def taken(self, names: Collection[str]) -> str | None:
        return next((name for tweet in self._tweets for name in names if name in tweet.keys), None)


class _TwitterTable(SourceTable):
    format = "twitter"

    def __init__(self, opening: Opening) -> None:
        source = ByteSource(opening.source)
        super().__init__(source, COLUMNS)
        position = opening.position or {}
        self._row = position.get("rows", 0)
        self._line = position.get("line", 0)
        try:
            self._lines = Lines(
                source,
                encoding=opening.encoding,
                packed=packing_of(source),
                only_newline=True,
                skip=position.get("characters", 0),
            )
            self._texts = self._lines.characters()
            self._buffer = ""  # what was read of the text and not yet consumed
            self._characters = position.get("characters", 0)
            self._any = self._characters > 0  # whether something was consumed
            self._kind = position.get("kind", 0) or self._look()
        except BaseException:
            source.close()
            raise
        self._units = self._array() if self._kind == _ARRAY else self._documents()

    @property
    def position(self) -> Position:
        return {"characters": self._characters, "rows": self._row, "line": self._line, "kind": self._kind}

    @property
    def rows_read(self) -> int:
        return self._row

    def read(self, rows: int) -> Block | None:
        found: list[_Tweet] = []
        start = self._characters
        while not found or (len(found) < rows and self._characters - start < BLOCK_CHARACTERS):
            unit = next(self._units, None)
            if unit is None:
                break
            found.extend(unit)
        if not found:
            return None
        block = _Tweets(self.name, self._row + 1, found, self._characters - start)
        self._row += len(found)
        return block

    def _look(self) -> int:
        """Find out whether the file is an array, and where it starts; the text is not consumed."""
        while len(self._buffer) < 1024 and self._more():
            pass
        if not self._buffer.strip():
            raise InputError(f"{self.name} is empty. Expected tweets.")
        match = _ARCHIVE_START.match(self._buffer)
        start = match.end() if match else len(self._buffer) - len(self._buffer.lstrip())
        return _ARRAY if self._buffer.startswith("[", start) else _DOCUMENTS

    def _more(self) -> bool:
        """Put the next chunk into the buffer; return whether there was one."""
        text = next(self._texts, "")
        self._buffer += text
        return bool(text)

    def _consume(self, characters: int) -> str:
        taken, self._buffer = self._buffer[:characters], self._buffer[characters:]
        self._any = True
        self._characters += characters
        self._line += taken.count("\n")
        return taken

    def _check_size(self) -> None:
        limit = lines_module.MAXIMUM_RECORD_CHARACTERS
        if len(self._buffer) > limit:
            raise InputError(
                f"{self.name}, line {self._line + 1}: a JSON document of more than {limit >> 20} MiB begins here. "
                "Split it, for example into one tweet per line, or name the format with --format."
            )

    # Lines, each with a tweet or a page, and documents that are spread over lines

    def _documents(self) -> Iterator[list[_Tweet]]:
        while self._buffer or self._more():
            searched = 0
            while (end := self._buffer.find("\n", searched)) < 0:
                searched = len(self._buffer)
                if not self._more():
                    end = searched - 1
                    break
                self._check_size()
            text = self._buffer[: end + 1]
            if not text.strip(JSON_SPACE):
                self._consume(len(text))
                continue
            record, error = parse_object(text)
            if error == "not valid JSON":
                spread = self._spread_document()
                if spread is not None:
                    yield spread
                    continue
            line = self._line + 1
            self._consume(len(text))
            yield list(self._of(text, record, error, line))

    def _spread_document(self) -> list[_Tweet] | None:
        """Return the tweets of a document that begins here and ends on a later line, if there is one.

        It begins at the start of its line: what is indented is a part of one that is damaged.
        """
        if self._any and not self._buffer.startswith("{"):
            return None
        start = _end_of_space(self._buffer, 0)
        wanted = 0
        while True:
            while len(self._buffer) < wanted and self._more():
                pass
            value, end, error = parse_value(self._buffer, start)
            if error is None:
                break
            # A torn line shows at once: the next one does not go on with it.
            if len(self._buffer) < wanted or not ends_early(self._buffer[: self._buffer.rfind("\n") + 1], start):
                return None
            self._check_size()
            # Parsing again at each chunk would be quadratic.
            wanted = min(2 * len(self._buffer), lines_module.MAXIMUM_RECORD_CHARACTERS + 1)
        if not isinstance(value, dict) or (self._any and "\n" not in self._buffer[start:end]):
            return None
        line = self._line + 1
        return list(self._of(self._consume(end), value, None, line))

    def _of(self, text: str, record: dict[str, Any], error: str | None, line: int) -> Iterator[_Tweet]:
        if error is None and looks_like_page(record):
            page = _Page(text)
            for place, (full, fields, problem) in enumerate(_from_page(record)):
                yield _Tweet(fields, _keys(full), page, line, problem, place)
            return
        own = _LINE_END.sub(" ", text.strip(JSON_SPACE))
        if error is not None:
            yield _Tweet(dict.fromkeys(COLUMNS), (), own, line, error)
            return
        fields, problem = tweet_fields(record)
        yield _Tweet(fields, _keys(record), own, line, problem)

    # Elements of an array

    def _array(self) -> Iterator[list[_Tweet]]:
        first = not self._any
        if first:
            match = _ARCHIVE_START.match(self._buffer)
            self._consume(match.end() if match else _end_of_space(self._buffer, 0))
            self._consume(1)
        while True:
            start = self._next_element(first=first)
            first = False
            if start is None:
                return
            self._consume(start)
            line = self._line + 1
            value, end, error = self._element()
            text = self._consume(end)
            if error is not None:
                raise InputError(f"{self.name}, line {line}: the element that begins here is {error}. Check the file.")
            if isinstance(value, dict):
                yield list(self._of(text, value, None, line))
            else:
                own = _LINE_END.sub(" ", text)
                problem = f"a JSON {type_name(value)} where a tweet is expected"
                yield [_Tweet(dict.fromkeys(COLUMNS), (), own, line, problem)]

    def _next_element(self, *, first: bool) -> int | None:
        """Return where the next element begins in the buffer; None where the array ends, as the file must too."""
        while (place := _end_of_space(self._buffer, 0)) == len(self._buffer):
            if not self._more():
                raise InputError(f"{self.name} is cut short: its array is not closed. Get the file again.")
        found = self._buffer[place]
        if found == "]":
            self._check_end(place + 1)
            return None
        if first:
            return place
        if found != ",":
            raise InputError(f"{self.name}, line {self._line + 1}: {found!r} where ',' or ']' is expected.")
        while (after := _end_of_space(self._buffer, place + 1)) == len(self._buffer):
            if not self._more():
                raise InputError(f"{self.name} is cut short: its array is not closed. Get the file again.")
        return after

    def _element(self) -> tuple[Any, int, str | None]:
        tried = 0
        while True:
            if len(self._buffer) >= 2 * tried:  # parsing again at each chunk would be quadratic
                tried = len(self._buffer)
                value, end, error = parse_value(self._buffer)
                # A number or a word at the very end may go on in the next chunk.
                if error != "not valid JSON" and not (end == tried and not isinstance(value, (dict, list, str))):
                    return value, end, error
            if not self._more():
                value, end, error = parse_value(self._buffer)
                return value, end, error
            self._check_size()

    def _check_end(self, place: int) -> None:
        """Check that nothing follows. The bracket is not consumed: who goes on there has to find the array's end."""
        line = self._line + 1 + self._buffer.count("\n", 0, place)
        for text in itertools.chain([self._buffer[place:]], self._texts):
            if found := text.strip(JSON_SPACE + ";"):
                raise InputError(f"{self.name}, line {line}: {found[:20]!r} follows the end of the array.")
            line += text.count("\n")


_DOCUMENTS, _ARRAY = 1, 2


def _keys(record: dict[str, Any]) -> tuple[str, ...]:
    return tuple(map(sys.intern, record))  # many records, few keys: the record itself need not be kept


def _from_page(page: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any], str | None]]:
    """Yield each tweet of a v2 page: its record with its author beside it, its fields, and what is wrong with it."""
    tweets, includes = page_tweets(page)
    for tweet in tweets:
        fields, problem = tweet_fields(tweet, includes)
        author = includes["users"].get(fields["author_id"] or "")
        beside = {"author": author} if author is not None and "author" not in tweet else {}
        yield {**tweet, **beside}, fields, problem


def _end_of_space(text: str, start: int) -> int:
    match = _SPACES.match(text, start)
    return match.end() if match else start


def looks_like_twitter(head: str) -> bool:
    """Return whether a file that begins so holds tweets in one of Twitter's own shapes."""
    start = head.lstrip("\ufeff" + JSON_SPACE)
    if _ARCHIVE_START.match(start):
        return True
    if start.startswith("["):
        value, _, error = parse_value(start, _end_of_space(start, 1))
        return error is None and isinstance(value, dict) and looks_like_tweet(value)
    if not start.startswith("{"):
        return False
    value, _, error = parse_value(start)
    whole = [value] if error is None and isinstance(value, dict) else []
    for record in itertools.chain(whole, (parse_object(line)[0] for line in start.split("\n")[:-1])):
        if looks_like_tweet(record) or looks_like_page(record):
            return True
        if _TELLING & record.keys():  # others, such as notices between tweets and torn lines, tell nothing
            return False
    # A page is longer than what is looked at: it has tweets under "data", and v2's own words.
    return bool(re.match(r'\{\s*"(data|includes|meta|errors)"\s*:', start)) and bool(
        re.search(r'"(edit_history_tweet_ids|author_id|note_tweet|newest_id|result_count)"\s*:', start)
    )


FORMAT = Format("twitter", (), open=_TwitterTable, looks_like=looks_like_twitter, written_as="jsonl")
