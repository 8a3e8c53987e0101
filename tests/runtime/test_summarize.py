"""Scored files to shares per group: what is counted, what is left out and said, and in which shapes it comes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from faulty_disk import FullDisk

from edgewren import picture
from edgewren.archive import compression, tally
from edgewren.archive.periods import period_of, zone_named
from edgewren.archive.tally import count_labels
from edgewren.cli.main import main
from edgewren.errors import InputError, UsageError

CONFUSION = [[540, 60], [120, 480]]


def held_out(bundle, *, name="10-fold cross-validation", confusion=CONFUSION, labels=("neutral", "partisan")):
    """Give a bundle an evaluation, as training would have."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["evaluation"] = {name: {"labels": list(labels), "confusion": confusion}}
    path.write_text(json.dumps(manifest))
    return bundle


@pytest.fixture(scope="module")
def bundle(make_bundle, tmp_path_factory):
    """Two classes, with errors known from 1,200 rows. Read only: copy it to change it."""
    return held_out(make_bundle(tmp_path_factory.mktemp("bundles") / "bundle"))


@pytest.fixture
def other(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "other")


ROWS = [
    ("ann", "Wed Oct 10 20:19:24 +0000 2018", "neutral", "ok"),
    ("ann", "2018-10-31T23:30:00-05:00", "partisan", "truncated"),
    ("ann", "1539202764000", "partisan", "uncertain"),
    ("bob", "2018-11-05", "neutral", "repaired"),
    ("bob", "2018-11-06", "", "rejected:text is null, expected text"),
    ("bob", "2018-11-06", "neutral", "empty"),
    ("", "yesterday", "neutral", "ok"),
]


def scored(path, rows=ROWS, prefix=""):
    header = ["author", "created_at", f"{prefix}label", f"{prefix}status"]
    opened = gzip.open if path.suffix == ".gz" else open
    suffixes = path.suffixes
    with opened(path, "wt", encoding="utf-8", newline="") as stream:
        if ".jsonl" in suffixes:
            for row in rows:
                record = dict(zip(header, row, strict=True))
                record[f"{prefix}label"] = record[f"{prefix}label"] or None
                stream.write(json.dumps(record) + "\n")
        else:
            writer = csv.writer(stream, delimiter="\t" if ".tsv" in suffixes else ",")
            writer.writerows([header, *rows])
    return path


def written_by_pyarrow(path, rows=ROWS):
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    columns = dict(zip(("author", "created_at", "label", "status"), map(list, zip(*rows, strict=True)), strict=True))
    write_table(pa.table(columns), path)
    return path


def document(capsys, *argv):
    assert main(["summarize", *map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def counts(summary):
    return {group["group"]: [cell["count"] for cell in group["labels"]] for group in summary["groups"]}


# counting


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_every_format_gives_the_same_counts(tmp_path, bundle, capsys, name):
    path = (written_by_pyarrow if name.endswith("parquet") else scored)(tmp_path / name)
    summary = document(capsys, path, "--by", "author", "--model", bundle)
    assert counts(summary) == {"ann": [1, 2], "bob": [1, 0], None: [1, 0]}
    assert summary["rows"] == {
        "read": 7,
        "counted": 5,
        "uncertain_counted": 1,
        "uncertain_left_out": 0,
        "empty_left_out": 1,
        "rejected_left_out": 1,
    }


@pytest.mark.parametrize("spelled", [("true", "false"), ("True", "False"), ("TRUE", "FALSE")])
def test_true_and_false_are_counted_however_other_programs_have_written_them(make_bundle, tmp_path, capsys, spelled):
    labels = ("false", "true")
    bundle = held_out(make_bundle(tmp_path / "boolean", labels=labels), labels=labels)
    path = scored(tmp_path / "a.csv", [("ann", "", spelled[0], "ok"), ("ann", "", spelled[1], "ok")])
    assert counts(document(capsys, path, "--by", "author", "--model", bundle)) == {"ann": [1, 1]}
    assert counts(document(capsys, path, "--by", "author", "--no-adjust")) == {"ann": [1, 1]}


def test_several_files_are_counted_together(tmp_path, bundle, capsys):
    paths = scored(tmp_path / "a.csv"), scored(tmp_path / "b.jsonl")
    summary = document(capsys, *paths, "--by", "author", "--model", bundle)
    assert counts(summary) == {"ann": [2, 4], "bob": [2, 0], None: [2, 0]}


def test_uncertain_rows_count_with_their_label_unless_nothing_is_corrected(tmp_path, bundle, capsys):
    path = scored(tmp_path / "a.csv")
    summary = document(capsys, path, "--by", "author", "--no-adjust", "--uncertain", "exclude")
    assert counts(summary)["ann"] == [1, 1]
    assert summary["rows"]["uncertain_left_out"] == 1
    assert main(["summarize", str(path), "--by", "author", "--model", str(bundle), "--uncertain", "exclude"]) == 2
    assert "needs --no-adjust" in capsys.readouterr().err


def test_what_the_command_score_writes_can_be_summarized(tmp_path, bundle, capsys):
    texts = tmp_path / "texts.csv"
    texts.write_text("who,text\nx,good vote\nx,bad tax\ny,\ny,nonfinite\n", encoding="utf-8")
    out = tmp_path / "scored.csv"
    options = ["--model", str(bundle), "--prefix", "m_", "--max-bad-rows", "1", "--output", str(out)]
    assert main(["score", str(texts), *options]) == 0
    capsys.readouterr()
    summary = document(capsys, out, "--by", "who", "--model", bundle, "--prefix", "m_")
    assert summary["rows"]["read"] == 4
    assert summary["rows"]["empty_left_out"] == 1
    assert summary["rows"]["rejected_left_out"] == 1
    assert summary["total"]["rows"] == 2


def test_a_rejected_first_row_hides_no_column(tmp_path, bundle, capsys):
    texts, out = tmp_path / "texts.jsonl", tmp_path / "scored.jsonl"
    texts.write_text('oops\n{"who":"x","text":"good vote"}\n', encoding="utf-8")
    assert main(["score", str(texts), "--model", str(bundle), "--max-bad-rows", "1", "--output", str(out)]) == 0
    capsys.readouterr()
    summary = document(capsys, out, "--by", "who", "--model", bundle)
    assert (summary["rows"]["read"], summary["rows"]["rejected_left_out"], summary["total"]["rows"]) == (2, 1, 1)


@pytest.mark.parametrize("shape", ["v1", "archive"])
def test_scored_tweets_can_be_summarized_by_what_tweets_have(tmp_path, bundle, capsys, shape):
    tweets = [
        {
            "id_str": str(n),
            "created_at": "Wed Oct 10 20:19:24 +0000 2018",
            "full_text": text,
            "user": {"screen_name": who},
        }
        for n, (text, who) in enumerate([("good vote", "ann"), ("bad tax", "bob"), ("good", "ann")])
    ]
    source, out = tmp_path / "tweets.js", tmp_path / "scored.jsonl"
    if shape == "v1":
        source = tmp_path / "tweets.jsonl"
        source.write_text("".join(json.dumps(tweet) + "\n" for tweet in [{"limit": {"track": 1}}, *tweets]))
    else:
        source.write_text("window.YTD.tweets.part0 = " + json.dumps([{"tweet": tweet} for tweet in [{}, *tweets]]))
    assert main(["score", str(source), "--model", str(bundle), "--max-bad-rows", "1", "--output", str(out)]) == 0
    capsys.readouterr()
    by_author = document(capsys, out, "--by", "author", "--model", bundle)
    assert by_author["rows"]["read"] == 4
    assert by_author["rows"]["rejected_left_out"] == 1
    assert [(group["group"], group["rows"]) for group in by_author["groups"]] == [("ann", 2), ("bob", 1)]
    assert document(capsys, out, "--by", "created_at", "--model", bundle, "--period", "month")["total"]["rows"] == 3
    assert main(["summarize", str(source), "--by", "author", "--model", str(bundle)]) == 4
    assert "has no 'label'. Expected a file written by 'edgewren score'" in capsys.readouterr().err


def test_labels_that_scoring_did_not_write_are_not_counted(tmp_path, bundle, capsys):
    gold = tmp_path / "gold.csv"
    gold.write_text("author,text,label\nann,good vote,neutral\n")
    out = tmp_path / "s.csv"
    assert main(["score", str(gold), "--model", str(bundle), "--prefix", "p_", "-o", str(out)]) == 0
    for path in (gold, out):
        capsys.readouterr()
        assert main(["summarize", str(path), "--by", "author", "--model", str(bundle)]) == 4
        assert "has no column 'status'" in capsys.readouterr().err
    assert document(capsys, out, "--by", "author", "--model", bundle, "--prefix", "p_")["rows"]["read"] == 1


def test_patterns_are_expanded_and_missing_files_named(tmp_path, bundle, capsys):
    for name in ("a.csv", "b.csv"):
        scored(tmp_path / name, [("ann", "2018", "neutral", "ok")])
    assert document(capsys, tmp_path / "?.csv", "--by", "author", "--model", bundle)["rows"]["read"] == 2
    assert main(["summarize", str(tmp_path / "nope.csv"), "--by", "author"]) == 4
    assert "nope.csv does not exist" in capsys.readouterr().err


def test_labels_of_another_model_are_refused(tmp_path, bundle, capsys):
    path = scored(tmp_path / "a.csv", [("ann", "2018", "sarcastic", "ok")])
    assert main(["summarize", str(path), "--by", "author", "--model", str(bundle)]) == 4
    err = capsys.readouterr().err
    assert "row 1: the label 'sarcastic' is not one of the model's: neutral, partisan" in err


@pytest.mark.parametrize(("column", "prefix"), [("autor", ""), ("author", "x_")])
def test_a_missing_column_is_named_with_what_there_is(tmp_path, bundle, capsys, column, prefix):
    path = scored(tmp_path / "a.csv")
    argv = ["summarize", str(path), "--by", column, "--prefix", prefix, "--model", str(bundle)]
    assert main(argv) == 4
    assert "It has: author, created_at, label, status" in capsys.readouterr().err


def test_a_damaged_row_is_an_error_not_a_guess(tmp_path, bundle, capsys):
    path = tmp_path / "a.csv"
    path.write_text("author,label,status\nann,neutral,ok\nbob,neutral\n", encoding="utf-8")
    assert main(["summarize", str(path), "--by", "author", "--model", str(bundle)]) == 4
    assert "row 2: 2 fields where the header has 3" in capsys.readouterr().err


def test_nothing_to_count_says_so(tmp_path, bundle, capsys):
    path = scored(tmp_path / "a.csv", [("ann", "2018", "", "rejected:x")])
    assert main(["summarize", str(path), "--by", "author", "--model", str(bundle)]) == 4
    assert "None of the 1 rows can be counted (0 empty, 1 rejected" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_does_not_grow_with_rows(tmp_path):
    def peak(rows):
        path = tmp_path / f"{rows}.csv"
        path.write_text("author,label,status\n" + "ann,neutral,ok\n" * rows, encoding="utf-8")
        tracemalloc.start()
        try:
            count_labels([path], "author", labels=["neutral", "partisan"])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(90_000) < 1.2 * peak(30_000)  # both beyond what a reader keeps in hand


def test_a_column_of_ids_is_refused_before_memory_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(tally, "MAXIMUM_GROUPS", 1000)
    path = tmp_path / "a.csv"
    rows = "".join(f"{number},neutral,ok\n" for number in range(1001))
    path.write_text("id,label,status\n" + rows, encoding="utf-8")
    with pytest.raises(InputError, match="more than 1,000 different values"):
        count_labels([path], "id", labels=["neutral"])


# dates


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("Wed Oct 10 20:19:24 +0000 2018", "2018-10-10"),
        ("Wed Oct 10 20:19:24 -0500 2018", "2018-10-11"),
        ("2018-10-10", "2018-10-10"),
        ("20181010", "2018-10-10"),
        ("2018-10-10T20:19:24Z", "2018-10-10"),
        ("2018-10-10 20:19:24.123456789", "2018-10-10"),
        ("2018-10-10T23:30:00-05:00", "2018-10-11"),
        ("1539202764000", "2018-10-10"),
        ("1539202764", "2018-10-10"),
        (" 2018-10-10 ", "2018-10-10"),
    ],
)
def test_dates_are_read_and_brought_to_utc(text, day):
    assert [period_of(text, period) for period in ("day", "month", "year")] == [day, day[:7], day[:4]]


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "10/11/2018", "2018", "1050118621198921728", "Wed Foo 10 20:19:24 +0000 2018", "2018-13-01"],
)
def test_what_is_no_date_is_not_guessed(text):
    assert period_of(text, "day") is None


def test_days_begin_in_the_zone_that_is_asked_for():
    try:
        zone = zone_named("America/New_York")
    except UsageError:
        pytest.skip("this machine has no time zone data")
    assert period_of("2018-11-01T02:00:00Z", "month", zone) == "2018-10"
    assert period_of("2018-11-01", "month", zone) == "2018-11"


@pytest.mark.parametrize("name", ["Nowhere/Town", "../../etc/passwd", ""])
def test_unknown_zones_are_usage_errors(name):
    with pytest.raises(UsageError, match="Unknown time zone"):
        zone_named(name)


def test_months_stand_in_the_order_of_time_and_unreadable_dates_are_shown(tmp_path, bundle, capsys):
    path = scored(tmp_path / "a.csv", [("x", "2018-12-01", "neutral", "ok"), *ROWS])
    options = ["--by", "created_at", "--period", "month", "--model", bundle]
    summary = document(capsys, path, *options)
    assert list(counts(summary).items()) == [
        ("2018-10", [1, 1]),
        ("2018-11", [1, 1]),
        ("2018-12", [1, 0]),
        (None, [1, 0]),
    ]
    assert main(["summarize", str(path), *map(str, options)]) == 0
    assert "(none): 1 rows with no readable date in 'created_at', for example 'yesterday' in row 8" in (
        capsys.readouterr().out
    )


def test_a_column_without_any_date_is_an_error(tmp_path, bundle, capsys):
    path = scored(tmp_path / "a.csv")
    assert main(["summarize", str(path), "--by", "author", "--period", "year", "--model", str(bundle)]) == 4
    assert "No value of the column 'author' could be read as a date, for example 'ann'" in capsys.readouterr().err


# the errors of the classifier


def many(neutral, partisan):
    return [("ann", "2018-10-10", "neutral", "ok")] * neutral + [("ann", "2018-10-10", "partisan", "ok")] * partisan


def test_shares_are_corrected_by_the_bundles_evaluation(tmp_path, bundle, capsys):
    summary = document(capsys, scored(tmp_path / "a.csv", many(700, 300)), "--by", "author", "--model", bundle)
    cell = summary["groups"][0]["labels"][1]
    assert cell["naive_share"] == pytest.approx(0.3)
    assert cell["share"]["value"] == pytest.approx((0.3 - 0.1) / (0.8 - 0.1))
    assert cell["share"]["low"] < cell["share"]["value"] < cell["share"]["high"]
    assert cell["adjusted_count"] == pytest.approx(1000 * cell["share"]["value"])
    assert summary["correction"]["evaluation"] == "10-fold cross-validation"
    assert summary["correction"]["confusion"] == CONFUSION


def test_the_bundle_is_found_by_the_report_beside_the_file(tmp_path, bundle, capsys):
    from edgewren.bundle import Bundle

    path = scored(tmp_path / "a.csv")
    report = tmp_path / "a.csv.report.json"
    report.write_text(json.dumps({"model": {"path": str(bundle), "manifest_sha256": Bundle.open(bundle).sha256}}))
    summary = document(capsys, path, "--by", "author")
    assert summary["correction"]["model"]["path"] == str(bundle)
    report.write_text(json.dumps({"model": {"path": str(bundle), "manifest_sha256": "0" * 64}}))
    for model in ([], ["--model", str(bundle)]):
        assert main(["summarize", str(path), "--by", "author", *model]) == 2
        assert "was scored by another bundle (manifest SHA-256 000000000000…)" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": null}', '{"model": {"path": 3}}', '{"model": "x"}'])
def test_a_report_that_tells_nothing_is_passed_over(tmp_path, bundle, capsys, content):
    path = scored(tmp_path / "a.csv")
    (tmp_path / "a.csv.report.json").write_text(content)
    assert main(["summarize", str(path), "--by", "author"]) == 2
    assert "Name the one that scored them with --model" in capsys.readouterr().err
    assert main(["summarize", str(path), "--by", "author", "--model", str(bundle)]) == 0


@pytest.mark.parametrize(
    ("confusion", "why"),
    [
        ([[27, 23], [23, 27]], "cannot tell"),
        ([[400, 5], [4, 4]], "8 rows of 'partisan'"),
        ([[20, 80], [80, 20]], "no better than chance"),
    ],
)
def test_an_evaluation_that_tells_too_little_is_refused_with_the_reason(tmp_path, other, capsys, confusion, why):
    bundle = held_out(other, confusion=confusion)
    path = scored(tmp_path / "a.csv")
    assert main(["summarize", str(path), "--by", "author", "--model", str(bundle)]) == 4
    err = capsys.readouterr().err
    assert why in err
    assert "--no-adjust" in err
    assert main(["summarize", str(path), "--by", "author", "--model", str(bundle), "--no-adjust"]) == 0
    assert "NOT corrected" in capsys.readouterr().out


def test_figures_on_training_rows_do_not_count_as_known_errors(tmp_path, other, capsys):
    bundle = held_out(other, name="training rows (optimistic)")
    assert main(["summarize", str(scored(tmp_path / "a.csv")), "--by", "author", "--model", str(bundle)]) == 4
    assert "no evaluation on held-out rows; it has: 'training rows (optimistic)'" in capsys.readouterr().err


def test_a_small_evaluation_and_counts_that_cannot_be_are_noted(tmp_path, other, capsys):
    path = scored(tmp_path / "a.csv", many(2000, 0))
    bundle = held_out(other, confusion=[[32, 18], [18, 32]])
    assert main(["summarize", str(path), "--by", "author", "--model", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert "expect wide intervals" in out
    assert "* No true shares would show such counts" in out


# shapes


def test_the_table_shows_counts_both_shares_and_the_interval(tmp_path, bundle, capsys):
    assert main(["summarize", str(scored(tmp_path / "a.csv")), "--by", "author", "--model", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == [*"author rows label count naive share 95 % interval".split()]
    assert "7 rows read, 5 counted; left out: 1 empty, 1 rejected." in out
    assert "1 uncertain rows are counted with the label that they have." in out
    assert "measured in '10-fold cross-validation' on 1,200 rows" in out
    assert [line.split()[0] for line in out.splitlines()[1:9:2]] == ["(all)", "ann", "bob", "(none)"]
    assert max(map(len, out.splitlines())) <= 120


def test_csv_has_one_line_per_group_and_label_and_round_trips_hostile_names(tmp_path, bundle, capsys):
    name = 'a "b",\nc\x1b[31m'
    path = scored(tmp_path / "a.csv", [(name, "", "neutral", "ok"), *ROWS])
    assert main(["summarize", str(path), "--by", "author", "--model", str(bundle), "--csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(lines) == 8
    assert name in {line["group"] for line in lines}
    for line in lines:
        assert float(line["share_low"]) <= float(line["share"]) <= float(line["share_high"])
        assert float(line["naive_share"]) == pytest.approx(int(line["count"]) / int(line["rows"]), abs=1e-6)
    assert main(["summarize", str(path), "--by", "author", "--model", str(bundle)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_the_same_command_gives_the_same_bytes(tmp_path, bundle, capsys):
    argv = ["summarize", str(scored(tmp_path / "a.csv")), "--by", "author", "--model", str(bundle), "--csv"]
    outputs = []
    for _ in range(2):
        assert main(argv) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_output_goes_to_a_file_by_suffix_and_does_not_overwrite(tmp_path, bundle, capsys):
    argv = ["summarize", str(scored(tmp_path / "a.csv")), "--by", "author", "--model", str(bundle)]
    for name, first in (("o.csv", "group,rows"), ("o.json", '{"by": "author"'), ("o.txt", "author")):
        out = tmp_path / name
        assert main([*argv, "--output", str(out)]) == 0
        assert out.read_text().startswith(first)
        assert capsys.readouterr().out == ""
        assert main([*argv, "--output", str(out)]) == 2
        assert "exists already" in capsys.readouterr().err
        assert main([*argv, "--output", str(out), "--force"]) == 0


def test_what_is_read_is_not_written_over(tmp_path, bundle, capsys):
    path = scored(tmp_path / "a.csv")
    before = path.read_bytes()
    argv = ["summarize", str(path), "--by", "author", "--model", str(bundle), "--force"]
    for option in ("--output", "--plot"):
        assert main([*argv, option, str(path)]) == 2
        assert "is one of the files that are read" in capsys.readouterr().err
    assert main([*argv, "--output", "x.csv", "--plot", "x.csv"]) == 2
    assert "x.csv is named twice" in capsys.readouterr().err
    assert main([*argv, "--output", "x.csv", "--plot", str(Path("x.csv").resolve())]) == 2
    assert "x.csv is named twice" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_file_beside_the_output_is_not_written_over(tmp_path, bundle, capsys):
    path = scored(tmp_path / "o.csv.partial")
    argv = ["summarize", str(path), "--format", "csv", "--by", "author", "--model", str(bundle)]
    assert main([*argv, "--output", str(tmp_path / "o.csv"), "--force"]) == 0
    assert path.read_text() == scored(tmp_path / "again.csv").read_text()
    assert sorted(file.name for file in tmp_path.glob("o.*")) == ["o.csv", "o.csv.partial"]


def test_top_keeps_the_largest_groups_and_the_total(tmp_path, bundle, capsys):
    path = scored(tmp_path / "a.csv")
    summary = document(capsys, path, "--by", "author", "--model", bundle, "--top", "1")
    assert counts(summary) == {"ann": [1, 2]}
    assert summary["total"]["rows"] == 5
    assert main(["summarize", str(path), "--by", "author", "--model", str(bundle), "--top", "0"]) == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--timezone", "UTC"],
        ["--no-adjust", "--evaluation", "x"],
        ["--no-adjust", "--confidence", "0.9"],
        ["--no-adjust", "--resamples", "100"],
        ["--no-adjust", "--seed", "1"],
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, bundle, options):
    assert main(["summarize", str(scored(tmp_path / "a.csv")), "--by", "author", "--model", str(bundle), *options]) == 2


@pytest.mark.parametrize(
    ("options", "adjust"), [(["--by", "author"], False), (["--by", "created_at", "--period", "day"], True)]
)
def test_a_plot_is_a_png_of_readable_size(tmp_path, bundle, capsys, options, adjust):
    pytest.importorskip("matplotlib")
    png = tmp_path / "p.png"
    how = ["--model", str(bundle)] if adjust else ["--no-adjust"]
    argv = ["summarize", str(scored(tmp_path / "a.csv")), *options, *how, "--plot", str(png)]
    assert main(argv) == 0
    data = png.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert all(300 < side < 3000 for side in struct.unpack(">II", data[16:24]))
    assert main(argv) == 2, "an existing picture is not replaced"
    capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "begins"),
    [("o.csv.gz", "group,rows"), ("o.csv.bz2", "group,rows"), ("o.JSON.xz", '{"by"'), ("o.txt.gz", "author")],
)
def test_an_output_has_the_form_and_the_packing_of_its_name(tmp_path, bundle, name, begins):
    argv = ["summarize", str(scored(tmp_path / "a.csv")), "--by", "author", "--model", str(bundle)]
    assert main([*argv, "--output", str(tmp_path / name)]) == 0
    packed = compression.by_name(name)
    out = b"".join(compression.unpack(iter([(tmp_path / name).read_bytes()]), packed, name))
    assert out.decode().startswith(begins)


@pytest.mark.parametrize("option", ["--output", "--plot"])
def test_a_place_where_nothing_can_be_written_shows_before_the_counting(tmp_path, bundle, capsys, option):
    argv = ["summarize", str(tmp_path / "not read.csv"), "--by", "author", "--model", str(bundle)]
    assert main([*argv, option, str(tmp_path / "none" / "o.png")]) == 6
    assert "there is no folder" in capsys.readouterr().err
    assert main([*argv, option, str(tmp_path)]) == 6
    assert "is a folder, expected a file name" in capsys.readouterr().err


def test_a_full_disk_costs_the_plot_alone(tmp_path, bundle, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    png = tmp_path / "p.png"
    png.write_bytes(b"the one before")
    monkeypatch.setattr(picture, "WholeFile", FullDisk)
    argv = ["summarize", str(scored(tmp_path / "a.csv")), "--by", "author", "--model", str(bundle), "--force"]
    assert main([*argv, "--plot", str(png), "--output", str(tmp_path / "o.csv")]) == 6
    assert "p.png cannot be written: No space left on device. Nothing was changed there." in capsys.readouterr().err
    assert png.read_bytes() == b"the one before"
    assert (tmp_path / "o.csv").read_text().startswith("group,rows")
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
def test_plots_of_many_classes_and_groups_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from edgewren.share_plot import Series, draw

    names = [f"$author_{'x' * number}$" for number in range(40)]
    shares = [(0.5, 0.4, 0.6)] * len(names)
    draw([Series(f"class ${n}", [0.3] * 40, shares) for n in range(4)], names, tmp_path / "a.png", title="t", axis="a")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    with pytest.raises(UsageError, match="13 labels; at most 12"):
        draw([Series(str(n), [0.3], None) for n in range(13)], ["a"], tmp_path / "b.png", title="t", axis="a")


def test_a_thousand_groups_are_no_trouble(tmp_path, bundle, capsys):
    draw = np.random.default_rng(0)
    rows = [(f"author {n % 1000}", "", str(draw.choice(["neutral", "partisan"])), "ok") for n in range(3000)]
    path = scored(tmp_path / "a.csv", rows)
    summary = document(capsys, path, "--by", "author", "--model", bundle, "--resamples", "200")
    assert len(summary["groups"]) == 1000
    assert all(0 < group["labels"][1]["share"]["high"] <= 1 for group in summary["groups"])
