"""Bundles open in optimum and transformers, and answer there as here: same labels, same probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models

from edgewren import Classifier

MODELS = [("ridge", "bert", {}), ("ridge", "mpnet", {"layers": 2}), ("lora", "bert", {}), ("lora", "roberta", {})]


@pytest.mark.parametrize(("recipe", "architecture", "options"), MODELS, ids=str)
@pytest.mark.slow
def test_bundle_answers_the_same_in_optimum_and_transformers(export_bundle, recipe, architecture, options):
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    bundle = export_bundle(recipe, architecture, **options)
    classifier = Classifier.load(bundle)
    # The README's lines, with nothing but the bundle's folder:
    model = ORTModelForSequenceClassification.from_pretrained(bundle, subfolder="onnx", file_name="model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None, truncation=True)
    texts = [*tiny_models.MIXED_TEXTS, *tiny_models.toy_texts(20, seed=4)[0]]
    assert classifier.score(texts).truncated.any()
    for batch_size in (1, 8):
        answers = pipe(texts, batch_size=batch_size)
        theirs = [{entry["label"]: entry["score"] for entry in answer} for answer in answers]
        assert [max(row, key=row.get) for row in theirs] == classifier.predict(texts)
        probabilities = np.array([[row[label] for label in classifier.labels] for row in theirs])
        # 1e-5: they pad the batch and sum in another order.
        np.testing.assert_allclose(probabilities, classifier.predict_proba(texts), atol=1e-5)
