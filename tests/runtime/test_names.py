"""Names of bundles: the default works with nothing but the package; larger ones are found, or the message helps."""

from __future__ import annotations

import json
import shutil

import pytest

from edgewren import Classifier, names
from edgewren.bundle import Bundle
from edgewren.cli.main import main
from edgewren.errors import BundleMissingError
from edgewren.verification import verify


def test_default_is_a_whole_static_bundle_of_less_than_a_megabyte():
    folder = names.resolve()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1_000_000
    bundle = Bundle.open()
    assert (bundle.manifest.kind, bundle.manifest.labels) == ("static", ("neutral", "partisan"))
    assert verify(folder).ok
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "1,200 rows" in card
    assert "## From the publisher" in card


def test_classifier_without_a_path_answers():
    classifier = Classifier.load()
    answers = classifier.predict(["The library opens at nine tomorrow.", "They lied to you again. Vote them OUT!"])
    assert answers == ["neutral", "partisan"]


@pytest.mark.parametrize("model", [[], ["--model", "media-bias"]])
def test_score_needs_no_model(tmp_path, model):
    (tmp_path / "tweets.csv").write_text("text\nThe library opens at nine.\n")
    assert main(["score", str(tmp_path / "tweets.csv"), *model, "--output", str(tmp_path / "out.csv")]) == 0
    assert (tmp_path / "out.csv").read_text().startswith("text,label,score,score_neutral,score_partisan,status\n")


def test_folder_of_that_name_comes_first(tmp_path, monkeypatch, tiny_bundle):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bundle, tmp_path / "media-bias")
    assert Classifier.load("media-bias").bundle.manifest.kind == "ridge"


def test_larger_bundle_is_found_among_the_artifacts(tmp_path, monkeypatch, tiny_bundle):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bundle, tmp_path / "artifacts" / "media-bias-ridge")
    assert Classifier.load("media-bias-ridge").labels == ("neutral", "partisan")


def test_larger_bundle_that_is_absent_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(names, "__file__", str(tmp_path / "a" / "b" / "names.py"))
    with pytest.raises(BundleMissingError, match=r"media-bias-lora is not inside the package.*copy it from there"):
        Classifier.load("media-bias-lora")


def test_name_that_nobody_knows_is_refused_as_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleMissingError, match="media-bais is not a folder"):
        Classifier.load("media-bais")


def test_default_names_its_data_and_teacher():
    training = json.loads((names.resolve() / "manifest.json").read_text(encoding="utf-8"))["training"]
    assert training["data"]["rows"] == 1200
    assert training["distillation"]["teacher"]["kind"] == "ridge"
    assert (
        training["distillation"]["agreement"]["low"] > training["distillation"]["undistilled_agreement"]["value"] - 0.05
    )
