"""Files of data sets: found in a folder, or downloaded into a cache; checked by SHA-256 either way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

#: seconds to wait for a mirror before trying the next
TIMEOUT = 20.0


class DataNotFoundError(FileNotFoundError):
    """A data set is neither on disk nor to be had from the network."""


class DataDamagedError(ValueError):
    """A file of a data set is not what it should be."""


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/fcnn``, by default ``~/.cache/fcnn``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fcnn"


def locate(name: str, checksums: Mapping[str, str], mirrors: Sequence[str]) -> dict[str, Path]:
    """Find the files of a data set.

    Looked for, in this order: the folder ``name`` in the one that the environment variable FCNN_DATA names,
    that folder itself, and the cache. What is missing there is downloaded into the cache: to a temporary file,
    which takes its name only after its checksum was right.

    Args:
        name: name of the data set, and of its folder.
        checksums: SHA-256 of every file, by file name.
        mirrors: addresses to which a file name is appended.

    Returns:
        The path of every file.

    Raises:
        DataNotFoundError: a file is not there and no mirror answered.
        DataDamagedError: a file has another checksum.
    """
    given = os.environ.get("FCNN_DATA")
    folders = [Path(given) / name, Path(given)] if given else []
    folders.append(cache_folder() / name)
    found = {}
    for file, checksum in checksums.items():
        path = next((folder / file for folder in folders if (folder / file).is_file()), None)
        if path is None:
            path = _download(name, file, checksum, mirrors, checksums)
        else:
            check(path, checksum)
        found[file] = path
    return found


def check(path: Path, checksum: str) -> None:
    """Raise unless a file has the SHA-256 that it should have.

    Raises:
        DataDamagedError: it has not.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != checksum:
        raise DataDamagedError(
            f"{path} is damaged or another file: its SHA-256 is {digest}, expected {checksum} "
            f"({path.stat().st_size:,} bytes); delete it and fetch it again"
        )


def _download(name: str, file: str, checksum: str, mirrors: Sequence[str], checksums: Mapping[str, str]) -> Path:
    folder = cache_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    for mirror in mirrors:
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{file}.")
        path = Path(temporary)
        try:
            with os.fdopen(handle, "wb") as out, urllib.request.urlopen(mirror + file, timeout=TIMEOUT) as source:
                while block := source.read(1 << 20):
                    out.write(block)
            check(path, checksum)
            os.replace(path, folder / file)
            return folder / file
        except (urllib.error.URLError, OSError, DataDamagedError):
            continue
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    wanted = ", ".join(checksums)
    raise DataNotFoundError(
        f"the data set {name} was not found and no mirror could be reached: put {wanted} into a folder {name!r}, "
        f"and set the environment variable FCNN_DATA to the folder that holds it, or put them into {folder}"
    )
