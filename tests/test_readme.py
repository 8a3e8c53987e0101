"""What the README and docs/depth.md show is what this checkout does."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from edgewren.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BUNDLES = {
    "static": ROOT / "runtime" / "edgewren" / "bundles" / "media-bias",
    **{recipe: ROOT / "artifacts" / f"media-bias-{recipe}" for recipe in ("ridge", "lora")},
}
RECIPES = pytest.mark.parametrize(("recipe", "column"), [("static", 2), ("ridge", 3), ("lora", 4)])
IN_STAGES = pytest.mark.parametrize(("recipe", "column"), [("ridge", 3), ("lora", 4)])

pytestmark = pytest.mark.usefixtures("artifacts")


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


def manifest_of(recipe):
    return json.loads((BUNDLES[recipe] / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cells():
    """The README's tables: first cell of each row -> cells."""
    return {
        row.split(" | ")[0].strip("| "): [cell.strip() for cell in row.split("|")]
        for row in README.splitlines()
        if row.startswith("| ")
    }


def interval(estimate):
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


@RECIPES
def test_quality_and_parity_are_those_of_the_manifests(cells, recipe, column):
    manifest = manifest_of(recipe)
    held_out = [name for name in manifest["evaluation"] if "cross-validation" in name]
    folds = re.sub(
        r"-fold cross-validation(?: \((.*)\))?", lambda m: " folds" + (f", {m[1]}" if m[1] else ""), held_out[0]
    )
    told = f"{interval(manifest['evaluation'][held_out[0]]['balanced_accuracy'])} ({folds})"
    assert cells["held-out balanced accuracy (fp32, whole)"][column] == told
    told = interval(manifest["evaluation"]["test file"]["accuracy"])
    assert cells["test accuracy (100 tweets; fp32, whole)"][column] == told
    difference = {stage["name"]: stage["max_difference"] for stage in manifest["parity"]["stages"]}

    def largest(part):
        value = max(difference[name] for name in difference if part in name and "int8" not in name)
        return f"{value:.1e}".replace("e-0", "e-")

    if recipe == "static":
        told = f"{largest('float16 table')} (float16 table)"
    else:
        told = f"{largest('-> onnx fp32')} (exits {largest('exit')})"
    assert cells["exported against the original, largest Δ logit"][column] == told


@IN_STAGES
def test_sizes_are_those_of_the_files(cells, recipe, column):
    files = sorted((BUNDLES[recipe] / "onnx").glob("*.onnx"))
    whole, stages = (
        sum(file.stat().st_size for file in files if ("exit" in file.name) == staged) / 1e6 for staged in (False, True)
    )
    assert cells["size of the model"][column] == f"{whole:.1f} MB whole, {stages:.1f} MB in stages"


@IN_STAGES
def test_docs_show_where_texts_leave_the_bundles(recipe, column):
    exits = manifest_of(recipe)["training"]["exits"]
    left = ", ".join(f"{stage['share']:.1%} after layer {stage['layer']}" for stage in exits["stages"])
    told = (
        f"early exit on {exits['rows']:,} rows out of fold: {left}; labels that differ from the full model's: "
        f"{exits['differing']}, at most {exits['bound']:.2%} at 95% confidence (allowed: {exits['allowed']:.2%})"
    )
    assert told in " ".join((ROOT / "docs" / "depth.md").read_text(encoding="utf-8").split())


@IN_STAGES
def test_figures_are_those_of_the_bundles(cells, recipe, column):
    manifest = manifest_of(recipe)
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
