"""The service's routes (ASGI, Starlette). Knows HTTP; texts go to `queue`, JSON is `messages`' matter.

Status codes: 200; 422 for what cannot be understood; 404, 405; 413 for a body or a batch that is too large; 415 for an
unknown encoding; 429 with Retry-After when the queue, or the room for bodies, is full; 503 before models are checked
and while the server stops; 504 after the deadline; 500 only for a bug. Errors are `{"error": …, "error_type": …}`, as
text-embeddings-inference words them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from edgewren import __version__
from edgewren.errors import EdgewrenError
from edgewren.serve import openapi, page
from edgewren.serve.body import BodiesFullError, BodyTooLargeError, EncodingError, Room, read_body
from edgewren.serve.messages import (
    RequestError,
    count_items,
    infer_answer,
    parse_infer,
    parse_json,
    parse_predict,
    predict_answer,
    wanted_outputs,
)
from edgewren.serve.models import Readiness, Served
from edgewren.serve.queue import Answer, ClosedError, DeadlineError, GoneError, QueueFullError
from edgewren.serve.telling import CONTENT_TYPE, Metrics

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]

_BODIES = 64
"""So many of the largest bodies may be on their way at once, and any number of small ones."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        body_bytes: decoded bytes of a body.
        texts: texts of a request.
        timeout_s: after which the answer is 504; a client can ask for less with the header X-Timeout-Seconds.
    """

    body_bytes: int = 2_000_000
    texts: int = 1024
    timeout_s: float = 10.0


class BatchTooLargeError(RequestError):
    """More texts than a request may have (HTTP 413)."""


_STATUS: tuple[tuple[type[EdgewrenError], int, str], ...] = (
    (BodyTooLargeError, 413, "Validation"),
    (BatchTooLargeError, 413, "Validation"),
    (EncodingError, 415, "Validation"),
    (RequestError, 422, "Validation"),
    (QueueFullError, 429, "Overloaded"),
    (BodiesFullError, 429, "Overloaded"),
    (ClosedError, 503, "Unhealthy"),
    (DeadlineError, 504, "Overloaded"),
)


def build_app(models: Mapping[str, Served], readiness: Readiness, limits: Limits) -> ASGIApp:
    """Return the ASGI application. The first model is the default one."""
    service = _Service(models, readiness, limits)
    routes = [
        ("POST", "/predict", service.predict),
        ("POST", "/", service.predict_nested),
        ("GET", "/", page.index),
        ("GET", "/page.js", page.script),
        ("GET", "/page.css", page.style),
        ("GET", "/info", service.info),
        ("GET", "/health", service.ready),
        ("GET", "/v2", service.server_metadata),
        ("GET", "/v2/health/live", service.live),
        ("GET", "/v2/health/ready", service.ready),
        ("GET", "/v2/models/{name}", service.model_metadata),
        ("GET", "/v2/models/{name}/ready", service.model_ready),
        ("POST", "/v2/models/{name}/infer", service.infer),
        ("GET", "/metrics", service.metrics_text),
        ("GET", "/openapi.json", openapi.document(models, limits.texts, limits.body_bytes)),
        ("GET", "/docs", openapi.docs(models, limits.texts, limits.body_bytes)),
    ]
    by_path: dict[str, dict[str, Handler]] = {}
    for method, path, handler in routes:
        by_path.setdefault(path, {})[method] = service.measured(path, handler)
    app = Starlette(
        routes=[Route(path, _by_method(handlers), methods=list(handlers)) for path, handlers in by_path.items()],
        exception_handlers={HTTPException: _http_error},
    )
    app.router.redirect_slashes = False  # to an address that says http:// behind a proxy that speaks TLS
    return _Shedding(
        app, service, {path for path, handlers in by_path.items() if "POST" in handlers and "{" not in path}
    )


class _Shedding:
    """Refuses in front of everything while every queue is full: a refusal must cost little, or a flood of them takes
    the processor from those who were accepted.
    """

    def __init__(self, app: ASGIApp, service: _Service, paths: set[str]) -> None:
        self._app = app
        self._service = service
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._paths:
            refusal = self._service.shed()
            if refusal is not None:
                self._service.count_shed(scope["path"])
                await _error_answer(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Service:
    def __init__(self, models: Mapping[str, Served], readiness: Readiness, limits: Limits) -> None:
        self._models = models
        self._default = next(iter(models.values()))
        self._readiness = readiness
        self._limits = limits
        self._metrics = Metrics(models)
        self._room = Room(_BODIES * limits.body_bytes)

    def shed(self) -> QueueFullError | None:
        """Return why every request is refused now, or None."""
        if self._readiness.draining or not all(model.queue.full for model in self._models.values()):
            return None
        return self._default.queue.refusal()

    def count_shed(self, route: str) -> None:
        self._metrics.answered(route, 429, 0.0)

    def measured(self, route: str, handler: Handler) -> Handler:
        """Wrap a handler: its errors become answers, and it is counted."""

        async def wrapped(request: Request) -> Response:
            start = time.perf_counter()
            try:
                response = await handler(request)
            except (ClientDisconnect, GoneError):
                response = Response(status_code=499)  # nobody reads it
            except asyncio.CancelledError:  # the server has no more time
                response = _error_answer(ClosedError("The server is stopping. Send the request to another one."))
            except HTTPException as error:
                response = _http_answer(error)
            except Exception as error:  # noqa: BLE001  a bug, but its message may hold a text: nobody else may log it
                response = _error_answer(error)
            self._metrics.answered(route, response.status_code, time.perf_counter() - start)
            return response

        return wrapped

    async def predict(self, request: Request) -> Response:
        return await self._predict(request, nested=False)

    async def predict_nested(self, request: Request) -> Response:
        """Answer as Hugging Face's hosted API does: a single text gets a list of one list."""
        return await self._predict(request, nested=True)

    async def _predict(self, request: Request, *, nested: bool) -> Response:
        begun = time.monotonic()
        model = self._model(request.query_params.get("model"))
        asked = parse_json(await self._body(request))
        self._check_size(count_items(asked))
        ask = parse_predict(asked)
        answer = await self._score(request, model, list(ask.texts), begun)
        classifier = model.classifier
        data = predict_answer(
            ask, classifier.labels, answer.logits, answer.truncated, classifier.bundle.manifest.max_length
        )
        headers = {
            "x-compute-tokens": str(answer.tokens),
            "x-queue-time": f"{1000 * answer.waited_s:.1f}",
            "x-truncated-texts": str(int(answer.truncated.sum())),
        }
        return JSONResponse([data] if nested and not ask.batch else data, headers=headers)

    async def infer(self, request: Request) -> Response:
        begun = time.monotonic()
        model = self._model(request.path_params["name"])
        asked = parse_json(await self._body(request))
        identity, texts = parse_infer(asked)
        outputs = wanted_outputs(asked)
        self._check_size(len(texts))
        answer = await self._score(request, model, texts, begun)
        return JSONResponse(infer_answer(model.name, identity, model.classifier.labels, answer.logits, outputs))

    async def info(self, _request: Request) -> Response:
        model = self._default
        manifest = model.classifier.bundle.manifest
        return JSONResponse(
            {
                "model_id": model.name,
                "model_sha": model.classifier.bundle.sha256,
                "model_dtype": model.classifier.variant,
                "model_type": {
                    "classifier": {
                        "id2label": {str(index): label for index, label in enumerate(manifest.labels)},
                        "label2id": {label: index for index, label in enumerate(manifest.labels)},
                    }
                },
                "kind": manifest.kind,
                "max_input_length": manifest.max_length,
                "max_client_batch_size": self._limits.texts,
                "max_body_bytes": self._limits.body_bytes,
                "max_queue_tokens": model.capacity_tokens,
                "auto_truncate": True,
                "models": list(self._models),
                "version": __version__,
            }
        )

    async def live(self, _request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _request: Request) -> Response:
        problem = self._readiness.problem()
        return JSONResponse({"ready": problem is None, "problem": problem}, status_code=200 if problem is None else 503)

    async def model_ready(self, request: Request) -> Response:
        problem = self._readiness.problem(self._model(request.path_params["name"]))
        return JSONResponse({"ready": problem is None, "problem": problem}, status_code=200 if problem is None else 503)

    async def server_metadata(self, _request: Request) -> Response:
        return JSONResponse({"name": "edgewren", "version": __version__, "extensions": []})

    async def model_metadata(self, request: Request) -> Response:
        model = self._model(request.path_params["name"])
        labels = model.classifier.labels
        return JSONResponse(
            {
                "name": model.name,
                "versions": [model.classifier.bundle.sha256],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [
                    {"name": "label", "datatype": "BYTES", "shape": [-1]},
                    {"name": "scores", "datatype": "FP32", "shape": [-1, len(labels)]},
                ],
            }
        )

    async def metrics_text(self, _request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    def _model(self, name: str | None) -> Served:
        if name is None:
            return self._default
        model = self._models.get(name)
        if model is None:
            raise HTTPException(404, f"There is no model of this name. There are: {', '.join(self._models)}.")
        return model

    async def _body(self, request: Request) -> bytes:
        seconds = self._timeout_s(request)
        try:
            async with asyncio.timeout(seconds):
                return await read_body(
                    _chunks(request),
                    limit=self._limits.body_bytes,
                    declared=request.headers.get("content-length"),
                    encoding=request.headers.get("content-encoding"),
                    room=self._room,
                )
        except TimeoutError as error:
            raise DeadlineError(
                f"The body was not here after {seconds:g} s. Send it again, or less at once."
            ) from error

    def _check_size(self, items: int) -> None:
        if items > self._limits.texts:
            raise BatchTooLargeError(
                f"The request has {items:,} texts, at most {self._limits.texts:,} are allowed. Send several requests."
            )

    async def _score(self, request: Request, model: Served, texts: list[str], begun: float) -> Answer:
        problem = self._readiness.problem(model)
        if problem is not None:
            raise ClosedError(problem)
        timeout_s = self._timeout_s(request)
        answer = await model.queue.score(texts, timeout_s=timeout_s, begun=begun, gone=partial(_gone, request))
        self._metrics.scored(model.name, len(texts), int(answer.truncated.sum()), answer.waited_s)
        return answer

    def _timeout_s(self, request: Request) -> float:
        asked = request.headers.get("x-timeout-seconds")
        if asked is None:
            return self._limits.timeout_s
        try:
            seconds = float(asked)
        except ValueError:
            seconds = -1.0
        if not openapi.LEAST_TIMEOUT_S <= seconds < float("inf"):
            raise RequestError(f"X-Timeout-Seconds is no number of seconds of at least {openapi.LEAST_TIMEOUT_S}.")
        return min(seconds, self._limits.timeout_s)


async def _gone(request: Request) -> None:
    """Return when the client has gone away. For after the body: what is received here is lost."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk


def _by_method(handlers: dict[str, Handler]) -> Handler:
    async def dispatch(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return dispatch


def _error_answer(error: Exception) -> Response:
    for kind, status, name in _STATUS:
        if isinstance(error, kind):
            headers = {}
            if isinstance(error, QueueFullError):
                headers["retry-after"] = str(error.retry_after_s)
            if isinstance(error, BodiesFullError):
                headers["retry-after"] = "1"
            if isinstance(error, DeadlineError):  # of the body, the rest may still come
                headers = {"connection": "close"}
            if isinstance(error, ClosedError):
                headers = {"retry-after": "1", "connection": "close"}
            return JSONResponse({"error": str(error), "error_type": name}, status_code=status, headers=headers)
    logger.error("unexpected %s while answering", type(error).__name__)
    return JSONResponse({"error": "The server failed. Please report this.", "error_type": "Backend"}, status_code=500)


async def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):  # Starlette calls this for HTTPException only
        raise error
    return _http_answer(error)


def _http_answer(error: HTTPException) -> Response:
    return JSONResponse(
        {"error": error.detail, "error_type": "Validation"}, status_code=error.status_code, headers=error.headers
    )
