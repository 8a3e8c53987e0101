"""Bytes to lines of text: opens files and standard input, unpacks gzip, decodes, splits. Knows no rows or columns.

Memory is constant whatever the file holds: one chunk, and one line of at most 16 MiB. What is wrong with the file as a
whole (missing, a folder, not the encoding, cut short) is an `InputError` here, with the place where it was noticed.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from edgewren.errors import InputError, UsageError

STDIN = "-"
MAXIMUM_RECORD_CHARACTERS = 16 * 2**20
"""Longest line, and longest CSV record over all its lines; the largest tweets known, with all their entities, have
about 1/200 of this."""

_CHUNK_BYTES = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class ByteSource(io.RawIOBase):
    """The bytes of a file or of standard input as they lie there, counted and hashed on their way.

    Args:
        source: path, or "-" for standard input.

    Raises:
        InputError: no such file, a folder, or not readable.
    """

    def __init__(self, source: str | Path) -> None:
        super().__init__()
        self.name = "standard input" if str(source) == STDIN else str(source)
        self._owned = str(source) != STDIN
        try:
            opened = Path(source).open("rb") if self._owned else sys.stdin.buffer  # noqa: SIM115  closed by close()
            self._raw = cast("BinaryIO", opened)
            self._peeked = self._raw.read(4)
        except FileNotFoundError as error:
            raise InputError(f"{self.name} does not exist. Check the path.") from error
        except IsADirectoryError as error:
            raise InputError(f"{self.name} is a folder, expected a file. Name the files in it.") from error
        except OSError as error:
            raise InputError(f"{self.name} cannot be read: {error.strerror or error}.") from error
        self.starts_like_gzip = self._peeked.startswith(_GZIP_MAGIC)
        self.first_bytes = self._peeked
        self.bytes_read = 0
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if self._peeked:
            data, self._peeked = self._peeked[: len(view)], self._peeked[len(view) :]
        else:
            try:
                data = self._raw.read(len(view)) or b""
            except OSError as error:
                raise InputError(
                    f"{self.name} cannot be read after byte {self.bytes_read}: {error.strerror or error}."
                ) from error
        view[: len(data)] = data
        self.bytes_read += len(data)
        self._digest.update(data)
        return len(data)

    def sha256(self) -> str:
        """Return the hash of what was read so far: the file's, once it was read to its end."""
        return self._digest.hexdigest()

    def close(self) -> None:
        if not self.closed and self._owned and hasattr(self, "_raw"):
            self._raw.close()
        super().close()


class Lines:
    r"""An iterator over the lines of a source, line ends included.

    Args:
        source: where the bytes come from.
        encoding: name of a text encoding; a byte order mark is dropped.
        gzipped: whether to unpack.
        only_newline: end lines at "\n" alone, as JSONL asks for; else also at "\r" and "\r\n", as CSV does.
            U+2028 and its like are data in both.

    Raises:
        InputError: bytes that are not of this encoding, a damaged gzip file, or a record over the limit.
        UsageError: no such encoding.
    """

    def __init__(self, source: ByteSource, *, encoding: str, gzipped: bool, only_newline: bool) -> None:
        self._source = source
        self._encoding = checked_encoding(encoding)
        self._gzipped = gzipped
        self._only_newline = only_newline
        self._lines = self._split()
        self._record_characters = 0
        self.number = 0
        """Lines handed out so far."""

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self._record_characters += len(line)
        self._check_size(self._record_characters)
        return line

    def start_record(self) -> None:
        """Tell that the next line begins a new record, which has the whole size limit for itself."""
        self._record_characters = 0

    def _check_size(self, characters: int) -> None:
        if characters > MAXIMUM_RECORD_CHARACTERS:
            raise InputError(
                f"{self._source.name}, line {self.number + 1}: a record of more than {MAXIMUM_RECORD_CHARACTERS >> 20} "
                "MiB. Check that the format is right, and for a quote that is opened and not closed."
            )

    def _split(self) -> Iterator[str]:
        ends = "\n" if self._only_newline else "\r\n"
        pending: list[str] = []
        size = 0
        carried = ""
        for chunk in self._decoded():
            text = carried + chunk
            carried = ""
            if not self._only_newline and text.endswith("\r"):  # may be the first half of \r\n
                text, carried = text[:-1], "\r"
            # StringIO splits in C, at these ends only; str.splitlines would cut tweets at U+2028.
            for line in io.StringIO(text, newline="\n" if self._only_newline else ""):
                pending.append(line)
                size += len(line)
                self._check_size(size)
                if line[-1] in ends:
                    yield "".join(pending)
                    pending.clear()
                    size = 0
        rest = "".join(pending) + carried
        if rest:
            yield rest

    def _decoded(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self._encoding)("strict")
        newlines = 0
        offset = 0
        for chunk in self._chunks_and_end():
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
            newlines += text.count("\n")
            offset += len(chunk)
            yield text

    def _undecodable(self, place: int, line: int, error: UnicodeDecodeError) -> InputError:
        guess = "utf-16" if self._source.first_bytes.startswith(_UTF16_MARKS) else "cp1252"
        unpacked = " (unpacked)" if self._gzipped else ""
        return InputError(
            f"{self._source.name}, line {line}: byte {place}{unpacked} is 0x{error.object[error.start]:02x}, which is "
            f"not valid {self._encoding.removesuffix('-sig')} ({error.reason}). Name the file's encoding, for example "
            f"--encoding {guess}."
        )

    def _chunks_and_end(self) -> Iterator[bytes]:
        yield from self._chunks()
        yield b""

    def _chunks(self) -> Iterator[bytes]:
        buffered = io.BufferedReader(self._source, _CHUNK_BYTES)
        stream = cast("BinaryIO", gzip.GzipFile(fileobj=buffered, mode="rb") if self._gzipped else buffered)
        unpacked = 0
        while True:
            try:
                chunk = stream.read(_CHUNK_BYTES)
            except EOFError as error:
                raise InputError(
                    f"{self._source.name} is cut short: the gzip data ends after {unpacked} unpacked bytes without its "
                    "end mark. Get the file again."
                ) from error
            except (gzip.BadGzipFile, zlib.error) as error:
                raise InputError(
                    f"{self._source.name} is not a sound gzip file ({error}, after {unpacked} unpacked bytes). Get the "
                    "file again, or cut off what follows the gzip data."
                ) from error
            if not chunk:
                return
            unpacked += len(chunk)
            yield chunk


def checked_encoding(name: str) -> str:
    """Return the name under which Python knows an encoding; UTF-8 becomes the one that drops a byte order mark.

    Raises:
        UsageError: no such text encoding.
    """
    try:
        known = codecs.lookup(name).name
        codecs.getincrementaldecoder(known)
        "a".encode(known)  # refuses codecs that are not text encodings, such as rot13
    except (LookupError, ValueError) as error:
        raise UsageError(f"Unknown encoding {name!r}. Expected a name such as utf-8, utf-16 or cp1252.") from error
    return "utf-8-sig" if known == "utf-8" else known
