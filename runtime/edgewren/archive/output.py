"""An output that is built window by window, survives anything, and appears whole. Knows bytes, not rows.

While a run goes on there are OUT.partial, OUT.rejects.jsonl.partial and OUT.journal. A window is committed when its
bytes are in the first two, fsynced, and then its record is in the journal, fsynced. Whatever ends the run, what lies
behind the last record is cut off by the next one. At the end everything is read back and compared, and takes its final
name; the journal goes last, and until it has gone, every step can be done again.

No method tries anything twice. After an OSError the output is closed and says how to go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgewren.archive import journal
from edgewren.archive.appended import NOTHING, Appended
from edgewren.archive.compression import Compression, unpack
from edgewren.archive.direct import State
from edgewren.archive.disk import Disk
from edgewren.archive.journal import Journal
from edgewren.archive.table import Encoder
from edgewren.archive.whole_file import check_place, mode_of, permissions_of
from edgewren.errors import EdgewrenError, InvariantError, OutputError, ResumeError, UsageError

PARTIAL_SUFFIX = ".partial"
SEALED_SUFFIX = ".sealed.partial"
REJECTS_SUFFIX = ".rejects.jsonl"
REPORT_SUFFIX = ".report.json"
_WRITTEN = (
    PARTIAL_SUFFIX,
    SEALED_SUFFIX,
    REJECTS_SUFFIX + PARTIAL_SUFFIX,
    REPORT_SUFFIX + PARTIAL_SUFFIX,
    journal.SUFFIX,
    journal.SUFFIX + ".new",
)
"""Of the files that are written; the others get their names from these."""


def side_files(output: str | Path) -> list[Path]:
    """Return the output's own names, and those of everything that is kept beside it."""
    path = Path(os.path.realpath(output))
    return [path.with_name(path.name + suffix) for suffix in ("", REPORT_SUFFIX, REJECTS_SUFFIX, *_WRITTEN)]


def beside(output: str | Path, suffix: str) -> str:
    """Return the name of a file beside an output, for people: of an output through a link, beside the file itself."""
    return f"{os.path.realpath(output) if os.path.islink(output) else output}{suffix}"  # noqa: PTH114  a long name


class JournaledOutput:
    """An output file with its journal.

    Open it, ask whether it is `finished` where a run is gone on with, `begin`, `commit` each window and `finish`.

    Args:
        path: the final name. A link is followed, so that it stays a link.
        force: whether an existing output, or an unfinished run, may be replaced.
        resume: whether to go on with an unfinished run.
        disk: the file system.

    Attributes:
        state: of the last committed window of the unfinished run that is gone on with, or None.

    Raises:
        UsageError: the output exists, or an unfinished run does, and neither force nor resume is set.
        ResumeError: the journal is damaged.
        LockedError: another run is writing this output.
        OutputError: it cannot be written.
    """

    def __init__(self, path: str | Path, *, force: bool, resume: bool, disk: Disk) -> None:
        self.name = str(path)
        self.path = Path(os.path.realpath(path))
        check_place(self.path, self.name)
        self._disk = disk
        self._force = force
        self._resume = resume
        self._partial: Appended | None = None
        self._rejects: Appended | None = None
        self._encoder: Encoder | None = None
        self._packed: Compression | None = None
        self.state: State | None = None
        self._header: Mapping[str, Any] | None = None
        with self._reported():
            for name in side_files(path):
                disk.size(name)  # fails for a name that is too long, or a link that leads to itself
            self._check_no_links()
            mode = mode_of(self.path)
        # What is written beside it holds the same texts. Its owner, who is us, has to go on writing.
        self._mode = None if mode is None else permissions_of(mode) | stat.S_IRUSR | stat.S_IWUSR
        journal_path = self._beside(journal.SUFFIX)
        self._is_first = disk.size(journal_path) is None
        if self._is_first and not resume:
            self.check_new()
        with self._reported():
            self._journal = Journal(disk, journal_path, self._mode)
        try:
            self._look()
        except BaseException:
            self.close()
            raise

    def _look(self) -> None:
        content = self._journal.content
        disposable = content.header is not None and not content.header.get("resumable", True)
        started = bool(self._disk.size(self._beside(PARTIAL_SUFFIX)))
        if content.header is None and not (content.empty or content.ours or started or self._force):
            raise UsageError(
                f"{self._journal.path} exists already, and is no journal of edgewren's. Use --force to replace it, or "
                "name another file."
            )
        if content.damaged or (content.header is None and not content.empty and started):
            if not self._force:
                raise ResumeError(f"{self._journal.path} is damaged, so {self.name} cannot go on. Start over: --force.")
            return
        if content.header is None or disposable:
            if not self._resume:
                self.check_new()
            return
        if self._resume:
            self._header, self.state = content.header, content.state
        elif not self._force:
            rows = (content.state or {}).get("rows", 0)
            raise UsageError(
                f"{self.name} has an unfinished run with {rows:,} rows. Go on with --resume, or start over with "
                "--force."
            )

    @property
    def unfinished(self) -> bool:
        """Whether an unfinished run is gone on with."""
        return self._header is not None

    def begin(
        self, fingerprint: Mapping[str, Any], *, resumable: bool, encoder: Encoder, packed: Compression | None
    ) -> None:
        """Start, or go on with, the run that the fingerprint describes.

        Raises:
            ResumeError: the unfinished run's files are not what they were. Nothing was changed.
            OutputError: it cannot be written.
        """
        self._encoder = encoder
        self._packed = packed
        state = self.state or {}
        with self._reported():
            self._partial = self._appended(PARTIAL_SUFFIX, state.get("output"))
            self._rejects = self._appended(REJECTS_SUFFIX + PARTIAL_SUFFIX, state.get("rejects"))
            self._journal.restart({"fingerprint": fingerprint, "resumable": resumable}, self.state)

    def commit(self, data: bytes, rejects: bytes, state: State) -> None:
        partial, listed = self._parts()
        with self._reported():
            partial.append(self._packed.pack(data) if self._packed else data)
            listed.append(rejects)
            self.state = {**state, "output": partial.committed, "rejects": listed.committed}
            self._journal.append(self.state)

    def finish(self, rows: int, report: Callable[[State], State]) -> State:
        partial, listed = self._parts()
        with self._reported():
            if not partial.bytes:
                self._make_empty(partial.path)
            partial.close()
            listed.close()
            self._compare(partial.path, partial.committed)
            self._compare(listed.path, listed.committed)
            source, described = self._sealed(partial)
            self._check_rows(source, rows)
            known = {
                "output": {"path": self.name, **described},
                "rejects": {"path": beside(self.name, REJECTS_SUFFIX), **listed.committed} if listed.bytes else None,
            }
            final: State = {
                "source": source.name,
                "output": described,
                "rejects": listed.committed,
                "report": report(known),
            }
            self.state = {**(self.state or {}), "final": final}
            self._journal.append(self.state)
            return self._publish(final)

    def close(self) -> None:
        for part in (self._partial, self._rejects, self._journal):
            if part is not None:
                with contextlib.suppress(OSError):
                    part.close()

    def abandon(self) -> None:
        """Leave everything as it was found, before `begin`."""
        with contextlib.suppress(OSError):
            if self._journal.content.empty:
                self._journal.remove(begun=False)
        self.close()

    def discard(self) -> None:
        """Remove what the unfinished run wrote. What is there under the final name stays."""
        names = (PARTIAL_SUFFIX, SEALED_SUFFIX, REJECTS_SUFFIX + PARTIAL_SUFFIX)
        with contextlib.suppress(OSError):
            for suffix in names:
                self._disk.remove(self._beside(suffix))
            self._journal.remove()
        self.close()

    def discard_unbegun(self) -> None:
        """Remove what a run wrote that committed nothing, as where the disk was full from the start."""
        if self.state is None and self._header is None:
            self.discard()

    def finished(self, fingerprint: Mapping[str, Any]) -> State | None:
        """Return the report, where the run that is gone on with had nothing left to do but to give files their names,
        which is done then, or not even that; else None.

        Raises:
            ResumeError: the unfinished run was another. Nothing was changed.
            UsageError: the output is there, and of another run.
            OutputError: it cannot be written.
        """
        if self._header is not None:
            before: Mapping[str, Any] = self._header["fingerprint"]
            final = (self.state or {}).get("final")
            with self._reported():
                if final is not None and self._is(self.path, final["output"]):
                    fingerprint = {key: self._as_before(known, before.get(key)) for key, known in fingerprint.items()}
                _check_same(before, fingerprint, self.name)
                return None if final is None else self._publish(final)
        try:
            report: Any = json.loads(self._beside(REPORT_SUFFIX).read_bytes())
            if report["fingerprint"] == fingerprint and self._is(self.path, report["output"]):
                return dict(report)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self.check_new()
        return None

    def _as_before(self, known: Any, before: Any) -> Any:
        """Return what is known of an input, as it was where the output has taken the place of just this input."""
        if isinstance(known, Mapping) and isinstance(before, Mapping) and known.get("path") == before.get("path"):
            return before if Path(os.path.realpath(known["path"])) == self.path else known
        return known

    def _appended(self, suffix: str, committed: Mapping[str, Any] | None) -> Appended:
        return Appended(self._disk, self._beside(suffix), self._mode, committed or NOTHING)

    def _parts(self) -> tuple[Appended, Appended]:
        if self._partial is None or self._rejects is None:
            raise InvariantError("The output was written to before it was begun. Please report this.")
        return self._partial, self._rejects

    def _make_empty(self, path: Path) -> None:
        file = self._disk.open(path, self._mode)
        self._disk.truncate(file, 0)
        self._disk.fsync(file)
        self._disk.close(file)
        self._disk.sync_folder(path.parent)

    def _sealed(self, partial: Appended) -> tuple[Path, State]:
        """Return the file that is to take the final name, and its size and hash."""
        if self._encoder is None or not self._encoder.seals:
            return partial.path, partial.committed
        path = self._beside(SEALED_SUFFIX)
        digest = hashlib.sha256()
        size = 0
        file = self._disk.open(path, self._mode)
        try:

            def write(data: bytes) -> None:
                nonlocal size
                self._disk.write(file, data)
                digest.update(data)
                size += len(data)

            self._disk.truncate(file, 0)
            self._encoder.seal(partial.path, write)
            self._disk.fsync(file)
        except BaseException:
            with contextlib.suppress(OSError):
                self._disk.close(file)
            raise
        self._disk.close(file)
        self._disk.sync_folder(path.parent)  # the journal is about to name it
        described = {"bytes": size, "sha256": digest.hexdigest()}
        self._compare(path, described)
        return path, described

    def _compare(self, path: Path, described: Mapping[str, Any]) -> None:
        if described["bytes"] and not self._is(path, described):
            raise OutputError(
                f"{path} does not hold what was written to it: the disk gave back other bytes. Check the disk, then "
                "start over with --force."
            )

    def _check_rows(self, path: Path, rows: int) -> None:
        if self._encoder is None:
            return
        if self._encoder.seals:
            found = self._encoder.count_sealed(lambda size: self._disk.end(path, size))
        else:
            chunks = self._disk.chunks(path)
            if self._packed is not None:
                chunks = unpack(chunks, self._packed, path.name, bombs_allowed=True)
            found = self._encoder.count(chunks)
        if found != rows:
            raise InvariantError(
                f"{path} has {found:,} rows where {rows:,} were read. This is a bug in edgewren: please report it."
            )

    def _publish(self, final: State) -> State:
        """Give every file its final name and remove the journal. Done again from the start if it was interrupted."""
        report: State = final["report"]
        rejects = self._beside(REJECTS_SUFFIX)
        if final["rejects"]["bytes"]:
            self._give_name(self._beside(REJECTS_SUFFIX + PARTIAL_SUFFIX), rejects, final["rejects"])
        else:
            self._disk.remove(rejects)  # it would speak of rows of an earlier run
            self._disk.remove(self._beside(REJECTS_SUFFIX + PARTIAL_SUFFIX))
        self._give_name(self._beside(final["source"].removeprefix(self.path.name)), self.path, final["output"])
        if final["source"].endswith(SEALED_SUFFIX):
            self._disk.remove(self._beside(PARTIAL_SUFFIX))
        self._write_report(report)
        self._disk.sync_folder(self.path.parent)
        self._journal.remove()
        self._disk.sync_folder(self.path.parent)
        return report

    def _give_name(self, source: Path, target: Path, described: Mapping[str, Any]) -> None:
        if self._disk.size(source) is None and self._is(target, described):
            return  # done before
        if not self._is(source, described):
            raise ResumeError(f"{source} is not what the journal says was written. Start over with --force.")
        self._disk.replace(source, target)

    def _write_report(self, report: State) -> None:
        target = self._beside(REPORT_SUFFIX)
        source = self._beside(REPORT_SUFFIX + PARTIAL_SUFFIX)
        file = self._disk.open(source, self._mode)
        try:
            self._disk.truncate(file, 0)
            text = json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
            self._disk.write(file, text.encode("utf-8", "backslashreplace"))  # of names that are no UTF-8: JSON's \\u
            self._disk.fsync(file)
        except BaseException:
            with contextlib.suppress(OSError):
                self._disk.close(file)
            raise
        self._disk.close(file)
        self._disk.replace(source, target)

    def _is(self, path: Path, described: Mapping[str, Any]) -> bool:
        if self._disk.size(path) != described["bytes"]:
            return False
        digest = hashlib.sha256()
        for chunk in self._disk.chunks(path):
            digest.update(chunk)
        return bool(digest.hexdigest() == described["sha256"])

    def check_new(self) -> None:
        """Check that nothing is overwritten. Raises UsageError."""
        if self._force:
            return
        suffixes = ["", REJECTS_SUFFIX]
        if self._is_first:  # else unfinished parts are an earlier run's
            suffixes += [suffix for suffix in _WRITTEN if suffix != journal.SUFFIX]
        if not self._is_report(self._beside(REPORT_SUFFIX)):
            suffixes.append(REPORT_SUFFIX)
        for suffix in suffixes:
            if os.path.lexists(self._beside(suffix)):
                name = beside(self.name, suffix) if suffix else self.name
                raise UsageError(f"{name} exists already. Use --force to replace it, or name another file.")

    def _check_no_links(self) -> None:
        """Check that nothing would be written through a link. Raises UsageError."""
        for suffix in _WRITTEN:
            path = self._beside(suffix)
            if path.is_symlink():
                raise UsageError(
                    f"{path} is a link, and a file of this name is written beside {self.name}. Remove the link, or "
                    "name another output."
                )

    def _is_report(self, path: Path) -> bool:
        """Whether this is the report of an earlier run, which may be gone with its output; or none at all."""
        try:
            report: Any = json.loads(path.read_bytes())
        except FileNotFoundError:
            return True
        except (OSError, ValueError):
            return False
        return isinstance(report, dict) and {"report", "fingerprint"} <= report.keys()

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except EdgewrenError:
            raise
        except OSError as error:
            how = (
                f" The {self.state['rows']:,} rows before it are safe: remove the cause, then go on with --resume."
                if self.state is not None and (self.state.get("rows") or "final" in self.state)
                else " Nothing was changed there."
            )
            raise OutputError(f"{self.name} cannot be written: {error.strerror or error}.{how}") from error


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Check that two fingerprints are the same. Raises ResumeError with what differs."""
    differences = list(_differences(before, now))
    if differences:
        raise ResumeError(
            f"{name} cannot go on: {'; '.join(differences)}. Go on with what it was begun with, or start over with "
            "--force."
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Yield what differs, in words; of what has parts itself, only those that differ."""
    for key in dict.fromkeys((*before, *now)):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{key}'s ")
        elif old != new:
            yield f"{within}{key} was {_short(old)}, is {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."
