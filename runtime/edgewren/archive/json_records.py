"""JSON text to values, strictly: what other readers would not take, or take differently, is refused. Knows no files."""

from __future__ import annotations

import json
from typing import Any

from edgewren.archive.rows import Number

MAXIMUM_DEPTH = 100
"""Levels of nesting in a JSON record. Fixed, because Python's own limit depends on who is calling."""

JSON_SPACE = " \t\r\n"

_MAXIMUM_DIGITS = 4300
"""Longest number in a JSON record: Python itself refuses to read longer integers."""


class RefusedJsonError(ValueError):
    """JSON that Python would read, but other readers would not."""


def _number(text: str) -> Number:
    if len(text) > _MAXIMUM_DIGITS:
        raise RefusedJsonError(f"a number of more than {_MAXIMUM_DIGITS} digits")
    return Number(text)


def _constant(name: str) -> Any:
    raise RefusedJsonError(f"{name} is not JSON")


# The decoder's own scanner, without the regular expressions that `decode` puts around it; `raw_decode` is it.
_SCAN = json.JSONDecoder(parse_int=_number, parse_float=_number, parse_constant=_constant).raw_decode


def parse_value(text: str, start: int = 0) -> tuple[Any, int, str | None]:
    """Read one value of any type from a place in a text; numbers come as `Number`, in their own spelling.

    Returns:
        The value, the place behind it, and why it cannot be used, or None.
    """
    try:
        value, end = _SCAN(text, start)
    except RecursionError:
        return None, start, f"nested more than {MAXIMUM_DEPTH} levels deep"
    except RefusedJsonError as error:
        return None, start, str(error)
    except ValueError:
        return None, start, "not valid JSON"
    opened = text.count("{", start, end) + text.count("[", start, end)
    if opened > MAXIMUM_DEPTH and _deeper_than(value, MAXIMUM_DEPTH):
        return None, end, f"nested more than {MAXIMUM_DEPTH} levels deep"
    return value, end, None


def ends_early(text: str, start: int = 0) -> bool:
    """Return whether whole lines are the beginning of a value that more lines can complete."""
    end = len(text.rstrip(JSON_SPACE))
    try:
        _SCAN(text[:end], start)
    except json.JSONDecodeError as error:
        return error.pos >= end
    except (RecursionError, ValueError):
        pass
    return False


def parse_object(text: str) -> tuple[dict[str, Any], str | None]:
    """Return the record's fields, and why it cannot be used. Fields are given only if all of it is a sound object."""
    start = 0
    if text[:1] != "{":
        start = len(text) - len(text.lstrip(JSON_SPACE))
    value, end, error = parse_value(text, start)
    if error is None and end != len(text) and text[end:].strip(JSON_SPACE):
        error = "not valid JSON"
    if error is not None:
        return {}, error
    if not isinstance(value, dict):
        return {}, f"a JSON {type_name(value)} where an object is expected"
    return value, None


def type_name(value: Any) -> str:
    """Return JSON's name of a value's type."""
    if isinstance(value, Number):
        return "number"
    names = {str: "string", bool: "boolean", list: "array", type(None): "null", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _deeper_than(value: Any, levels: int) -> bool:
    layer: list[Any] = [value]
    for _ in range(levels):
        layer = [
            part
            for item in layer
            if isinstance(item, (dict, list))
            for part in (item.values() if isinstance(item, dict) else item)
            if isinstance(part, (dict, list))
        ]
        if not layer:
            return False
    return True
