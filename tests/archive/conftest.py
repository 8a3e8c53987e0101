"""Proofs run by `make prove-archives`; the fast selection of each runs with all other tests."""

from __future__ import annotations

import pytest

from edgewren import Classifier


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "proof" in config.getoption("markexpr"):
        return
    proofs = [item for item in items if item.get_closest_marker("proof")]
    if proofs:
        config.hook.pytest_deselected(items=proofs)
        items[:] = [item for item in items if not item.get_closest_marker("proof")]


@pytest.fixture(scope="session")
def classifier(tiny_bundle) -> Classifier:
    return Classifier.load(tiny_bundle, device="cpu", threads=1)
