"""The service under load: `python benchmarks/serving.py table|overload BUNDLE TEXTS.csv`.

table: single tweets at 1, 8 and 64 clients, and 32 tweets a request at 8, by wrk from another process on loopback,
beside the in-process call and plain services around the same ONNX file (`--rivals`, where they are installed).
overload: ten times the clients that saturate it, for a minute: which statuses, how late the accepted ones are, memory.
drain: SIGTERM under load, twenty times: is any accepted request lost?

The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import importlib.util
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOADS = ((1, 1), (8, 1), (64, 1), (8, 32))
"""Clients, and texts per request: single tweets, and the lists in which bulk users send them. The queue holds a second
of work, so that what is measured is the work; overload is measured with the default queue."""
OVERLOAD_CLIENTS = 640
OURS = "edgewren serve"
HERE = Path(__file__).parent
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "overload", "drain"))
    parser.add_argument("bundle")
    parser.add_argument("texts", help="CSV with a column 'text'")
    parser.add_argument("--seconds", type=float, default=None, help="default: 8 per row of the table, 60 of overload")
    parser.add_argument("--rivals", action="store_true", help="also FastAPI and LitServe around optimum's pipeline")
    parser.add_argument("--times", type=int, default=20, help="of drain (default: 20)")
    args = parser.parse_args()
    with Path(args.texts).open(encoding="utf-8", newline="") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    if args.what == "table":
        result = table(args.bundle, texts, args.seconds or 8, rivals=args.rivals)
    elif args.what == "overload":
        result = overload(args.bundle, texts, args.seconds or 60)
    else:
        result = drain(args.bundle, texts, args.times)
    print(json.dumps(result))


def table(bundle: str, texts: list[str], seconds: float, *, rivals: bool) -> dict[str, Any]:
    """Measure and print latency and throughput at each number of clients."""
    direct = in_process(bundle, texts)
    print(
        f"in process: {direct['texts_per_s']:,.0f} texts/s as one list, {direct['single_calls_per_s']:,.0f} one by one "
        f"from as many threads as cores; one text p50 {direct['p50_ms']:.2f} ms"
    )
    rows = []
    for name, command, environment in services(bundle, "--queue-ms", "1000", rivals=rivals):
        with running(command, environment) as (url, process):
            for clients, together in LOADS if name == OURS else LOADS[:3]:
                load(url, texts, clients, 1, together)  # warm
                row = {
                    "service": name,
                    "clients": clients,
                    "texts_per_request": together,
                    **load(url, texts, clients, seconds, together),
                }
                rows.append(row)
                print(
                    f"{name:<20} {clients:>3} clients x {together:>2} texts  {together * row['per_s']:>7,.0f} texts/s  "
                    f"p50 {row['p50_ms']:>7.2f} ms  p99 {row['p99_ms']:>7.2f} ms  {row['refused']:>4} refused  "
                    f"{together * row['per_s'] / direct['texts_per_s']:.2f} of one list, "
                    f"{together * row['per_s'] / direct['single_calls_per_s']:.2f} of one by one"
                )
            print(f"{name:<22} {resident_mb(process.pid):.0f} MB resident")
    return {"in_process": direct, "rows": rows}


def overload(bundle: str, texts: list[str], seconds: float) -> dict[str, Any]:
    """Ask with ten times the clients that saturate it: such that heed Retry-After, and such that never wait."""
    ((name, command, environment),) = services(bundle, rivals=False)
    with running(command, environment) as (url, process):
        nominal = asyncio.run(flood(url, texts, OVERLOAD_CLIENTS // 10, min(10.0, seconds)))
        before = resident_mb(process.pid)
        patient = asyncio.run(flood(url, texts, OVERLOAD_CLIENTS, seconds, patient=True))
        flooded = asyncio.run(flood(url, texts, OVERLOAD_CLIENTS, seconds))
        after = resident_mb(process.pid)
        calm = asyncio.run(flood(url, texts, 1, 2))
        alive = process.poll() is None
    rows = (("nominal", nominal), ("overload, patient", patient), ("overload, rude", flooded), ("afterwards", calm))
    for title, got in rows:
        print(
            f"{title:<17} {got['clients']:>4} clients {got['statuses']}  accepted p50 {got['p50_ms']:.1f} ms  "
            f"p99 {got['p99_ms']:.1f} ms"
        )
    print(
        f"accepted p99 {patient['p99_ms'] / nominal['p99_ms']:.2f} x nominal where clients heed Retry-After, "
        f"{flooded['p99_ms'] / nominal['p99_ms']:.2f} x where they don't; {before:.0f} -> {after:.0f} MB"
    )
    return {
        "service": name,
        "nominal": nominal,
        "patient": patient,
        "overload": flooded,
        "afterwards": calm,
        "alive": alive,
        "resident_mb": [before, after],
    }


def drain(bundle: str, texts: list[str], times: int) -> dict[str, Any]:
    """Stop a loaded service again and again; a request whose answer breaks off was accepted and lost."""
    outcomes: Counter[str] = Counter()
    for number in range(times):
        ((_, command, environment),) = services(bundle, rivals=False)
        with running(command, environment) as (url, process):
            timer = threading.Timer(0.5 + 0.05 * number, process.send_signal, (signal.SIGTERM,))
            timer.start()
            got = asyncio.run(flood(url, texts, 32, 30, until_refused=True))
            outcomes.update(got["statuses"])
            outcomes[f"exit {process.wait(30)}"] += 1
    print(f"{times} drains: {dict(outcomes)}")
    return {"times": times, "outcomes": dict(outcomes)}


def in_process(bundle: str, texts: list[str]) -> dict[str, float]:
    """Measure the same bundle without HTTP, in a fresh process, by `edgewren bench`."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([["text"], *([text] for text in texts)])
        stream.flush()
        command = [sys.executable, "-m", "edgewren", "bench", bundle, stream.name, "--json"]
        measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "texts_per_s": measured["texts_per_s"],
        "p50_ms": measured["latency_ms"]["p50"],
        "single_calls_per_s": single_calls_per_s(bundle, texts),
    }


def single_calls_per_s(bundle: str, texts: list[str], seconds: float = 4.0) -> float:
    """Measure calls with one text each from as many threads as cores: the work that single requests are."""
    from edgewren import Classifier

    with Classifier.load(bundle) as classifier:
        counts = [0] * classifier.threads
        end = time.perf_counter() + seconds

        def work(number: int) -> None:
            alone = classifier.with_threads(1)
            while time.perf_counter() < end:
                alone.predict([texts[(number * 601 + counts[number]) % len(texts)]])
                counts[number] += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(classifier.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(counts) / seconds


def services(bundle: str, *options: str, rivals: bool) -> list[tuple[str, list[str], dict[str, str]]]:
    """Return name, command and environment of each service; `{port}` is filled in later."""
    found = [(OURS, [sys.executable, "-m", "edgewren", "serve", bundle, "--port", "{port}", *options], {})]
    if rivals:
        folder = Path(bundle)
        file = "model_int8.onnx" if (folder / "onnx/model_int8.onnx").exists() else "model.onnx"
        environment = {"BUNDLE_DIR": str(folder.absolute()), "BUNDLE_FILE": file, "PYTHONPATH": str(HERE)}
        fastapi = [sys.executable, "-m", "uvicorn", "services.fastapi_pipeline:app", "--port", "{port}"]
        found.append(("FastAPI + optimum", [*fastapi, "--log-level", "warning"], environment))
        lit = [sys.executable, str(HERE / "services/litserve_pipeline.py"), "{port}"]
        found.append(("LitServe + optimum", lit, environment))
        for package in ("fastapi", "litserve"):
            if importlib.util.find_spec(package) is None:
                print(f"{package} is not installed and left out")
                found = [entry for entry in found if package not in entry[0].lower()]
    return found


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a service on a free port of 127.0.0.1, wait until it is healthy, stop it in the end."""
    port = free_port()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [part.format(port=port) for part in command],
            env={**os.environ, **environment, "ORT_DISABLE_TELEMETRY": "1"},
            stderr=errors,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # LitServe's own processes outlive it
        )
        try:
            deadline = time.monotonic() + 120
            while not healthy(f"http://127.0.0.1:{port}/health"):
                if process.poll() is not None or time.monotonic() > deadline:
                    errors.seek(0)
                    raise SystemExit(f"{command} did not start: {errors.read().decode()[-1000:].strip()}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/predict", process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  loopback
            return bool(answer.status == 200)
    except OSError:
        return False


def load(url: str, texts: list[str], clients: int, seconds: float, together: int = 1) -> dict[str, float]:
    """Let wrk post texts, `together` in a request; return its figures (latencies in ms; answered requests alone)."""
    bodies = [json.dumps({"inputs": text}) for text in texts]
    if together > 1:
        bodies = [
            json.dumps({"inputs": texts[start : start + together]})
            for start in range(0, len(texts) - together, together)
        ]
    lines = ",\n".join(json.dumps(body) for body in bodies)
    script = (
        f"local bodies = {{{lines}}}\n"
        "local at = 0\n"
        "function init(args) math.randomseed(os.time()) at = math.random(#bodies) end\n"
        "function request()\n  at = at % #bodies + 1\n"
        '  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, bodies[at])\nend\n'
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua", encoding="utf-8") as stream:
        stream.write(script)
        stream.flush()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--latency", "-s", stream.name, url]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    done, lasted = found(r"(\d+) requests in ([\d.]+)s", out)
    failed = int(refused[1]) if refused else 0
    return {
        "per_s": (int(done) - failed) / float(lasted),
        "p50_ms": percentile(50, out),
        "p99_ms": percentile(99, out),
        "refused": failed,
    }


def percentile(which: int, out: str) -> float:
    match = re.search(rf"^\s+{which}%\s+([\d.]+)(us|ms|s)$", out, re.MULTILINE)
    if match is None:
        raise SystemExit(out)
    return float(match[1]) * _UNITS[match[2]]


def found(pattern: str, out: str) -> tuple[str, ...]:
    match = re.search(pattern, out)
    if match is None:
        raise SystemExit(out)
    return match.groups()


async def flood(
    url: str, texts: list[str], clients: int, seconds: float, *, until_refused: bool = False, patient: bool = False
) -> dict[str, Any]:
    """Ask over keep-alive connections, each client as fast as it is answered. wrk tells no latency per status.

    Patient clients wait as long as Retry-After says; the others ask again at once.
    """
    host, port = url.split("/")[2].split(":")
    statuses: Counter[str] = Counter()
    accepted: list[float] = []
    end = time.monotonic() + seconds

    async def one(number: int) -> None:
        at = number * 37
        reader = writer = None
        while time.monotonic() < end:
            if writer is None or reader is None:
                try:
                    reader, writer = await asyncio.open_connection(host, int(port))
                except OSError:  # not accepted: the service is gone
                    statuses["connection refused"] += 1
                    if until_refused:
                        return
                    await asyncio.sleep(0.05)
                    continue
            at += 1
            body = json.dumps({"inputs": texts[at % len(texts)]}).encode()
            start = time.perf_counter()
            answered = b""
            try:
                head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                answered = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", answered.lower())
                await reader.readexactly(int(length[1]) if length else 0)
            except (OSError, asyncio.IncompleteReadError) as error:
                # Nothing came back: the idle connection was closed before the request was read, or an answer was lost.
                broken = bool(answered or getattr(error, "partial", b""))
                statuses["broken answer" if broken else "closed"] += 1
                writer = None
                if until_refused:
                    return
                continue
            status = answered.split(b" ", 2)[1].decode()
            statuses[status] += 1
            if status == "200":
                accepted.append(1000 * (time.perf_counter() - start))
            if patient and status == "429":
                await asyncio.sleep(float(re.search(rb"retry-after: (\d+)", answered.lower())[1]))
            if b"connection: close" in answered.lower():
                writer.close()
                writer = None

    await asyncio.gather(*(one(number) for number in range(clients)))
    cuts = statistics.quantiles(accepted, n=100) if len(accepted) > 1 else [float("nan")] * 99
    return {"clients": clients, "statuses": dict(statuses), "p50_ms": cuts[49], "p99_ms": cuts[98]}


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process and its children."""
    total = 0.0
    for process in [pid, *children(pid)]:
        with contextlib.suppress(OSError), Path(f"/proc/{process}/status").open(encoding="ascii") as status:
            total += sum(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
    return total


def children(pid: int) -> list[int]:
    found_pids = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found_pids += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return found_pids + [grandchild for child in found_pids for grandchild in children(child)]


if __name__ == "__main__":
    main()
