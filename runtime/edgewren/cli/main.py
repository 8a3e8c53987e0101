"""The command `edgewren`: parse, run, main. Knows the verbs' names and the exit codes; a verb is a module of its own.

Nothing heavy is imported before a verb runs, so that `edgewren --help` answers at once. Other distributions and our own
train and export add verbs through the entry-point group `edgewren.commands`, as `add_parser(subparsers)`.

The environment, signals and logging are this process's own here, and set here; the library leaves them alone.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import math
import os
import platform
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from types import FrameType
from typing import Any, NoReturn

import edgewren
from edgewren.cli import bench, doctor, evaluate, hub, info, score, serve, summarize, verify
from edgewren.display import say
from edgewren.errors import EdgewrenError, InvariantError, MissingDependencyError, OutputError, UsageError

_NO_GLYPH = r"Glyph \d+ .*missing from|Matplotlib currently does not support .* natively"
"""Warnings of matplotlib, one for each character of a label that its font lacks: the picture shows a box instead."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EAGAIN)
"""Of standard output: its disk is full, or it is a pipe that is full and was set not to wait."""
_NOT_OURS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS)
"""Of a file that some option names: it cannot be, or may not be used."""

INTERRUPTED = 130
TERMINATED = 143

_CLEANUP_S = 2.0

_EPILOG = """\
example:
  edgewren train ridge tweets.csv --label-column bias --output bias-model
  edgewren export bias-model --output bias-bundle
  edgewren score archive.csv --model bias-bundle --output scored.csv
"""


class _Terminated(BaseException):
    """SIGTERM arrived."""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line. Ends the process as argparse does: 0 after --help and --version, 2 on a usage error."""
    return _build_parser().parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Run the parsed verb and return its exit code.

    Raises:
        EdgewrenError: what went wrong, with its exit code.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore", _NO_GLYPH, UserWarning)
    if args.verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    try:
        code: int = args.run(args)
    except EdgewrenError:
        raise
    except ImportError as error:
        extra = getattr(args, "extra", None)
        if extra is None or (error.name or "").partition(".")[0].startswith("edgewren"):
            raise
        raise MissingDependencyError(
            f"'edgewren {args.verb}' needs a package that cannot be imported ({error}). "
            f"Run: pip install 'edgewren[{extra}]'."
        ) from error
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn whatever happens into a message on stderr and an exit code."""
    _prepare_streams()
    debug = os.environ.get("EDGEWREN_DEBUG", "0") not in ("", "0")
    try:
        args = parse(argv)
    except SystemExit as ending:  # after --help, which standard output may not take
        code = _code_of(ending)
        return _run_and_tell(lambda: code, debug=False)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BaseException as error:  # noqa: BLE001  such as panics of Rust extensions that a plugin imports
        return _unexpected(error, debug=debug)
    with _signals_raise():
        debug = debug or args.debug
        return _run_and_tell(lambda: run(args), debug=debug)


def _code_of(ending: SystemExit) -> int:
    return ending.code if isinstance(ending.code, int) else 2


def _run_and_tell(call: Callable[[], int], *, debug: bool) -> int:
    try:
        try:
            code = call()
        except SystemExit as ending:
            code = _code_of(ending)
        _flush()
    except _Terminated:
        return _fail("terminated", TERMINATED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except EdgewrenError as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OutputError) and isinstance(error.__cause__, BrokenPipeError):
            return _reader_went_away()
        return _fail(f"error: {error}", error.exit_code)
    except BrokenPipeError:
        return _reader_went_away()
    except OSError as error:
        if error.filename is None and error.errno in _FULL:  # what was printed went nowhere
            return _fail(f"error: Standard output cannot be written: {error.strerror}.", OutputError.exit_code)
        if error.filename is not None and error.errno in _NOT_OURS:
            return _fail(f"error: {error.filename} cannot be used: {error.strerror}.", UsageError.exit_code)
        return _unexpected(error, debug=debug)
    except BaseException as error:  # noqa: BLE001  panics of Rust extensions are BaseException; no traceback reaches a user
        return _unexpected(error, debug=debug)
    else:
        return code


def _unexpected(error: BaseException, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    return _fail(
        f"error: unexpected {type(error).__name__}: {_one_line(error)}. This is a bug in edgewren "
        f"{edgewren.__version__} (Python {platform.python_version()}, {platform.system()}): please report it with "
        "what --debug prints.",
        InvariantError.exit_code,
    )


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgewren",
        description="Train a short-text classifier on your own labels, export it to one folder, score anywhere.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edgewren {edgewren.__version__}")
    parser.set_defaults(run=lambda _: _print_help(parser))
    _add_common(parser, default=False)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    entries = metadata.entry_points(group="edgewren.commands")
    _add_plugins(verbs, [entry for entry in entries if _is_ours(entry)])
    for module in (score, summarize, evaluate, serve, info, verify, hub, bench, doctor):
        module.add_parser(verbs)
    _add_plugins(verbs, [entry for entry in entries if not _is_ours(entry)])  # last: a name that is taken stays ours
    for verb in _all_parsers(verbs):
        # argparse.SUPPRESS: a verb's default must not undo `edgewren -v VERB`.
        _add_common(verb, default=argparse.SUPPRESS)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, default: object) -> None:
    parser.add_argument(
        "-v", "--verbose", action="store_true", default=default, help="tell on stderr what is being done and chosen"
    )
    parser.add_argument("--debug", action="store_true", default=default, help="show a traceback where an error occurs")


def _all_parsers(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
) -> Iterator[argparse.ArgumentParser]:
    for parser in verbs.choices.values():
        yield parser
        for action in parser._actions:  # noqa: SLF001  argparse has no public way to the verbs of a verb
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
                yield from _all_parsers(action)


def _add_plugins(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], entries: Sequence[metadata.EntryPoint]
) -> None:
    """Let registered verbs add themselves. One that lacks a package says so when it is called, a broken one now, and
    so does one whose name is taken: whoever came first keeps it.
    """
    for entry in sorted(entries, key=_train_before_export):
        taken = frozenset(verbs.choices)
        try:
            entry.load()(verbs)
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever others' modules raise
            if isinstance(error, argparse.ArgumentError) and error.message.startswith("conflicting subparser"):
                _say(
                    f"warning: {entry.value} adds a verb whose name is taken ({error.message}), and is left out. "
                    "Rename it, or remove the package that brings it."
                )
                continue
            if entry.name not in taken:  # what it has added before it broke is half a verb
                verbs.choices[entry.name] = _UnavailableVerb(entry.name, error)
            if not isinstance(error, (ImportError, AttributeError)):
                what = f"warning: the verb {entry.name} of {entry.value} is broken: {type(error).__name__}: "
                _say(what + _one_line(error))


def _is_ours(entry: metadata.EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == "edgewren"


def _train_before_export(entry: metadata.EntryPoint) -> tuple[bool, str]:
    return entry.name != "train", entry.name


class _UnavailableVerb(argparse.ArgumentParser):
    """Accepts whatever arguments the verb would, and answers with what to install."""

    def __init__(self, name: str, error: BaseException) -> None:
        super().__init__(prog=f"edgewren {name}", add_help=False)
        self._name = name
        self._error = error

    def parse_known_args(self, _args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        parsed = argparse.Namespace() if namespace is None else namespace
        parsed.run = self._explain
        return parsed, []

    def _explain(self, _: argparse.Namespace) -> NoReturn:
        what = f"'edgewren {self._name}' cannot be loaded ({self._error})."
        if isinstance(self._error, (ImportError, AttributeError)):
            raise MissingDependencyError(f"{what} Run: pip install 'edgewren[{self._name}]'.") from self._error
        raise UsageError(f"{what} Mend or remove the package that brings this verb.") from self._error


def _print_help(parser: argparse.ArgumentParser) -> int:
    parser.print_help(sys.stderr)
    return 2


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into exceptions, so that what is half done is cleaned up.

    More of them within seconds (Ctrl-C pressed twice, or sent to the process and to its group) don't break into that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised_at = -math.inf

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal raised_at
        now = time.monotonic()
        if now - raised_at > _CLEANUP_S:
            raised_at = now
            raise KeyboardInterrupt if number == signal.SIGINT else _Terminated

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, on_signal)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored, as of a shell's background jobs
        before[signal.SIGINT] = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _prepare_streams() -> None:
    """Put something in the place of standard streams that whoever started us has closed (`2>&-`), and let standard
    output escape what its encoding does not have, as Python lets standard error: labels come in any alphabet.
    """
    ours = sys.stdout is sys.__stdout__  # not a host's
    if sys.stderr is None:  # `print` would write to stdout instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  for good
    elif sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        raw: Any = getattr(sys.stderr.buffer, "raw", sys.stderr.buffer)
        told = io.BufferedWriter(_Told(raw))
        sys.stderr = io.TextIOWrapper(told, sys.stderr.encoding, sys.stderr.errors, line_buffering=True)
    if sys.stdout is None:  # writing fails, as it would without Python
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    elif ours and isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        # PYTHONUNBUFFERED: `print` would lose what a full pipe leaves
        sys.stdout = open(  # noqa: SIM115  for good
            sys.stdout.fileno(), "w", buffering=1, encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False
        )
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")


class _Told(io.RawIOBase):
    """Standard error, which never fails: what nobody reads, or a full disk does not take, changes no run's end."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__()
        self._raw = raw

    def write(self, data: Any, /) -> int:
        size: int = memoryview(data).nbytes
        try:
            return self._raw.write(data) or size
        except OSError:
            return size

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()


def _flush() -> None:
    """Hand on what was printed.

    Raises:
        BrokenPipeError: the reader went away.
        OutputError: standard output cannot be written.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"Standard output cannot be written: {error.strerror or error}.") from error


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # of a host's own stream: the process's never fails
        say(f"edgewren: {message}")


def _fail(message: str, code: int) -> int:
    _say(message)
    try:
        sys.stdout.flush()
    except OSError:  # that is what was said, or the smaller trouble of the two; Python would add its own at exit
        _reader_went_away()
    return code


def _reader_went_away() -> int:
    """End quietly, as `edgewren … | head` should; else Python would complain when it flushes stdout at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OutputError.exit_code


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or "no message"


if __name__ == "__main__":  # the name of the process before `python -m edgewren` was there
    from edgewren.__main__ import console

    console()
