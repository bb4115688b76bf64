"""Arrays that stay in their files: of a batch only its examples are read."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

#: bytes of labels that are looked at together
_PIECE = 1 << 24
#: examples of a map that are read before its pages are let go; the system may map 2 MiB around each of them
_TOGETHER = 8


def in_file(array: Any) -> bool:
    """Whether an array is a view of a file, or reads from one when it is indexed, as those of h5py and zarr do."""
    return lazy(array) or _map_of(array) is not None


def lazy(array: Any) -> bool:
    """Whether an array is none of NumPy's, but has its shape, its dtype and its indices, and reads when it is indexed.

    Arrays of other libraries that lie in memory say so by ``__array_interface__`` or DLPack, and a table of pandas has
    indices of its own.
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
    """Some of the examples of an array, by a slice or by places; of one in a file a copy.

    Files are read in their order, which h5py asks for and every disk likes. What was read of a map counts as this
    process's memory until it is let go.
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
    """Examples of a map, in the order of the file, and let go a few at a time."""
    plain = np.asarray(array)
    found = np.empty((len(places), *array.shape[1:]), array.dtype)
    for first in range(0, len(order), _TOGETHER):
        some = order[first : first + _TOGETHER]
        found[some] = plain[places[some]]
        release(array)
    return found


def pieces(array: Any) -> Iterator[np.ndarray]:
    """An array on the host, one after another in parts where it lies in a file."""
    if not in_file(array):
        yield np.asarray(array)
        return
    rows = max(1, _PIECE * len(array) // max(1, int(np.prod(array.shape)) * array.dtype.itemsize))
    for first in range(0, len(array), rows):
        yield read(array, slice(first, first + rows))


def release(array: Any) -> None:
    """Let go of the pages of a map that were read; they stay in the system's cache, and changes in the file."""
    found = _map_of(array)
    if found is None or not hasattr(found[0], "madvise"):
        return
    if found[1] != "c":  # a private copy of what was changed would be lost
        with contextlib.suppress(ValueError, OSError):
            found[0].madvise(mmap.MADV_DONTNEED)


def _map_of(array: Any) -> tuple[mmap.mmap, str | None] | None:
    """The map of a file that an array is a view of, and the mode it was opened in."""
    mode = "c"  # where nobody says, nothing is let go
    while isinstance(array, (np.ndarray, memoryview)):
        mode = getattr(array, "mode", None) or mode
        array = array.base if isinstance(array, np.ndarray) else array.obj
    return (array, mode) if isinstance(array, mmap.mmap) else None
