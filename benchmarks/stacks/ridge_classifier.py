"""The trained model as a transformers classifier, for the stacks that want one.

LoRA models are one already; ridge models become encoder, mean, norm and folded head.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from edgewren_export.fold import fold
from stacks.material import Material


class RidgeConfig(BertConfig):
    model_type = "ridge-bert"


class RidgeClassifier(PreTrainedModel):
    config_class = RidgeConfig
    _supports_sdpa = True

    def __init__(self, config: RidgeConfig, encoder: Any, head: torch.nn.Linear) -> None:
        super().__init__(config)
        self.encoder = encoder
        self.head = head

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if attention_mask is None:
            mean = hidden.mean(1)
        else:
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return SequenceClassifierOutput(logits=self.head(torch.nn.functional.normalize(mean, dim=1)))


AutoModelForSequenceClassification.register(RidgeConfig, RidgeClassifier)  # else pipeline() calls it unsupported


class LogitsOnly(torch.nn.Module):
    """A classifier with plain tensors in and out, for exporters."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(input_ids, attention_mask).logits
        return logits


def load_classifier(material: Material) -> Any:
    torch.set_num_threads(material.cores)
    if material.kind == "lora":
        folder = material.model / "classifier"
        return AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="sdpa").eval()
    encoder = AutoModel.from_pretrained(material.encoder, attn_implementation="sdpa", add_pooling_layer=False)
    weight, bias = fold(material.head, temperature=1.0)
    head = torch.nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    config = RidgeConfig(**{**encoder.config.to_dict(), "id2label": dict(enumerate(material.data.classes))})
    classifier = RidgeClassifier(config, encoder, head)
    classifier.eval()
    return classifier


def load_tokenizer(material: Material) -> Any:
    return AutoTokenizer.from_pretrained(material.model)


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Return input ids and a mask to trace with."""
    ids = torch.ones((2, 7), dtype=torch.long)
    return ids, torch.ones_like(ids)


def onnx_folder(material: Material) -> Path:
    """Return a folder with model.onnx, config.json and tokenizer, as optimum writes it, made on first use."""
    folder = material.folder / "classifier-onnx"
    if folder.exists():
        return folder
    folder.mkdir()
    classifier = load_classifier(material)
    axes = {0: "batch", 1: "sequence"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            LogitsOnly(classifier).eval(),
            example(),
            folder / "model.onnx",
            dynamo=False,  # the exporter that optimum uses
            opset_version=18,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}},
        )
    settings = {**classifier.config.to_dict(), "architectures": ["BertForSequenceClassification"]}
    BertConfig(**{name: value for name, value in settings.items() if name != "model_type"}).save_pretrained(folder)
    load_tokenizer(material).save_pretrained(folder)
    return folder
