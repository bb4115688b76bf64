"""One network at every position: scanning, the equivalent network of convolutions, images larger than memory."""

from .cascade import as_cascade, as_mlp
from .convolutional import fully_convolutional
from .layer import Scan
from .report import ScanReport
from .tiles import scan_tiles

__all__ = [
    "Scan",
    "ScanReport",
    "as_cascade",
    "as_mlp",
    "fully_convolutional",
    "scan_tiles",
]


def __dir__() -> list[str]:
    return __all__
