"""Arrays, lists and strings from a pickle, without running any code that the pickle names.

A pickle is a program: it may name any function, and :func:`pickle.load` calls it. Here the few names that arrays need
are mapped to the classes below, which only store their arguments. Every other name is rejected.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np


class _Name:
    """Replaces ``numpy.ndarray`` where a pickle names the class of an array; does nothing."""

    def __init__(self, *arguments: Any) -> None:
        raise pickle.UnpicklingError("a class is called that stands for itself alone")


class _Type:
    """Replaces ``numpy.dtype``."""

    def __init__(self, code: Any = b"", *flags: Any) -> None:
        self.code = code if isinstance(code, bytes) else str(code).encode()

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and similar settings, which do not matter for bytes."""


class _Array:
    """Replaces the result of ``numpy.core.multiarray._reconstruct``: an empty array, filled later."""

    def __init__(self, *arguments: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, fortran, raw = state
        if not isinstance(kind, _Type) or kind.code != b"u1" or not isinstance(raw, bytes):
            raise pickle.UnpicklingError("only arrays of bytes are read")
        if len(raw) != math.prod(shape):
            raise pickle.UnpicklingError(f"an array of shape {shape} holds {len(raw):,} bytes")
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Encoded:
    """Replaces ``_codecs.encode``, with which Python 3 writes bytes into pickles that Python 2 can read."""

    def __new__(cls, text: Any, coding: Any) -> Any:
        if not isinstance(text, str) or coding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError(f"bytes in the coding {coding!r}")
        return text.encode("latin1")


_STANDS_FOR = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Name,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Encoded,
}


# the unpickler in Python, not the one in C: a damaged file can make the latter allocate a memo of many gigabytes
class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STANDS_FOR[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which arrays do not need") from None


def plain_dict(raw: bytes) -> dict[str, Any]:
    """Read a pickled dict of byte arrays, lists, numbers and strings.

    Args:
        raw: the pickle, from Python 2 or 3.

    Returns:
        The dict, with strings as keys and uint8 arrays.

    Raises:
        pickle.UnpicklingError: the pickle is truncated, not a dict, or names anything else; none of it was run.

    Example:
        >>> plain_dict(pickle.dumps({"data": np.array([[1, 2]], np.uint8), "labels": [7]}, protocol=2))
        {'data': array([[1, 2]], dtype=uint8), 'labels': [7]}
    """
    try:
        found = _Unpickler(io.BytesIO(raw), encoding="bytes").load()
        if not isinstance(found, dict):
            raise pickle.UnpicklingError(f"it holds no dict but a {type(found).__name__}")
        return {
            key.decode() if isinstance(key, bytes) else str(key): value.value if isinstance(value, _Array) else value
            for key, value in found.items()
        }
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
