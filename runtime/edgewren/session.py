"""One ONNX Runtime session with the settings that every figure of this project was measured with.

Knows tensors, not texts or labels. Export's parity gates run through this same class, so what is proved is what runs.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.device import Device, import_onnxruntime
from edgewren.errors import BundleModelError, DeviceError

logger = logging.getLogger(__name__)

_KNOWN_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
# SkipLayerNormalization's CPU kernel is scalar; Add + LayerNormalization is vectorised since 1.30: +7 % fp32.
DISABLED_OPTIMIZERS: dict[Device, list[str]] = {"cpu": ["SkipLayerNormFusion"], "cuda": []}
# Processors without VNNI saturate where uint8 is multiplied with int8: there, and only there, onnxruntime then takes a
# slower, exact kernel. Under qemu's Haswell, 40 tweets get the very bits of a VNNI processor; without it they move by
# up to 0.03.
_NO_SATURATION = ("session.x64quantprecision", "1")
_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}


def feed(input_ids: NDArray[np.int64], inputs: Collection[str]) -> dict[str, NDArray[np.int64]]:
    """Return what a model with these inputs takes for unpadded token rows, int64 [batch, sequence]."""
    values = {"input_ids": input_ids}
    if "attention_mask" in inputs:
        values["attention_mask"] = np.ones_like(input_ids)
    if "token_type_ids" in inputs:
        values["token_type_ids"] = np.zeros_like(input_ids)
    return values


class ModelSession:
    """Runs one model on one device. Safe to call from several threads at once.

    Args:
        model: the ONNX file's bytes.
        device: "cpu" or "cuda".
        threads: threads inside one call. Throughput comes from several callers with one thread each, which beats one
            caller with several (+9 % at batches of 8 tweets, measured on 2 cores).

    Raises:
        BundleModelError: onnxruntime cannot load the bytes, or inputs and outputs are not a text classifier's.
        DeviceError: the CUDA provider did not start.
    """

    def __init__(self, model: bytes, *, device: Device = "cpu", threads: int = 1) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry(*_NO_SATURATION)
        if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model, options, providers=_PROVIDERS[device], disabled_optimizers=DISABLED_OPTIMIZERS[device]
            )
        except Exception as error:  # onnxruntime raises a dozen classes of its own, all without a common base
            raise BundleModelError(
                f"onnxruntime refuses the model: {error}. Export the bundle again with 'edgewren export'."
            ) from error
        # Only the session itself tells which provider really started; the list of available ones does not.
        active = self._session.get_providers()
        if device == "cuda" and "CUDAExecutionProvider" not in active:
            raise DeviceError(
                f"CUDA was requested but the session started on {', '.join(active)}: CUDA or cuDNN libraries are "
                "missing or too old. Run 'edgewren doctor', or use device='cpu'."
            )
        self.providers: tuple[str, ...] = tuple(active)
        self.inputs = tuple(node.name for node in self._session.get_inputs())
        outputs = self._session.get_outputs()
        if not {"input_ids"} <= set(self.inputs) <= _KNOWN_INPUTS or [node.name for node in outputs] != ["logits"]:
            raise BundleModelError(
                f"The model has inputs {list(self.inputs)} and outputs {[node.name for node in outputs]}. "
                "Expected input_ids, attention_mask and optionally token_type_ids, and one output 'logits'."
            )
        width = outputs[0].shape[-1]
        self.outputs: int | None = width if isinstance(width, int) else None

    def run(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return logits, float32 [batch, labels], of token rows of equal length, int64 [batch, sequence].

        Raises:
            BundleModelError: the model fails, or makes something else than logits.
        """
        try:
            logits: NDArray[np.float32] = self._session.run(["logits"], feed(input_ids, self.inputs))[0]
        except Exception as error:  # as above
            raise BundleModelError(
                f"the model fails on {input_ids.shape[0]} texts of {input_ids.shape[1]} tokens: {error}. "
                "Export the bundle again."
            ) from error
        # onnxruntime only warns where a result has not the shape that the model declares.
        if logits.shape != (len(input_ids), self.outputs or logits.shape[-1]) or logits.dtype != np.float32:
            raise BundleModelError(
                f"the model makes {logits.dtype} logits of shape {logits.shape} for {len(input_ids)} texts, expected "
                f"float32 of ({len(input_ids)}, {self.outputs or 'labels'}). Export the bundle again."
            )
        return logits
