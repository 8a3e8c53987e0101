"""A bundle is checked before anything of it is used; every refusal names the file or field."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import bad_bundles
import pytest

from edgewren import BundleError, Classifier
from edgewren.bundle import Bundle
from edgewren.errors import BundleMissingError, BundleModelError


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def edit(bundle: Path, **changes) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    for key, value in changes.items():
        if value is ...:
            del manifest[key]
        else:
            manifest[key] = value
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_manifest_survives_writing_and_reading(tiny_bundle):
    raw = (tiny_bundle / "manifest.json").read_bytes()
    assert Bundle.open(tiny_bundle).manifest.to_json() == raw


def test_size_of_a_variant_is_that_of_all_its_files(staged_bundle):
    folder, _ = staged_bundle
    manifest = Bundle.open(folder).manifest
    assert manifest.variant_bytes("fp32") == (folder / "onnx" / "model.onnx").stat().st_size
    parts = [(folder / stage.file).stat().st_size for stage in manifest.variants["fp32_exit"].stages]
    assert manifest.variant_bytes("fp32_exit") == sum(parts) > 2 * parts[0] > 0


def test_every_file_is_read_back(tiny_bundle):
    opened = Bundle.open(tiny_bundle)
    for name in opened.names():
        assert opened.read(name) == (tiny_bundle / name).read_bytes()
    assert opened.names()[-1] == "onnx/model.onnx"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "is not a folder"),
        (lambda b: (b / "manifest.json").unlink(), "has no manifest.json"),
        (lambda b: (b / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda b: (b / "manifest.json").write_bytes(b"\xff"), "not valid JSON"),
        (
            lambda b: (b / "manifest.json").write_text("[" * 100_000),
            "manifest.json is refused: it is nested too deeply",
        ),
        (lambda b: (b / "manifest.json").write_text("[]"), "holds a list"),
        (lambda b: (b / "config.json").unlink(), "lacks config.json"),
        (lambda b: (b / "extra.pkl").write_text("x"), "extra.pkl does not belong"),
        (lambda b: (b / "onnx" / "more.onnx").write_text("x"), "more.onnx does not belong"),
        (lambda b: (b / "folder").mkdir(), "folder does not belong"),
        (lambda b: ((b / "README.md").unlink(), (b / "README.md").symlink_to("/etc/hostname")), "is a link"),
        (lambda b: ((b / "README.md").unlink(), (b / "README.md").mkdir()), "README.md is not a regular file"),
    ],
)
def test_damaged_folders_are_refused(bundle, damage, message):
    damage(bundle)
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_without_waiting_for_it(bundle):
    (bundle / "tokenizer.json").unlink()
    os.mkfifo(bundle / "tokenizer.json")
    with pytest.raises(BundleError, match="regular file"):
        Bundle.open(bundle).read("tokenizer.json")


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_folder_can_have_is_a_missing_bundle(name):
    with pytest.raises(BundleMissingError, match="no folder can have"):
        Bundle.open(name)


def test_a_file_that_does_not_fit_into_memory_is_named(bundle, monkeypatch):
    def too_much(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("edgewren.bundle_folder.os.fdopen", too_much)
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read: there is not enough memory"):
        Bundle.open(bundle)


def test_stages_that_are_too_large_together_are_refused(staged_bundle, tmp_path):
    copy = shutil.copytree(staged_bundle[0], tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_bytes())
    stages = next(variant for variant in manifest["variants"].values() if variant["stages"])["stages"]
    first, file = stages[0]["layer"], stages[1]["file"]
    manifest["files"][file]["bytes"] = 2**31 - 1
    stages[1:] = [{"file": file, "layer": first + more, "threshold": None if more == 3 else 0.5} for more in (1, 2, 3)]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="the bytes of all stages"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"format_version": ...},
        {"labels": ["one"]},
        {"labels": ["a", "a"]},
        {"labels": ["a", ""]},
        {"labels": ["a", "b\x1b[2J"]},
        {"labels": ["a", "b" * 129]},
        {"labels": ["a", 3]},
        {"labels": [str(n) for n in range(101)]},
        {"kind": "forest"},
        {"kind": ...},
        {"max_length": 0},
        {"max_length": True},
        {"max_length": 1e9},
        {"max_length": "8"},
        {"normaliser": "../x"},
        {"temperature": 0},
        {"temperature": "1"},
        {"temperature": True},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"variants": {}},
        {"variants": []},
        {"variants": {"fp32": None}},
        {"variants": {"fp32": {"file": "onnx/model.onnx"}}},
        {"files": {}},
        {"training": []},
        {"parity": None},
    ],
    ids=lambda changes: json.dumps(changes, default=str)[:40],
)
def test_bad_fields_are_refused(bundle, changes):
    edit(bundle, **changes)
    with pytest.raises(BundleError, match=f"manifest.json.*{'format version' if 'format_version' in changes else ''}"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "onnx/../x",
        "a/b",
        "onnx/a/b",
        ".hidden",
        "a\\b",
        "C:x",
        "",
        "x\n",
        "manifest.json",
        "é",
        "\0",
    ],
)
def test_names_that_are_not_plain_are_refused(bundle, name):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["config.json"]
    edit(bundle, files=manifest["files"])
    with pytest.raises(BundleError, match="a file name is"):
        Bundle.open(bundle)


def test_a_changed_file_is_refused_when_it_is_read(bundle):
    data = bytearray((bundle / "onnx/model.onnx").read_bytes())
    data[-1] ^= 1
    (bundle / "onnx/model.onnx").write_bytes(data)
    opened = Bundle.open(bundle)
    with pytest.raises(BundleError, match="is not the file that manifest.json describes"):
        opened.read("onnx/model.onnx")
    with pytest.raises(BundleError, match="model.onnx"):
        Classifier.load(bundle)


@pytest.mark.parametrize("data", [b"", b"short", b"x" * 100_000])
def test_a_file_of_another_size_is_refused(bundle, data):
    (bundle / "tokenizer.json").write_bytes(data)
    with pytest.raises(BundleError, match="tokenizer.json"):
        Bundle.open(bundle).read("tokenizer.json")


def test_a_file_that_the_manifest_does_not_name_is_not_read(tiny_bundle):
    for name in ("manifest.json", "../x", "/etc/passwd"):
        with pytest.raises(BundleError, match="not named"):
            Bundle.open(tiny_bundle).read(name)


def test_a_trained_model_is_told_from_a_bundle(tmp_path):
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(BundleError, match="is a trained model, not a bundle. Run: edgewren export"):
        Bundle.open(tmp_path)


def test_labels_must_be_as_many_as_outputs(bundle):
    labels = ["a", "b", "c"]
    config = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    bad_bundles.replace(bundle, "config.json", json.dumps(config).encode())
    edit(bundle, labels=labels)
    with pytest.raises(BundleError, match=r"shape \('batch', 2\), expected\s+float32 of \[batch, 3\]"):
        Classifier.load(bundle)


def test_the_best_variant_for_a_device_is_chosen(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    fp32 = manifest["variants"]["fp32"]

    def with_variants(**variants):
        for name, device in variants.items():
            path = bundle / "onnx" / f"{name}.onnx"
            path.write_bytes((bundle / "onnx/model.onnx").read_bytes())
            manifest["variants"][name] = {**fp32, "file": f"onnx/{name}.onnx", "precision": name, "device": device}
        edit(bundle, variants=manifest["variants"])
        return Bundle.open(bundle)

    assert Bundle.open(bundle).variant(None, "cpu")[0] == "fp32"
    assert Bundle.open(bundle).variant(None, "cuda")[0] == "fp32"
    opened = with_variants(int8="cpu", fp16="cuda")
    assert opened.variant(None, "cpu")[0] == "int8"
    assert opened.variant(None, "cuda")[0] == "fp16"
    assert opened.variant("fp32", "cpu")[0] == "fp32"


def test_what_onnxruntime_refuses_is_a_bundle_error(bundle):
    import onnx

    model = onnx.load(bundle / "onnx/model.onnx")
    model.graph.node[-1].input[0] = "a value that no operator makes"
    bad_bundles.replace(bundle, "onnx/model.onnx", model.SerializeToString())
    with pytest.raises(BundleModelError, match="onnxruntime refuses the model"):
        Classifier.load(bundle)
