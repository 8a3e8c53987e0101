"""What make knows: a wheel is built anew when anything that it holds was edited."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("runtime/edgewren", "export/edgewren_export", "train/edgewren_train")


def test_the_wheel_depends_on_every_file_that_it_holds():
    database = subprocess.run(
        ["make", "--question", "--print-data-base", ".venv-cpu/.ready"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    (rule,) = (line for line in database.splitlines() if line.startswith(".venv-cpu/.ready:"))
    needed = set(rule.partition(":")[2].split())
    files = {
        str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()
    }
    held = {file for file in files if "__pycache__" not in file}
    assert {"runtime/edgewren/serve/page.html", "runtime/edgewren/bundles/media-bias/manifest.json"} <= held
    assert held | {"README.md", "LICENSE", "pyproject.toml", "constraints.txt"} <= needed
    assert not [file for file in needed if "__pycache__" in file]
