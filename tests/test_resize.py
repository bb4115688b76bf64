"""Resizing against PyTorch, over the grid of its options, and against jax.image."""

import itertools
import warnings
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from test_against_torch import normal
from torch_oracle import F, assert_agrees, channels_first, channels_last, torch

import fcnn
from fcnn import ops
from fcnn.ops.interpolation import as_matrix

SPACES = [(5, 7), (1, 4), (8, 8), (13, 3)]
SIZES = [(5, 7), (10, 14), (3, 3), (1, 1), (8, 2), (15, 21), (7, 5), (26, 4)]
SCALES = [2, (2, 3), 0.5, 1.5, 0.7, 1.0, (1 / 3, 2.5), 1.3, 2.1, 0.1]
#: PyTorch's names, whether corners are aligned (None: not an option), and antialiasing
MODES = [
    *(("nearest", None, False), ("nearest-exact", None, False)),
    *itertools.product(("bilinear", "bicubic"), (False, True), (False, True)),
]


def interpolated(x, mode, aligned, antialias, **target):
    """PyTorch's own, of x with channels last; None where it takes no such sizes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = channels_first(x).contiguous()
        return channels_last(F.interpolate(first, mode=mode, align_corners=aligned, antialias=antialias, **target))


def layer_for(mode, aligned, antialias, **target):
    target = {"scale" if name == "scale_factor" else name: value for name, value in target.items()}
    more = {} if aligned is None else {"align_corners": aligned, "antialias": antialias}
    return fcnn.Resize(method=mode.replace("-", "_"), **more, **target)


def by_matrices(layer, x):
    """A layer's weights as matrices, multiplied in NumPy."""
    for axis, sampling in enumerate(layer.axes(x.shape[1:]), start=1):
        x = np.moveaxis(np.tensordot(as_matrix(sampling), x, (1, axis)), 0, axis)
    return x


@pytest.mark.parametrize(("mode", "aligned", "antialias"), MODES)
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_weights_are_torchs_for_every_size(space, mode, aligned, antialias):
    x = normal(0, 2, *space, 3)
    for size in SIZES:
        expected = interpolated(torch.tensor(x), mode, aligned, antialias, size=size).numpy()
        found = by_matrices(layer_for(mode, aligned, antialias, size=size), x)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12, err_msg=f"size {size}")


@pytest.mark.parametrize(("mode", "aligned", "antialias"), MODES)
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_weights_are_torchs_for_every_scale(space, mode, aligned, antialias):
    x = normal(0, 2, *space, 3)
    for scale in SCALES:
        factors = scale if isinstance(scale, tuple) else (scale, scale)
        out = [int(n * f) for n, f in zip(space, factors, strict=True)]
        if 0 in out:
            with pytest.raises(ValueError, match=r"resize: scale .* leaves nothing"):
                layer_for(mode, aligned, antialias, scale_factor=scale).out_shape((*space, 3))
            continue
        inexact = [m != n * f for n, m, f in zip(space, out, factors, strict=True)]
        # of these PyTorch computes with another step where channels come last in memory than where they come first
        if mode == "nearest" and any(m in (n, 2 * n) for n, m, odd in zip(space, out, inexact, strict=True) if odd):
            continue
        if antialias and 1 in out:
            continue
        expected = interpolated(torch.tensor(x), mode, aligned, antialias, scale_factor=scale).numpy()
        found = by_matrices(layer_for(mode, aligned, antialias, scale_factor=scale), x)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12, err_msg=f"scale {scale}")


def test_nearest_samples_are_torchs_for_many_sizes():
    for size, mode in itertools.product((*range(1, 24), 64, 100), ("nearest", "nearest-exact")):
        x = torch.arange(size, dtype=torch.float64)[None, None]
        for out in (*range(1, 40), 97, 128):
            (axis,) = layer_for(mode, None, False, size=out).axes((size, 1))
            expected = F.interpolate(x, size=out, mode=mode)[0, 0].numpy()
            np.testing.assert_array_equal(as_matrix(axis).argmax(1), expected, err_msg=f"{size} to {out}")


#: one of every way of computing: by phases, by single samples, by two, four and many
WAYS = {
    "nearest by a whole number": ((4, 5), ("nearest", None, False), {"scale_factor": 2}),
    "nearest exact to a size": ((4, 5), ("nearest-exact", None, False), {"size": (7, 3)}),
    "linear by whole numbers": ((4, 5), ("bilinear", False, False), {"scale_factor": (2, 3)}),
    "cubic by a whole number": ((4, 5), ("bicubic", False, False), {"scale_factor": 4}),
    "linear to a size": ((4, 5), ("bilinear", False, False), {"size": (7, 3)}),
    "cubic to a size": ((4, 5), ("bicubic", False, False), {"size": (7, 3)}),
    "linear with aligned corners": ((4, 5), ("bilinear", True, False), {"size": (7, 9)}),
    "cubic with aligned corners": ((4, 5), ("bicubic", True, False), {"scale_factor": 1.5}),
    "linear with antialiasing": ((9, 8), ("bilinear", False, True), {"size": (3, 3)}),
    "cubic with antialiasing": ((9, 8), ("bicubic", False, True), {"size": (3, 12)}),
    "in one dimension": ((9,), ("linear", False, False), {"size": 5}),
    "in one dimension, by a whole number": ((9,), ("linear", False, False), {"scale_factor": 3}),
    "in three dimensions": ((3, 4, 2), ("trilinear", False, False), {"scale_factor": 2}),
    "in three dimensions, aligned": ((3, 4, 2), ("trilinear", True, False), {"size": (5, 3, 4)}),
}


@pytest.mark.parametrize("name", WAYS)
def test_values_and_gradients_are_torchs(name):
    space, (mode, aligned, antialias), target = WAYS[name]
    layer, x = layer_for(mode, aligned, antialias, **target), normal(0, 2, *space, 3)
    np.testing.assert_allclose(layer.apply({}, x.astype("f4")), by_matrices(layer, x), rtol=1e-5, atol=1e-5)
    assert_agrees(lambda x: layer.apply({}, x), lambda x: interpolated(x, mode, aligned, antialias, **target), x)


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("space", [(5, 7), (13, 3)], ids=str)
def test_the_convention_of_jax_image(space, method):
    x = normal(0, 2, *space, 3).astype(np.float32)
    choices = [{}] if method == "nearest" else [{}, {"antialias": False}]
    for size, given in itertools.product([(10, 14), (3, 3), (26, 4)], choices):
        layer = fcnn.Resize(size, method=method, convention="jax", **given)
        expected = jax.image.resize(x, (2, *size, 3), method, **given)
        np.testing.assert_allclose(by_matrices(layer, x), expected, rtol=0, atol=2e-5, err_msg=f"{size} {given}")
        if size == (3, 3):
            np.testing.assert_allclose(layer.apply({}, x), expected, rtol=0, atol=2e-5)


def test_names_that_mean_the_same():
    assert fcnn.Resize(8, method="bilinear") == fcnn.Resize(8, method="trilinear") == fcnn.Resize(8)
    assert fcnn.Resize(scale=2.0) == fcnn.Resize(scale=2)
    assert fcnn.Resize((None, 9)).out_shape((4, 5, 3)) == (4, 9, 3)


def test_a_sample_without_weight_is_not_looked_at():
    x = jnp.array([1.0, jnp.inf, 3.0]).reshape(1, 3, 1)
    aligned = fcnn.Resize(5, align_corners=True).apply({}, x).ravel().tolist()
    assert aligned == [1.0, np.inf, np.inf, np.inf, 3.0]
    tripled = fcnn.Resize(scale=3).apply({}, jnp.array([1.0, 2.0, jnp.nan]).reshape(1, 3, 1)).ravel()
    assert np.isnan(tripled).tolist() == [False] * 5 + [True] * 4


@pytest.mark.parametrize(
    "layer", [fcnn.Resize(3), fcnn.Resize(scale=2), fcnn.Resize(scale=2, method="nearest")], ids=str
)
def test_dtypes_empty_batches_and_vmap(layer):
    for dtype in ("float16", "bfloat16", "float32"):
        y = layer.apply({}, jnp.ones((0, 4, 5, 2), dtype))
        assert (y.shape, y.dtype) == ((0, *layer.out_shape((4, 5, 2))), dtype)
        np.testing.assert_array_equal(layer.apply({}, jnp.ones((1, 4, 5, 2), dtype)), 1)
    x = normal(0, 3, 2, 4, 5, 2).astype("f4")
    np.testing.assert_array_equal(jax.vmap(lambda x: layer.apply({}, x))(x), jnp.stack([layer.apply({}, a) for a in x]))


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
def test_a_symbolic_space_by_whole_numbers(method):
    layer = fcnn.Resize(scale=(2, 3), method=method)
    shapes = export.symbolic_shape("b, h, w, 3", constraints=["h >= 3", "w >= 3"])
    program = export.export(jax.jit(lambda x: layer.apply({}, x)))(jax.ShapeDtypeStruct(shapes, jnp.float32))
    for space in ((4, 5), (7, 8)):
        x = normal(0, 2, *space, 3).astype("f4")
        np.testing.assert_allclose(program.call(x), layer.apply({}, x), rtol=1e-6, atol=1e-6)


def function(scale, method):
    return lambda x: jax.image.resize(x, (x.shape[0], *(int(n * scale) for n in x.shape[1:-1]), x.shape[-1]), method)


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("scale", [2, 3, 1.5, 0.5])
def test_receptive_fields_are_those_of_jax_images_functions(scale, method):
    conv = fcnn.Conv(1, 3, padding="SAME")
    layer = fcnn.Resize(scale=scale, method=method, convention="jax")
    found, expected = (
        fcnn.analysis.receptive_field(fcnn.serial(conv, part, conv), (24, 12, 1))
        for part in (layer, function(scale, method))
    )
    assert found == expected
    assert found.step == (1 / Fraction(scale),) * 2


@pytest.mark.parametrize("layer", [fcnn.Resize(8), fcnn.Resize(scale=2, align_corners=True)], ids=str)
def test_steps_that_depend_on_the_size_have_no_receptive_field(layer):
    with pytest.raises(ValueError, match=r"resize1: .*depend on the size of the image; resize by a factor"):
        fcnn.analysis.receptive_field(fcnn.serial(layer), (12, 12, 1))


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
def test_images_computed_in_tiles(method):
    net = fcnn.serial(
        fcnn.Conv(3, 3, stride=2), jnp.tanh, fcnn.Resize(scale=2, method=method), fcnn.Conv(2, 3, padding="SAME")
    )
    params, x = net.init(jax.random.key(0), (41, 43, 1)), normal(0, 1, 41, 43, 1).astype(np.float32)
    tiled = fcnn.scan_tiles(net, params, x[0], tile=24, progress=False)
    np.testing.assert_allclose(tiled, net.apply(params, x)[0], rtol=1e-5, atol=1e-6)


def test_a_scan_computes_it_window_by_window_alone():
    net = fcnn.serial(fcnn.Resize(scale=2), fcnn.Flatten(), fcnn.Dense(2))
    with pytest.raises(ValueError, match=r"resize1: .*makes values between the samples, so positions cannot share"):
        fcnn.Scan(net, 4).out_shape((8, 8, 1))
    scan, x = fcnn.Scan(net, 4, method="patches"), normal(0, 1, 6, 7, 1).astype(np.float32)
    params = scan.init(jax.random.key(0), (6, 7, 1))
    np.testing.assert_allclose(scan.apply(params, x)[:, 2, 1], net.apply(params, x[:, 2:, 1:5]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda x: ops.resize(x), TypeError, "^resize: size is None and scale is None; give one"),
        (lambda x: ops.resize(x, 3, scale=2), TypeError, "^resize: size is 3 and scale is 2; give one"),
        (lambda x: ops.resize(x, (3, 3, 3)), ValueError, r"^resize: size \(3, 3, 3\) is for 3 space axes"),
        (lambda x: ops.resize(x, scale=(2, 2, 2)), ValueError, r"^resize: scale \(2, 2, 2\) is for 3 space axes"),
        (lambda x: ops.resize(x, scale=0.1), ValueError, "^resize: scale 0.1 leaves nothing"),
        (lambda x: ops.resize(x[0, 0], 3), ValueError, r"^resize: an input of \(3,\) has channels only"),
        (lambda x: ops.resize(x.astype(int), 3), TypeError, "^resize: x has dtype int"),
    ],
)
def test_mistakes(call, kind, says):
    with pytest.raises(kind, match=says):
        call(np.ones((2, 4, 4, 3), "f4"))
