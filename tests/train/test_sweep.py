"""`edgewren sweep lora`: all settings with all seeds, resumable after a kill, pruning, and the winner retrained."""

from __future__ import annotations

import csv
import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiny_models
import torch

from edgewren.cli.main import main
from edgewren.errors import InputError, ResumeError
from edgewren_train import lora, sweep, sweep_choice, sweep_files, sweep_study
from edgewren_train.epoch_watch import EpochScore
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.search_space import parse_axis
from edgewren_train.sweep import run_sweep
from edgewren_train.sweep_plan import Run, SweepPlan

TEXTS, LABELS = tiny_models.toy_texts(40)
DATA = tiny_models.labelled(TEXTS, LABELS)
BASE = LoraRecipe(epochs=2, batch_size=16, learning_rate=1e-2, precision="fp32", max_length=24)


@pytest.fixture
def plan(encoder_folder):
    axes = (parse_axis("rank", "2,4"), parse_axis("alpha", "4,8"))
    return SweepPlan(str(encoder_folder("bert")), axes, base=BASE, seeds=(0, 1), validation=0.25, patience=0)


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "posts.csv"
    rows = [f'"{text}",{label}' for text, label in zip(TEXTS, LABELS, strict=True)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def made(rank, scores, *, epoch=3, pruned=False, alpha=16, held_out=100):
    runs = []
    for seed, score in enumerate(scores):
        best = EpochScore(epoch + seed, 0.5, score)
        runs.append(Run({"rank": rank, "alpha": alpha}, seed, (best,), best, 1.0, 4 * held_out, held_out, pruned))
    return runs


@pytest.mark.slow
def test_every_setting_is_trained_once_with_every_seed_on_the_same_parts(plan, tmp_path, monkeypatch):
    trained = []
    real = lora.fit

    def spying(base, ids, labels, recipe, *, watch, **options):
        trained.append((recipe.rank, recipe.alpha, recipe.seed, len(ids), tuple(map(tuple, watch.ids))))
        return real(base, ids, labels, recipe, watch=watch, **options)

    monkeypatch.setattr(lora, "fit", spying)
    told = []
    runs = run_sweep(DATA, tmp_path / "out", plan, on_run=told.append)
    assert Counter((rank, alpha, seed) for rank, alpha, seed, *_ in trained) == Counter(
        (rank, alpha, seed) for rank in (2, 4) for alpha in (4, 8) for seed in (0, 1)
    )
    assert {rows for *_, rows, _ in trained} == {30}
    parts = {seed: {held_out for _, _, one, _, held_out in trained if one == seed} for seed in (0, 1)}
    assert [len(parts[0]), len(parts[1])] == [1, 1]
    assert parts[0] != parts[1]
    assert told == runs
    assert all(len(run.scores) == 2 and run.best in run.scores for run in runs)
    run_sweep(DATA, tmp_path / "out", plan)
    assert len(trained) == 8, "finished settings are not trained again"


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_and_loses_one_training_at_most(plan, tmp_path, monkeypatch):
    trained = []
    real = lora.fit

    def stopping(base, ids, labels, recipe, **options):
        trained.append((recipe.rank, recipe.alpha, recipe.seed))
        if len(trained) == 4:
            raise KeyboardInterrupt
        return real(base, ids, labels, recipe, **options)

    monkeypatch.setattr(lora, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(DATA, tmp_path / "out", plan)
    runs = run_sweep(DATA, tmp_path / "out", plan)
    assert len(trained) == 8 + 1
    assert Counter((run.settings["rank"], run.settings["alpha"], run.seed) for run in runs) == Counter(set(trained))
    assert len(sweep_choice.complete(runs, plan.seeds)) == 4


@pytest.mark.slow
def test_ranges_are_searched_as_often_as_asked_and_worse_settings_given_up(encoder_folder, tmp_path):
    axes = (parse_axis("learning_rate", "1e-6:1e-1"), parse_axis("rank", "2:4"))
    plan = SweepPlan(
        str(encoder_folder("bert")), axes, base=BASE, seeds=(0,), validation=0.25, patience=0, trials=4, prune=True
    )
    runs = run_sweep(DATA, tmp_path / "out", plan)
    assert len(runs) == 4
    assert all(1e-6 <= run.settings["learning_rate"] <= 1e-1 and run.settings["rank"] in (2, 3, 4) for run in runs)
    found = sweep_files.settings(runs, plan)
    assert "sweep.png" in sweep_files.write(found, runs, plan, tmp_path / "out")


@pytest.mark.slow
def test_pruned_settings_end_early_and_are_not_in_the_table(plan, tmp_path, monkeypatch):
    import optuna

    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda trial: trial.params == {"rank": 4, "alpha": 8})
    runs = run_sweep(DATA, tmp_path / "out", plan)
    given_up = [run for run in runs if run.pruned]
    assert [(run.settings, len(run.scores)) for run in given_up] == [({"rank": 4, "alpha": 8}, 1)]
    found = sweep_files.settings(runs, plan)
    assert len(found) == 3
    assert "1 setting(s) were given up early: rank 4, alpha 8" in sweep_files.as_text(found, runs, plan)


def test_the_best_is_tested_against_each_other_with_holm():
    plan = SweepPlan("x", (parse_axis("rank", "1,2,3"),), seeds=(0, 1, 2))
    runs = [*made(1, (0.70, 0.72, 0.71)), *made(2, (0.80, 0.83, 0.81)), *made(3, (0.79, 0.83, 0.82))]
    found = sweep_files.settings(runs, plan)
    assert found[0].runs[0].settings["rank"] in (2, 3)
    assert found[0].behind is None
    assert found[-1].behind.difference.value == pytest.approx(0.1033, abs=1e-3)
    assert found[-1].p_holm > found[-1].behind.p
    assert found[-1].p_holm == pytest.approx(3 * found[-1].behind.p), "adjusted for all three pairs, as in compare"
    assert "beyond noise: rank 1" in sweep_files.noise_verdict(found)
    assert "No setting differs" in sweep_files.noise_verdict(found[:2])
    assert "Add --seeds" in sweep_files.noise_verdict(found[:1])


def test_of_equal_settings_seldom_one_is_called_worse_than_the_best():
    """27 settings, five seeds, parts of 1,000 of 5,000 rows; which rows a setting gets wrong is mostly its own, whatever
    the seed. Holm for the 26 pairs with the best alone, which the same scores chose, calls one worse in 14 %."""
    plan = SweepPlan("x", (parse_axis("rank", "1"),), seeds=(0, 1, 2, 3, 4))
    draw = np.random.default_rng(0)
    wrongly = 0
    for _ in range(60):
        easy, own = draw.normal(size=5000), draw.normal(size=(27, 5000))
        scores = []
        for _ in plan.seeds:
            rows = draw.permutation(5000)[:1000]
            luck = 0.95 * own[:, rows] + 0.31 * draw.normal(size=(27, 1000))
            scores.append((easy[rows] + 0.4 * luck < 0.73).mean(axis=1))
        runs = [
            run for rank, of_seeds in enumerate(np.transpose(scores)) for run in made(rank, of_seeds, held_out=1000)
        ]
        wrongly += "beyond noise:" in sweep_files.noise_verdict(sweep_files.settings(runs, plan))
    assert wrongly <= 0.05 * 60


def test_a_setting_without_all_seeds_cannot_win():
    runs = [*made(1, (0.7, 0.7)), *made(2, (0.9,)), *made(3, (0.95, 0.95), pruned=True)]
    assert sweep_choice.winner(runs, (0, 1))[0].settings["rank"] == 1
    with pytest.raises(InputError, match="No setting finished"):
        sweep_choice.winner(made(2, (0.9,)), (0, 1))


def test_retraining_ends_after_the_median_epoch_on_the_same_schedule():
    recipe = sweep_choice.chosen_recipe(made(2, (0.7, 0.7, 0.7), epoch=4), LoraRecipe(epochs=15))
    assert (recipe.rank, recipe.alpha, recipe.epochs, recipe.stop_after) == (2, 16, 15, 5)


def test_other_data_in_the_same_folder_is_refused(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_work", lambda *_, **__: None)
    run_sweep(DATA, tmp_path / "out", plan)
    with pytest.raises(ResumeError, match="runs of another plan: rows"):
        run_sweep(tiny_models.labelled(TEXTS[:30], LABELS[:30]), tmp_path / "out", plan)


def test_other_groups_in_the_same_folder_are_refused(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_work", lambda *_, **__: None)
    run_sweep(DATA, tmp_path / "out", plan)
    with pytest.raises(ResumeError, match="another plan: group_column is different"):
        run_sweep(DATA, tmp_path / "out", dataclasses.replace(plan, group_column="author"))


def command(csv_file, encoder, out, *options):
    usual = ["--rank", "2,4", "--alpha", "4,8", "--epochs", "2", "--learning-rate", "1e-2", "--seeds", "0,1"]
    return ["sweep", "lora", str(csv_file), "--encoder", str(encoder), "--output", str(out), "--max-length", "24",
            *usual, *map(str, options)]  # fmt: skip


@pytest.mark.slow
def test_command_writes_table_heat_map_and_what_train_reads(csv_file, encoder_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(csv_file, encoder_folder("bert"), out, "--retrain", tmp_path / "model")) == 0
    text, err = capsys.readouterr()
    assert "4 settings, each with 2 seed(s) (0, 1), 32 rows trained, 8 held out." in text
    assert "trained model: " in text
    assert "rank 2, alpha 4, learning rate 0.01, epochs 2, seed 0: balanced accuracy" in err
    assert (out / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    with (out / "sweep.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 8
    best = json.loads((out / "sweep.json").read_text())["best"]
    training = json.loads((tmp_path / "model" / "model.json").read_text())["training"]
    assert {name: training[name] for name in best["settings"]} == best["settings"]
    assert training["steps"] == best["recipe"]["stop_after"] * 1, "40 rows are one batch of 64"

    more = ["--from-sweep", out, "--encoder", encoder_folder("bert"), "--output", tmp_path / "again", "--rank", "3"]
    assert main(["train", "lora", str(csv_file), *map(str, more), "--max-length", "24", "--normaliser", "none"]) == 0
    assert f"warning: {out} was swept with --normaliser http (here none)" in capsys.readouterr().err
    again = json.loads((tmp_path / "again" / "model.json").read_text())["training"]
    assert (again["rank"], again["alpha"]) == (3, best["settings"]["alpha"]), "what is given wins over the sweep"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--rank", "0,4"], 2, "rank is 0"),
        (["--seeds", "0,0"], 2, "seeds are [0, 0]"),
        (["--seeds", "one"], 2, "--seeds: 'one' is no seed"),
        (["--seeds", "0,-1"], 2, "--seeds: '-1' is no seed, expected a whole number from 0 to 4294967295"),
        (["--trials", "0"], 2, "trials is 0"),
        (["--trials", "5"], 2, "--trials is of searches in ranges"),
        (["--validation", "1.5"], 2, "validation is 1.5"),
        (["--validation", "nan"], 2, "validation is nan"),
        (["--early-stopping", "-1"], 2, "early-stopping is -1"),
        (["--jobs", "0"], 2, "jobs is 0"),
    ],
)
def test_options_out_of_range_are_refused(csv_file, encoder_folder, tmp_path, capsys, options, code, message):
    assert main(command(csv_file, encoder_folder("bert"), tmp_path / "out", *options)) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_sweep_that_was_refused_leaves_no_plan_to_hold_to(csv_file, encoder_folder, tmp_path, capsys):
    argv = command(csv_file, encoder_folder("bert"), tmp_path / "out", "--seeds", "0", "--epochs", "1", "--rank", "2")
    assert main([*argv, "--max-length", "1"]) != 0
    assert not (tmp_path / "out").exists()
    assert main([*argv, "--max-length", "16"]) == 0
    assert "another plan" not in capsys.readouterr().err


@pytest.mark.slow
def test_settings_that_fail_are_told_and_the_others_go_on(csv_file, encoder_folder, tmp_path, capsys):
    """One that no layer is called by, and one that runs away; the same command again tries neither."""
    out = tmp_path / "out"
    argv = command(csv_file, encoder_folder("bert"), out, "--target-modules", "query,value;gate", "--seeds", "0")
    argv[argv.index("--rank") + 1], argv[argv.index("--alpha") + 1] = "2", "4"
    argv[argv.index("--learning-rate") + 1] = "1e-2,1e30"
    assert main(argv) == 0
    text, err = capsys.readouterr()
    assert "1 settings, each with 1 seed(s)" in text
    assert "3 setting(s) failed:" in text
    assert "target modules gate, seed 0: BertForSequenceClassification has no linear layer called gate. Its" in text
    assert "learning rate 1e+30, epochs 2, target modules query,value, seed 0: training ran away" in text
    assert "failed: BertForSequenceClassification has no" in err
    records = [json.loads(line) for line in (out / "runs.jsonl").read_bytes().splitlines()]
    assert sum(bool(record["failed"]) for record in records) == 3
    assert {record["best"]["loss"] for record in records if record["failed"]} == {None}
    assert len(json.loads((out / "sweep.json").read_text())["failed"]) == 3
    with (out / "sweep.csv").open(newline="") as stream:
        assert Counter(bool(row["failed"]) == (row["log_loss"] == "") for row in csv.DictReader(stream)) == {True: 4}
    assert main(argv) == 0
    assert (out / "runs.jsonl").read_bytes().count(b"\n") == 4, "nothing is trained again"


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sweep_of_which_all_settings_fail_ends_with_their_reason(csv_file, encoder_folder, tmp_path, capsys, jobs):
    """A range, too: trials that fail are counted, or they would never end."""
    argv = command(csv_file, encoder_folder("bert"), tmp_path / "out", "--target-modules", "gate", "--trials", "3")
    argv[argv.index("--learning-rate") + 1] = "1e-4:1e-3"
    argv += ["--jobs", str(jobs)]
    for _ in range(2):
        assert main(argv) == 2
        err = capsys.readouterr().err
        assert "No setting finished all its seeds: 3 failed, the first was rank" in err
        assert "has no linear layer called gate." in err
        assert "start anew with --force" in err
    assert (tmp_path / "out" / "runs.jsonl").read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError, RuntimeError])
def test_only_what_may_be_the_settings_fault_lets_the_others_go_on(plan, tmp_path, monkeypatch, error):
    """torch tells of too little memory on a CPU by a plain RuntimeError; any other is no setting's fault."""
    real = lora.fit
    said = "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate"

    def failing(base, ids, labels, recipe, **options):
        if recipe.rank == 4:
            raise error(said)
        return real(base, ids, labels, recipe, **options)

    monkeypatch.setattr(lora, "fit", failing)
    plan = dataclasses.replace(plan, axes=(parse_axis("rank", "2,4"),), seeds=(0,))
    runs = run_sweep(DATA, tmp_path / "out", plan)
    assert [(run.settings["rank"], run.failed[:13]) for run in runs] == [(2, ""), (4, "out of memory")]
    said = "a bug"
    if error is RuntimeError:
        with pytest.raises(RuntimeError, match="a bug"):
            run_sweep(DATA, tmp_path / "other", plan)


def await_runs(process, path, number):
    deadline = time.monotonic() + 300
    while not (path.exists() and path.read_bytes().count(b"\n") >= number):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def study(tmp_path):
    return sweep_study.open_study(tmp_path, prune=False)


def test_workers_that_ask_at_once_take_each_setting_of_a_grid_once(study, tmp_path):
    for rank in (2, 4, 8, 16):
        study.enqueue_trial({"rank": rank, "alpha": 4})
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: sweep_study.next_trial(study, tmp_path, None), range(8)))
    given = [study.trials[trial.number].system_attrs["fixed_params"]["rank"] for trial in taken if trial]
    assert sorted(given) == [2, 4, 8, 16]
    assert len(study.trials) == 4


def test_workers_that_ask_at_once_stay_within_the_number_of_trials(study, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: sweep_study.next_trial(study, tmp_path, 3), range(8)))
    assert sum(trial is not None for trial in taken) == len(study.trials) == 3


def test_what_a_killed_sweep_left_running_is_queued_once(study):
    study.enqueue_trial({"rank": 2, "alpha": 4})
    study.ask()
    study.enqueue_trial({"rank": 2, "alpha": 4})  # a sweep was killed between this and its next step
    for _ in range(2):
        sweep_study.restore_killed(study)
        assert Counter(trial.state.name for trial in study.trials) == {"FAIL": 1, "WAITING": 1}


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(csv_file, encoder_folder, tmp_path):
    out = tmp_path / "out"
    arguments = command(csv_file, encoder_folder("bert"), out, "--jobs", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "edgewren", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    await_runs(process, out / "runs.jsonl", 1)
    process.kill()
    process.communicate(timeout=60)  # returns when nobody holds its output any more: the workers are gone
    assert (out / "runs.jsonl").read_bytes().count(b"\n") < 8, "they had not just finished"


@pytest.mark.slow
def test_a_killed_sweep_of_two_processes_goes_on(csv_file, encoder_folder, tmp_path):
    out = tmp_path / "out"
    arguments = command(csv_file, encoder_folder("bert"), out, "--jobs", "2")
    process = subprocess.Popen([sys.executable, "-m", "edgewren", *arguments], start_new_session=True)
    runs = out / "runs.jsonl"
    await_runs(process, runs, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = runs.read_bytes().count(b"\n")
    finished = subprocess.run([sys.executable, "-m", "edgewren", *arguments], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    records = [json.loads(line) for line in runs.read_bytes().splitlines()]
    assert len(records) == 8 >= before, "nothing twice, nothing missing"
    assert "4 settings" in finished.stdout


def test_workers_run_no_module_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "runpy.py").write_text("raise SystemExit(7)")  # which a process that is spawned imports first of all
    monkeypatch.chdir(tmp_path)
    worker = multiprocessing.get_context("spawn").Process(target=os.getpid)
    with sweep._safe_path():
        worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert "PYTHONSAFEPATH" not in os.environ
