"""Files of data sets: found in a folder or downloaded into a cache, and verified by their checksums."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..paths import path_of

#: seconds to wait for a mirror before trying the next
TIMEOUT = 20.0


class DataNotFoundError(FileNotFoundError):
    """A data set is not on disk and cannot be downloaded."""


class DataDamagedError(ValueError):
    """A file of a data set has wrong content."""


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/fcnn``, by default ``~/.cache/fcnn``."""
    return path_of(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "XDG_CACHE_HOME") / "fcnn"


def places(*names: str) -> Iterator[Path]:
    """The folders that are searched for a data set, in order.

    These are the data set's folders inside the folder named by the environment variable FCNN_DATA, that folder itself,
    and the folder with the data set's (first) name in the cache.

    Args:
        names: names of the data set's folder.
    """
    if given := os.environ.get("FCNN_DATA"):
        own = path_of(given, "FCNN_DATA")
        yield from (own / name for name in names)
        yield own
    yield cache_folder() / names[0]


def find(file: str, *names: str) -> Path | None:
    """The first file or folder called ``file`` in the :func:`places` of a data set; None if there is none.

    Args:
        file: name of the file or folder.
        names: names of the data set's folder.
    """
    return next((place / file for place in places(*names) if (place / file).exists()), None)


def locate(name: str, checksums: Mapping[str, str], mirrors: Sequence[str]) -> dict[str, Path]:
    """Find the files of a data set.

    Files missing from its :func:`places` are downloaded into the cache, to a temporary file that is renamed only after
    its checksum has been verified.

    Args:
        name: name of the data set, and of its folder.
        checksums: SHA-256 of every file, by file name.
        mirrors: addresses to which a file name is appended.

    Returns:
        The path of every file.

    Raises:
        DataNotFoundError: a file is missing and could not be downloaded from any mirror.
        DataDamagedError: a file has a wrong checksum.
    """
    return {file: _locate(name, file, checksum, mirrors, checksums) for file, checksum in checksums.items()}


def _locate(name: str, file: str, checksum: str, mirrors: Sequence[str], checksums: Mapping[str, str]) -> Path:
    doubtful = None
    given = os.environ.get("FCNN_DATA")
    for place in places(name):
        path = place / file
        if not path.is_file():
            continue
        try:
            check(path, checksum)
        except DataDamagedError as error:
            # data sets share file names: a file in FCNN_DATA itself may belong to another set
            if not given or place != path_of(given, "FCNN_DATA"):
                raise
            doubtful = error
        else:
            return path
    try:
        return _download(name, file, checksum, mirrors, checksums)
    except DataNotFoundError:
        if doubtful is not None:
            raise doubtful from None
        raise


def check(path: Path, checksum: str, algorithm: str = "sha256") -> None:
    """Raise unless a file has the expected checksum.

    Args:
        path: the file.
        checksum: the expected checksum in hexadecimal digits.
        algorithm: "sha256" or, where nothing better is published, "md5".

    Raises:
        DataDamagedError: the checksum differs.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if digest != checksum:
        named = {"sha256": "SHA-256", "md5": "MD5"}[algorithm]
        raise DataDamagedError(
            f"{path} is damaged or another file: its {named} is {digest}, expected {checksum} "
            f"({path.stat().st_size:,} bytes); delete it and fetch it again"
        )


def not_found(name: str, wanted: str, reasons: Sequence[str] = ()) -> DataNotFoundError:
    """The error that says which files to put where.

    Args:
        name: name of the data set, and of its folder.
        wanted: the files that are needed, in words.
        reasons: why each mirror failed; empty for a set that is not downloaded.
    """
    tried = f"no mirror could be reached ({'; '.join(reasons)})" if reasons else "it is not downloaded automatically"
    return DataNotFoundError(
        f"the data set {name} was not found and {tried}: put {wanted} into a folder {name!r}, "
        "and set the environment variable FCNN_DATA to the folder that holds that one, or put it into "
        f"{cache_folder() / name}"
    )


def _download(name: str, file: str, checksum: str, mirrors: Sequence[str], checksums: Mapping[str, str]) -> Path:
    folder = cache_folder() / name
    reasons = []
    for mirror in mirrors:
        path = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{file}.")
            path = Path(temporary)
            with os.fdopen(handle, "wb") as out, urllib.request.urlopen(mirror + file, timeout=TIMEOUT) as source:
                while block := source.read(1 << 20):
                    out.write(block)
            check(path, checksum)
            os.replace(path, folder / file)
            return folder / file
        except (OSError, http.client.HTTPException, DataDamagedError) as error:  # URLError is an OSError
            kind = "another checksum" if isinstance(error, DataDamagedError) else str(error) or type(error).__name__
            reasons.append(f"{mirror}: {kind}".replace("\n", " "))
        finally:
            if path is not None:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
    raise not_found(name, ", ".join(checksums), reasons)
