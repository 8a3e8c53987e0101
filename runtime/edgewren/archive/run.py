"""Rows through a classifier: one row in, one row out, in order. Knows no formats and no tokens.

`Inputs` hands out windows of rows, the classifier's scheduler scores them while the next are read, `results` says what
is added, the format's encoder turns it into bytes and `Output` keeps them. Each window is committed before the next,
so memory is constant and a run can go on from any of them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewren.archive.compression import Compression
from edgewren.archive.direct import DirectOutput, Output, State, is_direct
from edgewren.archive.disk import Disk
from edgewren.archive.inputs import Finished, Inputs, Place, comes_once, expand
from edgewren.archive.lines import STDIN
from edgewren.archive.output import JournaledOutput, side_files
from edgewren.archive.report import Report, Tally, model_facts, versions
from edgewren.archive.results import Part, Result, Window, added_names, results
from edgewren.archive.rows import Row, json_text
from edgewren.archive.table import Encoder
from edgewren.archive.whole_file import StandardOutput, WholeFile
from edgewren.archive.writers import choose_output, make_encoder
from edgewren.classifier import WINDOW_ROWS, Classifier, Scores
from edgewren.errors import InputError, OutputError, UsageError

WINDOW_CHARACTERS = 8 * 2**20
"""A window whose rows have come to this many characters ends, however few they are: memory stays constant."""

_SHORT_CHARACTERS = 256
"""Rows that are no longer on average wait as objects where these are written: 8,192 of them take some 20 MB, and to
parse 60,000 records of 150 characters again took a quarter more processor time."""


@dataclass(frozen=True)
class Options:
    """What decides about a run's result besides its inputs and its model."""

    text_column: str
    format: str | None
    output_format: str
    compression: str | None
    encoding: str
    prefix: str
    abstain_below: float | None
    excel_safe: bool
    window: int


def score_archive(
    classifier: Classifier,
    sources: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    text_column: str = "text",
    format: str | None = None,  # noqa: A002  the word that every caller uses
    output_format: str | None = None,
    encoding: str = "utf-8",
    prefix: str = "",
    abstain_below: float | None = None,
    excel_safe: bool = False,
    force: bool = False,
    resume: bool = False,
    window: int = WINDOW_ROWS,
    progress: Callable[[int, int], None] | None = None,
    disk: Disk | None = None,
) -> Report:
    """Score every row of some files, and write each with its label, scores and status behind its own columns.

    Added columns: `label`, `score` (the probability of that label), `score_<label>` for each label, and `status`:
    rejected:<why> (with no label and no scores), else empty (no text, scored nonetheless), else uncertain (the score
    is below `abstain_below`), else truncated (tokens were cut off), else repaired (invalid Unicode was mended), else
    ok. Scores are the shortest decimals that give back the same float32.

    Whatever ends the run (a full disk, SIGKILL, a power cut), `resume=True` goes on and ends with the same bytes as a
    run that nothing disturbed. That needs files: standard input cannot be read twice, standard output not taken back.

    Args:
        classifier: the loaded bundle.
        sources: paths, glob patterns, or "-" for standard input; read one after another into one output.
        output: path; None or "-" for standard output. Packed if it ends in .gz, .zst, .xz or .bz2.
        text_column: column with the texts; every input must have it.
        format: of all inputs, one of `format_names.TABLES` or "twitter"; None: by looking, then by suffix.
        output_format: one of `format_names.TABLES`; None: by suffix of the output, else the first input's. Where the
            suffix is that of the input's format, too, it is the input's: semicolons stay semicolons.
        encoding: of the inputs; output is always UTF-8.
        prefix: put before the name of every added column.
        abstain_below: rows whose best score is lower get the status "uncertain"; None: none.
        excel_safe: in CSV and TSV, put an apostrophe before texts that a spreadsheet would take for a formula.
        force: whether an existing output or an unfinished run may be replaced.
        resume: whether to go on with an unfinished run; where there is none, one begins.
        window: rows read, scored and committed together.
        progress: called after each window with rows written so far, and the input bytes that they took.
        disk: the file system that is written to.

    Raises:
        InputError: a file cannot be read, or has no such text column.
        UsageError: the output exists; a run is unfinished and neither resume nor force is set; an added column's name
            is taken; the inputs do not have the same columns.
        OutputError: the output cannot be written. What was there before is untouched; resume goes on.
        ResumeError: the unfinished run had other inputs, another model or other options, or its files were changed.
        LockedError: another run is writing this output.
    """
    if window < 1:
        raise UsageError(f"window is {window}, expected at least 1.")
    if abstain_below is not None and not 0 < abstain_below <= 1:
        raise UsageError(f"abstain_below is {abstain_below}, expected a probability above 0 and at most 1.")
    to_file = output is not None and str(output) != STDIN and not is_direct(output)
    own = side_files(output) if to_file and output is not None else []
    files = expand(sources, but=own)
    _check_apart(files, own[1:], output)
    once = next(filter(comes_once, files), None)
    if resume and (not to_file or once is not None):
        what = "What went to standard output is not kept"
        if once is not None:
            what = f"{'Standard input' if once == STDIN else f'{once} is no regular file: it'} cannot be read twice"
        raise UsageError(f"{what}, so there is nothing to resume. Use --resume with files, and with --output FILE.")
    with contextlib.ExitStack() as stack:
        target: JournaledOutput | None = None
        if to_file and output is not None:
            target = JournaledOutput(output, force=force, resume=resume, disk=disk or Disk())
            stack.callback(target.close)
        with _leaving_as_found(target):
            added = added_names(classifier.labels, prefix)
            inputs = Inputs(files, format=format, encoding=encoding, text_column=text_column, added=added)
            stack.callback(inputs.close)
            chosen, packed = choose_output(output, output_format, inputs.formats[0])
            options = Options(
                text_column,
                format,
                chosen,
                packed.name if packed else None,
                encoding,
                prefix,
                abstain_below,
                excel_safe,
                window,
            )
            run = _Run(classifier, inputs, options, packed, progress)
            if target is not None and resume:
                finished = target.finished(run.fingerprint)
                if finished is not None:
                    target.abandon()
                    return Report.from_document(finished)
            inputs.open()
            encoder = run.encoder = make_encoder(chosen, inputs.first, added, excel_safe=excel_safe)
        if target is None:
            direct = DirectOutput(WholeFile(output) if output and str(output) != STDIN else StandardOutput(), packed)
            stack.callback(direct.close)
            return run.go(direct)
        return _go_journaled(run, target, encoder, packed, resumable=once is None)


@contextlib.contextmanager
def _leaving_as_found(target: JournaledOutput | None) -> Iterator[None]:
    """Leave nothing of an output where something else shows, before any work, that there is nothing to write."""
    try:
        yield
    except BaseException:
        if target is not None:
            target.abandon()
        raise


def _go_journaled(
    run: _Run, target: JournaledOutput, encoder: Encoder, packed: Compression | None, *, resumable: bool
) -> Report:
    """Begin or go on, and keep of a run that fails what another one can go on from."""
    if target.unfinished:  # before anything is touched: its inputs may have changed
        run.go_on(target.state)
    try:
        target.begin(run.fingerprint, resumable=resumable, encoder=encoder, packed=packed)
    except OutputError:
        target.discard_unbegun()
        raise
    try:
        return run.go(target)
    except BaseException as error:
        # Nothing can go on where input is gone, or would end the same way each time.
        if not resumable or (isinstance(error, (InputError, UsageError)) and not _may_pass(error)):
            target.discard()
        elif isinstance(error, OutputError):
            target.discard_unbegun()
        raise


def _check_apart(files: Sequence[str], beside: Sequence[Path], output: str | Path | None) -> None:
    """Check that no input has a name that the run itself uses beside its output: it would be written over."""
    for source in files:
        if source != STDIN and Path(os.path.realpath(source)) in beside:
            raise UsageError(
                f"{source} cannot be read: beside {output}, files of that name are written and removed. Name another "
                "output, or rename the input."
            )


def _may_pass(error: BaseException) -> bool:
    """Return whether an input could not be read for now, as from a network drive that went away.

    (Libraries raise OSError for damaged data, too, but then without the system's error number.)
    """
    return isinstance(error.__cause__, OSError) and error.__cause__.errno is not None


class _Run:
    """One run: inputs, model, counts."""

    encoder: Encoder

    def __init__(
        self,
        classifier: Classifier,
        inputs: Inputs,
        options: Options,
        packed: Compression | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._classifier = classifier
        self._inputs = inputs
        self._options = options
        self._progress = progress
        self._tally = Tally()
        self._windows: deque[Window] = deque()
        self._files = 0  # inputs that a record says are finished
        self._begun = False
        self._model = model_facts(self._classifier)
        self._versions = versions([*self._inputs.formats, options.output_format], packed)
        self.fingerprint: dict[str, Any] = {
            **{f"model {key}": value for key, value in self._model.items()},
            **{f"option {key}": value for key, value in vars(options).items()},
            **{f"version {key}": value for key, value in self._versions.items()},
            **{f"input {number}": known for number, known in enumerate(self._inputs.identity, 1)},
        }

    def go_on(self, state: State | None) -> None:
        """Take up the run where it was committed last."""
        if state is not None:
            self._tally = Tally.from_dict(state["tally"])
            self.encoder.prefixed = self._tally.prefixed
            finished = [Finished(**known) for known in state["finished"].values()]
            self._inputs.go_on(Place(**state["place"]), finished)
            self._files = len(finished)
            self._begun = True
        self._tally.resumed += 1

    def go(self, output: Output) -> Report:
        """Score and write all windows that are left."""
        tally = self._tally
        before, started = tally.seconds, time.perf_counter()
        labels, abstain_below = self._classifier.labels, self._options.abstain_below
        with _closing(self._classifier.score_windows(self._read())) as scored:
            for scores in scored:
                window = self._windows.popleft()
                result = results(window, scores, labels, abstain_below)
                data = [] if self._begun else [self.encoder.header()]
                parts = zip(window.parts, result.added, strict=True)
                for part, added in parts:
                    data.append(self.encoder.encode(part.block, added))
                    part.block.rest()
                tally.add(result, scores)
                tally.prefixed = self.encoder.prefixed
                tally.seconds = before + time.perf_counter() - started
                self._commit(output, data, result, window.place)
                if self._progress is not None:
                    self._progress(tally.rows, window.place.bytes_behind)
        if not self._begun:  # no rows: a header all the same
            self._commit(output, [self.encoder.header()], Result(), self._inputs.place)
        tally.seconds = before + time.perf_counter() - started
        return Report.from_document(output.finish(tally.rows, self._document))

    def _commit(self, output: Output, data: list[bytes], result: Result, place: Place) -> None:
        tally = self._tally
        finished = {str(index): vars(self._inputs.finished[index]) for index in range(self._files, place.index)}
        state: State = {"rows": tally.rows, "tally": tally.as_dict(), "place": vars(place), "finished": finished}
        output.commit(b"".join(data), b"".join(map(_listed, result.rejected)), state)
        self._files = place.index
        self._begun = True

    def _document(self, known: State) -> State:
        """Return the report as OUT.report.json has it."""
        return {
            "report": 1,
            **self._tally.as_document(self._classifier.exits),
            "model": {"path": str(self._classifier.bundle.path), **self._model},
            "versions": self._versions,
            "options": vars(self._options),
            "inputs": [vars(done) for done in self._inputs.finished],
            **known,
            "fingerprint": self.fingerprint,
        }

    def _read(self) -> Iterator[list[str]]:
        """Yield the texts of window after window; the windows themselves wait in `_windows`."""
        rows, column = self._options.window, self._options.text_column
        while True:
            parts = []
            texts: list[str] = []
            for block in self._inputs.blocks(rows, WINDOW_CHARACTERS):
                found, problems = block.texts(column)
                if self._options.output_format == "jsonl" or block.characters > _SHORT_CHARACTERS * len(block):
                    block.rest()
                parts.append(Part(block, found, problems))
                texts += [t for row, t in enumerate(found) if row not in problems] if problems else found
            if not parts:
                return
            self._windows.append(Window(parts, texts, self._inputs.place))
            yield texts


def _listed(rejected: tuple[str, Row, str]) -> bytes:
    """Return a rejected row's line in OUT.rejects.jsonl."""
    source, row, reason = rejected
    entry = {
        "source": source,
        "row": row.number,
        "line": row.line,
        "reason": reason,
        "raw": row.raw if row.raw is not None else dict(row.fields),
    }
    return (json_text(entry) + "\n").encode("utf-8", "backslashreplace")


@contextlib.contextmanager
def _closing(scored: Iterator[Scores]) -> Iterator[Iterator[Scores]]:
    """Drop what is not yet computed when the run ends early."""
    try:
        yield scored
    finally:
        close = getattr(scored, "close", None)
        if close is not None:
            close()
