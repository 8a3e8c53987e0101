"""Real local clusters: Ray with two workers, Spark local[2]. They need `make test-scale`, which has both and Java.

Every other run of pytest leaves these files alone, so that it needs neither; with `-m scale` nothing is skipped.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scaled_archives import Archive, make_archive

ROWS = 200_000
FILES = 50


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.name.startswith("test_") and "scale" not in config.getoption("markexpr"):
        return True
    return None


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Archive:
    """The 200,000 rows."""
    return make_archive(tmp_path_factory.mktemp("archive"), tiny_bundle, rows=ROWS, files=FILES)


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Archive:
    return make_archive(tmp_path_factory.mktemp("small"), tiny_bundle, rows=600, files=3)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    assert shutil.which("java"), "Spark needs Java 17: apt-get install openjdk-17-jre-headless"
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable  # else workers are the first python3 on the path
    scratch = tmp_path_factory.mktemp("spark")
    session = (
        SparkSession.builder.master("local[2,60]")  # two workers; a task may fail 60 times before the job does
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.local.dir", str(scratch))
        .config("spark.sql.warehouse.dir", str(scratch / "warehouse"))
        .config("spark.sql.files.maxPartitionBytes", "4m")  # a file's opening cost: one partition per file
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()
