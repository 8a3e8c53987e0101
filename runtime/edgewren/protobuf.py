"""The wire format of Protocol Buffers, read strictly. Knows fields and lengths, nothing of ONNX.

A parser of another make may accept what this one refuses (varints that are longer than needed, a singular field that
comes twice, fields that it doesn't know), never the other way round: what was read here is what others will read.
Nothing is copied but short strings; a field of bytes is handed out as its place in the data.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Kind = Literal["varint", "varints", "fixed32", "floats32", "floats64", "bytes"]
"""varints, floats32 and floats64 are repeated numbers, packed or not."""

Span = tuple[int, int]
"""First byte and end of a field's content in the data."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE: dict[Kind, tuple[int, ...]] = {
    "varint": (_VARINT,),
    "varints": (_VARINT, _BYTES),
    "fixed32": (_FIXED32,),
    "floats32": (_FIXED32, _BYTES),
    "floats64": (_FIXED64, _BYTES),
    "bytes": (_BYTES,),
}
_WIDTHS: dict[Kind, int] = {"floats32": 4, "floats64": 8}
_NOT_LAST = bytes(range(0x80, 0x100))


class Field(NamedTuple):
    """One field that a message may have."""

    name: str
    kind: Kind
    repeated: bool = False


Schema = Mapping[int, Field | str]
"""Field numbers to what is allowed there, or to the reason why it is not."""


class WireError(ValueError):
    """The bytes are not a message of this schema."""


class Message:
    """The fields of one message: varints as int, all others as their `Span`.

    Raises:
        WireError: not well-formed, or a field that the schema does not allow.
    """

    __slots__ = ("_data", "_values")

    def __init__(self, data: bytes, span: Span, schema: Schema) -> None:
        self._data = data
        self._values: dict[str, list[int | Span]] = {}
        values = self._values
        position, end = span
        while position < end:
            start = position
            tag, position = varint(data, position, end)
            wire = tag & 7
            field = schema.get(tag >> 3)
            if field is None or isinstance(field, str):
                raise WireError(field or f"unknown field {tag >> 3} at byte {start}")
            if wire not in _WIRE[field.kind]:
                raise WireError(f"field {field.name} at byte {start} has wire type {wire}")
            value: int | Span
            if wire == _VARINT:
                value, position = varint(data, position, end)
            else:
                if wire == _BYTES:
                    length, position = varint(data, position, end)
                else:
                    length = 4 if wire == _FIXED32 else 8
                if length > end - position:
                    raise WireError(f"field {field.name} at byte {start} is cut off: {length} bytes do not fit")
                value = (position, position + length)
                position += length
            if field.name not in values:
                values[field.name] = [value]
            elif field.repeated:
                values[field.name].append(value)
            else:
                raise WireError(f"field {field.name} comes twice, the second time at byte {start}")

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def integer(self, name: str, default: int = 0) -> int:
        """Return a singular integer, as the unsigned number of 64 bits that it is on the wire."""
        found = self._values.get(name)
        return default if found is None else found[0]  # type: ignore[return-value]  # its kind says so

    def span(self, name: str) -> Span | None:
        """Return the place of a singular field of bytes or of a message."""
        found = self._values.get(name)
        return None if found is None else found[0]  # type: ignore[return-value]  # its kind says so

    def spans(self, name: str) -> list[Span]:
        """Return the places of a repeated field of bytes or messages."""
        return self._values.get(name, [])  # type: ignore[return-value]  # its kind says so

    def text(self, name: str, limit: int, default: str = "") -> str:
        """Return a singular string."""
        span = self.span(name)
        return default if span is None else string(self._data, span, limit)

    def texts(self, name: str, limit: int) -> list[str]:
        """Return a repeated string."""
        return [string(self._data, span, limit) for span in self.spans(name)]

    def integers(self, name: str, limit: int) -> list[int]:
        """Return repeated signed integers of 64 bits, packed or not."""
        out: list[int] = []
        for value in self._values.get(name, []):
            if isinstance(value, int):
                out.append(_signed(value))
            else:
                position, end = value
                while position < end and len(out) <= limit:
                    number, position = varint(self._data, position, end)
                    out.append(_signed(number))
            if len(out) > limit:
                raise WireError(f"{name} has more than {limit} numbers")
        return out

    def count(self, name: str, kind: Kind) -> int:
        """Return how many numbers a repeated field holds, packed or not, without reading them one by one."""
        total = 0
        for value in self._values.get(name, []):
            if isinstance(value, int):
                total += 1
                continue
            start, end = value
            if kind in _WIDTHS:
                if (end - start) % _WIDTHS[kind]:
                    raise WireError(f"{name} has {end - start} bytes, no whole numbers")
                total += (end - start) // _WIDTHS[kind]
            elif end > start:
                if self._data[end - 1] & 0x80:
                    raise WireError(f"{name} ends inside a number")
                total += len(self._data[start:end].translate(None, _NOT_LAST))
        return total


def varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return a number of at most 64 bits and the position after it.

    Raises:
        WireError: cut off, longer than needed, or above 64 bits.
    """
    start = position
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value >> 64:
                raise WireError(f"number at byte {start} is not in its shortest form")
            return value, position
        shift += 7
        if shift > 63:
            break
    raise WireError(f"number at byte {start} is cut off or longer than 64 bits")


def string(data: bytes, span: Span, limit: int) -> str:
    """Return a string of at most `limit` bytes of UTF-8."""
    start, end = span
    if end - start > limit:
        raise WireError(f"string at byte {start} has {end - start} bytes, more than {limit}")
    try:
        return data[start:end].decode()
    except UnicodeDecodeError as error:
        raise WireError(f"string at byte {start} is not UTF-8") from error


def _signed(value: int) -> int:
    return value - 2**64 if value >> 63 else value
