"""Packed files: every member is read; damage, truncation, trailing bytes and bombs are refused."""

from __future__ import annotations

import itertools
import lzma

import pytest

from edgewren.archive import compression
from edgewren.archive.compression import COMPRESSIONS, by_first_bytes, by_name, unpack
from edgewren.archive.readers import open_table
from edgewren.errors import InputError, MissingDependencyError

kinds = pytest.mark.parametrize("kind", COMPRESSIONS, ids=lambda kind: kind.name)
DATA = b"text\n" + bytes(range(97, 123)) * 200 + b"\n"


def unpacked(data: bytes, kind, size: int = 1000) -> bytes:
    return b"".join(unpack((data[i : i + size] for i in range(0, len(data), size)), kind, "x"))


@kinds
@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_every_member_is_read_in_chunks_of_any_size(kind, size):
    packed = kind.pack(DATA) + kind.pack(b"") + kind.pack(b"more")
    assert unpacked(packed, kind, size) == DATA + b"more"


@kinds
def test_every_truncation_is_refused(kind):
    packed = kind.pack(DATA) + kind.pack(b"more")
    whole = len(kind.pack(DATA))
    for cut in range(1, len(packed)):
        if cut != whole:
            with pytest.raises(InputError, match=r"cut short|not a sound"):
                unpacked(packed[:cut], kind)


@kinds
@pytest.mark.parametrize("garbage", [b"x", b"garbage after the end", b"\0", b"\x1f", b"\x28", b"\xfd7zXZ", b"BZ"])
def test_trailing_garbage_is_refused(kind, garbage):
    with pytest.raises(InputError, match=r"cut short|not a sound"):
        unpacked(kind.pack(DATA) + garbage, kind)


def test_xz_padding_of_four_zero_bytes_is_legal():
    xz = by_name("a.xz")
    assert unpacked(xz.pack(DATA) + b"\0" * 8 + xz.pack(b"more") + b"\0" * 4, xz) == DATA + b"more"
    with pytest.raises(InputError, match="padding"):
        unpacked(xz.pack(DATA) + b"\0" * 3, xz)


@kinds
def test_any_flipped_byte_is_refused_or_changes_nothing(kind):
    packed = kind.pack(DATA)
    for place in range(0, len(packed), 3):
        damaged = bytearray(packed)
        damaged[place] ^= 0x55
        try:
            found = unpacked(bytes(damaged), kind)
        except InputError:
            continue
        assert found == DATA, f"byte {place}"  # a header field without meaning, as gzip's time


@kinds
def test_bombs_are_refused_in_little_memory(kind, monkeypatch):
    monkeypatch.setattr(compression, "BOMB_BYTES", 4 << 20)
    bomb = kind.pack(b"\0" * (16 << 20))
    sizes = []
    with pytest.raises(InputError, match="unpacks to more than 200 times"):
        sizes.extend(map(len, unpack(iter([bomb]), kind, "x")))
    assert max(sizes) <= compression.CHUNK_BYTES
    assert sum(sizes) <= 5 << 20


@kinds
def test_packed_files_are_read_by_first_bytes_or_by_name(tmp_path, kind):
    for name in ("a.csv", f"a.csv{kind.suffix}", f"A.CSV{kind.suffix.upper()}"):
        (tmp_path / name).write_bytes(kind.pack(b"text\ngood\n"))
        with open_table(tmp_path / name) as table:
            assert [row.get("text") for row in table] == ["good"]
    (tmp_path / f"plain.csv{kind.suffix}").write_bytes(b"text\ngood\n")
    with pytest.raises(InputError, match=kind.name):
        open_table(tmp_path / f"plain.csv{kind.suffix}")


def test_a_csv_file_that_begins_with_bzh_is_plain(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"BZh,text\n1,2\n")
    assert by_first_bytes(b"BZh,text\n1,2") is None
    with open_table(tmp_path / "a.csv") as table:
        assert table.columns == ["BZh", "text"]


def test_skippable_zstd_frames_are_skipped():
    zstd = by_name("a.zst")
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    assert by_first_bytes(skippable) is zstd
    assert unpacked(skippable + zstd.pack(DATA) + skippable, zstd) == DATA


def zstd_frame(window_log: int, data: bytes) -> bytes:
    """Return a frame as `zstd --long=<window_log>` makes it of a stream."""
    return b"\x28\xb5\x2f\xfd\0" + bytes([window_log - 10 << 3]) + (len(data) << 3 | 1).to_bytes(3, "little") + data


def test_zstd_frames_with_a_window_of_2_gib_are_read():
    assert unpacked(zstd_frame(31, DATA) + zstd_frame(27, b"more"), by_name("RC_2019-01.zst")) == DATA + b"more"


def test_a_window_that_is_too_large_is_not_called_damage(monkeypatch):
    monkeypatch.setattr(compression, "_MEMORY_LIMIT", 2**20)
    for suffix, packed in ((".zst", zstd_frame(41, DATA)), (".xz", lzma.compress(DATA))):
        with pytest.raises(InputError, match=r"(?i)x cannot be unpacked here: .*memory.*Unpack it yourself"):
            unpacked(packed, by_name(suffix))


def test_a_missing_zstd_package_names_the_extra(monkeypatch):
    import sys

    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"edgewren\[zstd\]"):
        unpacked(b"", by_name("a.zst"))


def test_packing_is_the_same_each_time():
    for kind in COMPRESSIONS:
        assert len(set(itertools.starmap(kind.pack, [(DATA,)] * 3))) == 1
