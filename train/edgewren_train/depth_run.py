"""Depth within a run: embeds at every depth in question, cross-validates, and says what it chose.

Knows runs and recipes; what is decided on numbers alone stands in `depth`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.labelled import LabelledTexts
from edgewren.errors import UsageError
from edgewren_train import depth as depths
from edgewren_train import embedding, ridge
from edgewren_train.encoders import Encoder, load_encoder
from edgewren_train.out_of_fold import OutOfFold
from edgewren_train.progress import Progress, unseen
from edgewren_train.together import Together

Depth = int | Literal["auto"] | None
_FOLDS = 10


class CrossValidate(Protocol):
    """Features, a number of folds, and which rows belong together to out-of-fold logits."""

    def __call__(self, features: NDArray[np.float32], *, folds: int, together: Together) -> OutOfFold: ...


def parse_depth(spec: str) -> Depth:
    """Read --depth: "whole" (None), "auto", or a number of layers.

    Raises:
        UsageError: something else.
    """
    if spec in ("whole", "auto"):
        return "auto" if spec == "auto" else None
    if spec.isascii() and spec.isdigit() and int(spec) >= 1:
        return int(spec)
    raise UsageError(f"--depth is {spec!r}, expected whole, auto or a number of layers from 1 (0: 'train static').")


def choose_depth(
    encoder: Encoder,
    depth: int | Literal["auto"],
    embedded_at: Callable[[int], NDArray[np.float32]],
    folded: CrossValidate,
    data: LabelledTexts,
    together: Together,
    folds: int,
    say: Callable[[str], None],
) -> tuple[int, dict[str, Any]]:
    """Return how many layers to keep, and what to tell of the choice.

    Raises:
        UsageError: depth is beyond the encoder's, or too few rows of a class for folds.
    """
    layers = depths.depth_of(encoder)
    if depth != "auto":
        if not 1 <= depth <= layers:
            raise UsageError(f"--depth is {depth}, expected 1 to {layers} for this encoder (0: 'train static').")
        return depth, {"layers": depth, "of": layers}

    def at_depth() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for candidate in range(1, layers + 1):
            say(f"cross-validating {candidate} of {layers} layers")
            yield candidate, embedded_at(candidate)

    choice = _shallowest(at_depth(), folded, data.labels, together, folds if folds >= 2 else _FOLDS)
    say(choice.as_text())
    return choice.depth, {
        "layers": choice.depth,
        "of": layers,
        "best": choice.best,
        "losses": {str(key): value for key, value in choice.losses.items()},
        "standard_errors": {str(key): value for key, value in choice.errors.items()},
        "rule": "one standard error (Breiman et al. 1984)",
    }


def shallowest_as_good(
    at_depth: Mapping[int, NDArray[np.float32]],
    labels: Sequence[str],
    together: Together,
    *,
    alphas: Sequence[float] = ridge.WIDE_GRID,
    extend: bool = True,
    seed: int = 0,
) -> depths.Choice:
    """Choose a depth as --depth auto does, on embeddings at hand.

    Args:
        at_depth: embeddings of the same texts by number of layers, float32 [n, dimension] each.
        labels: one per text.
        together: rows that are held out together.

    Raises:
        InputError: with groups, a label is in too few of them.
        UsageError: a label has fewer than 2 rows.
    """
    folded = partial(ridge.cross_validate, labels=labels, seed=seed, alphas=alphas, extend=extend)
    return _shallowest(at_depth.items(), folded, labels, together, _FOLDS)


def _shallowest(
    at_depth: Iterable[tuple[int, NDArray[np.float32]]],
    folded: CrossValidate,
    labels: Sequence[str],
    together: Together,
    folds: int,
) -> depths.Choice:
    counted = min(folds, together.fewest(labels))
    if counted < 2:
        raise UsageError("--depth auto needs at least 2 rows of each label. Name a number of layers.")
    places = {name: place for place, name in enumerate(sorted(set(labels)))}
    true = np.array([places[label] for label in labels])
    losses = {}
    for depth, features in at_depth:
        held_out = folded(features, folds=counted, together=together)
        losses[depth] = depths.squared_errors(held_out.logits, true[held_out.rows])
    return depths.choose(losses)


def choose_depth_with_ridge(
    spec: str,
    depth: int | Literal["auto"],
    data: LabelledTexts,
    together: Together,
    *,
    max_length: int | None,
    normaliser: str,
    device: str,
    say: Callable[[str], None],
    progress: Progress = unseen,
) -> tuple[int, dict[str, Any]]:
    """Return how many layers a fine-tune keeps; "auto" judges depths by ridge heads: fine-tuning each would take hours.

    Raises:
        UsageError: depth is beyond the encoder's, or too few rows of a class for folds.
    """
    encoder = load_encoder(spec, max_length=max_length, normaliser=normaliser)

    def embedded_at(layers: int) -> NDArray[np.float32]:
        with progress(len(data.texts), f"embedding, {layers} layers") as advance:
            return embedding.embed(
                depths.cut(encoder, layers),
                data.texts,
                device=device,
                cache=embedding.default_cache(),
                progress=advance,
            )

    folded = partial(ridge.cross_validate, labels=data.labels, seed=0)
    kept, told = choose_depth(encoder, depth, embedded_at, folded, data, together, _FOLDS, say)
    return kept, {**told, "judged_by": "ridge heads"} if depth == "auto" else told
