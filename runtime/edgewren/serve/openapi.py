"""The service's description: an OpenAPI 3.1 document, and the same as a page that loads nothing from elsewhere."""

from __future__ import annotations

import html
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from edgewren import __version__
from edgewren.serve.models import Served
from edgewren.serve.page import HEADERS

Handler = Callable[[Request], Awaitable[Response]]

LEAST_TIMEOUT_S = 0.1
"""Shortest time that a client may give a request: anything less asks for an answer that cannot be had."""

_ERROR = {"$ref": "#/components/schemas/Error"}
_REFUSALS = {
    "404": "There is no such model.",
    "413": "The body or the batch is too large.",
    "415": "The Content-Encoding is unknown or the body is damaged.",
    "422": "The body is not understood.",
    "429": "The queue, or the room for large bodies, is full; Retry-After says when to come back.",
    "503": "Not ready, or stopping.",
    "504": "Not answered in time.",
}


def document(models: Mapping[str, Served], most_texts: int, most_bytes: int) -> Handler:
    """Return the handler of /openapi.json."""
    content = describe(models, most_texts, most_bytes)

    async def handler(_request: Request) -> Response:
        return JSONResponse(content)

    return handler


def docs(models: Mapping[str, Served], most_texts: int, most_bytes: int) -> Handler:
    """Return the handler of /docs."""
    text = _as_page(describe(models, most_texts, most_bytes))

    async def handler(_request: Request) -> Response:
        return HTMLResponse(text, headers=HEADERS)

    return handler


def describe(models: Mapping[str, Served], most_texts: int, most_bytes: int) -> dict[str, Any]:
    """Return the OpenAPI document."""
    labels = list(next(iter(models.values())).classifier.labels)
    names = list(models)
    predict = {
        "summary": "Label texts",
        "description": f"At most {most_texts:,} texts and {most_bytes:,} bytes. A single text gets a list of labels "
        "with scores, the best first; a list of texts gets a list of such lists. An item that is no text gets an error "
        "of its own; the others are answered.",
        "parameters": [
            {"name": "model", "in": "query", "required": False, "schema": {"type": "string", "enum": names}},
            {
                "name": "X-Timeout-Seconds",
                "in": "header",
                "required": False,
                "schema": {"type": "number", "minimum": LEAST_TIMEOUT_S},
            },
        ],
        "requestBody": _body("Predict", {"inputs": ["Taxes are theft.", "The library opens at nine."]}),
        "responses": _responses({"$ref": "#/components/schemas/Predictions"}),
    }
    nested = {**predict, "summary": "Label texts, in the shape of Hugging Face's hosted API"}
    model_name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": names}}
    infer = {
        "summary": "Label texts (Open Inference Protocol V2)",
        "parameters": [
            model_name,
            {
                "name": "X-Timeout-Seconds",
                "in": "header",
                "required": False,
                "schema": {"type": "number", "minimum": LEAST_TIMEOUT_S},
            },
        ],
        "requestBody": _body(
            "Infer", {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Taxes are theft."]}]}
        ),
        "responses": _responses({"type": "object", "required": ["model_name", "outputs"]}),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgewren",
            "version": __version__,
            "description": f"Text classification. Models: {', '.join(names)}. Labels of {names[0]}: "
            f"{', '.join(labels)}.",
        },
        "paths": {
            "/predict": {"post": predict},
            "/": {"post": nested, "get": _get("A page to try it out", "text/html")},
            "/info": {"get": _get("The default model and the limits")},
            "/health": {"get": _get("Whether it is ready", refusals=("503",))},
            "/v2": {"get": _get("The server")},
            "/v2/health/live": {"get": _get("Whether it is alive; never touches a model")},
            "/v2/health/ready": {
                "get": _get("Whether it is ready: every model gave its golden answers", refusals=("503",))
            },
            "/v2/models/{name}": {"get": {**_get("A model", refusals=("404",)), "parameters": [model_name]}},
            "/v2/models/{name}/ready": {
                "get": {**_get("Whether a model is ready", refusals=("404", "503")), "parameters": [model_name]}
            },
            "/v2/models/{name}/infer": {"post": infer},
            "/metrics": {"get": _get("Metrics for Prometheus", "text/plain")},
        },
        "components": {"schemas": _schemas(most_texts)},
    }


def _schemas(most_texts: int) -> dict[str, Any]:
    text = {"type": "string"}
    label = {
        "type": "object",
        "required": ["label", "score"],
        "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
    }
    labels = {"type": "array", "items": label}
    return {
        "Predict": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "inputs": {"anyOf": [text, {"type": "array", "maxItems": most_texts, "items": {}}]},
                "parameters": {
                    "type": ["object", "null"],
                    "properties": {
                        "top_k": {"type": ["integer", "null"], "minimum": 1},
                        "function_to_apply": {"enum": ["softmax", "none", None]},
                    },
                },
                "raw_scores": {"type": ["boolean", "null"]},
                "truncate": {"type": ["boolean", "null"]},
                "top_k": {"type": ["integer", "null"], "minimum": 1},
                "function_to_apply": {"enum": ["softmax", "none", None]},
            },
        },
        "Predictions": {
            "type": "array",
            "items": {"anyOf": [label, labels, {"$ref": "#/components/schemas/Error"}]},
        },
        "Infer": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": ["string", "null"]},
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["name", "datatype", "shape", "data"],
                        "properties": {
                            "name": {"const": "text"},
                            "datatype": {"const": "BYTES"},
                            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                            "data": {"type": "array", "items": text, "maxItems": most_texts},
                        },
                    },
                },
            },
        },
        "Error": {
            "type": "object",
            "required": ["error", "error_type"],
            "properties": {
                "error": {"type": "string"},
                "error_type": {"enum": ["Validation", "Overloaded", "Unhealthy", "Backend"]},
            },
        },
    }


def _body(schema: str, example: Any) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    return {"required": True, "content": {"application/json": content}}


def _responses(schema: dict[str, Any], refusals: Mapping[str, str] = _REFUSALS) -> dict[str, Any]:
    answers = {"200": {"description": "Labels and scores.", "content": {"application/json": {"schema": schema}}}}
    for code, description in refusals.items():
        answers[code] = {"description": description, "content": {"application/json": {"schema": _ERROR}}}
    return answers


def _get(summary: str, media: str = "application/json", *, refusals: tuple[str, ...] = ()) -> dict[str, Any]:
    responses = {"200": {"description": summary, "content": {media: {}}}}
    for code in refusals:
        responses[code] = {"description": _REFUSALS[code], "content": {"application/json": {}}}
    return {"summary": summary, "responses": responses}


def _as_page(content: Mapping[str, Any]) -> str:
    sections = []
    for path, methods in content["paths"].items():
        for method, operation in methods.items():
            example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            shown = f"<pre>{html.escape(json.dumps(example, indent=2))}</pre>" if example else ""
            codes = "".join(
                f"<tr><td>{code}</td><td>{html.escape(answer['description'])}</td></tr>"
                for code, answer in operation["responses"].items()
            )
            sections.append(
                f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2>"
                f"<p>{html.escape(operation['summary'])}. {html.escape(operation.get('description', ''))}</p>{shown}"
                f"<table>{codes}</table></section>"
            )
    info = content["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>edgewren: API</title>'
        '<link rel="icon" href="data:,">'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/page.css"></head><body><main>'
        f"<h1>edgewren {html.escape(info['version'])}</h1><p>{html.escape(info['description'])} "
        '<a href="/openapi.json">OpenAPI document</a></p>' + "".join(sections) + "</main></body></html>"
    )
