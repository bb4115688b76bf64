"""What padding means: how much is added, and of what."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn import geometry, ops
from fcnn.analysis import receptive_field

MODES = {"CIRCULAR": "wrap", "REFLECT": "reflect", "EDGE": "edge"}


def by_numpy(x, kernel, pairs, mode, stride, dilation):
    """A convolution of x (samples,) after np.pad, by its definition."""
    x = np.pad(x, pairs, mode=mode)
    span = dilation * (len(kernel) - 1) + 1
    return [x[i : i + span : dilation] @ kernel for i in range(0, len(x) - span + 1, stride)]


def conv(x, kernel, **options):
    with jax.enable_x64(True):
        return np.asarray(ops.conv(x[None, :, None], kernel[:, None, None], **options)).ravel()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("size", "stride", "dilation"), [(3, 3, 1), (4, 2, 1), (2, 3, 3), (5, 4, 1), (3, 2, 2)])
def test_a_mode_alone_adds_half_of_the_kernel_whatever_the_stride(mode, size, stride, dilation):
    """Flax's amounts: (k - 1) // 2 before and k // 2 after, k with dilation."""
    x, kernel = np.random.default_rng(0).normal(size=11), np.random.default_rng(1).normal(size=size)
    span = dilation * (size - 1) + 1
    expected = by_numpy(x, kernel, ((span - 1) // 2, span // 2), MODES[mode], stride, dilation)
    found = conv(x, kernel, padding=mode, stride=stride, dilation=dilation)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_circular_with_a_stride_as_flax_and_pytorch_have_it():
    """PyTorch 2.13, Conv1d(1, 1, 3, stride=3, padding=1, padding_mode="circular"), and Flax give these."""
    x, kernel = np.arange(1.0, 6.0), np.array([1.0, 2.0, 1.0])
    assert conv(x, kernel, stride=3, padding="CIRCULAR").tolist() == [9.0, 16.0]
    assert conv(x, kernel, stride=3, padding=("CIRCULAR", 1)).tolist() == [9.0, 16.0]
    assert conv(x, kernel, stride=3, padding=("CIRCULAR", "SAME")).tolist() == [8.0, 15.0]  # 0 before, 1 after


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pair", [(3, 1), (0, 4), (4, 0)])
def test_a_mode_takes_any_amount_before_and_after(mode, pair):
    x, kernel = np.random.default_rng(0).normal(size=5), np.random.default_rng(1).normal(size=3)
    expected = by_numpy(x, kernel, pair, MODES[mode], 2, 1)
    np.testing.assert_allclose(conv(x, kernel, padding=(mode, (pair,)), stride=2), expected, rtol=0, atol=1e-12)


def test_same_lower_puts_the_odd_sample_before():
    """The two auto_pad of ONNX, which differ where an odd number is added."""
    assert geometry.slide((8, 7), (4, 3), stride=(1, 2), padding="SAME_LOWER").pads == ((2, 1), (1, 1))
    assert geometry.slide((8, 7), (4, 3), stride=(1, 2), padding="SAME").pads == ((1, 2), (1, 1))
    x, kernel = np.arange(1.0, 5.0), np.array([1.0, 10.0])
    assert conv(x, kernel, padding="SAME_LOWER").tolist() == [10.0, 21.0, 32.0, 43.0]
    assert conv(x, kernel, padding="SAME").tolist() == [21.0, 32.0, 43.0, 4.0]


@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", *MODES, ("CIRCULAR", "SAME"), ("EDGE", "SAME_LOWER")])
@pytest.mark.parametrize(("size", "stride"), [(4, 2), (3, 2), (5, 3), (2, 3)])
def test_a_transposed_convolution_turns_the_convolution_around(padding, size, stride):
    """<conv(x), y> = <x, conv_transpose(y)> for every size that the convolution may have been given."""
    for wanted in range(3 * stride + 1, 4 * stride + 1):
        x, y, kernel = (np.random.default_rng(i).normal(size=n) for i, n in enumerate((wanted, 4, size)))
        forward = conv(x, kernel, padding=padding, stride=stride)
        with jax.enable_x64(True):
            options = {"padding": padding, "stride": stride, "out": wanted}
            back = ops.conv_transpose(y[None, :, None], kernel[:, None, None], **options).ravel()
        np.testing.assert_allclose(forward @ y, x @ np.asarray(back), rtol=1e-12)


LAYERS = [
    fcnn.Conv(3, 3, stride=2, padding=("REFLECT", ((1, 2), (0, 1)))),
    fcnn.LocallyConnected(2, 2, padding=("EDGE", 2)),
    fcnn.AvgPool(2, padding=("CIRCULAR", "CAUSAL"), divisor=3),
    fcnn.MaxPool((2, 2), padding=["EDGE", [[1, 0], [2, 2]]]),
    fcnn.LpPool(2, padding="SAME_LOWER"),
    fcnn.ConvTranspose(2, 3, stride=2, padding=1, out=(11, 10)),
    fcnn.MaxUnpool(2, padding="EDGE"),
    fcnn.Flatten(first=2, last=3),
    fcnn.AdaptiveAvgPool((None, 2)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_layers_are_values_and_their_repr_is_code(layer):
    assert eval(repr(layer)) == layer == pickle.loads(pickle.dumps(layer))
    assert hash(eval(repr(layer))) == hash(layer)


@pytest.mark.parametrize(
    ("padding", "says"),
    [
        (("replicate", 1), "mode is one of CIRCULAR, REFLECT, EDGE"),
        (("CIRCULAR", "REFLECT"), r"not a pair \(mode, amount\)"),
        (("EDGE", None), r"not a pair \(mode, amount\)"),
        (("EDGE", 1, 2), r"not a pair \(mode, amount\)"),
        (("SAME", "EDGE"), r"not a pair \(mode, amount\)"),
        (("EDGE", "same"), "'same' is unknown"),
        (("EDGE", -1), "at least 0"),
        ("replicate", 'such as \\("CIRCULAR", 1\\)'),
    ],
)
def test_mistakes(padding, says):
    with pytest.raises(ValueError, match=says):
        fcnn.Conv(3, 3, padding=padding)


@pytest.mark.parametrize("mode", ["REFLECT", "CIRCULAR"])
def test_no_more_is_copied_than_there_is(mode):
    most = 4 if mode == "REFLECT" else 5
    assert fcnn.Conv(1, 3, padding=(mode, most)).out_shape((5, 1)) == (3 + 2 * most, 1)
    with pytest.raises(ValueError, match=f'"{mode}" would add {most + 1} samples to an axis of 5'):
        fcnn.Conv(1, 3, padding=(mode, most + 1)).out_shape((5, 1))


@pytest.mark.parametrize(
    "padding",
    ["EDGE", "REFLECT", ("EDGE", 3), ("REFLECT", 3), ("REFLECT", ((0, 4),)), ("EDGE", ((5, 0),)), "SAME_LOWER"],
)
@pytest.mark.parametrize("size", [3, 4])
def test_tiles_see_what_padding_copies(padding, size):
    """A network deep enough for the copies to be copies of copies."""
    layers = [fcnn.Conv(2, size, padding=padding, bias=False) for _ in range(3)]
    net = fcnn.serial(*layers, fcnn.MaxPool(2, padding=padding if isinstance(padding, str) else "SAME"), layers[0])
    shape = (90, 1)
    image = np.random.default_rng(0).normal(size=shape).astype("f4")
    params = net.init(jax.random.key(0), shape)
    whole = net.apply(params, image[None])[0]
    tiled = fcnn.scan_tiles(net, params, image, tile=max(receptive_field(net, shape).size[0] + 2, 45), progress=False)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5 * float(jnp.abs(whole).max()))


def test_a_circle_cannot_be_cut_into_tiles():
    with pytest.raises(ValueError, match='padding "CIRCULAR" joins the two ends'):
        receptive_field(fcnn.Conv(1, 3, padding=("CIRCULAR", 1)), (9, 1))


def test_a_padded_layer_in_a_scan_is_refused_and_one_that_adds_nothing_is_not():
    padded = fcnn.Scan(fcnn.serial(fcnn.Conv(1, 3, padding=("EDGE", 1)), fcnn.GlobalAvgPool()), 5)
    with pytest.raises(ValueError, match="its border is part of what it computes"):
        padded.out_shape((9, 1))
    unpadded = fcnn.Scan(fcnn.serial(fcnn.Conv(1, 3, padding=("EDGE", 0)), fcnn.GlobalAvgPool()), 5)
    assert unpadded.out_shape((9, 1)) == (5, 1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("more", [0, 1])
def test_a_transposed_convolution_by_a_mode_and_pairs(mode, more):
    padding = (mode, ((3, 1), (0, 2)))
    x, y, kernel = (
        np.random.default_rng(i).normal(size=n) for i, n in enumerate(((10 + more, 7 + more), (6, 4), (4, 3)))
    )
    options = {"padding": padding, "stride": 2}
    with jax.enable_x64(True):
        forward = ops.conv(x[None, ..., None], kernel[..., None, None], **options)
        back = ops.conv_transpose(y[None, ..., None], kernel[..., None, None], output_padding=more, **options)
    assert forward.shape == (1, 6, 4, 1)
    assert back.shape == (1, 10 + more, 7 + more, 1)
    np.testing.assert_allclose(
        (np.asarray(forward)[0, ..., 0] * y).sum(), (x * np.asarray(back)[0, ..., 0]).sum(), rtol=1e-12
    )


def test_a_circular_transposed_convolution_is_no_part_of_tiles():
    with pytest.raises(ValueError, match='padding "CIRCULAR" adds samples past the ends'):
        receptive_field(fcnn.ConvTranspose(1, 3, padding="CIRCULAR"), (9, 1))


@pytest.mark.parametrize("padding", [("REFLECT", "CAUSAL"), "CAUSAL"])
def test_what_has_no_transpose(padding):
    with pytest.raises(ValueError, match="has no transposed convolution"):
        fcnn.ConvTranspose(1, 3, padding=padding).out_shape((9, 1))


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (
            fcnn.ConvTranspose(1, 3, stride=2, output_padding=2),
            r"output_padding \(2,\) must be smaller than the stride",
        ),
        (fcnn.ConvTranspose(1, 3, stride=2, padding=1, out=30), r"possible are \(17,\) to \(18,\)"),
        (fcnn.ConvTranspose(1, 3, stride=2, padding="SAME", out=16), r"possible are \(17,\) to \(18,\)"),
        (fcnn.ConvTranspose(1, 3, stride=2, out=20, output_padding=1), "the same thing twice"),
    ],
)
def test_sizes_that_cannot_be_reached(layer, says):
    with pytest.raises(ValueError, match=says):
        layer.out_shape((9, 1))
