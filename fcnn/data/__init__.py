"""Data sets as plain arrays, spectrograms of sound, and augmentation."""

from . import augment
from .cifar import cifar10
from .dataset import Dataset
from .digits import digits
from .files import DataDamagedError, DataNotFoundError
from .idx import fashion_mnist, mnist
from .image_folder import load_image, load_image_folder
from .spectrum import log_mel, spectrogram
from .speech import Recordings, spoken_digit_recordings, spoken_digits

__all__ = [
    "DataDamagedError",
    "DataNotFoundError",
    "Dataset",
    "Recordings",
    "augment",
    "cifar10",
    "digits",
    "fashion_mnist",
    "load_image",
    "load_image_folder",
    "log_mel",
    "mnist",
    "spectrogram",
    "spoken_digit_recordings",
    "spoken_digits",
]


def __dir__() -> list[str]:
    return __all__
