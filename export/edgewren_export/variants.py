"""The variants that are made of one proved fp32 graph, each with its gate: int8, fp16, and those in stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import ParityError
from edgewren.session import ModelSession
from edgewren_export import exits, parity
from edgewren_export.config import encoder_config
from edgewren_export.cuda import half_for_cuda
from edgewren_export.gate_texts import GateTexts
from edgewren_export.logits import check_neighbours, run
from edgewren_export.optimise import operators
from edgewren_export.proof import Proof, as_text
from edgewren_export.quantise import Calibrated, calibrate, quantise
from edgewren_export.ranges import vocabulary_rows
from edgewren_export.temperature import check_temperature, held_out_rows
from edgewren_export.trained_model import TrainedModel

if TYPE_CHECKING:
    import onnx

_CALIBRATION_TEXTS = 300


@dataclass(frozen=True)
class Whole:
    """A variant in one graph: the graph, its bytes, a session that runs them, and its logits of the gate's texts."""

    graph: onnx.ModelProto
    data: bytes
    session: ModelSession
    logits: NDArray[np.float32]

    @classmethod
    def of(cls, graph: onnx.ModelProto, ids: list[list[int]]) -> Whole:
        data: bytes = graph.SerializeToString()
        session = ModelSession(data)
        return cls(graph, data, session, run(session, ids))


def int8(model: TrainedModel, loaded: Any, fp32: Whole, texts: GateTexts, proof: Proof) -> Whole:
    """Build the int8 variant and prove it: few flips, little loss, and the same bits alone and in any batch.

    Where the plain form changes more than half of the labels that the gate allows, large features behind Gelu are taken
    apart, too, and the form that changes fewer labels is it.

    Args:
        loaded: what `graph.load` returned.

    Raises:
        ParityError: too many labels change.
    """
    rows = _calibration_rows(model, loaded, texts.ids)
    calibrated = calibrate(fp32.graph, rows, texts=texts.ids)
    built, stage, apart = _quantised(calibrated, model, fp32, texts, proof)
    proof.add_stage(stage)
    neighbours = check_neighbours(built.session, texts.ids, built.logits, exact=True)
    counted = operators(built.graph)
    fused = counted.get("Attention", 0)
    proof.found["int8"] = {
        "large_features_apart": apart,
        "alone_or_in_batch": neighbours,
        "fused_attention": fused,
        "operators": counted,
    }
    if not fused:
        proof.say("note: the attention of this architecture is not understood; int8 runs it unfused, a little slower")
    proof.say(
        f"{stage.name}: {stage.texts:,} texts, largest difference {stage.max_difference:.1e}, mean "
        f"{stage.mean_difference:.1e}, {stage.label_flips} labels changed, macro-F1 {stage.macro_f1_fp32:.4f} -> "
        f"{stage.macro_f1:.4f} (against {stage.truth}); alone and in a batch: {neighbours}"
    )
    return built


def _quantised(
    calibrated: Calibrated, model: TrainedModel, fp32: Whole, texts: GateTexts, proof: Proof
) -> tuple[Whole, parity.QuantisedStage, bool]:
    """Return the form that was chosen, its comparison, and whether it has large features apart."""
    passed: list[tuple[Whole, parity.QuantisedStage, bool]] = []
    for apart in (False, True):
        built = Whole.of(quantise(calibrated, large_apart=apart), texts.ids)
        try:
            stage = parity.compare_quantised("fp32 -> int8", fp32.logits, built.logits, model.labels, texts.truth)
        except ParityError as error:
            if apart and not passed:
                raise
            proof.say(f"note: {str(error).partition(';')[0]}")
            continue
        passed.append((built, stage, apart))
        if 2 * stage.label_flips <= parity.MOST_FLIPS * stage.texts:
            break
        if not apart:
            proof.say(f"note: int8 changes {stage.label_flips} labels; trying it with large features apart, too")
    return min(passed, key=lambda entry: entry[1].label_flips)


def _calibration_rows(model: TrainedModel, loaded: Any, ids: list[list[int]]) -> list[list[int]]:
    """Return real texts, and every word of the vocabulary."""
    words = encoder_config(model, loaded).vocab_size
    return [*ids[:_CALIBRATION_TEXTS], *vocabulary_rows(words, model.tokenizer.encode([""]).ids[0], model.max_length)]


def prove_temperature(model: TrainedModel, fp32: Whole, built: Whole, texts: GateTexts, proof: Proof) -> None:
    """Judge int8's calibration on held-out rows, where the gate's texts have some.

    Raises:
        ParityError: int8's scores no longer mean what they say.
    """
    held_out = None if texts.step is None else held_out_rows(model, texts.step)
    if held_out is None:
        return
    checked = check_temperature("int8", held_out, fp32.logits, built.logits)
    proof.found["calibration"] = {"int8": checked.as_dict()}
    proof.say(f"calibration on int8's logits: {checked.as_text()}")


def fp16(fp32: Whole, texts: GateTexts, proof: Proof) -> Whole:
    """Build the fp16 variant for CUDA, and prove on this CPU that its graph and its rounded weights compute the same.

    (Where the CPU has no fp16 kernel, onnxruntime computes in fp32 between fp16 tensors.)

    Raises:
        ParityError: they do not.
    """
    built = Whole.of(half_for_cuda(fp32.graph), texts.ids)
    tolerance = parity.HALF_TOLERANCE * max(1.0, float(np.abs(fp32.logits).max()))
    # Two logits that each may move by the tolerance may close a gap of twice that.
    stage = parity.compare("fp32 -> fp16", fp32.logits, built.logits, tolerance=tolerance, margin=2 * tolerance)
    proof.add_stage(stage)
    proof.found["fp16"] = {"operators": operators(built.graph)}
    proof.say(f"{as_text(stage)}; checked on this CPU, made for CUDA")
    return built


def in_stages(
    name: str,
    attached: onnx.ModelProto,
    heads: Sequence[exits.ExitHead],
    whole: Whole,
    fp32: Whole,
    texts: GateTexts,
    *,
    allowed: float,
    proof: Proof,
) -> exits.StagedVariant:
    """Cut a graph with exits into stages, and prove them against the whole variant.

    Args:
        name: such as "int8_exit".
        allowed: share of labels that may differ by training's promise.

    Raises:
        ParityError: the stages disagree with it, or more labels differ than was promised.
    """
    variant = exits.staged(attached, heads)
    proved = exits.prove(name, variant, texts.ids, whole.logits, fp32.logits, allowed)
    proof.found.setdefault("exits", {})[name] = proved
    proof.say(_as_line(name, proved))
    return variant


def _as_line(name: str, proved: Mapping[str, Any]) -> str:
    left = ", ".join(f"{share:.1%} after layer {layer}" for layer, share in proved["left_after_layer"].items())
    return (
        f"{name}: {left}; {proved['labels_differing']} of {proved['texts']:,} labels differ from the whole model's, "
        f"{proved['labels_differing_from_fp32']} from fp32's; alone and in a batch: {proved['alone_or_in_batch']}"
    )
