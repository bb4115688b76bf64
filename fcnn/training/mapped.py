"""Arrays in files, of which only the examples of a batch are read."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

#: bytes of labels that are checked at once
_PIECE = 1 << 24
#: examples of a memory map that are read before its pages are released; the system may map 2 MiB around each
_TOGETHER = 8


def in_file(array: Any) -> bool:
    """Whether an array is a view of a file, or is read when it is indexed, as arrays of h5py and zarr are."""
    return lazy(array) or _map_of(array) is not None


def lazy(array: Any) -> bool:
    """Whether an array is read when it is indexed: it has NumPy's shape, dtype and indexing, but is not in memory.

    Arrays of other libraries in memory have ``__array_interface__`` or DLPack, and tables of pandas their own indexing.
    """
    if isinstance(array, (np.ndarray, np.generic, jax.Array)):
        return False
    return (
        isinstance(getattr(array, "dtype", None), np.dtype)
        and isinstance(getattr(array, "shape", None), tuple)
        and hasattr(array, "__getitem__")
        and not any(hasattr(array, name) for name in ("__array_interface__", "__dlpack__", "iloc", "aval"))
    )


def read(array: Any, chosen: Any) -> Any:
    """Some examples of an array, by a slice or by indices; from a file, a copy.

    Files are read in increasing order, which h5py requires and disks are fast at. The pages of a memory map that were
    read count as memory of this process until they are released.
    """
    if not in_file(array):
        return array[chosen]
    if isinstance(chosen, slice):
        found = np.array(array[chosen])
    else:
        places = np.asarray(chosen)
        order = np.argsort(places, kind="stable")
        if lazy(array):
            unique, back = np.unique(places[order], return_inverse=True)
            part = np.asarray(getattr(array, "oindex", array)[unique])[back]
        else:
            return _gathered(array, places, order)
        found = np.empty_like(part)
        found[order] = part
    release(array)
    return found


def _gathered(array: np.ndarray, places: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Examples of a memory map, read in the order of the file; pages are released after a few examples."""
    plain = np.asarray(array)
    found = np.empty((len(places), *array.shape[1:]), array.dtype)
    for first in range(0, len(order), _TOGETHER):
        some = order[first : first + _TOGETHER]
        found[some] = plain[places[some]]
        release(array)
    return found


def pieces(array: Any) -> Iterator[np.ndarray]:
    """An array on the host; in parts, one after another, if it is in a file."""
    if not in_file(array):
        yield np.asarray(array)
        return
    rows = max(1, _PIECE * len(array) // max(1, int(np.prod(array.shape)) * array.dtype.itemsize))
    for first in range(0, len(array), rows):
        yield read(array, slice(first, first + rows))


def release(array: Any) -> None:
    """Release the pages of a memory map; they stay in the system's cache, and changes stay in the file."""
    found = _map_of(array)
    if found is None or not hasattr(found[0], "madvise"):
        return
    if found[1] != "c":  # changes in a private copy would be lost
        with contextlib.suppress(ValueError, OSError):
            found[0].madvise(mmap.MADV_DONTNEED)


def _map_of(array: Any) -> tuple[mmap.mmap, str | None] | None:
    """The memory map that an array is a view of, and the mode it was opened in."""
    mode = "c"  # an unknown mode: release nothing
    while isinstance(array, (np.ndarray, memoryview)):
        mode = getattr(array, "mode", None) or mode
        array = array.base if isinstance(array, np.ndarray) else array.obj
    return (array, mode) if isinstance(array, mmap.mmap) else None
