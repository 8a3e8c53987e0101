"""The default bundles in artifacts/: whole, int8 only, small, and open about themselves."""

from __future__ import annotations

import pytest

from edgewren import Classifier
from edgewren.bundle import Bundle
from edgewren.verification import verify


@pytest.fixture(scope="module", params=["ridge", "lora"])
def bundle(request, artifacts):
    return artifacts / f"media-bias-{request.param}"


def test_default_bundle_verifies_and_has_int8_only(bundle):
    verified = verify(bundle)
    assert verified.ok, verified.failures
    assert [replay.variant for replay in verified.replays] == ["int8", "int8_exit"]
    assert sum(path.stat().st_size for path in bundle.rglob("*")) < 27_000_000 * 2


def test_default_bundle_kept_its_gate_with_the_normaliser_on_all_training_texts(bundle):
    manifest = Bundle.open(bundle).manifest
    (stage,) = (stage for stage in manifest.parity["stages"] if stage["name"] == "fp32 -> int8")
    assert stage["texts"] >= 1000
    assert stage["label_flips"] <= 0.005 * stage["texts"]
    assert stage["truth"] == "labels"
    assert manifest.normaliser == "http"
    assert manifest.training["data"]["rows"] == 1200
    staged = manifest.parity["exits"]["int8_exit"]
    assert staged["labels_differing_from_fp32"] <= 0.005 * staged["texts"]


def test_card_names_data_licence_base_model_evaluation_parity_and_limits(bundle):
    card = (bundle / "README.md").read_text(encoding="utf-8")
    for part in (
        "CC0",
        "CC BY-NC-SA 4.0",
        "all-MiniLM-L6-v2, Apache-2.0",
        "## Evaluation",
        "test",
        "## Early exit",
        "Labels of these that differ from the full model's: 1; for texts like the training texts at most",
        "Rounding and leaving early together change the labels of",
        "## Parity",
        "2012 to 2015",
        "no judgement of a person",
    ):
        assert part in card, part


def test_default_bundle_tells_an_attack_from_an_announcement(bundle):
    classifier = Classifier.load(bundle, device="cpu", threads=1)
    assert classifier.labels == ("neutral", "partisan")
    texts = [
        "The Senate will hold a hearing on veterans' housing tomorrow at 10 am. https://t.co/AbCdEfGhIj",
        "The President's failed, job-killing health law is hurting families. Repeal it now!",
    ]
    assert classifier.predict(texts) == ["neutral", "partisan"]
