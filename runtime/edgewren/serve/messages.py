"""What clients send and get: JSON to texts, scores to JSON. Pure; knows no sockets, queues or models.

Three dialects: text-embeddings-inference's and Hugging Face's `/predict`, which differ in details and are told apart by
what they send, and KServe's Open Inference Protocol V2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import InputError
from edgewren.probabilities import softmax
from edgewren.text import is_unicode

OUTPUTS = ("label", "scores")
"""Names of the outputs in the Open Inference Protocol."""

_SHOWN = 60
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,32}")


class RequestError(InputError):
    """The request is not what the service understands (HTTP 422)."""


@dataclass(frozen=True)
class Ask:
    """A request for predictions.

    Attributes:
        texts: what to score.
        errors: index of an item of the request to why it cannot be scored; those have no text.
        items: number of items of the request.
        batch: whether the answer is a list of lists.
        top_k: labels to return per text; None: all.
        raw: logits instead of probabilities.
        truncate: False: a text that is too long is an error.
    """

    texts: tuple[str, ...]
    errors: Mapping[int, str]
    items: int
    batch: bool
    top_k: int | None = None
    raw: bool = False
    truncate: bool = True


def parse_json(body: bytes) -> Any:
    """Return what a body of strict JSON says.

    Raises:
        RequestError: not JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise RequestError("The body is nested too deeply.") from None
    except ValueError as error:
        raise RequestError(f"The body is not JSON: {error}.") from None


def count_items(data: Any) -> int:
    """Return how many items a request for `parse_predict` has, before it looks at each: 900,000 take it seconds."""
    inputs = data.get("inputs") if isinstance(data, dict) else None
    return len(inputs) if isinstance(inputs, list) else 1


def parse_predict(data: Any) -> Ask:
    """Read `{"inputs": text | [text, …] | [[text], …], "parameters": {…}}`, with TEI's options beside `inputs` too.

    Raises:
        RequestError: no inputs, or an option of the wrong type. A bad item of a list is not an error of the whole.
    """
    if not isinstance(data, dict) or "inputs" not in data:
        raise RequestError(f'The body is {_shown(data)}, expected an object like {{"inputs": ["a text"]}}.')
    parameters = data.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise RequestError(f"parameters is {_shown(parameters)}, expected an object.")
    options = {**data, **parameters}
    top_k = options.get("top_k")
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise RequestError(f"top_k is {_shown(top_k)}, expected a whole number of at least 1, or null for all labels.")
    function = options.get("function_to_apply")
    if function not in (None, "softmax", "none"):
        raise RequestError(f"function_to_apply is {_shown(function)}, expected softmax or none.")
    inputs = data["inputs"]
    batch = isinstance(inputs, list)
    items = inputs if batch else [inputs]
    texts: list[str] = []
    errors: dict[int, str] = {}
    for index, item in enumerate(items):
        text = item[0] if isinstance(item, list) and len(item) == 1 else item
        if isinstance(text, str):
            texts.append(text)
        else:
            pair = isinstance(item, list) and len(item) == 2
            where = f"inputs[{index}]" if batch else "inputs"
            errors[index] = f"{where} is {'a pair' if pair else _shown(item)}, expected a text."
    if errors and not batch:
        raise RequestError(errors[0])
    return Ask(
        texts=tuple(texts),
        errors=errors,
        items=len(items),
        batch=batch,
        top_k=top_k,
        raw=_flag(options, "raw_scores", default=False) or function == "none",
        truncate=_flag(options, "truncate", default=True),
    )


def predict_answer(
    ask: Ask, labels: Sequence[str], logits: NDArray[np.float32], truncated: NDArray[np.bool_], max_length: int
) -> Any:
    """Return the answer to `parse_predict`: per text `[{label, score}, …]`, the best first, or `{"error": why}`."""
    values = logits if ask.raw else softmax(np.where(np.isfinite(logits), logits, np.float32(0)))
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(logits).all(axis=1))
    order = np.argsort(-values, axis=1, kind="stable")[:, : ask.top_k]
    out: list[Any] = []
    row = 0
    for index in range(ask.items):
        if index in ask.errors:
            out.append({"error": ask.errors[index], "error_type": "Validation"})
            continue
        if not finite[row]:
            out.append({"error": "The model gave no finite score for this text.", "error_type": "Backend"})
        elif truncated[row] and not ask.truncate:
            message = f"The text has more than {max_length} tokens, and truncate is false."
            out.append({"error": message, "error_type": "Validation"})
        else:
            best = order[row].tolist()
            out.append([{"label": labels[at], "score": float(str(values[row, at]))} for at in best])
        row += 1
    return out if ask.batch else out[0]


def parse_infer(data: Any) -> tuple[str | None, list[str]]:
    """Read an Open Inference Protocol V2 request: one input, `text`, BYTES of shape [n] or [n, 1].

    Returns:
        The request's id, or None, and its texts.

    Raises:
        RequestError: anything else.
    """
    inputs = data.get("inputs") if isinstance(data, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError('Expected an object with "inputs": [one tensor named text, of datatype BYTES].')
    tensor = inputs[0]
    if tensor.get("name") != "text" or tensor.get("datatype") != "BYTES":
        name, datatype = tensor.get("name"), tensor.get("datatype")
        raise RequestError(
            f"The input has the name {_word(name)} and the datatype {_word(datatype)}, expected text and BYTES."
        )
    values = tensor.get("data")
    shape = tensor.get("shape")
    if isinstance(values, list):
        values = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in values]
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise RequestError("data holds something that is not text, expected a list of texts.")
    if shape not in ([len(values)], [len(values), 1]):
        numbers = isinstance(shape, list) and all(isinstance(size, int) for size in shape)
        given = str(shape)[:_SHOWN] if numbers else _shown(shape)
        raise RequestError(f"shape is {given}, but data holds {len(values)} texts.")
    identity = data.get("id")
    if identity is not None and not isinstance(identity, str):
        raise RequestError(f"id is {_shown(identity)}, expected text.")
    if identity is not None and not is_unicode(identity):
        raise RequestError("id holds a lone surrogate, which is no text that could be sent back.")
    return identity, values


def wanted_outputs(data: Any) -> tuple[str, ...]:
    """Return the names of the outputs that a request asks for, in its order; all where it names none.

    Raises:
        RequestError: there is no such output, or one is asked for twice.
    """
    outputs = data.get("outputs")
    if outputs is None or outputs == []:
        return OUTPUTS
    if not isinstance(outputs, list):
        raise RequestError(f"outputs is {_shown(outputs)}, expected a list of objects with a name.")
    names: list[str] = []
    for entry in outputs:
        name = entry.get("name") if isinstance(entry, dict) else None
        if name not in OUTPUTS:
            raise RequestError(f"outputs has the name {_word(name)}, expected some of: {', '.join(OUTPUTS)}.")
        if name in names:  # answers must not be larger than requests without bound
            raise RequestError(f"outputs has the name {name} twice, expected it once.")
        names.append(name)
    return tuple(names)


def infer_answer(
    name: str,
    identity: str | None,
    labels: Sequence[str],
    logits: NDArray[np.float32],
    outputs: Sequence[str] = OUTPUTS,
) -> dict[str, Any]:
    """Return the answer to `parse_infer`: outputs label (BYTES [n]), scores (FP32 [n, labels], columns as `labels`).

    Args:
        outputs: those that are wanted, as `wanted_outputs` returns them.

    Raises:
        InputError: a text without finite scores, which FP32 in JSON cannot say.
    """
    if not np.isfinite(logits).all():
        row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
        raise RequestError(f"The model gave no finite score for data[{row}].")
    scores = softmax(logits)
    best = logits.argmax(axis=1).tolist()
    tensors: dict[str, dict[str, Any]] = {
        "label": {"datatype": "BYTES", "shape": [len(best)], "data": [labels[index] for index in best]},
        "scores": {
            "datatype": "FP32",
            "shape": list(scores.shape),
            "data": [float(str(value)) for value in scores.ravel()],
            "parameters": {"labels": list(labels)},
        },
    }
    answer: dict[str, Any] = {
        "model_name": name,
        "outputs": [{"name": output, **tensors[output]} for output in outputs],
    }
    return answer if identity is None else {"id": identity, **answer}


def _flag(options: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = options.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise RequestError(f"{name} is {_shown(value)}, expected true or false.")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _word(value: Any) -> str:
    """Show a name that could be a protocol's own; anything longer may be somebody's text."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else _shown(value)


def _shown(value: Any) -> str:
    """Name the type of a value, and the value itself where it cannot be anybody's text."""
    if value is None or isinstance(value, bool | int | float):
        return str(json.dumps(value))[:_SHOWN]
    return "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"
