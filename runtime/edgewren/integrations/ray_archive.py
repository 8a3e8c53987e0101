"""`edgewren score --engine ray`: the files of an archive, each scored by `score_archive` on some worker of a cluster.

A split is an input file. Its output has a name that depends on the inputs alone, is written elsewhere and renamed, so
a task that runs twice overwrites its own output with the same bytes. The manifest is written last: where there is one,
all parts are there. Within a part rows keep their order; parts are finished in any order.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import edgewren
from edgewren.archive.compression import by_name, without_suffix
from edgewren.archive.format_names import TABLES
from edgewren.archive.formats import all_formats
from edgewren.archive.readers import format_of
from edgewren.archive.results import STATUSES
from edgewren.archive.run import score_archive
from edgewren.device import granted_cores
from edgewren.errors import EdgewrenError, InputError, MissingDependencyError, OutputError, ResumeError, UsageError
from edgewren.integrations.remote_files import Folder, Found, fetch, find, is_remote
from edgewren.integrations.scratch import scratch
from edgewren.integrations.shipped import Packed, Placement, classifier_of, pack

try:
    import ray
    import ray.exceptions
except ImportError as error:
    raise MissingDependencyError(
        f"--engine ray needs ray, which cannot be imported ({error}). Run: pip install 'edgewren[cpu,ray]'."
    ) from error

MANIFEST = "_manifest.json"
PLAN = "_plan.json"
RECORDS = "_records"
REJECTS = "_rejects"
RETRIES = 30
"""How often a split is tried again after its worker died. Not endless: an input might be what kills them."""
IN_FLIGHT = 1024
"""Splits handed to the cluster at once, so that millions of inputs don't fill its queue."""


@dataclass(frozen=True)
class Options:
    """What decides about the result besides inputs and model; as in `score_archive`."""

    text_column: str = "text"
    format: str | None = None
    output_format: str | None = None
    encoding: str = "utf-8"
    prefix: str = ""
    abstain_below: float | None = None
    excel_safe: bool = False


@dataclass(frozen=True)
class Split:
    """One input, and the name of its part."""

    source: Found
    part: str


def score_on_ray(
    bundle: str | os.PathLike[str],
    sources: Sequence[str],
    output: str,
    *,
    options: Options | None = None,
    placement: Placement | None = None,
    expected_sha256: str | None = None,
    force: bool = False,
    resume: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
) -> dict[str, Any]:
    """Score files on the cluster that `ray.init` joined, and return the manifest.

    Args:
        bundle: folder written by `edgewren export`, on this machine; it travels through Ray's object store.
        sources: paths or addresses (s3://…), patterns in the last part of each; a path without scheme must be the same
            file on every machine. Remote files are copied to the worker's disk.
        output: folder, path or address, that every machine can write to.
        options: columns, formats and so on.
        placement: device, variant and threads of each worker; Ray is asked for as many CPUs.
        expected_sha256: SHA-256 that the bundle's manifest.json must have.
        force: whether what an earlier run left in the folder may be replaced.
        resume: go on with an unfinished run; parts that are finished are not scored again.
        progress: called with parts done, parts in all, and rows done.

    Raises:
        BundleError: the bundle is damaged, or not the expected one.
        InputError: an input cannot be read.
        UsageError: the folder holds a run already, and neither force nor resume is set; an option makes no sense.
        OutputError: the folder cannot be written, or a split's workers died too often; resume goes on.
        ResumeError: the unfinished run had other inputs, another model or other options.
    """
    options, placement = options or Options(), placement or Placement()
    started = time.perf_counter()
    packed = pack(bundle, expected_sha256)
    splits = plan([found for source in sources for found in find(source)], options)
    folder = Folder(output)
    fingerprint = _fingerprint(packed, splits, options, placement)
    finished = _begin(folder, fingerprint, splits, force=force, resume=resume)
    if (manifest := folder.read(MANIFEST)) is not None:
        return _document(manifest, MANIFEST)
    todo = [split for split in splits if split.part not in finished]
    records = dict(finished)

    def tell() -> None:
        if progress is not None:
            progress(len(records), len(splits), sum(record["rows"] for record in records.values()))

    tell()
    for record in _run(ray.put(packed), todo, folder.address, options, placement):
        records[record["part"]] = record
        tell()
    folder.tidy()
    _check_parts(folder, records)
    document = {
        "edgewren_manifest": 1,
        **_totals(records.values()),
        "parts": [records[split.part] for split in splits],
        "model": {"manifest_sha256": packed.sha256, **asdict(placement)},
        "options": asdict(options),
        "versions": {"edgewren": edgewren.__version__, "ray": ray.__version__},
        "seconds": round(time.perf_counter() - started, 3),
        "resumed_parts": len(finished),
    }
    folder.put(MANIFEST, json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")
    with contextlib.suppress(OutputError):  # all is done; what it leaves is an empty folder
        folder.tidy()
    return document


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine with a worker per granted core.

    A cluster that is started here sends no usage statistics, unless RAY_USAGE_STATS_ENABLED says otherwise.

    Raises:
        UsageError: the cluster cannot be joined.
    """
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"address": "local", "num_cpus": granted_cores(), "include_dashboard": False}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"The Ray cluster {os.environ.get('RAY_ADDRESS', '')!r} cannot be joined: {_first_line(error)}. Set "
            "RAY_ADDRESS to a running one, or unset it to start one here."
        ) from error


def plan(inputs: Sequence[Found], options: Options) -> list[Split]:
    """Return the splits of some inputs: one per file, each with a part name that no other has.

    `00003-tweets.csv.gz` is the fourth input's, named tweets.csv.gz; in another output format its suffix changes.

    Raises:
        UsageError: a format cannot be told or written.
    """
    formats = all_formats()
    splits = []
    for index, source in enumerate(inputs):
        packing = by_name(source.name)
        stem = without_suffix(source.name)
        read_as = options.format or format_of(source.name)
        if read_as is not None and read_as not in formats:
            raise UsageError(f"Unknown format {read_as!r}. Expected one of {', '.join(formats)}.")
        # A name that says nothing is looked into by the worker, and Twitter's shapes are written as JSONL.
        written = options.output_format or (formats[read_as].written_as or read_as if read_as else "jsonl")
        if written not in formats or formats[written].encoder is None:
            raise UsageError(f"Cannot write format {written!r}. Name one of {', '.join(TABLES)} with --output-format.")
        if format_of(stem) != written:
            known = Path(stem).suffix if format_of(stem) else ""
            stem = stem.removesuffix(known) + formats[written].suffixes[0]
        suffix = packing.suffix if packing and formats[written].packable else ""
        splits.append(Split(source, f"{index:05d}-{stem}{suffix}"))
    return splits


def _fingerprint(packed: Packed, splits: Sequence[Split], options: Options, placement: Placement) -> dict[str, Any]:
    return {
        "model": packed.sha256,
        "variant": placement.variant,
        "device": placement.device,
        "edgewren": edgewren.__version__,
        "options": asdict(options),
        "inputs": [[split.part, *asdict(split.source).values()] for split in splits],
    }


def _begin(
    folder: Folder, fingerprint: Mapping[str, Any], splits: Sequence[Split], *, force: bool, resume: bool
) -> dict[str, dict[str, Any]]:
    """Make the folder ready, and return the records of parts that are finished.

    Raises:
        UsageError, ResumeError, OutputError: see `score_on_ray`.
    """
    before = folder.read(PLAN)
    if before is None and folder.sizes() and not force:
        raise UsageError(
            f"{folder.address} has files already. Name another folder, or use --force to write beside them."
        )
    if before is not None and not force:
        if not resume:
            done = folder.read(MANIFEST) is not None
            raise UsageError(
                f"{folder.address} holds a{' finished' if done else 'n unfinished'} run. Use "
                f"{'' if done else '--resume to go on with it, or '}--force to start over."
            )
        if (known := _document(before, PLAN)) != fingerprint:
            what = ", ".join(key for key in fingerprint if known.get(key) != fingerprint[key])
            raise ResumeError(
                f"{folder.address} cannot go on: {what} of the unfinished run differ. Go on with what it was begun "
                "with, or start over with --force."
            )
        return _finished(folder, splits)
    folder.remove(MANIFEST)  # from here on the folder is not finished
    for part in _planned(before) & set(folder.sizes()):  # a worker may have died before it wrote its record
        folder.remove(part)
    for name in folder.sizes(RECORDS):
        folder.remove(f"{RECORDS}/{name}")
        folder.remove(name.removesuffix(".json"))
    for name in folder.sizes(REJECTS):
        folder.remove(f"{REJECTS}/{name}")
    folder.put(PLAN, json.dumps(fingerprint, ensure_ascii=False).encode())
    return {}


def _planned(plan: bytes | None) -> set[str]:
    """Return the parts that an earlier run has planned; none where nobody can tell."""
    try:
        return {str(part) for part, *_ in json.loads(plan or b"")["inputs"]}
    except (ValueError, TypeError, KeyError):
        return set()


def _finished(folder: Folder, splits: Sequence[Split]) -> dict[str, dict[str, Any]]:
    parts, records = folder.sizes(), folder.sizes(RECORDS)
    found = {}
    for split in splits:
        name = f"{split.part}.json"
        if name in records and split.part in parts and (data := folder.read(f"{RECORDS}/{name}")) is not None:
            record = _document(data, name)
            if record["bytes"] == parts[split.part]:
                found[split.part] = record
    return found


def _document(data: bytes, name: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise ResumeError(f"{name} is damaged: {error}. Start over with --force.") from error
    return document


def _run(
    packed: Any, splits: Sequence[Split], output: str, options: Options, placement: Placement
) -> Iterator[dict[str, Any]]:
    """Yield the record of each split as it is finished."""
    task = ray.remote(_score_split).options(
        num_cpus=placement.threads,
        num_gpus=1 if placement.device == "cuda" else 0,
        max_retries=RETRIES,
        retry_exceptions=False,
        name="edgewren.score",
    )
    waiting = list(reversed(splits))
    running: dict[Any, Split] = {}
    try:
        while waiting or running:
            while waiting and len(running) < IN_FLIGHT:
                split = waiting.pop()
                running[task.remote(packed, split, output, options, placement)] = split
            for reference in ray.wait(list(running), num_returns=1)[0]:
                split = running.pop(reference)
                try:
                    outcome = ray.get(reference)
                except ray.exceptions.RayError as error:
                    raise OutputError(
                        f"{split.source.address} could not be scored: {_first_line(error)} Other parts that were "
                        "finished stay. Remove the cause, then go on with --resume."
                    ) from error
                if isinstance(outcome, EdgewrenError):
                    raise outcome
                yield outcome
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0 if len(lines) == 1 else -1].strip()[:400]


def _score_split(
    packed: Packed, split: Split, output: str, options: Options, placement: Placement
) -> dict[str, Any] | EdgewrenError:
    """Score one input, put its part, rejects and record into the folder, and return the record.

    Runs in a worker, perhaps several times, perhaps twice at once.
    """
    try:
        classifier = classifier_of(packed, placement)
        with scratch() as own:
            if is_remote(split.source.address):
                (own / "input").mkdir()
                source = str(fetch(split.source.address, own / "input"))
            else:
                source = split.source.address
            if Path(source).is_file() and Path(source).stat().st_size != split.source.bytes:
                raise InputError(
                    f"{split.source.address} had {split.source.bytes:,} bytes when the run began, now "
                    f"{Path(source).stat().st_size:,}. Score it again when nobody writes to it."
                )
            local = own / split.part
            report = score_archive(classifier, [source], local, **asdict(options))
            folder = Folder(output)
            rejects = local.with_name(local.name + ".rejects.jsonl")
            if rejects.exists():
                folder.put(f"{REJECTS}/{split.part}.jsonl", _named(rejects, split.source.address))
            size, sha256 = folder.put(split.part, local)
        (read,) = report.document["inputs"]
        record = {
            "part": split.part,
            "input": split.source.address,
            "input_bytes": read["bytes"],
            "input_sha256": read["sha256"],
            "rows": report.rows,
            "statuses": report.document["statuses"],
            "rejections": [text.replace(source, split.source.address) for text in report.rejections],
            "bytes": size,
            "sha256": sha256,
            "variant": classifier.variant,
            "versions": report.document["versions"],
        }
        folder.put(f"{RECORDS}/{split.part}.json", json.dumps(record, ensure_ascii=False).encode())
    except EdgewrenError as error:
        return error
    return record


def _named(rejects: Path, address: str) -> bytes:
    """Return the list of rejected rows with the input's address in place of the copy's path."""
    lines = [json.loads(line) | {"source": address} for line in rejects.read_text(encoding="utf-8").split("\n") if line]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8", "backslashreplace")


def _check_parts(folder: Folder, records: Mapping[str, Mapping[str, Any]]) -> None:
    sizes = folder.sizes()
    for part, record in records.items():
        if sizes.get(part) != record["bytes"]:
            raise OutputError(
                f"{folder.address}/{part} has {sizes.get(part, 'no')} bytes, expected {record['bytes']}: somebody "
                "changed it. Remove its record, then go on with --resume."
            )


def _totals(records: Any) -> dict[str, Any]:
    statuses: Counter[str] = Counter()
    for record in records:
        statuses.update(record["statuses"])
    return {"rows": sum(record["rows"] for record in records), "statuses": {name: statuses[name] for name in STATUSES}}
