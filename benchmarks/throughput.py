"""Tweets per second, tokenisation included: edgewren's fp32 and int8 beside the stacks that users would otherwise take.

    make bench            (or: python benchmarks/throughput.py [--rounds 5] [--data FILE.csv …])

All use the same MiniLM weights, the same texts and all granted cores. Each rival runs at the best of several batch
sizes, found first. Rounds are interleaved (A B C A B C …) after a warm-up, so that a drifting machine hits all alike;
the table shows medians and ratios. The last line of stdout is one JSON document.

Texts: --data, else the tweets in $EDGEWREN_DATA or ../shared/data, else the shipped sample posts. The model is trained
on the first file (columns text and bias); int8 is left out where that has too few rows for its gate.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BATCH_SIZES = (8, 16, 32, 64)


def default_data() -> list[Path]:
    shared = Path(os.environ.get("EDGEWREN_DATA", REPOSITORY.parent / "shared" / "data"))
    tweets = [shared / "media_bias_train.csv", shared / "media_bias_test.csv"]
    posts = [REPOSITORY / "examples" / f"town_posts_{part}.csv" for part in ("train", "test", "new")]
    return tweets if all(path.is_file() for path in tweets) else posts


def read(paths: list[Path]) -> list[str]:
    texts: list[str] = []
    for path in paths:
        with path.open(encoding="utf-8", newline="") as stream:
            texts += [row["text"] for row in csv.DictReader(stream)]
    return texts


def make_stacks(folder: Path, training: Path, texts: list[str]) -> dict[str, Callable[[list[str]], list[str]]]:
    """Return name -> (texts to labels): one ridge model, except for the pipeline, which needs a transformers head."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    from edgewren import Classifier
    from edgewren.archive.labelled import read_labelled
    from edgewren.device import granted_cores
    from edgewren_export.fold import load_head
    from edgewren_export.parity import QUANTISED_TEXTS
    from edgewren_export.pipeline import export
    from edgewren_train.lora import load_base
    from edgewren_train.runs import run_ridge

    torch.set_num_threads(granted_cores())
    data = read_labelled(training, label_column="bias")
    run_ridge(data, folder / "model", encoder_spec="minilm", normaliser="none", folds=0)  # the rivals' tokens
    precisions = ["fp32", "int8"] if len(data.texts) >= QUANTISED_TEXTS else ["fp32"]
    bundle = export(folder / "model", folder / "bundle", precisions=precisions).folder

    encoder = SentenceTransformer(str(folder / "model" / "encoder"), device="cpu")
    head = load_head(folder / "model" / "head.safetensors").scikit_learn(data.classes)
    base = load_base("minilm", data.classes, max_length=None, normaliser="none", seed=0)
    base.model.save_pretrained(folder / "hf")
    base.files.write(folder / "hf")
    hugging_face = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(folder / "hf"),
        tokenizer=AutoTokenizer.from_pretrained(folder / "hf"),
        device="cpu",
    )

    def sentence_transformers(batch_size: int) -> Callable[[list[str]], list[str]]:
        return lambda rows: list(head.predict(encoder.encode(rows, batch_size=batch_size, show_progress_bar=False)))

    def transformers_pipeline(batch_size: int) -> Callable[[list[str]], list[str]]:
        return lambda rows: [row["label"] for row in hugging_face(rows, batch_size=batch_size, truncation=True)]

    sample = texts[:256]
    return {
        **{f"edgewren {name}": Classifier.load(bundle, device="cpu", variant=name).predict for name in precisions},
        "sentence-transformers + scikit-learn": best_of(sentence_transformers, sample),
        "transformers pipeline": best_of(transformers_pipeline, sample),
    }


def best_of(
    make: Callable[[int], Callable[[list[str]], list[str]]], sample: list[str]
) -> Callable[[list[str]], list[str]]:
    """Return the stack at the batch size that was fastest on the sample."""
    make(BATCH_SIZES[0])(sample)
    return make(min(BATCH_SIZES, key=lambda size: min(timed(make(size), sample) for _ in range(2))))


def timed(call: Callable[[list[str]], list[str]], texts: list[str]) -> float:
    start = time.perf_counter()
    call(texts)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, nargs="*", default=None, metavar="CSV", help="with columns text and bias")
    args = parser.parse_args()
    files = args.data or default_data()
    texts = read(files)
    with tempfile.TemporaryDirectory() as scratch:
        stacks = make_stacks(Path(scratch), files[0], texts)
        labels = {name: call(texts) for name, call in stacks.items()}  # the warm-up
        seconds: dict[str, list[float]] = {name: [] for name in stacks}
        for _ in range(args.rounds):
            for name, call in stacks.items():
                seconds[name].append(timed(call, texts))
    rate = {name: len(texts) / statistics.median(values) for name, values in seconds.items()}
    ours = [name for name in stacks if name.startswith("edgewren")]
    twin = "sentence-transformers + scikit-learn"
    best = max(value for name, value in rate.items() if name not in ours)
    same = {name: sum(a == b for a, b in zip(labels[name], labels[twin], strict=True)) for name in ours}
    print(f"{len(texts):,} texts, {len(os.sched_getaffinity(0))} cores, {platform.processor() or platform.machine()}")
    for name, value in rate.items():
        print(f"{name:40s} {value:8.1f} texts/s   {value / best:5.2f} x the best rival")
    for name, count in same.items():
        print(f"labels of {name} equal to {twin}: {count} of {len(texts)}")
    ratios = {name: rate[name] / best for name in ours}
    print(json.dumps({"texts": len(texts), "texts_per_s": rate, "ratio_to_best_rival": ratios, "same": same}))


if __name__ == "__main__":
    main()
