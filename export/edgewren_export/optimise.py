"""Graph optimisation: ONNX Runtime's own, with the settings of the production session, done once and stored.

Uses the optimiser that loading would run anyway, so nothing is fused that the runtime would not fuse, and an
architecture that it cannot fuse simply stays as it is.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from edgewren.device import import_onnxruntime
from edgewren.errors import InvariantError
from edgewren.session import DISABLED_OPTIMIZERS

if TYPE_CHECKING:
    import onnx


def optimise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model as the CPU session would run it, without hardware-specific layouts (level "extended").

    SkipLayerNormalization is left out on purpose: its CPU kernel is scalar (see `edgewren.session`).
    """
    import onnx

    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="edgewren-optimise-") as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "optimised.onnx")
        onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=DISABLED_OPTIMIZERS["cpu"],
        )
        optimised = onnx.load(options.optimized_model_filepath)
    optimised.producer_name = "edgewren"
    _drop_unused_domains(optimised)
    if operators(optimised).get("SkipLayerNormalization"):
        raise InvariantError(
            "onnxruntime fused SkipLayerNormalization although it was told not to. Please report this."
        )
    return optimised


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    """Keep the operator sets in use: onnxruntime lists all that it knows, and loading refuses foreign ones."""
    used = {node.domain for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """Return how often each operator type occurs."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
