"""The folder of a run's checkpoints: the newest are kept, and they are written in the background."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..geometry import integer
from ..paths import path_of
from .checkpoint import CheckpointDamagedWarning, CheckpointError, CheckpointFailedWarning
from .folder_lock import locked
from .host_copy import HostCopy, Snapshot, Unsuitable
from .orbax_files import check_orbax, import_orbax
from .serialization import MANIFEST, Damaged, read, sync, verify, write

_STEP = re.compile(r"step_(\d{8,})(?:_(\d+))?")
_DAMAGED = re.compile(r"step_\d{8,}(?:_\d+)?\.damaged(?:_\d+)?")
#: prefixes of folders that are not a checkpoint (yet, or any more); a run that was killed may leave one
_WRITING, _DELETING = ".fcnn-writing-", ".fcnn-deleting-"


class Store:
    """A folder of checkpoints that are written in the background; the newest ``keep`` of them are kept.

    A checkpoint is in the folder whole or not at all, whenever the process ends. Only one store at a time writes to a
    folder; ``read_only`` takes no lock and changes nothing. A store has to be closed, because Python does not wait for
    the last write when it exits. It needs space for ``keep`` + 1 checkpoints on disk and for one in host memory.

    Raises:
        CheckpointError: the folder cannot be used, or another run uses it.
        ImportError: Orbax is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3, *, read_only: bool = False) -> None:
        check_orbax()
        self.folder = run_folder(folder)
        self.keep = integer(keep, "keep")
        self._read_only = read_only
        self._lock: int | None = None
        self._thread: threading.Thread | None = None
        self._preparing: threading.Thread | None = None
        self._failure: str | None = None  # of the last save
        self._unsaid: str | None = None  # a failure that no warning has been given of yet
        self._copy = HostCopy()
        if not read_only:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock = locked(self.folder)
                for left in self.folder.iterdir():
                    if left.name.startswith((_WRITING, _DELETING)) and left.is_dir():
                        shutil.rmtree(left, ignore_errors=True)
            except OSError as error:
                raise CheckpointError(
                    f"checkpoints cannot be kept in {self.folder}: {_reason(error)}; give another folder"
                ) from error
        # the import can take seconds, and the first steps of a run need not wait for it
        threading.Thread(target=_import_quietly, name="fcnn-import-orbax", daemon=True).start()

    def prepare(self, tree: Any) -> None:
        """Allocate memory for copies of such a tree in the background, so that the first save takes no longer."""
        self._join()
        plan = self._copy.plan(tree)  # not on the thread: the next step may take over the arrays
        self._preparing = threading.Thread(target=self._copy.prepare, args=(plan,), name="fcnn-prepare")
        self._preparing.start()

    def save(self, step: int, tree: Any, about: dict[str, Any]) -> None:
        """Copy a tree to the host and write it in the background.

        Args:
            step: the number of steps taken; not below those of the checkpoints in the folder.
            tree: arrays and numbers; they may be changed or donated once this returns.
            about: values that JSON can hold, and NumPy's numbers.

        Raises:
            CheckpointError: the folder has a later checkpoint, or an array is divided over several processes.
            TypeError: something in ``tree`` or ``about`` that cannot be stored.
        """
        self._join()
        self._tell()
        if self._read_only:
            raise CheckpointError(f"{self.folder} was opened for reading")
        step = integer(step, "step", minimum=0)
        text = json.dumps(about, default=_plain)
        newest = self.newest()
        if newest is not None and newest > step:
            raise CheckpointError(
                f"{self.folder} has a checkpoint of step {newest}, later than step {step}: another run's; "
                "resume that run, or give another folder"
            )
        self._failure = None
        try:
            snapshot = self._copy.take(tree)
        except Unsuitable as error:
            raise CheckpointError(f"no checkpoint of step {step}: {error}") from None
        except MemoryError:
            self._fail(step, "not enough memory for a copy")
            return
        self._thread = threading.Thread(target=self._write, args=(step, snapshot, text), name="fcnn-checkpoint")
        self._thread.start()

    def poll(self) -> bool:
        """Whether everything is written; warns of a failure of which no warning has been given."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self._join()
        self._tell()
        return True

    def newest(self) -> int | None:
        """The step of the newest checkpoint by name, whole or damaged; None if there is none."""
        found = self._found()
        return found[-1][0] if found else None

    def wait(self) -> Path | None:
        """Wait until everything is written, and return the newest checkpoint.

        Raises:
            CheckpointError: the last save failed.
        """
        self._join()
        failure, self._failure = self._failure, None  # raised once
        if failure is not None:
            self._unsaid = None
            raise CheckpointError(failure)
        self._tell()
        found = self._found()
        return found[-1][2] if found else None

    def latest(self, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """The newest whole checkpoint. Newer ones that are damaged are renamed, with a warning.

        Args:
            like: a tree of arrays or ``jax.ShapeDtypeStruct`` with the structure, shapes and dtypes of the saved tree.

        Returns:
            (step, tree, about), with NumPy arrays and JAX random keys in the tree; None if nothing was ever saved.

        Raises:
            CheckpointError: all are damaged, or the newest whole one belongs to another network or optimizer.
        """
        self._join()
        damaged: list[tuple[Path, str]] = []
        for _, _, path in reversed(self._found()):
            try:
                step = verify(path)
                tree, about = read(path, like)
            except Damaged as error:
                damaged.append((path, str(error)))
                continue
            except Unsuitable as error:
                raise CheckpointError(
                    f"checkpoint {path} does not fit: {error}. Continue with the network and optimizer that it was "
                    "saved with, or give another folder"
                ) from None
            except ImportError:
                raise
            except Exception as error:
                raise CheckpointError(f"checkpoint {path} is whole but cannot be read: {_reason(error)}") from error
            for bad, reason in damaged:
                now = self._set_aside(bad)
                kept = "" if now == bad else f" (kept as {now.name})"
                warnings.warn(
                    f"checkpoint {bad} is damaged: {reason}{kept}; the one before it, step {step}, is used",
                    CheckpointDamagedWarning,
                    stacklevel=2,
                )
            return step, tree, about
        if damaged:
            path, reason = damaged[0]
            others = f", and so are the {len(damaged) - 1} before it" if len(damaged) > 1 else ", and there is no other"
            raise CheckpointError(
                f"checkpoint {path} is damaged: {reason}{others}; the run cannot go on from here. "
                "Bring a copy of one back, or start again in another folder"
            )
        if self.folder.is_dir() and any(_DAMAGED.fullmatch(path.name) for path in self.folder.iterdir()):
            raise CheckpointError(
                f"{self.folder} holds damaged checkpoints only; bring a copy back, or start again in another folder"
            )
        return None

    def close(self, final: bool = False) -> None:
        """Wait until everything is written, and unlock the folder.

        Args:
            final: whether a failure of the last save is an error instead of a warning.

        Raises:
            CheckpointError: the last save failed, and ``final`` is set.
        """
        try:
            if final:
                self.wait()
            else:
                self._join()
                self._tell()
        finally:
            self._copy.close()
            if self._lock is not None:
                os.close(self._lock)  # which unlocks
                self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self.close(final=kind is None)

    def _found(self) -> list[tuple[int, int, Path]]:
        """(step, its number among those of the same step, path) of every checkpoint, oldest first."""
        if not self.folder.is_dir():
            return []
        names = ((_STEP.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(m[1]), int(m[2] or 1), path) for m, path in names if m and path.is_dir())

    def _write(self, step: int, snapshot: Snapshot, about: str) -> None:
        name = f"step_{step:08d}"
        again = [which for found, which, _ in self._found() if found == step]
        if again:
            name += f"_{max(again) + 1}"
        begun = self.folder / (_WRITING + name)
        try:
            shutil.rmtree(begun, ignore_errors=True)
            write(begun, step, snapshot, about)
            begun.rename(self.folder / name)
            sync(self.folder)
        except Exception as error:
            self._copy.forget()  # a failed write may still hold the arrays
            shutil.rmtree(begun, ignore_errors=True)
            self._fail(step, _reason(error))
            return
        try:
            for _, _, path in self._found()[: -self.keep]:
                gone = path.with_name(_DELETING + path.name)  # half deleted it would look damaged
                path.rename(gone)
                shutil.rmtree(gone)
        except OSError as error:
            self._unsaid = f"older checkpoints in {self.folder} could not be deleted: {_reason(error)}"

    def _fail(self, step: int, reason: str) -> None:
        found = self._found()
        still = f"the newest there is {found[-1][2].name}" if found else "there is none yet"
        self._failure = f"the checkpoint of step {step} could not be written to {self.folder}: {reason}; {still}"
        self._unsaid = f"{self._failure}. The run goes on"

    def _tell(self) -> None:
        unsaid, self._unsaid = self._unsaid, None
        if unsaid is not None:
            warnings.warn(unsaid, CheckpointFailedWarning, stacklevel=3)

    def _join(self) -> None:
        for thread in (self._preparing, self._thread):
            if thread is not None:
                thread.join()
        self._preparing = self._thread = None

    def _set_aside(self, path: Path) -> Path:
        if self._read_only:
            return path
        to, count = path.with_name(path.name + ".damaged"), 1
        while to.exists():
            count += 1
            to = path.with_name(f"{path.name}.damaged_{count}")
        try:
            return path.rename(to)
        except OSError:
            return path


def run_folder(given: str | os.PathLike[str]) -> Path:
    """The folder of a run, given the folder or its newest checkpoint, whose path an interrupted run prints.

    Raises:
        CheckpointError: the path of a checkpoint that is not the newest.
    """
    path = path_of(given, "folder")
    if not _STEP.fullmatch(path.name) or not (path / MANIFEST).is_file():
        return path
    found = [other for other in path.parent.iterdir() if _STEP.fullmatch(other.name) and (other / MANIFEST).is_file()]
    newest = max(found, key=_place)
    if newest != path:
        raise CheckpointError(
            f"{path} is a checkpoint, but a run continues from the newest, {newest.name}; give {path.parent}, or copy "
            "the earlier one into a folder of its own"
        )
    return path.parent


def _place(path: Path) -> tuple[int, int]:
    """The step of a checkpoint, and its number among those of the same step."""
    found = _STEP.fullmatch(path.name)
    return (int(found[1]), int(found[2] or 1)) if found else (-1, 0)


def _import_quietly() -> None:
    try:
        import_orbax()
    except Exception:
        return  # the first use raises it, on the main thread


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays in types of JSON."""
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        return np.asarray(value).tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"about holds a {type(value).__name__}, which JSON cannot store: {value!r}")


def _reason(error: BaseException) -> str:
    """What went wrong, in one line, however Orbax and its storage word it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
        if os.strerror(number) in text:
            return os.strerror(number)
    return (text.splitlines() or [type(error).__name__])[0][:300]
