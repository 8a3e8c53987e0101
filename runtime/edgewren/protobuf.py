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
_NUMBERED = (_VARINT, _BYTES)  # begin with a number: the value, or the length
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_WIDTHS: dict[Kind, int] = {"floats32": 4, "floats64": 8}
_NOT_LAST = bytes(range(0x80, 0x100))


class Field(NamedTuple):
    """One field that a message may have."""

    name: str
    kind: Kind
    repeated: bool = False


class Schema:
    """The fields that a message may have.

    Args:
        fields: field numbers to what is allowed there, or to the reason why it is not.
    """

    def __init__(self, fields: Mapping[int, Field | str]) -> None:
        self._fields = fields
        self.tags: Mapping[int, tuple[str, int, bool]] = {
            number << 3 | wire: (field.name, wire, field.repeated)
            for number, field in fields.items()
            if isinstance(field, Field)
            for wire in _WIRE[field.kind]
        }
        """What a field begins with -> its name, its wire type, and whether it may come again."""

    def kind(self, name: str) -> Kind:
        """Return the kind of the field of this name."""
        return next(field.kind for field in self._fields.values() if isinstance(field, Field) and field.name == name)

    def objection(self, tag: int, place: int) -> str:
        """Return why no field may begin with this tag."""
        field = self._fields.get(tag >> 3)
        if isinstance(field, Field):
            return f"field {field.name} at byte {place} has wire type {tag & 7}"
        return field or f"unknown field {tag >> 3} at byte {place}"


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
        values, tags = self._values, schema.tags
        position, end = span
        # Numbers of one byte are read on the spot: nearly all are, and this loop is what loading a bundle waits for.
        while position < end:
            start = position
            if (tag := data[position]) < 0x80:
                position += 1
            else:
                tag, position = varint(data, position, end)
            entry = tags.get(tag)
            if entry is None:
                raise WireError(schema.objection(tag, start))
            name, wire, repeated = entry
            value: int | Span
            if wire in _NUMBERED:
                if position < end and (number := data[position]) < 0x80:
                    position += 1
                else:
                    number, position = varint(data, position, end)
                value = number
            else:
                number = _FIXED[wire]
            if wire != _VARINT:
                if number > end - position:
                    raise WireError(f"field {name} at byte {start} is cut off: {number} bytes do not fit")
                value = (position, position + number)
                position += number
            if name not in values:
                values[name] = [value]
            elif repeated:
                values[name].append(value)
            else:
                raise WireError(f"field {name} comes twice, the second time at byte {start}")

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
        found = self._values.get(name)
        return default if found is None else string(self._data, found[0], limit)  # type: ignore[arg-type]  # as above

    def texts(self, name: str, limit: int) -> list[str]:
        """Return a repeated string."""
        return [string(self._data, span, limit) for span in self.spans(name)]

    def integers(self, name: str, limit: int) -> list[int]:
        """Return repeated signed integers of 64 bits, packed or not."""
        out: list[int] = []
        for value in self._values.get(name, []):
            if isinstance(value, int):
                out.append(signed(value))
            else:
                position, end = value
                while position < end and len(out) <= limit:
                    number, position = varint(self._data, position, end)
                    out.append(signed(number))
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


def signed(value: int) -> int:
    """Return the integer of 64 bits that an unsigned number stands for on the wire."""
    return value - 2**64 if value >> 63 else value
