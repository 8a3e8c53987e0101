"""One ONNX Runtime session with the settings that every figure of this project was measured with.

Knows tensors, not texts or labels. Export's parity gates run through this same class, so what is proved is what runs.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.device import Device, import_onnxruntime, int8_may_saturate, threads_keep_memory
from edgewren.errors import BundleModelError, DeviceError, closed_classifier
from edgewren.lifetime import keep_for_good, native_code, renew_after_fork

logger = logging.getLogger(__name__)

_KNOWN_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
# SkipLayerNormalization's CPU kernel is scalar; Add + LayerNormalization is vectorised since 1.30: +7 % fp32.
DISABLED_OPTIMIZERS: dict[Device, list[str]] = {"cpu": ["SkipLayerNormFusion"], "cuda": []}
# Processors without VNNI saturate where uint8 is multiplied with int8; this makes onnxruntime take a slower, exact
# kernel. Under qemu's Haswell, 40 tweets get the very bits of a VNNI processor; without it they move by up to 0.03.
# Only there: onnxruntime 1.32 takes that kernel on a VNNI processor too (Zen 5), where it costs 1.8 times the time.
_NO_SATURATION = ("session.x64quantprecision", "1")
SHORT_TOKENS = 64
"""Rows of so many tokens and longer ones get different attention kernels on CUDA."""

# The attention kernels that a session on CUDA may use, a sum of onnxruntime's bits: CUTLASS's (tiles of 64 rows),
# FlashAttention-2 (tiles of 128), and plain products where these cannot. Milliseconds of one layer for 65,536
# tokens on an H100 (12 x 32): rows of 38 tokens 0.23 with CUTLASS's, 0.37 with FlashAttention-2; of 64, 0.14 and 0.23;
# of 65, 0.41 and 0.24; of 256, 0.39 and 0.17. cuDNN's builds a plan of about 30 ms for each new shape in each thread: a
# list of 65,000 tweets has 150 shapes.
_KERNELS_FOR_SHORT = str(0b10010)
_KERNELS_FOR_LONG = str(0b10011)


def _providers(device: Device, *, short: bool) -> list[str | tuple[str, dict[str, str]]]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    kernels = _KERNELS_FOR_SHORT if short else _KERNELS_FOR_LONG
    return [("CUDAExecutionProvider", {"sdpa_kernel": kernels}), "CPUExecutionProvider"]


def feed(
    input_ids: NDArray[np.int64], inputs: Collection[str], mask: NDArray[np.int64] | None = None
) -> dict[str, NDArray[np.int64]]:
    """Return what a model with these inputs takes for token rows, int64 [batch, sequence]; without mask, unpadded."""
    values = {"input_ids": input_ids}
    if "attention_mask" in inputs:
        values["attention_mask"] = np.ones_like(input_ids) if mask is None else mask
    if "token_type_ids" in inputs:
        values["token_type_ids"] = np.zeros_like(input_ids)
    return values


class ModelSession:
    """Runs one model on one device. Safe to call from several threads at once, and in forked children.

    Args:
        model: the ONNX file's bytes.
        device: "cpu" or "cuda".
        threads: threads inside one call. Throughput comes from several callers with one thread each, which beats one
            caller with several (+9 % at batches of 8 tweets, measured on 2 cores).
        read_again: returns the same bytes once more. With it, a forked child builds a session of its own on first use:
            a session does not survive a fork (onnxruntime#9800). On CUDA, rows of more than `SHORT_TOKENS` then get a
            second session of their own, built when the first ones come. The bytes are not kept for this.
        stage: the model is one stage of several (see `staged`): it may take and give hidden states too.

    Raises:
        BundleModelError: onnxruntime cannot load the bytes, or inputs and outputs are not a text classifier's.
        DeviceError: the CUDA provider did not start.
    """

    def __init__(
        self,
        model: bytes,
        *,
        device: Device = "cpu",
        threads: int = 1,
        read_again: Callable[[], bytes] | None = None,
        stage: bool = False,
    ) -> None:
        self._device: Device = device
        self._threads = threads
        self._read_again = read_again
        self._closed = False
        self._building = threading.Lock()
        self._session: Any = self._built(model)
        self._for_long: Any = None
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
        self.given = tuple(node.name for node in outputs)
        fits = {"input_ids"} <= set(self.inputs) <= _KNOWN_INPUTS and self.given == ("logits",)
        if self.given[:1] != ("logits",) or not (fits or stage):
            raise BundleModelError(
                f"The model has inputs {list(self.inputs)} and outputs {[node.name for node in outputs]}. "
                "Expected input_ids, attention_mask and optionally token_type_ids, and one output 'logits'."
            )
        width = outputs[0].shape[-1] if outputs[0].shape else None
        self.outputs: int | None = width if isinstance(width, int) else None
        if read_again is not None:
            renew_after_fork(self)

    def run(self, input_ids: NDArray[np.int64], mask: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return logits, float32 [batch, labels], of token rows of equal length, int64 [batch, sequence].

        Args:
            mask: 1 for tokens, 0 for padding, int64 [batch, sequence]; for models that compute the same bits with any
                padding, and have the input attention_mask. Without it all are tokens.

        Raises:
            UsageError: the session was closed.
            DeviceError: this is a forked child of a process that uses CUDA.
            BundleModelError: the model fails, or makes something else than logits.
            BundleError: this is a forked child, and the model's file is no longer the same.
        """
        return self.call(["logits"], feed(input_ids, self.inputs, mask))[0]

    def call(self, names: Sequence[str], values: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the named outputs, logits first, for all the inputs; `run` is this for a whole model.

        Raises:
            As `run`.
        """
        rows, tokens = next(iter(values.values())).shape[:2]
        session = self._session or self._revived()
        if tokens > SHORT_TOKENS and self._device == "cuda" and self._read_again is not None:
            session = self._for_long or self._built_for_long(self._read_again)
        try:
            with native_code():
                results: list[NDArray[np.float32]] = session.run(names, dict(values))
        except Exception as error:  # as in _built
            raise BundleModelError(
                f"the model fails on {rows} texts of {tokens} tokens: {error}. Export the bundle again."
            ) from error
        logits = results[0]
        # onnxruntime only warns where a result has not the shape that the model declares.
        if logits.shape != (rows, self.outputs or logits.shape[-1]) or logits.dtype != np.float32:
            raise BundleModelError(
                f"the model makes {logits.dtype} logits of shape {logits.shape} for {rows} texts, expected "
                f"float32 of ({rows}, {self.outputs or 'labels'}). Export the bundle again."
            )
        return results

    def close(self) -> None:
        """Give the model's memory back as soon as the last running call returns."""
        self._closed = True
        self._session = self._for_long = None

    def renew(self) -> None:
        """In a forked child: put the parent's session aside; `run` builds another."""
        self._building = threading.Lock()
        for session in (self._session, self._for_long):
            if session is not None:
                keep_for_good(session)
        self._session = self._for_long = None

    def _built(self, model: bytes, *, short: bool = True) -> Any:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if self._threads > 1:  # threads that wait for the next call would take a core from whatever else runs
            options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._device == "cpu" and threads_keep_memory():
            # A session's arena is shared by its callers and hands one core what another has just written. Where these
            # cores share no cache, two callers were 23 % slower for it (docs/log.md); malloc keeps threads apart.
            options.enable_cpu_mem_arena = False
            options.enable_mem_pattern = False
        if int8_may_saturate():
            options.add_session_config_entry(*_NO_SATURATION)
        if self._device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        try:
            with native_code():
                session = self._opened(model, options, short=short)
        except Exception as error:  # onnxruntime raises a dozen classes of its own, all without a common base
            raise BundleModelError(
                f"onnxruntime refuses the model: {error}. Export the bundle again with 'edgewren export'."
            ) from error
        session.disable_fallback()  # no other device in silence; and for this alone it holds on to the file's bytes
        if hasattr(session, "_model_bytes"):
            session._model_bytes = None  # noqa: SLF001  no public way; 24 MB
        return session

    def _opened(self, model: bytes, options: Any, *, short: bool) -> Any:
        open_session = functools.partial(
            import_onnxruntime().InferenceSession,
            model,
            options,
            providers=_providers(self._device, short=short),
            disabled_optimizers=DISABLED_OPTIMIZERS[self._device],
            # On CUDA, `__init__` tells where it fell back; on the CPU, onnxruntime would print, and try the same again.
            enable_fallback=int(self._device == "cuda"),
        )
        try:
            return open_session()
        except RuntimeError as error:
            if "global thread pool" not in str(error):
                raise
            options.use_per_session_threads = False  # the host has set up threads for all sessions of the process
            options.intra_op_num_threads = options.inter_op_num_threads = 0  # else a warning: they have no effect
            return open_session()

    def _built_for_long(self, read: Callable[[], bytes]) -> Any:
        with self._building:
            if self._for_long is None and not self._closed:
                self._for_long = self._built(read(), short=False)
            return self._for_long or self._revived()

    def _revived(self) -> Any:
        if self._closed or self._read_again is None:
            raise closed_classifier()
        if self._device == "cuda":
            raise DeviceError(
                "CUDA cannot be used in a forked child of a process that uses it. Start workers with the method "
                "'spawn' or 'forkserver', or load the classifier after the fork."
            )
        with self._building:
            if self._session is None:
                self._session = self._built(self._read_again())
            return self._session
