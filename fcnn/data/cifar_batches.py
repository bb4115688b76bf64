"""The six batches of CIFAR-10 in its two official layouts, from an archive or a folder.

Both store an image as 3,072 bytes: 1,024 of red, then green, then blue, each row by row. In the binary layout each
image is preceded by its label, one byte; in the Python layout a batch is a pickled dict of "data" and "labels".
"""

from __future__ import annotations

import gzip
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from .files import DataDamagedError
from .unpickle import plain_dict

#: images in each of the six batches
IMAGES = 10_000

#: the files of one layout, the test batch last
PYTHON = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
BINARY = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")

Part = tuple[np.ndarray, np.ndarray]


def read_batches(path: Path, folder: str) -> tuple[Part, Part]:
    """Read the batches of CIFAR-10 from an archive, in memory, or from the folder unpacked from it.

    Args:
        path: the archive (.tar.gz) or the folder.
        folder: the folder's name in the archive, which determines the layout: "cifar-10-batches-py" or "...-bin".

    Shapes:
        images (50000, 32, 32, 3) and (10000, 32, 32, 3), labels (50000,) and (10000,), all uint8.

    Returns:
        ((training images, labels), (test images, labels)).

    Raises:
        DataDamagedError: a batch is missing, truncated, or in another layout.
    """
    names, read = (PYTHON, python_batch) if folder.endswith("-py") else (BINARY, binary_batch)
    content = _from_folder(path, names) if path.is_dir() else _from_archive(path, folder, names)
    parts = [_checked(read, content[name], f"{name} of {path}") for name in names]
    (*train, test) = parts
    return (np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train])), test


def python_batch(raw: bytes) -> Part:
    """Images and labels of a batch in the Python layout; no code named in the pickle is run.

    Raises:
        ValueError: the bytes are not such a batch.
    """
    try:
        batch = plain_dict(raw)
    except pickle.UnpicklingError as error:
        raise ValueError(f"not a pickle of arrays and lists alone: {error}") from None
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3072:
        raise ValueError('"data" is not an array of bytes of the shape (images, 3072)')
    if not isinstance(labels, list) or not all(isinstance(label, int) and 0 <= label <= 9 for label in labels):
        raise ValueError('"labels" is not a list of numbers from 0 to 9')
    if len(labels) != len(data):
        raise ValueError(f"it holds {len(data):,} images and {len(labels):,} labels")
    return _images(data), np.array(labels, np.uint8)


def binary_batch(raw: bytes) -> Part:
    """Images and labels of a batch in the binary layout.

    Raises:
        ValueError: the bytes are not such a batch.

    Example:
        >>> image, label = binary_batch(bytes([7]) + bytes([1]) * 1024 + bytes([2]) * 1024 + bytes([3]) * 1024)
        >>> image[0, 0, 0].tolist(), label.tolist()
        ([1, 2, 3], [7])
    """
    if len(raw) % 3073:
        raise ValueError(f"{len(raw):,} bytes are no multiple of 3,073, one label and 3,072 pixels")
    rows = np.frombuffer(raw, np.uint8).reshape(-1, 3073)
    if len(rows) and rows[:, 0].max() > 9:
        raise ValueError(f"a label is {rows[:, 0].max()}, they go from 0 to 9")
    return _images(rows[:, 1:]), rows[:, 0].copy()


def _images(planes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _checked(read: Callable[[bytes], Part], raw: bytes, where: str) -> Part:
    try:
        images, labels = read(raw)
    except ValueError as error:
        raise DataDamagedError(f"{where} is damaged: {error}") from None
    if len(images) != IMAGES:
        raise DataDamagedError(f"{where} is damaged: it holds {len(images):,} images, expected {IMAGES:,}")
    return images, labels


def _from_folder(folder: Path, names: tuple[str, ...]) -> Mapping[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in names}
    except OSError as error:
        raise DataDamagedError(f"{folder} lacks a batch that can be read: {error}") from None


def _from_archive(path: Path, folder: str, names: tuple[str, ...]) -> Mapping[str, bytes]:
    wanted = {f"{folder}/{name}": name for name in names}
    content = {}
    try:
        with gzip.open(path) as whole, tarfile.open(fileobj=whole, mode="r:") as archive:
            for member in archive:
                # plain files only: a link could lead anywhere
                if member.isfile() and (name := wanted.get(member.name.removeprefix("./"))):
                    source = archive.extractfile(member)
                    content[name] = source.read() if source else b""
            while whole.read(1 << 20):  # read to the end, so that gzip verifies its checksum
                pass
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataDamagedError(
            f"{path} is not a whole .tar.gz archive ({error}); delete it and fetch it again"
        ) from None
    if missing := [name for name in names if name not in content]:
        raise DataDamagedError(f"{path} lacks {', '.join(missing)} in its folder {folder}")
    return content
