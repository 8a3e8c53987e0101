"""How fast a bundle is on this machine: throughput, latency, cold start, memory. Knows nothing of printing.

Throughput and latency are measured in this process after a warm-up; cold start and memory in fresh processes, as a
user's own would be.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewren.classifier import Classifier, Scores
from edgewren.errors import InvariantError, UsageError

_MINIMUM_ROUNDS = 3
_COLD_STARTS = 3
_LATENCY_CALLS = 300
_WARM_UP_S = 0.5  # of single texts, in which a second session for them is made

# What a user's process does: import, load, score one text, then some one by one, then all. A second line tells the peak
# of resident memory: on Linux VmHWM, for ru_maxrss also counts what the parent process held when it started this one.
_FRESH_PROCESS = """
import json, sys
job = json.load(sys.stdin)
sys.path.append(job["root"])
from edgewren import Classifier
classifier = Classifier.load(job["bundle"], **job["options"])
print(json.dumps(classifier.predict(job["texts"][:1])), flush=True)
for text in job["texts"][:100]:
    classifier.predict([text])
classifier.predict(job["texts"])
peak = None
if sys.platform == "linux":
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        peak = next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")), None)
elif sys.platform == "darwin":
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak_bytes": peak}), flush=True)
"""


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        variant, device, threads: as used.
        texts, distinct, tokens: size of the input; equal token rows are computed once.
        left_after_layer: share of the texts that left after each layer; None where the model has no early exits.
        rounds: how often all texts were scored.
        texts_per_s: median over the rounds, tokenisation included.
        latency_ms: "p50", "p95", "p99" and "max" of single texts, one after another, warm.
        load_s: `Classifier.load` in this process, after onnxruntime's import.
        cold_start_s: fresh process to first label, the interpreter's own start included; median of three.
        peak_resident_mb: of a fresh process that scored all texts; None where the system doesn't tell.
    """

    variant: str
    device: str
    threads: int
    texts: int
    distinct: int
    tokens: int
    left_after_layer: dict[int, float] | None
    rounds: int
    texts_per_s: float
    latency_ms: dict[str, float]
    load_s: float
    cold_start_s: float
    peak_resident_mb: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    path: str | os.PathLike[str],
    texts: Sequence[str],
    *,
    device: str = "auto",
    threads: int | None = None,
    variant: str | None = None,
    seconds: float = 5.0,
) -> Measurement:
    """Measure a bundle on these texts.

    Args:
        path: the bundle's folder.
        texts: at least one; the more like the real ones, the truer the figures.
        device, threads, variant: as for `Classifier.load`.
        seconds: time for the throughput's rounds; at least three are made.

    Raises:
        UsageError: no texts, or seconds not positive.
        BundleError, DeviceError: as `Classifier.load`.
    """
    if not texts or not 0 < seconds < float("inf"):
        raise UsageError(f"{len(texts)} texts and {seconds} seconds were given, expected at least one and more than 0.")
    options: dict[str, Any] = {"device": device, "threads": threads, "variant": variant}
    classifier = Classifier.load(path, **options)  # imports what a second load finds ready
    start = time.perf_counter()
    classifier = Classifier.load(path, **options)
    load_s = time.perf_counter() - start
    facts = classifier.score(texts)  # the warm-up

    rounds: list[float] = []
    end = time.perf_counter() + seconds
    while len(rounds) < _MINIMUM_ROUNDS or time.perf_counter() < end:
        start = time.perf_counter()
        classifier.predict(texts)
        rounds.append(time.perf_counter() - start)

    end = time.perf_counter() + _WARM_UP_S
    for text in itertools.cycle(texts):
        classifier.predict([text])
        if time.perf_counter() > end:
            break
    latencies = []
    for index in range(_LATENCY_CALLS):
        single = [texts[index % len(texts)]]
        start = time.perf_counter()
        classifier.predict(single)
        latencies.append((time.perf_counter() - start) * 1000)
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).tolist()

    starts, peaks = zip(*(_fresh_process(path, options, texts) for _ in range(_COLD_STARTS)), strict=True)
    known = [peak for peak in peaks if peak is not None]
    return Measurement(
        variant=classifier.variant,
        device=classifier.device,
        threads=classifier.threads,
        texts=len(texts),
        distinct=facts.distinct,
        tokens=facts.tokens,
        left_after_layer=_shares(facts, classifier.exits),
        rounds=len(rounds),
        texts_per_s=len(texts) / statistics.median(rounds),
        latency_ms={"p50": p50, "p95": p95, "p99": p99, "max": max(latencies)},
        load_s=load_s,
        cold_start_s=statistics.median(starts),
        peak_resident_mb=max(known) / 1e6 if known else None,
    )


def _shares(scores: Scores, exits: Sequence[int]) -> dict[int, float] | None:
    return None if scores.layers is None else {layer: float((scores.layers == layer).mean()) for layer in exits}


def _fresh_process(
    path: str | os.PathLike[str], options: dict[str, Any], texts: Sequence[str]
) -> tuple[float, int | None]:
    """Return seconds from starting a process to its first label, and its peak of resident memory in bytes."""
    root = str(Path(__file__).parents[1])  # last on its path: edgewren may be found from the working directory alone
    job = json.dumps({"bundle": os.fspath(path), "options": options, "texts": list(texts), "root": root})
    command = [sys.executable, "-P", "-c", _FRESH_PROCESS]  # -P: no modules of the working directory
    with tempfile.TemporaryFile() as errors:  # a file, not a pipe: it never fills up
        start = time.perf_counter()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as process:  # noqa: S603  our own code
            if process.stdin is None or process.stdout is None:  # for type checkers: both are pipes
                raise InvariantError("A process was started without pipes.")
            with contextlib.suppress(BrokenPipeError):  # it died early: its exit code tells
                process.stdin.write(job.encode())
                process.stdin.close()
            process.stdout.readline()  # the first label
            seconds = time.perf_counter() - start
            rest = process.stdout.read()
        errors.seek(0)
        reason = errors.read().decode(errors="replace").strip().splitlines()
    if process.returncode != 0 or not rest:
        raise InvariantError(f"A fresh process could not score: {reason[-1] if reason else process.returncode}.")
    peak: int | None = json.loads(rest)["peak_bytes"]
    return seconds, peak
