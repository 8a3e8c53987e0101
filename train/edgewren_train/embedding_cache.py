"""Finished embeddings on disk, each under its own key: what an interrupted run leaves to the next, and one data set to
another with the same texts.

Knows keys and rows of numbers, nothing of texts and encoders. A folder holds pieces, safetensors files that appear
whole and never change, so that runs which go on at once do each other no harm. What cannot be read is computed anew,
and what cannot be written is not kept: neither is a reason to fail.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.whole_file import WholeFile

logger = logging.getLogger(__name__)

KEY_BYTES = 16
"""Length of a key: of a hash, with which a million million texts don't meet by chance."""

SECONDS_PER_PIECE = 20.0
"""So much work a kill costs at most; 20 minutes leave 60 files."""


class EmbeddingCache:
    """Embeddings of one encoder, by the keys of what was embedded.

    A context manager: what `keep` was given is on disk, as far as it can be, when the block ends, however it ends.

    Args:
        folder: made when something is kept; None: nothing is found and nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._pending: list[tuple[Sequence[bytes], NDArray[np.float32]]] = []
        self._written = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._write()

    def find(self, keys: Sequence[bytes]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield places among `keys`, each at most once, and the embeddings that are at hand for them.

        Args:
            keys: `KEY_BYTES` long, no two the same.

        Yields:
            k places, and float32 [k, dimension].
        """
        left = {key: place for place, key in enumerate(keys)}
        for path in self._pieces():
            if not left:
                return
            found, values = _read(path, left)
            places = np.array([left.pop(key) for key in found], dtype=np.intp)
            if len(places):
                yield places, values

    def keep(self, keys: Sequence[bytes], values: NDArray[np.float32]) -> None:
        """Take embeddings, float32 [k, dimension]; all so far are written where the last ones were written long ago."""
        if self._folder is None:
            return
        self._pending.append((keys, values))
        if time.monotonic() - self._written >= SECONDS_PER_PIECE:
            self._write()

    def _pieces(self) -> list[Path]:
        try:
            return sorted(self._folder.glob("*.safetensors")) if self._folder is not None else []
        except OSError as error:
            logger.warning("cached embeddings in %s cannot be read (%s): computed anew", self._folder, error)
            return []

    def _write(self) -> None:
        if self._folder is None or not self._pending:
            return
        from safetensors.numpy import save

        keys = [key for some, _ in self._pending for key in some]
        values = np.concatenate([some for _, some in self._pending])
        self._pending, self._written = [], time.monotonic()
        piece = save({"keys": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES), "embeddings": values})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = WholeFile(self._folder / f"{secrets.token_hex(8)}.safetensors")
            try:
                file.write(piece)
                file.finish()
            finally:
                file.discard()
        except OSError as error:  # OutputError, too
            reason = error.__cause__ or error
            logger.warning("embeddings are not kept for next time: %s cannot be written (%s)", self._folder, reason)
            self._folder = None


def _read(path: Path, wanted: Container[bytes]) -> tuple[list[bytes], NDArray[np.float32]]:
    """Return the keys of a piece that are wanted, and their embeddings; nothing of one that is gone or damaged.

    A damaged one is removed: what was in it will be in another.
    """
    from safetensors import SafetensorError, safe_open

    nothing = np.empty((0, 0), dtype=np.float32)
    try:
        with safe_open(path, framework="numpy") as piece:
            packed = piece.get_tensor("keys").tobytes()
            keys = [packed[start : start + KEY_BYTES] for start in range(0, len(packed), KEY_BYTES)]
            places = [place for place, key in enumerate(keys) if key in wanted]
            values = piece.get_tensor("embeddings")[places] if places else nothing
            return [keys[place] for place in places], values
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.warning("cached embeddings %s cannot be read (%s): computed anew", path, error)
    except (SafetensorError, IndexError) as error:
        logger.warning("cached embeddings %s are damaged (%s): removed, and computed anew", path, error)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return [], nothing
