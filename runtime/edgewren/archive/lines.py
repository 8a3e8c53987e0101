r"""Files to lines of text: opens, hashes, unpacks, decodes, splits. Knows no rows or columns.

Memory is constant whatever the file holds: one chunk, and one record of at most 16 MiB. What is wrong with the file as
a whole (missing, a folder, not the encoding, cut short) is an `InputError` here, with the place where it was noticed.

Lines come from `io.StringIO` pieces chained in C, so they cost no Python call each; `position` counts the characters of
the decoded text up to the line last handed out, which is all that is needed to go on from there another time.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import io
import itertools
import os
import sys
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import BinaryIO, cast

from edgewren.archive import compression
from edgewren.archive.compression import Compression
from edgewren.errors import InputError, UsageError

STDIN = "-"
UTF_8 = "utf-8-sig"
"""The default encoding, as `checked_encoding` returns it: with or without a byte order mark."""
MAXIMUM_RECORD_CHARACTERS = 16 * 2**20
"""Longest line, longest CSV record over all its lines, and longest JSON document of several tweets; the largest tweets
known, with all their entities, have about 1/200 of this."""

_CHUNK_BYTES = 1 << 17
_FIRST_BYTES = 16
_MARK = "\ufeff"
_WIDE_SAMPLE_BYTES = 4096
_WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with UTF-16's mark
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE_ZEROS: dict[tuple[bool, ...], str] = {
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
"""Which of each four bytes are zero in the letters that tables and JSON begin with."""


def check_there(source: str | Path) -> None:
    """Raise InputError where nothing has a name, or nobody may look."""
    try:
        os.stat(source)  # noqa: PTH116  of a str as it is
    except OSError as error:
        raise unreadable(source, error) from error


def unreadable(name: str | Path, error: OSError) -> InputError:
    """Return what to say of a file that the system does not open or read."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return InputError(f"{name} does not exist. Check the path.")
    if isinstance(error, IsADirectoryError):
        return InputError(f"{name} is a folder, expected a file. Name the files in it.")
    return InputError(f"{name} cannot be read: {error.strerror or error}. Check path and permissions.")


class ByteSource:
    """The bytes of a file or of standard input as they lie there, counted and hashed on their way.

    Args:
        source: path, or "-" for standard input.

    Raises:
        InputError: no such file, a folder, or not readable.
    """

    def __init__(self, source: str | Path) -> None:
        self.name = "standard input" if str(source) == STDIN else str(source)
        self._owned = str(source) != STDIN
        if not self._owned and sys.stdin is None:
            raise InputError("Standard input is closed. Name a file.")
        try:
            opened = Path(source).open("rb", buffering=0) if self._owned else sys.stdin.buffer  # noqa: SIM115
            self._raw = cast("BinaryIO", opened)
            self.first_bytes = b""
            # A pipe may give them one by one.
            while data := self._read(_FIRST_BYTES - len(self.first_bytes)):
                self.first_bytes += data
        except OSError as error:
            raise unreadable(self.name, error) from error
        self.bytes_read = 0
        self._digest = hashlib.sha256()

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes, once. Raises InputError, caused by the OSError, where the system cannot read on."""
        data = self.first_bytes
        while data:
            self.bytes_read += len(data)
            self._digest.update(data)
            yield data
            try:
                data = self._read(_CHUNK_BYTES)
            except OSError as error:
                raise InputError(
                    f"{self.name} cannot be read after byte {self.bytes_read}: {error.strerror or error}."
                ) from error

    def _read(self, size: int) -> bytes:
        data: bytes | None = self._raw.read(size)
        if data is None:  # no end, but a pipe that has nothing yet and was set not to wait
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return data

    def sha256(self) -> str:
        """Return the hash of the first `bytes_read` bytes: the file's, once it was read to its end."""
        return self._digest.copy().hexdigest()

    def close(self) -> None:
        if self._owned:
            self._raw.close()


class Lines:
    r"""The lines of a source, line ends included, by way of `iterator`.

    Args:
        source: where the bytes come from.
        encoding: name of a text encoding; a byte order mark is dropped.
        packed: how the bytes are packed, or None.
        only_newline: end lines at "\n" alone, as JSONL asks for; else also at "\r" and "\r\n", as CSV does.
            U+2028 and its like are data in both.
        skip: characters to pass over, up to the end of a line: a `position` of an earlier reading.

    Raises:
        InputError: bytes that are not of this encoding, a damaged packed file, or a record over the limit.
        UsageError: no such encoding.
    """

    def __init__(
        self,
        source: ByteSource,
        *,
        encoding: str,
        packed: Compression | None,
        only_newline: bool,
        skip: int = 0,
    ) -> None:
        self._source = source
        self._encoding = checked_encoding(encoding)
        self._packed = packed
        self._only_newline = only_newline
        self._texts = self._decoded()
        self._rest = self._skip(skip)
        self._before = skip
        self._piece = io.StringIO()
        self.records: Sized = ()
        """Set to the list that records are put into as they are completed: tells when one comes to no end."""
        self.iterator: Iterator[str] = itertools.chain.from_iterable(self._pieces())

    @property
    def position(self) -> int:
        """Characters up to the end of the last line handed out."""
        return self._before + self._piece.tell()

    def characters(self) -> Iterator[str]:
        """Yield the text in chunks, for those who do not want lines."""
        if self._rest:
            yield self._rest
        yield from self._texts

    def _skip(self, characters: int) -> str:
        """Pass over the start of the text, and return what remains of the chunk that was reached."""
        text = ""
        while characters > len(text):
            characters -= len(text)
            text = next(self._texts, "")
            if not text:
                raise InputError(f"{self._source.name} is shorter than it was. Start over with --force.")
        return text[characters:]

    def _pieces(self) -> Iterator[io.StringIO]:
        """Yield the text in pieces that end where lines do."""
        newline = "\n" if self._only_newline else ""
        carried: list[str] = []
        size = 0
        completed = (0, 0)
        unfinished = 0  # characters handed out since a record was completed
        for text in itertools.chain(self.characters(), [""]):
            end = self._last_line_end(text) if text else 0
            if end or not text:
                ready = "".join((*carried, text[:end]))
                carried = [text[end:]]
                size = len(text) - end
                if completed != (id(self.records), len(self.records)):
                    completed, unfinished = (id(self.records), len(self.records)), 0
                self._check_size(unfinished)
                unfinished += len(ready)
                if ready:
                    self._before += len(self._piece.getvalue())
                    self._piece = io.StringIO(ready, newline=newline)
                    yield self._piece
            else:
                carried.append(text)
                size += len(text)
            self._check_size(size)

    def _last_line_end(self, text: str) -> int:
        """Return where the last complete line of a chunk ends, 0 if none does."""
        end = text.rfind("\n") + 1
        if self._only_newline:
            return end
        # A "\r" at the very end may be the first half of "\r\n".
        return max(end, text.rfind("\r", 0, len(text) - 1) + 1)

    def _check_size(self, characters: int) -> None:
        if characters > MAXIMUM_RECORD_CHARACTERS:
            raise InputError(
                f"{self._source.name}: a record of more than {MAXIMUM_RECORD_CHARACTERS >> 20} MiB, after "
                f"{self.position:,} characters. Check that the format is right, and for a quote that is opened and not "
                "closed."
            )

    def _decoded(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self._encoding)("strict")
        newlines = 0
        offset = 0
        begun = False
        for chunk in self._chunks_and_end():
            if not offset and self._encoding == UTF_8:
                self._check_narrow(chunk)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # error.object is the decoder's leftover and this chunk: its end is at offset + len(chunk).
                place = offset + len(chunk) - len(error.object) + error.start
                line = newlines + 1 + error.object[: error.start].decode(self._encoding, "replace").count("\n")
                raise self._undecodable(place, line, error) from error
            except UnicodeError as error:
                raise InputError(
                    f"{self._source.name}: not valid {self._encoding}: {error}. Name its encoding with --encoding."
                ) from error
            offset += len(chunk)
            if text and not begun:
                # utf-8-sig, utf-16 and utf-32 have dropped it; to those with a byte order in their name it is a letter.
                begun, text = True, text.removeprefix(_MARK) if self._encoding != UTF_8 else text
            if text:
                newlines += text.count("\n")
                yield text

    def _check_narrow(self, first: bytes) -> None:
        """Refuse what begins like UTF-16 or UTF-32 without a mark: as UTF-8 that is sound, with NUL in between."""
        wide = _WIDE_ZEROS.get(_zeros(first[:_FIRST_BYTES]))
        if wide is not None and first[:_FIRST_BYTES].isascii():
            raise InputError(
                f"{self._source.name} is not utf-8: its zero bytes are those of {wide}. Name the file's encoding: "
                f"--encoding {wide}."
            )

    def _undecodable(self, place: int, line: int, error: UnicodeDecodeError) -> InputError:
        unpacked = " (unpacked)" if self._packed else ""
        if self._encoding == UTF_8:
            likely = _likely_encoding(error.object, place - error.start)
            remedy = f"Name the file's encoding, for example --encoding {likely}."
        else:
            remedy = "So the file has another encoding: leave --encoding out for UTF-8, or name the right one."
        return InputError(
            f"{self._source.name}, line {line}: byte {place}{unpacked} is 0x{error.object[error.start]:02x}, which is "
            f"not valid {self._encoding.removesuffix('-sig')} ({error.reason}). {remedy}"
        )

    def _chunks_and_end(self) -> Iterator[bytes]:
        chunks = self._source.chunks()
        yield from compression.unpack(chunks, self._packed, self._source.name) if self._packed else chunks
        yield b""


def packing_of(source: ByteSource) -> Compression | None:
    """Return how a source is packed, by its first bytes and by its name, or None."""
    return compression.by_first_bytes(source.first_bytes) or compression.by_name(source.name)


def head(path: str | Path, *, encoding: str, characters: int) -> str:
    """Return up to this many characters from the start of a file, to look what it holds; "" where there are none.

    Raises:
        InputError: it cannot be opened, unpacked or decoded.
    """
    with contextlib.closing(ByteSource(path)) as source:
        lines = Lines(source, encoding=encoding, packed=packing_of(source), only_newline=True)
        text = ""
        for chunk in lines.characters():
            text += chunk
            if len(text) >= characters:
                break
        return text[:characters]


def checked_encoding(name: str) -> str:
    """Return the name under which Python knows an encoding; UTF-8 becomes the one that drops a byte order mark.

    Raises:
        UsageError: no such text encoding.
    """
    try:
        known = codecs.lookup(name).name
        codecs.getincrementaldecoder(known)
        "a".encode(known)  # refuses codecs that are not text encodings, such as rot13
        b"a".decode(known, "replace")  # and those of single names, such as idna
    except (LookupError, ValueError) as error:
        raise UsageError(f"Unknown encoding {name!r}. Expected a name such as utf-8, utf-16 or cp1252.") from error
    return UTF_8 if known == "utf-8" else known


def marked_encoding(first: bytes) -> str | None:
    """Return the encoding, other than UTF-8, whose byte order mark some first bytes begin with."""
    return next((name for mark, name in _WIDE_MARKS if first.startswith(mark)), None)


def _likely_encoding(data: bytes, begin: int) -> str:
    """Guess from bytes that are not UTF-8, and where in the text they begin, what else they are."""
    return (
        (None if begin else marked_encoding(data))
        or _WIDE_ZEROS.get(_zeros(data[-begin % 4 :][:_WIDE_SAMPLE_BYTES]))
        or "cp1252"
    )


def _zeros(data: bytes) -> tuple[bool, ...]:
    """Return at which of each four places most bytes are zero."""
    return tuple(2 * data[place::4].count(0) > len(data[place::4]) for place in range(4))
