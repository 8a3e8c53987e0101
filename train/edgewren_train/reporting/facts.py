"""What a report says, gathered from a trained model, a bundle, or both. Knows their descriptions; draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgewren.bundle import Bundle
from edgewren.errors import UsageError
from edgewren.evaluations import TEST, held_out_by, of_new_texts
from edgewren_train.analysis import Analysis, analyse
from edgewren_train.judged import is_trained_model, judge_training_rows
from edgewren_train.trained import Trained, read_trained

Say = Callable[[str], None]

_SETTINGS = ("alpha", "rank", "dropout", "target_modules", "epochs", "learning_rate", "batch_size", "precision", "seed")
_KINDS = {
    "ridge": "ridge classifier on sentence embeddings",
    "lora": "fine-tuned encoder (LoRA, merged)",
    "static": "static word vectors",
    "ensemble": "ensemble: mean of several models",
}


@dataclass(frozen=True)
class Facts:
    """Everything that a report shows of one model; None and empty where it is not known.

    Attributes:
        name: of the folder.
        kind: in words.
        labels, max_length, normaliser, temperature, encoder, training, evaluation: as in model.json or manifest.json.
        headline: name of the evaluation to quote: test file, else out of fold; None where only training rows are left.
        parity, variants: of a bundle.
        speed: what `edgewren bench --json` says.
        curve: points of the learning curve.
        analysis: of the held-out rows.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    max_length: int
    normaliser: str
    temperature: float
    encoder: Mapping[str, Any]
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    headline: str | None
    parity: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    speed: Mapping[str, Any] | None = None
    curve: Sequence[Mapping[str, Any]] = ()
    analysis: Analysis | None = None

    @property
    def calibration(self) -> Mapping[str, Any] | None:
        return self.training.get("calibration") or None

    @property
    def group_column(self) -> object:
        """Column by whose groups rows were held out; None where they were not."""
        return held_out_by(self.training.get("group_column"), self.evaluation)

    @property
    def settings(self) -> list[tuple[str, str]]:
        """Names and values of the training's settings, a row per member for an ensemble."""
        if "members" in self.training:
            return [
                (str(member["kind"]), ", ".join(f"{name} {value}" for name, value in _settings(member["training"])))
                for member in self.training["members"]
            ]
        return _settings(self.training)


def gather(
    path: str,
    *,
    bundle: str | None = None,
    with_speed: bool = True,
    with_curve: bool = True,
    say: Say,
) -> Facts:
    """Gather the facts of a trained model (with its bundle, where one is named) or of a bundle alone.

    Args:
        with_speed: measure the bundle's speed, about ten seconds; needs a trained model for its texts.
        with_curve: fit the learning curve, for a ridge model; its embeddings come from the cache where they can.

    Raises:
        BundleError: neither a trained model nor a bundle, or a damaged one.
        UsageError: a bundle was named twice, or one that another model was exported to.
    """
    if not is_trained_model(path):
        if bundle is not None:
            raise UsageError(f"{path} is a bundle itself. Name its trained model first, or leave out --bundle.")
        return _of_bundle(path)
    model = read_trained(path)
    description = model.description
    opened = Bundle.open(bundle) if bundle is not None else None
    if opened is not None and opened.manifest.training.get("texts_sha256") != model.training.get("texts_sha256"):
        raise UsageError(f"{bundle} was exported from a model that was trained on other rows than {path}.")
    if opened is not None and opened.manifest.kind != model.kind:
        raise UsageError(
            f"{bundle} was exported from a model of kind {opened.manifest.kind}, and {path} is {model.kind}."
        )
    analysis = None
    if model.held_out is not None:
        say("looking for mistakes, doubtful labels and repeated texts")
        analysis = analyse(judge_training_rows(model), shown=10)
    return Facts(
        name=model.folder.absolute().name,
        kind=_KINDS.get(model.kind, model.kind),
        labels=model.labels,
        max_length=int(description["max_length"]),
        normaliser=str(description["normaliser"]),
        temperature=model.temperature,
        encoder=description["encoder"],
        training=model.training,
        evaluation=description["evaluation"],
        headline=headline(description["evaluation"]),
        parity=opened.manifest.parity if opened else {},
        variants=_variants(opened) if opened else {},
        speed=_speed(bundle, model, say) if bundle is not None and with_speed else None,
        curve=_curve(model, say) if with_curve and model.kind == "ridge" else (),
        analysis=analysis,
    )


def headline(evaluation: Mapping[str, Any]) -> str | None:
    """Return the evaluation to quote: the test file's, else one on held-out rows, else None."""
    if TEST in evaluation:
        return TEST
    return next(filter(of_new_texts, evaluation), None)


def _of_bundle(path: str) -> Facts:
    opened = Bundle.open(path)
    manifest = opened.manifest
    return Facts(
        name=opened.path.absolute().name,
        kind=_KINDS.get(manifest.kind, manifest.kind),
        labels=manifest.labels,
        max_length=manifest.max_length,
        normaliser=manifest.normaliser,
        temperature=manifest.temperature,
        encoder=manifest.encoder,
        training=manifest.training,
        evaluation=manifest.evaluation,
        headline=headline(manifest.evaluation),
        parity=manifest.parity,
        variants=_variants(opened),
    )


def _variants(bundle: Bundle) -> dict[str, Mapping[str, Any]]:
    return {
        name: {"megabytes": bundle.manifest.variant_bytes(name) / 1e6, "device": entry.device}
        for name, entry in bundle.manifest.variants.items()
    }


def _speed(bundle: str, model: Trained, say: Say) -> Mapping[str, Any]:
    from edgewren.measurement import measure

    say("measuring the bundle's speed on this machine")
    return measure(bundle, model.texts, seconds=2).as_dict()


def _curve(model: Trained, say: Say) -> list[dict[str, Any]]:
    from edgewren_train import ridge
    from edgewren_train.duplicates import copies
    from edgewren_train.embedding import default_cache, embed
    from edgewren_train.encoders import load_encoder
    from edgewren_train.learning_curve import learning_curve
    from edgewren_train.together import Together

    together = Together(copies(model.texts))
    if "group_column" in model.training:
        held_out = model.held_out
        if held_out is None or len(held_out.rows) < len(model.texts):
            say("no learning curve: it must hold out rows by group, and the trained model keeps no folds that tell how")
            return []
        together = Together(together.copies, held_out.folds)  # a fold is whole groups
    say("fitting the learning curve")
    encoder = load_encoder(
        str(model.folder / "encoder"),
        max_length=int(model.description["max_length"]),
        normaliser=str(model.description["normaliser"]),
    )
    features = embed(encoder, model.texts, cache=default_cache())
    alphas = model.training.get("alphas") or ridge.WIDE_GRID
    seed = int(model.training.get("seed", 0))
    return learning_curve(features, model.text_labels, together=together, alphas=alphas, seed=seed)


def _settings(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [(name.replace("_", " "), training[name]) for name in _SETTINGS if name in training]
    return [(name, ", ".join(value) if isinstance(value, list) else str(value)) for name, value in found]
