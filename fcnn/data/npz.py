"""Arrays from a NumPy archive, and nothing but arrays."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from .files import DataDamagedError, check


def read_npz(path: Path, checksum: str, *names: str) -> tuple[np.ndarray, ...]:
    """Read arrays from an .npz file; pickled objects in it are refused.

    Args:
        path: the file.
        checksum: its SHA-256.
        names: the arrays wanted.

    Returns:
        The arrays, in the order of ``names``.

    Raises:
        DataDamagedError: the checksum is wrong, the file is not an archive, or an array is missing or pickled.
    """
    check(path, checksum)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return tuple(archive[name] for name in names)
    except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        # for a .npy file np.load returns an array, which is not a context manager: TypeError
        raise DataDamagedError(f"{path} is not the archive of {', '.join(names)} that it should be ({error})") from None
