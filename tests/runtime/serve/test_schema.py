"""The service against its own OpenAPI document: whatever is sent, the status is one that the document names, never 500."""

from __future__ import annotations

import os

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra dev)")
import subprocess  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

pytestmark = pytest.mark.slow

EXAMPLES = os.environ.get("EDGEWREN_SCHEMA_EXAMPLES", "60")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_whatever_is_sent_is_answered_as_the_document_says(server):
    program = Path(sys.executable).parent / "schemathesis"
    command = [str(program)] if program.exists() else [sys.executable, "-m", "schemathesis.cli"]
    result = subprocess.run(
        [
            *command,
            "run",
            server.url + "/openapi.json",
            "--url",
            server.url,
            "--checks",
            CHECKS,
            "--max-examples",
            EXAMPLES,
            "--seed",
            "1",
            "--generation-database",
            "none",
            "--suppress-health-check",
            "all",
        ],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
