"""A model's early exits in a bundle: read, attached to the graph, cut into stages, and proved.

The proof: with nobody leaving, the stages give the whole graph's logits; each exit gives scikit-learn's on the encoder
cut there (a fine-tuned model: on the mean over its tokens there); and on the gates' texts no more labels differ from
the whole model's than was promised in training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewren import batching
from edgewren.errors import BundleError, BundleModelError, ParityError
from edgewren.session import ModelSession, feed
from edgewren.staged import Stage, StagedSession
from edgewren_export import graph, parity, stages
from edgewren_export.fold import Head, fold, load_head, logits_from_decision
from edgewren_export.trained_model import TrainedModel

if TYPE_CHECKING:
    import onnx

FILE = "exits.safetensors"
_ALONE = 100
_HEAD_TEXTS = 500
_TOLERANCE = 1e-5
"""The stages run the same operators on the same numbers; what differs is at most how onnxruntime fuses at a cut."""


@dataclass(frozen=True)
class ExitHead:
    """A head after one layer, its threshold on decision values, and the factor of its logits."""

    layer: int
    head: Head
    threshold: float
    temperature: float


def read_exits(model: TrainedModel) -> tuple[ExitHead, ...]:
    """Return a trained model's exits, ascending by layer; none where it was trained without.

    Raises:
        BundleError: they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    told = model.training.get("exits") or {}
    if not told:
        return ()
    path = model.folder / FILE
    try:
        tensors = load_file(path)
        found = [
            ExitHead(
                layer=int(entry["layer"]),
                head=Head(**{name: tensors[f"{entry['layer']}.{name}"] for name in Head.__annotations__}),
                threshold=float(entry["threshold"]),
                temperature=float(entry["temperature"]),
            )
            for entry in told["stages"]
        ]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({type(error).__name__}: {error}). Train again.") from error
    return tuple(sorted(found, key=lambda entry: entry.layer))


def attach(
    model: TrainedModel, exits: Sequence[ExitHead], optimised: onnx.ModelProto, *, like: onnx.ModelProto | None = None
) -> onnx.ModelProto:
    """Return a graph of the whole model with an output for each exit.

    Args:
        optimised: fp32, or int8 made of `like`.
        like: the fp32 graph, where `optimised` is another; in both, layers are normalised by the same scales.
    """
    ridge = model.kind == "ridge"
    return stages.attach_exits(
        optimised,
        fold(load_head(model.folder / "head.safetensors"), temperature=model.temperature) if ridge else None,
        {entry.layer: fold(entry.head, temperature=entry.temperature) for entry in exits},
        like=like,
    )


@dataclass(frozen=True)
class StagedVariant:
    """A variant in stages: ONNX bytes, layer and threshold of each stage, and a session that runs them."""

    stages: tuple[Stage, ...]
    session: StagedSession


def staged(attached: onnx.ModelProto, exits: Sequence[ExitHead]) -> StagedVariant:
    """Cut a graph with exits (fp32 or quantised) into stages."""
    hidden = stages.hidden_names(attached)
    parts = stages.split(attached, hidden, [entry.layer for entry in exits])
    layers = [*(entry.layer for entry in exits), max(hidden)]
    # Logits are decision values times the exit's temperature, and so are their distances.
    thresholds = [*(entry.threshold * entry.temperature for entry in exits), None]
    built = tuple(
        Stage(part.SerializeToString(), layer, threshold)
        for part, layer, threshold in zip(parts, layers, thresholds, strict=True)
    )
    return StagedVariant(built, StagedSession.of(built))


def answers(
    session: StagedSession, ids: Sequence[Sequence[int]], *, complete: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Return logits and the layer after which each row left, in equal-length batches."""
    logits: list[NDArray[np.float32]] = []
    layers: list[NDArray[np.int16]] = []
    batches = batching.plan([len(row) for row in ids], batching.STAGED_TOKENS_PER_BATCH)
    for batch in batches:
        answer = session.answer(np.array([ids[index] for index in batch], dtype=np.int64), complete=complete)
        logits.append(answer[0])
        layers.append(answer[1])
    order = np.argsort(np.concatenate(batches))
    return np.concatenate(logits)[order], np.concatenate(layers)[order]


def prove(
    name: str,
    variant: StagedVariant,
    ids: Sequence[Sequence[int]],
    whole: NDArray[np.float32],
    fp32: NDArray[np.float32],
    allowed: float,
) -> dict[str, Any]:
    """Check a staged variant against the whole model in the same precision, and return what the manifest keeps.

    Args:
        whole: logits of the same texts by the graph that was not cut.
        fp32: those of the whole fp32 graph, to tell all that quantising and leaving early change together.
        allowed: share of labels that may differ by training's promise.

    Raises:
        ParityError: the stages do not compute the whole model's logits, a text depends on its neighbours, or more
            labels differ than the promise and chance explain.
    """
    complete, _ = answers(variant.session, ids, complete=True)
    stage = parity.compare(f"{name}: whole -> stages", whole, complete, tolerance=_TOLERANCE)
    logits, layers = answers(variant.session, ids)
    for row in range(min(_ALONE, len(ids))):
        alone, left = variant.session.answer(np.array([ids[row]], dtype=np.int64))
        if (alone[0] != logits[row]).any() or left[0] != layers[row]:
            raise ParityError(f"{name}: text {row} leaves or scores differently alone and in a batch.")
    differing = int((logits.argmax(axis=1) != whole.argmax(axis=1)).sum())
    expected = allowed * len(ids)
    if differing > expected + 3 * math.sqrt(expected) + 1:
        raise ParityError(
            f"{name}: early exit changes {differing} of {len(ids):,} labels; training promised at most {allowed:.1%}. "
            "Nothing was written. Give texts like the training texts with --texts, or train again."
        )
    return {
        **stage.as_dict(),
        "labels_differing": differing,
        "labels_differing_from_fp32": int((logits.argmax(axis=1) != fp32.argmax(axis=1)).sum()),
        "left_after_layer": {str(layer): float((layers == layer).mean()) for layer in variant.session.layers},
        "alone_or_in_batch": f"bit-identical ({min(_ALONE, len(ids))} texts, logits and layer)",
    }


def prove_heads(
    model: TrainedModel, loaded: Any, exits: Sequence[ExitHead], attached: onnx.ModelProto, ids: list[list[int]]
) -> list[parity.Stage]:
    """Compare each exit of the fp32 graph with scikit-learn's head on torch's features after that layer.

    Raises:
        ParityError: they disagree.
        BundleError: the graph with exits cannot be run.
    """
    try:
        session = ModelSession(attached.SerializeToString(), stage=True)
    except BundleModelError as error:
        raise BundleError(f"exits do not fit this architecture's graph. Train without --exits. ({error})") from error
    ids = ids[:_HEAD_TEXTS]
    names = [f"exit_{entry.layer}" for entry in exits]
    rows = [session.call(names, feed(np.array([row], dtype=np.int64), session.inputs)) for row in ids]
    found = []
    for place, entry in enumerate(exits):
        decision = entry.head.scikit_learn(model.labels).decision_function(
            graph.run_torch(_until(model, loaded, entry.layer), ids).astype(np.float64)
        )
        answered = np.concatenate([values[place] for values in rows])
        reference = logits_from_decision(decision, temperature=entry.temperature)
        found.append(parity.compare(f"scikit-learn -> exit after layer {entry.layer}", reference, answered))
    return found


def _until(model: TrainedModel, loaded: Any, layer: int) -> Any:
    """Return a module that gives the features after `layer` layers: of the sentence encoder cut there, or the mean."""
    return _cut(loaded, layer) if model.kind == "ridge" else graph.LayerMean(loaded, layer)


def _cut(loaded: Any, layer: int) -> Any:
    """Return a copy of the sentence encoder that ends after `layer` layers."""
    import torch

    shortened = copy.deepcopy(loaded)
    transformer = shortened.stages[0].auto_model
    for module in transformer.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == transformer.config.num_hidden_layers:
            del module[layer:]
            transformer.config.num_hidden_layers = layer
            return shortened
    raise BundleError(f"the layers of {type(transformer).__name__} are not found. Train without --exits.")
