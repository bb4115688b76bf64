"""Spectrograms: power over time and frequency, and its logarithm in mel bands."""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import format_shape, layer_path

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


def spectrogram(
    x: Float[Array, "batch samples channels"], *, window: int = 256, hop: int = 80
) -> Float[Array, "batch frames bins channels"]:
    r"""The power of each frequency in each frame of a sound.

    .. math:: S_{t, f} = \Bigl| \sum_{n=0}^{N-1} w_n\, x_{t h + n}\, e^{-2 \pi i f n / N} \Bigr|^2
        \Big/ \Bigl( \sum_n w_n \Bigr)^2, \quad w_n = \tfrac12 - \tfrac12 \cos \frac{2 \pi n}{N}

    with the window length N and the hop h. Only complete frames are used; nothing is padded. A sine of amplitude a in
    the middle of a bin has the power a² / 4 there, for any window length.

    Args:
        x: sound; channels are processed separately.
        window: length N of a frame, in samples.
        hop: samples from the start of one frame to that of the next.

    Shapes:
        x (batch, samples, channels).

    Returns:
        (batch, 1 + (samples - window) // hop, 1 + window // 2, channels), dtype of x: an image for 2-D layers.

    Raises:
        TypeError: x is not floating point, or ``window`` or ``hop`` is not an integer.
        ValueError: x does not have three axes or is shorter than the window, ``window`` is below 2, or ``hop`` below 1.

    Source:
        Allen, "Short term spectral analysis, synthesis, and modification by discrete Fourier transform", 1977;
        the window is the Hann window, the scaling SciPy's "spectrum".

    Example:
        >>> tone = jnp.sin(2 * jnp.pi * 1000 * jnp.linspace(0, 0.1, 801))[None, :, None]
        >>> s = spectrogram(tone, window=80, hop=40)
        >>> s.shape, int(s[0, 3, :, 0].argmax()) * 8000 // 80, round(float(s.max()), 4)
        ((1, 19, 41, 1), 1000, 0.25)
    """
    with layer_path("spectrogram"):
        x = _sound(x)
        window, hop = _at_least("window", window, 2), _at_least("hop", hop, 1)
        _check_length(x, window)
    return _power(x, window, hop).astype(x.dtype)


def log_mel(
    x: Float[Array, "batch samples channels"],
    *,
    rate: float = 8000,
    window: int = 256,
    hop: int = 80,
    bands: int = 40,
    low: float = 0.0,
    high: float | None = None,
    floor: float = 1e-10,
) -> Float[Array, "batch frames bands channels"]:
    r"""The logarithm of a :func:`spectrogram` in mel bands, whose widths approximate those of the ear.

    .. math:: y_{t, b} = \ln \Bigl( \epsilon + \sum_f M_{f, b} S_{t, f} \Bigr), \quad
        m(\nu) = 2595 \log_{10} (1 + \nu / 700)

    The bands' edges are equally spaced on the mel scale m, from m(low) to m(high). Band b is a triangle over the
    frequency in hertz: 0 at the centre of the previous band, 1 at its own centre, 0 at that of the next band.
    The defaults are frames of 32 ms every 10 ms at 8,000 samples per second.

    Args:
        x: sound; channels are processed separately.
        rate: samples per second.
        window: length of a frame, in samples.
        hop: samples from the start of one frame to that of the next.
        bands: number of bands.
        low: lower edge of the first band, in hertz.
        high: upper edge of the last band, in hertz; half the rate by default.
        floor: ε, the power of silence; by default about the noise power of rounding to 16 bits, 2⁻³⁰ / 12.

    Shapes:
        x (batch, samples, channels).

    Returns:
        (batch, 1 + (samples - window) // hop, bands, channels), dtype of x: an image for 2-D layers.

    Raises:
        TypeError: as for :func:`spectrogram`, or ``bands`` is not an integer.
        ValueError: as for :func:`spectrogram`; also if ``low`` and ``high`` are not in order within half the rate,
            ``floor`` or ``rate`` is not above 0, or a band is so narrow that it contains no frequency of the
            spectrogram.

    Source:
        O'Shaughnessy, "Speech Communication: Human and Machine", 1987, p. 150 (the scale, as in the HTK Book);
        Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition", 1980
        (the triangles).

    Example:
        >>> silence = jnp.zeros((2, 8000, 1))
        >>> y = log_mel(silence)
        >>> y.shape, round(float(y.max()), 3)
        ((2, 97, 40, 1), -23.026)
    """
    with layer_path("log_mel"):
        x = _sound(x)
        window, hop, bands = _at_least("window", window, 2), _at_least("hop", hop, 1), _at_least("bands", bands, 1)
        _check_length(x, window)
        rate, low = float(rate), float(low)
        high = rate / 2 if high is None else float(high)
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"rate is {rate}, it must be above 0")
        if not 0 <= low < high <= rate / 2:
            raise ValueError(
                f"low is {low:g} and high {high:g} Hz; they must be in this order, and from 0 to {rate / 2:g} Hz"
            )
        if not (math.isfinite(floor) and floor > 0):
            raise ValueError(f"floor is {floor}, it must be above 0, because silence has no logarithm")
        filters = _mel_filters(rate, window, bands, low, high)
    power = _power(x, window, hop)
    energy = jnp.einsum("btfc,fm->btmc", power, jnp.asarray(filters, power.dtype), precision=jax.lax.Precision.HIGHEST)
    return jnp.log(energy + jnp.asarray(floor, power.dtype)).astype(x.dtype)


def _power(x: Array, window: int, hop: int) -> Array:
    wide = x.dtype if x.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)  # FFTs do not support half precision
    weights = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    starts = hop * np.arange(1 + (x.shape[1] - window) // hop)
    stretches = x.astype(wide)[:, starts[:, None] + np.arange(window)]  # (batch, frames, window, channels)
    waves = jnp.fft.rfft(stretches * jnp.asarray(weights / weights.sum(), wide)[:, None], axis=2)
    # not abs(z)², because abs has no derivative at 0, in silence
    return jnp.square(waves.real) + jnp.square(waves.imag)


@lru_cache(maxsize=16)
def _mel_filters(rate: float, window: int, bands: int, low: float, high: float) -> np.ndarray:
    """The triangles, (bins, bands)."""
    mels = np.linspace(2595 * math.log10(1 + low / 700), 2595 * math.log10(1 + high / 700), bands + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    before, centre, after = edges[:-2], edges[1:-1], edges[2:]
    frequency = np.arange(1 + window // 2)[:, None] * (rate / window)
    filters = np.minimum((frequency - before) / (centre - before), (after - frequency) / (after - centre)).clip(0)
    if (empty := np.flatnonzero(filters.max(0) == 0)).size:
        b = int(empty[0])
        raise ValueError(
            f"no frequency of the spectrogram, one every {rate / window:g} Hz, falls into band {b} of {bands}, from "
            f"{before[b]:.1f} to {after[b]:.1f} Hz; use fewer bands or a longer window"
        )
    return filters


def _sound(x: Array) -> Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x holds {x.dtype}; give floating-point numbers, such as 16-bit samples divided by 32768")
    if x.ndim != 3:
        raise ValueError(f"x has the shape {format_shape(x.shape)}, it must be (batch, samples, channels)")
    return x


def _check_length(x: Array, window: int) -> None:
    if x.shape[1] < window:
        raise ValueError(f"x has {x.shape[1]} samples, fewer than the window's {window}")


def _at_least(name: str, value: int, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, it must be an integer")
    if number < least:
        raise ValueError(f"{name} is {number}, it must be at least {least}")
    return number
