"""MNIST and Fashion-MNIST, each from its four original files in idx format."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .dataset import Dataset, unit
from .files import DataDamagedError, locate

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
FASHION_MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
FASHION_CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def mnist() -> Dataset:
    """70,000 handwritten digits of 28 x 28 pixels, 10,000 of them for testing.

    The four files are read from the folder ``mnist`` inside the folder named by the environment variable FCNN_DATA, or
    downloaded once into ``~/.cache/fcnn/mnist``. Their SHA-256 is verified in both cases. Licence: commonly given as
    CC BY-SA 3.0.

    Shapes:
        train x (60000, 28, 28, 1), test x (10000, 28, 28, 1); 0 is background, 1 is ink.

    Returns:
        The data set.

    Raises:
        DataNotFoundError: the files are missing and cannot be downloaded; the message says which files to put where.
        DataDamagedError: a file has a wrong checksum.

    Source:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.

    Example:
        >>> mnist().train[0].shape    # doctest: +SKIP
        (60000, 28, 28, 1)
    """
    return _four_files(
        "mnist",
        MNIST_CHECKSUMS,
        MNIST_MIRRORS,
        tuple("0123456789"),
        "MNIST (LeCun, Cortes and Burges, from NIST Special Databases 1 and 3), CC BY-SA 3.0",
    )


def fashion_mnist() -> Dataset:
    """70,000 grey images of clothes of 28 x 28 pixels, 10,000 of them for testing.

    The four files are read from the folder ``fashion_mnist`` inside the folder named by the environment variable
    FCNN_DATA, or downloaded once into ``~/.cache/fcnn/fashion_mnist``. Their SHA-256 is verified in both cases.
    Licence: MIT, copyright Zalando SE.

    Shapes:
        train x (60000, 28, 28, 1), test x (10000, 28, 28, 1); 0 is background.

    Returns:
        The data set.

    Raises:
        DataNotFoundError: the files are missing and cannot be downloaded; the message says which files to put where.
        DataDamagedError: a file has a wrong checksum.

    Source:
        Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
        algorithms", 2017, arXiv:1708.07747.

    Example:
        >>> fashion_mnist().classes[9]    # doctest: +SKIP
        'Ankle boot'
    """
    return _four_files(
        "fashion_mnist",
        FASHION_CHECKSUMS,
        FASHION_MIRRORS,
        FASHION_CLASSES,
        "Fashion-MNIST (Xiao, Rasul and Vollgraf 2017), MIT, copyright Zalando SE",
    )


def _four_files(
    name: str, checksums: Mapping[str, str], mirrors: Sequence[str], classes: tuple[str, ...], licence: str
) -> Dataset:
    paths = locate(name, checksums, mirrors)
    train, test = (
        (
            unit(read_idx(paths[f"{part}-images-idx3-ubyte.gz"]))[..., None],
            read_idx(paths[f"{part}-labels-idx1-ubyte.gz"]).astype(np.int32),
        )
        for part in ("train", "t10k")
    )
    return Dataset(train, test, classes, licence)


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped idx file of bytes: big-endian magic number 0x0800 + rank, the sizes, then the bytes.

    Args:
        path: the file.

    Returns:
        The array, uint8.

    Raises:
        DataDamagedError: the file is not in this format, or its length does not match its sizes.

    Source:
        LeCun, Cortes and Burges 1998, "File formats for the MNIST database".

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels.gz"
        >>> _ = path.write_bytes(gzip.compress(struct.pack(">II", 0x0801, 3) + bytes([7, 2, 1])))
        >>> read_idx(path).tolist()
        [7, 2, 1]
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataDamagedError(f"{path} is not a whole gzip file ({error}); delete it and fetch it again") from None
    magic = struct.unpack(">I", raw[:4])[0] if len(raw) >= 4 else 0
    rank = magic - 0x0800
    if not 1 <= rank <= 4 or len(raw) < 4 + 4 * rank:
        raise DataDamagedError(f"{path} is not an idx file of bytes: it begins with {raw[:4].hex()}")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    if len(raw) != 4 + 4 * rank + math.prod(shape):
        raise DataDamagedError(
            f"{path} should hold {math.prod(shape):,} bytes of data for the shape {shape}, "
            f"it holds {len(raw) - 4 - 4 * rank:,}"
        )
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
