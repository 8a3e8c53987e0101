"""The verb `edgewren serve`: bundles behind HTTP."""

from __future__ import annotations

import argparse
import sys

from edgewren.errors import UsageError

_LONGEST_S = 86_400


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "serve",
        help="answer over HTTP, in the shapes of Hugging Face and KServe",
        description="Serve bundles over HTTP: POST /predict as text-embeddings-inference and Hugging Face take it, "
        "KServe's V2 protocol, Prometheus metrics at /metrics, an API description at /docs, and a page to try it out "
        "at /. Too much work is refused at once (429), never piled up; SIGTERM lets accepted requests finish.",
        epilog='example:\n  edgewren serve bias-bundle --port 8080\n  curl localhost:8080/predict -d \'{"inputs": '
        '["Taxes are theft."]}\'',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "bundle",
        nargs="+",
        metavar="BUNDLE",
        help="folder written by 'edgewren export', or NAME=FOLDER; first: default",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all networks (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=8080, help="0: any free one (default: 8080)")
    parser.add_argument("--variant", metavar="NAME", help="ONNX file of the bundles (default: best here)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    parser.add_argument("--threads", type=int, metavar="N", help="workers (default: all CPU cores granted)")
    parser.add_argument(
        "--queue-ms",
        type=float,
        default=50.0,
        metavar="MS",
        help="as many tokens may wait as this machine computes in this time; more is answered 429 (default: 50)",
    )
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="answer 504 after this (default: 10 seconds)"
    )
    parser.add_argument(
        "--max-texts", type=int, default=1024, metavar="N", help="texts of one request; more is 413 (default: 1024)"
    )
    parser.add_argument(
        "--max-body-bytes", type=int, default=2_000_000, metavar="N", help="decoded; more is 413 (default: 2000000)"
    )
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=0.5,
        metavar="S",
        help="after SIGTERM, answer new requests with 503 for this long before the sockets close (default: 0.5)",
    )
    parser.set_defaults(run=run, extra="serve")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal.

    Raises:
        UsageError: an option out of range, or the address is taken.
        BundleError: a bundle is refused.
    """
    positive = ("queue_ms", "timeout", "max_texts", "max_body_bytes")
    for name in positive:
        if not getattr(args, name) > 0:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(args, name)}, expected more than 0.")
    if not args.drain_seconds >= 0:
        raise UsageError(f"--drain-seconds is {args.drain_seconds}, expected 0 or more.")
    for name, most in (("queue_ms", 1000 * _LONGEST_S), ("timeout", _LONGEST_S), ("drain_seconds", _LONGEST_S)):
        if getattr(args, name) > most:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(args, name)}, expected at most {most}.")
    if not args.host:
        raise UsageError("--host is empty. Name an address, for example 127.0.0.1, or 0.0.0.0 for all networks.")
    from edgewren.serve.app import Limits, build_app
    from edgewren.serve.models import Readiness, load_models
    from edgewren.serve.server import address, bind, serve

    listener = bind(args.host, args.port)
    models = load_models(
        args.bundle, device=args.device, threads=args.threads, variant=args.variant, queue_ms=args.queue_ms
    )
    readiness = Readiness(models)
    app = build_app(models, readiness, Limits(args.max_body_bytes, args.max_texts, args.timeout))
    host, port = listener.getsockname()[:2]
    print(f"serving {', '.join(models)} on http://{address(host, port)}", file=sys.stderr, flush=True)
    serve(app, models, readiness, listener, drain_s=args.drain_seconds, finish_s=args.timeout)
    return 0
