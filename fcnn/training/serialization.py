"""One checkpoint: a tree of arrays, copied to the host, as a folder of files that vouch for each other.

A folder holds ``arrays`` (written by Orbax), ``leaves.json`` (what is where), ``about.json`` (what the run wants to
remember) and, written last, ``manifest.json`` with size and SHA-256 of every other file.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..errors import shown

FORMAT = 1
ARRAYS, LEAVES, ABOUT, MANIFEST = "arrays", "leaves.json", "about.json", "manifest.json"

#: what Orbax and its storage read as a pattern, or as a separator of folders
_SPECIAL = re.compile(r"[\[\]\\*?{}]")

#: arrays of fewer bytes are copied at once; handing them to a thread would take longer
_WORTH_A_THREAD = 1 << 18


class Damaged(Exception):
    """A checkpoint that is not what was written; the text says which file, and what about it."""


class Unsuitable(Exception):
    """A whole checkpoint of something else; the text says which leaves differ."""


@dataclass(frozen=True)
class Leaf:
    """One array of a tree: its path, as JAX and as people write it, its name among the stored arrays, its kind."""

    path: str
    shown: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    key_impl: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """A tree on the host: what the leaves are, and the arrays by name, which no later step can change."""

    leaves: tuple[Leaf, ...]
    arrays: dict[str, np.ndarray]


# --- from the device to the host ---------------------------------------------------------------------------------


class HostCopy:
    """Copies trees to the host, each into the memory of the one before.

    Fresh memory costs several times as much as the copy: the system has to hand out every page. So whoever takes
    a second snapshot must be done with the first, or call :meth:`forget`.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "fcnn-copy")

    def plan(self, tree: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and types of the copies that such a tree needs."""
        leaves = zip(_described(tree), jax.tree_util.tree_leaves(tree), strict=True)
        return {leaf.name: (value.shape, value.dtype) for leaf, value in leaves if _on_host(value)}

    def prepare(self, plan: dict[str, tuple[tuple[int, ...], Any]]) -> None:
        """Make the memory for copies before the first one is due."""
        buffers = {name: np.empty(shape, dtype) for name, (shape, dtype) in plan.items()}
        for buffer in buffers.values():
            buffer.fill(0)  # touches every page
        self._buffers = buffers

    def take(self, tree: Any) -> Snapshot:
        """A snapshot of a tree whose arrays may be changed or donated as soon as this returns."""
        leaves = _described(tree)
        values = [_local(leaf, value) for leaf, value in zip(leaves, jax.tree_util.tree_leaves(tree), strict=True)]
        for value in values:
            if isinstance(value, jax.Array):
                value.copy_to_host_async()  # all transfers at once, not one after the other; on the CPU nothing
        arrays, copies = {}, []
        for leaf, value in zip(leaves, values, strict=True):
            seen = np.asarray(value)
            if isinstance(value, np.ndarray) or not seen.flags.owndata:  # a view of memory that others may change
                buffer = self._buffers.get(leaf.name)
                if buffer is None or (buffer.shape, buffer.dtype) != (seen.shape, seen.dtype):
                    buffer = np.empty(seen.shape, seen.dtype)
                if seen.nbytes < _WORTH_A_THREAD:
                    np.copyto(buffer, seen)
                else:
                    copies.append(self._pool.submit(np.copyto, buffer, seen))
                seen = buffer
            arrays[leaf.name] = seen
        for copy in copies:
            copy.result()
        self._buffers = {name: array for name, array in arrays.items() if array.flags.writeable}
        return Snapshot(leaves, arrays)

    def forget(self) -> None:
        """Leave the memory of the last snapshot to whoever still holds it."""
        self._buffers = {}

    def close(self) -> None:
        """Give memory and threads back."""
        self.forget()
        self._pool.shutdown()


def _on_host(value: Any) -> bool:
    """Whether NumPy sees the value where it is; arrays on accelerators arrive as copies."""
    if not isinstance(value, jax.Array):
        return isinstance(value, np.ndarray)
    if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        return False
    return all(device.platform == "cpu" for device in value.devices())


def _local(leaf: Leaf, value: Any) -> Any:
    """The value as an array of this process alone, keys as their numbers."""
    if not isinstance(value, jax.Array):
        return value if isinstance(value, np.ndarray) else np.asarray(value)
    if value.is_fully_replicated:
        value = value.addressable_data(0)
    elif not value.is_fully_addressable:
        raise Unsuitable(f"{leaf.shown} is spread over several processes; only arrays that each process holds whole")
    return value if leaf.key_impl is None else np.array(jax.random.key_data(value))


def _described(tree: Any) -> tuple[Leaf, ...]:
    """What the leaves of a tree are, without looking at their values."""
    leaves, taken = [], set()
    for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
        readable = jax.tree_util.keystr(path, simple=True, separator="/") or "value"
        if isinstance(value, (bool, int, float, complex)):
            value = np.asarray(value)
        if not hasattr(value, "shape") or not hasattr(value, "dtype") or _foreign(value.dtype):
            raise TypeError(f"{readable} is a {type(value).__name__}; a checkpoint holds arrays and numbers only")
        impl = None
        if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
            impl = str(jax.random.key_impl(value)) if isinstance(value, jax.Array) else ""
        stem = name = re.sub(r"[^A-Za-z0-9_.-]", "_", readable.replace("/", "."))
        count = 1
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name)
        leaves.append(Leaf(jax.tree_util.keystr(path), readable, name, tuple(value.shape), str(value.dtype), impl))
    return tuple(leaves)


def _foreign(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and (dtype.kind in "OSUMm" or dtype.fields is not None)


# --- to files ----------------------------------------------------------------------------------------------------


def write(folder: Path, step: int, snapshot: Snapshot, about: str) -> None:
    """Write a checkpoint into a new folder, the manifest last, and leave nothing to the system's memory."""
    folder.mkdir()
    arrays = {name: _storable(array) for name, array in snapshot.arrays.items() if array.size}
    if arrays:
        free, needed = shutil.disk_usage(folder).free, sum(array.nbytes for array in arrays.values())
        if free < needed:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({needed:,} bytes needed, {free:,} free)")
        failures: list[Exception] = []
        with _orbax() as ocp, _checkpointer(ocp, failures) as checkpointer:
            try:
                with _plainly(folder) as plain:
                    checkpointer.save(plain / ARRAYS, args=ocp.args.PyTreeSave(arrays))
            except Exception as error:
                failures.append(error)
            if failures:
                raise failures[0]
    (folder / LEAVES).write_text(json.dumps([asdict(leaf) for leaf in snapshot.leaves], indent=1))
    (folder / ABOUT).write_text(about)
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest, size = _digest(path)
        files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
        sync(path)
    body = {"format": FORMAT, "step": step, "files": files}
    (folder / MANIFEST).write_text(json.dumps({"manifest": body, "sha256": _own_digest(body)}, indent=1))
    sync(folder / MANIFEST)
    for path in [p for p in folder.rglob("*") if p.is_dir()]:
        sync(path)
    sync(folder)


def verify(folder: Path) -> int:
    """The step of a whole checkpoint.

    Raises:
        Damaged: which file is missing, cut short or changed.
    """
    try:
        stored = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise Damaged(f"{MANIFEST} is missing") from None
    except OSError as error:
        raise Damaged(f"{MANIFEST} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise Damaged(f"{MANIFEST} is not JSON") from None
    body = stored.get("manifest") if isinstance(stored, dict) else None
    if not isinstance(body, dict) or stored.get("sha256") != _own_digest(body):
        raise Damaged(f"{MANIFEST} does not have its SHA-256")
    if body["format"] != FORMAT:
        raise Unsuitable(f"it has format {body['format']}, this version of fcnn reads format {FORMAT}")
    for name, expected in body["files"].items():
        try:
            if (size := (folder / name).stat().st_size) != expected["bytes"]:
                raise Damaged(f"{name} has {size} bytes of {expected['bytes']}")
            if _digest(folder / name)[0] != expected["sha256"]:
                raise Damaged(f"{name} does not have its SHA-256")
        except FileNotFoundError:
            raise Damaged(f"{name} is missing") from None
        except OSError as error:
            raise Damaged(f"{name} cannot be read: {error.strerror}") from None
    return body["step"]


def read(folder: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """The tree and what was said about it, from a folder that :func:`verify` found whole.

    Raises:
        Unsuitable: its leaves are not those of ``like``.
    """
    about = json.loads((folder / ABOUT).read_text())
    stored = [Leaf(**{**leaf, "shape": tuple(leaf["shape"])}) for leaf in json.loads((folder / LEAVES).read_text())]
    there, here = {leaf.path: leaf for leaf in stored}, {leaf.path: leaf for leaf in _described(like)}
    _compare(there, here)
    arrays: dict[str, Any] = {}
    if (folder / ARRAYS).exists():
        with _orbax() as ocp, _checkpointer(ocp, []) as checkpointer, _plainly(folder) as plain:
            arrays = checkpointer.restore(plain / ARRAYS)
    values = []
    for path, wanted in zip(here, jax.tree_util.tree_leaves(like), strict=True):
        leaf = there[path]
        if leaf.key_impl is not None:
            data = np.asarray(arrays[leaf.name]) if leaf.name in arrays else _no_keys(leaf)
            values.append(jax.random.wrap_key_data(jax.numpy.asarray(data), impl=leaf.key_impl))
            continue
        dtype = jax.numpy.dtype(leaf.dtype)
        value = np.asarray(arrays[leaf.name]) if leaf.name in arrays else np.zeros(leaf.shape, dtype)
        if value.dtype != dtype:
            value = np.frombuffer(value.tobytes(), dtype).reshape(leaf.shape).copy()
        values.append(type(wanted)(value.item()) if isinstance(wanted, (bool, int, float, complex)) else value)
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(like), values), about


def _no_keys(leaf: Leaf) -> np.ndarray:
    return np.zeros((*leaf.shape, *jax.random.key_data(jax.random.key(0, impl=leaf.key_impl)).shape), np.uint32)


def _compare(there: dict[str, Leaf], here: dict[str, Leaf]) -> None:
    found = []
    for path in [*here, *(path for path in there if path not in here)]:
        stored, wanted = there.get(path), here.get(path)
        if stored is None or wanted is None:
            leaf = stored or wanted
            kind = "" if leaf is None else f"{leaf.shown} {shown(leaf.shape)} {leaf.dtype}"
            found.append(f"{kind} is {'not in it' if stored is None else 'in it, but not here'}")
        elif (stored.shape, stored.dtype) != (wanted.shape, wanted.dtype):
            kinds = [f"{shown(leaf.shape)} {leaf.dtype}" for leaf in (stored, wanted)]
            found.append(f"{stored.shown} is {kinds[0]} in it and {kinds[1]} here")
    if found:
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise Unsuitable("; ".join(found[:5]) + more)


def _storable(array: np.ndarray) -> np.ndarray:
    """The array itself where Orbax can store its type; its bytes where not (4-bit integers and the like)."""
    native = array.dtype.char in "?bhilqBHILQefdFD" or array.dtype.name == "bfloat16"
    return array if native else np.frombuffer(array.tobytes(), np.uint8)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


def _own_digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle for this
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- Orbax -------------------------------------------------------------------------------------------------------


def check_orbax() -> None:
    """Raise ImportError, naming the extra, where Orbax is not installed; takes no time."""
    try:
        found = importlib.util.find_spec("orbax.checkpoint")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ImportError("checkpoints need orbax-checkpoint; install it with pip install 'fcnn[training]'")


def import_orbax() -> None:
    """Import Orbax, which takes up to seconds; later uses find it there."""
    with _orbax():
        pass


@contextmanager
def _orbax() -> Iterator[Any]:
    """Orbax, quiet while it is used."""
    with _QUIET:
        import orbax.checkpoint

        yield orbax.checkpoint


@contextmanager
def _plainly(folder: Path) -> Iterator[Path]:
    """The folder under a path without characters that Orbax takes for patterns or separators."""
    folder = folder.absolute()
    if not _SPECIAL.search(folder.as_posix()):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="fcnn-") as place:
        link = Path(place) / "checkpoint"
        try:
            link.symlink_to(folder, target_is_directory=True)
        except (OSError, NotImplementedError):  # such as on Windows, where not everybody may
            yield folder
        else:
            yield link


def _checkpointer(ocp: Any, failures: list[Exception]) -> Any:
    """What Orbax is asked for.

    Process 0 writes alone: no barrier with the others. No compression: weights barely shrink, and it takes cores.
    Arrays are not copied again before they are written: a snapshot is a copy already. What goes wrong with single
    arrays is added to ``failures``.
    """

    class Patient(ocp.type_handlers.NumpyHandler):
        async def _open_and_write(self, *args: Any, **kwargs: Any) -> None:
            # Orbax would give up at the first failure and close the event loop that the other writes report to
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
    """Keeps Orbax's log to itself while fcnn uses Orbax; failures reach the user in fcnn's words.

    Orbax logs through absl, which gives the root logger a handler of its own where there is none. A stand-in that
    does what Python does without handlers, warnings to stderr, keeps absl from it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._users = 0
        self._stand_in: logging.Handler | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    def __enter__(self) -> None:
        import absl.logging  # comes with Orbax, and has to make its logger itself

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
