"""The proof that a bundle is data: Python's audit hook sees all that loading and scoring asks the interpreter for.

Libraries are imported before the hook starts; from then on nothing may be imported, compiled, unpickled, run or
connected, and no file opened outside the bundle. What onnxruntime opens by itself the hook cannot see: there the scan
refuses every way to name a file (test_bad_bundles).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bad_bundle_cases import CASES

PROGRAM = r"""
import json, os, sys
import numpy, tokenizers
from edgewren import Classifier
from edgewren.device import import_onnxruntime
from edgewren.errors import BundleError
import concurrent.futures.thread
import_onnxruntime()
Classifier.load(sys.argv[1], device="cpu", threads=2).predict(["warm \ud800 up"])  # what is imported late is imported now

seen, watching, inside = [], True, False
FORBIDDEN = (
    "pickle.", "marshal.", "shelve.", "dbm.", "exec", "compile", "import", "code.__new__", "function.__new__",
    "socket.", "urllib.", "http.", "ftplib.", "smtplib.", "subprocess.", "os.system", "os.exec", "os.fork",
    "os.posix_spawn", "os.spawn", "os.startfile", "pty.", "ctypes.", "cpython.run_", "os.putenv", "os.unsetenv",
    "os.chmod", "os.chown", "os.link", "os.symlink", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate",
    "shutil.", "tempfile.", "mmap.", "webbrowser.", "sqlite3.", "winreg.", "builtins.input",
)

def watch(event, args):
    global inside
    if not watching or inside:
        return
    inside = True
    if event.startswith(FORBIDDEN):
        seen.append([event, repr(args)[:200]])
    elif event in ("open", "os.scandir", "os.listdir"):
        path, mode = args[0], args[1] if len(args) > 1 else None
        place = os.path.realpath(path) if isinstance(path, (str, bytes, os.PathLike)) else repr(path)
        allowed = (bundle, "/proc/", "/sys/fs/cgroup")
        if not (isinstance(path, int) or str(place).startswith(allowed)) or (isinstance(mode, str) and set(mode) & set("wax+")):
            seen.append([event, repr(args)[:200]])
    inside = False

sys.addaudithook(watch)
report = []
for folder in sys.argv[1:]:
    bundle = os.path.realpath(folder)
    seen.clear()
    try:
        with_texts = Classifier.load(folder, device="cpu", threads=2)
        with_texts.predict_proba(["good vote", "", "bad \ud800 tax"] * 50)
        ending = "scored"
    except BundleError as error:
        ending = type(error).__name__
    report.append([ending, list(seen)])
seen.clear()
bundle = "/nowhere"
for forbidden in ("open('/etc/hostname').close()", "__import__('socket').socket().close()", "__import__('pickle').loads(b'cos\\nsystem\\n.')"):
    exec(forbidden)
watching = False
print(json.dumps([report, sorted({event for event, _ in seen})]))
"""

BAD = (
    "external data in an initialiser",
    "external data in a branch",
    "functions",
    "settings of onnxruntime",
    "a foreign domain is imported",
    "onnxruntime's own format",
    "a hostile regular expression",
    "a character map that leads outside",
    "a pickle lies in the folder",
    "code lies in the folder",
    "manifest leads out of the folder",
    "config that names code",
)


@pytest.fixture(scope="module")
def audited(tiny_bundle, tmp_path_factory) -> tuple[list, list[str]]:
    folder = tmp_path_factory.mktemp("audited")
    bundles = [tiny_bundle]
    for index, name in enumerate(BAD):
        bundles.append(shutil.copytree(tiny_bundle, folder / str(index) / "bundle"))
        CASES[name][1](bundles[-1])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, bundles)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report, noticed = json.loads(done.stdout.splitlines()[-1])
    return report, noticed


def test_loading_and_scoring_asks_python_for_nothing_but_the_bundles_own_files(audited):
    (ending, seen), *_ = audited[0]
    assert ending == "scored"
    assert seen == []


def test_refusing_a_bad_bundle_asks_for_nothing_either(audited):
    for name, (ending, seen) in zip(BAD, audited[0][1:], strict=True):
        assert ending.startswith("Bundle"), name
        assert seen == [], name


def test_the_watch_itself_sees_files_sockets_and_pickles(audited):
    assert {"open", "exec", "socket.__new__", "pickle.find_class"} <= set(audited[1])


def test_no_source_file_of_the_runtime_names_pickle_or_its_like():
    import edgewren

    for path in Path(edgewren.__file__).parent.rglob("*.py"):
        words = path.read_text(encoding="utf-8")
        for forbidden in (
            "import pickle",
            "import marshal",
            "joblib",
            "import shelve",
            "allow_pickle=True",
            "eval(",
            "exec(",
        ):
            assert forbidden not in words, f"{path}: {forbidden}"
