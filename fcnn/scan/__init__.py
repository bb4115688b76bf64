"""One network at every position: scanning, its equivalent network of convolutions, images larger than memory."""

from .cascade import as_cascade, as_mlp
from .convolutional import fully_convolutional
from .layer import Scan
from .reach import Reach, reach
from .report import ScanReport
from .tiles import scan_tiles

__all__ = [
    "Reach",
    "Scan",
    "ScanReport",
    "as_cascade",
    "as_mlp",
    "fully_convolutional",
    "reach",
    "scan_tiles",
]


def __dir__() -> list[str]:
    return __all__
