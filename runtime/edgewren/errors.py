"""The tree of exceptions and their exit codes.

Every error that edgewren raises on purpose is an `EdgewrenError`, and also the built-in exception that a caller would
expect, so that `except ValueError` written by someone who never heard of this module still works. The command line
prints the message and exits with `exit_code`; nothing else is decided here.
"""

from __future__ import annotations


class EdgewrenError(Exception):
    """Base of all errors raised by edgewren."""

    exit_code = 9


class UsageError(EdgewrenError, ValueError):
    """The request itself makes no sense: an unknown option, a wrong combination."""

    exit_code = 2


def closed_classifier() -> UsageError:
    """Return what whoever calls a closed classifier is told, wherever in it the call has come to."""
    return UsageError("The classifier is closed. Load it again with Classifier.load.")


class MissingDependencyError(EdgewrenError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    exit_code = 2


class DeviceError(EdgewrenError, RuntimeError):
    """The requested device cannot be used on this machine."""

    exit_code = 2


class BundleError(EdgewrenError, ValueError):
    """A bundle (or a trained model folder) is missing, damaged, or refused."""

    exit_code = 3


class BundleMissingError(BundleError, FileNotFoundError):
    """The folder, or a file that its manifest names, is not there."""


class BundleFileError(BundleError, OSError):
    """A file of the bundle is one too many, a link, not a regular file, or cannot be read."""


class BundleHashError(BundleError):
    """A file is not the one that the manifest describes, or the manifest not the one that was required."""


class BundleManifestError(BundleError):
    """manifest.json is not what this version of edgewren reads."""


class BundleModelError(BundleError):
    """An ONNX file holds something that no exported model holds, or onnxruntime refuses it."""


class BundleTokenizerError(BundleError):
    """tokenizer.json holds something that no exported tokenizer holds."""


class BundleSettingsError(BundleError):
    """config.json, or another of the small JSON files, is damaged or contradicts the manifest."""


class ParityError(BundleError):
    """Two stages that must agree do not: the export is refused."""


class InputError(EdgewrenError, ValueError):
    """Input cannot be read or is over a stated limit."""

    exit_code = 4


class RejectedRowsError(EdgewrenError, ValueError):
    """The run finished, but more rows were rejected than allowed."""

    exit_code = 5


class OutputError(EdgewrenError, OSError):
    """Output could not be written. What was there before is untouched."""

    exit_code = 6


class ResumeError(EdgewrenError, ValueError):
    """An unfinished run cannot go on: inputs, model, options or its files are not what they were. Nothing changed."""

    exit_code = 7


class LockedError(EdgewrenError, BlockingIOError):
    """Another run is writing the same output."""

    exit_code = 8


class InvariantError(EdgewrenError, AssertionError):
    """Something that cannot happen did: a bug in edgewren, please report it."""

    exit_code = 9
