"""onnxruntime's telemetry is off, and the host process is as it was before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
before = dict(os.environ)
import edgewren
assert "numpy" not in sys.modules and "onnxruntime" not in sys.modules, "import edgewren must import nothing heavy"
seen = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("onnxruntime.capi"):
            seen.append(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
import logging
handlers = list(logging.getLogger().handlers)
classifier = edgewren.Classifier.load(sys.argv[1], device="cpu")
classifier.predict(["good"])
assert seen and set(seen) == {"1"}, seen
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert logging.getLogger().handlers == handlers
import threading
assert threading.active_count() == 1
"""


@pytest.mark.parametrize("setting", [None, "0", "1"])
def test_loading_a_model_switches_telemetry_off_and_leaves_the_environment_alone(tiny_bundle, setting):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    if setting is not None:
        environment["ORT_DISABLE_TELEMETRY"] = setting
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tiny_bundle)], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
