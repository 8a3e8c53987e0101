"""A static model as one small ONNX graph: look each token up, average, that is all.

The table holds one float16 per vocabulary entry and output. The graph sums in float64: every float16 is a whole
multiple of 2⁻²⁴ below 2¹⁶, so a sum of up to 2¹³ of them fits into 53 bits and is exact. An exact sum does not depend
on its order, so a text's logits are the same bits alone, in any batch, and beside any padding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import BundleError, ParityError
from edgewren_export.fold import Head, load_head, logits_from_decision
from edgewren_export.trained_model import TrainedModel

if TYPE_CHECKING:
    import onnx

_OPSET = 17
_IR_VERSION = 8
MAXIMUM_TOKENS = 2**13
"""Up to here the sum is exact."""


@dataclass(frozen=True)
class StaticModel:
    """A static model's weights as stored.

    Attributes:
        vectors: float32 [vocabulary, d].
        head: the ridge head on mean vectors.
        scale, coef, intercept: decision = scale * (the head's decision) + shares @ coef.T + intercept, where shares
            are what part of the text's tokens each vocabulary entry has; 1, zeros, zeros where nothing was distilled.
        config: the encoder's config.json.
    """

    vectors: NDArray[np.float32]
    head: Head
    scale: float
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    config: dict[str, Any]

    def mean_vectors(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the mean vector of each token row, float32 [n, d], summed in float64."""
        means = np.empty((len(ids), self.vectors.shape[1]), np.float32)
        for index, row in enumerate(ids):
            means[index] = self.vectors[row].mean(axis=0, dtype=np.float64)
        return means

    def reference(self, model: TrainedModel, ids: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the logits that scikit-learn's fitted scaler and ridge give, nothing folded: float64 [n, labels]."""
        head = self.head.scikit_learn(model.labels)
        decision = _columns(head.decision_function(self.mean_vectors(ids).astype(np.float64)))
        added = np.stack([self.coef[:, row].mean(axis=1) for row in ids])
        return _logits(self.scale * decision + added + self.intercept, model)

    def table(self, model: TrainedModel) -> NDArray[np.float64]:
        """Return one number per vocabulary entry and output, float64 [vocabulary, 1 or labels].

        Scaler, ridge and what was distilled are affine and a text's shares sum to 1: the decision value of a mean is
        the mean of decision values.
        """
        head = self.head.scikit_learn(model.labels)
        decision = _columns(head.decision_function(self.vectors.astype(np.float64)))
        return model.temperature * (self.scale * decision + self.coef.T + self.intercept)


def load(model: TrainedModel) -> StaticModel:
    """Read a static model's weights.

    Raises:
        BundleError: a file is damaged, shapes do not fit together, or texts are too long for an exact sum.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if model.max_length > MAXIMUM_TOKENS:
        raise BundleError(f"max length is {model.max_length}, a static model takes at most {MAXIMUM_TOKENS} tokens.")
    head = load_head(model.folder / "head.safetensors")
    try:
        vectors = np.asarray(load_file(model.folder / "tokens.safetensors")["vectors"], dtype=np.float32)
        change = {
            "scale": np.ones(1),
            "coef": np.zeros((len(head.intercept), len(vectors))),
            "intercept": np.zeros(len(head.intercept)),
        }
        if (model.folder / "distilled.safetensors").exists():
            change = load_file(model.folder / "distilled.safetensors")
        loaded = StaticModel(
            vectors=vectors,
            head=head,
            scale=float(change["scale"][0]),
            coef=np.asarray(change["coef"], dtype=np.float64),
            intercept=np.asarray(change["intercept"], dtype=np.float64),
            config=json.loads((model.folder / "encoder.json").read_text(encoding="utf-8")),
        )
    except (SafetensorError, OSError, ValueError, KeyError, IndexError) as error:
        raise BundleError(f"{model.folder} cannot be read ({type(error).__name__}: {error}). Train again.") from error
    outputs = len(head.intercept)
    if (
        vectors.ndim != 2
        or vectors.shape[1] != len(head.mean)
        or loaded.coef.shape != (outputs, len(vectors))
        or loaded.intercept.shape != (outputs,)
        or not isinstance(loaded.config, dict)
    ):
        raise BundleError(f"{model.folder} holds tensors whose shapes do not fit together. Train again.")
    return loaded


def graph(table: NDArray[np.floating[Any]], labels: int) -> onnx.ModelProto:
    """Return the model: inputs input_ids and attention_mask, int64 [batch, sequence], output logits.

    Args:
        table: [vocabulary, 1] for two labels, [vocabulary, labels] otherwise, in the precision to store.

    Raises:
        ParityError: a number is too large for float16.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if not np.isfinite(table).all():
        raise ParityError("the table holds numbers too large for float16. Nothing was written; train on more rows.")
    constants = {"table": table, "sequence": np.array([1], np.int64), "last": np.array([2], np.int64)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["stored"]),
        helper.make_node("Cast", ["stored"], ["numbers"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.DOUBLE),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["numbers", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "sequence"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["column", "sequence"], ["count"], keepdims=0),
        helper.make_node("Div", ["total", "count"], ["mean"]),
    ]
    if labels == 2:
        constants["halves"] = np.array([[-0.5, 0.5]])
        nodes.append(helper.make_node("Mul", ["mean", "halves"], ["wide"]))
    nodes.append(helper.make_node("Cast", ["wide" if labels == 2 else "mean"], ["logits"], to=TensorProto.FLOAT))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])
    tensors = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "classifier", inputs, [output], tensors),
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        producer_name="edgewren",
    )
    onnx.checker.check_model(model)
    return model


def compact(tokenizer_json: bytes) -> bytes:
    """Return the same tokenizer.json without white space: it is nine tenths of a static bundle."""
    return json.dumps(json.loads(tokenizer_json), ensure_ascii=False, separators=(",", ":")).encode()


def _columns(decision: NDArray[np.float64]) -> NDArray[np.float64]:
    return decision[:, None] if decision.ndim == 1 else decision


def _logits(decision: NDArray[np.float64], model: TrainedModel) -> NDArray[np.float64]:
    one_column = decision[:, 0] if decision.shape[1] == 1 else decision
    return logits_from_decision(one_column, temperature=model.temperature)
