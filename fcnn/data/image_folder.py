"""Your own pictures, one folder per class."""

from __future__ import annotations

import hashlib
import operator
import os
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..paths import path_of
from .dataset import Dataset, unit
from .files import DataDamagedError
from .pillow import image_module

ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".jp2",
)  # fmt: skip
#: pictures that Pillow does not read; any other files, such as notes, are ignored without a warning
UNREAD = (".heic", ".heif", ".jxl", ".svg", ".psd", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".arw", ".raw", ".eps")
#: names of the folders of a split, in upper or lower case
TRAINING = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation")


def load_image_folder(
    folder: str | os.PathLike[str],
    *,
    size: int | Sequence[int],
    test: float = 0.2,
    colour: bool = True,
    skip_damaged: bool = False,
    held_out: str | None = None,
) -> Dataset:
    """Load pictures from a folder with one subfolder per class: ``folder/cat/1.png``, ``folder/dog/old/7.jpg``.

    If the folder contains ``train`` (or ``training``) and one of ``test``, ``testing``, ``val``, ``valid`` and
    ``validation``, in upper or lower case, each with subfolders for the classes, these define the split. The second
    part is the one named by ``held_out``, otherwise the test pictures, otherwise the validation pictures; other folders
    are ignored. Without such folders, a picture is for testing if the SHA-256 of ``class/path``, as a number from 0 to
    1, is below ``test``. So adding pictures later does not move any other. If all pictures of a class would be for
    testing, the one with the largest number is kept for training.

    Each picture is rotated according to its EXIF orientation, scaled until it just covers ``size`` (with a triangle
    filter, which averages when shrinking), and cropped around its centre. Transparent parts are put on white. With
    ``colour``, grey pictures get three equal channels; without, colours are converted by ITU-R 601 (0.299 R + 0.587 G +
    0.114 B). Grey pictures with 16 bits keep all their levels; 65,535 becomes 1. Of an animation the first frame is
    used. Pictures with the endings .png, .jpg (.jpeg, .jpe, .jfif), .webp, .avif, .bmp, .gif, .tif (.tiff), .ppm (.pgm,
    .pbm, .pnm) and .jp2 are read, also in nested folders and through links; names that begin with a dot are ignored.
    Picture formats that Pillow does not read cause a warning.

    Args:
        folder: the folder.
        size: height and width in pixels, or one number for both.
        test: expected share of the pictures for testing; not used if the folder defines the split.
        colour: True for three channels (red, green, blue), False for one.
        skip_damaged: whether to skip pictures that cannot be read, with a warning for each.
        held_out: name of the folder with the second part of a split, such as "val" if there is also a "test".

    Shapes:
        x (pictures, height, width, 3 or 1) float32 in [0, 1]; y (pictures,) indexes the classes, sorted by name.

    Returns:
        The data set. Its classes are the folders' names; its pictures are ordered by class and path.

    Raises:
        ImportError: Pillow is not installed.
        TypeError: ``size`` is not one or two integers, or ``test`` is not a number.
        ValueError: ``size`` is below 1, or ``test`` is not from 0 to below 1; there are no folders of classes, a class
            has no pictures, or ``test`` has a class that ``train`` lacks; one part of a split is missing, or there is
            no folder ``held_out``.
        DataDamagedError: a picture cannot be read; the message names it.
        FileNotFoundError: the folder does not exist.
        NotADirectoryError: it is a file.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("red", "blue"):
        ...     (folder / name).mkdir()
        ...     Image.new("RGB", (40, 30), name).save(folder / name / "1.png")
        >>> (x, y), _, classes, _ = load_image_folder(folder, size=8, test=0)
        >>> x.shape, [classes[i] for i in y], x[:, 0, 0].tolist()
        ((2, 8, 8, 3), ['blue', 'red'], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    """
    where = "load_image_folder"
    height, width = _size(size, where)
    if isinstance(test, bool) or not isinstance(test, (int, float, np.number)):
        raise TypeError(f"{where}: test is {test!r}, it must be a number")
    if not 0 <= test < 1:
        raise ValueError(f"{where}: test is {test}, it must be a share from 0 to below 1")
    image_module("pictures")  # raise before any file is read
    root = path_of(folder, "folder")
    if not root.exists():
        raise FileNotFoundError(f"{where}: there is no folder {root}")
    if not root.is_dir():
        raise NotADirectoryError(f"{where}: {root} is a file; give the folder that holds the folders of the classes")
    mode = "RGB" if colour else "L"
    split = _split(root, held_out, where)
    if split is not None:
        classes, train = _pictures(split[0], None, where)
        _, tests = _pictures(split[1], classes, where)
        parts = [_read(found, len(classes), height, width, mode, skip_damaged) for found in (train, tests)]
        if missing := sorted({name for i, name in enumerate(classes) if i not in parts[0].labels}):
            raise ValueError(f"{where}: no picture in {split[0]} of {', '.join(missing)} can be read")
    else:
        classes, found = _pictures(root, None, where)
        read = _read(found, len(classes), height, width, mode, skip_damaged)
        if missing := [name for i, name in enumerate(classes) if i not in read.labels]:
            raise ValueError(f"{where}: no picture in {root} of {', '.join(missing)} can be read")
        chosen = _for_testing(read.numbers, read.labels, float(test))
        parts = [read.only(~chosen), read.only(chosen)]
    train_part, test_part = ((_as_numbers(part.images), part.labels) for part in parts)
    return Dataset(train_part, test_part, classes, f"pictures from {root}; their terms are those of whoever made them")


def load_image(path: str | os.PathLike[str], *, size: int | Sequence[int], colour: bool = True) -> np.ndarray:
    """Load one picture from a file, processed as by :func:`load_image_folder`.

    Args:
        path: the file.
        size: height and width in pixels, or one number for both.
        colour: True for three channels (red, green, blue), False for one.

    Shapes:
        (height, width, 3 or 1) float32 in [0, 1].

    Returns:
        The picture.

    Raises:
        ImportError: Pillow is not installed.
        TypeError: ``size`` is not one or two integers.
        ValueError: ``size`` is below 1.
        FileNotFoundError: the file does not exist.
        DataDamagedError: the picture cannot be read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = Path(tempfile.mkdtemp()) / "green.png"
        >>> Image.new("RGB", (40, 30), "lime").save(path)
        >>> load_image(path, size=(6, 8))[0, 0].tolist()
        [0.0, 1.0, 0.0]
    """
    height, width = _size(size, "load_image")
    image_module("pictures")
    file = path_of(path)
    if not file.is_file():
        raise FileNotFoundError(f"load_image: there is no file {file}")
    pixels = _pixels(file, height, width, "RGB" if colour else "L")
    return _as_numbers(pixels.reshape(1, height, width, -1))[0]


class _Picture(NamedTuple):
    path: Path
    label: int
    #: from the SHA-256 of class/path, in [0, 1)
    number: float


class _Part(NamedTuple):
    images: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray

    def only(self, chosen: np.ndarray) -> _Part:
        return _Part(*(a[chosen] for a in self))


def _split(root: Path, held_out: str | None, where: str) -> tuple[Path, Path] | None:
    """The folders of training and held-out pictures; None if the folders are classes."""
    if held_out is not None and not isinstance(held_out, str):
        raise TypeError(f"{where}: held_out is {held_out!r}, it must be the name of a folder, such as 'val'")
    folders = [entry for entry in _folders(root) if entry.name.lower() in (*TRAINING, *HELD_OUT)]
    parts = {entry.name.lower(): entry for entry in folders}
    if len(parts) < len(folders):
        raise ValueError(f"{where}: {root} holds {_listed(folders)}, which differ in upper and lower case alone")
    training = [parts[name] for name in TRAINING if name in parts]
    others = [parts[name] for name in HELD_OUT if name in parts]
    if held_out is not None and held_out.lower() not in parts:
        raise ValueError(f"{where}: there is no folder {root / held_out}; {root} holds {_listed(_folders(root))}")
    alone = len(folders) == len(_folders(root))  # otherwise a class may be called train
    if not folders or not (alone or all(_folders(entry) and not _direct(entry) for entry in folders)):
        return None
    if len(training) > 1:
        raise ValueError(f"{where}: {root} holds {_listed(training)}; leave one of them")
    if not training or not others:
        if alone and all(map(_folders, folders)) and not any(map(_direct, folders)):
            raise ValueError(
                f"{where}: {root} holds {_listed(folders)}, one part of a split; give {folders[0]}, whose folders are "
                "the classes, or put the other part beside it"
            )
        return None
    return training[0], others[0] if held_out is None else parts[held_out.lower()]


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _direct(folder: Path) -> bool:
    """Whether a folder directly contains pictures."""
    return any(entry.suffix.lower() in ENDINGS for entry in folder.iterdir() if not entry.name.startswith("."))


def _listed(folders: list[Path]) -> str:
    return ", ".join(entry.name for entry in folders)


def _pictures(root: Path, known: tuple[str, ...] | None, where: str) -> tuple[tuple[str, ...], list[_Picture]]:
    """The classes in a folder and their pictures, ordered; ``known`` are the allowed classes, None for any."""
    # depending on the file system, the same name may be encoded in two ways: é, or e and an accent
    folders: dict[str, list[Path]] = {}
    for entry in _folders(root):
        folders.setdefault(unicodedata.normalize("NFC", entry.name), []).append(entry)
    if not folders:
        raise ValueError(f"{where}: {root} holds no folders; put the pictures of each class into a folder of its name")
    if known is not None and (unknown := sorted(set(folders) - set(known))):
        raise ValueError(f"{where}: {root} has the classes {', '.join(unknown)}, which train has not")
    classes = tuple(sorted(folders)) if known is None else known
    found = []
    for name, inside in sorted(folders.items()):
        paths = sorted(file for folder in inside for file in _files(folder))
        if not paths:
            raise ValueError(f"{where}: the class {inside[0]} holds no pictures ({', '.join(ENDINGS)})")
        found += [_Picture(path, classes.index(name), _number(f"{name}/{within}")) for within, path in paths]
    return classes, found


def _files(folder: Path) -> list[tuple[str, Path]]:
    """The pictures below a folder, each with its relative path, encoded the same on every system."""
    found, unread, seen = [], [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = os.path.realpath(parent)
        if here in seen:  # a link to an enclosing folder
            folders[:] = []
            continue
        seen.add(here)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent) / name
            if name.startswith("."):
                continue
            if path.suffix.lower() in ENDINGS:
                found.append((unicodedata.normalize("NFC", path.relative_to(folder).as_posix()), path))
            elif path.suffix.lower() in UNREAD:
                unread.append(path)
    if unread:
        kinds = ", ".join(sorted({path.suffix for path in unread}))
        warnings.warn(
            f"load_image_folder: {len(unread)} pictures in {folder} are left out, such as {min(unread)}: Pillow does "
            f"not read {kinds}; convert them, to .png for example",
            stacklevel=4,
        )
    return found


def _number(name: str) -> float:
    # 53 bits, as many as a float holds, so that the number stays below 1; undecodable names keep their bytes
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _for_testing(numbers: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    chosen = numbers < share
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if chosen[own].all():
            chosen[own[numbers[own].argmax()]] = False
    return chosen


def _read(found: list[_Picture], classes: int, height: int, width: int, mode: str, skip_damaged: bool) -> _Part:
    images = np.empty((len(found), height, width, 3 if mode == "RGB" else 1), np.uint8)
    kept = []
    for picture in found:
        try:
            pixels = _pixels(picture.path, height, width, mode)
        except DataDamagedError as error:
            if not skip_damaged:
                raise
            warnings.warn(f"left out: {error}", stacklevel=3)
        else:
            if pixels.dtype != images.dtype:  # keep bytes as long as possible: they take a quarter of the memory
                images, pixels = _as_numbers(images), _as_numbers(pixels)
            images[len(kept)] = pixels.reshape(images.shape[1:])
            kept.append(picture)
    return _Part(
        images[: len(kept)],
        np.array([picture.label for picture in kept], np.int32),
        np.array([picture.number for picture in kept], np.float64),
    )


def _as_numbers(images: np.ndarray) -> np.ndarray:
    """Values from 0 to 1, float32; bytes are converted, float32 is returned unchanged."""
    return unit(images) if images.dtype == np.uint8 else images


def _pixels(path: Path, height: int, width: int, mode: str) -> np.ndarray:
    """A picture scaled and cropped: bytes, or float32 from 0 to 1 if it has 16 bits; in colour (height, width, 3)."""
    module = image_module("pictures")
    try:
        with module.open(path) as opened:
            opened.load()
            image = _plain(_upright(opened, module), mode, module)
    except Exception as error:  # decoders may raise anything on bad data: SyntaxError, struct.error, ...
        raise DataDamagedError(f"the picture {path} cannot be read ({type(error).__name__}: {error})") from None
    scale = min(image.width / width, image.height / height)
    across, down = width * scale, height * scale
    left, top = (image.width - across) / 2, (image.height - down) / 2
    box = (left, top, left + across, top + down)
    if image.size != (width, height):
        image = image.resize((width, height), module.Resampling.BILINEAR, box=box)
    pixels = np.asarray(image)
    if image.mode != "F":
        return pixels
    return np.repeat(pixels[..., None], 3, -1) if mode == "RGB" else pixels


def _upright(image: Any, module: Any) -> Any:
    """Rotate a picture according to its EXIF orientation; other tags are not read, because they may be faulty."""
    turns = module.Transpose
    ways = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }
    try:
        way = ways.get(image.getexif().get(0x0112, 1))
    except Exception:  # no readable EXIF data
        return image
    return image if way is None else image.transpose(way)


def _plain(image: Any, mode: str, module: Any) -> Any:
    """Convert a picture to 8 bits and one or three channels; 16 bits become floats from 0 to 1."""
    if image.mode == "F":
        raise ValueError("it holds floating-point numbers, whose range is not known; read it into an array yourself")
    if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would clip at 255
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"its values go from {grey.min()} to {grey.max()}, which are not 16 bits")
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey = np.where(grey == clear, 65535, grey)
        return module.fromarray((grey / 65535).astype(np.float32))
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = module.alpha_composite(module.new("RGBA", image.size, "white"), coloured)
    return image.convert(mode)


def _size(size: int | Sequence[int], where: str) -> tuple[int, int]:
    given: list[Any] = list(size) if isinstance(size, Sequence) else [size, size]
    try:
        if len(given) != 2 or any(isinstance(n, bool) for n in given):
            raise TypeError
        height, width = (operator.index(n) for n in given)
    except TypeError:
        raise TypeError(f"{where}: size is {size!r}, it must be an integer or (height, width)") from None
    if min(height, width) < 1:
        raise ValueError(f"{where}: size is {size!r}, it must be at least 1")
    return height, width
