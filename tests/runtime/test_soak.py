"""A long life in small: `benchmarks/soak.py` and `benchmarks/bit_identity.py`, with a small model and fewer texts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


def run(script: str, *arguments: object) -> dict:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_memory_stays_flat_over_many_texts_and_many_lives(tiny_bundle):
    facts = run("soak.py", tiny_bundle, "--texts", 40_000, "--cycles", 25)
    assert facts["texts"] == 40_000
    assert facts["texts_growth"] < 0.05
    assert facts["cycles_growth_mib"] < 20


def test_the_proof_of_bit_identity_compares_every_way(tiny_bundle, tmp_path):
    (tmp_path / "texts.csv").write_text("text\n" + "\n".join(f"good vote {n}" for n in range(50)), encoding="utf-8")
    facts = run("bit_identity.py", tiny_bundle, tmp_path / "texts.csv", "--texts", 200, "--variant", "fp32")
    assert (facts["texts"], facts["from_the_file"]) == (200, 50)
    assert len(facts["texts_that_differ"]["fp32"]) == 8
    assert set(facts["texts_that_differ"]["fp32"].values()) == {0}
