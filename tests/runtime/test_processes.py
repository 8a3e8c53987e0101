"""A good guest: forks, workers, web servers, and exits with work in flight. No hang, no crash, the same bits.

`EDGEWREN_TRIALS=50 pytest tests/runtime/test_processes.py` runs each trial so often, each in a fresh interpreter.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

TRIALS = int(os.environ.get("EDGEWREN_TRIALS", "1"))
PROGRAM = Path(__file__).parent.parent / "fixtures" / "process_trials.py"
LIMIT_S = 120  # a trial takes two or three seconds, spawned workers on a busy machine longer
FORKS = ["fork", "fork_in_a_stream", "multiprocessing_fork", "process_pool"]
OTHERS = ["multiprocessing_spawn", "multiprocessing_forkserver", "data_loader"]
EXITS = ["exit_in_daemon_threads", "exit_in_streams", "exit_in_async_calls"]
# tokenizers says this in a forked child of a process that used its threads, and then does without them.
EXPECTED_NOISE = ("tokenizers: The current process just got forked", "To disable this warning", "\t- ")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")]


@pytest.mark.parametrize("trial", [*FORKS, *OTHERS, *EXITS])
def test_a_classifier_survives(tiny_bundle, trial):
    if trial == "data_loader":
        pytest.importorskip("torch")
    for _ in range(TRIALS):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", str(PROGRAM), trial, str(tiny_bundle)],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, f"{trial}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        noise = [line for line in done.stderr.splitlines() if not any(known in line for known in EXPECTED_NOISE)]
        assert [line for line in noise if line.strip()] == []
        if trial in EXITS:
            assert time.monotonic() - start < 30, "the exit waited for work that nobody wants"


APP = """
from edgewren import Classifier
classifier = Classifier.load({bundle!r}, device="cpu", threads=2)
texts = ["good vote " * (number % 15) for number in range(300)]
expected = classifier.score(texts).logits.tobytes()

def app(environ, start_response):
    same = classifier.score(texts).logits.tobytes() == expected and classifier.predict(texts[:1])
    start_response("200 OK" if same else "500 differs", [("Content-Type", "text/plain")])
    return [b"same" if same else b"different"]
"""


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn_forks_a_preloaded_classifier(tiny_bundle, tmp_path, worker):
    pytest.importorskip("gunicorn")
    (tmp_path / "preloaded.py").write_text(APP.format(bundle=str(tiny_bundle)))
    for _ in range(TRIALS):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = tmp_path / "log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--preload", "--workers=3", f"--worker-class={worker}", "--threads=2",
                 f"--bind=127.0.0.1:{port}", "--timeout=60", "preloaded:app"],
                cwd=tmp_path, stdout=output, stderr=output,
            )  # fmt: skip
            try:
                answers = [ask(port, server) for _ in range(20)]
            finally:
                server.send_signal(signal.SIGTERM)
                code = server.wait(timeout=40)
        told = log.read_text()
        assert answers == [b"same"] * 20, told
        assert code == 0, told
        assert not any(word in told for word in ("WORKER TIMEOUT", "SIGSEGV", "SIGABRT", "Traceback")), told


def ask(port: int, server: subprocess.Popen[bytes]) -> bytes:
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                return answer.read()
        except ConnectionError:
            pass
        except urllib.error.URLError as error:  # not listening yet
            if not isinstance(error.reason, ConnectionError):
                raise
        assert server.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
