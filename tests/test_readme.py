"""What the README shows is what this checkout does."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from edgewren.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BUNDLES = {recipe: ROOT / "artifacts" / f"media-bias-{recipe}" for recipe in ("ridge", "lora")}

pytestmark = pytest.mark.skipif(
    not all(folder.is_dir() for folder in BUNDLES.values()),
    reason="artifacts/ is not in this checkout: 'make artifacts'",
)


def without_times(text: str) -> str:
    return re.sub(r"in [\d.]+ s, [\d,]+ rows/s", "in _ s, _ rows/s", text)


def test_the_demo_prints_what_is_shown(tmp_path, monkeypatch, capfd):
    spec = importlib.util.spec_from_file_location("show_scored", ROOT / "examples" / "show_scored.py")
    show_scored = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(show_scored)
    monkeypatch.chdir(tmp_path)
    Path("demo-output").mkdir()
    posts = str(ROOT / "examples" / "town_posts_new.csv")
    for options, output in (([], "scored_by_the_default.csv"), (["--model", str(BUNDLES["ridge"])], "scored.csv")):
        assert main(["score", posts, *options, "--output", f"demo-output/{output}"]) == 0
        show_scored.main(f"demo-output/{output}")
    captured = capfd.readouterr()
    printed = without_times(captured.err + captured.out).splitlines()
    shown = without_times(README.partition("$ make demo\n")[2].partition("```")[0]).splitlines()
    assert len(shown) > 10
    assert [line for line in shown if line not in ("", "…") and line not in printed] == []


@pytest.mark.parametrize(("recipe", "column"), [("ridge", 3), ("lora", 4)])
def test_figures_are_those_of_the_bundles(recipe, column):
    manifest = json.loads((BUNDLES[recipe] / "manifest.json").read_text(encoding="utf-8"))
    cells = {
        row.split(" | ")[0].strip("| "): [cell.strip() for cell in row.split("|")]
        for row in README.splitlines()
        if row.startswith("| ")
    }
    (int8,) = (stage for stage in manifest["parity"]["stages"] if stage["name"] == "fp32 -> int8")
    f1 = f"{int8['macro_f1_fp32']:.4f} → {int8['macro_f1']:.4f}"
    assert cells["int8: labels changed of 1,200, macro-F1"][column] == f"{int8['label_flips']}, {f1}"
    exits = manifest["parity"]["exits"]["int8_exit"]
    *early, _ = exits["left_after_layer"].values()
    told = f"{exits['labels_differing']} ({manifest['training']['exits']['differing']}), {sum(early):.0%}"
    row = "early exit: further labels changed of 1,200 (out of fold), texts that leave"
    assert cells[row][column] == told.replace("%", " %")
    calibration = manifest["training"]["calibration"]
    before, after = (calibration[when]["ece"]["value"] for when in ("before", "after"))
    assert cells["ECE before and after calibration; labels changed"][column] == f"{before:.3f} → {after:.3f}; 0"
