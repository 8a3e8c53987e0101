"""The promises of the public class."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import pickle
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewren import BundleError, Classifier, DeviceError, UsageError, batching
from edgewren import classifier as classifier_module
from edgewren.session import SHORT_TOKENS, _providers

HOSTILE = [
    "",
    " ",
    "\x00",
    "\ud800",
    "\udfff\ud800",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 50,
    "\u202e\u05e9\u05dc\u05d5\u05dd",
    "e" + "\u0301" * 5000,
    "x" * 1_000_000,
    "a " * 500_000,
    "[CLS] [SEP] [PAD] [UNK]",
    "=cmd|'/c calc'!A1",
    "\ufeff\ufffe\uffff",
    "http://" + "a" * 5000,
    "\r\n\t\u2028\x85",
]


@pytest.fixture(scope="module")
def classifier(tiny_bundle) -> Classifier:
    return Classifier.load(tiny_bundle, device="cpu", threads=1)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(3)
    words = [
        "good",
        "bad",
        "tax",
        "vote",
        "the",
        "senate",
        "http",
        "great",
        "awful",
        "cat",
        "dog",
        "you",
        "we",
        "support",
        "against",
        "bill",
    ]
    return [" ".join(rng.choices(words, k=rng.randint(0, 40))) for _ in range(400)]


def test_results_are_in_input_order_and_of_one_shape(classifier, texts):
    labels = classifier.predict(texts)
    probabilities = classifier.predict_proba(texts)
    assert probabilities.shape == (400, 2)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)  # float32 of two summands
    assert labels == [classifier.labels[index] for index in probabilities.argmax(axis=1)]
    assert labels == [classifier.predict([text])[0] for text in texts]
    assert set(labels) == {"neutral", "partisan"}


def test_nothing_in_nothing_out(classifier):
    assert classifier.predict([]) == []
    assert classifier.predict_proba([]).shape == (0, 2)
    assert classifier.predict_proba([]).dtype == np.float32
    assert classifier.decision_function([]).shape == (0,)
    assert list(classifier.stream([])) == []


def test_any_sequence_of_str_is_taken(classifier):
    expected = classifier.predict(["good", "bad"])
    for given_texts in (("good", "bad"), np.array(["good", "bad"]), np.array(["good", "bad"], dtype=object)):
        assert classifier.predict(given_texts) == expected


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "score"])
def test_a_bare_str_is_a_type_error_with_the_remedy(classifier, method):
    with pytest.raises(TypeError, match=r"\[text\]"):
        getattr(classifier, method)("good")


@pytest.mark.parametrize("method", ["predict", "stream"])
def test_a_table_is_refused_whose_names_would_be_taken_for_texts(classifier, method):
    class Frame(list):
        columns = ("text",)

    for table in ({"text": ["good"]}, Frame(["text"])):
        with pytest.raises(TypeError, match=r"pass one column of it, for example table\['text'\]"):
            list(getattr(classifier, method)(table))


def test_a_bare_str_is_refused_by_stream_too(classifier):
    with pytest.raises(TypeError, match=r"\[text\]"):
        next(classifier.stream("good"))


@pytest.mark.parametrize("item", [None, 3, float("nan"), b"good", ["good"]])
def test_an_item_that_is_no_str_is_named(classifier, item):
    with pytest.raises(TypeError, match=rf"texts\[1\] is {type(item).__name__}"):
        classifier.predict(["good", item])


def test_duplicates_are_computed_once(classifier, monkeypatch):
    computed = []
    run = classifier._session.run
    monkeypatch.setattr(classifier._session, "run", lambda ids: computed.append(len(ids)) or run(ids))
    scores = classifier.score(["good", "bad", "GOOD", "good"])
    assert sum(computed) == scores.distinct == 2
    assert scores.tokens == 6
    np.testing.assert_array_equal(scores.logits[[2, 3]], scores.logits[[0, 0]])


def test_logits_are_bit_identical_alone_in_batches_in_any_order_and_on_any_threads(tiny_bundle, classifier, texts):
    expected = classifier.score(texts).logits
    alone = np.concatenate([classifier.score([text]).logits for text in texts])
    np.testing.assert_array_equal(alone, expected)
    order = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_array_equal(classifier.score([texts[index] for index in order]).logits, expected[order])
    for threads in (2, 5):
        other = Classifier.load(tiny_bundle, device="cpu", threads=threads)
        np.testing.assert_array_equal(other.score(texts).logits, expected)


def test_windows_inside_a_call_change_nothing(classifier, texts, monkeypatch):
    expected = classifier.score(texts)
    monkeypatch.setattr(classifier_module, "WINDOW_ROWS", 7)
    found = classifier.score(texts)
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.truncated, expected.truncated)


def test_many_threads_may_share_one_classifier(tiny_bundle, texts):
    shared = Classifier.load(tiny_bundle, device="cpu", threads=2)
    expected = shared.score(texts).logits
    with ThreadPoolExecutor(8) as pool:
        for logits in pool.map(lambda _: shared.score(texts).logits, range(32)):
            np.testing.assert_array_equal(logits, expected)


def test_stream_equals_predict(classifier, texts):
    for window in (1, 7, 400, 10_000):
        found = list(classifier.stream(iter(texts), window=window))
        assert [prediction.label for prediction in found] == classifier.predict(texts)
        np.testing.assert_array_equal(
            np.array([prediction.scores for prediction in found], np.float32), classifier.predict_proba(texts)
        )
    assert all(prediction.score == max(prediction.scores) for prediction in found)


def test_a_small_window_is_answered_before_more_is_read(classifier):
    taken = itertools.count()
    endless = (f"good {next(taken)}" for _ in itertools.count())
    stream = classifier.stream(endless, window=4)
    assert len(list(itertools.islice(stream, 5))) == 5
    assert next(taken) == 8


def test_decision_values_have_scikit_learns_shapes_and_signs(classifier, three_class_bundle, texts):
    decisions = classifier.decision_function(texts)
    assert decisions.shape == (400,)
    assert decisions.dtype == np.float32
    assert [classifier.labels[int(value > 0)] for value in decisions] == classifier.predict(texts)
    three = Classifier.load(three_class_bundle, device="cpu", threads=1)
    assert three.decision_function(texts).shape == (400, 3)
    assert three.predict_proba(texts).shape == (400, 3)


def test_temperature_is_taken_out_of_decision_values(make_bundle, tmp_path, classifier):
    warm = Classifier.load(make_bundle(tmp_path / "warm", temperature=4.0), device="cpu", threads=1)
    np.testing.assert_allclose(
        warm.decision_function(["good"]) * 4, classifier.decision_function(["good"]), rtol=1e-6
    )  # same model; one rounding of a division


def test_pickle_loads_the_same_bundle_again(classifier, texts):
    again = pickle.loads(pickle.dumps(classifier))
    assert repr(again) == repr(classifier)
    np.testing.assert_array_equal(again.score(texts).logits, classifier.score(texts).logits)


def test_pickle_refuses_a_changed_bundle(tiny_bundle, make_bundle, tmp_path):
    path = shutil.copytree(tiny_bundle, tmp_path / "b")
    pickled = pickle.dumps(Classifier.load(path, device="cpu", threads=1))
    shutil.rmtree(path)
    make_bundle(path, seed=8)
    with pytest.raises(BundleError, match="not the bundle that was pickled"):
        pickle.loads(pickled)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_bundle_given_by_a_relative_path_is_found_after_a_change_of_directory(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_bundle.parent)
    classifier = Classifier.load(tiny_bundle.name, device="cpu", threads=2)
    assert str(classifier.bundle.path) == tiny_bundle.name  # reports name it so, on any machine
    expected = classifier.predict(["good"])
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(classifier)).predict(["good"]) == expected
    for _ in range(12):  # a second session is made
        classifier.predict(["good"])
    assert classifier._alone._making.result(10) is not None
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os._exit(0 if classifier.predict(["good"]) == expected else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_scored(classifier, text):
    scores = classifier.score([text, "good"])
    assert np.isfinite(scores.logits).all()
    np.testing.assert_array_equal(scores.logits[1], classifier.score(["good"]).logits[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=40), max_size=6))
def test_any_texts_are_scored_as_alone(classifier, some):
    logits = classifier.score(some).logits
    assert logits.shape == (len(some), 2)
    for text, row in zip(some, logits, strict=True):
        np.testing.assert_array_equal(classifier.score([text]).logits[0], row)


def test_a_non_finite_row_spoils_no_other(classifier):
    logits = classifier.score(["good nonfinite", "good vote"]).logits
    assert np.isnan(logits[0]).all()
    np.testing.assert_array_equal(logits[1], classifier.score(["good vote"]).logits[0])


def test_windows_and_threads_may_be_larger_than_there_can_be(tiny_bundle, classifier):
    expected = classifier.predict(["good", "bad bad"])
    assert [one.label for one in classifier.stream(["good", "bad bad"], window=10**20)] == expected
    with Classifier.load(tiny_bundle, device="cpu", threads=10**8) as many:
        assert [many.predict([text]) for text in ("good", "bad bad")] == [[label] for label in expected]
        assert many.predict(["good", "bad bad"]) == expected


@pytest.mark.parametrize("texts", [None, 5, np.array("good")], ids=["None", "int", "array of no dimension"])
def test_what_is_no_list_is_named(classifier, texts):
    expected = rf"texts is {type(texts).__name__} \(.*\), expected a list of texts"
    for ask in (classifier.predict, classifier.score, classifier.stream):
        with pytest.raises(TypeError, match=expected):
            ask(texts)
    with pytest.raises(TypeError, match=r"windows\[1\] is int \(5\), expected a list of texts"):
        list(classifier.score_windows([["good"], 5]))


def test_options_out_of_range_are_refused(tiny_bundle, classifier):
    with pytest.raises(UsageError, match="threads is 0"):
        Classifier.load(tiny_bundle, threads=0)
    with pytest.raises(TypeError, match=r"threads is '2' \(str\), expected a whole number"):
        Classifier.load(tiny_bundle, threads="2")
    with pytest.raises(UsageError, match="window is 0"):
        next(classifier.stream(["good"], window=0))
    with pytest.raises(TypeError, match=r"window is 1\.5 \(float\), expected a whole number"):
        classifier.stream(["good"], window=1.5)
    with pytest.raises(TypeError, match=r"threads is 1\.0 \(float\), expected a whole number"):
        classifier.with_threads(1.0)
    with pytest.raises(UsageError, match="The required SHA-256 is 5, expected"):
        Classifier.load(tiny_bundle, expected_sha256=5)
    with pytest.raises(BundleError, match="no variant 'int9'. It has: fp32"):
        Classifier.load(tiny_bundle, variant="int9")
    with pytest.raises(DeviceError, match="Unknown device 'tpu'"):
        Classifier.load(tiny_bundle, device="tpu")


def test_cuda_without_cuda_is_an_error(tiny_bundle):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has a CUDA provider")
    with pytest.raises(DeviceError, match="CUDA was requested"):
        Classifier.load(tiny_bundle, device="cuda")


def test_on_cuda_long_rows_get_a_session_with_kernels_for_them(tiny_bundle, monkeypatch):
    made = []
    session = Classifier.load(tiny_bundle, device="cpu")._session
    built = session._built
    monkeypatch.setattr(session, "_device", "cuda")

    def on_the_cpu(model: bytes, *, short: bool = True):
        made.append(short)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "_device", "cpu")
            return built(model, short=short)

    monkeypatch.setattr(session, "_built", on_the_cpu)
    rows = {length: np.ones((2, length), dtype=np.int64) for length in (3, SHORT_TOKENS, SHORT_TOKENS + 1, 200)}
    expected = {length: built_alone(tiny_bundle, ids) for length, ids in rows.items()}
    for length, ids in rows.items():
        np.testing.assert_array_equal(session.run(ids), expected[length])
    assert made == [False]  # once, for both lengths above the bound
    kernels = [int(_providers("cuda", short=short)[0][1]["sdpa_kernel"]) for short in (True, False)]
    assert [kernel & FLASH_ATTENTION_2 for kernel in kernels] == [0, FLASH_ATTENTION_2]
    assert not any(kernel & CUDNN for kernel in kernels)
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run(rows[200])


FLASH_ATTENTION_2, CUDNN = 1, 8
"""Bits of onnxruntime's option sdpa_kernel."""


def built_alone(bundle, ids):
    return Classifier.load(bundle, device="cpu")._session.run(ids)


def test_batches_keep_the_token_budget(classifier, texts, monkeypatch):
    shapes = []
    run = classifier._session.run
    monkeypatch.setattr(classifier._session, "run", lambda ids: shapes.append(ids.shape) or run(ids))
    classifier.score(texts)
    assert all(rows == 1 or rows * length <= batching.CPU_TOKENS_PER_BATCH for rows, length in shapes)


def test_auto_falls_back_to_the_cpu_where_the_bundle_has_nothing_for_cuda(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("edgewren.classifier.choose_device", lambda name: "cuda" if name == "auto" else name)
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    for variant in manifest["variants"].values():
        variant["device"] = "cpu"
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert Classifier.load(copy, device="auto").device == "cpu"


def test_a_row_without_finite_logits_is_nan_where_numbers_are_asked_and_an_error_where_a_label_is(classifier):
    texts = ["good vote", "good nonfinite", "bad tax"]
    probabilities = classifier.predict_proba(texts)
    assert np.isnan(probabilities[1]).all()
    np.testing.assert_array_equal(probabilities[[0, 2]], classifier.predict_proba(["good vote", "bad tax"]))
    for asked in (classifier.predict, classifier, lambda some: list(classifier.stream(some))):
        with pytest.raises(BundleError, match="no finite logits for text 1 "):
            asked(texts)


def test_a_call_answers_as_a_transformers_pipeline_does(classifier, three_class_bundle):
    texts = ["good vote", "bad tax"]
    probabilities = classifier.predict_proba(texts)
    assert classifier(texts) == [
        {"label": label, "score": float(row.max())}
        for label, row in zip(classifier.predict(texts), probabilities, strict=True)
    ]
    three = Classifier.load(three_class_bundle, device="cpu", threads=1)
    ranked = three(texts, top_k=None)
    for entries, row in zip(ranked, three.predict_proba(texts), strict=True):
        assert {entry["label"]: entry["score"] for entry in entries} == dict(zip("abc", row.tolist(), strict=True))
        assert [entry["score"] for entry in entries] == sorted(row.tolist(), reverse=True)
    assert three(texts, top_k=2) == [entries[:2] for entries in ranked]
    assert three(texts, top_k=1) == [[entry] for entry in three(texts)]
    assert three([]) == three([], top_k=None) == []
    with pytest.raises(UsageError, match="top_k is 0"):
        three(texts, top_k=0)
    with pytest.raises(TypeError, match=r"top_k is 1\.5 \(float\), expected a whole number or None"):
        three(texts, top_k=1.5)
    assert three(texts, top_k=np.int64(2)) == three(texts, top_k=2)
    with pytest.raises(TypeError, match=r"\[text\]"):
        three("good vote")


def test_an_unexpected_bundle_is_refused(tiny_bundle, classifier):
    sha256 = classifier.bundle.sha256
    assert Classifier.load(tiny_bundle, device="cpu", expected_sha256=sha256).predict(["good"])
    with pytest.raises(BundleError, match=rf"{sha256}.*expected {'0' * 64}"):
        Classifier.load(tiny_bundle, device="cpu", expected_sha256="0" * 64)


def test_a_closed_classifier_says_so(tiny_bundle, texts):
    with Classifier.load(tiny_bundle, device="cpu", threads=2) as classifier:
        expected = classifier.score(texts).logits
        stream = classifier.stream(texts * 20, window=300)
        next(stream)
    pickled = pickle.dumps(classifier)
    classifier.close()
    for asked in (classifier.predict, classifier.predict_proba, classifier.score, classifier):
        with pytest.raises(UsageError, match="The classifier is closed"):
            asked(["good"])
    for asked in (classifier.stream(texts), classifier.score_windows([texts]), stream):
        with pytest.raises(UsageError, match="The classifier is closed"):
            list(asked)
    with pytest.raises(UsageError, match="The classifier is closed"):
        asyncio.run(classifier.ascore(["good"]))
    np.testing.assert_array_equal(pickle.loads(pickled).score(texts).logits, expected)


def test_an_awaited_call_for_which_no_thread_starts_says_so(tiny_bundle, monkeypatch):
    def cannot(_):
        raise RuntimeError("can't start new thread")

    classifier = Classifier.load(tiny_bundle, device="cpu", threads=1)
    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", cannot)
        with pytest.raises(DeviceError, match="can't start new thread. Raise the limit on threads"):
            asyncio.run(classifier.ascore(["good"]))
    assert len(asyncio.run(classifier.ascore(["good"])).logits) == 1


def test_closing_ends_calls_of_other_threads(tiny_bundle, texts):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=2)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(lambda: [classifier.score(texts) for _ in range(10_000)]) for _ in range(3)]
        classifier.score(texts)
        classifier.close()
        for call in calls:
            with pytest.raises(UsageError, match="The classifier is closed"):
                call.result(timeout=30)


def test_awaited_scores_are_those_of_score_and_the_loop_goes_on(tiny_bundle, texts):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=2)

    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        many = await asyncio.gather(*(classifier.apredict_proba(texts) for _ in range(30)))
        ticking.cancel()
        return many, ticks

    many, ticks = asyncio.run(main())
    for probabilities in many:
        np.testing.assert_array_equal(probabilities, classifier.predict_proba(texts))
    assert ticks > 3

    async def wrong():
        await classifier.ascore("good")

    with pytest.raises(TypeError, match=r"\[text\]"):
        asyncio.run(wrong())


def test_the_work_of_a_cancelled_caller_is_dropped(tiny_bundle, texts, monkeypatch):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=1)
    run = classifier._session.run
    runs = itertools.count()
    monkeypatch.setattr(classifier._session, "run", lambda ids: (next(runs), time.sleep(0.01), run(ids))[2])
    batches = len(batching.plan(classifier._scheduler.tokenizer.encode(texts).rows.lengths, 300))

    async def main():
        begun = asyncio.create_task(classifier.ascore(texts))
        waiting = [asyncio.create_task(classifier.ascore(texts)) for _ in range(5)]
        await asyncio.sleep(0.05)
        for task in waiting:
            task.cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(begun, 0.02)
        assert all(
            isinstance(done, asyncio.CancelledError) for done in await asyncio.gather(*waiting, return_exceptions=True)
        )
        return await classifier.ascore(["good vote"])  # the thread is free again

    np.testing.assert_array_equal(asyncio.run(main()).logits, classifier.score(["good vote"]).logits)
    assert next(runs) < batches  # of six calls with so many batches each


@pytest.mark.slow
def test_32_threads_with_2000_calls_each_agree_with_the_serial_result(tiny_bundle, texts):
    shared = Classifier.load(tiny_bundle, device="cpu", threads=2)
    expected = [shared.score([text]).logits.tobytes() for text in texts]

    def calls(seed):
        draw = random.Random(seed)
        wrong = 0
        for _ in range(2_000):
            index = draw.randrange(len(texts) - 40)
            count = draw.choice((1, 1, 1, 2, 7, 40))
            found = shared.score(texts[index : index + count]).logits
            wrong += found.tobytes() != b"".join(expected[index : index + count])
        return wrong

    with ThreadPoolExecutor(32) as pool:
        assert sum(pool.map(calls, range(32))) == 0


def test_with_threads_shares_the_model_and_gives_the_same_bits(tiny_bundle):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=2)
    alone = classifier.with_threads(1)
    texts = ["good vote", "bad tax", "the senate bill"] * 50
    assert alone.threads == 1
    assert np.array_equal(alone.score(texts).logits, classifier.score(texts).logits)
    with pytest.raises(UsageError, match="threads is 0"):
        classifier.with_threads(0)


def test_closing_tells_awaited_calls_that_wait_the_same_as_those_at_work(tiny_bundle, texts):
    async def main():
        classifier = Classifier.load(tiny_bundle, device="cpu", threads=1)
        calls = [asyncio.create_task(classifier.ascore(texts * 50)) for _ in range(5)]
        await asyncio.sleep(0.01)
        await asyncio.to_thread(classifier.close)
        return await asyncio.gather(*calls, return_exceptions=True)

    ends = asyncio.run(main())
    assert sum(isinstance(end, UsageError) for end in ends) >= 3
    assert not any(isinstance(end, asyncio.CancelledError) for end in ends)
