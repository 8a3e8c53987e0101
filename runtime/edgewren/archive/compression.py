"""Packed bytes to bytes and back: gzip, zstd, xz, bzip2. Knows no text and no files.

Unpacking reads every member, frame and stream, and refuses what ends early or goes on with something else, which
zlib and tar-like tools let pass. Each call unpacks a bounded piece, so a bomb costs no memory beyond its window, and
one that unpacks to far more than texts ever do ends the run. Packing makes one self-contained member per call: members
can be appended, cut off again, and are the same bytes every time.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from edgewren.errors import InputError, MissingDependencyError

CHUNK_BYTES = 1 << 17
BOMB_BYTES = 256 * 2**20
BOMB_RATIO = 200
"""Unpacked to more than BOMB_BYTES and more than this many times the packed size: tweets come to 3 to 15 times."""

_MEMORY_LIMIT = 256 * 2**20
"""Of xz's dictionary; xz -9 needs 65 MiB."""
_ZSTD_WINDOW_LOG = 31
"""2 GiB, the most that zstd's library reads; Pushshift's dumps are made so (`zstd --long=31`). A file whose window is
smaller takes less memory, and none takes more than it unpacks to."""
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


@dataclass(frozen=True)
class Compression:
    """One way of packing.

    Attributes:
        name: as people call it.
        suffix: of file names.
        magic: first bytes of each member.
        padding: zero bytes may follow a member, in multiples of this; 0: none may.
        decompressor: makes one for the next member.
        pack: bytes to one whole member.
    """

    name: str
    suffix: str
    magic: bytes
    padding: int
    decompressor: Callable[[], _Decompressor]
    pack: Callable[[bytes], bytes]


class _Gzip:
    """zlib's inflater behind the interface that the standard library's other decompressors have."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(31)  # 31: gzip header, CRC and length are checked
        self._tail = b""

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        out = self._inflater.decompress(self._tail + data, max_length)
        self._tail = self._inflater.unconsumed_tail
        return out


def _pack_gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)  # its gzip header has no name and no time
    return packer.compress(data) + packer.flush()


def zstd_module() -> Any:
    """Return Python's zstd module, from the standard library (3.14) or its backport.

    Raises:
        MissingDependencyError: neither is there.
    """
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingDependencyError("zstd needs Python 3.14 or a package. Run: pip install 'edgewren[zstd]'.")


def _zstd_decompressor() -> _Decompressor:
    zstd = zstd_module()
    made: _Decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
    return made


def _pack_zstd(data: bytes) -> bytes:
    zstd = zstd_module()
    level, checksum = zstd.CompressionParameter.compression_level, zstd.CompressionParameter.checksum_flag
    packed: bytes = zstd.compress(data, options={level: _ZSTD_LEVEL, checksum: 1})
    return packed


COMPRESSIONS = (
    Compression("gzip", ".gz", b"\x1f\x8b", 0, _Gzip, _pack_gzip),
    Compression("zstd", ".zst", b"\x28\xb5\x2f\xfd", 0, _zstd_decompressor, _pack_zstd),
    Compression(
        "xz",
        ".xz",
        b"\xfd7zXZ\x00",
        4,
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_LIMIT),
        lambda data: lzma.compress(data, check=lzma.CHECK_CRC64, preset=3),
    ),
    Compression("bzip2", ".bz2", b"BZh", 0, bz2.BZ2Decompressor, lambda data: bz2.compress(data, 9)),
)
_SKIPPABLE_ZSTD = tuple(bytes([low, 0x2A, 0x4D, 0x18]) for low in range(0x50, 0x60))


def by_name(name: str) -> Compression | None:
    """Return the compression that a file name's suffix stands for, or None."""
    return next((kind for kind in COMPRESSIONS if name.lower().endswith(kind.suffix)), None)


def without_suffix(name: str) -> str:
    """Return a file name without the suffix of a compression."""
    kind = by_name(name)
    return name[: -len(kind.suffix)] if kind is not None else name


def packed_for(name: str, data: bytes) -> bytes:
    """Return data packed as a file name's suffix says.

    Raises:
        MissingDependencyError: what packs it is not installed.
    """
    kind = by_name(name)
    return data if kind is None else kind.pack(data)


def by_first_bytes(data: bytes) -> Compression | None:
    """Return the compression that data begins like, or None. A CSV file that begins with "BZh" is plain."""
    for kind in COMPRESSIONS:
        if data.startswith(kind.magic) and (kind.name != "bzip2" or data[4:10] in (b"1AY&SY", b"\x17rE8P\x90")):
            return kind
    return next((COMPRESSIONS[1] for magic in _SKIPPABLE_ZSTD if data.startswith(magic)), None)


def unpack(chunks: Iterator[bytes], kind: Compression, name: str, *, bombs_allowed: bool = False) -> Iterator[bytes]:
    """Yield what was packed, in pieces of at most CHUNK_BYTES.

    Raises:
        InputError: damaged, cut short, followed by something else, a bomb, or with a window too large for the memory.
        MissingDependencyError: zstd without its module.
    """
    library_errors: tuple[type[BaseException], ...] = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)
    library_errors = (*library_errors, MemoryError, *([zstd_module().ZstdError] if kind.name == "zstd" else []))
    packed = unpacked = 0
    member: _Decompressor | None = None
    between = b""  # what follows a member and is not yet known to be one
    zeros = 0
    for chunk in chunks:
        packed += len(chunk)
        data = between + chunk
        between = b""
        while True:
            if member is None:
                if kind.padding and unpacked | zeros:
                    stripped = data.lstrip(b"\0")
                    zeros += len(data) - len(stripped)
                    data = stripped
                if not data:
                    break
                if not _begins(data, kind):
                    if len(data) < len(kind.magic) and any(magic.startswith(data) for magic in _magics(kind)):
                        between = data  # the magic number itself is split over two chunks
                        break
                    raise InputError(_unsound(name, kind, unpacked, "other data follows the last member"))
                if zeros % (kind.padding or 1):
                    raise InputError(_unsound(name, kind, unpacked, "padding of a wrong length"))
                member = kind.decompressor()
            try:
                piece = member.decompress(data, CHUNK_BYTES)
            except library_errors as error:
                reason = str(error) or type(error).__name__
                if "memory" in reason.lower():  # zstd and xz say so of a window that is too large, in words alone
                    raise InputError(
                        f"{name} cannot be unpacked here: {kind.name} says {reason!r}. Unpack it yourself, where there "
                        "is more memory, and score that. If that fails too, the file is damaged: get it again."
                    ) from error
                raise InputError(_unsound(name, kind, unpacked, reason)) from error
            data = b""
            unpacked += len(piece)
            if not bombs_allowed and unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * packed:
                raise InputError(
                    f"{name} unpacks to more than {BOMB_RATIO} times its size ({unpacked >> 20:,} MiB from "
                    f"{packed:,} bytes), which texts do not do. If it is right, unpack it yourself and score that."
                )
            if piece:
                yield piece
            if member.eof:
                data = member.unused_data
                member = None
            elif len(piece) < CHUNK_BYTES:
                break
    if member is not None or between:
        raise InputError(
            f"{name} is cut short: the {kind.name} data ends after {unpacked:,} unpacked bytes without its end mark. "
            "Get the file again."
        )
    if zeros % (kind.padding or 1):
        raise InputError(_unsound(name, kind, unpacked, "padding of a wrong length"))


def _magics(kind: Compression) -> tuple[bytes, ...]:
    return (kind.magic, *_SKIPPABLE_ZSTD) if kind.name == "zstd" else (kind.magic,)


def _begins(data: bytes, kind: Compression) -> bool:
    return data.startswith(_magics(kind))


def _unsound(name: str, kind: Compression, unpacked: int, reason: str) -> str:
    return (
        f"{name} is not a sound {kind.name} file ({reason}, after {unpacked:,} unpacked bytes). Get the file again, or "
        f"cut off what follows the {kind.name} data."
    )
