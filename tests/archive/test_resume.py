"""An unfinished run: what goes on, what is refused, and what each refusal leaves as it was."""

from __future__ import annotations

import bz2
import csv
import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

import archives
import numpy as np
import pytest
from faulty_disk import DiedError, DyingDisk

from edgewren import Classifier
from edgewren.archive import lines
from edgewren.archive.disk import Disk
from edgewren.archive.output import JournaledOutput
from edgewren.archive.run import score_archive
from edgewren.cli.main import main
from edgewren.errors import InputError, LockedError, OutputError, ResumeError, UsageError


@pytest.fixture
def source(tmp_path) -> Path:
    return archives.write(tmp_path / "in.csv", archives.rows(30))


@pytest.fixture
def output(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "o.csv.gz"


def run(classifier, source, output, **options):
    return score_archive(classifier, [source] if isinstance(source, Path) else source, output, window=5, **options)


def interrupted(classifier, source, output, at: int = 30, **options):
    disk = DyingDisk(at, output.parent)
    with pytest.raises(DiedError):
        run(classifier, source, output, disk=disk, **options)
    disk.bury()
    return archives.snapshot(output.parent)


def whole(classifier, source, output, **options) -> dict[str, bytes]:
    """What an undisturbed run leaves, which is cleared away."""
    run(classifier, source, output, **options)
    expected = archives.result(output)
    for path in output.parent.iterdir():
        path.unlink()
    return expected


# What goes on


def test_a_plain_rerun_of_an_unfinished_run_says_how_to_go_on(classifier, source, output):
    before = interrupted(classifier, source, output)
    with pytest.raises(UsageError, match=r"unfinished run with \d+ rows. Go on with --resume, or .* --force"):
        run(classifier, source, output)
    assert archives.snapshot(output.parent) == before


def test_force_starts_over(classifier, source, output):
    expected = whole(classifier, source, output)
    interrupted(classifier, source, output)
    assert run(classifier, source, output, force=True).resumed == 0
    assert archives.result(output) == expected


def test_resume_begins_where_nothing_was_begun_and_ends_where_all_is_done(classifier, source, output):
    first = run(classifier, source, output, resume=True)
    assert (first.rows, first.resumed) == (30, 0)
    stamp = output.stat().st_mtime_ns
    again = run(classifier, source, output, resume=True)
    assert again.document == first.document
    assert output.stat().st_mtime_ns == stamp


def test_texts_that_left_before_the_interruption_still_count(staged_bundle, tmp_path, output):
    bundle, texts = staged_bundle
    classifier = Classifier.load(bundle, device="cpu", threads=1)
    source = archives.write(tmp_path / "in.csv", [{"text": text} for text in texts[:30]])
    expected = run(classifier, source, output)
    for path in output.parent.iterdir():
        path.unlink()
    interrupted(classifier, source, output)
    resumed = run(classifier, source, output, resume=True)
    assert resumed.resumed == 1
    assert resumed.left_after_layer == expected.left_after_layer
    assert sum(resumed.left_after_layer.values()) == pytest.approx(1, abs=1e-5)


def test_resume_does_not_take_another_runs_output_for_its_own(classifier, source, output):
    run(classifier, source, output)
    with pytest.raises(UsageError, match="exists already"):
        run(classifier, source, output, resume=True, abstain_below=0.9)
    assert not Path(f"{output}.journal").exists()


def test_the_report_counts_what_all_runs_did(classifier, source, output):
    expected = run(classifier, source, output).document
    interrupted(classifier, source, output, force=True)
    report = run(classifier, source, output, resume=True)
    assert report.resumed == 1
    same = ("rows", "statuses", "distinct", "tokens", "duplicate_share", "output", "inputs", "rejections")
    assert {key: report.document[key] for key in same} == {key: expected[key] for key in same}
    assert json.loads(Path(f"{output}.report.json").read_text()) == json.loads(json.dumps(report.document))


def test_several_inputs_resume_in_the_middle_of_any(classifier, tmp_path, output):
    sources = [
        archives.write(tmp_path / name, archives.rows(12, seed=n))
        for n, name in enumerate(("a.csv", "b.csv.gz", "c.csv.xz"))
    ]
    expected = whole(classifier, sources, output)
    for at in range(12, 60, 4):
        interrupted(classifier, sources, output, at)
        run(classifier, sources, output, resume=True)
        assert archives.result(output) == expected
        run(classifier, sources, output, resume=True)
        for path in output.parent.iterdir():
            path.unlink()


def test_records_of_the_journal_do_not_grow_with_the_inputs_behind_them(classifier, tmp_path, output):
    sources = [archives.write(tmp_path / f"in-{number:03}.csv", archives.rows(5)) for number in range(60)]
    expected = whole(classifier, sources, output)
    sizes, path = [], output.with_name("o.csv.gz.journal")
    with pytest.raises(KeyboardInterrupt):
        run(
            classifier,
            sources,
            output,
            progress=lambda rows, _: sizes.append(path.stat().st_size) or _stop_at(rows, 200),
        )
    records = np.diff(sizes)
    assert records[-10:].mean() < 1.1 * records[:10].mean()
    run(classifier, sources, output, resume=True)
    assert archives.result(output) == expected
    report = json.loads(output.with_name("o.csv.gz.report.json").read_text())
    assert [Path(done["path"]).name for done in report["inputs"]] == [source.name for source in sources]


def _stop_at(rows: int, limit: int) -> None:
    if rows >= limit:
        raise KeyboardInterrupt


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "shift_jis"])
def test_other_encodings_resume(classifier, tmp_path, output, encoding):
    text = {"utf-16": "é 🔥 good", "cp1252": "é good", "shift_jis": "字 good"}[encoding]
    source = tmp_path / "in.csv"
    source.write_bytes(("text\n" + "".join(f"{text} {n}\n" for n in range(30))).encode(encoding))
    expected = whole(classifier, source, output, encoding=encoding)
    interrupted(classifier, source, output, encoding=encoding)
    run(classifier, source, output, resume=True, encoding=encoding)
    assert archives.result(output) == expected


def test_an_output_that_replaces_its_own_input_resumes(classifier, source):
    expected = None
    original = source.read_bytes()
    for at in range(5, 70, 6):
        for path in source.parent.glob("in.csv*"):
            path.unlink()
        source.write_bytes(original)
        os.utime(source, ns=(1, 1))
        if expected is None:
            run(classifier, source, source, force=True)
            expected = source.read_bytes()
            source.write_bytes(original)
            os.utime(source, ns=(1, 1))
        disk = DyingDisk(at, source.parent)
        try:
            run(classifier, source, source, force=True, disk=disk)
        except DiedError:
            disk.bury()
            run(classifier, source, source, resume=True, force=True)
        assert source.read_bytes() == expected


def test_a_failing_read_leaves_a_run_that_can_go_on(classifier, source, output, monkeypatch):
    expected = whole(classifier, source, output)
    monkeypatch.setattr(lines, "_CHUNK_BYTES", 200)
    original = lines.ByteSource.chunks

    def chunks(self):
        for number, chunk in enumerate(original(self)):
            if number == 6:
                raise InputError(f"{self.name} cannot be read") from OSError(5, "Input/output error")
            yield chunk

    monkeypatch.setattr(lines.ByteSource, "chunks", chunks)
    with pytest.raises(InputError, match="cannot be read"):
        run(classifier, source, output)
    monkeypatch.setattr(lines.ByteSource, "chunks", original)
    assert run(classifier, source, output, resume=True).resumed == 1
    assert archives.result(output) == expected


# What is refused


@pytest.mark.parametrize("change", ["byte in what was scored", "byte behind it", "longer", "shorter", "gone"])
def test_a_changed_input_is_refused_and_nothing_touched(classifier, source, output, change):
    before = interrupted(classifier, source, output)
    data = bytearray(source.read_bytes())
    if change == "gone":
        source.unlink()
    else:
        place = 40 if "what was" in change else len(data) - 3
        data[place] ^= 1
        source.write_bytes({"longer": data + b"1,x,y\n", "shorter": data[:-20]}.get(change, data))
    with pytest.raises((ResumeError, InputError)) as caught:
        run(classifier, source, output, resume=True)
    assert caught.value.exit_code == (4 if change == "gone" else 7)
    if change in ("longer", "shorter"):
        size, new = len(data), source.stat().st_size
        assert f"input 1's bytes was {size}, is {new}; input 1's changed_ns was" in str(caught.value)
    assert archives.snapshot(output.parent) == before


def test_a_changed_byte_is_seen_where_size_and_time_are_the_same(classifier, source, output):
    before = interrupted(classifier, source, output)
    times = source.stat().st_atime_ns, source.stat().st_mtime_ns
    data = bytearray(source.read_bytes())
    data[40] ^= 1
    source.write_bytes(data)
    os.utime(source, ns=times)
    with pytest.raises(ResumeError, match="has changed in what was scored"):
        run(classifier, source, output, resume=True)
    assert archives.snapshot(output.parent) == before


def test_a_changed_finished_input_is_refused(classifier, tmp_path, output):
    sources = [archives.write(tmp_path / f"{n}.csv", archives.rows(12, seed=n)) for n in range(3)]
    before = interrupted(classifier, sources, output, 40)
    times = sources[0].stat().st_mtime_ns
    data = bytearray(sources[0].read_bytes())
    data[-3] ^= 1
    sources[0].write_bytes(data)
    os.utime(sources[0], ns=(times, times))
    with pytest.raises(ResumeError, match=r"0.csv has changed since it was scored"):
        run(classifier, sources, output, resume=True)
    assert archives.snapshot(output.parent) == before


def test_another_bundle_is_refused(classifier, source, output, make_bundle, tmp_path):
    before = interrupted(classifier, source, output)
    other = Classifier.load(make_bundle(tmp_path / "other", seed=8), device="cpu", threads=1)
    with pytest.raises(ResumeError, match="model manifest_sha256 was") as caught:
        run(other, source, output, resume=True)
    assert caught.value.exit_code == 7
    assert archives.snapshot(output.parent) == before
    copy = tmp_path / "copy"
    shutil.copytree(classifier.bundle.path, copy)
    run(Classifier.load(copy, device="cpu", threads=2), source, output, resume=True)  # the same bundle elsewhere


@pytest.mark.parametrize(
    "options",
    [{"abstain_below": 0.6}, {"prefix": "x_"}, {"excel_safe": True}, {"text_column": "author"}, {"format": "csv"}],
)
def test_other_options_are_refused(classifier, source, output, options):
    before = interrupted(classifier, source, output)
    with pytest.raises(ResumeError, match=f"option {next(iter(options))} was"):
        run(classifier, source, output, resume=True, **options)
    assert archives.snapshot(output.parent) == before


def test_a_run_that_had_only_names_left_to_give_is_finished_by_the_same_run_alone(classifier, source, tmp_path, output):
    class NameTaker(Disk):
        def replace(self, source, target):
            if target == output:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().replace(source, target)

    expected = whole(classifier, source, output)
    with pytest.raises(OutputError):
        run(classifier, source, output, disk=NameTaker())
    before = archives.snapshot(output.parent)
    other = archives.write(tmp_path / "other.csv", archives.rows(3))
    with pytest.raises(ResumeError, match="input 1's path was") as caught:
        run(classifier, other, output, resume=True)
    assert caught.value.exit_code == 7
    with pytest.raises(ResumeError, match="option prefix was"):
        run(classifier, source, output, resume=True, prefix="x_")
    assert archives.snapshot(output.parent) == before
    assert run(classifier, source, output, resume=True).rows == 30
    assert archives.result(output) == expected


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_partial_output_is_refused(classifier, source, output, damage):
    interrupted(classifier, source, output, 40)
    partial = Path(f"{output}.partial")
    data = bytearray(partial.read_bytes())
    data[len(data) // 3] ^= 1
    partial.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    if damage == "gone":
        partial.unlink()
    before = archives.snapshot(output.parent)
    with pytest.raises(ResumeError, match=r"partial is not what the journal says.*--force"):
        run(classifier, source, output, resume=True)
    assert archives.snapshot(output.parent) == before


def damaged_journals(classifier, source, output, step: int) -> tuple[int, int]:
    """Damage a journal at every `step`th byte: each time it is refused and untouched, or the result is right."""
    expected = whole(classifier, source, output)
    before = interrupted(classifier, source, output, 40)
    name = f"{output.name}.journal"
    refused = went_on = 0
    for place in range(0, len(before[name]), step):
        for mask in (0x01, 0xFF):
            data = bytearray(before[name])
            data[place] ^= mask
            for path in output.parent.iterdir():
                path.unlink()
            for other, content in before.items():
                (output.parent / other).write_bytes(content)
            (output.parent / name).write_bytes(data)
            try:
                run(classifier, source, output, resume=True)
            except ResumeError:
                refused += 1
                assert archives.snapshot(output.parent) == {**before, name: bytes(data)}
            else:
                went_on += 1
                assert archives.result(output) == expected
    return refused, went_on


def test_a_journal_damaged_at_some_bytes_is_refused_or_harmless(classifier, source, output):
    refused, went_on = damaged_journals(classifier, source, output, 151)
    assert refused > 20
    assert went_on > 0


@pytest.mark.proof
def test_a_journal_damaged_at_any_byte_is_refused_or_harmless(classifier, source, output, record_property):
    refused, went_on = damaged_journals(classifier, source, output, 3)
    record_property("refused", refused)
    record_property("went on", went_on)
    assert refused + went_on > 3000


@pytest.mark.slow
def test_a_journal_cut_at_any_byte_goes_on_or_is_refused(classifier, source, output):
    expected = whole(classifier, source, output)
    before = interrupted(classifier, source, output, 40)
    name = f"{output.name}.journal"
    for size in range(0, len(before[name]), 97):
        for path in output.parent.iterdir():
            path.unlink()
        for other, content in before.items():
            (output.parent / other).write_bytes(content)
        (output.parent / name).write_bytes(before[name][:size])
        try:
            run(classifier, source, output, resume=True)
        except ResumeError:
            assert size < len(before[name].split(b"\n")[0]) + 1  # without its header it says nothing
        else:
            assert archives.result(output) == expected


def test_a_second_run_is_locked_out(classifier, source, output):
    interrupted(classifier, source, output)
    journal = Path(f"{output}.journal").open("rb")  # noqa: SIM115
    fcntl.flock(journal, fcntl.LOCK_EX)
    before = archives.snapshot(output.parent)
    for options in ({}, {"resume": True}, {"force": True}):
        with pytest.raises(LockedError, match="is being written by another run") as caught:
            run(classifier, source, output, **options)
        assert caught.value.exit_code == 8
        assert archives.snapshot(output.parent) == before
    journal.close()
    run(classifier, source, output, resume=True)


def test_standard_input_and_output_are_not_resumable(classifier, source, output, monkeypatch):
    with pytest.raises(UsageError, match="Standard input cannot be read twice"):
        run(classifier, ["-"], output, resume=True)
    with pytest.raises(UsageError, match="standard output is not kept"):
        run(classifier, source, None, resume=True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    disk = DyingDisk(30, output.parent)
    with pytest.raises(DiedError):
        run(classifier, ["-"], output, disk=disk)
    disk.bury()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    assert run(classifier, ["-"], output).rows == 30  # what is left of it is in nobody's way
    archives.result(output)


# Places that cannot be written, and inputs that end the run


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_output_error(classifier, source, output):
    output.parent.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            run(classifier, source, output)
    finally:
        output.parent.chmod(0o755)


def test_a_file_size_limit_that_is_reached_ends_with_6_and_resumes(classifier, source, output):
    resource = pytest.importorskip("resource")
    import signal

    expected = whole(classifier, source, output)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large") as caught:
            run(classifier, source, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.exit_code == 6
    run(classifier, source, output, resume=True)
    assert archives.result(output) == expected


def test_places_that_are_none_are_output_errors(classifier, source, tmp_path):
    with pytest.raises(OutputError, match="there is no folder .*none. Make it first"):
        run(classifier, source, tmp_path / "none" / "o.csv")
    with pytest.raises(OutputError, match="is a folder"):
        run(classifier, source, tmp_path)


def test_a_link_stays_a_link(classifier, source, tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    run(classifier, source, tmp_path / "link.csv", force=True)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("id,author,text,label")


def test_what_lies_beside_an_output_through_a_link_is_named_where_it_lies(source, tmp_path, tiny_bundle, capsys):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real" / "x.csv")
    argv = ["score", str(source), "--model", str(tiny_bundle), "-o", str(tmp_path / "link.csv")]
    assert main(argv) == 5
    rejects = tmp_path / "real" / "x.csv.rejects.jsonl"
    assert f"All are in {rejects}." in capsys.readouterr().err
    assert json.loads((tmp_path / "real" / "x.csv.report.json").read_text())["rejects"]["path"] == str(rejects)
    assert main(["summarize", str(tmp_path / "link.csv"), "--by", "author"]) == 4
    assert "The bundle has no evaluation" in capsys.readouterr().err  # it was found, by the report
    (tmp_path / "real" / "x.csv").unlink()
    assert main(argv) == 2
    assert f"{rejects} exists already" in capsys.readouterr().err


def test_the_word_after_ctrl_c_finds_an_output_through_a_link(source, tmp_path, tiny_bundle, capsys, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real" / "x.csv")
    finish = JournaledOutput.finish

    def interrupted_before(*args):
        monkeypatch.setattr(JournaledOutput, "finish", finish)
        raise KeyboardInterrupt

    monkeypatch.setattr(JournaledOutput, "finish", interrupted_before)
    argv = ["score", str(source), "--model", str(tiny_bundle), "-o", str(tmp_path / "link.csv")]
    assert main(argv) == 130
    assert "link.csv is unfinished. Go on with the same command and --resume." in capsys.readouterr().err


@pytest.mark.slow
def test_an_unsound_input_leaves_nothing(classifier, tmp_path, output):
    source = tmp_path / "in.csv.gz"
    source.write_bytes(gzip.compress(b"text\n" + b"good vote\n" * 5000)[:-4])
    with pytest.raises(InputError, match="cut short"):
        run(classifier, source, output)
    assert list(output.parent.iterdir()) == []


def test_an_input_that_changes_while_it_is_read_is_refused(classifier, source, output):
    def grow(rows: int, _bytes: int) -> None:
        if rows == 5:
            with source.open("a") as stream:
                stream.write("1,x,late\n")

    with pytest.raises(InputError, match="was changed while it was read"):
        run(classifier, source, output, progress=grow)


def test_rejects_of_an_earlier_run_do_not_stay(classifier, source, output, tmp_path):
    run(classifier, source, output)
    assert Path(f"{output}.rejects.jsonl").exists()
    good = tmp_path / "good.csv"
    good.write_text("text\ngood\n")
    run(classifier, good, output, force=True)
    assert "rejects" not in archives.result(output)


@pytest.mark.parametrize("suffix", [".partial", ".journal", ".report.json", ".rejects.jsonl", ".rejects.jsonl.partial"])
@pytest.mark.parametrize("force", [False, True])
def test_an_input_with_a_name_that_the_run_uses_itself_is_refused(classifier, source, tmp_path, suffix, force):
    taken = tmp_path / f"o.csv{suffix}"
    shutil.copy(source, taken)
    (tmp_path / "link").symlink_to(taken)
    before = archives.snapshot(tmp_path)
    for named in (taken, tmp_path / "link"):
        with pytest.raises(UsageError, match="are written and removed. Name another output"):
            run(classifier, named, tmp_path / "o.csv", format="csv", force=force)
    assert archives.snapshot(tmp_path) == before


@pytest.mark.parametrize("suffix", [".partial", ".sealed.partial", ".report.json", ".rejects.jsonl.partial"])
@pytest.mark.parametrize("resume", [False, True])
def test_what_somebody_else_keeps_beside_the_output_is_not_overwritten(classifier, source, output, suffix, resume):
    Path(f"{output}{suffix}").write_text("precious")
    before = archives.snapshot(output.parent)
    with pytest.raises(UsageError, match=f"{suffix} exists already. Use --force"):
        run(classifier, source, output, resume=resume)
    assert archives.snapshot(output.parent) == before
    run(classifier, source, output, force=True)
    assert output.exists()


def test_a_report_whose_output_is_gone_is_replaced(classifier, source, output):
    run(classifier, source, output)
    expected = archives.result(output)
    output.unlink()
    Path(f"{output}.rejects.jsonl").unlink()
    run(classifier, source, output)
    assert archives.result(output) == expected


def test_damage_that_a_library_calls_an_input_error_leaves_nothing(classifier, tmp_path, output):
    source = tmp_path / "in.csv.bz2"
    rows = "".join(f"good vote {hashlib.sha512(bytes([n % 256, n // 256])).hexdigest()}\n" for n in range(20_000))
    data = bytearray(bz2.compress(("text\n" + rows).encode()))  # of several blocks
    data[len(data) * 3 // 4] ^= 1
    source.write_bytes(data)
    with pytest.raises(InputError):
        run(classifier, source, output)
    assert list(output.parent.iterdir()) == []


def test_a_disk_that_is_full_from_the_start_leaves_nothing(classifier, source, output):
    class FullDisk(Disk):
        def write(self, file, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="Nothing was changed there"):
        run(classifier, source, output, disk=FullDisk())
    assert list(output.parent.iterdir()) == []


# Patterns, statuses and the command line


def test_patterns_are_expanded_in_order_and_leave_the_output_out(classifier, tmp_path):
    for name in ("b.csv", "a.csv", "c.csv"):
        (tmp_path / name).write_text(f"text\ngood {name}\n")
    for _ in range(2):
        score_archive(classifier, [str(tmp_path / "*.csv")], tmp_path / "out.csv", force=True)
        found = list(csv.reader((tmp_path / "out.csv").open()))
        assert [row[0] for row in found[1:]] == ["good a.csv", "good b.csv", "good c.csv"]
    with pytest.raises(InputError, match=r"No file matches"):
        score_archive(classifier, [str(tmp_path / "*.tsv")], tmp_path / "x.csv")


def test_rows_below_the_threshold_are_uncertain_and_keep_their_label(classifier, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text('text\ngood vote\nbad tax\n""\n' + "good " * 100 + "\n")
    score_archive(classifier, [source], tmp_path / "plain.csv")
    report = score_archive(classifier, [source], tmp_path / "o.csv", abstain_below=0.85)
    plain, found = (list(csv.DictReader((tmp_path / name).open())) for name in ("plain.csv", "o.csv"))
    assert [row["label"] for row in found] == [row["label"] for row in plain]
    expected = [
        "uncertain" if row["status"] in ("ok", "truncated") and float(row["score"]) < 0.85 else row["status"]
        for row in plain
    ]
    assert [row["status"] for row in found] == expected
    assert report.uncertain == expected.count("uncertain") > 0
    for wrong in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="abstain_below"):
            score_archive(classifier, [source], tmp_path / "x.csv", abstain_below=wrong)


def test_the_command_goes_on_with_resume(source, output, tiny_bundle, capsys, classifier):
    score = ["score", str(source), "--model", str(tiny_bundle), "--output", str(output), "--max-bad-rows", "9"]
    assert main(score) == 0
    expected = archives.result(output)
    assert main(score) == 2
    assert main([*score, "--resume"]) == 0
    assert main([*score, "--resume", "--force"]) == 2
    for path in output.parent.iterdir():
        path.unlink()
    disk = DyingDisk(12, output.parent)
    with pytest.raises(DiedError):
        score_archive(classifier, [str(source)], output, disk=disk)
    disk.bury()
    capsys.readouterr()
    assert main(score) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*score, "--abstain-below", "0.9", "--resume"]) == 7
    assert main([*score, "--resume"]) == 0
    assert "resumed 1 times" in capsys.readouterr().err
    assert archives.result(output) == expected
