"""Quality and speed of every depth: static, cut encoders, early exit. Two commands, each prints a table.

    python benchmarks/depth.py quality TRAIN.csv --label-column bias
    python benchmarks/depth.py speed TRAIN.csv BUNDLE[:VARIANT] …

quality: ten-fold cross-validation on the same folds for all, with 95 % bootstrap intervals and paired differences from
the classic recipe (whole encoder, alphas 1e-3 … 100). speed: rounds interleaved, so that a slow spell hits all alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from edgewren.archive.labelled import LabelledTexts, read_labelled
from edgewren.classifier import Classifier

COPIES = 20  # a static model does 1,200 tweets in 40 ms: too short to time


def quality(data: LabelledTexts, encoder_spec: str, seed: int) -> None:
    from edgewren.metrics import evaluate
    from edgewren.paired_comparison import compare
    from edgewren_train import depth, embedding, exit_heads, ridge, static
    from edgewren_train.encoders import load_encoder
    from edgewren_train.exit_plan import ExitPlan

    encoder = load_encoder(encoder_spec, normaliser="http")
    whole = depth.depth_of(encoder)
    cache = embedding.default_cache()
    vectors = static.token_vectors(encoder)
    features = {"static": static.mean_vectors(encoder.tokenizer.encode(data.texts).ids, vectors)}
    heads = exit_heads.ExitHeads(ExitPlan(), encoder.model[0].auto_model, data)
    asked = [*data.texts, *heads.halves]
    at = {layers: embedding.embed(depth.cut(encoder, layers), asked, cache=cache) for layers in range(whole + 1)}
    features |= {f"{layers} layers": values[: len(data.texts)] for layers, values in at.items()}
    options = {"folds": 10, "seed": seed}
    out = {name: ridge.cross_validate(values, data.labels, **options) for name, values in features.items()}
    full = features[f"{whole} layers"]
    classic = ridge.cross_validate(full, data.labels, **options, alphas=ridge.CLASSIC_GRID, extend=False)
    predicted = {name: held_out.predicted(data.classes) for name, held_out in out.items()}
    exit_heads.hold_out_ridge(heads, at, at[whole], ridge.fit, out[f"{whole} layers"], data.labels)
    predicted[f"exit after {', '.join(map(str, heads.layers))}"] = heads.predicted(out[f"{whole} layers"])
    print(f"| {data.path} | balanced accuracy | against the classic recipe |\n|---|---|---|")
    reference = classic.predicted(data.classes)
    for name, labels in {"classic recipe": reference, **predicted}.items():
        own = evaluate(data.labels, labels, data.classes, seed=0).balanced_accuracy.as_text()
        paired = compare(data.labels, labels, reference, data.classes).balanced_accuracy.as_text(signed=True)
        print(f"| {name} | {own} | {paired} |")


def speed(data: LabelledTexts, specs: list[str], rounds: int) -> None:
    texts = [f"{text} {copy}" for copy in range(COPIES) for text in data.texts]
    models = {}
    for spec in specs:
        path, _, variant = spec.partition(":")
        models[spec] = Classifier.load(path, variant=variant or None)
    rates: dict[str, list[float]] = {spec: [] for spec in [*specs, "tokenizer alone"]}
    for _ in range(rounds):
        for spec, model in models.items():
            batch = texts if model.bundle.manifest.kind == "static" else list(data.texts)
            start = time.perf_counter()
            model.predict(batch)
            rates[spec].append(len(batch) / (time.perf_counter() - start))
        bare = next(iter(models.values()))._scheduler.tokenizer._tokenizer  # noqa: SLF001  what it costs by itself
        start = time.perf_counter()
        bare.encode_batch_fast(texts)
        rates["tokenizer alone"].append(len(texts) / (time.perf_counter() - start))
    print("| bundle | tweets/s (best of rounds) | p50 of one, ms | MB on disk | left early |\n|---|---|---|---|---|")
    for spec, model in models.items():
        singles = []
        for text in data.texts[:400]:
            start = time.perf_counter()
            model.predict([text])
            singles.append((time.perf_counter() - start) * 1000)
        entry = model.bundle.manifest.variants[model.variant]
        parts = entry.loaded
        others = sum(file.bytes for name, file in model.bundle.manifest.files.items() if not name.endswith(".onnx"))
        size = sum((model.bundle.path / name).stat().st_size for name in parts) + others
        layers = model.score(data.texts).layers
        left = "" if layers is None else f"{(layers < layers.max()).mean():.0%}"
        print(f"| {spec} | {max(rates[spec]):,.0f} | {statistics.median(singles):.2f} | {size / 1e6:.1f} | {left} |")
    print(f"| tokenizer alone | {max(rates['tokenizer alone']):,.0f} | | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("quality", "speed"))
    parser.add_argument("train", type=Path)
    parser.add_argument("bundles", nargs="*")
    parser.add_argument("--label-column", default="bias")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    data = read_labelled(args.train, label_column=args.label_column)
    if args.what == "quality":
        quality(data, args.encoder, args.seed)
    else:
        speed(data, args.bundles, args.rounds)


if __name__ == "__main__":
    main()
