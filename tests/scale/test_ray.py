"""Ray with two workers: the scores of one machine, parts that are whole or not there, workers that are killed."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.data
from scaled_archives import assert_same_rows, read_scored
from worker_killer import Killer, ray_workers

from edgewren.archive.decimals import shortest
from edgewren.archive.readers import open_table
from edgewren.cli.main import main
from edgewren.integrations.ray import score_dataset
from edgewren.integrations.ray_archive import MANIFEST, Options, find, plan, score_on_ray
from edgewren.integrations.ray_archive import _score_split as score_split
from edgewren.integrations.shipped import Placement, pack

pytestmark = [pytest.mark.scale, pytest.mark.usefixtures("ray_cluster")]


def parts_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("_"))


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def command(*arguments) -> int:
    return main(["score", *map(str, arguments), "--engine", "ray"])


def test_workers_killed_20_times_in_200_000_rows_nothing_is_missing_and_nothing_twice(
    archive, tiny_bundle, tmp_path, record_property
):
    folder = tmp_path / "out"
    with Killer(ray_workers, kills=20, seed=1) as killer:
        manifest = score_on_ray(tiny_bundle, archive.files, str(folder))
    record_property("kills", len(killer.killed))
    assert len(killer.killed) == len(set(killer.killed)) == 20
    assert manifest["rows"] == len(archive.rows) == 200_000
    assert_same_rows(read_scored(parts_of(folder)), archive.rows)
    # one after the other without their headers, the parts are the very bytes of the one machine
    bodies = [path.read_bytes().partition(b"\n") for path in parts_of(folder)]
    assert bodies[0][0] + b"\n" + b"".join(body for _, _, body in bodies) == archive.scored.read_bytes()
    assert len(bodies) == len(archive.files)
    assert {entry.name for entry in folder.iterdir() if entry.name.startswith("_")} == {
        MANIFEST,
        "_plan.json",
        "_records",
    }


def test_ray_data_adds_the_columns_of_the_command_line(small_archive, tiny_bundle):
    tables = [pq.read_table(path) for path in sorted(small_archive.parquet.iterdir())]
    scored = score_dataset(ray.data.from_arrow(tables), tiny_bundle, actors=2, batch_rows=64)
    table = pa.concat_tables(ray.get(scored.to_arrow_refs()))
    assert table.column_names == ["id", "text", "label", "score", "score_neutral", "score_partisan", "status"]
    printed = shortest(table["score"].to_numpy())
    ids, labels, statuses = (table[name].to_pylist() for name in ("id", "label", "status"))
    found = list(zip(ids, labels, printed, statuses, strict=True))
    assert_same_rows(found, small_archive.rows)


def test_every_format_and_an_address_give_what_one_machine_gives(small_archive, tiny_bundle, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "some.jsonl"
    source.write_text('{"id": "a", "text": "good vote"}\n{"id": "b", "text": ""}\n{"id": "c", "text": 5}\n')
    inputs = [small_archive.files[0], f"file://{tmp_path}/in/*.jsonl", small_archive.parquet / "01.parquet"]
    assert command(*inputs, "--model", tiny_bundle, "--output", f"file://{tmp_path}/out") == 5
    assert "row 3 of file://" in capsys.readouterr().err
    folder = tmp_path / "out"
    names = ["00000-tweets-00.csv", "00001-some.jsonl", "00002-01.parquet"]
    assert [path.name for path in parts_of(folder)] == names
    for one, path in zip((small_archive.files[0], source, inputs[2]), parts_of(folder), strict=True):
        alone = tmp_path / f"alone{path.suffix}"
        main(["score", str(one), "--model", str(tiny_bundle), "--output", str(alone), "--max-bad-rows", "1"])
        if path.suffix == ".parquet":
            with open_table(path) as ours, open_table(alone) as theirs:
                assert [row.fields for row in ours] == [row.fields for row in theirs]
        else:
            assert path.read_bytes() == alone.read_bytes()
    (rejected,) = (folder / "_rejects" / "00001-some.jsonl.jsonl").read_text().splitlines()
    assert json.loads(rejected)["source"] == f"file://{source}"
    manifest = manifest_of(folder)
    assert [part["rows"] for part in manifest["parts"]] == [200, 3, 200]
    assert (manifest["rows"], manifest["statuses"]["rejected"]) == (403, 1)
    assert manifest["model"]["manifest_sha256"] == pack(tiny_bundle).sha256


def test_a_split_that_runs_twice_at_once_overwrites_itself(small_archive, tiny_bundle, tmp_path):
    (split,) = plan(find(small_archive.files[0]), Options())
    outcomes = []
    runs = [
        threading.Thread(
            target=lambda: outcomes.append(
                score_split(pack(tiny_bundle), split, str(tmp_path / "out"), Options(), Placement())
            )
        )
        for _ in range(4)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(outcomes) == 4
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert [path.name for path in parts_of(tmp_path / "out")] == [split.part]
    assert_same_rows(read_scored(parts_of(tmp_path / "out")), small_archive.rows[:200])


def test_an_unfinished_run_goes_on_and_what_is_finished_is_not_done_again(
    small_archive, tiny_bundle, three_class_bundle, tmp_path, capsys
):
    folder = tmp_path / "out"
    arguments = [*small_archive.files, "--model", tiny_bundle, "--output", folder]
    assert command(*arguments) == 0
    before = {path.name: path.read_bytes() for path in parts_of(folder)}
    kept = parts_of(folder)[0].stat().st_mtime_ns
    assert command(*arguments) == 2
    (folder / MANIFEST).unlink()  # as a driver that was killed leaves it
    (folder / "_records" / "00001-tweets-01.csv.json").unlink()
    parts_of(folder)[2].write_bytes(b"torn")
    assert command(*arguments) == 2
    assert command(*[*arguments[:-3], three_class_bundle, *arguments[-2:], "--resume"]) == 7
    assert "model of the unfinished run differ" in capsys.readouterr().err
    assert command(*arguments, "--resume") == 0
    assert {path.name: path.read_bytes() for path in parts_of(folder)} == before
    assert parts_of(folder)[0].stat().st_mtime_ns == kept
    assert manifest_of(folder)["resumed_parts"] == 1
    assert command(*small_archive.files[:2], *arguments[-4:], "--force") == 0
    assert len(parts_of(folder)) == 2, "parts of the earlier run would be read with the new ones"


def test_force_removes_a_part_whose_worker_died_before_its_record(small_archive, tiny_bundle, tmp_path):
    folder = tmp_path / "out"
    arguments = [*small_archive.files, "--model", tiny_bundle, "--output", folder]
    assert command(*arguments) == 0
    (folder / "_records" / "00002-tweets-02.csv.json").unlink()
    (folder / "notes.txt").write_text("somebody else's")
    assert command(*small_archive.files[:2], *arguments[-4:], "--force") == 0
    assert [path.name for path in parts_of(folder)] == ["00000-tweets-00.csv", "00001-tweets-01.csv", "notes.txt"]
    (folder / "_plan.json").write_text("damaged")
    assert command(*arguments, "--force") == 0


def test_relative_paths_are_those_of_the_driver(small_archive, tiny_bundle, tmp_path, monkeypatch):
    """Workers were started elsewhere."""
    monkeypatch.chdir(Path(small_archive.files[0]).parent)
    name = Path(small_archive.files[0]).name
    relative = os.path.relpath(tmp_path / "out")
    assert command(name, "--model", os.path.relpath(tiny_bundle), "--output", relative) == 0
    (part,) = parts_of(tmp_path / "out")
    assert_same_rows(read_scored([part]), small_archive.rows[:200])


def test_a_second_session_of_a_worker_finds_the_bundle(tiny_bundle):
    @ray.remote(num_cpus=2)
    def answers(packed) -> bool:
        from edgewren.integrations.shipped import classifier_of

        classifier = classifier_of(packed, Placement(threads=2))
        for _ in range(12):
            classifier.predict(["good"])
        return classifier._alone._making.result(20) is not None

    assert ray.get(answers.remote(pack(tiny_bundle)))


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--require-sha256", "0" * 64], 3, "0000"),
        (["--text-column", "txet"], 4, "Did you mean 'text'"),
        (["--output-format", "xlsx"], 2, "Cannot write format"),
        (["missing-*.csv"], 4, "is not a file"),
        (["unknown://x/y.csv"], 4, "nothing here knows"),
        (["-"], 2, "writes a folder"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_manifest(
    small_archive, tiny_bundle, tmp_path, capsys, options, code, message
):
    folder = tmp_path / "out"
    assert command(small_archive.files[0], *options, "--model", tiny_bundle, "--output", folder) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (folder / MANIFEST).exists()
