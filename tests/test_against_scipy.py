"""Convolution and pooling against SciPy and NumPy: correlation, matrices, Fourier transforms, image filters."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import linalg, ndimage, signal

from fcnn import ops

pytestmark = pytest.mark.usefixtures("x64")

RANKS = (1, 2, 3)
SPACE = (7, 6, 5)
KERNEL = (3, 2, 4)
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def spread(kernel, dilation):
    """The kernel (*kernel, in, out) with zeros between its samples."""
    rank = len(dilation)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel.shape[:rank], dilation, strict=True)]
    wide = np.zeros((*spans, *kernel.shape[rank:]))
    wide[tuple(slice(None, None, d) for d in dilation)] = kernel
    return wide


def filtered(x, image_filter, **options):
    """A filter of scipy.ndimage on each channel of each example."""
    channels_first = np.moveaxis(x, -1, 1)
    maps = [[image_filter(channel, **options) for channel in example] for example in channels_first]
    return np.moveaxis(maps, 1, -1)


# Convolution is correlation.


@pytest.mark.parametrize("dilation", [(1, 1, 1), (2, 1, 1)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize("rank", RANKS)
def test_conv_is_scipys_correlation(rank, stride, dilation):
    stride, dilation = stride[:rank], dilation[:rank]
    x, kernel, bias = normal(0, 2, *SPACE[:rank], 3), normal(1, *KERNEL[:rank], 3, 4), normal(2, 4)
    wide = spread(kernel, dilation)
    whole = [[signal.correlate(one, w, "valid", "direct")[..., 0] for w in np.moveaxis(wide, -1, 0)] for one in x]
    expected = np.moveaxis(whole, 1, -1)[(slice(None), *(slice(None, None, s) for s in stride))] + bias
    assert_allclose(ops.conv(x, kernel, bias, stride=stride, dilation=dilation), expected, **CLOSE)


@pytest.mark.parametrize("rank", RANKS)
def test_conv_is_scipys_convolution_with_the_kernel_turned(rank):
    x, kernel = normal(0, *SPACE[:rank]), normal(1, *KERNEL[:rank])
    full = tuple((k - 1, k - 1) for k in kernel.shape)
    y = ops.conv(x[None, ..., None], kernel[..., None, None], padding=full)
    assert_allclose(y[0, ..., 0], signal.convolve(x, np.flip(kernel), "full", "direct"), **CLOSE)


@pytest.mark.parametrize("rank", RANKS)
def test_conv_with_same_padding_is_scipys_same_mode(rank):
    x, kernel = normal(0, *SPACE[:rank]), normal(1, *(3, 5, 3)[:rank])  # an even kernel has no middle
    y = ops.conv(x[None, ..., None], kernel[..., None, None], padding="SAME")
    assert_allclose(y[0, ..., 0], signal.correlate(x, kernel, "same", "direct"), **CLOSE)


@pytest.mark.parametrize("rank", RANKS)
def test_gradients_of_conv_are_a_full_convolution_and_a_correlation(rank):
    x, kernel = normal(0, 1, *SPACE[:rank], 1), normal(1, *KERNEL[:rank], 1, 1)
    y, pullback = jax.vjp(ops.conv, x, kernel)
    cotangent = normal(2, *y.shape)
    to_x, to_kernel = pullback(cotangent)
    x, kernel, cotangent = x[0, ..., 0], kernel[..., 0, 0], cotangent[0, ..., 0]
    assert_allclose(to_x[0, ..., 0], signal.convolve(cotangent, kernel, "full", "direct"), **CLOSE)
    assert_allclose(to_kernel[..., 0, 0], signal.correlate(x, cotangent, "valid", "direct"), **CLOSE)


# Convolution is a product with a Toeplitz matrix, the transposed convolution with its transpose.


def toeplitz(kernel, space):
    """The matrix of a convolution of flattened inputs: for an image, Toeplitz blocks in a Toeplitz pattern."""
    if kernel.ndim == 1:
        windows = space[0] - kernel.size + 1
        zeros = np.zeros(windows + kernel.size)
        return linalg.toeplitz([kernel[0], *zeros[: windows - 1]], [*kernel, *zeros[: windows - 1]])
    windows = space[0] - len(kernel) + 1
    return sum(np.kron(np.eye(windows, space[0], j), toeplitz(row, space[1:])) for j, row in enumerate(kernel))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("rank", RANKS)
def test_conv_is_a_product_with_a_toeplitz_matrix(rank, stride):
    space, kernel = SPACE[:rank], normal(0, *KERNEL[:rank])
    x, weights = normal(1, 1, *space, 1), kernel[..., None, None]
    out = tuple(m - k + 1 for m, k in zip(space, kernel.shape, strict=True))
    rows = np.arange(np.prod(out)).reshape(out)[(slice(None, None, stride),) * rank]
    matrix = toeplitz(kernel, space)[rows.ravel()]

    y, pullback = jax.vjp(lambda x: ops.conv(x, weights, stride=stride), x)
    assert y.shape == (1, *rows.shape, 1)
    assert_allclose(y.ravel(), matrix @ x.ravel(), **CLOSE)

    cotangent = normal(2, *y.shape)
    expected = (matrix.T @ cotangent.ravel()).reshape(space)
    assert_allclose(pullback(cotangent)[0][0, ..., 0], expected, **CLOSE)

    # without the samples at the end that no strided window sees
    seen = tuple(slice(stride * (m - 1) + k) for m, k in zip(rows.shape, kernel.shape, strict=True))
    transposed = ops.conv_transpose(cotangent, weights, stride=stride)
    assert_allclose(transposed[0, ..., 0], expected[seen], **CLOSE)


# Circular convolution is a product of Fourier transforms.


@pytest.mark.parametrize("rank", RANKS)
def test_circular_conv_is_a_product_of_fourier_transforms(rank):
    space, sizes = SPACE[:rank], KERNEL[:rank]
    x, kernel = normal(0, *space), normal(1, *sizes)
    axes, before = tuple(range(rank)), [(k - 1) // 2 for k in sizes]
    spectrum = np.fft.fftn(kernel, space, axes)

    y, pullback = jax.vjp(lambda x: ops.conv(x, kernel[..., None, None], padding="CIRCULAR"), x[None, ..., None])
    correlation = np.fft.ifftn(np.fft.fftn(x) * spectrum.conj()).real
    assert_allclose(y[0, ..., 0], np.roll(correlation, before, axes), **CLOSE)

    cotangent = normal(2, *y.shape)
    turned_back = np.roll(cotangent[0, ..., 0], [-p for p in before], axes)
    convolution = np.fft.ifftn(np.fft.fftn(turned_back) * spectrum).real
    assert_allclose(pullback(cotangent)[0][0, ..., 0], convolution, **CLOSE)


# Pooling with stride 1 is an image filter.

MODES = (("SAME", "constant"), ("CIRCULAR", "wrap"), ("REFLECT", "mirror"))


def origin(window):
    """Where SciPy puts the window so that, of an even one, the odd sample lies after, as in fcnn."""
    return [-1 if size % 2 == 0 else 0 for size in window]


@pytest.mark.parametrize(("padding", "mode"), MODES)
@pytest.mark.parametrize("rank", RANKS)
def test_max_pool_is_scipys_maximum_filter(rank, padding, mode):
    x, window = normal(0, 2, *SPACE[:rank], 2), KERNEL[:rank]
    expected = filtered(x, ndimage.maximum_filter, size=window, mode=mode, cval=-np.inf, origin=origin(window))
    assert_allclose(ops.max_pool(x, window, stride=1, padding=padding), expected, **CLOSE)


@pytest.mark.parametrize("dilation", [(2, 2, 1), (3, 1, 2)])
@pytest.mark.parametrize("rank", RANKS)
def test_dilated_max_pool_is_a_filter_with_holes(rank, dilation):
    x, window, dilation = normal(0, 2, *SPACE[:rank], 2), (3, 2, 3)[:rank], dilation[:rank]
    footprint = spread(np.ones(window), dilation) > 0
    expected = filtered(
        x,
        ndimage.maximum_filter,
        footprint=footprint,
        mode="constant",
        cval=-np.inf,
        origin=origin(footprint.shape),
    )
    assert_allclose(ops.max_pool(x, window, stride=1, padding="SAME", dilation=dilation), expected, **CLOSE)


@pytest.mark.parametrize("rank", RANKS)
def test_strided_max_pool_keeps_every_second_window(rank):
    x = normal(0, 2, *SPACE[:rank], 2)
    whole = filtered(x, ndimage.maximum_filter, size=3)
    inside = (slice(None), *(slice(1, size - 1, 2) for size in SPACE[:rank]))
    assert_allclose(ops.max_pool(x, 3, stride=2), whole[inside], **CLOSE)


@pytest.mark.parametrize(("padding", "mode"), MODES)
@pytest.mark.parametrize("rank", RANKS)
def test_avg_pool_is_scipys_uniform_filter(rank, padding, mode):
    x, window = normal(0, 2, *SPACE[:rank], 2), KERNEL[:rank]
    options = {"size": window, "mode": mode, "origin": origin(window)}
    means = filtered(x, ndimage.uniform_filter, **options)
    pooled = ops.avg_pool(x, window, stride=1, padding=padding, count_padding=True)
    assert_allclose(pooled, means, **CLOSE)
    shares = filtered(np.ones_like(x), ndimage.uniform_filter, **options)
    assert_allclose(ops.avg_pool(x, window, stride=1, padding=padding), means / shares, **CLOSE)


@pytest.mark.parametrize("power", [1, 2, 3.5])
@pytest.mark.parametrize("rank", RANKS)
def test_lp_pool_is_a_filter_by_the_norm(rank, power):
    x, window = normal(0, 2, *SPACE[:rank], 2), KERNEL[:rank]
    expected = filtered(
        x,
        ndimage.generic_filter,
        function=lambda seen: linalg.norm(seen, power),
        size=window,
        mode="constant",
        origin=origin(window),
    )
    assert_allclose(ops.lp_pool(x, window, power=power, stride=1, padding="SAME"), expected, **CLOSE)
