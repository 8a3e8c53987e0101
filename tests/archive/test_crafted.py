"""Files made to break readers: the run fails with a code of ours, or writes as many rows as an independent count says.

The count knows nothing of the readers: it comes from how each file was made, or from a few lines of its own below.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import archives
import pytest

from edgewren.archive.compression import COMPRESSIONS, by_name
from edgewren.archive.run import score_archive
from edgewren.errors import EdgewrenError

REFUSED = -1
"""Rows of a file that no reading can make sense of."""


def lines_of_jsonl(data: bytes) -> int:
    """Records of JSONL: what stands between newlines, blank lines at the end left out."""
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    while lines and not lines[-1].strip(b" \t\r\n"):
        lines.pop()
    return len(lines)


def records_of_csv(data: bytes, delimiter: str = ",") -> int:
    """Records of CSV by a state machine over characters (RFC 4180), the header and blank lines at the end left out."""
    text = data.decode("utf-8-sig")
    records: list[bool] = []  # whether each has anything in it
    quoted = False
    start = True  # of a field
    filled = False
    index = 0
    while index < len(text):
        character = text[index]
        if quoted:
            if character == '"':
                if text[index + 1 : index + 2] == '"':
                    index += 1
                else:
                    quoted = False
                    if text[index + 1 : index + 2] not in ("", delimiter, "\r", "\n"):
                        return REFUSED
        elif character == '"' and start:
            quoted = filled = True
            start = False
        elif character in "\r\n":
            if text[index : index + 2] == "\r\n":
                index += 1
            records.append(filled)
            filled, start = False, True
        else:
            filled = True
            start = character == delimiter
        index += 1
    if quoted:
        return REFUSED
    if filled:
        records.append(True)
    while records and not records[-1]:
        records.pop()
    return len(records) - 1


def csv_files() -> Iterator[tuple[str, bytes]]:
    fields = (
        "good",
        '"good"',
        '"a,b"',
        '"a\nb"',
        '"a\r\nb"',
        '"a\rb"',
        '"a""b"',
        "a\u2028b",
        "a\x00b",
        "a\x85b",
        "",
        " ",
        "'x'",
        "=1",
        "é🔥",
    )
    for index, field in enumerate(fields):
        for end in ("\n", "\r\n", "\r"):
            yield f"field-{index}-{end!r}", f"id,text{end}1,{field}{end}2,bad{end}".encode()
    endings = ("", "\n", "\n\n\n", "\r\n\r\n", "  ", "\n  \n", "\n\t")
    for index, ending in enumerate(endings):
        yield f"ending-{index}", f"id,text\n1,good\n2,bad{ending}".encode()
    shapes = (
        "id,text\n1\n2,b\n",
        "id,text\n1,2,3\n",
        "id,text\n\n\n1,a\n",
        "id,text\n,\n",
        "id,text\n1,a\n\n2,b\n\n\n",
        'id,text\n1,"a\n2,b\n',
        'id,text\n1,"a"x\n',
        'id,text\n1,a"b\n',
        'id,text\n"1","a"\n"2","b',
        'id,text\n1,"""\n',
        'id,text\n1,""""\n',
        'id,text\n1,"a""\n2,"b"\n',
        "text\n",
        "text",
        'text\n"',
        'text\n""\n',
        'text\n""',
        "text\n \n",
        "text\n\n",
        "text\na\r\nb\nc\rd\n",
        "\ufefftext\na\n",
        'text\n"' + "a\n" * 5000 + '"\nb\n',
        "text\n" + "a\n" * 9000,
        "text\n" + "\n" * 900 + "a\n",
        "id;text\n1;a\n",
        "text,\na,b\n",
        "text,text\na,b\n",
        "\n\ntext\na\n",
        "",
        " ",
        "\n",
        "txt\na\n",
    )
    for index, text in enumerate(shapes):
        yield f"shape-{index}", text.encode()
    for index, cut in enumerate(range(1, 40)):
        yield f"cut-{index}", b'id,text\n1,"a ""b"", c"\r\n2,"d\ne"\n3,f\n'[:cut]
    for encoding in ("utf-16", "utf-16-le", "utf-32", "cp1252", "shift_jis", "utf-7"):
        yield f"encoding-{encoding}", "id,text\n1,éa\n".encode(encoding, "replace")
    for index, bad in enumerate(
        (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xc0\x80", b"\xfe")
    ):
        yield f"bytes-{index}", b"id,text\n1,good" + bad + b"\n2,bad\n"


def jsonl_files() -> Iterator[tuple[str, bytes]]:
    records = (
        '{"text": "good"}',
        '{"text": ""}',
        '{"text": null}',
        '{"text": 1}',
        '{"text": ["x"]}',
        '{"other": 1}',
        "{}",
        "[]",
        '"x"',
        "1",
        "null",
        "NaN",
        '{"text": "x", "n": NaN}',
        '{"text": "x", "n": Infinity}',
        '{"text": "x", "n": ' + "9" * 5000 + "}",
        '{"text": "x", "n": 1e999999}',
        '{"text": "x", "n": ' + "[" * 101 + "]" * 101 + "}",
        "[" * 20_000,
        '{"a":' * 20_000,
        '{"text": "\\ud83d"}',
        '{"text": "\\ud83d\\ude00"}',
        '{"text": "\\ude00\\ud83d"}',
        '{"text": "a\\u0000b"}',
        '{"text": "a\u2028b\u2029c\x85d"}',
        '{"text": "a\tb"}',
        '{"text": "a", "text": "b"}',
        '{"text": "a"} x',
        '{"text": "a"}{"text": "b"}',
        '{"text": "a",}',
        "{'text': 'a'}",
        '{"text": "unclosed',
        '{"text": "a"',
        "",
        "  ",
        "\r",
        ",",
        "// comment",
        '\ufeff{"text": "a"}',
        '{"text": "a"}\r',
        '{"status_": "x", "text": "a"}',
        '{"text": "=cmd"}',
        '{"id": 12345678901234567890123456789, "text": "x"}',
        '{"text": "' + "x" * 100_000 + '"}',
        '{"text": "x", "": 1}',
        '{"text": "x", "a\\nb": 1}',
        '{"text": true}',
        '{"text": {"text": "x"}}',
        '{"Text": "x"}',
        "\x00",
        '{"text": "\\x"}',
        '{"text": "\\u12"}',
        '{"text": -}',
        '{"text": "x", "n": 01}',
        '{"text": "x", "n": .5}',
        '{"text": "x", "n": +1}',
    )
    for index, record in enumerate(records):
        data = record.encode("utf-8", "surrogatepass")
        yield f"alone-{index}", data + b"\n"
        yield f"between-{index}", b'{"text": "good"}\n' + data + b'\n{"text": "bad"}\n'
        yield f"unended-{index}", b'{"text": "good"}\n' + data
    for index, bad in enumerate((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x80")):
        yield f"bytes-{index}", b'{"text": "good' + bad + b'"}\n'
    yield "empty", b""
    yield "blank", b"\n\n"
    yield "bom", b'\xef\xbb\xbf{"text": "good"}\n'


def cases() -> Iterator[tuple[str, bytes, int]]:
    """Names, bytes and rows of all files."""
    for name, data in csv_files():
        try:
            expected = records_of_csv(data)
        except UnicodeDecodeError:
            expected = REFUSED
        yield f"{name}.csv", data, expected
        if name.startswith(("shape", "field")):
            tabbed = data.replace(b",", b"\t")
            yield f"{name}.tsv", tabbed, records_of_csv(tabbed, "\t") if expected != REFUSED else REFUSED
    for name, data in jsonl_files():
        yield f"{name}.jsonl", data, lines_of_jsonl(data)
    sound = b"text\n" + b"".join(b"good %d\n" % n for n in range(500))
    for kind in COMPRESSIONS:
        packed = kind.pack(sound)
        for index, (variant, expected) in enumerate(
            [
                (packed, 500),
                (packed + kind.pack(b"bad\n"), 501),
                (packed[:-1], REFUSED),
                (packed[: len(packed) // 2], REFUSED),
                (packed + b"garbage", REFUSED),
                (kind.magic, REFUSED),
                (packed[:20] + bytes([packed[20] ^ 0xFF]) + packed[21:], 500),
            ]
        ):
            yield f"packed-{kind.name}-{index}.csv{kind.suffix}", variant, expected
    yield "not-gzip.csv.gz", sound, REFUSED


ALL = list(cases())


def rows_out(output: Path) -> int:
    """Rows of a CSV output, by Python's own reader on the whole file."""
    text = output.read_text(encoding="utf-8")
    return len(list(csv.reader(io.StringIO(text, newline=""), strict=True))) - 1


def scored(classifier, source: Path, output: Path):
    try:
        return score_archive(classifier, [source], output, window=7, force=True), None
    except EdgewrenError as error:
        return None, error


def check(tmp_path: Path, classifier, name: str, data: bytes, expected: int) -> bool:
    """Score one file; return whether it was accepted."""
    source = tmp_path / "".join(c if c.isalnum() or c in "-." else "_" for c in name)
    source.write_bytes(data)
    accepted = 0
    for output in (tmp_path / "o.csv", tmp_path / "o.jsonl"):
        report, error = scored(classifier, source, output)
        if report is None:
            assert error.exit_code in (2, 4), f"{name}: {error!r}"
            assert str(error).count("\n") == 0
            assert not output.exists()
            continue
        assert report.rows == expected, name
        found = rows_out(output) if output.suffix == ".csv" else output.read_bytes().count(b"\n")
        assert found == expected, name
        output.unlink()
        accepted += 1
    return accepted > 0


def test_there_are_at_least_three_hundred():
    assert len(ALL) >= 300
    assert len({name for name, _, _ in ALL}) == len(ALL)


@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 4))])
@pytest.mark.slow
def test_crafted_files_are_refused_or_lose_no_row(tmp_path, classifier, part):
    accepted = 0
    for name, data, expected in itertools.islice(ALL, part, None, 4):
        accepted += check(tmp_path, classifier, name, data, expected)
    assert accepted > len(ALL) / 10


def test_sound_files_are_not_refused(tmp_path, classifier):
    names = {
        "field-0-'\\n'.csv",
        "ending-0.csv",
        "shape-20.csv",
        "alone-0.jsonl",
        "between-7.jsonl",
        "packed-gzip-1.csv.gz",
    }
    found = [case for case in ALL if case[0] in names]
    assert len(found) == len(names)
    for case in found:
        assert check(tmp_path, classifier, *case), case[0]


def test_the_counters_agree_with_what_was_made():
    records = archives.rows(40)
    assert records_of_csv(archives.encoded("csv", records)) == 40
    assert lines_of_jsonl(archives.encoded("jsonl", records)) == 40
    assert records_of_csv(b'text\n"a') == REFUSED
    assert json.loads(gzip.decompress(by_name("a.gz").pack(b"[1]"))) == [1]
