"""Is a bundle whole, and does it compute on this machine what it computed where it was exported?

Replays golden.jsonl (one object per line: text, and the fp32 model's logits) through `Classifier`, the way by which
every text goes. Knows nothing of printing.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren import onnx_scan, tokenizer_scan
from edgewren.bundle import Bundle
from edgewren.classifier import Classifier
from edgewren.device import choose_device
from edgewren.errors import BundleError, DeviceError
from edgewren.manifest import CONFIG, TOKENIZER

GOLDEN = "golden.jsonl"

LOGIT_TOLERANCE = 1e-4
"""fp32 against fp32: another processor sums in another order, which moves logits by about 1e-6; mistakes move more."""

MOVED = 0.1
"""Share of the golden texts that may leave after another layer than at export: rounding of another processor moves
those that lie close to a threshold, thresholds that were changed move many."""

LABEL_MARGIN = 0.1
"""Other precisions may change a label only where the two largest fp32 logits lie closer together than this."""


@dataclass(frozen=True)
class Replay:
    """The golden texts through one variant.

    Attributes:
        variant: name of the ONNX file.
        device: "cpu" or "cuda".
        texts: golden texts replayed.
        max_difference: largest |difference| of any logit from the golden one.
        label_flips: texts whose label is another.
        label_flips_beyond_margin: of those, where the golden logits were further apart than `LABEL_MARGIN`.
        moved: texts that left after another layer than at export; None where there are no stages, or the bundle does
            not tell (it was exported before that was kept).
        ok: fp32 within `LOGIT_TOLERANCE`; a quantised variant within twice the difference that its export measured
            (other processors round elsewhere); in both, no flips beyond the margin; in stages, few moved (`MOVED`).
        skipped: why this variant was not replayed here, or None.
    """

    variant: str
    device: str
    texts: int = 0
    max_difference: float = 0.0
    label_flips: int = 0
    label_flips_beyond_margin: int = 0
    moved: int | None = None
    ok: bool = True
    skipped: str | None = None


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        sha256: of manifest.json.
        files: files compared with the manifest.
        checks: what was looked for and not found, in words.
        replays: one per variant.
        failures: everything that did not agree, in words; empty if all is well.
    """

    sha256: str
    files: int
    checks: tuple[str, ...]
    replays: tuple[Replay, ...]
    failures: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, and `ok`, as what JSON knows."""
        replays = [asdict(replay) for replay in self.replays]
        for replay in replays:
            if not np.isfinite(replay["max_difference"]):  # JSON knows no NaN
                replay["max_difference"] = None
        return {"ok": self.ok, **asdict(self), "replays": replays}


def verify(path: str | os.PathLike[str], *, require_sha256: str | None = None) -> Verification:
    """Check a bundle's files and replay its golden texts through every variant that runs on this machine.

    Args:
        path: the bundle's folder.
        require_sha256: hash that manifest.json must have; pins the bundle from outside.

    Returns:
        What was found; damage to single files and wrong results are in `failures`.

    Raises:
        BundleError: the folder is no bundle at all, or not the required one. Nothing of it was computed then.
        UsageError: require_sha256 is not a SHA-256.
        MissingDependencyError: onnxruntime is not installed.
    """
    bundle = Bundle.open(path, require_sha256, check_files=False)
    failures: list[str] = []
    checks = [
        "nothing but these files lies in the folder: no links, no other names",
        f"{len(bundle.manifest.labels)} labels: distinct, printable, no formulas",
    ]
    for name in bundle.names():
        try:
            checks += _look(name, bundle.read(name))
        except BundleError as error:
            failures.append(str(error).rstrip("."))
    replays: list[Replay] = []
    if not failures:
        try:
            _golden(bundle)
            replays.extend(_replay_variant(bundle, name) for name in bundle.manifest.variants)
        except BundleError as error:
            failures.append(str(error).rstrip("."))
    failures += [
        f"variant {replay.variant} does not compute the golden logits: they differ by up to "
        f"{replay.max_difference:.1e}, {replay.label_flips_beyond_margin} sure labels changed"
        + (f", {replay.moved} texts left after another layer" if replay.moved else "")
        for replay in replays
        if not replay.ok
    ]
    return Verification(bundle.sha256, len(bundle.names()), tuple(checks), tuple(replays), tuple(failures))


def _look(name: str, data: bytes) -> list[str]:
    """Say what `Bundle.read` looked for in a file that passed."""
    if name.endswith(".onnx"):
        model = onnx_scan.scan(data, name)
        return [
            (
                f"{name}: {sum(model.operators.values())} operators of {len(model.operators)} types, all on the list; "
                f"{model.tensors} tensors as large as declared; no files, domains, sub-graphs, functions, metadata"
            )
        ]
    if name.endswith(TOKENIZER):
        tokenizer = tokenizer_scan.scan(data, name)
        return [f"{name}: {tokenizer.model} with {tokenizer.tokens:,} tokens, known steps and regular expressions only"]
    if name == CONFIG:
        return [f"{name}: the manifest's labels, no code for others to run"]
    return []


def golden_texts(path: str | os.PathLike[str]) -> list[str]:
    """Return a bundle's golden texts.

    Raises:
        BundleError: no bundle, or one without them.
    """
    return _golden(Bundle.open(path))[0]


def _golden(bundle: Bundle) -> tuple[list[str], NDArray[np.float64]]:
    if GOLDEN not in bundle.manifest.files:
        raise BundleError(f"{bundle.path} has no {GOLDEN}, so its results cannot be checked.")
    texts: list[str] = []
    logits: list[list[float]] = []
    lines = bundle.read(GOLDEN).removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            text, row = entry["text"], [float(value) for value in entry["logits"]]
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise BundleError(
                f"{bundle.path / GOLDEN}, line {number}: {type(error).__name__}: {error}, expected text and logits."
            ) from error
        if not isinstance(text, str) or len(row) != len(bundle.manifest.labels) or not np.isfinite(row).all():
            raise BundleError(
                f"{bundle.path / GOLDEN}, line {number}: expected a text and {len(bundle.manifest.labels)} logits."
            )
        texts.append(text)
        logits.append(row)
    return texts, np.array(logits)


def _replay_variant(bundle: Bundle, name: str) -> Replay:
    variant = bundle.manifest.variants[name]
    device = "cpu" if variant.device != "cuda" else choose_device("auto")
    if variant.device == "cuda" and device == "cpu":
        return Replay(name, "cuda", skipped="it is meant for CUDA, which onnxruntime does not offer here")
    try:
        classifier = Classifier.load(bundle.path, device=device, variant=name)
    except DeviceError as error:
        return Replay(name, device, skipped=str(error).rstrip("."))
    return replay(classifier)


def replay(classifier: Classifier) -> Replay:
    """Compute a loaded classifier's golden texts and compare: does it answer here what it answered when exported?

    Raises:
        BundleError: the bundle has no golden texts, or bad ones.
    """
    bundle, name = classifier.bundle, classifier.variant
    texts, golden = _golden(bundle)
    scores = classifier.score(texts)
    logits = scores.logits.astype(np.float64)
    difference = float(np.abs(logits - golden).max())
    top_two = np.sort(golden, axis=1)[:, -2:]
    flips = logits.argmax(axis=1) != golden.argmax(axis=1)
    allowed = _allowed_difference(bundle, name)
    # Two logits that each may move by `allowed` may close a gap of twice that.
    variant = bundle.manifest.variants[name]
    margin = LABEL_MARGIN if variant.precision == "fp32" and not variant.stages else max(LABEL_MARGIN, 2 * allowed)
    expected = _expected_layers(bundle, name, len(texts))
    moved = None if expected is None or scores.layers is None else int((scores.layers != expected).sum())
    sure_flips = int((flips & (top_two[:, 1] - top_two[:, 0] > margin)).sum())
    return Replay(
        variant=name,
        device=classifier.device,
        texts=len(texts),
        max_difference=difference,
        label_flips=int(flips.sum()),
        label_flips_beyond_margin=sure_flips,
        moved=moved,
        ok=difference <= allowed and not sure_flips and (moved or 0) <= MOVED * len(texts),  # NaN fails the comparison
    )


def _expected_layers(bundle: Bundle, name: str, texts: int) -> NDArray[np.int64] | None:
    """Return after which layer each golden text left at export, int64 [texts]; None where the bundle does not tell."""
    told = bundle.manifest.parity.get("golden_layers")
    if told is None or not bundle.manifest.variants[name].stages:
        return None
    layers = told.get(name) if isinstance(told, dict) else None
    if not isinstance(layers, list) or len(layers) != texts or not all(type(layer) is int for layer in layers):
        raise BundleError(
            f"{bundle.path} does not say after which layers the golden texts leave variant {name!r} "
            "(parity.golden_layers in manifest.json). Export the bundle again."
        )
    return np.array(layers)


def _allowed_difference(bundle: Bundle, name: str) -> float:
    variant = bundle.manifest.variants[name]
    if variant.precision == "fp32" and not variant.stages:  # texts that leave early have another head's logits
        return LOGIT_TOLERANCE
    try:
        return 2 * float(bundle.manifest.parity["golden_difference"][name])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{bundle.path} doesn't say how far variant {name!r} may be from the golden logits "
            "(parity.golden_difference in manifest.json). Export the bundle again."
        ) from error
