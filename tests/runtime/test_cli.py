"""The command line: what it prints where, and with which exit code it ends."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from faulty_disk import FullDisk

from edgewren import picture
from edgewren.archive.results import added_names
from edgewren.cli import main as cli
from edgewren.cli.main import main, parse

VERBS = (
    "train",
    "train ridge",
    "train lora",
    "score",
    "summarize",
    "evaluate",
    "info",
    "verify",
    "pull",
    "push",
    "doctor",
)


@pytest.fixture(autouse=True)
def _restore_process(monkeypatch):
    """`run` owns its process; here it shares one."""
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", os.environ.get("ORT_DISABLE_TELEMETRY", "1"))


@pytest.fixture
def tweets(tmp_path):
    path = tmp_path / "tweets.csv"
    path.write_text("id,text,bias\n1,good vote,neutral\n2,bad tax,partisan\n3,the senate,neutral\n", encoding="utf-8")
    return path


def copied(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


# parse and main


def test_no_arguments_print_help_and_exit_2(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "score" in err


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_has_a_description_and_one_example(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert f"example:\n  edgewren {verb}" in out
    assert len(out.split("\n\n")) >= 4  # usage, description, options, example


def test_version(capsys):
    import edgewren

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"edgewren {edgewren.__version__}\n"


@pytest.mark.parametrize("argv", [["nonsense"], ["score"], ["info", "a", "b"]])
def test_usage_errors_exit_2(argv, capsys):
    assert main(argv) == 2
    assert "usage: edgewren" in capsys.readouterr().err


def test_verbose_and_debug_are_taken_before_and_after_the_verb():
    for argv in (["-v", "info", "x"], ["info", "x", "-v"], ["train", "ridge", "x", "--verbose"]):
        assert parse(argv).verbose
    assert not parse(["info", "x"]).verbose
    assert parse(["--debug", "info", "x"]).debug


def test_parsing_imports_nothing_heavy():
    code = (
        "import sys; from edgewren.cli.main import parse; parse(['info', 'x']); "
        "print([n for n in ('numpy','tokenizers','onnxruntime','torch','pyarrow','matplotlib') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def verb_that(monkeypatch, behaviour, **defaults):
    """Let `edgewren doctor` behave as told."""
    from edgewren.cli import doctor

    real = doctor.add_parser

    def add_parser(subparsers):
        real(subparsers)
        subparsers.choices["doctor"].set_defaults(run=behaviour, **defaults)

    monkeypatch.setattr(doctor, "add_parser", add_parser)


def raising(error):
    def behaviour(_):
        raise error

    return behaviour


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".csv", "x" * 300 + ".parquet", "loop.csv", "loop.csv/a.csv"])
def test_names_that_no_file_can_have_are_told(tmp_path, monkeypatch, capsys, tiny_bundle, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "a.csv").write_text(
        "text,label,day\ngood,neutral,2020-01-01\nbad,partisan,2020-01-02\n", encoding="utf-8"
    )
    model = ["--model", str(tiny_bundle)]
    score = ["score", "a.csv", "--prefix", "p_"]
    for argv, code in (
        (["score", name, *model], 4),
        (["score", name, *model, "--format", "parquet"], 4),
        (["score", name, *model, "--output", "o.csv"], 4),
        (["evaluate", name, *model], 4),
        (["summarize", name, "--by", "day"], 4),
        ([*score, *model, "--output", name], 6),
        ([*score, *model, "--output", name, "--force"], 6),
        ([*score, *model, "--output", name, "--resume"], 6),
        ([*score, "--model", name], 3),
        (["info", name], 3),
        (["evaluate", "a.csv", *model, "--heatmap", name], 6 if "loop" in name else 2),
    ):
        assert main(argv) == code, argv
        assert "bug" not in capsys.readouterr().err, argv
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "loop.csv"}


def test_a_name_with_no_place_for_what_lies_beside_it_is_told_before_any_work(tmp_path, capsys, tiny_bundle):
    (tmp_path / "a.csv").write_text("text\ngood\n", encoding="utf-8")
    output = tmp_path / ("s" * 240 + ".csv")
    assert main(["score", str(tmp_path / "a.csv"), "--model", str(tiny_bundle), "--output", str(output)]) == 6
    assert "s.csv cannot be written: File name too long. Nothing was changed there." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_an_unexpected_exception_is_one_line_and_exit_9(monkeypatch, capsys):
    verb_that(monkeypatch, raising(ZeroDivisionError("division\nby zero")))
    monkeypatch.delenv("EDGEWREN_DEBUG", raising=False)
    assert main(["doctor"]) == 9
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "unexpected ZeroDivisionError: division by zero" in err
    assert "report" in err


def test_no_name_of_a_file_steers_the_terminal(tiny_bundle, tmp_path, capsys):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / "x\x1b]0;owned\x07.txt").write_text("")
    assert main(["info", str(bundle)]) == 3
    err = capsys.readouterr().err
    assert "\\x1b]0;owned\\x07.txt does not belong" in err
    assert "\x1b" not in err


@pytest.mark.parametrize("switch", ["--debug", "EDGEWREN_DEBUG"])
def test_debug_shows_the_traceback(monkeypatch, capsys, switch):
    verb_that(monkeypatch, raising(ZeroDivisionError("x")))
    if switch == "--debug":
        assert main(["doctor", "--debug"]) == 9
    else:
        monkeypatch.setenv(switch, "1")
        assert main(["doctor"]) == 9
    assert "Traceback" in capsys.readouterr().err


def test_a_panic_of_a_rust_extension_is_caught_too(monkeypatch, capsys):
    class PanicException(BaseException):
        pass

    verb_that(monkeypatch, raising(PanicException("index out of bounds")))
    assert main(["doctor"]) == 9
    assert "Traceback" not in capsys.readouterr().err


def test_interrupt_exits_130(monkeypatch, capsys):
    verb_that(monkeypatch, raising(KeyboardInterrupt()))
    assert main(["doctor"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_sigterm_exits_143_and_the_handler_is_put_back(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    verb_that(monkeypatch, lambda _: os.kill(os.getpid(), signal.SIGTERM) or signal.pause())
    assert main(["doctor"]) == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_while_modules_are_imported_shows_no_traceback():
    slow_import = """
import sys, time
class Slow:
    def find_spec(self, name, *rest):
        if name == "edgewren.cli.main":
            print("importing", flush=True)
            time.sleep(30)
sys.meta_path.insert(0, Slow())
from edgewren.__main__ import console
console()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", slow_import], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == -signal.SIGINT


OVERRIDES = "-dac_override,-dac_read_search"
AS_ANYBODY = ["setpriv", f"--bounding-set={OVERRIDES}", f"--inh-caps={OVERRIDES}"] if os.geteuid() == 0 else []


@pytest.mark.skipif(bool(AS_ANYBODY) and shutil.which("setpriv") is None, reason="root may enter any folder")
@pytest.mark.parametrize(
    "argv",
    [
        ["info", "{folder}/bundle"],
        ["evaluate", "{folder}/a.csv"],
        ["score", "{folder}/a.csv"],
        ["score", "{csv}", "-o", "{folder}/out.csv"],
        ["summarize", "{folder}/a.csv", "--by", "author"],
        ["evaluate", "{csv}", "--heatmap", "{folder}/x.png"],
    ],
)
def test_a_folder_that_may_not_be_entered_is_no_bug(tmp_path, argv):
    folder, path = tmp_path / "locked", tmp_path / "a.csv"
    path.write_text("text,label\na,neutral\nb,partisan\n", encoding="utf-8")
    folder.mkdir()
    folder.chmod(0o600)
    command = [*AS_ANYBODY, sys.executable, "-m", "edgewren", *(word.format(folder=folder, csv=path) for word in argv)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    folder.chmod(0o700)
    assert done.returncode in (2, 3, 4, 6)
    assert "Permission denied" in done.stderr


def test_missing_package_of_a_verb_names_its_extra(monkeypatch, capsys):
    verb_that(monkeypatch, raising(ModuleNotFoundError("No module named 'torch'", name="torch")), extra="train")
    assert main(["doctor"]) == 2
    assert "pip install 'edgewren[train]'" in capsys.readouterr().err


def test_missing_module_of_our_own_is_a_bug_not_a_missing_extra(monkeypatch, capsys):
    verb_that(monkeypatch, raising(ModuleNotFoundError("No module named 'x'", name="edgewren_train.x")), extra="train")
    assert main(["doctor"]) == 9


def test_a_plugin_that_cannot_be_loaded_answers_only_when_called(monkeypatch, capsys):
    class Broken:
        name = "train"
        dist = None

        def load(self):
            raise ModuleNotFoundError("No module named 'edgewren_train'")

    monkeypatch.setattr(cli.metadata, "entry_points", lambda **_: [Broken()])
    assert main(["--help"]) == 0
    assert main(["train", "ridge", "x.csv", "--output", "y"]) == 2
    assert "pip install 'edgewren[train]'" in capsys.readouterr().err


def plugin_raising(error):
    class Broken:
        name = "extra"
        value = "others:add"
        dist = None

        def load(self):
            raise error

    return lambda **_: [Broken()]


def test_a_broken_plugin_is_told_and_takes_no_other_verb_with_it(monkeypatch, capsys):
    monkeypatch.setattr(cli.metadata, "entry_points", plugin_raising(TypeError("no\nway")))
    assert main(["doctor"]) == 0
    err = capsys.readouterr().err
    assert err == "edgewren: warning: the verb extra of others:add is broken: TypeError: no way\n"
    assert main(["extra", "x"]) == 2
    assert "Mend or remove the package" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 3])
def test_a_plugin_that_ends_the_process_is_broken_too(monkeypatch, capsys, code):
    monkeypatch.setattr(cli.metadata, "entry_points", plugin_raising(SystemExit(code)))
    assert main(["none"]) == 2
    assert f"the verb extra of others:add is broken: SystemExit: {code}\n" in capsys.readouterr().err


def adding(*names, dist=None):
    """An entry point whose function adds verbs of these names."""

    def add(verbs):
        for name in names:
            verbs.add_parser(name).set_defaults(run=lambda _: 5)

    return SimpleNamespace(name=names[0], value="others:add", dist=dist, load=lambda: add)


@pytest.mark.parametrize("verb", ["score", "train"])
def test_a_plugin_with_the_name_of_one_of_our_verbs_is_told_and_left_out(monkeypatch, capsys, tweets, verb):
    ours = adding("train", dist=SimpleNamespace(name="edgewren"))
    monkeypatch.setattr(cli.metadata, "entry_points", lambda **_: [adding("other"), adding(verb), ours])
    assert main(["score", str(tweets)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("id,text,bias,label")
    warning = f"warning: others:add adds a verb whose name is taken (conflicting subparser: {verb}), and is left out. "
    assert warning in err
    assert main(["train"]) == main(["other"]) == 5


def test_a_broken_plugin_with_the_name_of_one_of_our_verbs_does_not_take_it(monkeypatch, capsys, tweets):
    broken = plugin_raising(ModuleNotFoundError("No module named 'others'"))()[0]
    broken.name = "score"
    monkeypatch.setattr(cli.metadata, "entry_points", lambda **_: [broken])
    assert main(["score", str(tweets)]) == 0


def test_a_plugin_that_breaks_after_it_has_added_its_verb_is_broken_all_the_same(monkeypatch, capsys):
    def add(verbs):
        verbs.add_parser("extra").add_argument("-h")  # which argparse has given it already

    broken = SimpleNamespace(name="extra", value="others:add", dist=None, load=lambda: add)
    monkeypatch.setattr(cli.metadata, "entry_points", lambda **_: [broken])
    assert main(["extra", "x"]) == 2
    err = capsys.readouterr().err
    assert "warning: the verb extra of others:add is broken: ArgumentError: argument -h: conflicting option" in err
    assert "Mend or remove the package" in err


def test_what_no_plugin_should_raise_shows_no_traceback(monkeypatch, capsys):
    class Panic(BaseException):
        pass

    monkeypatch.setattr(cli.metadata, "entry_points", plugin_raising(Panic("of Rust")))
    assert main(["doctor"]) == 9
    err = capsys.readouterr().err
    assert "unexpected Panic: of Rust" in err
    assert "Traceback" not in err


def test_interrupt_while_the_command_line_is_parsed_exits_130(monkeypatch, capsys):
    monkeypatch.setattr(cli.metadata, "entry_points", plugin_raising(KeyboardInterrupt()))
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "edgewren: interrupted\n"


@pytest.mark.parametrize(
    ("redirect", "code", "out", "err"),
    [
        ("2>&-", 0, "text,label,score", ""),
        (">&-", 6, "", "Standard output cannot be written: Bad file descriptor."),
        ("-o {folder}/o.csv >&-", 0, "", "1 rows (1 ok)"),
        ("- <&-", 4, "", "Standard input is closed"),
    ],
)
def test_streams_that_are_closed_or_full_are_no_bug(tiny_bundle, tmp_path, redirect, code, out, err):
    source = tmp_path / "in.csv"
    source.write_text("text\ngood vote\n")
    given = "" if redirect.startswith("- ") else str(source)
    command = f"{sys.executable} -m edgewren score {given} --model {tiny_bundle}"
    done = subprocess.run(
        ["bash", "-c", f"{command} {redirect.format(folder=tmp_path)}"], capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stdout.startswith(out)
    assert err in done.stderr
    assert "bug" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize(
    "encoding", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
@pytest.mark.parametrize("verb", ["info", "evaluate"])
def test_labels_that_standard_output_cannot_encode_are_escaped(make_bundle, tmp_path, encoding, verb):
    bundle = make_bundle(tmp_path / "bundle", labels=("中立", "parti😀san"))
    (tmp_path / "t.csv").write_text("text,label\ngood,中立\nbad,parti😀san\n", encoding="utf-8")
    argv = ["info", bundle] if verb == "info" else ["evaluate", tmp_path / "t.csv", "--model", bundle]
    command = [sys.executable, "-m", "edgewren", *map(str, argv)]
    done = subprocess.run(command, env={**os.environ, **encoding}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u4e2d\u7acb" in done.stdout
    assert rb"parti\U0001f600san" in done.stdout


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_a_full_disk_behind_standard_output_exits_6(tiny_bundle, verb):
    command = f"{sys.executable} -m edgewren {verb} {tiny_bundle} > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 6
    assert done.stderr == "edgewren: error: Standard output cannot be written: No space left on device.\n"


class Host(io.RawIOBase):
    """A stream of a host process, as notebooks have it: no file, and maybe it takes nothing."""

    def __init__(self, error=None):
        self.written, self._error = b"", error

    def writable(self):
        return True

    def write(self, data, /):
        if self._error is not None:
            raise self._error
        self.written += bytes(data)
        return len(data)


def test_a_hosts_unbuffered_stream_without_file_is_written_to_and_stays(tiny_bundle, monkeypatch):
    raw = Host()
    stream = io.TextIOWrapper(raw, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["info", str(tiny_bundle)]) == 0
    assert sys.stdout is stream
    assert b"neutral, partisan" in raw.written


def test_a_hosts_stream_of_text_alone_gets_the_scored_rows(tweets, tiny_bundle, tmp_path, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["score", str(tweets), "--model", str(tiny_bundle)]) == 0
    assert main(["score", str(tweets), "--model", str(tiny_bundle), "--output", str(tmp_path / "out.csv")]) == 0
    assert stream.getvalue().encode() == (tmp_path / "out.csv").read_bytes()


def test_a_hosts_standard_error_that_takes_nothing_changes_no_exit_code(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(Host(OSError(28, "full")), write_through=True))
    assert main(["info", "no such bundle"]) == 3


def test_a_closed_pipe_ends_quietly_with_6(tiny_bundle, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "good vote\n" * 50_000)
    command = f"{sys.executable} -m edgewren score {source} --model {tiny_bundle} --threads 1; echo $? >&2"
    done = subprocess.run(["bash", "-c", f"({command}) | head -1"], capture_output=True, text=True)
    assert done.stdout == "text,label,score,score_neutral,score_partisan,status\n"
    assert done.stderr == "6\n"


@pytest.mark.parametrize("buffering", ["", "1"])
@pytest.mark.parametrize(("argv", "code"), [(["--version"], 6), (["score", "--help"], 6), (["none"], 2)])
def test_what_argparse_prints_into_a_full_disk_or_a_closed_pipe_ends_in_words(buffering, argv, code):
    command = [sys.executable, "-m", "edgewren", *argv]
    env = {**os.environ, "PYTHONUNBUFFERED": buffering}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=env, text=True)
        assert done.returncode == code
        assert ("edgewren: error: Standard output cannot be written" in done.stderr) == (code == 6)
        assert "Exception" not in done.stderr
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=env, text=True)
    os.close(write)
    assert done.returncode == code
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("buffering", ["", "1"])
@pytest.mark.parametrize("full", [False, True])
def test_words_that_nobody_can_read_change_no_exit_code(tiny_bundle, tmp_path, buffering, full):
    source = tmp_path / "in.csv"
    source.write_text("text,n\ngood vote,1\nragged\n")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(os.open("/dev/full", os.O_WRONLY) if full else os.dup(write), "wb") as nowhere:
        os.close(write)
        command = [sys.executable, "-m", "edgewren", "-v", "score", str(source), "--model", str(tiny_bundle)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=nowhere, env={**os.environ, "PYTHONUNBUFFERED": buffering}
        )
    assert done.returncode == 5
    assert len(done.stdout.splitlines()) == 3


# score


PAUSED = """
import os, signal, sys, threading, time
from edgewren.cli import main as cli

def pause():
    for _ in range(4):
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGCONT)

signal.signal(signal.SIGCONT, lambda *_: None)
threading.Thread(target=pause, daemon=True).start()
sys.exit(cli.main(sys.argv[1:]))
"""
"""A signal reaches the process while it waits for a full pipe, as Ctrl-Z and `fg` do: the write then ends early."""


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["score", "print"])
@pytest.mark.parametrize("buffering", ["", "1"])
def test_standard_output_gets_all_bytes_however_it_is_buffered(tiny_bundle, tmp_path, buffering, verb):
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "good vote\n" * 20_000)
    argv = ["score", str(source), "--model", str(tiny_bundle), "--threads", "1"]
    code = PAUSED
    if verb == "print":
        code = PAUSED.replace("sys.exit(", "cli.run = lambda _: print('x' * 2_000_000) or 0\nsys.exit(")
    command = [sys.executable, "-c", code, *argv]
    env = {**os.environ, "PYTHONUNBUFFERED": buffering}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    time.sleep(2)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(out) == 2_000_001 if verb == "print" else out.count(b"\n") == 20_001


@pytest.mark.parametrize("buffering", ["", "1"])
@pytest.mark.parametrize("verb", ["score", "print"])
def test_standard_output_that_is_full_and_does_not_wait_exits_6(tiny_bundle, tmp_path, buffering, verb):
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "good vote\n" * 20_000)
    code = "import sys\nfrom edgewren.cli import main as cli\n"
    code += "cli.run = lambda _: print('x' * 2_000_000) or 0\n" if verb == "print" else ""
    code += "sys.exit(cli.main(sys.argv[1:]))"
    read, write = os.pipe()
    os.set_blocking(write, False)
    argv = [sys.executable, "-c", code, "score", str(source), "--model", str(tiny_bundle), "--threads", "1"]
    done = subprocess.run(
        argv, stdout=write, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": buffering}, text=True
    )
    os.close(write)
    os.close(read)
    assert done.returncode == 6
    assert "Standard output cannot be written: " in done.stderr
    assert "Exception" not in done.stderr


def test_score_writes_data_to_stdout_and_words_to_stderr(tweets, tiny_bundle, capfdbinary):
    assert main(["score", str(tweets), "--model", str(tiny_bundle)]) == 0
    out, err = capfdbinary.readouterr()
    rows = list(csv.reader(io.StringIO(out.decode())))
    assert rows[0] == ["id", "text", "bias", "label", "score", "score_neutral", "score_partisan", "status"]
    assert len(rows) == 4
    assert err.startswith(b"3 rows (3 ok) in ")


def test_score_into_a_file(tweets, tiny_bundle, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    argv = ["score", str(tweets), "--model", str(tiny_bundle), "--output", str(out)]
    assert main(argv) == 0
    assert capsys.readouterr().out == ""
    assert [json.loads(line)["id"] for line in out.open()] == ["1", "2", "3"]
    assert main(argv) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*argv, "--force"]) == 0


def test_score_reads_standard_input(tiny_bundle, monkeypatch, capfdbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text":"good"}\n')))
    assert main(["score", "-", "--format", "jsonl", "--model", str(tiny_bundle)]) == 0
    assert json.loads(capfdbinary.readouterr().out)["status"] == "ok"


def test_rejected_rows_exit_5_after_finishing(tiny_bundle, tmp_path, capsys):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("id,text\n1,good\n2\n3,nonfinite\n")
    argv = ["score", str(source), "--model", str(tiny_bundle), "--output", str(out), "--force"]
    assert main(argv) == 5
    err = capsys.readouterr().err
    assert "2 of 3 rows were rejected" in err
    assert f"row 2 of {source}: 1 fields" in err
    assert f"{out}.rejects.jsonl" in err
    assert len(out.read_text().splitlines()) == 4
    assert main([*argv, "--max-bad-rows", "2"]) == 0


@pytest.mark.parametrize(
    ("data", "options", "code", "message"),
    [
        (b"text\ngood\xff\n", [], 4, "--encoding"),
        (b"txt\ngood\n", [], 4, "--text-column"),
        (b'text\n"good\n', [], 4, "line 2"),
        (b"", [], 4, "empty"),
        (b'text\n"' + b"x" * (2**20 + 1) + b'"\n', [], 4, "1,048,576"),
        (b"text,label\nx,y\n", [], 2, "--prefix"),
        (b"text\nx\n", ["--encoding", "nope"], 2, "nope"),
        (b"text\nx\n", ["--threads", "0"], 2, "threads is 0"),
        (b"text\nx\n", ["--max-bad-rows", "-1"], 2, "-1"),
        (b"text\nx\n", ["--device", "cuda"], 2, "CUDA was requested"),
        (b"text\nx\n", ["--variant", "int9"], 3, "no variant 'int9'"),
        (b"text\nx\n", ["--output", "/nonexistent/x.csv"], 6, "no folder /nonexistent"),
        (b"text\nx\n", ["--output-format", "parquet"], 2, "standard output"),
        (b"text\nx\n", ["--output-format", "xlsx"], 2, "Cannot write format 'xlsx'"),
    ],
)
def test_errors_of_score_have_their_exit_codes(tmp_path, tiny_bundle, capsys, data, options, code, message):
    source = tmp_path / "in.csv"
    source.write_bytes(data)
    assert main(["score", str(source), "--model", str(tiny_bundle), *options]) == code
    err = capsys.readouterr().err
    assert err.startswith("edgewren: error: ")
    assert message in err
    assert "Traceback" not in err


def test_sigterm_during_a_run_removes_what_is_half_done(tiny_bundle, tmp_path):
    out = tmp_path / "out.csv"
    read, write = os.pipe()
    argv = [sys.executable, "-m", "edgewren", "score", "-", "--model", str(tiny_bundle), "-o", str(out)]
    process = subprocess.Popen(argv, stdin=read, stderr=subprocess.PIPE, text=True)
    os.close(read)
    os.write(write, b"text\n" + b"good\n" * 10_000)
    partial = tmp_path / "out.csv.partial"
    # It opens its output once the first lines have arrived, and then waits for the rest of the input.
    deadline = 200
    while not partial.exists() and deadline and process.poll() is None:
        deadline -= 1
        os.write(write, b"good\n" * 2_000)
        signal.sigtimedwait([], 0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 143
    os.close(write)
    assert process.stderr.read() == "edgewren: terminated\n"
    assert list(tmp_path.iterdir()) == []


# evaluate


def test_evaluate_prints_a_report(tweets, tiny_bundle, capsys):
    assert main(["evaluate", str(tweets), "--label-column", "bias", "--model", str(tiny_bundle)]) == 0
    out = capsys.readouterr().out
    assert "balanced accuracy" in out
    assert "(fp32) on" in out


@pytest.mark.parametrize("prefix", ["", "m_"])
def test_evaluate_warns_of_labels_that_a_model_gave(tiny_bundle, tmp_path, capsys, prefix):
    added = ",".join(added_names(("neutral", "partisan"), prefix))
    rows = "good vote,neutral,partisan,0.6,0.4,0.6,ok\nbad tax,partisan,neutral,0.9,0.9,0.1,ok\n"
    (tmp_path / "scored.csv").write_text(f"text,gold,{added}\n{rows}", encoding="utf-8")
    argv = [
        "evaluate",
        str(tmp_path / "scored.csv"),
        "--model",
        str(tiny_bundle),
        "--resamples",
        "10",
        "--label-column",
    ]
    assert main([*argv, f"{prefix}label"]) == 0
    assert f"'{prefix}label' holds the labels that a model gave" in capsys.readouterr().err
    assert main([*argv, "gold"]) == 0
    assert capsys.readouterr().err == ""


def test_evaluate_takes_the_default_model(tmp_path, tiny_bundle, capsys):
    path = tmp_path / "t.csv"
    path.write_text("text,label\nvote,neutral\ntax scam,partisan\n", encoding="utf-8")
    assert main(["evaluate", str(path), "--json", "--resamples", "10"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["path"].endswith("media-bias")
    assert main(["evaluate", str(path), "--json", "--resamples", "10", "--against", str(tiny_bundle)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"]["path"].endswith("media-bias")
    assert found["against"]["model"]["path"] == str(tiny_bundle)


@pytest.mark.parametrize("known", ["file", "rows"])
def test_evaluate_warns_of_the_rows_that_a_bundle_was_trained_on(tweets, tiny_bundle, tmp_path, capsys, known):
    rows = [["good vote", "bad tax", "the senate"], ["neutral", "partisan", "neutral"]]
    file = {"data": {"sha256": hashlib.sha256(tweets.read_bytes()).hexdigest()}}
    training = file if known == "file" else {"texts_sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}
    seen = copied(tiny_bundle, tmp_path)
    manifest = json.loads((seen / "manifest.json").read_text(encoding="utf-8"))
    (seen / "manifest.json").write_text(json.dumps({**manifest, "training": training}), encoding="utf-8")
    argv = ["evaluate", str(tweets), "--label-column", "bias", "--resamples", "10", "--model"]
    assert main([*argv, str(tiny_bundle), "--against", str(seen)]) == 0
    assert capsys.readouterr().err.startswith(f"warning: {seen} was trained on the rows of {tweets}")
    assert main([*argv, str(tiny_bundle)]) == 0
    assert capsys.readouterr().err == ""


def test_evaluate_counts_copies_of_training_rows(tweets, tiny_bundle, tmp_path, capsys):
    """Part of the training rows in another file has another hash: only their texts tell."""
    path = tmp_path / "t.csv"
    path.write_text("text,bias\ngood  vote,neutral\nsomething else https://t.co/a,partisan\n", encoding="utf-8")
    argv = ["evaluate", str(path), "--label-column", "bias", "--resamples", "10", "--json", "--model", str(tiny_bundle)]
    assert main([*argv, "--training", str(tweets)]) == 0
    out = capsys.readouterr()
    assert out.err.startswith(f"warning: 1 of 2 rows of {path} have the text of a training row (links apart)")
    assert json.loads(out.out)["data"]["copies_of_training_rows"] == 1
    path.write_text("text,bias\nGood vote,neutral\nsomething else,partisan\n", encoding="utf-8")
    assert main([*argv, "--training", str(tweets)]) == 0
    out = capsys.readouterr()
    assert out.err == f"none of the 2 rows has the text of a row of {tweets} (links apart)\n"
    assert json.loads(out.out)["data"]["copies_of_training_rows"] == 0
    assert main(argv) == 0
    assert "copies_of_training_rows" not in json.loads(capsys.readouterr().out)["data"]


def test_a_heat_map_replaces_nothing(tweets, tiny_bundle, tmp_path, capsys):
    before = tweets.read_bytes()
    argv = ["evaluate", str(tweets), "--label-column", "bias", "--model", str(tiny_bundle), "--heatmap"]
    assert main([*argv, str(tweets)]) == 2
    assert "exists already. Name another file with --heatmap" in capsys.readouterr().err
    assert tweets.read_bytes() == before
    assert main([*argv, str(tmp_path / "none" / "x.png")]) == 6
    assert "its folder does not exist" in capsys.readouterr().err


def test_a_full_disk_costs_the_heat_map_alone(tweets, tiny_bundle, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(picture, "WholeFile", FullDisk)
    argv = ["evaluate", str(tweets), "--label-column", "bias", "--model", str(tiny_bundle), "--resamples", "10"]
    assert main([*argv, "--heatmap", str(tmp_path / "x.png")]) == 6
    out, err = capsys.readouterr()
    assert "balanced accuracy" in out
    assert "x.png cannot be written: No space left on device" in err
    assert not list(tmp_path.glob("x.png*"))


def test_evaluate_json_is_one_document(tweets, tiny_bundle, make_bundle, tmp_path, capsys):
    other = make_bundle(tmp_path / "other", seed=8)
    argv = ["evaluate", str(tweets), "--label-column", "bias", "--model", str(tiny_bundle), "--against", str(other)]
    assert main([*argv, "--json", "--resamples", "50"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] == 3
    assert document["data"] == {"path": str(tweets), "sha256": hashlib.sha256(tweets.read_bytes()).hexdigest()}
    assert document["model"]["variant"] == "fp32"
    assert document["evaluation"]["rows"] == 3
    assert set(document["against"]) == {"model", "evaluation", "comparison"}
    assert document["against"]["comparison"]["resamples"] == 50


def test_evaluate_draws_a_heat_map(tweets, tiny_bundle, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "confusion.png"
    argv = ["evaluate", str(tweets), "--label-column", "bias", "--model", str(tiny_bundle), "--heatmap", str(picture)]
    assert main(argv) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_heat_map_of_labels_in_other_alphabets_warns_of_no_glyphs(make_bundle, tmp_path, recwarn):
    pytest.importorskip("matplotlib")
    bundle = make_bundle(tmp_path / "bundle", labels=("中立", "😀"))
    (tmp_path / "t.csv").write_text("text,label\ngood,中立\nbad,😀\n", encoding="utf-8")
    argv = ["evaluate", str(tmp_path / "t.csv"), "--model", str(bundle), "--heatmap", str(tmp_path / "h.png")]
    assert main(argv) == 0
    assert [str(warning.message) for warning in recwarn] == []


def test_heat_map_without_matplotlib_names_the_extra(tweets, tiny_bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    argv = ["evaluate", str(tweets), "--label-column", "bias", "--model", str(tiny_bundle), "--heatmap", "x.png"]
    assert main(argv) == 2
    assert "edgewren[plot]" in capsys.readouterr().err


def test_labels_that_the_model_does_not_know_are_refused(tweets, three_class_bundle, capsys):
    assert main(["evaluate", str(tweets), "--label-column", "bias", "--model", str(three_class_bundle)]) == 4
    err = capsys.readouterr().err
    assert (
        f"{tweets}, row 1 has the label 'neutral', which {three_class_bundle} does not know. It knows: a, b, c" in err
    )


# info and verify


def test_info_tells_what_a_bundle_is(tiny_bundle, capsys):
    assert main(["info", str(tiny_bundle)]) == 0
    out = capsys.readouterr().out
    for part in ("neutral, partisan", "ridge", "32 tokens", "fp32 for any", "dimension"):
        assert part in out


def test_info_counts_all_stages_of_a_variant(staged_bundle, capsys):
    bundle, _ = staged_bundle
    sizes = [path.stat().st_size for path in bundle.glob("onnx/model_exit_*.onnx")]
    assert len(sizes) == 3
    assert main(["info", str(bundle)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  fp32_exit "))
    assert f" {sum(sizes) / 2**20:.1f} MiB" in line
    assert line.endswith("model_exit_0.onnx and 2 more (stages that end after layers 0, 1, 2)")


def test_info_json_is_the_manifest_and_its_hash(tiny_bundle, capsys):
    assert main(["info", str(tiny_bundle), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    raw = (tiny_bundle / "manifest.json").read_bytes()
    assert document["sha256"] == hashlib.sha256(raw).hexdigest()
    assert document["manifest"] == json.loads(raw)


def test_info_prints_no_control_characters(make_bundle, tmp_path, capsys):
    bundle = make_bundle(tmp_path / "b")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["training"] = {"note\x1b[2J": "\x1b]0;owned\x07", "nested": {"a": ["\x1b"]}}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert main(["info", str(bundle)]) == 0
    assert capsys.readouterr().out.replace("\n", "").isprintable()


def test_verify_accepts_a_sound_bundle(tiny_bundle, capsys):
    sha256 = hashlib.sha256((tiny_bundle / "manifest.json").read_bytes()).hexdigest()
    assert main(["verify", str(tiny_bundle), "--require-sha256", sha256.upper()]) == 0
    out = capsys.readouterr().out
    assert sha256 in out
    assert "9 golden texts on cpu" in out
    assert out.endswith("\nok\n")


def test_verify_refuses_another_bundle_than_required(tiny_bundle, capsys):
    assert main(["verify", str(tiny_bundle), "--require-sha256", "0" * 64]) == 3
    assert main(["verify", str(tiny_bundle), "--require-sha256", "abc"]) == 2


def test_verify_names_a_changed_file(tiny_bundle, tmp_path, capsys):
    bundle = copied(tiny_bundle, tmp_path)
    (bundle / "README.md").write_bytes(b"# Tiny\n")
    assert main(["verify", str(bundle), "--json"]) == 3
    out, err = capsys.readouterr()
    assert "README.md is not the file" in json.loads(out)["failures"][0]
    assert "README.md" in err


@pytest.mark.parametrize("verb", ["verify", "summarize"])
@pytest.mark.parametrize("where", ["golden", "parity", "evaluation"])
def test_a_whole_number_of_401_digits_is_a_bundle_refused(make_bundle, tmp_path, capsys, verb, where):
    bundle, huge = make_bundle(tmp_path / "bundle"), 10**400
    manifest = json.loads((bundle / "manifest.json").read_text())
    if where == "golden":
        golden = json.dumps({"text": "good", "logits": [huge, 0]}).encode()
        manifest["files"]["golden.jsonl"] = {"bytes": len(golden), "sha256": hashlib.sha256(golden).hexdigest()}
        (bundle / "golden.jsonl").write_bytes(golden)
    elif where == "parity":
        manifest["parity"]["golden_difference"] = dict.fromkeys(manifest["variants"], huge)
    else:
        manifest["evaluation"] = {"test": {"confusion": [[huge, 1], [1, huge]]}}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "t.csv").write_text("text,k\ngood,a\n")
    argv = ["verify", bundle] if verb == "verify" else ["summarize", tmp_path / "t.csv", "--by", "k", "--model", bundle]
    code = main(list(map(str, argv)))
    if (verb, where) == ("summarize", "golden"):  # which it does not read; there is no evaluation either
        assert code == 4
    else:
        assert code == 3
        assert ("OverflowError" if where == "golden" else "too large for a float") in capsys.readouterr().err


def test_verify_finds_results_that_are_not_the_golden_ones(make_bundle, tmp_path, capsys):
    bundle, other = make_bundle(tmp_path / "b"), make_bundle(tmp_path / "other", seed=8)
    golden = (other / "golden.jsonl").read_bytes()
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["golden.jsonl"] = {"bytes": len(golden), "sha256": hashlib.sha256(golden).hexdigest()}
    (bundle / "golden.jsonl").write_bytes(golden)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert main(["verify", str(bundle)]) == 3
    out, err = capsys.readouterr()
    assert "FAILED" in out
    assert "does not compute the golden logits" in err


def test_what_is_no_bundle_exits_3(tmp_path, capsys):
    for argv in (["info", str(tmp_path)], ["verify", str(tmp_path / "none")]):
        assert main(argv) == 3
        assert "edgewren export" in capsys.readouterr().err
