"""What a run did, and what it was: the report beside the output, and the fingerprint that a resumed run must match."""

from __future__ import annotations

import platform
import re
import sys
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import edgewren
from edgewren.archive.compression import Compression, zstd_module
from edgewren.archive.results import STATUSES, Result
from edgewren.classifier import Classifier, Scores

_REJECTIONS_KEPT = 5
_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy")
_CPU_FLAGS = re.compile(r"avx\w*|amx\w*|fma|f16c|sse4_2|asimd\w*|i8mm|bf16|sve\w*")


@dataclass(frozen=True)
class Report:
    """What a finished run did. Each row has one status, so the counts by status sum to `rows`.

    Attributes:
        rows: rows read, and written.
        ok, truncated, repaired, uncertain, empty, rejected: rows by status.
        distinct: token rows computed; the others were copies within their window.
        tokens: tokens computed.
        seconds: wall time of all runs that made this output.
        rejections: the first rejected rows, as "row N of FILE: reason".
        resumed: how many times the run was gone on with.
        prefixed: texts that got an apostrophe (`excel_safe`).
        left_after_layer: share of the scored texts that left after each layer with an exit, the last one's being those
            that went all the way; None where the model has no exits.
        document: all of it, as OUT.report.json has it.
    """

    rows: int
    ok: int
    truncated: int
    repaired: int
    uncertain: int
    empty: int
    rejected: int
    distinct: int
    tokens: int
    seconds: float
    rejections: tuple[str, ...]
    resumed: int = 0
    prefixed: int = 0
    left_after_layer: Mapping[int, float] | None = None
    document: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Report:
        """Return the report that OUT.report.json describes."""
        statuses = document["statuses"]
        left = document.get("left_after_layer")  # reports of older versions have none
        return cls(
            rows=document["rows"],
            **{status: statuses[status] for status in STATUSES},
            distinct=document["distinct"],
            tokens=document["tokens"],
            seconds=document["seconds"],
            rejections=tuple(document["rejections"]),
            resumed=document["resumed"],
            prefixed=document["excel_safe_prefixes"],
            left_after_layer=None if left is None else {int(layer): share for layer, share in left.items()},
            document=document,
        )


@dataclass
class Tally:
    """Running counts, as the journal keeps them. `left`: texts by the layer after which they left."""

    counts: Counter[str] = field(default_factory=Counter)
    left: Counter[int] = field(default_factory=Counter)
    distinct: int = 0
    tokens: int = 0
    seconds: float = 0.0
    resumed: int = 0
    prefixed: int = 0
    rejections: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tally:
        """Return the tally that `as_dict` described."""
        # Journals of older versions have no "left".
        left = Counter({int(layer): count for layer, count in data.get("left", {}).items()})
        return cls(**{**data, "counts": Counter(data["counts"]), "left": left, "rejections": list(data["rejections"])})

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON knows."""
        return {**vars(self), "counts": dict(self.counts), "left": dict(self.left)}

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self.counts.total()

    def add(self, result: Result, scores: Scores) -> None:
        """Count a window."""
        self.counts.update(result.counts)
        self.distinct += scores.distinct
        self.tokens += scores.tokens
        if scores.layers is not None:
            layers, counts = np.unique(scores.layers, return_counts=True)
            self.left.update(dict(zip(layers.tolist(), counts.tolist(), strict=True)))
        for file, row, reason in result.rejected[: _REJECTIONS_KEPT - len(self.rejections)]:
            self.rejections.append(f"row {row.number} of {file}: {reason}")

    def as_document(self, exits: Sequence[int]) -> dict[str, Any]:
        """Return the counts under the names that OUT.report.json has.

        Args:
            exits: layers after which texts may leave; none where the model has no exits.
        """
        scored = self.rows - self.counts["rejected"]
        return {
            "rows": self.rows,
            "statuses": {status: self.counts[status] for status in STATUSES},
            "rejections": self.rejections,
            "scored": scored,
            "distinct": self.distinct,
            "duplicate_share": round(1 - self.distinct / scored, 6) if scored else 0.0,
            "tokens": self.tokens,
            "left_after_layer": self._shares(exits) if exits else None,
            "seconds": round(self.seconds, 3),
            "rows_per_s": round(self.rows / self.seconds, 1) if self.seconds else None,
            "tokens_per_s": round(self.tokens / self.seconds, 1) if self.seconds else None,
            "resumed": self.resumed,
            "excel_safe_prefixes": self.prefixed,
        }

    def _shares(self, exits: Sequence[int]) -> dict[str, float]:
        texts = max(self.left.total(), 1)
        return {str(layer): round(self.left[layer] / texts, 6) for layer in exits}


def model_facts(classifier: Classifier) -> dict[str, Any]:
    """Return what identifies a model and where it computes."""
    return {
        "manifest_sha256": classifier.bundle.sha256,
        "kind": classifier.bundle.manifest.kind,
        "variant": classifier.variant,
        "device": classifier.device,
        "labels": list(classifier.labels),
    }


def versions(formats: Sequence[str], packed: Compression | None) -> dict[str, str]:
    """Return the versions of all that the output's bytes depend on."""
    found = {"edgewren": edgewren.__version__, "python": ".".join(map(str, sys.version_info[:2]))}
    for name in (*_LIBRARIES, *(["pyarrow"] if "parquet" in formats else [])):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found.setdefault("numpy", np.__version__)
    if packed is not None:
        if packed.name == "gzip":
            found["zlib"] = zlib.ZLIB_RUNTIME_VERSION
        if packed.name == "zstd":
            found["zstd"] = ".".join(map(str, zstd_module().zstd_version_info))
    found["cpu"] = _cpu()
    return found


def _cpu() -> str:
    """Return what kernels are chosen by: last bits of scores differ from one instruction set to another."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, flags=re.MULTILINE)
    flags = sorted({flag for flag in (line.group(1).split() if line else []) if _CPU_FLAGS.fullmatch(flag)})
    return " ".join([platform.machine(), *flags])
