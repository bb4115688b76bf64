"""CIFAR-10, from any of its forms."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from .cifar_batches import Part, read_batches
from .dataset import Dataset, unit
from .files import DataDamagedError, check, find, locate, not_found
from .npz import read_npz
from .pillow import image_module

NAME = "cifar10"
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: SHA-256 of the files
CHECKSUMS = {
    "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar10_jpeg.npz": "793e4ede56cf08668e9ec4fe4093dc63e232294dde60bd5242b9cf980d116d97",
    "cifar10_exact_subset.npz": "52142ccd2a221c73a48933c16dc35c4a31c63037ae6d4c7679b69c611792bd68",
}
#: MD5 of the batches in cifar-10-batches-py; none is published for the binary ones
BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
#: SHA-256 of the decoded images of cifar10_jpeg.npz, training and test, as libjpeg-turbo 2 and 3 decode them
DECODED = {
    "train": "5aaf8a2cf2e577ff4dbb15e4f368840fab5aca1812bcc69682005f8dc661d466",
    "test": "b7018a062865e9348a704e72416eb53c816b43cc8ac42ab43276a2b967508ab6",
}
CITE = "Krizhevsky, 'Learning Multiple Layers of Features from Tiny Images', 2009; no licence stated, free when cited"

Variant = Literal["python", "binary", "jpeg", "subset"]


def cifar10(*, variant: Variant | None = None) -> Dataset:
    """60,000 colour images of 32 x 32 pixels in ten classes, 10,000 of them for testing.

    The files are searched in the folder ``cifar10`` inside the folder named by the environment variable FCNN_DATA, in
    that folder itself, and in ``~/.cache/fcnn/cifar10``. The first of these forms that is found is read:

    ==========  ============================================  ==================================================
    variant     file or folder                                content
    ==========  ============================================  ==================================================
    "python"    cifar-10-python.tar.gz                        the original
    "binary"    cifar-10-binary.tar.gz                        the original
    "python"    cifar-10-batches-py                           the original, unpacked
    "binary"    cifar-10-batches-bin                          the original, unpacked
    "jpeg"      cifar10_jpeg.npz                              all images, lossy (JPEG, quality 75), needs Pillow
    "subset"    cifar10_exact_subset.npz                      8,068 and 1,017 of the images, exact
    ==========  ============================================  ==================================================

    If none is found, cifar-10-python.tar.gz (170 MB) is downloaded once into the cache (for ``variant="binary"`` the
    binary archive). Checksums are verified, archives are read in memory, and no code in a pickle is run. JPEG pixels
    differ from the exact ones by 5.8 of 255 on average: report results as "CIFAR-10 (JPEG q75 copy)". ``licence`` says
    which form was read.

    Args:
        variant: the form; None takes the first in this list that is found.

    Shapes:
        train x (50000, 32, 32, 3), test x (10000, 32, 32, 3) in [0, 1], red, green, blue.

    Returns:
        The data set.

    Raises:
        ValueError: the variant is unknown.
        DataNotFoundError: the files are missing and cannot be downloaded; the message says which files to put where.
        DataDamagedError: a file has a wrong checksum or wrong content.
        ImportError: Pillow, needed for the JPEG form, is not installed.

    Source:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Example:
        >>> cifar10().train[0].shape    # doctest: +SKIP
        (50000, 32, 32, 3)
    """
    variants = ("python", "binary", "jpeg", "subset")
    if variant is not None and variant not in variants:
        raise ValueError(f"cifar10: variant is {variant!r}, it must be None or one of {', '.join(map(repr, variants))}")
    for form in _FORMS:
        if variant in (None, form.variant) and (path := find(form.file, NAME)) is not None:
            return form.dataset(path)
    archive = _FORMS[1] if variant == "binary" else _FORMS[0]
    if variant in (None, archive.variant):
        return archive.dataset(locate(NAME, {archive.file: CHECKSUMS[archive.file]}, MIRRORS)[archive.file])
    raise not_found(NAME, next(form.file for form in _FORMS if form.variant == variant))


class _Form(NamedTuple):
    variant: str
    file: str
    read: Callable[[Path], tuple[Part, Part]]
    title: str

    def dataset(self, path: Path) -> Dataset:
        (train_x, train_y), (test_x, test_y) = self.read(path)
        return Dataset(
            (unit(train_x), train_y.astype(np.int32)),
            (unit(test_x), test_y.astype(np.int32)),
            CLASSES,
            f"{self.title}: {CITE}",
        )


def _python_archive(path: Path) -> tuple[Part, Part]:
    check(path, CHECKSUMS["cifar-10-python.tar.gz"])
    return read_batches(path, "cifar-10-batches-py")


def _binary_archive(path: Path) -> tuple[Part, Part]:
    check(path, CHECKSUMS["cifar-10-binary.tar.gz"])
    return read_batches(path, "cifar-10-batches-bin")


def _python_folder(path: Path) -> tuple[Part, Part]:
    for file, checksum in BATCHES.items():
        if (path / file).is_file():  # the reader reports missing files
            check(path / file, checksum, "md5")
    return read_batches(path, "cifar-10-batches-py")


def _binary_folder(path: Path) -> tuple[Part, Part]:
    return read_batches(path, "cifar-10-batches-bin")


def _subset(path: Path) -> tuple[Part, Part]:
    names = ("x_train", "y_train", "x_test", "y_test")
    train_x, train_y, test_x, test_y = read_npz(path, CHECKSUMS["cifar10_exact_subset.npz"], *names)
    return (train_x, train_y), (test_x, test_y)


def _jpeg(path: Path) -> tuple[Part, Part]:
    names = [f"{split}_{kind}" for split in DECODED for kind in ("jpeg", "offsets", "labels")]
    arrays = read_npz(path, CHECKSUMS["cifar10_jpeg.npz"], *names)
    train, test = (
        (_decoded(files, offsets, split, path), labels)
        for split, (files, offsets, labels) in zip(DECODED, (arrays[:3], arrays[3:]), strict=True)
    )
    return train, test


def _decoded(files: np.ndarray, offsets: np.ndarray, split: str, path: Path) -> np.ndarray:
    image = image_module("the JPEG images of CIFAR-10")
    raw = files.tobytes()
    out = np.empty((len(offsets) - 1, 32, 32, 3), np.uint8)
    for i, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        try:
            pixels = np.asarray(image.open(io.BytesIO(raw[start:end]), formats=("JPEG",)))
        except (OSError, SyntaxError) as error:
            raise DataDamagedError(f"{path} is damaged: image {i} of {split} is not a JPEG file ({error})") from None
        if pixels.shape != (32, 32, 3):
            raise DataDamagedError(f"{path} is damaged: image {i} of {split} has the shape {pixels.shape}")
        out[i] = pixels
    if hashlib.sha256(out.data).hexdigest() != DECODED[split]:
        # the file itself is intact, but another decoder may round differently, so only warn
        warnings.warn(
            f"the JPEG images of {split} in {path} are decoded otherwise here than by libjpeg-turbo, "
            "probably by one step in 255; results may differ slightly from those of other machines",
            stacklevel=6,
        )
    return out


#: in order of preference
_FORMS = (
    _Form("python", "cifar-10-python.tar.gz", _python_archive, "CIFAR-10"),
    _Form("binary", "cifar-10-binary.tar.gz", _binary_archive, "CIFAR-10"),
    _Form("python", "cifar-10-batches-py", _python_folder, "CIFAR-10"),
    _Form("binary", "cifar-10-batches-bin", _binary_folder, "CIFAR-10"),
    _Form("jpeg", "cifar10_jpeg.npz", _jpeg, "CIFAR-10 (JPEG q75 copy)"),
    _Form(
        "subset", "cifar10_exact_subset.npz", _subset, "CIFAR-10 (exact subset: 8,068 training and 1,017 test images)"
    ),
)
