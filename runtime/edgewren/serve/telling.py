"""Metrics in Prometheus' text format. Counts and times only: no text and no label of a text ever gets here."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from edgewren import __version__
from edgewren.serve.models import Served

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The service's metrics, in a registry of their own, so that several services fit into one process."""

    def __init__(self, models: Mapping[str, Served]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "edgewren_requests", "Requests by route and status code.", ("route", "code"), registry=self.registry
        )
        self._seconds = Histogram(
            "edgewren_request_seconds",
            "Time from a request's head to its answer; its body comes in between.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._texts = Counter("edgewren_texts", "Texts scored.", ("model",), registry=self.registry)
        self._truncated = Counter(
            "edgewren_truncated_texts", "Texts of which tokens were cut off.", ("model",), registry=self.registry
        )
        self._waited = Histogram(
            "edgewren_queue_seconds", "Time in the queue.", ("model",), buckets=_SECONDS, registry=self.registry
        )
        waiting = Gauge("edgewren_queue_tokens", "Estimated tokens that wait.", ("model",), registry=self.registry)
        capacity = Gauge("edgewren_queue_capacity_tokens", "Tokens that may wait.", ("model",), registry=self.registry)
        ready = Gauge("edgewren_ready", "1 if the golden texts agree.", ("model",), registry=self.registry)
        info = Gauge(
            "edgewren_model_info", "Always 1.", ("model", "version", "variant", "sha256"), registry=self.registry
        )
        for model in models.values():
            waiting.labels(model.name).set_function(lambda model=model: model.queue.waiting_tokens)  # type: ignore[misc]
            capacity.labels(model.name).set_function(lambda model=model: model.queue.capacity_tokens)  # type: ignore[misc]
            ready.labels(model.name).set_function(lambda model=model: float(model.ready))  # type: ignore[misc]
            classifier = model.classifier
            info.labels(model.name, __version__, classifier.variant, classifier.bundle.sha256).set(1)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, str(code)).inc()
        self._seconds.labels(route).observe(seconds)

    def scored(self, model: str, texts: int, truncated: int, waited_s: float) -> None:
        """Count the texts of one request."""
        self._texts.labels(model).inc(texts)
        self._truncated.labels(model).inc(truncated)
        self._waited.labels(model).observe(waited_s)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
