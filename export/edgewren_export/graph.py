"""A trained model as one torch module, and that module as one ONNX graph with the output `logits`.

torch's own exporter does both recipes: it keeps each architecture's arithmetic, needs no release of transformers that
scanners call vulnerable (optimum-onnx 0.1 does), and one exporter means one thing to prove.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgewren import batching
from edgewren.errors import BundleError
from edgewren_export.ensemble import EnsembleGraph, share_equal_weights
from edgewren_export.fold import fold, load_head
from edgewren_export.isolation import isolate_rows
from edgewren_export.trained_model import TrainedModel

if TYPE_CHECKING:
    import onnx

_TOKENS_PER_BATCH = 1024
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class SentenceEncoder(torch.nn.Module):
    """A SentenceTransformer's modules in order: encoder, pooling, and whatever follows (Dense, Normalize)."""

    def __init__(self, modules: Any) -> None:
        super().__init__()
        self.stages = torch.nn.ModuleList(list(modules))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        for stage in self.stages:
            features = stage(features)
        return features["sentence_embedding"]


class _RidgeGraph(torch.nn.Module):
    def __init__(self, encoder: SentenceEncoder, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        super().__init__()
        self.encoder = encoder
        self.weight = torch.nn.Parameter(torch.from_numpy(np.ascontiguousarray(weight.T)))
        self.bias = torch.nn.Parameter(torch.from_numpy(bias))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.encoder(input_ids, attention_mask) @ self.weight + self.bias


class _LoraGraph(torch.nn.Module):
    def __init__(self, classifier: Any, temperature: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.temperature = temperature

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        # Keywords only: MPNet's third positional argument is position_ids.
        logits = self.classifier(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits if self.temperature == 1.0 else logits * self.temperature


class LayerMean(torch.nn.Module):
    """A fine-tuned model's hidden states after one layer (0: the embeddings), their mean over the tokens."""

    def __init__(self, classifier: Any, layer: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.layer = layer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        out = self.classifier(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        kept = attention_mask[:, :, None].float()
        return (out.hidden_states[self.layer] * kept).sum(1) / kept.sum(1)


def load_sentence_encoder(model: TrainedModel) -> SentenceEncoder:
    """Load a ridge model's encoder in evaluation mode.

    Raises:
        BundleError: its files are damaged.
    """
    from sentence_transformers import SentenceTransformer

    with _loading(model.folder / "encoder"):
        loaded = SentenceTransformer(
            str(model.folder / "encoder"),
            device="cpu",
            model_kwargs={"attn_implementation": "eager", "dtype": torch.float32},
            local_files_only=True,
        )
    encoder = SentenceEncoder(loaded)
    encoder.eval()
    return encoder


def load_classifier(model: TrainedModel) -> Any:
    """Load a LoRA model's merged transformers classifier in evaluation mode.

    Raises:
        BundleError: its files are damaged.
    """
    from transformers import AutoModelForSequenceClassification

    with _loading(model.folder / "classifier"):
        return AutoModelForSequenceClassification.from_pretrained(
            model.folder / "classifier", attn_implementation="eager", dtype=torch.float32, local_files_only=True
        ).eval()


def load(model: TrainedModel) -> Any:
    """Load what a trained model of any kind holds, in evaluation mode; of an ensemble, a list with each member's.

    Raises:
        BundleError: its files are damaged.
    """
    if model.kind == "ensemble":
        return [load(member) for member in model.members]
    return load_sentence_encoder(model) if model.kind == "ridge" else load_classifier(model)


@contextlib.contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Turn what the Hugging Face libraries raise on damaged files into a BundleError, and silence their bars."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # a dozen unrelated classes
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BundleError(f"{folder} cannot be loaded: {reason}. Train again.") from error
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def scoring_module(model: TrainedModel, loaded: Any) -> torch.nn.Module:
    """Return the module (input_ids, attention_mask) -> logits for what `load` returned."""
    if model.kind == "ensemble":
        members = [scoring_module(member, part) for member, part in zip(model.members, loaded, strict=True)]
        return EnsembleGraph(members, model.temperature).eval()
    if model.kind == "ridge":
        weight, bias = fold(load_head(model.folder / "head.safetensors"), temperature=model.temperature)
        return _RidgeGraph(loaded, weight, bias).eval()
    return _LoraGraph(loaded, model.temperature).eval()


def run_torch(module: torch.nn.Module, ids: list[list[int]]) -> NDArray[np.float32]:
    """Return the module's output, float32 [n, width], for token rows, in equal-length batches."""
    rows, inverse = batching.distinct(ids)
    out: NDArray[np.float32] | None = None
    for batch in batching.plan([len(row) for row in rows], _TOKENS_PER_BATCH):
        input_ids = torch.tensor([rows[index] for index in batch], dtype=torch.long)
        with torch.inference_mode():
            values = module(input_ids, torch.ones_like(input_ids)).float().numpy()
        if out is None:
            out = np.empty((len(rows), values.shape[1]), dtype=np.float32)
        out[batch] = values
    if out is None:
        raise BundleError("there are no texts to compare on: give some with --texts FILE")
    return out[inverse]


def to_onnx(module: torch.nn.Module, labels: int) -> onnx.ModelProto:
    """Export to ONNX: inputs input_ids and attention_mask, int64 [batch, sequence], both dynamic; output logits.

    Raises:
        BundleError: torch cannot export this architecture.
    """
    import onnx

    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence")
    example = torch.ones((2, 7), dtype=torch.long)
    target = io.BytesIO()
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module,
                (example, torch.ones_like(example)),
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamo=True,
                verbose=False,
                dynamic_shapes={
                    "input_ids": {0: batch, 1: sequence},
                    "attention_mask": {0: batch, 1: sequence},
                },
            )
            program.save(target)
        except (torch.onnx.OnnxExporterError, torch._dynamo.exc.TorchDynamoException) as error:  # noqa: SLF001
            raise BundleError(
                f"torch cannot export this architecture to ONNX: {_reason(error)}. Train with another encoder."
            ) from error
    model = onnx.load_from_string(target.getvalue())
    _strip_provenance(model)
    share_equal_weights(model)
    isolate_rows(model)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = labels
    model.producer_name = "edgewren"
    onnx.checker.check_model(model)
    return model


def _reason(error: BaseException) -> str:
    """Return the first line of what went wrong first: the exporter's own error is a page of advice to its authors."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = _COLOUR.sub("", str(error)).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _strip_provenance(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they hold stack traces with paths of this machine."""
    model.doc_string = ""
    del model.metadata_props[:]
    del model.functions[:]
    model.graph.doc_string = ""
    model.graph.name = "classifier"
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's own prints, warnings and log lines about its internals: whole graphs, where it fails."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        printed = io.StringIO()
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
