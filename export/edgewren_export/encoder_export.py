"""The stages of a model with a transformer (ridge, lora, ensemble), in order: fp32 first, then what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgewren_export import exits, graph, parity, variants
from edgewren_export.built import Built
from edgewren_export.config import config_of
from edgewren_export.first_token import first_token_only
from edgewren_export.gate_texts import GateTexts
from edgewren_export.golden_answers import FILE as GOLDEN
from edgewren_export.golden_answers import golden_of
from edgewren_export.logits import check_neighbours
from edgewren_export.optimise import operators, optimise
from edgewren_export.proof import Proof
from edgewren_export.reference import origin, reference_logits
from edgewren_export.trained_model import TOKENIZER_FILES, TrainedModel
from edgewren_export.variants import Whole


def build(model: TrainedModel, texts: GateTexts, precisions: Sequence[str], proof: Proof) -> Built:
    """Build and prove the variants asked for.

    Raises:
        BundleError: the model cannot be exported.
        ParityError: two stages disagree.
    """
    loaded = graph.load(model)
    heads = exits.read_exits(model)
    fp32 = _fp32(model, loaded, texts, proof, every_token=bool(heads) and model.kind == "ridge")
    attached = exits.attach(model, heads, fp32.graph) if heads else None
    if attached is not None:
        proof.add_heads(exits.prove_heads(model, loaded, heads, attached, texts.ids))
    golden = golden_of(model, fp32.session)
    whole = {"fp32": fp32} if "fp32" in precisions else {}
    differences: dict[str, float] = {}
    layers: dict[str, list[int]] = {}
    if "int8" in precisions:
        whole["int8"] = variants.int8(model, loaded, fp32, texts, proof)
        differences["int8"] = golden.difference(whole["int8"].session)
        variants.prove_temperature(model, fp32, whole["int8"], texts, proof)
    staged: dict[str, exits.StagedVariant] = {}
    for precision, variant in whole.items() if attached is not None else ():
        name = f"{precision}_exit"
        cut = attached if precision == "fp32" else exits.attach(model, heads, variant.graph, like=fp32.graph)
        staged[name] = variants.in_stages(
            name, cut, heads, variant, fp32, texts, allowed=model.training["exits"]["allowed"], proof=proof
        )
        differences[name], layers[name] = golden.in_stages(staged[name].session)
    if "fp16" in precisions:
        whole["fp16"] = variants.fp16(fp32, texts, proof)
        # CUDA's kernels round elsewhere
        differences["fp16"] = max(golden.difference(whole["fp16"].session), parity.HALF_TOLERANCE)
    if differences:
        proof.found["golden_difference"] = differences
    if layers:
        proof.found["golden_layers"] = layers
    files = {
        **{name: (model.folder / name).read_bytes() for name in TOKENIZER_FILES},
        "config.json": config_of(model, loaded),
        GOLDEN: golden.lines(),
    }
    return Built(files, {precision: variant.data for precision, variant in whole.items()}, staged)


def _fp32(model: TrainedModel, loaded: Any, texts: GateTexts, proof: Proof, *, every_token: bool) -> Whole:
    """Export the fp32 graph and optimise it, each proved against the stage before.

    Args:
        every_token: keep the last layer for all tokens: what a ridge model does with it, its exits do with others.
    """
    module = graph.scoring_module(model, loaded)
    reference = reference_logits(model, loaded, texts.ids, proof)
    exported = Whole.of(graph.to_onnx(module, len(model.labels)), texts.ids)
    stages = [parity.compare(f"{origin(model)} -> onnx fp32", reference, exported.logits)]
    optimised = optimise(exported.graph)
    fp32 = Whole.of(optimised if every_token else first_token_only(optimised)[0], texts.ids)
    stages.append(parity.compare("onnx fp32 -> optimised", exported.logits, fp32.logits))
    proof.open_stages(stages)
    proof.found["alone_or_in_batch"] = check_neighbours(fp32.session, texts.ids, fp32.logits)
    proof.found["operators"] = operators(fp32.graph)
    proof.say(f"logits alone and in a batch: {proof.found['alone_or_in_batch']}")
    if "LayerNormalization" not in proof.found["operators"]:
        proof.say("note: onnxruntime fuses nothing in this architecture; it runs unfused, and slower")
    return fp32
