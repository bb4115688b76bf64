"""Data sets as plain arrays."""

from .dataset import Dataset
from .digits import digits
from .files import DataDamagedError, DataNotFoundError
from .idx import mnist

__all__ = ["DataDamagedError", "DataNotFoundError", "Dataset", "digits", "mnist"]
