"""The receptive field that integers give, against which outputs change when one sample of the input does."""

import itertools
from dataclasses import dataclass
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn.analysis.bridge import to_reference
from fcnn.scan import Scan
from fcnn.scan.receptive_field import receptive_field


def padding(numbers, rank, most):
    """Any padding that parts of an image can be computed with, up to ``most`` samples where it is in numbers."""
    pairs = tuple((int(a), int(b)) for a, b in numbers.integers(0, most + 1, (rank, 2)))
    return ("VALID", "SAME", "SAME", "CAUSAL", "REFLECT", int(numbers.integers(0, most + 1)), pairs)[
        numbers.integers(7)
    ]


def layer(numbers, rank, features, transposed=True):
    """A convolution or pooling with hyperparameters of any kind."""
    kernel, stride, dilation = (tuple(map(int, numbers.integers(1, n, rank))) for n in (5, 4, 3))
    options = {"stride": stride, "padding": padding(numbers, rank, 3), "dilation": dilation}
    kind = numbers.integers(0 if transposed else 1, 8)
    if kind == 0:
        options["padding"] = ("VALID", "SAME", int(numbers.integers(min(kernel))))[numbers.integers(3)]
        return fcnn.ConvTranspose(features, kernel, output_padding=int(numbers.integers(2)), **options)
    if kind <= 3:
        return fcnn.Conv(features, kernel, **options)
    options["padding"] = padding(numbers, rank, 1)
    options |= {"ceil_mode": bool(numbers.integers(2)), "stride": (stride, None)[numbers.integers(2)]}
    window = tuple(min(size, 3) for size in kernel)
    if kind == 4:
        return fcnn.AvgPool(window, count_padding=bool(numbers.integers(2)), **options)
    return (fcnn.MaxPool if kind < 7 else fcnn.LpPool)(window, **options)


def part(numbers, rank, features, transposed):
    """A layer, a function, or a small composition."""
    kind = numbers.integers(0, 8)
    if kind == 0:
        return (jax.nn.relu, jnp.tanh)[numbers.integers(2)]
    if kind == 1:
        kernel = tuple(map(int, numbers.integers(1, 4, rank)))
        same = fcnn.Conv(features, kernel, padding=("SAME", "REFLECT")[numbers.integers(2)])
        return (fcnn.residual, lambda body: fcnn.repeat(body, 2))[numbers.integers(2)](fcnn.serial(same, jnp.tanh))
    if kind == 2:
        sizes, stride = numbers.integers(1, 5, 2), int(numbers.integers(1, 3))
        return fcnn.branches(
            fcnn.Conv(features, 1, stride=stride),
            fcnn.serial(fcnn.Conv(features, int(sizes[0]), padding="SAME", stride=stride), jax.nn.relu),
            fcnn.remat(fcnn.AvgPool(min(int(sizes[1]), 3), stride=stride, padding="SAME")),
        )
    return layer(numbers, rank, features, transposed)


#: samples along an axis of the images that random networks are drawn for, at most, by the rank of the space
LARGE, SMALL = {1: 160, 2: 40, 3: 16}, {1: 60, 2: 20, 3: 9}


def drawn(seed, *, features=2, most, transposed=True):
    """A network of one to five random parts, and the shape of an image that it takes."""
    for attempt in itertools.count():
        numbers = np.random.default_rng((seed, attempt))
        rank = int(numbers.integers(1, 4))
        net = fcnn.serial(*(part(numbers, rank, features, transposed) for _ in range(numbers.integers(1, 6))))
        shape = (*map(int, numbers.integers(most[rank] // 3, most[rank], rank)), features)
        try:
            out = net.out_shape(shape)
        except ValueError:  # does not fit
            continue
        if np.prod(out) < 30_000:
            return net, shape, numbers


def changed(net, shape):
    """Which outputs change with which sample: (samples, *space) and (samples, *out), sample by sample.

    All kernels are positive and all offsets 0, so what is not 0 for an image that is 0 but for one sample has seen it.
    """
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), shape))
    params = jax.tree.map_with_path(lambda path, a: np.full(a.shape, float(path[-1].key == "kernel")), params)
    places = np.eye(int(np.prod(shape[:-1]))).reshape(-1, *shape[:-1])
    images = np.broadcast_to(places[..., None], (*places.shape, shape[-1]))
    return places > 0, np.asarray(to_reference(net, params, shape)[0].forward(images)).any(-1)


def ends(net, shape):
    """For every axis, output by output, the first and the last sample along it that changes any output there."""
    samples, outputs = changed(net, shape)
    for axis in range(len(shape) - 1):
        others = tuple(a for a in range(1, len(shape)) if a != axis + 1)
        place = samples.any(others).argmax(-1)  # of the sample along the axis
        sees = outputs.any(others)  # (samples, outputs along the axis)
        yield [(place[row].min(), place[row].max()) if row.any() else None for row in sees.T]


@pytest.mark.parametrize("seed", range(80))
def test_no_output_sees_more_and_those_inside_see_all(seed):
    net, shape, _ = drawn(seed, features=1, most=SMALL)
    seen = receptive_field(net, shape)
    transposed = "ConvTranspose" in repr(net)
    for axis, along in enumerate(ends(net, shape)):
        for i, found in enumerate(along):
            first = seen.first[axis] + seen.step[axis] * i
            last = first + seen.size[axis] - 1
            if found is None:
                assert transposed or first < 0 or last >= shape[axis]
                continue
            mirrored = "REFLECT" in repr(net) and (first < 0 or last >= shape[axis])
            assert mirrored or first <= found[0] <= found[1] <= last
            if first >= 0 and last < shape[axis] and not transposed:
                assert found == (first, last)


VGG = fcnn.serial(
    *(
        part
        for depth in (2, 2, 3, 3, 3)
        for part in (*[fcnn.Conv(1, 3, padding="SAME"), jax.nn.relu] * depth, fcnn.MaxPool(2))
    )
)
ALEXNET = fcnn.serial(
    *[fcnn.Conv(1, 11, stride=4), fcnn.MaxPool(3, stride=2), fcnn.Conv(1, 5, padding="SAME")],
    *[fcnn.MaxPool(3, stride=2), *[fcnn.Conv(1, 3, padding="SAME")] * 3, fcnn.MaxPool(3, stride=2)],
)


@pytest.mark.parametrize(
    ("net", "side", "size", "step", "padding"),
    [(ALEXNET, 227, 195, 32, 64), (VGG, 224, 212, 32, 90)],
    ids=["alexnet", "vgg"],
)
def test_networks_of_the_literature(net, side, size, step, padding):
    """The table of Araujo, Norris and Sim 2019: receptive field, effective stride, effective padding."""
    seen = receptive_field(net, (side, side, 3))
    assert (seen.size, seen.step, seen.first) == ((size,) * 2, (step,) * 2, (-padding,) * 2)


def test_paths_side_by_side_see_what_each_of_them_sees():
    net = fcnn.branches(fcnn.Conv(1, 3, padding=(2, 0)), fcnn.Conv(1, (1,), padding=0), fcnn.Conv(1, 4, padding=(0, 3)))
    assert (receptive_field(net, (20, 1)).first, receptive_field(net, (20, 1)).size) == ((-2,), (6,))


def test_what_is_computed_at_every_position_is_a_window():
    detector = fcnn.serial(fcnn.Conv(2, 3), fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(3))
    net = fcnn.serial(fcnn.Conv(2, 3, padding="SAME", stride=2), Scan(detector, (8, 10), stride=(3, 1)), jax.nn.relu)
    seen = receptive_field(net, (61, 40, 2))
    assert (seen.size, seen.step, seen.first) == ((17, 21), (6, 2), (-1, 0))


def test_a_finer_output_moves_with_the_input_by_periods():
    down, up = fcnn.Conv(2, 3, stride=2, padding="SAME"), fcnn.ConvTranspose(2, 2, stride=2)
    fine = receptive_field(fcnn.ConvTranspose(2, 4, stride=3), (20, 1))
    assert (fine.step, fine.period) == ((Fraction(1, 3),), (1,))
    same = receptive_field(fcnn.serial(down, down, up, up), (32, 1))
    assert (same.step, same.period) == ((1,), (4,))


@dataclass(frozen=True)
class Everywhere(fcnn.Layer):
    """A layer of a user's own, with one number for every channel or for every value."""

    shared: bool

    def parameters(self, shape):
        return {"offset": fcnn.Parameter(shape[-1:] if self.shared else shape, jax.nn.initializers.zeros)}

    def forward(self, params, x):
        return x + params["offset"]


def test_a_layer_of_ones_own_is_looked_into():
    net = fcnn.serial(fcnn.Conv(2, 3), Everywhere(True), fcnn.Conv(2, 2))
    assert receptive_field(net, (20, 12, 1)).size == (4, 4)
    with pytest.raises(ValueError, match=r"everywhere1: .*Everywhere\(False\) uses numbers of its own that differ"):
        receptive_field(fcnn.serial(fcnn.Conv(2, 3), Everywhere(False)), (20, 12, 1))


@dataclass(frozen=True)
class TwiceAlternating(fcnn.Layer):
    """A composition of a user's own: its part on x, and again on every other value of what it made."""

    body: fcnn.Layer

    def infer_shape(self, shape):
        space, channels = self.body.infer_shape(shape)[:-1], shape[-1]
        return self.body.infer_shape((*(-(-n // 2) for n in space), channels))

    def init_part(self, key, shapes):
        return {"body": self.body.init_part(key, shapes)}

    def run(self, context, params, state, inputs):
        y, _ = context.part("body", self.body, params, state, inputs)
        y = y[:, ::2, ::2]
        return context.part("body", self.body, params, state, (y,), use=1)


def test_a_composition_of_ones_own_is_followed():
    net = fcnn.serial(TwiceAlternating(fcnn.Conv(2, 3)), jnp.tanh)
    seen = receptive_field(net, (20, 17, 2))
    assert (seen.step, seen.size, seen.first) == ((2, 2), (7, 7), (0, 0))
    for axis, along in enumerate(sampled(net, (20, 17, 2))):
        for i, (first, last) in enumerate(along):
            assert (first, last) == (2 * i, 2 * i + 6), axis


def sampled(net, shape):
    """For every axis, output by output, the first and the last sample that makes it NaN."""
    places = np.eye(int(np.prod(shape[:-1])), dtype=bool).reshape(-1, *shape[:-1])
    images = np.where(places[..., None], np.nan, np.ones((*places.shape, shape[-1])))
    outputs = np.isnan(net.apply(net.init(jax.random.key(0), shape), jnp.asarray(images))).any(-1)
    for axis in (1, 2):
        sees, place = outputs.any(3 - axis), places.any(3 - axis).argmax(-1)
        yield [(place[row].min(), place[row].max()) for row in sees.T]


def test_a_loop_is_followed_turn_by_turn():
    def blurred(x):
        def blur(x, weight):
            padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
            return weight * (padded[:, 2:] + padded[:, :-2]), x

        return jax.lax.scan(blur, x, jnp.arange(1.0, 6.0))[0]

    seen = receptive_field(fcnn.serial(blurred, fcnn.repeat(fcnn.Conv(2, 3, padding="SAME"), 4)), (40, 2))
    assert (seen.step, seen.size, seen.first) == ((1,), (10 + 1 + 8,), (-9,))
    with pytest.raises(ValueError, match=r"mixes positions \(scan along an axis\)"):
        receptive_field(
            lambda x: jax.lax.scan(lambda c, row: (c + row, c), jnp.zeros((x.shape[0], 2)), x.swapaxes(0, 1))[
                1
            ].swapaxes(0, 1),
            (8, 2),
        )


def test_several_arrays_per_position_may_come_last():
    net = fcnn.serial(Scan(fcnn.Conv(2, 3), 5), jax.nn.relu)
    assert receptive_field(net, (20, 20, 1)).size == (5, 5)
    assert receptive_field(fcnn.serial(fcnn.Conv(2, 3), lambda x: x.max(-1), jax.nn.relu), (20, 20, 1)).size == (3, 3)
    with pytest.raises(ValueError, match=r"dense1: is given \(18, 18\) by the part before it, which is not"):
        receptive_field(fcnn.serial(fcnn.Conv(2, 3), lambda x: x.max(-1), fcnn.Dense(2)), (20, 20, 1))


@fcnn.graph(conv=fcnn.Conv(4, 3, padding="SAME"))
def turned(layer, x):
    return layer.conv(x)[:, ::-1]


@fcnn.graph(conv=fcnn.Conv(4, 3, stride=2, padding="SAME"), other=fcnn.Conv(4, 3, padding="SAME"))
def uneven(layer, x):
    return layer.conv(x) + layer.other(x)[:, : -(-x.shape[1] // 2), : -(-x.shape[2] // 2)]


REFUSED = {
    "flatten": (fcnn.Flatten(), r"fcnn.Flatten\(\) joins all positions.*use it at every position by fcnn.Scan"),
    "global max": (fcnn.GlobalMaxPool(), "pools over all positions; leave it out"),
    "global mean": (fcnn.GlobalAvgPool(), "pools over all positions; leave it out"),
    "adaptive mean": (fcnn.AdaptiveAvgPool(2), "windows that depend on the size of the image; use AvgPool"),
    "adaptive max": (fcnn.AdaptiveMaxPool(2), "windows that depend on the size of the image; use MaxPool"),
    "group norm": (fcnn.GroupNorm(1), "takes its statistics over all positions; use BatchNorm"),
    "instance norm": (fcnn.InstanceNorm(), "takes its statistics over all positions; use BatchNorm"),
    "unshared": (fcnn.LocallyConnected(2, 2), "kernel of its own for every position; use Conv"),
    "circular": (fcnn.Conv(2, 3, padding="CIRCULAR"), 'padding "CIRCULAR" joins the two ends of the space'),
    "circular pool": (fcnn.MaxPool(2, stride=1, padding="CIRCULAR"), 'padding "CIRCULAR" joins the two ends'),
    "turned": (lambda x: x[:, ::-1], "mixes positions"),
    "half": (lambda x: x[:, : x.shape[1] // 2], "computes with the size of the space"),
    "rolled": (lambda x: jnp.roll(x, 1, 1), "concatenates pieces of the space"),
    "summed up": (lambda x: x.cumsum(1), "mixes positions"),
    "numbered": (lambda x: x + jnp.arange(x.shape[1], dtype=x.dtype)[:, None, None], "numbers of its own that differ"),
    "of one size": (
        lambda x: jax.image.resize(x, (x.shape[0], 24, 24, x.shape[3]), "linear"),
        "does not weight samples equally",
    ),
    "corners aligned": (
        lambda x: jax.image.scale_and_translate(
            x,
            (x.shape[0], 2 * x.shape[1], x.shape[2], x.shape[3]),
            (1,),
            jnp.array([(2 * x.shape[1] - 1) / (x.shape[1] - 1)]),
            jnp.zeros(1),
            "linear",
            antialias=False,
        ),
        "does not weight samples equally at all positions",
    ),
    "centred": (lambda x: x - x.mean((1, 2), keepdims=True), "mixes positions"),
    "turned in a graph": (turned, "the wiring .*turned mixes positions"),
    "uneven graph": (uneven, "joins paths that move over the input in steps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_positions_is_named(name):
    what, message = REFUSED[name]
    net = fcnn.serial(fcnn.Conv(4, 3), fcnn.residual(fcnn.serial(fcnn.Dense(4), jnp.tanh)), fcnn.serial(what))
    with pytest.raises(ValueError, match=rf"(?s)^serial1/\w+: .*{message}"):
        receptive_field(net, (12, 13, 1))


def test_paths_of_different_steps_are_refused():
    net = fcnn.branches(fcnn.Conv(2, 1), fcnn.Conv(2, 1, stride=2))
    with pytest.raises(ValueError, match=r"branches: joins paths .* in steps of \(1,\) and \(2,\) samples"):
        receptive_field(net, (1, 1))


def test_a_shape_that_does_not_suit_is_refused_in_the_words_of_the_network():
    net = fcnn.serial(fcnn.Conv(2, 5), fcnn.MaxPool(2))
    with pytest.raises(ValueError, match=r"conv1: kernel \(5, 5\) does not fit an input of \(4, 9, 1\)"):
        receptive_field(net, (4, 9, 1))
    with pytest.raises(ValueError, match="no space"):
        receptive_field(fcnn.Dense(3), (4,))
    with pytest.raises(TypeError, match="neither a layer nor a function"):
        receptive_field(3, (4, 4, 1))
