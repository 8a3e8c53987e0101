"""Mutated bundles never crash, hang or raise foreign errors. `make fuzz-bundles` runs as many as one likes."""

from __future__ import annotations

import os
import sys

import pytest
from bundle_fuzz import fuzz

CASES = int(os.environ.get("EDGEWREN_FUZZ_CASES", "2000"))
SEED = int(os.environ.get("EDGEWREN_FUZZ_SEED", "0"))


@pytest.mark.slow
def test_mutated_bundles_are_refused_or_score_and_never_crash(tiny_bundle, open_gate_bundle, export_bundle, capsys):
    bundles = [
        tiny_bundle,
        open_gate_bundle("int8", "ridge", "bert"),
        open_gate_bundle("fp16", "lora", "roberta"),
        export_bundle("ridge", "mpnet"),
    ]
    result = fuzz(bundles, cases=CASES, seed=SEED)
    with capsys.disabled():
        sys.stdout.write(f"\n{result.cases} cases, largest worker {result.peak_mb:.0f} MB: {dict(result.outcomes)}\n")
    assert not result.failures
    assert result.cases == CASES
    refusals = ("BundleModelError", "BundleTokenizerError", "BundleManifestError", "BundleSettingsError")
    assert all(result.outcomes[name] for name in ("scored", *refusals)), "a mutation that never gets in proves nothing"
    # What still scores may make large tensors of its own constants (docs/security.md: not promised); 2,316 MB in 50,000.
    assert result.peak_mb < 4000
