"""Samples added around the space and taken away from it, against PyTorch and NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_oracle as oracle
from jax import export
from test_against_torch import normal
from torch_oracle import F, assert_agrees, channels_first, channels_last

import fcnn
from fcnn import ops

SPACES = {1: (5,), 2: (4, 5), 3: (3, 4, 3)}
NUMPY = {"CIRCULAR": "wrap", "REFLECT": "reflect", "EDGE": "edge"}


def amounts(pairs):
    """Pairs for each axis in the order of torch: the last axis first."""
    return [amount for pair in reversed(pairs) for amount in pair]


@pytest.mark.parametrize("mode", [None, *oracle.MODES])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("most", [1, 2])
def test_padding_is_torchs(mode, rank, most):
    x = normal(0, 2, *SPACES[rank], 3)
    pairs = tuple(itertools.islice(itertools.cycle([(most, 0), (1, most), (0, 2)]), rank))
    padding, value = (pairs, -0.7) if mode is None else ((mode, pairs), 0.0)

    def theirs(x):
        if mode is None:
            return channels_last(F.pad(channels_first(x), amounts(pairs), value=value))
        return channels_last(F.pad(channels_first(x), amounts(pairs), oracle.MODES[mode]))

    assert_agrees(lambda x: ops.pad(x, padding, value=value), theirs, x)
    assert_agrees(lambda x: fcnn.Pad(padding, value=value).apply({}, x), theirs, x)


@pytest.mark.parametrize("mode", NUMPY)
def test_as_much_as_there_is_can_be_copied(mode):
    x = np.arange(5.0, dtype="f4").reshape(1, 5, 1)
    most = {"CIRCULAR": 5, "REFLECT": 4, "EDGE": 11}[mode]
    expected = np.pad(x, ((0, 0), (most, most), (0, 0)), NUMPY[mode])
    np.testing.assert_array_equal(ops.pad(x, (mode, most)), expected)
    if mode != "EDGE":
        with pytest.raises(ValueError, match=rf'^pad: padding "{mode}" would add {most + 1} samples to an axis of 5'):
            ops.pad(x, (mode, most + 1))


@pytest.mark.parametrize("value", [0.0, 2.5, -float("inf")])
def test_constants_dtypes_and_empty_batches(value):
    for dtype in ("float16", "bfloat16", "float32", "int32"):
        if dtype == "int32" and value != 0:
            continue
        for batch in (0, 2):
            y = ops.pad(jnp.ones((batch, 3, 2), dtype), 1, value=value)
            assert (y.shape, y.dtype) == ((batch, 5, 2), dtype)
            assert (np.asarray(y[:, [0, -1]], float) == value).all()


def test_padding_before_a_window_is_the_padding_of_the_window():
    x = jnp.asarray(normal(0, 2, 7, 8, 3), "float32")
    apart = fcnn.serial(fcnn.Pad(1, value=-float("inf")), fcnn.MaxPool(3, stride=2))
    np.testing.assert_array_equal(apart.apply({}, x), fcnn.MaxPool(3, stride=2, padding=1).apply({}, x))
    for padding in (((2, 1), (0, 1)), ("REFLECT", ((2, 1), (0, 1))), ("EDGE", 2), ("CIRCULAR", 1)):
        apart, together = fcnn.serial(fcnn.Pad(padding), fcnn.Conv(4, 3)), fcnn.Conv(4, 3, padding=padding)
        params = together.init(jax.random.key(0), (7, 8, 3))
        np.testing.assert_allclose(apart.apply({"conv1": params}, x), together.apply(params, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_crops_by_an_amount_are_torchs_negative_padding(rank):
    x = normal(0, 2, *SPACES[rank], 3)
    pairs = ((1, 1), (2, 0), (0, 1))[:rank]

    def theirs(x):
        return channels_last(F.pad(channels_first(x), [-amount for amount in amounts(pairs)]))

    assert_agrees(lambda x: ops.crop(x, pairs), theirs, x)
    assert_agrees(lambda x: fcnn.Crop(pairs).apply({}, x), theirs, x)


@pytest.mark.parametrize(("size", "left"), [(5, 5), (4, 4), (3, 3), (2, 2), (1, 1), ((None, 2), (7, 2))])
def test_a_centred_crop_leaves_the_odd_sample_after(size, left):
    x = np.arange(35.0, dtype="f4").reshape(1, 7, 5, 1)
    rows, columns = left if isinstance(left, tuple) else (left, left)
    top, across = (7 - rows) // 2, (5 - columns) // 2
    expected = x[:, top : top + rows, across : across + columns]
    np.testing.assert_array_equal(ops.crop(x, size=size), expected)
    np.testing.assert_array_equal(fcnn.Crop(size=size).apply({}, x), expected)


def test_a_crop_undoes_a_pad():
    x = jnp.asarray(normal(0, 2, 4, 5, 3), "float32")
    for amount in (2, ((1, 0), (2, 3))):
        for padding in (amount, ("EDGE", amount)):
            np.testing.assert_array_equal(fcnn.serial(fcnn.Pad(padding), fcnn.Crop(amount)).apply({}, x), x)


@pytest.mark.parametrize(
    "layer", [fcnn.Pad(2), fcnn.Pad(("REFLECT", 2)), fcnn.Crop(1), fcnn.Crop(size=(3, None))], ids=str
)
def test_a_symbolic_space(layer):
    shapes = export.symbolic_shape("b, h, w, 3", constraints=["h >= 3", "w >= 3"])
    program = export.export(jax.jit(lambda x: layer.apply({}, x)))(jax.ShapeDtypeStruct(shapes, jnp.float32))
    for space in ((4, 5), (7, 8)):
        x = normal(0, 2, *space, 3).astype("f4")
        np.testing.assert_array_equal(program.call(x), layer.apply({}, x))


def test_receptive_fields():
    def found(*parts):
        return fcnn.analysis.receptive_field(fcnn.serial(*parts), (20, 21, 1))

    conv = fcnn.Conv(1, 3, stride=2)
    zeros, there = found(fcnn.Pad(((2, 1), (0, 3))), conv), found(fcnn.Conv(1, 3, stride=2, padding=((2, 1), (0, 3))))
    assert zeros == there
    assert (zeros.first, zeros.size, zeros.step) == ((-2, 0), (3, 3), (2, 2))
    cut = found(conv, fcnn.Crop(((1, 0), (2, 2))))
    assert cut == found(conv, lambda x: x[:, 1:, 2:-2])
    # outputs begin at samples 2 and 4; what was cut away counts, because a border that is added later lies there
    assert (cut.first, cut.size, cut.step) == ((0, 0), (5, 11), (2, 2))
    for mode in ("REFLECT", "EDGE"):
        seen = found(fcnn.Pad((mode, 1)), conv)
        assert all(first <= -1 and first + size >= 2 for first, size in zip(seen.first, seen.size, strict=True))
    with pytest.raises(ValueError, match='pad1: padding "CIRCULAR" joins the two ends'):
        found(fcnn.Pad(("CIRCULAR", 1)), conv)
    with pytest.raises(ValueError, match=r"crop1: .*size of the space"):
        found(fcnn.Crop(size=9))


@pytest.mark.parametrize("padding", [((2, 1), (0, 3)), ("REFLECT", 2), ("EDGE", 3)], ids=str)
def test_images_computed_in_tiles(padding):
    net = fcnn.serial(fcnn.Pad(padding), fcnn.Conv(3, 5), jnp.tanh, fcnn.Crop(((1, 0), (0, 1))), fcnn.Conv(2, 2))
    params, x = net.init(jax.random.key(0), (40, 41, 1)), normal(0, 1, 40, 41, 1).astype(np.float32)
    tiled = fcnn.scan_tiles(net, params, x[0], tile=22, progress=False)
    np.testing.assert_allclose(tiled, net.apply(params, x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [fcnn.Pad(1), fcnn.Crop(1)], ids=str)
def test_a_scan_computes_them_window_by_window_alone(layer):
    net = fcnn.serial(layer, fcnn.Flatten(), fcnn.Dense(2))
    with pytest.raises(ValueError, match=f"{layer.label}1: .* the window, whose border lies elsewhere"):
        fcnn.Scan(net, 4).out_shape((8, 8, 1))
    scan, x = fcnn.Scan(net, 4, method="patches"), normal(0, 1, 6, 7, 1).astype(np.float32)
    params = scan.init(jax.random.key(0), (6, 7, 1))
    np.testing.assert_allclose(scan.apply(params, x)[:, 2, 1], net.apply(params, x[:, 2:, 1:5]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda x: ops.pad(x, "SAME"), ValueError, "^pad: padding 'SAME' says how much only where there is a window"),
        (lambda x: ops.pad(x, -1), ValueError, r"^pad: padding -1 is below 0; remove samples by fcnn\.Crop"),
        (lambda x: ops.pad(x[0, 0], 1), ValueError, r"^pad: an input of \(3,\) has channels only"),
        (lambda x: ops.crop(x), TypeError, "^crop: amount is None and size is None; give one"),
        (lambda x: ops.crop(x, 2), ValueError, "^crop: amount 2 leaves nothing"),
        (lambda x: ops.crop(x, size=5), ValueError, "^crop: size 5 is larger"),
    ],
)
def test_mistakes(call, kind, says):
    with pytest.raises(kind, match=says):
        call(np.ones((2, 4, 4, 3), "f4"))


def test_a_traced_amount_is_refused():
    with pytest.raises(TypeError, match="padding is traced"):
        jax.jit(lambda n: ops.pad(jnp.ones((1, 4, 1)), n))(1)
    with pytest.raises(TypeError, match="value must be a number that is known"):
        jax.jit(lambda v: ops.pad(jnp.ones((1, 4, 1)), 1, value=v))(1.0)
