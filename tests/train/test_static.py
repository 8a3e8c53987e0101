"""The static recipe and its distillation: means of token vectors, and a table that moves towards its teacher."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.sparse
import tiny_models

from edgewren.cli.main import main
from edgewren.errors import UsageError
from edgewren_train import static
from edgewren_train.distillation import distil
from edgewren_train.ridge import RidgeHead
from edgewren_train.ridge_settings import RidgeSettings
from edgewren_train.static_run import Teaching, run_static


def test_shares_count_every_token_and_sum_to_one():
    matrix = static.shares([[1, 5, 5, 2], [3]], 6).toarray()
    assert matrix.tolist() == [[0, 0.25, 0.25, 0, 0, 0.5], [0, 0, 0, 1, 0, 0]]


def test_mean_vectors_are_means_and_their_decision_is_the_mean_of_decisions():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9, 4)).astype(np.float32)
    rows = [[0, 3, 3], [8], list(range(9))]
    means = static.mean_vectors(rows, vectors)
    np.testing.assert_allclose(means, [vectors[row].mean(axis=0) for row in rows], atol=1e-6)
    head = RidgeHead(
        rng.normal(size=4),
        rng.uniform(1, 2, 4),
        rng.normal(size=(1, 4)),
        rng.normal(size=1),
        1.0,
        (1.0,),
        (0.0,),
        False,
    )
    table = head.decision(vectors)
    np.testing.assert_allclose(head.decision(means), [table[row].mean() for row in rows], atol=1e-6)


def random_problem(count: int, outputs: int = 1, vocabulary: int = 50):
    rng = np.random.default_rng(1)
    shares = static.shares(
        [rng.integers(0, vocabulary, rng.integers(3, 12)).tolist() for _ in range(count)], vocabulary
    )
    base, teacher = rng.normal(size=(2, vocabulary, outputs))
    return shares, shares @ base, shares @ (2 * base + teacher), base


@pytest.mark.parametrize("outputs", [1, 4])
def test_distillation_finds_a_teacher_that_is_a_table(outputs):
    shares, undistilled, teacher, _ = random_problem(2000, outputs)
    fitted = distil(shares, undistilled, teacher)
    assert fitted.undistilled_loss > 100 * min(fitted.losses)
    answer = fitted.scale * undistilled + shares @ fitted.coef.T + fitted.intercept
    np.testing.assert_allclose(answer, teacher, atol=0.05)
    assert fitted.held_out.shape == teacher.shape


def test_word_that_the_texts_do_not_hold_keeps_its_value():
    shares, undistilled, teacher, _ = random_problem(300, vocabulary=60)
    shares = static.shares([row.indices.tolist() for row in shares], 80)
    fitted = distil(shares, undistilled, teacher)
    assert np.abs(fitted.coef[:, 60:]).max() < 1e-12
    assert np.abs(fitted.coef[:, :60]).max() > 0.1


def test_noisy_teacher_gets_a_stronger_penalty():
    shares, undistilled, teacher, _ = random_problem(400)
    noise = undistilled + np.random.default_rng(5).normal(size=undistilled.shape)
    fitted = distil(shares, undistilled, noise)
    assert fitted.strength > 10 * distil(shares, undistilled, teacher).strength


def test_few_texts_are_refused():
    shares, undistilled, teacher, _ = random_problem(50)
    with pytest.raises(UsageError, match="50 distinct texts .* at least 100"):
        distil(shares, undistilled, teacher)


class Oracle:
    """A teacher that knows the words which decide: calm ones against angry ones."""

    def __init__(self, labels: tuple[str, str]) -> None:
        from types import SimpleNamespace

        self.labels = labels
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(kind="lora", temperature=1.0), sha256="0" * 64)

    def decision_function(self, texts):
        sign = 1 if self.labels[1] == "calm" else -1
        calm = [sum((word in tiny_models.CALM) - (word in tiny_models.ANGRY) for word in t.split()) for t in texts]
        return sign * np.array(calm, dtype=np.float32) * 3


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    return tiny_models.sentence_transformer(tmp_path_factory.mktemp("encoder") / "e")


@pytest.mark.parametrize("labels", [("angry", "calm"), ("calm", "angry")])
def test_distilled_model_agrees_with_its_teacher_in_either_order_of_labels(tiny_encoder, tmp_path, labels):
    data = tiny_models.labelled(*tiny_models.toy_texts(24))
    texts = tiny_models.toy_texts(600, seed=8)[0]
    said = []
    summary = run_static(
        data,
        tmp_path / "model",
        RidgeSettings(str(tiny_encoder), folds=0),
        teaching=Teaching(Oracle(labels), [*texts, *texts], "archive.csv"),
        say=said.append,
    )
    facts = summary.training["distillation"]
    assert facts["texts"] == {"file": "archive.csv", "rows": 1200, "distinct": len(set(texts))}
    assert facts["agreement"]["value"] > max(0.9, facts["undistilled_agreement"]["value"])
    assert any("agreement with the teacher on texts held out" in line for line in said)
    assert summary.headline == "training rows (optimistic)"
    assert (tmp_path / "model" / "distilled.safetensors").is_file()


def test_teacher_with_other_labels_is_refused(tiny_encoder, tmp_path):
    data = tiny_models.labelled(*tiny_models.toy_texts(24))
    with pytest.raises(UsageError, match="same labels"):
        run_static(
            data, tmp_path / "m", RidgeSettings(str(tiny_encoder)), teaching=Teaching(Oracle(("a", "b")), [], "x")
        )


def test_distill_and_teacher_belong_together(tmp_path, capsys):
    assert main(["train", "static", str(tmp_path / "x.csv"), "--distill", "y.csv"]) == 2
    assert "give both, or neither" in capsys.readouterr().err


def test_a_device_for_no_teacher_is_refused(tmp_path, capsys):
    assert main(["train", "static", str(tmp_path / "x.csv"), "--device", "cuda"]) == 2
    assert "--device cuda is where the --teacher computes" in capsys.readouterr().err


def test_command_trains_a_static_model_with_a_cross_validated_score(tiny_encoder, tmp_path, capsys):
    texts, labels = tiny_models.toy_texts(60)
    table = tmp_path / "toy.csv"
    table.write_text("text,label\n" + "".join(f"{t},{n}\n" for t, n in zip(texts, labels, strict=True)))
    options = ["--encoder", str(tiny_encoder), "--output", str(tmp_path / "m"), "--folds", "3", "--json"]
    assert main(["train", "static", str(table), *options]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["kind"] == "static"
    assert summary["evaluations"]["3-fold cross-validation"]["balanced_accuracy"]["value"] > 0.7


def test_copies_with_other_links_are_held_out_together_where_a_strength_is_chosen():
    """Without a normaliser they are other tokens. What is noise of one text was foretold by its copy."""
    shares, undistilled, _, _ = random_problem(400, vocabulary=900)
    noise = undistilled + np.random.default_rng(5).normal(size=undistilled.shape)
    copies = np.tile(np.arange(400), 3)
    thrice = scipy.sparse.vstack([shares] * 3).tocsr()
    honest = distil(thrice, np.tile(undistilled, (3, 1)), np.tile(noise, (3, 1)), copies=copies)
    told = distil(thrice, np.tile(undistilled, (3, 1)), np.tile(noise, (3, 1)))
    assert min(told.losses) < 0.1 * min(honest.losses)
    assert honest.strength > 100 * told.strength
    with pytest.raises(UsageError, match="50 distinct texts"):
        distil(thrice[:150], undistilled[:150], noise[:150], copies=np.arange(150) % 50)
