"""Spark local[2]: the scores of one machine, a pinned bundle loaded once per worker, workers that are killed."""

from __future__ import annotations

import os

import pytest
from pyspark.sql import functions
from scaled_archives import assert_same_rows
from worker_killer import Killer, spark_workers

from edgewren.archive.decimals import shortest
from edgewren.errors import BundleHashError, InputError, UsageError
from edgewren.integrations.arrow import Scoring
from edgewren.integrations.shipped import Placement
from edgewren.integrations.spark import Mapper, Shipped, predict_udf, score_frame, ship

pytestmark = pytest.mark.scale

COLUMNS = ["id", "label", "score", "status"]


def rows_of(table) -> list[tuple[str, ...]]:
    """Rows of an Arrow table, scores as the command line prints them."""
    columns = [table[name] for name in COLUMNS]
    printed = shortest(columns[2].to_numpy())
    return list(zip(columns[0].to_pylist(), columns[1].to_pylist(), printed, columns[3].to_pylist(), strict=True))


def test_workers_killed_20_times_in_200_000_rows_nothing_is_missing_and_nothing_twice(
    spark, archive, tiny_bundle, tmp_path, record_property
):
    import pyarrow.parquet as pq

    frame = spark.read.parquet(str(archive.parquet))
    assert frame.rdd.getNumPartitions() == len(archive.files)
    scored = score_frame(spark, frame, tiny_bundle)
    with Killer(spark_workers, kills=20, seed=2) as killer:
        scored.write.parquet(str(tmp_path / "out"))
    record_property("kills", len(killer.killed))
    assert len(killer.killed) == len(set(killer.killed)) == 20
    table = pq.read_table(tmp_path / "out")
    assert table.num_rows == 200_000
    assert_same_rows(rows_of(table), archive.rows)


def test_each_way_gives_the_columns_of_the_command_line(spark, small_archive, tiny_bundle):
    frame = spark.read.parquet(str(small_archive.parquet))
    mapper = Mapper(ship(spark, tiny_bundle))
    struct = predict_udf(spark, tiny_bundle, batch_rows=64)("text")
    for scored in (
        score_frame(spark, frame, tiny_bundle),
        frame.mapInPandas(mapper.pandas, mapper.schema(frame.schema)),
        frame.withColumn("scored", struct).select("id", "text", "scored.*"),
    ):
        assert scored.columns == ["id", "text", "label", "score", "score_neutral", "score_partisan", "status"]
        assert_same_rows(rows_of(scored.toArrow()), small_archive.rows)


def test_rows_without_text_are_rejected_and_keep_their_place(spark, tiny_bundle):
    frame = spark.createDataFrame([("a", None), ("b", "good vote"), ("c", "nonfinite")], "id string, text string")
    mapper = Mapper(ship(spark, tiny_bundle))
    for scored in (
        score_frame(spark, frame, tiny_bundle),
        frame.mapInPandas(mapper.pandas, mapper.schema(frame.schema)),
        frame.withColumn("s", predict_udf(spark, tiny_bundle)("text")).select("id", "text", "s.*"),
    ):
        found = {row.id: row for row in scored.collect()}
        assert found["a"].status == "rejected:text is null, expected text"
        assert found["c"].status == "rejected:non-finite"
        assert (found["a"].label, found["c"].label, found["b"].status) == (None, None, "ok")
        assert found["a"].score is None or found["a"].score != found["a"].score


def test_each_worker_loads_the_bundle_once(spark, tiny_bundle):
    shipped = ship(spark, tiny_bundle)

    def identities(batches):
        import pyarrow as pa

        for _ in batches:
            yield pa.RecordBatch.from_pylist(
                [{"process": os.getpid(), "loaded": id(shipped.classifier(Placement()))} for _ in range(3)]
            )

    frame = spark.range(40).repartition(20)
    found = {(row.process, row.loaded) for row in frame.mapInArrow(identities, "process long, loaded long").collect()}
    assert len(found) == len({process for process, _ in found})


def test_mistakes_are_errors_of_ours_before_anything_runs(spark, tiny_bundle):
    frame = spark.range(3).withColumn("text", functions.lit("good"))
    with pytest.raises(BundleHashError):
        score_frame(spark, frame, tiny_bundle, expected_sha256="0" * 64)
    with pytest.raises(InputError, match="no column 'txet'"):
        score_frame(spark, frame, tiny_bundle, scoring=Scoring("txet"))
    with pytest.raises(UsageError, match="'label' already"):
        score_frame(spark, frame.withColumn("label", functions.lit("x")), tiny_bundle)


def test_an_executor_refuses_another_bundle_than_the_one_shipped(spark, tiny_bundle, three_class_bundle):
    real, other = ship(spark, tiny_bundle), ship(spark, three_class_bundle)
    swapped = Shipped(other.name, real.sha256, real.labels)
    frame = spark.createDataFrame([("good",)], "text string")

    def refused(batches):
        import pyarrow as pa

        for _ in batches:
            try:
                swapped.classifier(Placement(threads=2))  # another placement: not the classifier loaded before
                found = "loaded"
            except BundleHashError as error:  # caught here: a task that fails is tried 60 times
                found = f"refused: {error}"
            yield pa.RecordBatch.from_pylist([{"found": found}])

    (row,) = frame.mapInArrow(refused, "found string").collect()
    assert row.found.startswith("refused: ")
    assert real.sha256 in row.found
