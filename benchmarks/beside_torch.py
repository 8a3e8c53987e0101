"""Beside torch on one device, the same weights: token ids in, texts in, and the tokenizer alone.

    python benchmarks/beside_torch.py MODEL [--bundle DIR] [--device cuda] [--texts 65536] [--rounds 3] [--data CSV …]
                                            [--without-compiled]

MODEL is a trained model's folder (ridge or LoRA). It is exported here (a minute), or its bundle given with --bundle:
fp16 for CUDA (fp32 for `--device cpu`, which only tries this script). It is given to torch with SDPA, in the same
precision, as it is and compiled (which takes minutes). All see rows of equal length in batches as large as edgewren
takes there. Torch's results are fetched batch by batch, as `score` does it, and once more at the very end. From texts,
torch gets its ids from the tokenizers library, which works ahead on all cores; sentence-transformers does as its
documentation advises, at its best batch size. Rounds are interleaved. Texts are new mixtures of the parts of the
file's, so that neither duplicates nor words known from elsewhere help. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgewren import Classifier
from edgewren.batching import TokenRows, plan
from edgewren.device import granted_cores
from edgewren_export.pipeline import export
from stacks.material import Labeller, Material, default_data, load_material, read
from stacks.ridge_classifier import load_classifier

Batches = list[NDArray[np.int64]]

_CHUNK = 16_384  # texts that torch gets in one go while the next ones are tokenised
_PIECE = 512  # texts that the tokenizers library gets in one go: its fastest here, in four threads
_ENCODE_SIZES = (256, 1024, 4096)  # sentence-transformers' batch_size


def mixtures(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """Return new texts made of parts of these, each as long as one of them."""
    draw = random.Random(seed)  # noqa: S311  no secret
    parts = [part for text in texts for part in text.split(" ")]
    lengths = [len(text.split(" ")) for text in texts]
    return [" ".join(draw.choices(parts, k=draw.choice(lengths))) for _ in range(count)]


def batches_of(rows: TokenRows, tokens_per_batch: int) -> Batches:
    """Return all rows in batches of equal length, int64 [batch, sequence] each."""
    return [rows.matrix(batch) for batch in plan(rows.lengths, tokens_per_batch)]


def in_threads(call: Callable[[Any], object], work: Sequence[Any], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(call, work):
            pass


class Torch:
    """The trained model in torch, as somebody would write it who knows how: rows of equal length need no mask."""

    def __init__(self, material: Material, device: str, *, compiled: bool = False) -> None:
        self.device = device
        model = load_classifier(material).eval().to(device)
        if device == "cuda":
            model = model.half()
        self._model = torch.compile(model, dynamic=True) if compiled else model

    def logits(self, ids: NDArray[np.int64]) -> torch.Tensor:
        rows = torch.from_numpy(ids).to(self.device, non_blocking=True)
        with torch.inference_mode():
            found: torch.Tensor = self._model(rows).logits.float()
        return found

    def run(self, batches: Batches, *, at_the_end: bool) -> NDArray[np.float32]:
        results: list[Any] = []
        for batch in batches:
            found = self.logits(batch)
            results.append(found if at_the_end else found.cpu())
        return np.concatenate([np.asarray(result.cpu()) for result in results])


def in_pieces(texts: Sequence[str], step: int) -> list[Sequence[str]]:
    return [texts[start : start + step] for start in range(0, len(texts), step)]


def library_rows(tokenizer: Tokenizer, texts: Sequence[str]) -> TokenRows:
    return TokenRows.of([encoding.ids for encoding in tokenizer.encode_batch_fast(texts)])


def torch_from_texts(model: Torch, tokenizer: Tokenizer, texts: Sequence[str], tokens_per_batch: int) -> None:
    """Tokenise ahead with the tokenizers library, and compute."""
    per_chunk = _CHUNK // _PIECE
    with ThreadPoolExecutor(4) as pool:
        ahead = [pool.submit(library_rows, tokenizer, piece) for piece in in_pieces(texts, _PIECE)]
        for start in range(0, len(ahead), per_chunk):
            rows = TokenRows.joined([piece.result() for piece in ahead[start : start + per_chunk]])
            model.run(batches_of(rows, tokens_per_batch), at_the_end=True)


def sentence_transformers(material: Material, device: str, texts: list[str]) -> Labeller:
    """Return sentence-transformers and scikit-learn's head at its fastest batch size on these texts."""
    from sentence_transformers import SentenceTransformer

    from stacks.sentence_transformers_torch import with_head

    encoder = SentenceTransformer(str(material.encoder), device=device)
    encoder = encoder.half() if device == "cuda" else encoder
    stack = with_head(encoder, dataclasses.replace(material, texts=texts), _ENCODE_SIZES)
    print(f"sentence-transformers: {dict(stack.settings)}", file=sys.stderr, flush=True)
    return stack.throughput


def ways(
    material: Material, classifier: Classifier, device: str, count: int, rounds: int, *, with_compiled: bool
) -> dict[str, tuple[int, Callable[[int], object]]]:
    """Return what is timed: texts, and what to call with the round's number, new texts being made of it."""
    tokenizer, session = classifier._scheduler.tokenizer, classifier._session  # noqa: SLF001
    most = classifier._scheduler.tokens_per_batch  # noqa: SLF001
    rows = tokenizer.encode(mixtures(material.texts, count, 0)).rows
    batches = batches_of(rows, most)
    plain = Torch(material, device)
    new = {number: mixtures(material.texts, 4 * count, number) for number in range(1, rounds + 2)}
    fresh = {number: batches_of(tokenizer.encode(texts[:count]).rows, most) for number, texts in new.items()}
    library = Tokenizer.from_file(str(classifier.bundle.path / "tokenizer.json"))
    library.no_padding()
    library.enable_truncation(tokenizer.max_length)

    def tokenise(number: int, threads: int) -> None:
        in_threads(tokenizer.encode, in_pieces(new[number][:count], tokenizer.texts_per_piece), threads)

    def library_tokenises(number: int) -> None:
        in_threads(lambda piece: library_rows(library, piece), in_pieces(new[number][:count], _PIECE), 4)

    def torch_from_our_tokens(number: int) -> None:
        own = batches_of(tokenizer.encode(new[number][:count]).rows, most)
        plain.run(own, at_the_end=True)

    def two_callers(number: int) -> None:
        half = count // 2
        in_threads(classifier.score, [new[number][:half], new[number][half:count]], 2)

    compiled = {}
    if with_compiled:
        model = Torch(material, device, compiled=True)
        name = "ids: torch compiled, results at the end"
        compiled = {name: (count, lambda _: model.run(batches, at_the_end=True))}
    notebook = {}
    if material.kind == "ridge":
        encode = sentence_transformers(material, device, new[1][: min(count, 8192)])
        few = max(1, count // 4)
        notebook = {"texts: sentence-transformers": (few, lambda number: encode(new[number][:few]))}
    threads = sorted({1, 2, 4, granted_cores()} & set(range(1, granted_cores() + 1)))
    return {
        "ids: edgewren, one caller": (count, lambda _: in_threads(session.run, batches, 1)),
        "ids: edgewren, two callers": (count, lambda _: in_threads(session.run, batches, 2)),
        "ids: edgewren, two callers, new shapes": (count, lambda number: in_threads(session.run, fresh[number], 2)),
        "ids: torch SDPA, a result per batch": (count, lambda _: plain.run(batches, at_the_end=False)),
        "ids: torch SDPA, results at the end": (count, lambda _: plain.run(batches, at_the_end=True)),
        **compiled,
        "texts: edgewren, score": (count, lambda number: classifier.score(new[number][:count])),
        "texts: edgewren, score by two callers": (count, two_callers),
        "texts: edgewren, stream": (4 * count, lambda number: sum(1 for _ in classifier.stream(new[number]))),
        "texts: edgewren's tokenizer, torch SDPA": (count, torch_from_our_tokens),
        "texts: tokenizers library, torch SDPA": (
            count,
            lambda number: torch_from_texts(plain, library, new[number][:count], most),
        ),
        **notebook,
        "tokenizer: the library, 4 threads": (count, library_tokenises),
        **{
            f"tokenizer: {number} threads": (count, lambda number, threads=number: tokenise(number, threads))
            for number in threads
        },
    }


def measure(work: dict[str, tuple[int, Callable[[int], object]]], rounds: int) -> dict[str, float]:
    """Return texts per second, medians of interleaved rounds; the first round only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, (_, call) in work.items():
            start = time.perf_counter()
            call(1 + number)
            took = time.perf_counter() - start
            print(f"round {number} of {rounds}: {took:6.2f} s {name}", file=sys.stderr, flush=True)
            if number:
                seconds[name].append(took)
    return {name: count / statistics.median(seconds[name]) for name, (count, _) in work.items()}


def exactness(classifier: Classifier, texts: list[str]) -> dict[str, float]:
    """Compare with fp32 on the CPU, where the bundle has it."""
    if "fp32" not in classifier.bundle.manifest.variants:
        return {}
    ours = classifier.score(texts).logits
    exact = Classifier.load(classifier.bundle.path, device="cpu", variant="fp32").score(texts).logits
    return {
        "texts": len(texts),
        "largest_difference": float(np.abs(ours - exact).max()),
        "labels_changed": int((ours.argmax(axis=1) != exact.argmax(axis=1)).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a trained model's folder")
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="exported from MODEL, with fp16 (and fp32, to compare)"
    )
    parser.add_argument("--without-compiled", action="store_true", help="leave torch.compile out: it takes minutes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--texts", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, nargs="+", default=None, metavar="CSV", help="with columns text and bias")
    args = parser.parse_args()
    if args.rounds < 1 or args.texts < 2:
        parser.error("--rounds takes numbers from 1, --texts from 2")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here; --device cpu tries the script without one")
    files = args.data or default_data()
    with tempfile.TemporaryDirectory() as scratch:
        material = load_material(Path(scratch), files[0], read(files), "", args.model)
        precisions = ["fp32", "fp16"] if args.device == "cuda" else ["fp32"]
        bundle = args.bundle or export(args.model, Path(scratch) / "bundle", precisions=precisions).folder
        classifier = Classifier.load(bundle, device=args.device, variant=precisions[-1])
        found = exactness(classifier, material.texts[:1_200])
        with_compiled = not args.without_compiled
        work = ways(material, classifier, args.device, args.texts, args.rounds, with_compiled=with_compiled)
        rates = measure(work, args.rounds)
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    print(f"{device}, {granted_cores()} cores, {classifier.variant}, {found}\n\n| | thousand texts/s |\n|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate / 1000:,.1f} |")
    print(json.dumps({"device": device, "cores": granted_cores(), **found, "texts_per_s": rates}))


if __name__ == "__main__":
    main()
