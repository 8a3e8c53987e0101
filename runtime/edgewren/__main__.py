"""The process `edgewren`, also as `python -m edgewren`: what happens to it before and after `cli.main`."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def console() -> NoReturn:
    """Be the process. Ctrl-C while modules are still imported ends it without a traceback, as it ends `cat`."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not a shell's background job
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from edgewren.cli.main import INTERRUPTED, TERMINATED, main

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main()
    if code in (INTERRUPTED, TERMINATED):  # nothing is left to interrupt, and Python's end has begun
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    console()
