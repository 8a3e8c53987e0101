"""What is served: loaded bundles, each with its queue, and whether each has shown that it is fit to answer."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgewren.classifier import Classifier
from edgewren.errors import BundleError, UsageError
from edgewren.serve.queue import WorkQueue
from edgewren.verification import Replay, golden_texts, replay

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LEAST_CAPACITY_TOKENS = 1024


@dataclass
class Served:
    """One model. `ready` turns true once the golden texts gave what they gave at export; `failure` says why not.

    Attributes:
        name: in URLs.
        capacity_tokens: that may wait at full speed.
    """

    name: str
    classifier: Classifier
    queue: WorkQueue
    capacity_tokens: int
    ready: bool = False
    failure: str | None = None


def load_models(
    bundles: Sequence[str],
    *,
    device: str = "auto",
    threads: int | None = None,
    variant: str | None = None,
    queue_ms: float = 50.0,
) -> dict[str, Served]:
    """Load bundles, by name: `name=path`, or a path whose last part is the name. The first one is the default.

    Args:
        bundles: at least one.
        device, threads, variant: as for `Classifier.load`; each model has `threads` workers.
        queue_ms: as many tokens may wait as this machine computes in this time.

    Raises:
        BundleError: one of them is refused.
        UsageError: none, two of the same name, or a name that does not fit a URL.
    """
    if not bundles:
        raise UsageError("There is no bundle to serve. Name at least one folder.")
    models: dict[str, Served] = {}
    for spec in bundles:
        name, path = _named(spec)
        if name in models:
            raise UsageError(f"Two bundles are called {name!r}. Name them: first={path} second=…")
        models[name] = _load(name, path, device=device, threads=threads, variant=variant, queue_ms=queue_ms)
    return models


def check(models: dict[str, Served]) -> None:
    """Replay every model's golden texts; those that agree become ready. Blocks for as long as that takes."""
    for model in models.values():
        try:
            found: Replay | None = replay(model.classifier)
        except BundleError as error:
            found, model.failure = None, str(error).rstrip(".")
        except Exception as error:  # noqa: BLE001  a bug, but the model must not be "being checked" for ever
            found, model.failure = None, f"its golden texts could not be replayed ({type(error).__name__})"
        if found is not None and not found.ok:
            model.failure = (
                f"variant {found.variant} does not compute the golden logits here: they differ by up to "
                f"{found.max_difference:.1e}"
            )
        model.ready = model.failure is None
        logger.info("%s: %s", model.name, model.failure or "ready")


def _named(spec: str) -> tuple[str, str]:
    name, separator, path = spec.partition("=")
    if not separator:
        path, name = spec, os.path.basename(os.path.abspath(spec))  # noqa: PTH100, PTH119  of ".", the folder's own name
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"The bundle {spec!r} gives the name {name!r}, which does not fit a URL (letters, digits, '_', '.', '-'). "
            "Give it another: name=path."
        )
    return name, path


def _load(name: str, path: str, *, device: str, threads: int | None, variant: str | None, queue_ms: float) -> Served:
    classifier = Classifier.load(path, device=device, threads=threads, variant=variant)
    workers = classifier.threads
    rate = _tokens_per_s(classifier)
    capacity = max(_LEAST_CAPACITY_TOKENS, int(rate * queue_ms / 1000))
    queue = WorkQueue(
        [classifier.with_threads(1).score for _ in range(workers)],
        labels=len(classifier.labels),
        max_length=classifier.bundle.manifest.max_length,
        capacity_tokens=capacity,
        tokens_per_s=rate,
    )
    logger.info("%s: %d workers, %.0f tokens/s, %d tokens may wait", name, workers, rate, capacity)
    return Served(name, classifier, queue, capacity)


def _tokens_per_s(classifier: Classifier) -> float:
    """Measure all workers on the golden texts, which warms the session; the second of two rounds counts."""
    try:
        texts = golden_texts(classifier.bundle.path)
    except BundleError:
        texts = ["a text of some ten words, to see how fast this is"] * 32
    rate = 0.0
    for _ in range(2):
        start = time.perf_counter()
        tokens = classifier.score(texts).tokens
        rate = tokens / max(time.perf_counter() - start, 1e-9)
    return rate


class Readiness:
    """Whether requests are taken: not before every model was checked, not any more once the server is stopping."""

    def __init__(self, models: dict[str, Served]) -> None:
        self._models = models
        self.draining = False
        self._thread = threading.Thread(target=check, args=(models,), name="edgewren-serve-check", daemon=True)

    def start(self) -> None:
        """Check the models in a thread, so that the server is alive meanwhile."""
        self._thread.start()

    def problem(self, model: Served | None = None) -> str | None:
        """Return why requests (for one model, or all) are not taken, or None."""
        if self.draining:
            return "The server is stopping."
        for served in self._models.values() if model is None else (model,):
            if not served.ready:
                return f"{served.name} is not ready: {served.failure or 'its golden texts are being checked'}."
        return None
