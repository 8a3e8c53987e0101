"""From an opened bundle to what computes: every file read once, checked, and made into sessions and a tokenizer.

The order is chosen for time: what needs the interpreter's lock stands beside what does not. Measurements: docs/log.md.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait

from edgewren import tokenizer_scan
from edgewren.background import one_by_one
from edgewren.bundle import Bundle
from edgewren.device import Device
from edgewren.manifest import TOKENIZER, Variant
from edgewren.session import ModelSession
from edgewren.staged import StagedSession
from edgewren.text import TextTokenizer

_HEAD_START_S = 0.01
"""onnxruntime reads a model under the interpreter's lock (8 ms for 24 MB), then works on it without (25 ms). So the
tokenizer, which takes 8 ms under the lock, comes second."""


def load(bundle: Bundle, entry: Variant, device: Device) -> tuple[ModelSession | StagedSession, TextTokenizer]:
    """Read, check and make everything; beside it, in another thread, what needs little of the interpreter's lock: the
    models' hashes, then all stages but the first; or, where there is one model, the tokenizer while that is made.

    The largest session is made here: with glibc's malloc, another thread's would leave its memory to other threads.
    """
    models = [(file, bundle.unchecked(file)) for file in entry.loaded]  # in small steps, each of which takes the lock
    tokenizer_json = bundle.unchecked(TOKENIZER)
    hashes = one_by_one([functools.partial(bundle.compare, file, data) for file, data in models])
    try:
        bundle.compare(TOKENIZER, tokenizer_json)
        checked = tokenizer_scan.scan(tokenizer_json, str(bundle.path / TOKENIZER))
        for (file, data), compared in zip(models, hashes, strict=True):
            compared.result()
            bundle.check(file, data)
    finally:
        wait(hashes)  # leave no thread behind

    def tokenizer() -> TextTokenizer:
        return TextTokenizer(tokenizer_json, bundle.manifest.max_length, settings=checked.settings)

    def session(file: str, data: bytes) -> ModelSession:
        return _session(bundle, entry, file, data, device)

    if not entry.stages:
        making = one_by_one([functools.partial(_after_a_head_start, tokenizer)])
        try:
            return session(*models[0]), making[0].result()
        finally:
            wait(making)
    others = one_by_one([functools.partial(session, *model) for model in models[1:]])
    try:
        sessions = [session(*models[0])]
        made = tokenizer()
        sessions += [other.result() for other in others]
    finally:
        wait(others)
    return _staged(entry, sessions), made


def _after_a_head_start(make: Callable[[], TextTokenizer]) -> TextTokenizer:
    time.sleep(_HEAD_START_S)
    return make()


def with_threads_inside(bundle: Bundle, entry: Variant, threads: int) -> ModelSession | StagedSession:
    """Make the session of a variant once more, for a CPU, with threads inside; stages of embeddings alone have one."""
    inside = [threads if stage.layer > 0 else 1 for stage in entry.stages] or [threads]
    sessions = [
        _session(bundle, entry, file, bundle.read(file), "cpu", count)
        for file, count in zip(entry.loaded, inside, strict=True)
    ]
    return _staged(entry, sessions) if entry.stages else sessions[0]


def _session(bundle: Bundle, entry: Variant, file: str, data: bytes, device: Device, threads: int = 1) -> ModelSession:
    again = functools.partial(bundle.read, file)
    return ModelSession(data, device=device, threads=threads, read_again=again, stage=bool(entry.stages))


def _staged(entry: Variant, sessions: Sequence[ModelSession]) -> StagedSession:
    return StagedSession(sessions, [stage.layer for stage in entry.stages], [stage.threshold for stage in entry.stages])
