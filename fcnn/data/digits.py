"""Handwritten digits of 8 x 8 pixels, included in scikit-learn."""

from __future__ import annotations

import numpy as np

from .dataset import Dataset


def digits() -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels; every fifth is for testing.

    Nothing is downloaded: the data are included in scikit-learn (``pip install 'fcnn[data]'``).

    Shapes:
        train x (1438, 8, 8, 1), test x (359, 8, 8, 1); 0 is background, 1 is ink.

    Returns:
        The data set.

    Raises:
        ImportError: scikit-learn is not installed.

    Source:
        Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998 (its test set).

    Example:
        >>> data = digits()
        >>> data.train[0].shape, data.test[0].shape, data.train[0].max().item()
        ((1438, 8, 8, 1), (359, 8, 8, 1), 1.0)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the digits come with scikit-learn: pip install 'fcnn[data]'") from None
    images, labels = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    y = labels.astype(np.int32)
    # the set is ordered by writer: taking every fifth example puts each writer into both parts
    test = np.arange(len(y)) % 5 == 4
    return Dataset(
        (x[~test], y[~test]),
        (x[test], y[test]),
        tuple("0123456789"),
        "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, UCI), CC BY 4.0",
    )
