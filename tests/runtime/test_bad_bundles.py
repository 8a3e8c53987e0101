"""Bad bundles are refused with exit code 3, by the file's name, at once and in little memory.

The bundles themselves are made in tests/fixtures/bad_bundle_cases.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import bad_bundles
import pytest
from bad_bundle_cases import CASES, CONFIG, MANIFEST, MODEL, TOKENIZER
from bad_bundles import replace

from edgewren import BundleError, Classifier
from edgewren.cli.main import main


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


HEAVIEST = (
    "manifest of sixteen million brackets",
    "tokenizer of millions of brackets",
    "tokenizer larger than the limit",
    "a vocabulary of a million",
    "a hundred thousand operators",
    "a hundred thousand tensors",
    "a hundred thousand added tokens",
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in HEAVIEST)) for name in CASES])
def test_a_bad_bundle_is_refused_by_name_and_at_once(bundle, name):
    file, spoil, says = CASES[name]
    spoil(bundle)
    started = time.process_time()
    with pytest.raises(BundleError) as refusal:
        Classifier.load(bundle, device="cpu", threads=1)
    seconds = time.process_time() - started
    assert refusal.value.exit_code == 3
    assert isinstance(refusal.value, ValueError)
    assert type(refusal.value) is not BundleError, "each refusal has a class of its own"
    assert Path(file).name in str(refusal.value)
    assert re.search(says, str(refusal.value)), str(refusal.value)
    assert len(str(refusal.value)) < 1500
    assert seconds < 2


def test_there_are_enough_bad_bundles_for_every_file():
    named = [file for file, _, _ in CASES.values()]
    assert len(CASES) >= 60
    assert all(named.count(file) >= 10 for file in (MANIFEST, MODEL, TOKENIZER, CONFIG))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its peak memory from /proc")
@pytest.mark.parametrize("name", HEAVIEST)
def test_the_heaviest_bombs_take_little_time_and_memory_in_a_process_of_their_own(bundle, name):
    CASES[name][1](bundle)
    program = (
        "import sys, time\n"
        "from edgewren.cli.main import main\n"
        "started = time.process_time()\n"
        "code = main(['verify', sys.argv[1]])\n"
        "seconds = time.process_time() - started\n"
        "status = open('/proc/self/status').read()\n"  # ru_maxrss would be the parent's, whose fork this is
        "print(code, seconds, int(status.partition('VmHWM:')[2].split()[0]) / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, bundle], capture_output=True, text=True, timeout=60, check=True
    )
    code, seconds, megabytes = map(float, done.stdout.split()[-3:])
    assert code == 3
    assert Path(CASES[name][0]).name in done.stderr
    assert megabytes < 300, f"{megabytes:.0f} MB in {seconds:.2f} s"
    assert seconds < 2


def test_the_command_line_refuses_with_exit_code_three_and_one_line(bundle, capsys):
    CASES["external data in an initialiser"][1](bundle)
    for verb in (["verify", str(bundle)], ["score", "-", "--model", str(bundle)]):
        assert main(verb) == 3
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "model.onnx" in err
    assert main(["info", str(bundle)]) == 0  # looks at no model


@pytest.mark.parametrize("verb", ["info", "verify", "score", "evaluate"])
def test_another_bundle_than_required_is_refused(tiny_bundle, tmp_path, capsys, verb):
    texts = tmp_path / "texts.csv"
    texts.write_text("text,label\ngood,neutral\nbad,partisan\n")
    arguments = {
        "info": ["info", str(tiny_bundle)],
        "verify": ["verify", str(tiny_bundle)],
        "score": ["score", str(texts), "--model", str(tiny_bundle), "--prefix", "new_"],
        "evaluate": ["evaluate", str(texts), "--label-column", "label", "--model", str(tiny_bundle)],
    }[verb]
    sha256 = Classifier.load(tiny_bundle).bundle.sha256
    assert main([*arguments, "--require-sha256", sha256.upper()]) == 0
    assert main([*arguments, "--require-sha256", "0" * 64]) == 3
    assert "is another bundle than required" in capsys.readouterr().err
    assert main([*arguments, "--require-sha256", "abc"]) == 2
    with pytest.raises(BundleError, match="another bundle"):
        Classifier.load(tiny_bundle, expected_sha256="0" * 64)


def test_a_file_swapped_after_the_check_is_never_used(bundle, monkeypatch):
    """The bytes that were hashed are the bytes that are parsed: each file is opened once."""
    from edgewren import bundle_folder

    opened: list[str] = []
    read = bundle_folder.read_regular

    def read_and_swap(path: Path, limit: int) -> bytes:
        data = read(path, limit)
        opened.append(path.name)
        path.write_bytes(b"swapped")
        return data

    monkeypatch.setattr("edgewren.bundle.read_regular", read_and_swap)
    monkeypatch.setattr("edgewren.bundle.check_listing", lambda *_: None)
    loaded = Classifier.load(bundle, device="cpu", threads=1)
    assert loaded.predict(["good vote"])
    assert len(opened) == len(set(opened))
    assert {"manifest.json", "tokenizer.json", "model.onnx", "config.json"} <= set(opened)


def test_replacing_a_file_by_itself_keeps_a_bundle_good(bundle):
    """The tool that makes the bad ones spoils nothing by itself."""
    for name in (MODEL, TOKENIZER, CONFIG, "README.md"):
        replace(bundle, name, (bundle / name).read_bytes())
    bad_bundles.edit_model(bundle, lambda _: None)
    bad_bundles.edit_json(bundle, TOKENIZER, lambda _: None)
    assert Classifier.load(bundle).predict(["good"])
