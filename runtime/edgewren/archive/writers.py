"""In which format an output is written, and what turns rows into it. Knows formats by their descriptions only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgewren.archive import compression
from edgewren.archive.compression import Compression
from edgewren.archive.formats import all_formats
from edgewren.archive.lines import STDIN
from edgewren.archive.readers import format_of
from edgewren.archive.table import Encoder, Table
from edgewren.errors import UsageError


def choose_output(
    output: str | Path | None, requested: str | None, input_format: str
) -> tuple[str, Compression | None]:
    """Return the format to write, as requested, else by OUT's suffix, else the input's; and how it is packed.

    Raises:
        UsageError: no such format, one that is only read, or one that the output cannot hold.
        MissingDependencyError: what packs it is not installed.
    """
    formats = all_formats()
    named = output is not None and str(output) != STDIN
    by_name = format_of(output, input_format) if named and output is not None else None
    chosen = requested or by_name or formats[input_format].written_as or input_format
    if requested is None and by_name is None and formats[chosen].encoder is not None and not named:
        chosen = "jsonl" if not formats[chosen].packable else chosen  # Parquet has no place on standard output
    if chosen not in formats or formats[chosen].encoder is None:
        possible = ", ".join(name for name, made in formats.items() if made.encoder is not None)
        raise UsageError(f"Cannot write format {chosen!r}. Expected {possible}, by name or --output-format.")
    packed = compression.by_name(str(output)) if named else None
    if not formats[chosen].packable and (packed is not None or not named):
        raise UsageError(
            f"{chosen} cannot be written {'packed' if named else 'to standard output'}. Name a file that ends in "
            f"{formats[chosen].suffixes[0]}."
        )
    if packed is not None:
        packed.pack(b"")  # a missing package shows now
    return chosen, packed


def make_encoder(name: str, table: Table, added: Sequence[str], *, excel_safe: bool) -> Encoder:
    """Return what turns rows into a format's bytes. Raises UsageError where excel_safe means nothing."""
    make = all_formats()[name].encoder
    if make is None:
        raise UsageError(f"Cannot write format {name!r}.")
    encoder = make(table, added)
    if excel_safe and not encoder.spreadsheets:
        raise UsageError(f"--excel-safe is for CSV and TSV, but the output is {name}. Leave it out.")
    encoder.excel_safe = excel_safe
    return encoder
