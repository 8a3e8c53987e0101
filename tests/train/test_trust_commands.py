"""From a calibrated model to analysis, ensemble and report: through the same command line that users have."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from edgewren.calibration import cross_fitted, cross_fitted_mean, judge
from edgewren.cli.main import main
from edgewren_train.ensemble import run_ensemble
from edgewren_train.out_of_fold import read_out_of_fold
from edgewren_train.reporting.comparison import read_comparison
from edgewren_train.trained import read_trained

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWREN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Labelled posts with a second column, one repeated with another label, one that is HTML."""
    texts, labels = tiny_models.toy_texts(90)
    texts[4] = f"{HOSTILE} {texts[4]}"
    texts[11], texts[20] = "shame on the council tonight", "Shame on the council tonight!"
    path = tmp_path_factory.mktemp("data") / "posts.csv"
    lines = [f'"{text}",{label},{"ab"[i % 2]}' for i, (text, label) in enumerate(zip(texts, labels, strict=True))]
    path.write_text("text,label,source\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(data, sentence_folder, tmp_path_factory, cache):
    """A ridge model with 3 folds."""
    folder = tmp_path_factory.mktemp("models") / "ridge"
    encoder = sentence_folder("bert")
    options = ["--encoder", str(encoder), "--folds", "3", "--output", str(folder), "--max-length", "24"]
    assert main(["train", "ridge", str(data), *options]) == 0
    return folder


@pytest.fixture(scope="module")
def lora_model(data, sentence_folder, tmp_path_factory, cache):
    """A LoRA model on the same encoder and folds."""
    folder = tmp_path_factory.mktemp("models") / "lora"
    encoder = sentence_folder("bert")
    options = ["--encoder", str(encoder), "--calibrate", "folds:3", "--epochs", "1", "--learning-rate", "1e-2"]
    more = ["--output", str(folder), "--max-length", "24", "--precision", "fp32", "--batch-size", "16"]
    assert main(["train", "lora", str(data), *options, *more]) == 0
    return folder


def description(folder):
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("recipe", ["trained", pytest.param("lora_model", marks=pytest.mark.slow)])
def test_folds_give_an_honest_score_a_temperature_and_its_effect(recipe, request):
    model = read_trained(request.getfixturevalue(recipe))
    account = model.training["calibration"]
    assert model.temperature == account["temperature"] > 0
    assert model.description["evaluation"]["3-fold cross-validation"]["rows"] == 90
    assert account["labels_changed"] == 0
    assert account["difference"]["log_loss"]["value"] == pytest.approx(
        account["after"]["log_loss"]["value"] - account["before"]["log_loss"]["value"]
    )
    assert account["coverage"][0]["coverage"] == 1
    held_out = model.held_out
    assert held_out.rows.tolist() == list(range(90))
    assert sorted(set(held_out.folds.tolist())) == [0, 1, 2]


def test_no_calibration_leaves_scores_as_they_come(data, sentence_folder, tmp_path, cache):
    options = ["--encoder", str(sentence_folder("bert")), "--folds", "2", "--output", str(tmp_path / "m")]
    assert main(["train", "ridge", str(data), *options, "--no-calibration"]) == 0
    assert description(tmp_path / "m")["temperature"] == 1.0


@pytest.mark.parametrize("recipe", ["ridge", "static"])
def test_rows_of_a_test_file_that_were_trained_on_are_told(recipe, sentence_folder, tmp_path, capsys, cache):
    texts, labels = tiny_models.toy_texts(40)
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    rows = [
        f'"{text} {row} https://t.co/a",{label}\n' for row, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    train.write_text("text,label\n" + "".join(rows), encoding="utf-8")
    kept = [row.replace("t.co/a", "t.co/b") for row in rows[:4]]
    test.write_text("text,label\n" + "".join([*kept, "one more,angry\n"]), encoding="utf-8")
    options = ["--encoder", str(sentence_folder("bert")), "--folds", "2", "--output", str(tmp_path / "m")]
    assert main(["train", recipe, str(train), *options, "--test", str(test)]) == 0
    assert f"4 of 5 rows of {test} have the text of a training row" in capsys.readouterr().err


def test_a_model_that_learned_nothing_is_told(sentence_folder, tmp_path, capsys, cache):
    texts = tiny_models.toy_texts(40)[0]
    path = tmp_path / "posts.csv"
    path.write_text("text,label\n" + "".join(f'"{text}",a\n"{text}",b\n' for text in texts), encoding="utf-8")
    options = ["--encoder", str(sentence_folder("bert")), "--folds", "2", "--output", str(tmp_path / "m")]
    assert main(["train", "ridge", str(path), *options]) == 0
    assert "logits are no higher for right labels than for wrong ones" in capsys.readouterr().err
    assert description(tmp_path / "m")["temperature"] < 1e-4


@pytest.mark.slow
def test_lora_holds_out_a_validation_part_by_default(data, encoder_folder, tmp_path, capsys):
    options = ["--encoder", str(encoder_folder("bert")), "--epochs", "1", "--max-length", "24"]
    assert main(["train", "lora", str(data), *options, "--output", str(tmp_path / "m"), "--precision", "fp32"]) == 0
    made = description(tmp_path / "m")
    assert made["evaluation"]["validation part (20% held out)"]["rows"] == 18
    assert "not calibrated: 18 rows were held out, 30 or more are needed" in capsys.readouterr().err
    assert made["temperature"] == 1.0


def test_analysis_reads_whatever_encoding_and_delimiter_training_reads(trained, data, tmp_path, capsys):
    other = tmp_path / "posts-1252.csv"
    with data.open(encoding="utf-8", newline="") as stream, other.open("w", encoding="cp1252", newline="") as written:
        rows = [*csv.reader(stream)]
        rows = [[*row, "caf\u00e9" if index else "kind"] for index, row in enumerate(rows)]
        csv.writer(written, delimiter=";").writerows(rows)
    options = ["--encoding", "cp1252", "--format", "csv-semicolon", "--slice", "kind"]
    assert main(["analyse", str(trained), str(other), *options]) == 0
    assert "kind: caf\u00e9" in capsys.readouterr().out


def test_analysis_names_conflicts_and_slices(trained, data, capsys):
    assert main(["analyse", str(trained), str(data), "--slice", "source"]) == 0
    out = capsys.readouterr().out
    assert "ridge on its training rows (3-fold cross-validation): 90 rows" in out
    assert "source: a" in out
    assert "row 12 (calm): shame on the council" in out
    assert "row 21 (angry): Shame on the council" in out


@pytest.mark.slow
def test_analysis_of_a_bundle_on_another_file_finds_leaks(bundle, data, tmp_path, capsys):
    other = tmp_path / "other.csv"
    other.write_text("text,label\nthe ferry is late,calm\nshame on the council tonight,angry\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["analyse", str(bundle), str(other), "--compare-with", str(data), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] == 2
    assert sorted(pair["other_row"] for pair in document["alike_across"]) == [12, 21]


def test_analysis_of_a_bundle_warns_of_the_rows_that_it_was_trained_on(tiny_bundle, tmp_path, capsys):
    path = tmp_path / "posts.csv"
    path.write_text("text,label\ngood vote,neutral\nbad tax,partisan\n", encoding="utf-8")
    seen = shutil.copytree(tiny_bundle, tmp_path / "seen")
    manifest = json.loads((seen / "manifest.json").read_text(encoding="utf-8"))
    manifest["training"] = {"data": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}}
    (seen / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert main(["analyse", str(seen), str(path)]) == 0
    assert f"warning: {seen} was trained on the rows of {path}" in capsys.readouterr().err
    assert main(["analyse", str(tiny_bundle), str(path)]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [("--slice missing", "has no column 'missing'"), ("", "is not the file that"), ("bundle", "no out-of-fold scores")],
)
def test_analysis_that_cannot_be_honest_is_refused(trained, data, tmp_path, capsys, change, message):
    folder = shutil.copytree(trained, tmp_path / "m")
    path, options = data, change.split() if change.startswith("--") else []
    if change == "bundle":
        (folder / "out_of_fold.jsonl").unlink()
    if change == "":
        path = tmp_path / "other.csv"
        path.write_text("text,label\nnew,calm\nnewer,angry\n", encoding="utf-8")
    assert main(["analyse", str(folder), str(path), *options]) == 4
    assert message in capsys.readouterr().err


def test_ensemble_that_does_not_win_is_refused_with_its_figures(trained, tmp_path, capsys):
    twin = shutil.copytree(trained, tmp_path / "twin")
    assert main(["ensemble", str(trained), str(twin), "--output", str(tmp_path / "both")]) == 2
    err = capsys.readouterr().err
    assert "ensemble minus ridge 1 (paired): balanced accuracy +0.000" in err
    assert "The ensemble does not beat ridge 1 alone" in err
    assert "--force-ensemble" in err
    assert not (tmp_path / "both").exists()


@pytest.mark.slow
def test_ensemble_of_static_models_is_refused(data, sentence_folder, tmp_path, capsys, cache):
    folder = tmp_path / "static"
    options = ["--encoder", str(sentence_folder("bert")), "--folds", "3", "--output", str(folder)]
    assert main(["train", "static", str(data), *options]) == 0
    assert main(["ensemble", str(folder), str(folder), "--output", str(tmp_path / "both")]) == 2
    assert "is static: it has no encoder to build into one graph. Leave it out." in capsys.readouterr().err


@pytest.mark.slow
def test_ensemble_averages_calibrated_logits_and_exports_as_one_graph(trained, lora_model, tmp_path, capsys):
    both = tmp_path / "both"
    assert main(["ensemble", str(trained), str(lora_model), "--output", str(both), "--force-ensemble"]) == 0
    made = description(both)
    assert made["kind"] == "ensemble"
    assert made["training"]["ensemble"]["members"] == ["ridge", "lora"]
    assert made["evaluation"]["3-fold cross-validation"]["rows"] == 90

    folders = {"ridge": trained, "lora": lora_model, "both": both}
    bundles = {}
    for name, folder in folders.items():
        bundles[name] = tmp_path / f"{name}-bundle"
        assert main(["export", str(folder), "--output", str(bundles[name])]) == 0
    from edgewren import Classifier

    texts = [*read_trained(trained).texts[:20], *tiny_models.MIXED_TEXTS]
    logits = {name: Classifier.load(bundle).score(texts).logits for name, bundle in bundles.items()}
    expected = made["temperature"] * (logits["ridge"] + logits["lora"]) / 2
    np.testing.assert_allclose(logits["both"], expected, rtol=1e-4, atol=1e-4)  # the gates' promise
    size = {name: (bundle / "onnx" / "model.onnx").stat().st_size for name, bundle in bundles.items()}
    assert size["both"] < size["ridge"] + size["lora"], "what members have in common is stored once"
    assert "ensemble" in (bundles["both"] / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_exported_scores_are_the_calibrated_ones_and_the_decision_value_comes_back(lora_model, trained, tmp_path):
    from edgewren import Classifier

    for folder in (lora_model, trained):
        raw = shutil.copytree(folder, tmp_path / f"raw-{folder.name}")
        changed = description(raw)
        changed["temperature"] = 1.0
        (raw / "model.json").write_text(json.dumps(changed), encoding="utf-8")
        found = []
        for source in (folder, raw):
            target = tmp_path / f"{source.name}-bundle"
            assert main(["export", str(source), "--output", str(target)]) == 0
            found.append(Classifier.load(target))
        texts = read_trained(folder).texts
        temperature = description(folder)["temperature"]
        assert found[0].predict(texts) == found[1].predict(texts), "labels never change"
        plain = found[1].score(texts).logits
        np.testing.assert_allclose(found[0].score(texts).logits, temperature * plain, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found[0].decision_function(texts), plain[:, 1] - plain[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("difference", ["folds", "uncalibrated", "rows", "tokenizer", "length", "one"])
def test_models_that_do_not_fit_together_are_refused(trained, tmp_path, difference, capsys):
    twin = shutil.copytree(trained, tmp_path / "twin")
    members = [str(trained), str(twin)]
    if difference == "folds":
        held_out = (twin / "out_of_fold.jsonl").read_text(encoding="utf-8")
        (twin / "out_of_fold.jsonl").write_text(held_out.replace('"fold": 0', '"fold": 9'), encoding="utf-8")
    if difference == "uncalibrated":
        changed = description(twin)
        changed["training"]["calibration"] = {}
        (twin / "model.json").write_text(json.dumps(changed), encoding="utf-8")
    if difference == "rows":
        rows = (twin / "train.jsonl").read_text(encoding="utf-8").splitlines()
        (twin / "train.jsonl").write_text("\n".join(reversed(rows)) + "\n", encoding="utf-8")
    if difference == "tokenizer":
        (twin / "tokenizer.json").write_text("{}", encoding="utf-8")
    if difference == "length":
        changed = {**description(twin), "max_length": 17}
        (twin / "model.json").write_text(json.dumps(changed), encoding="utf-8")
    if difference == "one":
        members.pop()
    message = {
        "folds": "held out other rows",
        "uncalibrated": "is not calibrated",
        "rows": "other rows or labels",
        "tokenizer": "another tokenizer or normaliser",
        "length": "with the same --max-length, for example 17",
        "one": "expected at least two",
    }[difference]
    assert main(["ensemble", *members, "--output", str(tmp_path / "both"), "--force-ensemble"]) in (2, 4)
    assert message in capsys.readouterr().err


def test_ensemble_of_complementary_models_wins_and_is_built(trained, tmp_path):
    """Two models that err in opposite directions: out of fold, together they are right far more often."""
    draw = np.random.default_rng(1)
    true = np.array([0 if label == "angry" else 1 for label in read_trained(trained).text_labels])
    signal = np.stack([1 - true, true], axis=1) * 1.0
    noise = draw.normal(size=signal.shape)
    for name, share in (("one", 1.2), ("two", -1.1)):
        folder = shutil.copytree(trained, tmp_path / name)
        held_out = read_out_of_fold(folder)
        held_out.logits[:] = signal + share * noise
        held_out.write(folder)
    said = []
    verdict = run_ensemble([tmp_path / "one", tmp_path / "two"], tmp_path / "both", say=said.append)
    assert verdict.wins
    assert verdict.comparison.balanced_accuracy.low > 0
    assert verdict.log_loss.high < 0
    parts = [read_out_of_fold(tmp_path / name) for name in ("one", "two")]
    mean = np.mean([cross_fitted(part.logits, true, part.folds) for part in parts], axis=0)
    assert (mean.argmax(axis=1) == true).mean() == pytest.approx(verdict.evaluations[-1].accuracy.value)
    # No factor that has seen a row takes part in what is told of it.
    np.testing.assert_array_equal(read_out_of_fold(tmp_path / "both").logits, mean)
    account = description(tmp_path / "both")["training"]["calibration"]
    assert account["before"]["log_loss"]["value"] == judge(mean, true).log_loss.value
    calibrated = cross_fitted_mean([part.logits for part in parts], true, parts[0].folds)
    assert account["after"]["log_loss"]["value"] == judge(calibrated, true).log_loss.value


class Page(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.urls, self.policy = set(), [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        found = dict(attributes)
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        self.urls += [
            value for name, value in attributes if name in ("src", "href", "xlink:href", "action", "data", "poster")
        ]


def check_page(html):
    page = Page(html)
    assert page.policy.startswith("default-src 'none'")
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert all(url.startswith("#") for url in page.urls), "nothing is fetched"
    assert "url(http" not in html
    assert "@import" not in html
    return page


@pytest.fixture(scope="module")
def report(trained, tmp_path_factory):
    """The report of a model with a hostile text."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", str(trained), "--output", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    assert main(["export", str(trained), "--output", str(folder)]) == 0
    return folder


def test_report_is_one_file_that_fetches_nothing_and_escapes_texts(report):
    html = report.read_text(encoding="utf-8")
    check_page(html)
    assert HOSTILE not in html
    for part in ("How good it is", "What scores mean", "Leaving out", "Would more labels help?", "Repeated texts"):
        assert part in html
    assert html.count("<svg ") == 5
    assert "var(--accent)" in html
    assert "#0a0b0c" not in html, "no stand-in colour is left"
    charts = sorted(path.name for path in (report.parent / "report-charts").iterdir())
    assert charts == ["confusion.png", "coverage.png", "labels.png", "learning-curve.png", "reliability.png"]
    assert all((report.parent / "report-charts" / name).read_bytes().startswith(b"\x89PNG") for name in charts)


def test_report_without_texts_shows_none(trained, tmp_path):
    options = ["--no-learning-curve", "--no-texts", "--no-png", "--output", str(tmp_path / "r.html")]
    assert main(["report", str(trained), *options]) == 0
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "council tonight" not in html
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


@pytest.mark.slow
def test_report_with_a_bundle_has_parity_and_speed_and_that_of_a_bundle_alone_what_it_has(trained, bundle, tmp_path):
    options = ["--no-png", "--no-learning-curve"]
    assert main(["report", str(trained), "--bundle", str(bundle), "--output", str(tmp_path / "m.html"), *options]) == 0
    assert main(["report", str(bundle), "--output", str(tmp_path / "b.html"), *options]) == 0
    whole, alone = ((tmp_path / name).read_text(encoding="utf-8") for name in ("m.html", "b.html"))
    for html in (whole, alone):
        check_page(html)
        assert "3-fold cross-validation" in html
        assert "exported faithfully" in html
    assert "texts/s" in whole
    assert "Would more labels help?" not in alone


def test_existing_report_is_kept_without_force(report, trained, capsys):
    assert main(["report", str(trained), "--output", str(report)]) == 2
    assert "--force" in capsys.readouterr().err


@pytest.mark.slow
def test_comparison_of_two_bundles_is_reported(bundle, data, tmp_path, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(data), "--model", str(bundle), "--against", str(bundle), "--json"]) == 0
    (tmp_path / "c.json").write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["report", str(tmp_path / "c.json"), "--output", str(tmp_path / "c.html"), "--no-png"]) == 0
    html = (tmp_path / "c.html").read_text(encoding="utf-8")
    check_page(html)
    assert "bundle minus bundle, balanced accuracy" in html


def compared():
    """The shape of comparison.json, as `edgewren compare` documents it."""

    def figure(value):
        return {"value": value, "low": value - 0.02, "high": value + 0.02}

    def candidate(name, value, speed):
        scores = {"balanced_accuracy": figure(value), "macro_f1": figure(value)}
        return {"name": name, **scores, "texts_per_s": speed, "megabytes": 90.0}

    pair = {"a": "wide", "b": "small", "difference": figure(0.05), "p_holm": 0.03}
    return {
        "rows": 100,
        "folds": 5,
        "repeats": 2,
        "candidates": [candidate("wide", 0.8, 50.0), candidate("small", 0.75, 500.0), candidate("slow <x>", 0.7, 20.0)],
        "pairs": [{**pair, "p_better": 0.9, "p_equal": 0.08, "p_worse": 0.02}],
        "failures": {"gone": "cannot be loaded"},
    }


def test_folder_of_a_comparison_is_reported_with_failures_and_the_front(tmp_path):
    document = compared()
    folder = tmp_path / "encoders"
    folder.mkdir()
    (folder / "comparison.json").write_text(json.dumps(document), encoding="utf-8")
    assert main(["report", str(folder), "--output", str(tmp_path / "c.html")]) == 0
    html = (tmp_path / "c.html").read_text(encoding="utf-8")
    check_page(html)
    for part in ("slow &lt;x&gt;", "cannot be loaded", "2 x 5-fold", "p = 0.030 (after Holm)", "Quality against speed"):
        assert part in html
    assert sorted(path.name for path in (tmp_path / "c-charts").iterdir()) == ["candidates.png", "trade-off.png"]
    assert read_comparison(folder / "comparison.json").front == {"wide", "small"}


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read as JSON"), ("{}", "is no comparison")])
def test_what_is_no_comparison_is_refused(tmp_path, capsys, content, message):
    (tmp_path / "c.json").write_text(content, encoding="utf-8")
    assert main(["report", str(tmp_path / "c.json")]) == 4
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("rows",), "many", "'many' is not a number"),
        (("candidates",), [], "no candidates"),
        (("candidates", 0, "name"), 5, "5 is not a text"),
        (("candidates", 0, "texts_per_s"), "fast", "'fast' is not a number"),
        (("candidates", 0, "macro_f1", "value"), float("nan"), "nan is not a number"),
        (("candidates", 0, "balanced_accuracy", "high"), 0, "0.78 to 0 is no interval"),
        (("pairs", 0, "p_holm"), None, "None is not a number"),
        (("failures",), [], "'list' object has no attribute"),
    ],
)
def test_a_comparison_with_values_of_other_types_is_refused(tmp_path, capsys, place, value, message):
    document = compared()
    *parents, last = place
    part = document
    for name in parents:
        part = part[name]
    part[last] = value
    (tmp_path / "c.json").write_text(json.dumps(document), encoding="utf-8")
    assert main(["report", str(tmp_path / "c.json"), "--output", str(tmp_path / "c.html")]) == 4
    assert message in capsys.readouterr().err


def test_a_report_is_not_begun_where_it_or_its_charts_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.json").write_text(json.dumps(compared()), encoding="utf-8")
    (tmp_path / "c-charts").write_text("notes", encoding="utf-8")
    for options, message in (
        (["--output", "."], ". is a folder. Name a file with --output, for example report.html"),
        (["--output", "c.html"], "c-charts is not a folder, and the charts go there"),
    ):
        assert main(["report", "c.json", *options, "--force"]) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c-charts", "c.json"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["analyse", "MODEL", "--text-column", "tweet"], "--text-column is of files, and none is named"),
        (["analyse", "MODEL", "--label-column", "bias"], "--label-column is of files"),
        (["analyse", "MODEL", "--format", "csv"], "--format is of files"),
        (["analyse", "MODEL", "--encoding", "cp1252"], "--encoding is of files"),
        (["analyse", "MODEL", "--show", "-3"], "--show is -3, expected 0 or more"),
        (["report", "{}.json", "--bundle", "b"], "--bundle is of trained models"),
        (["export", "MODEL", "--text-column", "tweet"], "--text-column is of --texts, and none is named"),
        (["export", "MODEL", "--encoding", "cp1252"], "--encoding is of --texts, and none is named"),
    ],
)
def test_options_out_of_range_or_of_no_effect_are_refused(trained, tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "{}.json").write_text("{}", encoding="utf-8")
    assert main([str(trained) if word == "MODEL" else word for word in argv]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_many_labels_with_dollar_signs_are_drawn(tmp_path):
    from edgewren_train.reporting import charts

    labels = [f"$label_{i}$ & <b>" for i in range(30)]
    chart = charts.confusion(np.eye(30, dtype=int).tolist(), labels)
    assert "&lt;b&gt;" in chart.svg
    assert "<b>" not in chart.svg
    assert Path(tmp_path / "x.png").write_bytes(chart.png) > 1000
