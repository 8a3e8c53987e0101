"""The published all-MiniLM-L6-v2, from labelled file to scores: what tiny random encoders cannot show."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from edgewren import Classifier
from edgewren.cli.main import main

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
LORA = ["--epochs", "1", "--max-length", "64", "--precision", "fp32"]


@pytest.fixture(scope="module", params=["ridge", "lora"])
def trained(request, tmp_path_factory):
    """Train and export the sample posts with MiniLM; give the recipe and both folders."""
    folder = tmp_path_factory.mktemp(request.param)
    train = ["train", request.param, str(EXAMPLES / "town_posts_train.csv"), "--label-column", "bias"]
    # The encoder that sentence-transformers loads for comparison has no http normaliser; LoRA's tokenizer has it.
    more = LORA if request.param == "lora" else ["--normaliser", "none"]
    assert main([*train, "--encoder", "minilm", "--output", str(folder / "model"), *more]) == 0
    assert main(["export", str(folder / "model"), "--output", str(folder / "bundle")]) == 0
    return request.param, folder / "model", folder / "bundle"


@pytest.fixture(scope="module")
def texts():
    with (EXAMPLES / "town_posts_test.csv").open(encoding="utf-8", newline="") as stream:
        return [row["text"] for row in csv.DictReader(stream)]


def test_gates_hold_with_room_to_spare(trained):
    _, _, bundle = trained
    stages = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["parity"]
    assert len(json.dumps(stages)) > 2
    assert main(["verify", str(bundle)]) == 0


def test_transformers_and_sentence_transformers_agree(trained, texts):
    recipe, model, bundle = trained
    classifier = Classifier.load(bundle, device="cpu")
    ours = classifier.score(texts).logits / np.float32(classifier.bundle.manifest.temperature)
    if recipe == "lora":
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch_model = AutoModelForSequenceClassification.from_pretrained(model / "classifier").eval()
        tokenizer = AutoTokenizer.from_pretrained(model)
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        theirs = torch_model(**inputs).logits.detach().numpy()
    else:
        from safetensors.numpy import load_file
        from sentence_transformers import SentenceTransformer

        head = load_file(model / "head.safetensors")
        embeddings = SentenceTransformer(str(model / "encoder"), device="cpu").encode(texts)
        decision = ((embeddings - head["mean"]) / head["scale"]) @ head["coef"].T + head["intercept"]
        theirs = np.concatenate([-decision / 2, decision / 2], axis=1)
    assert np.abs(ours - theirs).max() <= 1e-5  # fp32 rounding through six layers: 1e-6 seen


def test_logits_are_bit_identical_alone_in_any_order_and_at_any_thread_count(trained, texts):
    _, _, bundle = trained
    one, two = (Classifier.load(bundle, device="cpu", threads=count) for count in (1, 2))
    expected = one.score(texts).logits
    assert (two.score(texts).logits == expected).all()
    assert (two.score(texts[::-1]).logits[::-1] == expected).all()
    alone = np.concatenate([two.score([text]).logits for text in texts])
    assert (alone == expected).all()


def test_optimum_pipeline_gives_the_same_labels_and_probabilities(trained, texts):
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    _, _, bundle = trained
    model = ORTModelForSequenceClassification.from_pretrained(bundle, subfolder="onnx", file_name="model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    classifier = Classifier.load(bundle, device="cpu")
    ours = classifier.predict_proba(texts)
    assert [max(row, key=lambda entry: entry["score"])["label"] for row in classify(texts)] == classifier.predict(texts)
    for row, answer in zip(ours, classify(texts), strict=True):
        theirs = {entry["label"]: entry["score"] for entry in answer}
        assert [theirs[label] for label in classifier.labels] == pytest.approx(row.tolist(), abs=1e-5)
