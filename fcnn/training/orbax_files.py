"""Arrays in files, written and read by Orbax, whose log messages are suppressed meanwhile."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

#: what Orbax and its storage read as a pattern, or as a separator of folders
_SPECIAL = re.compile(r"[\[\]\\*?{}]")


def check_orbax() -> None:
    """Raise ImportError, naming the extra, if Orbax is not installed; does not import it."""
    try:
        found = importlib.util.find_spec("orbax.checkpoint")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ImportError("checkpoints need orbax-checkpoint; install it with pip install 'fcnn[training]'")


def import_orbax() -> None:
    """Import Orbax in advance, which can take seconds."""
    with _orbax():
        pass


def save_arrays(folder: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as ``name`` in a folder; raises the first error of any of them."""
    failures: list[Exception] = []
    with _orbax() as ocp, _checkpointer(ocp, failures) as checkpointer:
        try:
            with _plainly(folder) as plain:
                checkpointer.save(plain / name, args=ocp.args.PyTreeSave(arrays))
        except Exception as error:
            failures.append(error)
        if failures:
            raise failures[0]


def load_arrays(folder: Path, name: str) -> dict[str, Any]:
    """Read arrays that :func:`save_arrays` wrote."""
    with _orbax() as ocp, _checkpointer(ocp, []) as checkpointer, _plainly(folder) as plain:
        return checkpointer.restore(plain / name)


@contextmanager
def _orbax() -> Iterator[Any]:
    """Orbax, with its log messages suppressed."""
    with _QUIET:
        import orbax.checkpoint

        yield orbax.checkpoint


@contextmanager
def _plainly(folder: Path) -> Iterator[Path]:
    """The folder under a path without characters that Orbax reads as patterns or separators."""
    folder = folder.absolute()
    if not _SPECIAL.search(folder.as_posix()):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="fcnn-") as place:
        link = Path(place) / "checkpoint"
        try:
            link.symlink_to(folder, target_is_directory=True)
        except (OSError, NotImplementedError):  # on Windows links need a privilege
            yield folder
        else:
            yield link


def _checkpointer(ocp: Any, failures: list[Exception]) -> Any:
    """A checkpointer of Orbax.

    This process writes on its own, without a barrier. There is no compression, which takes cores and hardly shrinks
    weights. Arrays are not copied again before they are written, because a snapshot is a copy. Errors of single arrays
    are appended to ``failures``.
    """

    class Patient(ocp.type_handlers.NumpyHandler):
        async def _open_and_write(self, *args: Any, **kwargs: Any) -> None:
            # Orbax would stop at the first failure and close the event loop that the other writes report to
            try:
                await super()._open_and_write(*args, **kwargs)
            except Exception as error:
                failures.append(error)

    alone = ocp.options.MultiprocessingOptions(primary_host=jax.process_index(), active_processes={jax.process_index()})
    handler = ocp.PyTreeCheckpointHandler(
        use_ocdbt=True,
        use_zarr3=True,
        use_compression=False,
        multiprocessing_options=alone,
        type_handler_registry=ocp.type_handlers.create_type_handler_registry(
            (np.ndarray, Patient(deepcopy_host_arrays=False))
        ),
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


class _Quiet(logging.Filter):
    """Suppresses Orbax's log messages while fcnn uses it; fcnn reports failures itself.

    Orbax logs through absl, which adds a handler to the root logger if it has none. A stand-in prevents that: it does
    what Python does without handlers, which is to print warnings to stderr.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._users = 0
        self._stand_in: logging.Handler | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    def __enter__(self) -> None:
        import absl.logging  # a dependency of Orbax; importing it creates its logger

        with self._lock:
            self._users += 1
            if self._users == 1:
                absl.logging.get_absl_logger().addFilter(self)
                if not logging.root.handlers and logging.lastResort is not None:
                    self._stand_in = logging.lastResort
                    logging.root.addHandler(self._stand_in)

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                logging.getLogger("absl").removeFilter(self)
                if self._stand_in is not None:
                    logging.root.removeHandler(self._stand_in)
                    self._stand_in = None


_QUIET = _Quiet()
