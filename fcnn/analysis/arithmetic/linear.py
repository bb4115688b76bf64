"""Linear operations: matrix products, convolutions, Fourier transforms."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax.numpy as jnp
import numpy as np

from .arrays import padded, sampled
from .rule import Maker, Rule


def _dot_general(params: dict[str, Any], a_shape: Any, b_shape: Any) -> Rule:
    (a_sum, b_sum), (a_batch, b_batch) = params["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    a, b = [""] * len(a_shape), [""] * len(b_shape)
    for left, right in [*zip(a_batch, b_batch, strict=True), *zip(a_sum, b_sum, strict=True)]:
        a[left] = b[right] = next(letters)
    for side in (a, b):
        side[:] = [letter or next(letters) for letter in side]
    batch = [a[i] for i in a_batch]
    left = [letter for i, letter in enumerate(a) if i not in (*a_batch, *a_sum)]
    right = [letter for i, letter in enumerate(b) if i not in (*b_batch, *b_sum)]
    x, w, y = ("".join(side) for side in (a, b, [*batch, *left, *right]))
    wide = params.get("preferred_element_type")

    def value(first: Any, second: Any) -> Any:
        if wide is not None and jnp.issubdtype(wide, np.integer):  # the sum is taken in this type, not converted after
            first, second = first.astype(wide), second.astype(wide)
        return np.einsum(f"{x},{w}->{y}", first, second)

    def back(g: Any, _: Any, first: Any, second: Any) -> tuple[Any, Any]:
        return np.einsum(f"{y},{w}->{x}", g, second), np.einsum(f"{x},{y}->{w}", first, g)

    return value, back


def _conv(params: dict[str, Any], x_shape: Any, kernel_shape: Any) -> Rule:
    """A convolution as a sum over the kernel samples: each multiplies the input samples it sees by its weights."""
    numbers, strides = params["dimension_numbers"], params["window_strides"]
    dilation, parts = params["rhs_dilation"], params["batch_group_count"]
    groups = params["feature_group_count"] * parts
    config = [(0, 0, 0)] * 3 + [
        (*pair, base - 1) for pair, base in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    size = [kernel_shape[axis] for axis in numbers.rhs_spec[2:]]

    def arranged(x: Any, kernel: Any) -> tuple[Any, Any, Any]:
        """The padded input (batch, groups, channels, *space), and the kernel (groups, out, in, *size)."""
        x, kernel = np.transpose(x, numbers.lhs_spec), np.transpose(kernel, numbers.rhs_spec)
        space = x.shape[2:]
        # batch groups are channel groups, each with its own part of the batch
        x = np.moveaxis(x.reshape(parts, -1, *x.shape[1:]), 0, 1).reshape(-1, groups, kernel.shape[1], *space)
        full, back = padded(x, 0, config)
        return full, kernel.reshape(groups, -1, *kernel.shape[1:]), back

    def samples(full: Any) -> tuple[list[int], list[Any]]:
        out, seen = sampled(full.shape[3:], size, strides, dilation)
        return out, [
            ((..., *offset), (..., *place)) for offset, place in zip(product(*map(range, size)), seen, strict=True)
        ]

    def value(x: Any, kernel: Any) -> Any:
        wide = params.get("preferred_element_type")
        if wide is not None and jnp.issubdtype(wide, np.integer):
            x, kernel = x.astype(wide), kernel.astype(wide)
        full, weights, _ = arranged(x, kernel)
        out, places = samples(full)
        y = np.zeros((full.shape[0], groups, weights.shape[1], *out), np.result_type(x, kernel))
        for sample, place in places:
            y += np.einsum("ngi...,goi->ngo...", full[place], weights[sample])
        y = y.reshape(y.shape[0], -1, *out)
        return np.transpose(y, np.argsort(numbers.out_spec))

    def back(g: Any, _: Any, x: Any, kernel: Any) -> tuple[Any, Any]:
        full, weights, full_back = arranged(x, kernel)
        g = np.transpose(g, numbers.out_spec)
        g = g.reshape(g.shape[0], groups, -1, *g.shape[2:])
        to_full, to_weights = np.zeros(full.shape, g.dtype), np.zeros(weights.shape, g.dtype)
        along = "xyzuvwabcd"[: len(size)]
        for sample, place in samples(full)[1]:
            to_weights[sample] = np.einsum(f"ngi{along},ngo{along}->goi", full[place], g)
            to_full[place] += np.einsum("ngo...,goi->ngi...", g, weights[sample])
        channels = x.shape[numbers.lhs_spec[1]]
        to_x = full_back(to_full)
        to_x = np.moveaxis(to_x.reshape(to_x.shape[0], parts, channels, *to_x.shape[3:]), 1, 0)
        to_x = to_x.reshape(-1, channels, *to_x.shape[3:])
        to_kernel = to_weights.reshape(-1, *to_weights.shape[2:])
        return np.transpose(to_x, np.argsort(numbers.lhs_spec)), np.transpose(to_kernel, np.argsort(numbers.rhs_spec))

    return value, back


def _fft(params: dict[str, Any], shape: Any) -> Rule:
    """Fourier transforms along the last axes; gradients of complex numbers follow the convention of ``elementwise``."""
    kind = getattr(params["fft_type"], "name", str(params["fft_type"])).upper()
    lengths = tuple(params["fft_lengths"])
    axes = tuple(range(len(shape) - len(lengths), len(shape)))
    whole, last = axes[:-1], axes[-1]

    def through(function: Any, x: Any, over: Any) -> Any:
        return function(x, axes=over) if over else x

    if kind in ("FFT", "IFFT"):
        function = np.fft.fftn if kind == "FFT" else np.fft.ifftn
        return (lambda x: function(x, axes=axes)), lambda g, y, x: (function(g, axes=axes),)
    if kind == "RFFT":

        def back(g: Any, y: Any, x: Any) -> tuple[Any]:
            width = [(0, 0)] * len(shape)
            width[last] = (0, lengths[-1] - g.shape[last])
            return (np.real(np.fft.fftn(np.pad(g, width), axes=axes)),)

        return (lambda x: np.fft.rfftn(x, lengths, axes)), back

    def value(x: Any) -> Any:
        return np.fft.irfft(through(np.fft.ifftn, x, whole), lengths[-1], last)

    def inverse_back(g: Any, y: Any, x: Any) -> tuple[Any]:
        # each coefficient also stands for its conjugate, except the first and, for even lengths, the last
        twice = np.full(shape[last], 2.0)
        twice[0] = 1
        if lengths[-1] % 2 == 0:
            twice[-1] = 1
        along = [1] * len(shape)
        along[last] = -1
        gradient = np.conj(np.fft.rfft(g, lengths[-1], last)) * twice.reshape(along) / lengths[-1]
        return (through(np.fft.ifftn, gradient, whole),)

    return value, inverse_back


MAKERS: dict[str, Maker] = {"dot_general": _dot_general, "conv_general_dilated": _conv, "fft": _fft}
