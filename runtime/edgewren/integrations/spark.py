"""Spark: a column function and helpers for `mapInArrow` and `mapInPandas`. Imports pyspark.

The bundle travels by `SparkContext.addFile` to every executor, its hash inside the function, and each Python worker
loads it once. Nothing here starts Spark or writes results: that is Spark's, with its own committer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgewren.errors import MissingDependencyError

try:
    import pandas as pd
    import pyarrow as pa
    from pyspark import SparkFiles
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import FloatType, StringType, StructField, StructType
except ImportError as error:
    raise MissingDependencyError(
        f"edgewren.integrations.spark needs pyspark, pyarrow and pandas, which cannot be imported ({error}). "
        "Run: pip install 'edgewren[cpu,spark]'."
    ) from error

from edgewren.archive.results import added_names
from edgewren.bundle import Bundle
from edgewren.classifier import Classifier
from edgewren.integrations.arrow import Scoring, check_columns, score_column
from edgewren.integrations.scratch import kept
from edgewren.integrations.shipped import Placement, already_loaded, classifier_at, pack, write

BATCH_ROWS = 8192
"""Rows that the column function scores at once."""


@dataclass(frozen=True)
class Shipped:
    """A bundle that every executor has: name of its folder among Spark's files, hash of its manifest, its labels."""

    name: str
    sha256: str
    labels: tuple[str, ...]

    def classifier(self, placement: Placement) -> Classifier:
        """Return this process's classifier, loaded when it is asked for first.

        Raises:
            BundleError: what arrived is not the bundle that was shipped.
        """
        known = already_loaded(self.sha256, placement)
        return known or classifier_at(SparkFiles.get(self.name), self.sha256, placement)


def ship(spark: Any, bundle: str | os.PathLike[str], *, expected_sha256: str | None = None) -> Shipped:
    """Send a bundle to every executor, those that come later too, by `addFile`.

    What is sent is a copy under a name made of its hash, so that two bundles in folders of one name don't collide. The
    copy lies in this machine's temporary folder until the process ends, since executors may fetch it at any time.

    Args:
        spark: SparkSession (not Spark Connect, which has no SparkContext).
        bundle: folder written by `edgewren export`, on this machine.
        expected_sha256: SHA-256 that its manifest.json must have.

    Raises:
        BundleError: the folder is not a complete, undamaged bundle, or not the expected one.
    """
    opened = Bundle.open(bundle, expected_sha256)
    name = f"edgewren-{opened.sha256[:32]}"
    context = spark.sparkContext
    if (context.applicationId, name) not in _shipped:
        folder = kept() / name
        folder.mkdir()
        write(pack(bundle, opened.sha256), folder)
        context.addFile(str(folder), recursive=True)
        _shipped.add((context.applicationId, name))
    return Shipped(name, opened.sha256, opened.manifest.labels)


_shipped: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Mapper:
    """What Spark calls with batches of rows: `Mapper(…).arrow` for mapInArrow, `.pandas` for mapInPandas.

    Attributes:
        shipped: the bundle, from `ship`.
        scoring: columns and threshold.
        placement: device, variant, threads of each Python worker; threads is best spark.task.cpus.
    """

    shipped: Shipped
    scoring: Scoring = field(default_factory=Scoring)
    placement: Placement = field(default_factory=Placement)

    def schema(self, own: StructType) -> StructType:
        """Return the schema of what comes out: the frame's own columns, then the added ones.

        Raises:
            InputError, UsageError: no such text column, or an added name is taken.
        """
        check_columns(own.names, self.shipped.labels, self.scoring)
        return StructType([*own.fields, *added_type(self.shipped.labels, self.scoring.prefix).fields])

    def arrow(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield each pyarrow RecordBatch with the added columns behind its own."""
        classifier = self.shipped.classifier(self.placement)
        for batch in batches:
            added = score_column(classifier, batch.column(self.scoring.text_column), self.scoring)
            schema = pa.schema([*batch.schema, *added.schema])
            yield pa.RecordBatch.from_arrays([*batch.columns, *added.columns], schema=schema)

    def pandas(self, frames: Iterator[Any]) -> Iterator[Any]:
        """Yield each pandas DataFrame with the added columns behind its own."""
        classifier = self.shipped.classifier(self.placement)
        for frame in frames:
            column = pa.Array.from_pandas(frame[self.scoring.text_column], type=pa.string())
            added = score_column(classifier, column, self.scoring).to_pandas()
            yield pd.concat([frame, added.set_index(frame.index)], axis=1)


def score_frame(
    spark: Any,
    frame: Any,
    bundle: str | os.PathLike[str],
    *,
    expected_sha256: str | None = None,
    scoring: Scoring | None = None,
    placement: Placement | None = None,
) -> Any:
    """Return the DataFrame with label, score, score_<label>… and status added to each row, by `mapInArrow`.

    Lazy, as all of Spark: write it with Spark's own writers, whose committer keeps a retried or speculative task from
    adding rows twice.

    Raises:
        BundleError: the folder is not a complete, undamaged bundle, or not the expected one.
        InputError, UsageError: no such text column, or an added name is taken.
    """
    shipped = ship(spark, bundle, expected_sha256=expected_sha256)
    mapper = Mapper(shipped, scoring or Scoring(), placement or Placement())
    return frame.mapInArrow(mapper.arrow, mapper.schema(frame.schema))


def predict_udf(
    spark: Any,
    bundle: str | os.PathLike[str],
    *,
    expected_sha256: str | None = None,
    scoring: Scoring | None = None,
    placement: Placement | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Callable[..., Any]:
    """Return a function of one text column, by `predict_batch_udf`: a struct of label, score, score_<label>…, status.

    `frame.withColumn("scored", predict_udf(spark, "bias-bundle")("text")).select("*", "scored.label")`

    Raises:
        BundleError: the folder is not a complete, undamaged bundle, or not the expected one.
    """
    shipped = ship(spark, bundle, expected_sha256=expected_sha256)
    scoring = scoring or Scoring()
    predict: Callable[..., Any] = predict_batch_udf(
        _Predict(shipped, scoring, placement or Placement()),
        return_type=added_type(shipped.labels, scoring.prefix),
        batch_size=batch_rows,
    )
    return predict


@dataclass(frozen=True)
class _Predict:
    """Makes the function that `predict_batch_udf` calls with arrays of texts."""

    shipped: Shipped
    scoring: Scoring
    placement: Placement

    def __call__(self) -> Callable[[Any], dict[str, Any]]:
        classifier = self.shipped.classifier(self.placement)

        def predict(texts: Any) -> dict[str, Any]:
            column = pa.array(texts.tolist(), pa.string(), from_pandas=True)
            added = score_column(classifier, column, self.scoring)
            return {name: added.column(name).to_numpy(zero_copy_only=False) for name in added.schema.names}

        return predict


def added_type(labels: tuple[str, ...], prefix: str = "") -> StructType:
    """Return the added columns as Spark's type."""
    names = added_names(labels, prefix)
    kinds = [StringType(), *[FloatType()] * (len(names) - 2), StringType()]
    return StructType([StructField(name, kind) for name, kind in zip(names, kinds, strict=True)])
