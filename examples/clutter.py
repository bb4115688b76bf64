"""Large pictures with digits somewhere in them, among pieces of other digits, lines and noise; patches cut from them.

The clutter of pieces is that of Mnih, Heess, Graves and Kavukcuoglu, "Recurrent models of visual attention", 2014.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

NOTHING = 10  # the class of a patch without a digit in its middle
NEAR = 6  # pixels; a digit of 28 pixels this far from the middle of a patch, or farther, is not in its middle


class Scene(NamedTuple):
    """A picture and what is in it.

    Attributes:
        image: (height, width, 1) float32 in [0, 1].
        labels: the digits in it, (digits,) int32.
        centres: row and column of the middle of each, in pixels from the upper left corner, (digits, 2) float32.
    """

    image: np.ndarray
    labels: np.ndarray
    centres: np.ndarray


def scenes(
    images: np.ndarray,
    labels: np.ndarray,
    count: int,
    *,
    seed: int,
    size: int = 256,
    digits: tuple[int, int] = (5, 10),
    noise: float = 0.1,
) -> list[Scene]:
    """Make pictures, the same for the same seed.

    No digit comes twice before all of them came once. They do not overlap each other; pieces and lines lie over them.

    Args:
        images: digits (examples, side, side, 1) in [0, 1], ink is 1.
        labels: which they are, (examples,).
        count: number of pictures.
        seed: of the random numbers.
        size: height and width of a picture, in pixels.
        digits: the fewest and the most digits in one.
        noise: standard deviation of the noise on every pixel.

    Returns:
        The pictures.
    """
    generator = np.random.default_rng(seed)
    order, taken, made = generator.permutation(len(images)), 0, []
    for _ in range(count):
        n = int(generator.integers(digits[0], digits[1] + 1))
        chosen = order[np.arange(taken, taken + n) % len(order)]
        taken += n
        image, corners = clutter(generator, images, size), places(generator, n, size, images.shape[1])
        for digit, (row, column) in zip(images[chosen, :, :, 0], corners, strict=True):
            draw(image, digit * generator.uniform(0.7, 1.0), row, column)
        image += generator.normal(0, noise, image.shape).astype(np.float32)
        centres = corners.astype(np.float32) + images.shape[1] / 2
        made.append(Scene(image.clip(0, 1)[..., None], labels[chosen].astype(np.int32), centres))
    return made


def clutter(generator: np.random.Generator, images: np.ndarray, size: int) -> np.ndarray:
    """A picture without a digit, (size, size): a piece for every 400 pixels, a line for every 8,000.

    Pieces are a quarter to two fifths as wide as the square of a digit. Lines are longer than digits: one as long would
    be a 1.
    """
    image, side = np.zeros((size, size), np.float32), images.shape[1]
    for _ in range(generator.poisson(size * size / 400)):
        width = int(generator.integers(side // 4, 2 * side // 5 + 1))
        row, column = generator.integers(0, side - width + 1, 2)
        piece = images[generator.integers(len(images)), row : row + width, column : column + width, 0]
        draw(image, piece * generator.uniform(0.5, 1.0), *generator.integers(0, size - width + 1, 2))
    for _ in range(generator.poisson(size * size / 8000)):
        stroke(
            image, generator.uniform(0, size, 2), *generator.uniform([0, 2 * side, 0.5, 0.5], [np.pi, 6 * side, 1.5, 1])
        )
    return image


def draw(image: np.ndarray, piece: np.ndarray, row: int, column: int) -> None:
    """Put a piece into the picture, in place; where there is ink already, the darker stays."""
    window = image[row : row + piece.shape[0], column : column + piece.shape[1]]
    np.maximum(window, piece, out=window)


def stroke(image: np.ndarray, middle: np.ndarray, angle: float, length: float, pen: float, ink: float) -> None:
    """Draw a straight line into the picture, in place; ``pen`` is half its width, in pixels."""
    along = np.linspace(-length / 2, length / 2, int(2 * length) + 1)[:, None]
    points = middle + along * [np.sin(angle), np.cos(angle)]
    around = np.mgrid[-2:3, -2:3].reshape(2, 25).T
    pixels = np.rint(points).astype(np.int64)[:, None] + around  # (points, 25, 2)
    dark = ink * (pen + 0.5 - np.linalg.norm(pixels - points[:, None], axis=-1)).clip(0, 1)
    inside = ((pixels >= 0) & (pixels < image.shape)).all(-1)
    np.maximum.at(image, tuple(pixels[inside].T), dark[inside].astype(image.dtype))


def places(generator: np.random.Generator, count: int, size: int, side: int) -> np.ndarray:
    """Upper left corners of squares that do not overlap, at least 2 pixels inside, (count, 2) integers."""
    while True:
        found = np.zeros((0, 2), np.int64)
        for corner in generator.integers(2, size - side - 1, (100 * count, 2)):
            if (np.abs(found - corner).max(1, initial=0) >= side).all():
                found = np.concatenate([found, corner[None]])
                if len(found) == count:
                    return found
        # the first ones left no room for the others


def patches(
    pictures: Iterable[Scene], window: int, *, seed: int, jitter: int = 1, near: float = NEAR, nothing: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Cut patches for a detector: every digit once in the middle, and for each of them some of the class NOTHING.

    Of those without a digit in the middle every second one has a digit beside it: what to say there must be learnt too.

    Args:
        pictures: scenes.
        window: height and width of a patch, in pixels.
        seed: of the random numbers.
        jitter: how far from the middle a digit may be, in pixels along each axis.
        near: a digit this far from the middle, or farther, is not in the middle; in pixels.
        nothing: patches of the class NOTHING for each digit.

    Returns:
        x (patches, window, window, 1) and y (patches,) int32.
    """
    generator, cut, labels = np.random.default_rng(seed), [], []
    for image, digits, centres in pictures:
        last = image.shape[0] - window
        for digit, centre in zip(digits, centres, strict=True):
            corner = centre.astype(np.int64) - window // 2 + generator.integers(-jitter, jitter + 1, 2)
            cut.append(at(image, corner.clip(0, last), window))
            labels.append(digit)
        wanted = nothing * len(digits)
        while wanted:
            corner = generator.integers(0, last + 1, 2)
            if wanted % 2:
                beside = centres[generator.integers(len(centres))] - window // 2 + generator.normal(0, window / 3, 2)
                corner = beside.astype(np.int64).clip(0, last)
            if np.hypot(*(centres - corner - window / 2).T).min() >= near:
                cut.append(at(image, corner, window))
                labels.append(NOTHING)
                wanted -= 1
    return np.stack(cut), np.array(labels, np.int32)


def at(image: np.ndarray, corner: np.ndarray, window: int) -> np.ndarray:
    """The patch at a corner, a copy."""
    row, column = corner
    return image[row : row + window, column : column + window].copy()
