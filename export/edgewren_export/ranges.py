"""Which ranges the tensors of a model have, on texts and on every word of the vocabulary.

Texts alone would leave out the words that they lack; words alone are no language. Measured on MiniLM, static ranges of
300 tweets and the vocabulary lose no more on other texts (posts, random words, other alphabets) than on tweets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewren.device import granted_cores, import_onnxruntime
from edgewren.session import feed

if TYPE_CHECKING:
    import onnx

_MOST_WORDS = 32_768
_SEED = 0


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of each channel, float32 [channels]."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @property
    def magnitude(self) -> NDArray[np.float32]:
        """The largest |value| of each channel, float32 [channels]."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


def vocabulary_rows(words: int, empty: Sequence[int], length: int) -> list[list[int]]:
    """Return token rows in which every word of a vocabulary occurs once, in random order.

    Args:
        words: size of the vocabulary; of a larger one 32,768 words are drawn.
        empty: the row of the empty text: its special tokens, of which the first begins each row.
        length: tokens per row, so that every position occurs too.
    """
    order = np.random.default_rng(_SEED).permutation(words)[:_MOST_WORDS].tolist()
    step = max(1, length - len(empty))
    return [[*empty[:1], *order[start : start + step], *empty[1:]] for start in range(0, len(order), step)]


def channel_ranges(model: onnx.ModelProto, names: Sequence[str], rows: Sequence[Sequence[int]]) -> dict[str, Range]:
    """Return the range of each channel, the last axis, of tensors of a model over token rows."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = plain_session(watched)
    inputs = {entry.name for entry in session.get_inputs()}
    ranges: dict[str, Range] = {}
    for row in rows:
        values = session.run(names, feed(np.array([row], dtype=np.int64), inputs))
        for name, value in zip(names, values, strict=True):
            flat = value.reshape(-1, value.shape[-1])
            low, high = flat.min(axis=0), flat.max(axis=0)
            if name in ranges:
                low, high = np.minimum(ranges[name].low, low), np.maximum(ranges[name].high, high)
            ranges[name] = Range(low, high)
    return ranges


def plain_session(model: onnx.ModelProto) -> Any:
    """Return a session in which every tensor keeps its name."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = granted_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
