"""`edgewren train`: a labelled file in, a trained model out, data on stdout, and errors that name value and next step."""

from __future__ import annotations

import json

import pytest
import tiny_models

from edgewren.cli.main import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWREN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path):
    """Return a function that writes labelled rows as CSV, TSV or JSONL, with column names that nobody expects."""

    def write(name="posts.csv", rows=60, classes=2, **columns):
        texts, labels = tiny_models.toy_texts(rows, classes=classes)
        text, label = columns.get("text", "tweet body"), columns.get("label", "Côté")
        path = tmp_path / name
        if name.endswith(".jsonl"):
            lines = [json.dumps({"id": i, text: t, label: y}) for i, (t, y) in enumerate(zip(texts, labels))]  # noqa: B905
        else:
            mark = "\t" if name.endswith(".tsv") else ","
            lines = [mark.join(["id", text, label])]
            lines += [mark.join([str(i), f'"{t}"', y]) for i, (t, y) in enumerate(zip(texts, labels))]  # noqa: B905
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def train(recipe, path, encoder, *more):
    columns = ["--text-column", "tweet body", "--label-column", "Côté"]
    return main(["train", recipe, str(path), *columns, "--encoder", str(encoder), *map(str, more)])


@pytest.mark.parametrize("name", ["posts.csv", "posts.tsv", "posts.jsonl"])
def test_ridge_reports_every_alpha_and_a_cross_validated_score(write, sentence_folder, tmp_path, capsys, name):
    path = write(name)
    assert train("ridge", path, sentence_folder("bert"), "--output", tmp_path / "m", "--folds", 3) == 0
    out, err = capsys.readouterr()
    assert "== 3-fold cross-validation\n60 rows, 2 classes." in out
    assert f"next: edgewren export {tmp_path / 'm'}" in out
    assert "chosen alpha: " in err
    assert "1e+06 -" in err, "the grid reaches a million"


@pytest.mark.parametrize("recipe", ["ridge", "lora"])
def test_json_is_one_document_on_stdout(write, encoder_folder, tmp_path, capsys, recipe):
    path = write()
    more = ["--epochs", 1, "--max-length", 24] if recipe == "lora" else ["--folds", 0]
    code = train(recipe, path, encoder_folder("bert"), "--output", tmp_path / "m", "--test", path, "--json", *more)
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document["labels"] == sorted(document["labels"])
    assert document["evaluations"][document["headline"]]["rows"] == 60
    assert document == json.loads(json.dumps(document, allow_nan=False))


def test_json_on_a_terminal_is_one_document_on_stdout_too(write, encoder_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    options = ["--epochs", 2, "--max-length", 24, "--calibrate", "none", "--json"]
    assert train("lora", write(), encoder_folder("bert"), "--output", tmp_path / "m", *options) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["kind"] == "lora"
    assert "training: 100%" in err


@pytest.mark.parametrize("recipe", ["ridge", "lora"])
def test_a_log_tells_how_far_long_work_is(write, encoder_folder, tmp_path, capsys, monkeypatch, recipe):
    monkeypatch.setattr("edgewren.cli.progress.SECONDS_PER_LINE", 0.0)
    more = {"ridge": ["--folds", 0], "lora": ["--epochs", 2, "--batch-size", 20, "--calibrate", "none"]}[recipe]
    code = train(recipe, write(), encoder_folder("bert"), "--output", tmp_path / "m", "--max-length", 24, *more)
    err = capsys.readouterr().err
    assert code == 0
    assert ("embedding: 60 of 60 texts" if recipe == "ridge" else "training: 6 of 6 steps") in err
    assert ("classifying: 60 of 60 texts" in err) == (recipe == "lora")


@pytest.mark.parametrize("recipe", ["ridge", "lora", "static"])
def test_a_test_file_with_unknown_labels_is_refused_before_training(write, sentence_folder, tmp_path, capsys, recipe):
    path, test = write(), write("test.csv")
    lines = test.read_text(encoding="utf-8").splitlines()
    lines[4] = lines[4].rpartition(",")[0] + ",sarcastic"
    test.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert train(recipe, path, sentence_folder("bert"), "--output", tmp_path / "m", "--test", test) == 4
    err = capsys.readouterr().err
    assert f"{test}, row 4 has the label 'sarcastic', which {path} does not have. It has: " in err
    assert "chosen alpha" not in err
    assert "trainable" not in err
    assert not (tmp_path / "m").exists()


def test_doubtful_labels_are_told_before_training(write, sentence_folder, tmp_path, capsys):
    path = write()
    lines = path.read_text(encoding="utf-8").splitlines()
    for row in (2, 3):
        lines[row] = lines[row].rpartition(",")[0] + ",NA"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert train("ridge", path, sentence_folder("bert"), "--output", tmp_path / "m", "--folds", 0) == 0
    assert f"warning: {path}: the label 'NA' (2 rows) looks like a missing value" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "4294967296", "x"])
def test_what_is_no_seed_is_refused(write, tmp_path, capsys, seed):
    assert train("ridge", write(), "minilm", "--output", tmp_path / "m", "--seed", seed) == 2
    assert f"--seed: {seed!r} is no seed" in capsys.readouterr().err


def test_lora_evaluates_the_same_way_before_and_after(write, encoder_folder, tmp_path, capsys):
    path = write()
    code = train("lora", path, encoder_folder("bert"), "--output", tmp_path / "m", "--epochs", 1, "--test", path)
    out, err = capsys.readouterr()
    assert code == 0
    assert "== test file, before training" in out
    assert "== test file\n" in out
    assert "trainable: " in err
    assert "the head is the trained one" in err


def test_model_that_answers_one_label_to_everything_is_reported(write, encoder_folder, tmp_path, capsys):
    options = ["--output", tmp_path / "m", "--epochs", 1, "--learning-rate", "1e-9"]
    path = write(rows=90, classes=5)
    assert train("lora", path, encoder_folder("bert"), *options) == 0
    answers = json.loads((tmp_path / "m" / "model.json").read_text())["evaluation"]["training rows (optimistic)"]
    one = sum(count > 0 for count in map(sum, zip(*answers["confusion"], strict=True))) == 1
    assert ("to every text. Train longer" in capsys.readouterr().err) == one


@pytest.mark.parametrize("recipe", ["ridge", "static"])
@pytest.mark.parametrize(("alpha", "one"), [("1e15", True), ("1", False)])
def test_a_linear_model_that_answers_one_label_to_everything_is_reported(
    sentence_folder, tmp_path, capsys, recipe, alpha, one
):
    path = tmp_path / "few.csv"
    rows = [f"good vote number {n},kept" for n in range(16)] + [f"bad tax {n * 7},cut" for n in range(6)]
    path.write_text("\n".join(["tweet body,Côté", *rows, ""]), encoding="utf-8")
    more = ["--output", tmp_path / "m", "--alphas", alpha, "--folds", 0]
    assert train(recipe, path, sentence_folder("bert"), *more) == 0
    assert ("the model answers 'kept' to every text. Its labels don't follow" in capsys.readouterr().err) == one


def test_classic_grid_is_six_values_and_says_that_its_best_is_its_edge(write, sentence_folder, tmp_path, capsys):
    code = train("ridge", write(), sentence_folder("bert"), "--output", tmp_path / "m", "--alphas", "classic")
    err = capsys.readouterr().err
    assert code == 0
    description = json.loads((tmp_path / "m" / "model.json").read_text())
    assert description["training"]["alphas"] == [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
    assert ("on the edge of its grid" in err) == (description["training"]["alpha"] in (0.001, 100.0))


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", 4, "posts.csv"),
        (b"tweet body,C\xc3\xb4t\xc3\xa9\n", 4, "no rows"),
        (b"words,side\na,b\n", 4, "words, side"),
        (b"tweet body,C\xc3\xb4t\xc3\xa9\nhello,x\n,y\n", 4, "row 2"),
        (b"tweet body,C\xc3\xb4t\xc3\xa9\nhello,x\nyou,\n", 4, "row 2"),
        (b"tweet body,C\xc3\xb4t\xc3\xa9\na,x\nb,x\n", 4, "x"),
        (b"tweet body,C\xc3\xb4t\xc3\xa9\na,x\nb,x\nc,y\n", 4, "y"),
        (b"tweet body,C\xc3\xb4t\xc3\xa9\ncaf\xe9,x\nb,y\n", 4, "--encoding"),
    ],
    ids=["nothing", "header only", "column", "empty text", "empty label", "one class", "rare class", "bytes"],
)
def test_bad_input_is_refused_before_anything_takes_time(tmp_path, capsys, content, code, message):
    path = tmp_path / "posts.csv"
    path.write_bytes(content)
    assert train("ridge", path, "never-reached/encoder", "--output", tmp_path / "m") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("edgewren: error: ")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "m").exists()


def test_contradicting_labels_are_reported(tmp_path, sentence_folder, capsys):
    rows = [("same", "x"), ("same", "y"), *((f"ferry {i}", "xy"[i % 2]) for i in range(20))]
    path = tmp_path / "posts.csv"
    path.write_text("tweet body,Côté\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    assert train("ridge", path, sentence_folder("bert"), "--output", tmp_path / "m", "--folds", 0) == 0
    assert "warning: 1 text(s) occur with different labels, for example rows 1, 2: 'same'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("ridge", ["--alphas", "1,many"], "--alphas is '1,many'"),
        ("ridge", ["--alphas", "nan"], "alphas are [nan]"),
        ("ridge", ["--folds", "1"], "--folds is 1"),
        ("ridge", ["--max-length", "9999"], "max length 9999 is out of range"),
        ("lora", ["--rank", "0"], "rank is 0"),
        ("lora", ["--target-modules", "gate"], "no linear layer called gate"),
        ("lora", ["--max-steps", "-3"], "max-steps is -3"),
        ("lora", ["--early-stopping", "0"], "--early-stopping needs rows to judge by"),
        ("lora", ["--exit-difference", "0.01"], "--exit-difference is of early exits"),
        ("ridge", ["--exit-difference", "0.01"], "--exit-difference is of early exits"),
        ("static", ["--no-calibration", "--distill", "t.csv", "--teacher", "b"], "--no-calibration: a distilled model"),
    ],
)
def test_options_out_of_range_are_refused(write, encoder_folder, tmp_path, capsys, recipe, options, message):
    code = train(recipe, write(), encoder_folder("bert"), "--output", tmp_path / "m", *options)
    assert code in (2, 4)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_existing_model_is_kept_without_force(write, sentence_folder, tmp_path, capsys):
    path, encoder = write(), sentence_folder("bert")
    assert train("ridge", path, encoder, "--output", tmp_path / "m", "--folds", 0) == 0
    before = (tmp_path / "m" / "model.json").read_bytes()
    assert train("ridge", path, encoder, "--output", tmp_path / "m", "--folds", 0) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "m" / "model.json").read_bytes() == before
    assert train("ridge", path, encoder, "--output", tmp_path / "m", "--folds", 0, "--force") == 0


@pytest.mark.parametrize(
    ("recipe", "default"), [("ridge", "the encoder's own"), ("lora", "256, or what the encoder takes")]
)
def test_help_tells_each_recipes_own_max_length(recipe, default, capsys):
    assert main(["train", recipe, "--help"]) == 0
    assert f"tokens kept of a text (default: {default})" in " ".join(capsys.readouterr().out.split())


def test_cuda_without_cuda_says_what_to_do(write, sentence_folder, tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    code = train("ridge", write(), sentence_folder("bert"), "--output", tmp_path / "m", "--device", "cuda")
    assert code == 2
    assert "torch finds no CUDA device here. Use --device cpu" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["ridge", "lora"])
@pytest.mark.slow
def test_many_classes_train_export_and_score(write, encoder_folder, tmp_path, recipe):
    path = write(rows=90, classes=5)
    more = ["--epochs", 1, "--max-length", 24] if recipe == "lora" else ["--folds", 2]
    assert train(recipe, path, encoder_folder("bert"), "--output", tmp_path / "m", *more) == 0
    assert main(["export", str(tmp_path / "m"), "--output", str(tmp_path / "b")]) == 0
    out = tmp_path / "scored.csv"
    options = ["--model", str(tmp_path / "b"), "--text-column", "tweet body", "--output", str(out)]
    assert main(["score", str(path), *options]) == 0
    header, first, *rest = out.read_text(encoding="utf-8").splitlines()
    assert header.startswith("id,tweet body,Côté,label,score,score_")
    assert len([first, *rest]) == 90


@pytest.fixture
def by_authors(tmp_path):
    """Twelve authors, each with a word of their own, which alone says the label."""
    words = "alder birch cedar dogwood elder fir gorse hazel iris juniper kale larch".split()
    lines = ["author,text,label"]
    for row in range(120):
        author = row % 12
        lines.append(f"w{author},{words[author]} {words[author]} tonight {row // 12},{'ab'[author // 2 % 2]}")
    path = tmp_path / "authors.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("recipe", "options", "name"),
    [
        ("ridge", ["--folds", "3"], "3-fold cross-validation by group"),
        ("static", ["--folds", "3"], "3-fold cross-validation by group"),
        pytest.param(
            "lora",
            ["--epochs", "1", "--max-length", "16", "--calibrate", "validation:0.25"],
            "validation part (25% held out) by group",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_rows_of_a_group_are_held_out_together(by_authors, sentence_folder, tmp_path, capsys, recipe, options, name):
    command = ["train", recipe, str(by_authors), "--encoder", str(sentence_folder("bert")), "-o", str(tmp_path / "m")]
    assert main([*command, "--group-column", "author", *options]) == 0
    assert f"== {name}\n" in capsys.readouterr().out
    described = json.loads((tmp_path / "m" / "model.json").read_text(encoding="utf-8"))
    assert described["training"]["group_column"] == "author"
    assert name in described["evaluation"]
    lines = (tmp_path / "m" / "out_of_fold.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    parts = {}
    for line in map(json.loads, lines):
        parts.setdefault(line["row"] % 12, set()).add(line["fold"])
    assert all(len(folds) == 1 for folds in parts.values())


@pytest.mark.parametrize(
    ("recipe", "options", "code", "message"),
    [
        ("ridge", ["--group-column", "writer"], 4, "--group-column"),
        ("ridge", ["--group-column", "author", "--folds", "0", "--alphas", "10"], 2, "Leave it out, or hold out rows"),
        ("static", ["--group-column", "author", "--folds", "0", "--alphas", "10"], 2, "one alpha and --folds 0"),
        ("lora", ["--group-column", "author", "--calibrate", "none"], 2, "with --calibrate none none are"),
        ("ridge", ["--group-column", "label"], 4, "all rows of 'a' have one value of 'label', at least two"),
        ("lora", ["--group-column", "label"], 4, "all rows of 'a' have one value of 'label', at least two"),
    ],
)
def test_groups_that_nothing_can_be_made_of_are_refused(
    by_authors, sentence_folder, tmp_path, capsys, recipe, options, code, message
):
    command = ["train", recipe, str(by_authors), "--encoder", str(sentence_folder("bert")), "-o", str(tmp_path / "m")]
    assert main([*command, *options]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_rows_without_a_group_are_told(by_authors, sentence_folder, tmp_path, capsys):
    by_authors.write_text(by_authors.read_text().replace("w3,", " ,"), encoding="utf-8")
    command = ["train", "ridge", str(by_authors), "--encoder", str(sentence_folder("bert")), "-o", str(tmp_path / "m")]
    assert main([*command, "--folds", "3", "--group-column", "author"]) == 0
    assert "note: 10 of 120 rows have no 'author' and are held out as one group" in capsys.readouterr().err
