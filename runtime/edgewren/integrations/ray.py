"""Ray Data: a callable class for `Dataset.map_batches`, with one session per actor, Arrow in and out. Imports ray.

Whole archives are `ray_archive`'s. Nothing here starts a cluster.
"""

from __future__ import annotations

import os
from typing import Any

from edgewren.errors import MissingDependencyError, UsageError

try:
    import pyarrow as pa
    import ray
except ImportError as error:
    raise MissingDependencyError(
        f"edgewren.integrations.ray needs ray and pyarrow, which cannot be imported ({error}). "
        "Run: pip install 'edgewren[cpu,ray]'."
    ) from error

from edgewren.integrations.arrow import Scoring, check_columns, score_column
from edgewren.integrations.shipped import Packed, Placement, classifier_of, pack

BATCH_ROWS = 8192
"""Rows of a batch: enough to fill every length bucket, small in memory."""


class Scorer:
    """Adds label, scores and status to batches of rows; made once in each actor.

    Args:
        bundle: what `ray.put(pack(path))` returned, so that the bundle travels through Ray's object store; or the
            packed bundle itself.
        scoring: columns and threshold.
        placement: device, variant, threads of each actor.
    """

    def __init__(self, bundle: Any, scoring: Scoring | None = None, placement: Placement | None = None) -> None:
        packed = bundle if isinstance(bundle, Packed) else ray.get(bundle)
        self._classifier = classifier_of(packed, placement or Placement())
        self._scoring = scoring or Scoring()

    def __call__(self, batch: Any) -> Any:
        """Return a pyarrow Table: the batch's own columns, then the added ones.

        Raises:
            InputError, UsageError: no such text column, it holds no text, or an added name is taken.
        """
        check_columns(batch.column_names, self._classifier.labels, self._scoring)
        added = score_column(self._classifier, batch[self._scoring.text_column], self._scoring)
        return pa.table([*batch.columns, *added.columns], schema=pa.schema([*batch.schema, *added.schema]))


def score_dataset(
    dataset: Any,
    bundle: str | os.PathLike[str],
    *,
    expected_sha256: str | None = None,
    actors: int | tuple[int, int] = 1,
    scoring: Scoring | None = None,
    placement: Placement | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Any:
    """Return the dataset with label, score, score_<label>… and status added to each row. Lazy, as Ray's own.

    The bundle is read here, checked and put into Ray's object store once; each actor loads those bytes.

    Args:
        dataset: ray.data.Dataset with a text column.
        bundle: folder written by `edgewren export`, on this machine.
        expected_sha256: SHA-256 that its manifest.json must have.
        actors: how many, or (fewest, most); one per core is best, with `placement.threads` 1.
        scoring: columns and threshold.
        placement: device, variant, threads of each actor. With device "cuda" each actor asks for one GPU.
        batch_rows: rows of a batch.

    Raises:
        BundleError: the folder is not a complete, undamaged bundle, or not the expected one.
        UsageError: a number is below 1.
    """
    placement = placement or Placement()
    fewest, most = actors if isinstance(actors, tuple) else (actors, actors)
    if not 1 <= fewest <= most or batch_rows < 1 or placement.threads < 1:
        raise UsageError(
            f"actors is {actors}, batch_rows {batch_rows}, threads {placement.threads}: expected at least 1 of each, "
            "and no more actors at least than at most."
        )
    import ray.data

    return dataset.map_batches(
        Scorer,
        fn_constructor_args=(ray.put(pack(bundle, expected_sha256)), scoring, placement),
        batch_format="pyarrow",
        batch_size=batch_rows,
        compute=ray.data.ActorPoolStrategy(min_size=fewest, max_size=most),
        num_cpus=placement.threads,
        num_gpus=1 if placement.device == "cuda" else 0,
    )
