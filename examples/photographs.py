"""Photographs with faces, made of pictures that are installed with scikit-image."""

import installed
import numpy as np
from PIL import Image


def read_picture(name: str) -> Image.Image:
    """One of scikit-image's pictures."""
    path = installed.file_of("skimage", f"data/{name}", distribution="scikit-image")
    with Image.open(path) as image:
        return image.convert("RGB")


def astronaut() -> np.ndarray:
    """Eileen Collins, (512, 512, 3)."""
    return np.asarray(read_picture("astronaut.png"))


#: what is in the collage: the picture, the part of it (left, top, right, bottom), its width there, where its upper left
#: corner lies, and whether it is mirrored
HEAD, WHOLE = (130, 0, 310, 200), (0, 0, 512, 512)
PIECES = (
    ("coffee.png", (0, 0, 600, 400), 300, (420, 0), False),
    ("chelsea.png", (0, 0, 451, 300), 300, (0, 280), False),
    ("camera.png", WHOLE, 210, (420, 200), False),
    ("astronaut.png", HEAD, 260, (0, 0), True),
    ("astronaut.png", HEAD, 150, (265, 5), False),
    ("astronaut.png", HEAD, 75, (335, 180), True),
    ("astronaut.png", HEAD, 55, (270, 200), False),
    ("astronaut.png", WHOLE, 118, (300, 290), True),
    ("astronaut.png", (215, 0, 512, 280), 110, (0, 365), False),  # half a face, at the edge
    ("astronaut.png", (130, 0, 250, 200), 89, (632, 340), False),  # and at the other
)


def collage() -> np.ndarray:
    """Heads of several sizes, some mirrored, two cut in half, among a cat, a cup and a photographer, (481, 721, 3)."""
    large = Image.new("RGB", (721, 481), (90, 110, 100))
    for name, part, width, place, mirrored in PIECES:
        piece = read_picture(name).crop(part)
        piece = piece.resize((width, round(width * piece.height / piece.width)), Image.Resampling.BICUBIC)
        large.paste(piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else piece, place)
    return np.asarray(large)


PICTURES = {"astronaut": astronaut, "collage": collage}
