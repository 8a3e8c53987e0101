"""`edgewren compare`: the same folds for all, each text embedded once, failures beside results, runs that go on."""

from __future__ import annotations

import csv
import json
from collections import Counter

import numpy as np
import pytest
import tiny_models
from sklearn.metrics import balanced_accuracy_score

from edgewren.cli.main import main
from edgewren.errors import InputError, ResumeError
from edgewren_train import candidate_features, comparison_files, embedding, lora, ridge
from edgewren_train.candidate import Candidate, combine
from edgewren_train.comparison import Comparison, Cost, Design, Judged, compare, pareto_front
from edgewren_train.depth import cut, depth_of
from edgewren_train.depth_run import shallowest_as_good
from edgewren_train.encoders import load_encoder
from edgewren_train.folds import repeated_folds
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.paired_tests import mean_score
from edgewren_train.ridge import fit
from edgewren_train.together import apart

TEXTS, LABELS = tiny_models.toy_texts(60)
DATA = tiny_models.labelled(TEXTS, LABELS)
DESIGN = Design(folds=3, repeats=2)


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "posts.csv"
    rows = [
        f'"{text}",{label},author {index % 12}' for index, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
    ]
    path.write_text("text,label,author\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def run(path, output, *options):
    return main(["compare", str(path), "--output", str(output), "--folds", "3", "--repeats", "2", *map(str, options)])


def test_scores_are_those_of_ridge_fitted_on_each_training_part(sentence_folder, tmp_path):
    folder = str(sentence_folder("bert"))
    result = compare(DATA, tmp_path / "out", [Candidate(folder)], DESIGN)
    features = embedding.embed(load_encoder(folder, normaliser="http"), TEXTS)
    names = np.asarray(LABELS)
    by_hand = []
    for fold in repeated_folds(LABELS, folds=3, repeats=2, seed=0):
        predicted = fit(features[fold.train], names[fold.train].tolist()).predict(features[fold.held_out], DATA.classes)
        by_hand.append(balanced_accuracy_score(names[fold.held_out], predicted))
    assert result.judged[0].balanced_accuracies == pytest.approx(by_hand)


def test_each_text_is_embedded_once_per_encoder_and_normaliser(sentence_folder, tmp_path, monkeypatch):
    embedded = Counter()
    real = embedding.embed

    def counting(encoder, texts, **options):
        embedded.update((encoder.id, encoder.normaliser, text) for text in texts)
        return real(encoder, texts, **options)

    monkeypatch.setattr(embedding, "embed", counting)
    encoders = [str(sentence_folder("bert")), str(sentence_folder("mpnet"))]
    candidates = combine({"encoder": encoders, "alphas": ["wide", "classic"], "normaliser": ["http", "none"]})
    result = compare(DATA, tmp_path / "out", candidates, DESIGN, cache=tmp_path / "cache")
    assert len(result.judged) == 8
    assert len(embedded) == 2 * 2 * len(set(TEXTS))
    assert set(embedded.values()) == {TEXTS.count(text) for _, _, text in embedded}


def test_each_depth_is_the_encoder_cut_there_and_embedded_once(csv_file, sentence_folder, tmp_path, monkeypatch):
    embedded = Counter()
    real = embedding.embed

    def counting(encoder, texts, **options):
        embedded.update((depth_of(encoder), text) for text in texts)
        return real(encoder, texts, **options)

    monkeypatch.setattr(embedding, "embed", counting)
    folder = sentence_folder("bert", layers=3)
    options = ["--encoders", folder, "--depths", "3,1,whole,1", "--alphas", "wide,classic", "--no-cache", "--json"]
    assert run(csv_file, tmp_path / "out", *options) == 0
    # Three layers are the whole encoder: one set of embeddings by two names, and without a cache made for each.
    times = {1: 1, 3: 2}
    assert embedded == {(depth, text): n * TEXTS.count(text) for depth, n in times.items() for text in set(TEXTS)}
    document = json.loads((tmp_path / "out" / "comparison.json").read_text())
    names = {item["name"]: item for item in document["candidates"]}
    assert set(names) == {
        f"{depth}, alphas {grid}" for depth in ("3 layers", "1 layer", "whole encoder") for grid in ("wide", "classic")
    }
    assert len(document["pairs"]) == 6 * 5 / 2
    assert names["3 layers, alphas wide"]["macro_f1s"] == names["whole encoder, alphas wide"]["macro_f1s"]
    assert names["1 layer, alphas wide"]["megabytes"] < names["3 layers, alphas wide"]["megabytes"]
    features = real(cut(load_encoder(str(folder), normaliser="http"), 1), TEXTS)
    labels = np.asarray(LABELS)
    fold = next(iter(repeated_folds(LABELS, folds=3, repeats=2, seed=0)))
    predicted = fit(features[fold.train], labels[fold.train].tolist()).predict(features[fold.held_out], DATA.classes)
    by_hand = balanced_accuracy_score(labels[fold.held_out], predicted)
    assert names["1 layer, alphas wide"]["balanced_accuracies"][0] == pytest.approx(by_hand)
    with (tmp_path / "out" / "comparison.csv").open(newline="") as stream:
        assert {row["depth"] for row in csv.DictReader(stream)} == {"1", "3", "whole"}


def test_all_depths_are_one_candidate_for_each_layer(csv_file, sentence_folder, tmp_path, capsys):
    assert run(csv_file, tmp_path / "out", "--encoders", sentence_folder("bert", layers=3), "--depths", "all") == 0
    text = capsys.readouterr().out
    assert all(f" {name} " in text for name in ("1 layer", "2 layers", "3 layers"))


def test_scores_whose_alphas_were_chosen_by_single_rows_are_not_mixed_with_others(sentence_folder, tmp_path):
    """Folders of older versions on rows that belong together; on others they go on."""
    candidates = [Candidate(str(sentence_folder("bert")))]
    twice = tiny_models.labelled(
        [text for text in TEXTS for _ in range(2)], [name for name in LABELS for _ in range(2)]
    )
    plan = tmp_path / "out" / "plan.json"
    compare(twice, plan.parent, candidates, DESIGN)
    older = {name: value for name, value in json.loads(plan.read_text()).items() if name != "left_out_together"}
    plan.write_text(json.dumps(older))
    with pytest.raises(ResumeError, match="another plan: left_out_together is different"):
        compare(twice, plan.parent, candidates, DESIGN)


@pytest.mark.parametrize(
    ("depths", "told"), [("1,2", "\np; chances"), ("1,2,3", "\np after Holm for all 3 pairs; chances")]
)
def test_one_pair_needs_no_correction(csv_file, sentence_folder, tmp_path, capsys, depths, told):
    assert run(csv_file, tmp_path / "out", "--encoders", sentence_folder("bert", layers=3), "--depths", depths) == 0
    assert told in capsys.readouterr().out


@pytest.mark.slow
def test_auto_chooses_a_depth_in_each_training_part_alone(sentence_folder, tmp_path):
    folder = str(sentence_folder("bert", layers=3))
    result = compare(DATA, tmp_path / "out", combine({"encoder": [folder], "depth": ["auto", 1, 2, 3]}), DESIGN)
    at_depth = {
        depth: embedding.embed(cut(load_encoder(folder, normaliser="http"), depth), TEXTS) for depth in (1, 2, 3)
    }
    scores = {item.candidate.depth: item for item in result.judged}
    chosen = []
    for place, fold in enumerate(repeated_folds(LABELS, folds=3, repeats=2, seed=0)):
        rows = fold.train.tolist()
        choice = shallowest_as_good(
            {d: v[rows] for d, v in at_depth.items()}, [LABELS[row] for row in rows], apart(len(rows))
        )
        chosen.append(choice.depth)
        assert scores["auto"].balanced_accuracies[place] == scores[choice.depth].balanced_accuracies[place]
    log = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()]
    assert [r["depth"] for r in log if r["candidate"].get("depth") == "auto" and "fold" in r] == chosen
    commonest = min(set(chosen), key=lambda depth: (-chosen.count(depth), depth))
    assert scores["auto"].cost.parameters == scores[commonest].cost.parameters


def test_a_depth_beyond_the_encoder_fails_alone(csv_file, sentence_folder, tmp_path, capsys):
    folder = sentence_folder("bert", layers=3)
    assert run(csv_file, tmp_path / "out", "--encoders", folder, "--depths", "2,7") == 5
    assert "failed: 7 layers: depth is 7, expected 1 to 3" in capsys.readouterr().out


@pytest.mark.slow
def test_lora_is_cut_too(sentence_folder, tmp_path):
    recipe = LoraRecipe(epochs=1, batch_size=16, learning_rate=1e-2, precision="fp32", max_length=24)
    axes = {"encoder": [str(sentence_folder("bert", layers=3))], "recipe": ["lora"], "lora": [recipe], "depth": [1, 3]}
    result = compare(DATA, tmp_path / "out", combine(axes), Design(folds=2, repeats=1))
    size = {item.candidate.depth: item.cost.parameters for item in result.judged}
    assert size[1] < size[3]


def test_a_log_from_before_depths_goes_on(sentence_folder, tmp_path, monkeypatch):
    candidate = Candidate(str(sentence_folder("bert")))
    first = compare(DATA, tmp_path / "out", [candidate], DESIGN)
    log = next((tmp_path / "out").glob("*.jsonl")).read_text()
    assert '"normaliser": "http"' in log or '"normaliser":"http"' in log
    assert "depth" not in log
    monkeypatch.setattr(candidate_features, "load_encoder", None)  # nothing is left to embed
    again = compare(DATA, tmp_path / "out", [candidate], DESIGN)
    assert again.judged[0].balanced_accuracies == first.judged[0].balanced_accuracies


def test_an_interrupted_comparison_goes_on_and_ends_the_same(sentence_folder, tmp_path, monkeypatch):
    candidates = combine({"encoder": [str(sentence_folder("bert"))], "alphas": ["wide", "classic"]})
    whole = compare(DATA, tmp_path / "whole", candidates, DESIGN)
    fits = []
    real = ridge.fit

    def stopping(*args, **options):
        fits.append(1)
        if len(fits) == 8:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(ridge, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        compare(DATA, tmp_path / "out", candidates, DESIGN)
    resumed = compare(DATA, tmp_path / "out", candidates, DESIGN)
    assert len(fits) == 8 + (12 - 7)
    assert [item.balanced_accuracies for item in resumed.judged] == [item.balanced_accuracies for item in whole.judged]
    assert resumed.pairs == whole.pairs


def test_lora_is_trained_on_each_training_part_for_all_its_epochs(encoder_folder, tmp_path, monkeypatch):
    trained = []
    real = lora.fit

    def spying(base, ids, labels, recipe, **options):
        trained.append((len(ids), recipe.epochs, options.get("watch")))
        return real(base, ids, labels, recipe, **options)

    monkeypatch.setattr(lora, "fit", spying)
    recipe = LoraRecipe(epochs=1, batch_size=16, learning_rate=1e-2, precision="fp32", max_length=24)
    candidate = Candidate(str(encoder_folder("bert")), recipe="lora", lora=recipe)
    result = compare(DATA, tmp_path / "out", [candidate], Design(folds=2, repeats=1))
    assert trained == [(30, 1, None)] * 2, "held-out rows choose nothing"
    assert result.judged[0].cost.texts_per_s > 0
    assert result.judged[0].cost.megabytes == pytest.approx(4e-6 * result.judged[0].cost.parameters, abs=0.01)


def test_one_failure_does_not_lose_the_rest_and_the_exit_code_tells(csv_file, sentence_folder, tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    encoders = f"{tmp_path / 'broken'},{sentence_folder('bert')}"
    code = run(csv_file, tmp_path / "out", "--encoders", encoders, "--no-cache")
    out, err = capsys.readouterr()
    assert code == 5
    assert "failed: broken: Encoder" in out
    assert "bert" in out
    assert "1 of 2 candidates failed" in err
    assert "Traceback" not in err
    document = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [item["name"] for item in document["candidates"]] == ["bert"]
    assert list(document["failures"]) == ["broken"]


def test_an_encoder_that_fails_is_tried_once(tmp_path, monkeypatch):
    tried = []

    def failing(spec, **_options):
        tried.append(spec)
        raise InputError("not there")

    monkeypatch.setattr(candidate_features, "load_encoder", failing)
    candidates = combine({"encoder": ["gone"], "alphas": ["wide", "classic"]})
    with pytest.raises(InputError, match="alphas wide: not there; alphas classic: not there"):
        compare(DATA, tmp_path / "out", candidates, DESIGN)
    assert tried == ["gone"]


def test_nothing_that_works_is_an_error(csv_file, tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    assert run(csv_file, tmp_path / "out", "--encoders", tmp_path / "broken") == 4
    assert "No candidate could be judged" in capsys.readouterr().err


def test_table_files_and_picture_say_the_same(csv_file, sentence_folder, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--encoders", sentence_folder("bert"), "--alphas", "wide,classic,1/10", "--group-column", "author"]
    assert run(csv_file, out, *options, "--no-cache", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((out / "comparison.json").read_text())
    assert document["group_column"] == "author"
    assert len(document["pairs"]) == 3
    with (out / "comparison.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["candidate"] for row in table] == [item["name"] for item in document["candidates"]]
    assert float(table[0]["balanced_accuracy"]) == document["candidates"][0]["balanced_accuracy"]["value"]
    with (out / "folds.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 3 * 6
    with (out / "pairs.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 3
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert run(csv_file, out, *options, "--no-cache") == 0  # from the log
    text = capsys.readouterr().out
    assert "60 rows, 2 x 3-fold cross-validation, nobody of 'author' in both parts, seed 0." in text
    assert all(len(line) <= 120 for line in text.splitlines()[:-2])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--normalisers", "http,url"], 2, "--normalisers names 'url'"),
        (["--recipe", "svm"], 2, "recipe is 'svm'"),
        (["--group-column", "writer"], 4, "--group-column"),
        (["--folds", "40"], 4, "fewer than the 40 folds"),
        (["--alphas", "1/many"], 2, "alphas are '1/many'"),
        (["--depths", "0"], 2, "--depths names '0', expected numbers of layers from 1"),
        (["--depths", "auto", "--recipe", "lora"], 2, "depth auto is only compared with ridge"),
        (["--depths", ","], 2, "--depths names nothing to compare"),
        (["--encoders", ","], 2, "names nothing to compare"),
        (["--from-sweep", "nowhere", "--recipe", "lora"], 4, "nowhere holds no finished sweep"),
        (["--from-sweep", "nowhere"], 2, "--from-sweep is of lora, which is not compared. Add it to --recipe"),
        (["--epochs", "3"], 2, "--epochs is of lora"),
        (["--alphas", "classic", "--recipe", "lora"], 2, "--alphas is of ridge"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_takes_time(
    csv_file, tmp_path, capsys, options, code, message
):
    assert (
        main(["compare", str(csv_file), "--output", str(tmp_path / "out"), "--encoders", "never/reached", *options])
        == code
    )
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def judged(name, speed, score):
    return Judged(
        name,
        Candidate(name),
        mean_score([score, score], held_out_per_trained=0.5, rows_held_out=20),
        mean_score([score, score], held_out_per_trained=0.5, rows_held_out=20),
        (score, score),
        (score, score),
        Cost(speed, 10, 0.1, 1.0),
    )


def test_pareto_front_holds_what_no_other_beats_in_both():
    items = [
        judged("slow good", 10, 0.9),
        judged("fast bad", 100, 0.7),
        judged("dominated", 9, 0.8),
        judged("middle", 50, 0.8),
    ]
    assert [item.name for item in pareto_front(items)] == ["fast bad", "middle", "slow good"]
    assert [item.name for item in pareto_front([*items, judged("twin", 50, 0.8)])] == [
        "fast bad",
        "middle",
        "slow good",
    ]


def test_long_and_strange_names_fit_the_table(tmp_path):
    items = (judged("x" * 200, 10, 0.9), judged("$y_{$", 20, 0.5))
    result = Comparison(items, (), {}, rows=4, folds=2, repeats=1, seed=0, group_column=None)
    assert all(len(line) <= 120 for line in comparison_files.as_text(result).splitlines())
    comparison_files.write(result, tmp_path)
    assert (tmp_path / "pareto.png").stat().st_size > 1000
