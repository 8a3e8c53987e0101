"""The web page: three files of the package, handed out as they are. Loads nothing from elsewhere and keeps nothing."""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


async def index(_request: Request) -> Response:
    """Answer with the page."""
    return _file("page.html", "text/html")


async def script(_request: Request) -> Response:
    """Answer with its script."""
    return _file("page.js", "text/javascript")


async def style(_request: Request) -> Response:
    """Answer with its style."""
    return _file("page.css", "text/css")


def _file(name: str, media_type: str) -> Response:
    content = resources.files("edgewren.serve").joinpath(name).read_bytes()
    return Response(content, media_type=media_type, headers=HEADERS)
