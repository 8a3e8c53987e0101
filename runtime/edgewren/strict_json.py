"""JSON from strangers: one reading only, and bounded. Knows no file formats.

Python's parser takes NaN, Infinity and repeated keys, of which others make something else; and a few megabytes of
brackets become gigabytes of lists. Here they are refused before or while parsing.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

_MAXIMUM_CONTAINERS = 600_000
_MAXIMUM_COMMAS = 3_000_000
_FLOAT_BITS = 1023


class JsonError(ValueError):
    """The bytes are not JSON as we write it."""


def parse(data: bytes) -> Any:
    """Return the value that UTF-8 encoded JSON stands for.

    Raises:
        JsonError: not UTF-8, not JSON, a key twice in an object, NaN or Infinity, nested too deeply, too many values.
    """
    if data.count(b"[") + data.count(b"{") > _MAXIMUM_CONTAINERS or data.count(b",") > _MAXIMUM_COMMAS:
        raise JsonError("it holds too many values")
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise JsonError("it is nested too deeply") from error
    except JsonError:
        raise
    except ValueError as error:
        raise JsonError(f"it is not valid JSON: {error}") from error


def check_small(value: Any, *, depth: int, values: int, characters: int) -> None:
    """Refuse what is nested deeper, holds more values, or a longer string; and numbers and strings no one can write.

    Raises:
        JsonError: with the reason.
    """
    pending = [(value, 1)]
    seen = 0
    while pending:
        item, level = pending.pop()
        seen += 1
        if seen > values:
            raise JsonError(f"it holds more than {values} values")
        kind = type(item)  # as the parser makes them, so no subclasses
        if kind is str:
            _check_string(item, characters)
        elif kind is float:
            if not math.isfinite(item):
                raise JsonError("it holds a number that is not finite")
        elif kind is int:
            if item.bit_length() > _FLOAT_BITS:
                raise JsonError("it holds a whole number that is too large for a float")
        elif kind is dict or kind is list:
            if level > depth:
                raise JsonError(f"it is nested deeper than {depth} levels")
            level += 1
            if kind is dict:
                for key in item:
                    _check_string(key, characters)
                item = item.values()
            pending.extend([(entry, level) for entry in item])


def _check_string(text: str, characters: int) -> None:
    if len(text) > characters:
        raise JsonError(f"it holds a string of {len(text)} characters, more than {characters}")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise JsonError("it holds half a surrogate pair")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonError(f"it holds the key {twice[:64]!r} twice in one object")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"it holds {name}, which is not JSON")
