"""The stages of a static model: scikit-learn -> folded table -> the same table in float16, which is what ships."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewren.errors import UsageError
from edgewren.session import ModelSession
from edgewren_export import fold, parity, static
from edgewren_export.built import Built
from edgewren_export.config import config_json
from edgewren_export.gate_texts import GateTexts
from edgewren_export.golden_answers import FILE as GOLDEN
from edgewren_export.golden_answers import golden_of
from edgewren_export.logits import check_neighbours, run
from edgewren_export.optimise import operators
from edgewren_export.proof import Proof
from edgewren_export.trained_model import TOKENIZER_FILES, TrainedModel


def build(model: TrainedModel, texts: GateTexts, precisions: Sequence[str], proof: Proof) -> Built:
    """Build and prove the one variant of a static model.

    Raises:
        BundleError: the model is damaged.
        ParityError: two stages disagree, or a number is too large for float16.
        UsageError: a precision other than fp32.
    """
    if set(precisions) != {"fp32"}:
        raise UsageError(
            f"precision {', '.join(precisions)}: a static model has one variant, whose table is float16 already. "
            "Leave --precision out."
        )
    loaded = static.load(model)
    reference = loaded.reference(model, texts.ids)
    proof.found["skl2onnx_difference"] = fold.cross_check(loaded.head, model.labels, loaded.mean_vectors(texts.ids))
    table = loaded.table(model)
    exact = static.graph(table.astype(np.float32), len(model.labels))
    folded = run(ModelSession(exact.SerializeToString()), texts.ids)
    stages = [parity.compare("scikit-learn -> onnx fp32", reference, folded)]
    with np.errstate(over="ignore"):  # refused by name in `graph`
        stored = static.graph(table.astype(np.float16), len(model.labels))
    data: bytes = stored.SerializeToString()
    session = ModelSession(data)
    logits = run(session, texts.ids)
    tolerance = parity.HALF_TOLERANCE * max(1.0, float(np.abs(folded).max()))
    stages.append(parity.compare("fp32 -> float16 table", folded, logits, tolerance=tolerance, margin=2 * tolerance))
    proof.open_stages(stages)
    proof.found["alone_or_in_batch"] = check_neighbours(session, texts.ids, logits, exact=True)
    proof.found["operators"] = operators(stored)
    proof.found["table"] = {"entries": len(table), "outputs": table.shape[1], "precision": "float16"}
    proof.say(f"logits alone and in a batch: {proof.found['alone_or_in_batch']}")
    settings = {**loaded.config, "num_hidden_layers": 0}
    architecture = next(iter(settings.get("architectures") or [str(settings.get("model_type", "bert")).title()]))
    files = {
        **{name: static.compact((model.folder / name).read_bytes()) for name in TOKENIZER_FILES},
        "config.json": config_json(settings, architecture, model.labels),
        GOLDEN: golden_of(model, session).lines(),
    }
    return Built(files, {"fp32": data})
