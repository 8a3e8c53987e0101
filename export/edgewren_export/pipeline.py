"""The export: trained model in, bundle out. Runs the stages and their gates in order, and writes only at the end."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import edgewren
from edgewren import batching
from edgewren.bundle import MANIFEST, Bundle, File, Manifest, StageFile, Variant, check_content
from edgewren.device import granted_cores
from edgewren.errors import BundleError, OutputError, ParityError, UsageError
from edgewren.session import ModelSession
from edgewren_export import exits, fold, graph, parity, static
from edgewren_export.calibration import vocabulary_rows
from edgewren_export.card import model_card
from edgewren_export.cuda import half_for_cuda
from edgewren_export.first_token import first_token_only
from edgewren_export.golden import golden_texts
from edgewren_export.optimise import operators, optimise
from edgewren_export.quantise import calibrate, quantise
from edgewren_export.temperature import check_temperature, held_out_rows
from edgewren_export.trained_model import TOKENIZER_FILES, TrainedModel, read_trained_model

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "int8", "fp16")
PARITY_TEXTS = 500
"""Texts that the gates want; with fewer, all there are take part, and the card says how many."""

_MOST_PARITY_TEXTS = 2000
_NEIGHBOUR_TEXTS = 200
_CALIBRATION_TEXTS = 300
_FP32_FILE = "onnx/model.onnx"
_INT8_FILE = "onnx/model_int8.onnx"
_FP16_FILE = "onnx/model_fp16.onnx"
_LIBRARIES = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript", "skl2onnx", "scikit-learn", "tokenizers")
_ARCHITECTURE_SUFFIX = "ForSequenceClassification"


@dataclass(frozen=True)
class Export:
    """The result: where the bundle lies, and its manifest."""

    folder: Path
    manifest: Manifest


def export(
    model_folder: str | Path,
    output: str | Path,
    *,
    precisions: Sequence[str] = ("fp32",),
    texts: Sequence[str] | None = None,
    notes: str | None = None,
    force: bool = False,
    say: Callable[[str], None] = logger.info,
) -> Export:
    """Export a trained model to a bundle.

    Args:
        model_folder: written by `edgewren train`.
        output: the bundle's folder; appears complete or not at all.
        precisions: variants to write: "fp32", "int8" (CPU), "fp16" (CUDA). fp32 is always built, being what the others
            are compared with, and its logits are the golden ones.
        texts: real texts for the parity gates; default: the training texts.
        notes: a Markdown passage for the model card: where the data comes from, licence, limits.
        force: overwrite an existing bundle.
        say: told what was done, line by line.

    Raises:
        BundleError: not a trained model, or one that cannot be exported.
        ParityError: two stages disagree; nothing was written.
        UsageError: the output exists, or an unknown precision.
    """
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown or not precisions:
        raise UsageError(f"precision {', '.join(unknown) or '(none)'} is unknown. Expected: {', '.join(PRECISIONS)}.")
    target = Path(output).absolute()
    _check_target(target, force=force)
    model = read_trained_model(model_folder)
    gate_texts, truth = _gate_texts(model, texts, say)
    if "int8" in precisions:
        parity.check_enough_texts("fp32 -> int8", len(gate_texts))
    ids = model.tokenizer.encode(gate_texts).ids
    report: dict[str, Any] = {"gate_texts": len(gate_texts)}

    if model.kind == "static":
        return _export_static(model, target, ids, precisions, report, notes, say)
    loaded = graph.load(model)
    module = graph.scoring_module(model, loaded)
    reference = _reference_logits(model, loaded, ids, report)
    exported = graph.to_onnx(module, len(model.labels))
    exported_logits = _session_logits(exported.SerializeToString(), ids)
    origin = {"ridge": "scikit-learn", "lora": "torch"}.get(model.kind, "members")
    stages = [parity.compare(f"{origin} -> onnx fp32", reference, exported_logits)]
    exit_heads = exits.read_exits(model)
    # A last layer for the first token alone could not be told from the others when exits are attached.
    optimised = optimise(exported) if exit_heads else first_token_only(optimise(exported))[0]
    onnx_bytes = optimised.SerializeToString()
    session = ModelSession(onnx_bytes)
    optimised_logits = _run(session, ids)
    stages.append(parity.compare("onnx fp32 -> optimised", exported_logits, optimised_logits))
    for stage in stages:
        say(
            f"{stage.name}: {stage.texts:,} texts, largest difference {stage.max_difference:.1e}, "
            f"{stage.label_flips} labels changed"
        )
    report["stages"] = [stage.as_dict() for stage in stages]
    report["alone_or_in_batch"] = _check_neighbours(session, ids[:_NEIGHBOUR_TEXTS], optimised_logits)
    report["operators"] = operators(optimised)
    say(f"logits alone and in a batch: {report['alone_or_in_batch']}")
    if "LayerNormalization" not in report["operators"]:
        say("note: onnxruntime fuses nothing in this architecture; it runs unfused, and slower")

    if exit_heads:
        attached = exits.attach(model, exit_heads, optimised)
        proved = exits.prove_heads(model, loaded, exit_heads, attached, ids)
        report["stages"] += [stage.as_dict() for stage in proved]
        say(f"exits: {len(proved)} heads, largest difference {max(stage.max_difference for stage in proved):.1e}")
    golden = golden_texts(model.max_length)
    golden_ids = model.tokenizer.encode(golden).ids
    golden_logits = _run(session, golden_ids)
    variants = {_FP32_FILE: onnx_bytes} if "fp32" in precisions else {}
    differences: dict[str, float] = {}

    def golden_difference(built: ModelSession) -> float:
        return float(np.abs(_run(built, golden_ids) - golden_logits).max())

    if "int8" in precisions:
        calibration = _calibration_rows(model, loaded, ids)
        variants[_INT8_FILE], built = _int8(
            optimised, ids, calibration, optimised_logits, model.labels, truth, report, say
        )
        differences["int8"] = golden_difference(built)
        held_out = held_out_rows(model, _gate_step(model)) if texts is None else None
        if held_out is not None:
            checked = check_temperature("int8", held_out, optimised_logits, _run(built, ids))
            report["calibration"] = {"int8": checked.as_dict()}
            say(f"calibration on int8's logits: {checked.as_text()}")
    staged: dict[str, exits.StagedVariant] = {}
    if exit_heads:
        whole = {"fp32": (attached, optimised_logits)} if "fp32" in precisions else {}
        if "int8" in precisions:
            import onnx

            int8 = exits.attach(model, exit_heads, onnx.load_from_string(variants[_INT8_FILE]), like=optimised)
            whole["int8"] = (int8, _run(built, ids))
        for precision, (with_exits, logits) in whole.items():
            name = f"{precision}_exit"
            staged[name] = exits.staged(with_exits, exit_heads)
            report.setdefault("exits", {})[name] = exits.prove(
                name, staged[name], ids, logits, model.training["exits"]["allowed"]
            )
            differences[name] = _golden_difference_of_exits(staged[name], golden_ids, golden_logits)
            say(_exit_line(name, report["exits"][name]))
    if "fp16" in precisions:
        variants[_FP16_FILE], built = _fp16(optimised, ids, optimised_logits, report, say)
        differences["fp16"] = max(golden_difference(built), parity.HALF_TOLERANCE)  # CUDA's kernels round elsewhere
    if differences:
        report["golden_difference"] = differences
    files = {
        **{name: (model.folder / name).read_bytes() for name in TOKENIZER_FILES},
        "config.json": _config(model, loaded),
        "golden.jsonl": _golden_lines(golden, golden_logits),
    }
    return _finish(model, target, files, variants, report, notes, staged)


def _finish(
    model: TrainedModel,
    target: Path,
    files: dict[str, bytes],
    variants: dict[str, bytes],
    report: dict[str, Any],
    notes: str | None,
    staged: Mapping[str, exits.StagedVariant] | None = None,
) -> Export:
    described: dict[str, Variant] = {}
    for name, variant in (staged or {}).items():
        parts = tuple(StageFile(f"onnx/model_{name}_{s.layer}.onnx", s.layer, s.threshold) for s in variant.stages)
        first, *others = zip(parts, variant.stages, strict=True)
        files.update({part.file: stage.model for part, stage in others})
        precision = name.removesuffix("_exit")
        data = first[1].model
        variants[first[0].file] = data
        described[name] = Variant(first[0].file, len(data), _sha256(data), precision, "cpu", parts)
    manifest = _manifest(model, files, variants, report, described)
    files["README.md"] = model_card(manifest, target.name, notes).encode()
    manifest = _manifest(model, files, variants, report, described)
    for name, data in {**files, **variants}.items():  # never write what loading would refuse
        check_content(name, data, manifest.labels, f"{name} of this export")
    _write(target, {**files, **variants, MANIFEST: manifest.to_json()})
    Bundle.open(target)
    return Export(target, manifest)


def _export_static(
    model: TrainedModel,
    target: Path,
    ids: list[list[int]],
    precisions: Sequence[str],
    report: dict[str, Any],
    notes: str | None,
    say: Callable[[str], None],
) -> Export:
    """Export a static model: scikit-learn -> folded table -> the same table in float16, which is what ships."""
    if set(precisions) != {"fp32"}:
        raise UsageError(
            f"precision {', '.join(precisions)}: a static model has one variant, whose table is float16 already. "
            "Leave --precision out."
        )
    loaded = static.load(model)
    reference = loaded.reference(model, ids)
    report["skl2onnx_difference"] = fold.cross_check(loaded.head, model.labels, loaded.mean_vectors(ids))
    table = loaded.table(model)
    folded = _session_logits(static.graph(table.astype(np.float32), len(model.labels)).SerializeToString(), ids)
    stages = [parity.compare("scikit-learn -> onnx fp32", reference, folded)]
    with np.errstate(over="ignore"):  # refused by name in `graph`
        stored = static.graph(table.astype(np.float16), len(model.labels))
    onnx_bytes = stored.SerializeToString()
    session = ModelSession(onnx_bytes)
    logits = _run(session, ids)
    tolerance = parity.HALF_TOLERANCE * max(1.0, float(np.abs(folded).max()))
    stages.append(parity.compare("fp32 -> float16 table", folded, logits, tolerance=tolerance, margin=2 * tolerance))
    for stage in stages:
        say(
            f"{stage.name}: {stage.texts:,} texts, largest difference {stage.max_difference:.1e}, "
            f"{stage.label_flips} labels changed"
        )
    report["stages"] = [stage.as_dict() for stage in stages]
    report["alone_or_in_batch"] = _check_neighbours(session, ids[:_NEIGHBOUR_TEXTS], logits, exact=True)
    report["operators"] = operators(stored)
    report["table"] = {"entries": len(table), "outputs": table.shape[1], "precision": "float16"}
    say(f"logits alone and in a batch: {report['alone_or_in_batch']}")
    golden = golden_texts(model.max_length)
    settings = {**loaded.config, "num_hidden_layers": 0}
    architecture = next(iter(settings.get("architectures") or [str(settings.get("model_type", "bert")).title()]))
    files = {
        **{name: static.compact((model.folder / name).read_bytes()) for name in TOKENIZER_FILES},
        "config.json": _config_json(settings, architecture, model.labels),
        "golden.jsonl": _golden_lines(golden, _run(session, model.tokenizer.encode(golden).ids)),
    }
    return _finish(model, target, files, {_FP32_FILE: onnx_bytes}, report, notes)


def _check_target(target: Path, *, force: bool) -> None:
    if not target.exists():
        return
    if not force:
        raise UsageError(f"{target} exists. Choose another --output, or overwrite it with --force.")
    if not (target / MANIFEST).is_file():
        raise UsageError(f"{target} is not a bundle; --force only overwrites bundles. Choose another --output.")


def _gate_texts(
    model: TrainedModel, texts: Sequence[str] | None, say: Callable[[str], None]
) -> tuple[list[str], list[str] | None]:
    """Return the texts of the gates and, for training texts, their labels."""
    real = list(model.texts if texts is None else texts)
    if not real:
        raise BundleError(f"{model.folder} has no train.jsonl. Give texts for the parity gates with --texts FILE.")
    if len(real) < PARITY_TEXTS:
        say(f"note: parity is checked on {len(real)} texts; {PARITY_TEXTS} or more say more (--texts FILE)")
    if texts is not None:
        return real, None
    step = _gate_step(model)
    return real[::step], list(model.text_labels[::step])


def _gate_step(model: TrainedModel) -> int:
    """Return n where every n-th training text takes part in the gates."""
    return max(1, -(-len(model.texts) // _MOST_PARITY_TEXTS))


def _reference_logits(model: TrainedModel, loaded: Any, ids: list[list[int]], report: dict[str, Any]) -> NDArray[Any]:
    """Return what the training libraries themselves answer: torch, for ridge scikit-learn on torch's embeddings, and
    for an ensemble the mean of its members' answers.
    """
    if model.kind == "ensemble":
        answers = [
            _reference_logits(member, part, ids, report) for member, part in zip(model.members, loaded, strict=True)
        ]
        return np.asarray(model.temperature * np.mean(answers, axis=0))
    if model.kind == "lora":
        return graph.run_torch(graph.scoring_module(model, loaded), ids)
    embeddings = graph.run_torch(loaded, ids)
    head = fold.load_head(model.folder / "head.safetensors")
    report["skl2onnx_difference"] = fold.cross_check(head, model.labels, embeddings)
    decision = head.scikit_learn(model.labels).decision_function(embeddings.astype(np.float64))
    return fold.logits_from_decision(decision, temperature=model.temperature)


def _session_logits(onnx_bytes: bytes, ids: list[list[int]]) -> NDArray[np.float32]:
    return _run(ModelSession(onnx_bytes), ids)


def _run(session: ModelSession, ids: list[list[int]]) -> NDArray[np.float32]:
    rows, inverse = batching.distinct(ids)
    batches = batching.plan([len(row) for row in rows], batching.CPU_TOKENS_PER_BATCH)

    def compute(batch: NDArray[np.intp]) -> NDArray[np.float32]:
        return session.run(np.array([rows[index] for index in batch], dtype=np.int64))

    with ThreadPoolExecutor(granted_cores()) as pool:
        parts = list(pool.map(compute, batches))
    out = np.empty((len(rows), parts[0].shape[1]), dtype=np.float32)
    out[np.concatenate(batches)] = np.concatenate(parts)
    return out[inverse]


def _calibration_rows(model: TrainedModel, loaded: Any, ids: list[list[int]]) -> list[list[int]]:
    """Return real texts, and every word of the vocabulary."""
    words = _encoder_config(model, loaded).vocab_size
    return [*ids[:_CALIBRATION_TEXTS], *vocabulary_rows(words, model.tokenizer.encode([""]).ids[0], model.max_length)]


def _int8(
    optimised: onnx.ModelProto,
    ids: list[list[int]],
    calibration: list[list[int]],
    reference: NDArray[np.float32],
    labels: Sequence[str],
    truth: Sequence[str] | None,
    report: dict[str, Any],
    say: Callable[[str], None],
) -> tuple[bytes, ModelSession]:
    """Build the int8 variant and prove it: few flips, little loss, and the same bits alone and in any batch.

    Fixed scales come first, being the fastest; where they miss the gate, scales per token must meet it.
    """
    calibrated = calibrate(optimised, calibration, texts=ids)
    for per_token in (False, True):
        quantised = quantise(calibrated, per_token=per_token)
        data: bytes = quantised.SerializeToString()
        session = ModelSession(data)
        logits = _run(session, ids)
        try:
            stage = parity.compare_quantised("fp32 -> int8", reference, logits, labels, truth)
            break
        except ParityError as error:
            if per_token:
                raise
            say(f"note: {str(error).partition(';')[0]}; trying a scale per token, a little slower")
    report["stages"].append(stage.as_dict())
    neighbours = _check_neighbours(session, ids[:_NEIGHBOUR_TEXTS], logits, exact=True)
    counted = operators(quantised)
    fused = counted.get("Attention", 0)
    report["int8"] = {
        "scales": "per token" if per_token else "fixed",
        "alone_or_in_batch": neighbours,
        "fused_attention": fused,
        "operators": counted,
    }
    if not fused:
        say("note: the attention of this architecture is not understood; int8 runs it unfused, a little slower")
    say(
        f"{stage.name}: {stage.texts:,} texts, largest difference {stage.max_difference:.1e}, mean "
        f"{stage.mean_difference:.1e}, {stage.label_flips} labels changed, macro-F1 {stage.macro_f1_fp32:.4f} -> "
        f"{stage.macro_f1:.4f} (against {stage.truth}); alone and in a batch: {neighbours}"
    )
    return data, session


def _fp16(
    optimised: onnx.ModelProto,
    ids: list[list[int]],
    reference: NDArray[np.float32],
    report: dict[str, Any],
    say: Callable[[str], None],
) -> tuple[bytes, ModelSession]:
    """Build the fp16 variant for CUDA, and prove on this CPU that its graph and its rounded weights compute the same.

    (Where the CPU has no fp16 kernel, onnxruntime computes in fp32 between fp16 tensors.)
    """
    half = half_for_cuda(optimised)
    data: bytes = half.SerializeToString()
    session = ModelSession(data)
    tolerance = parity.HALF_TOLERANCE * max(1.0, float(np.abs(reference).max()))
    # Two logits that each may move by the tolerance may close a gap of twice that.
    stage = parity.compare("fp32 -> fp16", reference, _run(session, ids), tolerance=tolerance, margin=2 * tolerance)
    report["stages"].append(stage.as_dict())
    report["fp16"] = {"operators": operators(half)}
    say(
        f"{stage.name}: {stage.texts:,} texts, largest difference {stage.max_difference:.1e}, "
        f"{stage.label_flips} labels changed; checked on this CPU, made for CUDA"
    )
    return data, session


def _check_neighbours(
    session: ModelSession, ids: list[list[int]], in_batches: NDArray[np.float32], *, exact: bool = False
) -> str:
    """Score texts one by one and compare with the same texts in batches, bit by bit."""
    alone = np.concatenate([session.run(np.array([row], dtype=np.int64)) for row in ids])
    differing = int((alone != in_batches[: len(ids)]).any(axis=1).sum())
    if not differing:
        return f"bit-identical ({len(ids)} texts)"
    largest = float(np.abs(alone - in_batches[: len(ids)]).max())
    if exact or largest > parity.LOGIT_TOLERANCE:
        raise ParityError(
            f"{differing} of {len(ids)} texts score differently alone and in a batch, by up to {largest:.1e}."
        )
    return f"{differing} of {len(ids)} texts differ by at most {largest:.1e}"


def _golden_difference_of_exits(
    variant: exits.StagedVariant, ids: list[list[int]], golden: NDArray[np.float32]
) -> float:
    """Texts that leave early have another head's logits: replays elsewhere may differ by as much."""
    return float(np.abs(exits.answers(variant.session, ids)[0] - golden).max())


def _exit_line(name: str, proved: Mapping[str, Any]) -> str:
    left = ", ".join(f"{share:.1%} after layer {layer}" for layer, share in proved["left_after_layer"].items())
    return (
        f"{name}: {left}; {proved['labels_differing']} of {proved['texts']:,} labels differ from the whole model's; "
        f"alone and in a batch: {proved['alone_or_in_batch']}"
    )


def _encoder_config(model: TrainedModel, loaded: Any) -> Any:
    model, loaded = _first_member(model, loaded)
    return loaded.stages[0].auto_model.config if model.kind == "ridge" else loaded.config


def _first_member(model: TrainedModel, loaded: Any) -> tuple[TrainedModel, Any]:
    """Return an ensemble's first member, whose configuration stands for all; any other model as it is."""
    return (model.members[0], loaded[0]) if model.kind == "ensemble" else (model, loaded)


def _config(model: TrainedModel, loaded: Any) -> bytes:
    """Return config.json: the encoder's, as a sequence classifier with our labels."""
    config = _encoder_config(model, loaded)
    first, loaded = _first_member(model, loaded)
    architecture = type(loaded.stages[0].auto_model).__name__ if first.kind == "ridge" else type(loaded).__name__
    return _config_json(json.loads(config.to_json_string(use_diff=False)), architecture, model.labels)


def _config_json(config: dict[str, Any], architecture: str, labels: Sequence[str]) -> bytes:
    settings = {
        key: value
        for key, value in config.items()
        if not key.startswith("_") and key not in ("dtype", "torch_dtype", "name_or_path")
    }
    settings["architectures"] = [
        architecture.removesuffix("Model").removesuffix(_ARCHITECTURE_SUFFIX) + _ARCHITECTURE_SUFFIX
    ]
    settings["id2label"] = {str(index): label for index, label in enumerate(labels)}
    settings["label2id"] = {label: index for index, label in enumerate(labels)}
    settings["problem_type"] = "single_label_classification"
    settings.pop("num_labels", None)
    return (json.dumps(settings, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


def _golden_lines(texts: Sequence[str], logits: NDArray[np.float32]) -> bytes:
    rows = zip(texts, logits.tolist(), strict=True)
    return "".join(json.dumps({"text": text, "logits": values}) + "\n" for text, values in rows).encode()


def _manifest(
    model: TrainedModel,
    files: dict[str, bytes],
    variants: dict[str, bytes],
    report: dict[str, Any],
    staged: Mapping[str, Variant],
) -> Manifest:
    precisions = {_FP32_FILE: ("fp32", "any"), _INT8_FILE: ("int8", "cpu"), _FP16_FILE: ("fp16", "cuda")}
    return Manifest(
        labels=model.labels,
        kind=model.kind,
        max_length=model.max_length,
        normaliser=model.normaliser,
        temperature=model.temperature,
        variants={
            precisions[name][0]: Variant(name, len(data), _sha256(data), *precisions[name])
            for name, data in variants.items()
            if name in precisions
        }
        | dict(staged),
        files={name: File(len(data), _sha256(data)) for name, data in sorted(files.items())},
        encoder=model.encoder,
        training=model.training,
        parity=report,
        evaluation=model.evaluation,
        created={
            "by": f"edgewren {edgewren.__version__}",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "libraries": {name: metadata.version(name) for name in _LIBRARIES},
        },
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(target: Path, files: dict[str, bytes]) -> None:
    """Write everything to a temporary folder beside the target, then move it into place: never half a bundle."""
    scratch: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        scratch.chmod(0o755)
        (scratch / "onnx").mkdir()
        for name, data in files.items():
            (scratch / name).write_bytes(data)
        if target.exists():
            shutil.rmtree(target)
        scratch.replace(target)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {error.strerror or error}. Free space or choose another --output."
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
