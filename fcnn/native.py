"""NumPy arrays in a form that JAX interprets correctly."""

from __future__ import annotations

from typing import Any

import numpy as np


def native(x: Any, name: str = "x") -> Any:
    """A NumPy array in native byte order; any other value is returned unchanged.

    FITS and NetCDF files may hold numbers in the other byte order, and a compiled program would misread their bytes.

    Raises:
        ValueError: a masked array with masked values, whose mask would be lost.
        TypeError: a dtype that JAX does not have: more than 64 bits, objects, strings, times.

    Example:
        >>> native(np.array([1.0], ">f4")).dtype
        dtype('float32')
    """
    if not isinstance(x, np.ndarray):
        return x
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.is_masked(x):
            raise ValueError(
                f"{name} is a masked array with {np.ma.count_masked(x)} masked values, which would be computed with as "
                f"if they were data; fill them first, {name}.filled(0), and give the mask as a channel if it matters"
            )
        x = x.data
    too_wide = x.dtype.kind in "fc" and x.dtype.itemsize > (8 if x.dtype.kind == "f" else 16)
    if x.dtype.kind in "OSUMm" or too_wide:
        raise TypeError(
            f"{name} has dtype {x.dtype}, which JAX does not have; convert it first, {name}.astype('float32')"
        )
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
