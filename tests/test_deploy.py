"""The container file and the systemd unit, held against their own linters."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgewren.cli.main import parse

DEPLOY = Path(__file__).parent.parent / "deploy"


def test_the_container_file_has_no_lint():
    linter = Path(sys.executable).parent / "hadolint"
    found = str(linter) if linter.exists() else shutil.which("hadolint")
    if found is None:
        pytest.skip("hadolint is not installed (extra dev)")
    result = subprocess.run([found, DEPLOY / "Containerfile"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_container_runs_without_rights_and_says_whether_it_is_healthy():
    text = (DEPLOY / "Containerfile").read_text()
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE)
    assert "/v2/health/ready" in text
    assert "[cpu,serve]" in text
    assert "torch" not in text.split("FROM", 2)[2]


def test_the_unit_is_understood_by_systemd(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "edgewren.service"
    unit.write_text((DEPLOY / "edgewren.service").read_text().replace("/opt/edgewren/bin/edgewren", "/bin/true"))
    result = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert result.returncode == 0
    assert not [line for line in result.stderr.splitlines() if "edgewren.service" in line]


@pytest.mark.parametrize("name", ["Containerfile", "edgewren.service"])
def test_the_command_line_in_it_is_one_that_edgewren_takes(name):
    text = (DEPLOY / name).read_text()
    if name == "Containerfile":
        words = [*re.findall(r'"([^"]*)"', re.search(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[1]), "/bundle"]
    else:
        words = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1].split()
    args = parse(words[1:])
    assert args.verb == "serve"
    assert args.port == 8080
