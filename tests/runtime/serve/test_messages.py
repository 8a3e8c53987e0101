"""What the service understands and answers, without sockets."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewren.serve.messages import (
    RequestError,
    count_items,
    infer_answer,
    parse_infer,
    parse_json,
    parse_predict,
    predict_answer,
    wanted_outputs,
)

LABELS = ("neutral", "partisan")


def answer(ask, logits, truncated=None):
    logits = np.array(logits, dtype=np.float32).reshape(-1, 2)
    return predict_answer(ask, LABELS, logits, np.zeros(len(logits), bool) if truncated is None else truncated, 128)


def test_a_single_text_gets_a_flat_list_the_best_label_first():
    got = answer(parse_predict({"inputs": "a"}), [[-1, 1]])
    assert [entry["label"] for entry in got] == ["partisan", "neutral"]
    assert got[0]["score"] == pytest.approx(0.880797)


@pytest.mark.parametrize("inputs", [["a", "b"], [["a"], ["b"]], ["a", ["b"]]])
def test_several_texts_get_a_list_each(inputs):
    ask = parse_predict({"inputs": inputs})
    assert ask.texts == ("a", "b")
    assert [entry[0]["label"] for entry in answer(ask, [[1, 0], [0, 1]])] == ["neutral", "partisan"]


def test_no_texts_get_no_answers():
    assert answer(parse_predict({"inputs": []}), []) == []


def test_a_bad_item_gets_an_error_and_the_others_are_answered():
    ask = parse_predict({"inputs": ["a", 5, None, ["x", "y"], "b"]})
    got = answer(ask, [[1, 0], [0, 1]])
    assert got[0][0]["label"] == "neutral"
    assert got[4][0]["label"] == "partisan"
    assert "inputs[1] is 5" in got[1]["error"]
    assert "inputs[2] is null" in got[2]["error"]
    assert "a pair" in got[3]["error"]


def test_a_text_without_finite_scores_gets_an_error_and_the_others_are_answered():
    got = answer(parse_predict({"inputs": ["a", "b"]}), [[np.nan, 0], [0, 1]])
    assert "no finite score" in got[0]["error"]
    assert got[1][0]["label"] == "partisan"


@pytest.mark.parametrize("options", [{"top_k": 1}, {"parameters": {"top_k": 1}}])
def test_top_k_limits_the_labels(options):
    assert len(answer(parse_predict({"inputs": "a", **options}), [[0, 1]])) == 1


@pytest.mark.parametrize("options", [{"raw_scores": True}, {"parameters": {"function_to_apply": "none"}}])
def test_logits_on_request(options):
    assert answer(parse_predict({"inputs": "a", **options}), [[-2.5, 2.5]])[0]["score"] == 2.5


def test_what_was_cut_is_an_error_only_if_asked():
    cut = np.array([True])
    assert answer(parse_predict({"inputs": ["a"]}), [[0, 1]], cut)[0][0]["label"] == "partisan"
    refused = answer(parse_predict({"inputs": ["a"], "truncate": False}), [[0, 1]], cut)
    assert "more than 128 tokens" in refused[0]["error"]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ([], "a list, expected an object"),
        ({}, "expected an object like"),
        ({"inputs": 3}, "inputs is 3, expected a text"),
        ({"inputs": "a", "parameters": []}, "parameters is a list"),
        ({"inputs": "a", "top_k": 0}, "top_k is 0"),
        ({"inputs": "a", "top_k": True}, "top_k is true"),
        ({"inputs": "a", "raw_scores": "yes"}, "raw_scores is text"),
        ({"inputs": "a", "parameters": {"function_to_apply": "sigmoid"}}, "function_to_apply"),
    ],
)
def test_what_is_not_understood_is_named(data, match):
    with pytest.raises(RequestError, match=match):
        parse_predict(data)


class Unlooked(list):
    """A list that is not to be gone through."""

    def __iter__(self):
        raise AssertionError("looked at")


@pytest.mark.parametrize(
    ("data", "items"), [({"inputs": Unlooked([1] * 9)}, 9), ({"inputs": []}, 0), ({"inputs": "a"}, 1), ([], 1), (5, 1)]
)
def test_items_are_counted_without_looking_at_them(data, items):
    assert count_items(data) == items


def test_an_error_never_repeats_a_text():
    with pytest.raises(RequestError) as caught:
        parse_predict({"inputs": "a", "raw_scores": "my private text"})
    assert "private" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"", "not JSON"),
        (b'{"inputs": NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "not JSON"),
    ],
)
def test_bodies_that_are_not_json_are_refused(body, match):
    with pytest.raises(RequestError, match=match):
        parse_json(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(st.sampled_from(["inputs", "parameters", "top_k", "id", "shape", "data"]), x, max_size=4)
        ),
    )
)
def test_any_json_is_understood_or_refused(data):
    for parse in (parse_predict, parse_infer):
        with contextlib.suppress(RequestError):  # any other exception fails the test
            assert parse(parse_json(json.dumps(data).encode()))


def infer(**changes):
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "b"], **changes}]}


@pytest.mark.parametrize("changes", [{}, {"shape": [2, 1]}, {"shape": [2, 1], "data": [["a"], ["b"]]}])
def test_infer_reads_a_tensor_of_texts(changes):
    assert parse_infer({"id": "7", **infer(**changes)}) == ("7", ["a", "b"])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": "x"}, "has the name x and .* expected text"),
        ({"name": "somebody's text " * 3}, "has the name text and"),
        ({"datatype": "FP32"}, "the datatype FP32"),
        ({"shape": [3]}, r"shape is \[3\], but data holds 2 texts"),
        ({"shape": ["x"]}, "shape is a list, but data holds 2 texts"),
        ({"shape": None}, "2 texts"),
        ({"data": ["a", 1]}, "not text"),
        ({"data": "ab"}, "not text"),
    ],
)
def test_infer_refuses_what_is_no_tensor_of_texts(changes, match):
    with pytest.raises(RequestError, match=match):
        parse_infer(infer(**changes))


def test_infer_answers_the_outputs_that_are_asked_for():
    logits = np.array([[0, 1]], dtype=np.float32)
    for asked, names in (
        ({}, ["label", "scores"]),
        ({"outputs": []}, ["label", "scores"]),
        ({"outputs": [{"name": "scores"}]}, ["scores"]),
        ({"outputs": [{"name": "scores", "parameters": {}}, {"name": "label"}]}, ["scores", "label"]),
    ):
        got = infer_answer("m", None, LABELS, logits, wanted_outputs(asked))
        assert [output["name"] for output in got["outputs"]] == names
    for wrong in ("scores", [{"name": "nope"}], ["scores"], [{}], {"name": "scores"}, [{"name": "scores"}] * 2):
        with pytest.raises(RequestError, match="outputs"):
            wanted_outputs({"outputs": wrong})


def test_infer_refuses_an_id_that_cannot_be_sent_back():
    with pytest.raises(RequestError, match="lone surrogate"):
        parse_infer({"id": "\ud800", **infer()})


def test_infer_answers_labels_and_scores_with_shapes():
    got = infer_answer("m", "7", LABELS, np.array([[0, 1], [1, 0], [0, 2]], dtype=np.float32))
    label, scores = got["outputs"]
    assert got["id"] == "7"
    assert label["data"] == ["partisan", "neutral", "partisan"]
    assert scores["shape"] == [3, 2]
    assert np.reshape(scores["data"], (3, 2)).sum(axis=1) == pytest.approx([1, 1, 1])
