"""The service over real HTTP: shapes, statuses, limits, and what it tells about itself."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import logging
import signal
import socket
import threading
import time
import urllib.parse

import httpx
import numpy as np
import pytest

from edgewren import Classifier
from edgewren.serve import models
from serving import Server

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

TEXTS = ["good vote", "bad tax", "", "the senate bill \U0001f600", "we support you " * 20]


def post(server, path, body, **options):
    return httpx.post(server.url + path, json=body, timeout=30, **options)


def test_scores_are_those_of_the_python_call_to_the_last_digit(server, tiny_bundle):
    expected = Classifier.load(tiny_bundle, device="cpu").predict_proba(TEXTS)
    got = post(server, "/predict", {"inputs": TEXTS}).json()
    labels = ("neutral", "partisan")
    scores = [[next(e["score"] for e in entry if e["label"] == label) for label in labels] for entry in got]
    assert np.array_equal(np.array(scores, dtype=np.float32), expected)


def test_huggingface_client_works_unchanged(server, monkeypatch):
    from huggingface_hub import InferenceClient

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    got = InferenceClient(model=server.url).text_classification("good vote", top_k=2)
    assert {entry.label for entry in got} == {"neutral", "partisan"}
    assert sum(entry.score for entry in got) == pytest.approx(1, abs=1e-6)


def test_tei_shapes(server):
    single = post(server, "/predict", {"inputs": "good vote", "truncate": True, "raw_scores": False}).json()
    batch = post(server, "/predict", {"inputs": [["good vote"], ["bad tax"]]}).json()
    assert [set(entry) for entry in single] == [{"label", "score"}] * 2
    assert single == batch[0]


def test_kserve_infer_and_health(server):
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["good vote", "bad tax"]}
    answer = post(server, "/v2/models/tiny/infer", {"id": "x", "inputs": [tensor]})
    assert answer.status_code == 200
    assert [output["shape"] for output in answer.json()["outputs"]] == [[2], [2, 2]]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/tiny/ready", "/health"):
        assert httpx.get(server.url + path).status_code == 200
    assert httpx.get(server.url + "/v2/models/tiny").json()["inputs"][0]["datatype"] == "BYTES"
    assert post(server, "/v2/models/other/infer", {"inputs": [tensor]}).status_code == 404


def test_an_address_of_ipv6_is_told_as_a_url_has_it(tiny_bundle):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = Server([tiny_bundle, "--host", "::1"])
    try:
        assert server.wait_until_ready().url.startswith("http://[::1]:")
    finally:
        assert server.stop() == 0, server.log


def test_a_body_that_never_arrives_is_answered_in_time(server):
    address = urllib.parse.urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nX-Timeout-Seconds: 0.2\r\nContent-Length: 50\r\n\r\n{"
        connection.sendall(head.encode())
        answer = b""
        while chunk := connection.recv(4096):  # until the server closes
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"The body was not here after 0.2 s" in answer


def test_the_body_takes_its_time_from_the_whole_requests(start_server, tiny_bundle):
    server = start_server(tiny_bundle, "--threads", "1", scripted=True)
    with server.begin("sleep 4"), server.begin("x" * 20, body=False, headers="X-Timeout-Seconds: 2\r\n") as late:
        start = time.monotonic()
        time.sleep(1.5)
        late.sendall(b'{"inputs": "' + b"x" * 20 + b'"}')
        answer = late.recv(4096)
        assert 1.9 < time.monotonic() - start < 3
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"not ready after 2 s" in answer


def test_lone_surrogates_and_control_characters_are_scored(server):
    body = b'{"inputs": ["\\ud800 x", "\\u0000\\u0007", "\\ud83d\\ude00"]}'
    answer = httpx.post(server.url + "/predict", content=body)
    assert answer.status_code == 200
    assert len(answer.json()) == 3


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 422),
        (b'{"inputs": "a"}', {"x-timeout-seconds": "never"}, 422),
        (b'{"inputs": "a"}', {"content-encoding": "br"}, 415),
        (b'{"inputs": "a"}', {"content-encoding": "gzip"}, 415),
        (b'{"inputs": "' + b"a" * 2_000_000 + b'"}', {}, 413),
        (gzip.compress(b'{"inputs": "' + b"a" * 2_000_000 + b'"}'), {"content-encoding": "gzip"}, 413),
        (json.dumps({"inputs": ["a"] * 1025}).encode(), {}, 413),
        (gzip.compress(b'{"inputs": "a"}'), {"content-encoding": "gzip"}, 200),
        (gzip.compress(b'{"inputs": "a"}'), {"content-encoding": "X-GZip"}, 200),
    ],
    ids=["not json", "timeout", "brotli", "not gzip", "too large", "bomb", "too many", "gzip", "x-gzip"],
)
def test_bodies_are_bounded_and_refused_with_the_right_status(server, body, headers, status):
    answer = httpx.post(server.url + "/predict", content=body, headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert set(answer.json()) == {"error", "error_type"}


def test_a_chunked_body_that_never_says_its_length_is_bounded_too(server):
    def endless():
        yield b'{"inputs": "'
        for _ in range(40):
            yield b"a" * 100_000

    # The server may answer and close before we have sent everything.
    with httpx.Client() as client, contextlib.suppress(httpx.WriteError, httpx.ReadError):
        assert client.post(server.url + "/predict", content=endless()).status_code == 413
    assert httpx.get(server.url + "/health").status_code == 200


def test_unknown_paths_and_methods_are_refused(server):
    assert httpx.get(server.url + "/nothing").status_code == 404
    assert httpx.get(server.url + "/predict").status_code == 405
    assert post(server, "/predict/", {"inputs": "a"}).status_code == 404, "a redirect would name another address"


def test_metrics_count_and_hold_no_text(server):
    post(server, "/predict", {"inputs": ["a most private text", "another"]})
    text = httpx.get(server.url + "/metrics").text
    assert 'edgewren_texts_total{model="tiny"}' in text
    assert 'edgewren_requests_total{code="200",route="/predict"}' in text
    assert "private" not in text


def test_description_and_pages_name_no_other_server(server):
    document = httpx.get(server.url + "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path in ("/", "/docs", "/page.js", "/page.css"):
        answer = httpx.get(server.url + path)
        assert answer.status_code == 200
        assert "https://" not in answer.text
        assert "'none'" in answer.headers["content-security-policy"]


def test_the_first_of_several_models_is_the_default(start_server, tiny_bundle, three_class_bundle):
    server = start_server(f"three={three_class_bundle}", f"two={tiny_bundle}")
    assert len(post(server, "/predict", {"inputs": "good"}).json()) == 3
    assert len(post(server, "/predict?model=two", {"inputs": "good"}).json()) == 2
    assert post(server, "/predict?model=no", {"inputs": "good"}).status_code == 404


def test_a_model_is_called_as_its_folder_however_that_is_named(tiny_bundle, monkeypatch):
    monkeypatch.chdir(tiny_bundle)
    for spec in (".", "../tiny/", str(tiny_bundle), "tiny=."):
        assert models._named(spec)[0] == "tiny"


def test_a_model_that_does_not_give_its_golden_answers_is_alive_but_not_ready(tmp_path, make_bundle):
    folder = make_bundle(tmp_path / "wrong")
    golden = folder / "golden.jsonl"
    lines = [json.loads(line) for line in golden.read_text().splitlines()]
    lines[0]["logits"][0] += 9
    golden.write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = json.loads((folder / "manifest.json").read_text())
    data = golden.read_bytes()
    manifest["files"]["golden.jsonl"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    server = Server([folder])
    try:
        deadline = time.monotonic() + 20
        while "does not compute the golden logits" not in httpx.get(server.url + "/health").json()["problem"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert httpx.get(server.url + "/v2/health/live").status_code == 200
        assert httpx.get(server.url + "/v2/health/ready").status_code == 503
        assert post(server, "/predict", {"inputs": "a"}).status_code == 503
    finally:
        server.stop()


def test_a_bug_while_golden_texts_are_checked_is_said(tiny_bundle, monkeypatch):
    def fails(_):
        raise OverflowError("a most private text")

    served = models.load_models([str(tiny_bundle)], device="cpu", threads=1)
    monkeypatch.setattr(models, "replay", fails)
    models.check(served)
    assert "could not be replayed (OverflowError)" in models.Readiness(served).problem()
    served["tiny"].queue.close()


def test_texts_never_get_into_the_log(start_server, tiny_bundle):
    server = start_server("-v", tiny_bundle)
    post(server, "/predict", {"inputs": ["a most private text", 5], "raw_scores": "private"})
    httpx.post(server.url + "/predict?private=1", content=b'{"inputs": "private')
    assert server.stop() == 0
    assert "private" not in server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_lets_accepted_requests_finish(start_server, tiny_bundle, number):
    server = start_server(tiny_bundle)
    statuses = []

    def ask():
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while True:
                try:
                    answer = client.post("/predict", json={"inputs": ["good vote"] * 500})
                except httpx.TransportError as error:
                    statuses.append(type(error).__name__)
                    return
                statuses.append(answer.status_code)
                if answer.status_code == 503:
                    return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    server.process.send_signal(number)
    for thread in threads:
        thread.join(20)
    assert server.process.wait(20) == 0
    assert statuses.count(200) > 4
    assert set(statuses) <= {200, 429, 503}  # refused in words, never a broken connection


def test_an_address_in_use_is_said(server, tiny_bundle, capsys):
    from edgewren.cli.main import main

    port = server.url.rpartition(":")[2]
    assert main(["serve", str(tiny_bundle), "--port", port]) == 2
    assert "Choose another --port" in capsys.readouterr().err


def test_work_of_a_client_that_goes_away_is_dropped_if_it_has_not_begun(start_server, tiny_bundle):
    server = start_server(tiny_bundle, "--threads", "1", scripted=True)
    with server.begin("sleep 1"):
        time.sleep(0.3)
        with server.begin("of somebody who goes"), server.begin("of another who goes"):
            time.sleep(0.1)
        with server.begin("of somebody who stays") as staying:
            assert staying.recv(4096).startswith(b"HTTP/1.1 200 ")
    metrics = httpx.get(server.url + "/metrics").text
    assert 'edgewren_requests_total{code="499",route="/predict"} 2.0' in metrics
    assert server.stop() == 0
    assert "'of somebody who stays'" in server.out
    assert "who goes" not in server.out
    assert "Traceback" not in server.log


def test_a_bug_is_answered_in_json_and_counted_and_its_message_is_not_logged(start_server, tiny_bundle):
    server = start_server(f"tiny={tiny_bundle}", scripted=True)
    answer = post(server, "/predict", {"inputs": "fail for a most private text"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "The server failed. Please report this.", "error_type": "Backend"}
    assert post(server, "/predict?model=other", {"inputs": "good"}).status_code == 404
    assert post(server, "/predict", {"inputs": "good"}).status_code == 200
    metrics = httpx.get(server.url + "/metrics").text
    for status in (200, 404, 500):
        assert f'edgewren_requests_total{{code="{status}",route="/predict"}} 1.0' in metrics
    assert server.stop() == 0
    assert "RuntimeError" in server.log
    assert "private" not in server.log
    assert "Traceback" not in server.log


def test_no_traceback_that_uvicorn_logs_shows_a_text(caplog):
    from edgewren.serve.server import _without_texts

    logger = logging.getLogger("uvicorn.error")
    logger.addFilter(_without_texts)
    try:
        raise RuntimeError("a most private text")
    except RuntimeError:
        logger.exception("Exception in ASGI application")
    finally:
        logger.removeFilter(_without_texts)
    assert "ASGI" in caplog.text
    assert "private" not in caplog.text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_at_once(start_server, tiny_bundle, number, code):
    server = start_server(tiny_bundle, "--threads", "1", "--drain-seconds", "0", scripted=True)
    with server.begin("sleep 20") as waiting:
        time.sleep(0.3)
        server.process.send_signal(number)
        time.sleep(0.5)
        assert server.process.poll() is None, "what was accepted is waited for"
        server.process.send_signal(number)
        start = time.monotonic()
        assert server.process.wait(10) == code
        assert time.monotonic() - start < 3
        assert waiting.recv(4096).startswith(b"HTTP/1.1 503 ")
    server.stop()
    assert "Traceback" not in server.log
