"""OpenVINO on the whole classifier: fp32, bf16, and int8 by NNCF's post-training quantisation.

Throughput: hint THROUGHPUT and an AsyncInferQueue, texts sorted by length. Latency: hint LATENCY, one synchronous call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import nncf
import numpy as np
import openvino
from numpy.typing import NDArray
from tokenizers import Tokenizer

from stacks.material import BATCH_SIZES, Labeller, Material, Stack, tuned
from stacks.ridge_classifier import LogitsOnly, example, load_classifier

_CALIBRATION_TEXTS = 300
_MAX_LENGTH = 256

Encode = Callable[[list[str]], list[list[int]]]


def fp32(material: Material) -> Stack:
    return _stack(_converted(material), ["f32"], material)


def bf16(material: Material) -> Stack:
    return _stack(_converted(material), ["bf16"], material)


def int8(material: Material) -> Stack:
    """The precision is that of what NNCF leaves unquantised."""
    return _stack(_quantised(material), ["f32", "bf16"], material)


def plan(lengths: Sequence[int], batch_size: int, *, equal: bool) -> list[list[int]]:
    """Cut row indices into batches, the longest rows first; with `equal`, rows of one batch have one length."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        last = batches[-1] if batches else None
        if last is None or len(last) == batch_size or (equal and lengths[last[0]] != lengths[row]):
            batches.append([row])
        else:
            last.append(row)
    return batches


def padded(rows: Sequence[Sequence[int]]) -> list[NDArray[np.int64]]:
    """Return input ids and mask, int64 [batch, longest row]."""
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return [ids, mask]


def _converted(material: Material) -> Any:
    module = LogitsOnly(load_classifier(material)).eval()
    return openvino.convert_model(module, example_input=example())


def _quantised(material: Material) -> Any:
    model = _converted(material)
    names = [port.any_name for port in model.inputs]
    rows = _encoder(material)(list(material.data.texts[:_CALIBRATION_TEXTS]))
    return nncf.quantize(
        model,
        nncf.Dataset([dict(zip(names, padded([row]), strict=True)) for row in rows]),
        subset_size=len(rows),
        model_type=nncf.ModelType.TRANSFORMER,
    )


def _encoder(material: Material) -> Encode:
    tokenizer = Tokenizer.from_file(str(material.model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MAX_LENGTH)
    return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


def _stack(model: Any, precisions: Sequence[str], material: Material) -> Stack:
    encode, labels, core = _encoder(material), material.data.classes, openvino.Core()

    @cache
    def compiled(hint: str, precision: str) -> Any:
        settings = {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": material.cores,
        }
        return core.compile_model(model, "CPU", settings)

    @cache
    def queue(precision: str, requests: int) -> Any:
        return openvino.AsyncInferQueue(compiled("THROUGHPUT", precision), requests)

    def make(batch_size: int, *, equal: bool, requests: int, precision: str) -> Labeller:
        return _asynchronous(queue(precision, requests), encode, labels, batch_size, equal=equal)

    throughput, settings = tuned(
        make,
        material,
        batch_size=BATCH_SIZES,
        equal=(False, True),
        requests=(0, 2 * material.cores),  # 0: as many as OpenVINO finds best
        precision=precisions,
    )
    latency, one = tuned(
        lambda precision: _synchronous(compiled("LATENCY", precision), encode, labels), material, precision=precisions
    )
    return Stack(throughput, latency, {**settings, "latency_precision": one["precision"]})


def _asynchronous(queue: Any, encode: Encode, labels: Sequence[str], batch_size: int, *, equal: bool) -> Labeller:
    def predict(texts: list[str]) -> list[str]:
        rows = encode(texts)
        chosen = np.empty(len(rows), dtype=np.int64)

        def finish(request: Any, batch: list[int]) -> None:
            chosen[batch] = request.get_output_tensor(0).data.argmax(axis=1)

        queue.set_callback(finish)
        for batch in plan([len(row) for row in rows], batch_size, equal=equal):
            queue.start_async(padded([rows[index] for index in batch]), batch)
        queue.wait_all()
        return [labels[index] for index in chosen.tolist()]

    return predict


def _synchronous(compiled: Any, encode: Encode, labels: Sequence[str]) -> Labeller:
    request = compiled.create_infer_request()

    def predict(texts: list[str]) -> list[str]:
        return [labels[int(request.infer(padded([row]))[0].argmax())] for row in encode(texts)]

    return predict
