"""What an app developer has: the built wheel with [cpu], nothing else. `make test` makes this environment."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-cpu" / "bin" / "python"
EDGEWREN = PYTHON.with_name("edgewren")
HEAVY = (
    "torch",
    "transformers",
    "sklearn",
    "onnx",
    "pandas",
    "scipy",
    "sentence_transformers",
    "matplotlib",
    "pyarrow",
)
SIZE_LIMIT_MB = 200

INSTALLED = "import importlib.metadata as m; print(*(found.metadata['Name'] for found in m.distributions()))"
SCORE = """
import json, sys
from edgewren import Classifier
classifier = Classifier.load(sys.argv[1])
answer = {"labels": classifier.predict(["good vote", "bad tax"]), "shape": classifier.predict_proba(["good"]).shape}
print(json.dumps({**answer, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


@pytest.fixture(scope="module", autouse=True)
def environment():
    if not PYTHON.exists():
        pytest.fail(".venv-cpu is missing. Run: make test (or make .venv-cpu/.ready)")


def run(*arguments, **options):
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(argument) for argument in arguments]
    return subprocess.run(command, capture_output=True, text=True, env=outside, cwd="/", **options)


def test_only_light_packages_are_installed():
    listed = run(PYTHON, "-c", INSTALLED)
    installed = {name.lower().replace("-", "_") for name in listed.stdout.split()}
    assert {"edgewren", "numpy", "tokenizers", "onnxruntime"} <= installed
    assert not installed & {*HEAVY, "scikit_learn"}


def test_classifier_scores_and_imports_nothing_heavy(tiny_bundle):
    done = run(PYTHON, "-c", SCORE, tiny_bundle)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer["labels"]) <= {"neutral", "partisan"}
    assert answer["shape"] == [1, 2]
    assert {"edgewren", "numpy", "tokenizers", "onnxruntime"} <= set(answer["modules"])
    assert not set(answer["modules"]) & {*HEAVY, "huggingface_hub", "edgewren_train", "edgewren_export"}


def test_score_writes_every_row(tiny_bundle, tmp_path):
    (tmp_path / "in.csv").write_text("id,text\n007,good vote\n008,bad tax\n", encoding="utf-8")
    done = run(EDGEWREN, "score", tmp_path / "in.csv", "--model", tiny_bundle, "--output", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    header, *rows = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert header == "id,text,label,score,score_neutral,score_partisan,status"
    assert [row.split(",")[0] for row in rows] == ["007", "008"]


@pytest.mark.parametrize(
    "arguments", [("info",), ("verify",), ("evaluate", "in.csv")], ids=lambda arguments: arguments[0]
)
def test_every_verb_of_the_runtime_works_without_extras(tiny_bundle, tmp_path, arguments):
    verb, *files = arguments
    (tmp_path / "in.csv").write_text(
        "text,label\ngood vote,neutral\nbad tax,partisan\ngreat cat,neutral\n", encoding="utf-8"
    )
    where = ["--model", tiny_bundle] if files else [tiny_bundle]
    done = run(EDGEWREN, verb, *(tmp_path / name for name in files), *where)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_doctor_finds_one_runtime_and_no_conflict():
    done = run(EDGEWREN, "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "onnxruntime" in done.stdout


@pytest.mark.parametrize(
    ("verb", "extra"), [(("train", "ridge", "posts.csv"), "train"), (("export", "model"), "export")]
)
def test_verb_whose_extra_is_missing_says_what_to_install(tmp_path, verb, extra):
    (tmp_path / "posts.csv").write_text("text,label\n" + "a,x\nb,y\n" * 9, encoding="utf-8")
    named = [tmp_path / part if part in ("posts.csv", "model") else part for part in verb]
    done = run(EDGEWREN, *named, "--output", tmp_path / "out")
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert f"pip install 'edgewren[{extra}]'" in line


def test_environment_is_small():
    """The whole folder; it has no pip and setuptools, which a plain venv of Python 3.11 adds (27 MB)."""
    size = sum(file.lstat().st_size for file in PYTHON.parent.parent.rglob("*") if file.is_file())
    assert size / 1e6 <= SIZE_LIMIT_MB, f"{size / 1e6:.0f} MB"


def test_wheel_holds_the_three_packages_and_their_types():
    (wheel,) = (ROOT / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"edgewren", "edgewren_train", "edgewren_export"}
    assert {f"{package}/py.typed" for package in tops} <= set(names)
    assert wheel.stat().st_size < 1_000_000  # 0.4 MB of it are the default bundle


def test_source_distribution_carries_no_default_bundle(tmp_path):
    build = [ROOT / ".venv" / "bin" / "python", "-m", "build", "--quiet", "--sdist", "--outdir", tmp_path, ROOT]
    done = run(*build)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = [name.split("/", 1)[-1] for name in opened.getnames()]
    assert "pyproject.toml" in names
    assert not [name for name in names if name.startswith("artifacts")]
    assert archive.stat().st_size < 5_000_000


def test_demo_scores_a_shipped_file_with_a_default_bundle_in_under_20_seconds(tmp_path, artifacts):
    start = time.monotonic()
    done = run("make", "-C", ROOT, "demo", f"DEMO={tmp_path / 'demo'}")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 20
    assert "60 rows" in done.stdout + done.stderr
    assert "most clearly partisan" in done.stdout


def test_demo_without_default_bundles_says_why_it_shows_nothing(tmp_path):
    done = run("make", "-C", ROOT, "demo", f"DEMO={tmp_path / 'demo'}", f"BUNDLES={tmp_path / 'none'}")
    assert done.returncode == 0, done.stderr
    assert "is not there. 'make artifacts' builds it" in done.stdout
