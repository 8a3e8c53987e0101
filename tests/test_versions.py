"""The oldest versions that are tested are those that pyproject.toml admits."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
# torch: one build for all environments. onnxruntime 1.30.1 has no wheel. transformers 4.57 wants newer ones of the rest.
TESTED_ABOVE_THEIR_BOUND = {"torch", "onnxruntime", "tokenizers", "huggingface-hub"}
TESTED_EXTRAS = [
    "cpu",
    "parquet",
    "zstd",
    "plot",
    "report",
    "sklearn",
    "pandas",
    "polars",
    "hub",
    "minilm",
    "serve",
    "train",
    "sweep",
    "export",
]


def test_the_oldest_versions_tested_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {
        canonicalize_name(name): Version(version)
        for name, _, version in (
            line.partition("==") for line in (ROOT / "tests/versions/oldest.txt").read_text().split()
        )
    }
    lines = [*project["dependencies"], *(line for e in TESTED_EXTRAS for line in project["optional-dependencies"][e])]
    lowest: dict[str, Version] = {}
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        if name != "edgewren":
            (bound,) = requirement.specifier
            assert bound.operator == ">=", f"{requirement}: a lower bound, and nothing else"
            lowest[name] = max(lowest.get(name, Version("0")), Version(bound.version))
    above = {name for name in lowest if pinned[name] > lowest[name]}
    assert above == TESTED_ABOVE_THEIR_BOUND
    assert {name for name in lowest if pinned[name] < lowest[name]} == set()
    assert set(project["optional-dependencies"]) - set(TESTED_EXTRAS) == {"gpu", "ray", "spark", "dev", "all"}


def test_the_newest_versions_tested_have_another_transformers_than_the_others():
    newest = (ROOT / "tests/versions/newest.txt").read_text()
    usual = (ROOT / "constraints.txt").read_text()
    for text, expected in ((newest, "5"), (usual, "4")):
        (version,) = (line.partition("==")[2] for line in text.split() if line.startswith("transformers=="))
        assert version.partition(".")[0] == expected
