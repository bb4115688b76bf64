"""Values and gradients of every operation against PyTorch, in float64, over a drawn grid of geometries."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_oracle as oracle
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch_oracle import F, assert_agrees, assert_close, torch

import fcnn
from fcnn import ops

PADDINGS = ("VALID", "SAME", "SAME_LOWER", "CAUSAL", "CIRCULAR", "REFLECT", "EDGE", 1, 2, "pairs", "mode and pairs")
ranks = st.sampled_from((2, 1, 3))
groups_and_channels = st.tuples(*[st.sampled_from(values) for values in ((2, 1, 3), (2, 1), (2, 1))])


def examples(count):
    return settings(derandomize=True, deadline=None, max_examples=count)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def tied(seed, *shape):
    """Few different values, so that most windows hold the largest of them several times."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(float)


@st.composite
def axes(draw, rank, *values):
    """One value for each axis."""
    return tuple(draw(st.sampled_from(values)) for _ in range(rank))


@st.composite
def geometries(draw, padding):
    """The space, the kernel and the other hyperparameters of windows that fit."""
    rank = draw(ranks)
    kernel = draw(axes(rank, *((2, 3, 1, 4) if rank == 1 else (2, 3, 1))))
    stride, dilation = draw(axes(rank, 2, 1, 3)), draw(axes(rank, 1, 2))
    if padding in ("pairs", "mode and pairs"):
        pairs = tuple(zip(draw(axes(rank, 0, 1, 2)), draw(axes(rank, 1, 0, 3)), strict=True))
        padding = pairs if padding == "pairs" else (draw(st.sampled_from(tuple(oracle.MODES))), pairs)
    more, spans = draw(axes(rank, 2, 3, 0)), oracle.reach(kernel, dilation)
    space = tuple(smallest(padding, axis, spans[axis]) + more[axis] for axis in range(rank))
    return space, kernel, {"stride": stride, "padding": padding, "dilation": dilation}


def smallest(padding, axis, span):
    """The smallest axis that takes a window of this reach."""
    if padding == "VALID":
        return span
    if padding in ("CIRCULAR", "REFLECT"):
        return span // 2 + 1  # the samples that are copied must be there
    if isinstance(padding, str):
        return 1
    if isinstance(padding, tuple) and padding[0] in oracle.MODES:
        return max(smallest(padding[1], axis, span), max(padding[1][axis]) + 1)
    return max(span - (2 * padding if isinstance(padding, int) else sum(padding[axis])), 1)


@st.composite
def poolings(draw, dilations=(1, 2)):
    """Windows as torch's pooling takes them: padded by at most half of the window, perhaps with a ceiling."""
    rank = draw(ranks)
    window, stride = draw(axes(rank, 2, 3, 1)), draw(axes(rank, 2, 1, 3))
    dilation = draw(axes(rank, *dilations))
    spans = oracle.reach(window, dilation)
    padding = tuple(draw(st.integers(0, size // 2)) for size in window)
    more = draw(axes(rank, 3, 2, 1, 0))
    space = tuple(max(spans[axis] - 2 * padding[axis], 1) + more[axis] for axis in range(rank))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": draw(st.booleans())}
    return space, window, options


def as_given(options):
    """The hyperparameters as a user writes them: an integer holds along every axis."""
    written = {name: value if name == "padding" else plain(value) for name, value in options.items()}
    if isinstance(written.get("padding"), tuple) and isinstance(written["padding"][0], int):
        written["padding"] = tuple((p, p) for p in written["padding"])
    return written


def plain(sizes):
    return sizes[0] if isinstance(sizes, tuple) and len(set(sizes)) == 1 else sizes


def assert_layer_agrees(net, theirs, x, *, bias=True):
    """Compare a layer with a function of x, its kernel and, where it has one, its bias."""
    names = ("kernel", "bias") if bias else ("kernel",)
    shapes = jax.eval_shape(lambda key: net.init(key, x.shape[1:]), jax.random.key(0))
    assert set(shapes) == set(names)
    values = [normal(1 + place, *shapes[name].shape) for place, name in enumerate(names)]
    assert_agrees(lambda x, *params: net.apply(dict(zip(names, params, strict=True)), x), theirs, x, *values)


# The comparison itself.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x * (1 + 1e-9), "the value is off"),
        (lambda x: jax.lax.stop_gradient(x), "the gradient of argument 0 is off"),
        (lambda x: x * jnp.nan, "the value is off"),
        (lambda x: x[None], "shape"),
        (lambda x: x.astype(jnp.float32), "float32"),
    ],
    ids=["value", "gradient", "nan", "shape", "dtype"],
)
def test_the_comparison_can_fail(wrong, message):
    x = normal(0, 2, 3)
    assert_agrees(lambda x: x, torch.clone, x)
    with pytest.raises(AssertionError, match=message):
        assert_agrees(wrong, torch.clone, x)


# Layers that move weights over a space.


@pytest.mark.parametrize("padding", PADDINGS)
@examples(6)
@given(data=st.data())
def test_conv(padding, data):
    space, kernel, options = data.draw(geometries(padding))
    groups, channels, features = data.draw(groups_and_channels)
    bias = data.draw(st.booleans())
    net = fcnn.Conv(groups * features, plain(kernel), groups=groups, bias=bias, **as_given(options))
    x = normal(0, 2, *space, groups * channels)

    def theirs(x, kernel, bias=None):
        return oracle.conv(x, kernel, bias, groups=groups, **options)

    assert_layer_agrees(net, theirs, x, bias=bias)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths and odd dilation:UserWarning")
@pytest.mark.parametrize("mode", [None, *oracle.MODES])
@examples(8)
@given(data=st.data())
def test_modes_of_padding_are_torchs(mode, data):
    """A mode alone is padding="same" of a stride of 1; with an amount it is the amount that torch takes."""
    alone = data.draw(st.booleans())
    space, kernel, options = data.draw(geometries(mode or "SAME"))
    stride = 1 if alone else options["stride"]
    amount = tuple(data.draw(st.integers(0, size - 1)) for size in space)
    channels, features, rank = 2, 3, len(space)
    net = getattr(torch.nn, f"Conv{rank}d")(
        channels,
        features,
        kernel,
        stride,
        padding="same" if alone else amount,
        dilation=options["dilation"],
        padding_mode=oracle.MODES.get(mode, "zeros"),
    )
    pairs = tuple((p, p) for p in amount)
    with_mode = pairs if mode is None else (mode, pairs)
    padding = (mode or "SAME") if alone else with_mode
    fits = all(n + 2 * p >= s for n, p, s in zip(space, amount, oracle.reach(kernel, options["dilation"]), strict=True))
    assume(alone or fits)

    def ours(x, kernel, bias):
        return ops.conv(x, kernel, bias, stride=stride, padding=padding, dilation=options["dilation"])

    def theirs(x, kernel, bias):
        params = {"weight": kernel.movedim((-1, -2), (0, 1)), "bias": bias}
        return oracle.channels_last(torch.func.functional_call(net, params, oracle.channels_first(x)))

    x = normal(0, 2, *space, channels)
    assert_agrees(ours, theirs, x, normal(1, *kernel, channels, features), normal(2, features))


@st.composite
def transposes(draw):
    """The space, the kernel and the hyperparameters of a transposed convolution that crops nothing yet."""
    rank = draw(ranks)
    space, kernel = draw(axes(rank, 3, 2, 1)), draw(axes(rank, 3, 2, 1))
    return space, kernel, {"stride": draw(axes(rank, 2, 1, 3)), "dilation": draw(axes(rank, 1, 2))}


def full_size(space, kernel, stride, dilation):
    """Samples along each axis before anything is cropped."""
    spans = oracle.reach(kernel, dilation)
    return tuple((size - 1) * step + span for size, step, span in zip(space, stride, spans, strict=True))


@examples(24)
@given(data=st.data())
def test_conv_transpose(data):
    space, kernel, options = data.draw(transposes())
    groups, channels, features = data.draw(groups_and_channels)
    bias = data.draw(st.booleans())
    steps = zip(options["stride"], options["dilation"], strict=True)
    added = tuple(data.draw(st.integers(0, max(step) - 1)) for step in steps)  # torch takes no more
    cropped = tuple(data.draw(st.integers(0, min(2, (m - 1) // 2))) for m in full_size(space, kernel, **options))
    options |= {"padding": cropped, "output_padding": added}
    net = fcnn.ConvTranspose(groups * features, plain(kernel), groups=groups, bias=bias, **as_given(options))

    def theirs(x, kernel, bias=None):
        return oracle.conv_transpose(x, kernel, bias, groups=groups, **options)

    assert_layer_agrees(net, theirs, normal(0, 2, *space, groups * channels), bias=bias)


@examples(16)
@given(data=st.data())
def test_conv_transpose_to_a_wanted_size(data):
    """Torch is asked for the size at the call; it takes those of strides alone, not of dilations."""
    space, kernel, options = data.draw(transposes())
    groups, channels, features = data.draw(groups_and_channels)
    full = full_size(space, kernel, **options)
    cropped = tuple(data.draw(st.integers(0, min(2, (m - 1) // 2))) for m in full)
    out = tuple(
        m - 2 * p + data.draw(st.integers(0, step - 1))
        for m, p, step in zip(full, cropped, options["stride"], strict=True)
    )
    options |= {"padding": cropped}
    rank = len(space)
    net = fcnn.ConvTranspose(groups * features, plain(kernel), groups=groups, out=plain(out), **as_given(options))
    module = getattr(torch.nn, f"ConvTranspose{rank}d")(
        groups * channels, groups * features, kernel, groups=groups, **options
    )

    def theirs(x, kernel, bias):
        params = {"weight": oracle.transposed_weight(kernel, groups), "bias": bias}
        given = {"output_size": list(out)}
        y = torch.func.functional_call(module, params, oracle.channels_first(x), given)
        return oracle.channels_last(y)

    assert_layer_agrees(net, theirs, normal(0, 2, *space, groups * channels))


@pytest.mark.parametrize(("stride", "dilation", "output_padding"), [(2, 1, 2), (1, 1, 1), (2, 3, 3), (1, 3, 2)])
def test_output_padding_is_less_than_the_stride_or_the_dilation_as_in_torch(stride, dilation, output_padding):
    x, kernel = np.ones((1, 4, 1)), np.ones((3, 1, 1))
    options = {"stride": stride, "dilation": dilation, "output_padding": output_padding}

    def theirs():
        weight = torch.ones(1, 1, 3, dtype=torch.float64)
        return F.conv_transpose1d(torch.ones(1, 1, 4, dtype=torch.float64), weight, **options)

    if output_padding < max(stride, dilation):
        assert ops.conv_transpose(x, kernel, **options).shape[1] == theirs().shape[2]
        return
    with pytest.raises(RuntimeError, match="output padding must be smaller than either stride or dilation"):
        theirs()
    with pytest.raises(ValueError, match=r"output_padding .* must be smaller than the stride"):
        ops.conv_transpose(x, kernel, **options)


@examples(12)
@given(data=st.data())
def test_conv_transpose_by_pairs_crops_the_full_result(data):
    space, kernel, options = data.draw(transposes())
    groups, channels, features = data.draw(groups_and_channels)
    full = full_size(space, kernel, **options)
    before = [data.draw(st.integers(0, min(2, size - 1))) for size in full]
    after = [data.draw(st.integers(0, min(3, size - 1 - lo))) for size, lo in zip(full, before, strict=True)]
    pairs = tuple(zip(before, after, strict=True))
    net = fcnn.ConvTranspose(groups * features, kernel, padding=pairs, groups=groups, **as_given(options))

    def theirs(x, kernel, bias):
        y = oracle.conv_transpose(x, kernel, bias, groups=groups, **options)
        kept = [slice(lo, size - hi) for size, (lo, hi) in zip(full, pairs, strict=True)]
        return y[(slice(None), *kept)]

    assert_layer_agrees(net, theirs, normal(0, 2, *space, groups * channels))


@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID"])
@examples(12)
@given(data=st.data())
def test_conv_transpose_has_keras_results(padding, data):
    """Keras's is the gradient of TensorFlow's strided convolution with respect to an input of the size it names."""
    space, kernel, options = data.draw(transposes())
    groups, channels, features = data.draw(groups_and_channels)
    steps = list(zip(space, options["stride"], oracle.reach(kernel, options["dilation"]), strict=True))
    if padding != "VALID":
        less = [data.draw(st.integers(0, step - 1)) for step in options["stride"]]
        out = tuple(size * step - fewer for (size, step, span), fewer in zip(steps, less, strict=True))
        more = {"out": out} if any(less) else {}
    else:
        out = tuple(size * step + max(span - step, 0) for size, step, span in steps)
        more = {"output_padding": tuple(max(step - span, 0) for size, step, span in steps)}
    net = fcnn.ConvTranspose(
        groups * features, kernel, padding=padding, groups=groups, bias=False, **more, **as_given(options)
    )

    def theirs(x, kernel):
        return oracle.gradient_of_conv(x, kernel, out, padding=padding, groups=groups, **options)

    assert net.out_shape((*space, groups * channels)) == (*out, groups * features)
    assert_layer_agrees(net, theirs, normal(0, 2, *space, groups * channels), bias=False)


def kernel_two_stride_two_padding_one():
    options = {"stride": (2, 2), "padding": 1, "dilation": (1, 1), "groups": 1}
    kernel = normal(1, 3, 2, 2, 2)
    for name, space in (("conv", (4, 4)), ("conv_transpose", (2, 4))):
        ours, theirs = getattr(ops, name), getattr(oracle, name)
        assert_agrees(
            lambda x, kernel, ours=ours: ours(x, kernel, **options),
            lambda x, kernel, theirs=theirs: theirs(x, kernel, **options),
            normal(0, 2, *space, 2),
            kernel,
        )


def test_kernel_two_stride_two_padding_one():
    """XLA takes an axis of this kind for one that holds groups; its failed check would end this process too."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(kernel_two_stride_two_padding_one).result()


@pytest.mark.parametrize("padding", PADDINGS)
@examples(4)
@given(data=st.data())
def test_locally_connected(padding, data):
    space, kernel, options = data.draw(geometries(padding))
    groups, channels, features = data.draw(groups_and_channels)
    net = fcnn.LocallyConnected(groups * features, plain(kernel), groups=groups, **as_given(options))

    def theirs(x, kernel, bias):
        return oracle.locally_connected(x, kernel, bias, groups=groups, **options)

    assert_layer_agrees(net, theirs, normal(0, 2, *space, groups * channels))


@examples(6)
@given(rank=st.integers(0, 2), bias=st.booleans())
def test_dense(rank, bias):
    def theirs(x, kernel, bias=None):
        return F.linear(x, kernel.T, bias)

    assert_layer_agrees(fcnn.Dense(4, bias=bias), theirs, normal(0, 3, *(2, 3)[:rank], 5), bias=bias)


# Pooling.


def assert_pool_agrees(net, theirs, x, empty=False):
    """Compare a layer without parameters; where a window sees nothing of the data it has no value to give."""
    if empty:
        with pytest.raises(ValueError, match="nothing but padding"):
            net.apply({}, x)
    else:
        assert_agrees(lambda x: net.apply({}, x), theirs, x)


@examples(30)
@given(poolings())
def test_max_pool(case):
    space, window, options = case
    x = tied(0, 2, *space, 3)

    def theirs(x):
        return oracle.pool("max_pool", x, window, **options)

    net = fcnn.MaxPool(plain(window), **as_given(options))
    assert_pool_agrees(net, theirs, x, empty=theirs(torch.tensor(x)).isinf().any())


@pytest.mark.parametrize("padding", PADDINGS)
@examples(4)
@given(data=st.data())
def test_max_pool_by_padding(padding, data):
    space, window, options = data.draw(geometries(padding))
    x = tied(0, 2, *space, 3)

    def theirs(x):
        spans = oracle.reach(window, options["dilation"])
        x = oracle.pad(oracle.channels_first(x), options["padding"], spans, options["stride"], value=-torch.inf)
        x = oracle.channels_last(x)
        return oracle.pool("max_pool", x, window, options["stride"], dilation=options["dilation"])

    net = fcnn.MaxPool(plain(window), **as_given(options))
    assert_pool_agrees(net, theirs, x, empty=theirs(torch.tensor(x)).isinf().any())


@examples(6)
@given(poolings())
def test_max_pool_keeps_nan(case):
    space, window, options = case
    x = tied(0, 2, *(size + 2 for size in space), 3)
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    expected = oracle.pool("max_pool", torch.tensor(x), window, **options)
    with jax.enable_x64(True):
        y = jax.jit(lambda x: ops.max_pool(x, window, **as_given(options)))(x)
    np.testing.assert_array_equal(y, expected)


@examples(25)
@given(poolings(dilations=(1,)), st.booleans(), st.sampled_from((None, 1, 5)))
def test_avg_pool(case, count_padding, divisor):
    space, window, options = case
    space = tuple(map(max, space, window))  # torch takes nothing smaller in 3 dimensions
    divisor = None if len(space) == 1 else divisor  # which torch has not in one
    net = fcnn.AvgPool(plain(window), count_padding=count_padding, divisor=divisor, **as_given(options))
    undilated = {name: value for name, value in options.items() if name != "dilation"}
    if divisor is not None:
        undilated["divisor_override"] = divisor

    def theirs(x):
        return oracle.pool("avg_pool", x, window, count_include_pad=count_padding, **undilated)

    assert_pool_agrees(net, theirs, normal(0, 2, *space, 3))


@pytest.mark.parametrize("padding", PADDINGS)
@examples(5)
@given(data=st.data(), count_padding=st.booleans())
def test_avg_pool_by_padding(padding, data, count_padding):
    """Torch has no dilation here and pads both ends alike, so the mean is taken over torch's unfolded windows."""
    space, window, options = data.draw(geometries(padding))
    net = fcnn.AvgPool(plain(window), count_padding=count_padding, **as_given(options))

    def sums(x, border=0.0):
        spans = oracle.reach(window, options["dilation"])
        x = oracle.pad(oracle.channels_first(x), options["padding"], spans, options["stride"], border)
        seen = oracle.windows(x, window, options["stride"], options["dilation"])
        return oracle.channels_last(seen.flatten(2 + len(window)).sum(-1))

    ones = torch.ones(2, *space, 3, dtype=torch.float64)
    counts = sums(ones, float(count_padding))
    assert_pool_agrees(net, lambda x: sums(x) / counts, normal(0, 2, *space, 3), empty=(sums(ones) == 0).any())


powers = st.sampled_from((2.0, 1.0, 3.0, 1.5))


@examples(12)
@given(geometries("VALID"), powers)
def test_lp_pool(case, power):
    space, window, options = case
    x = np.exp(normal(0, 2, *space, 3))  # torch takes the power without the absolute value

    def theirs(x):
        return oracle.pool("lp_pool", x, power, plain(window), options["stride"])

    assert_agrees(lambda x: ops.lp_pool(x, window, power=power, stride=options["stride"]), theirs, x)


@examples(18)
@given(poolings(), powers)
def test_lp_pool_is_the_norm_of_each_window(case, power):
    """Torch's lp_pool scales windows that are cut short, so its vector norm is the truth for ceilings and padding."""
    space, window, options = case
    x = tied(0, 2, *space, 3)  # zeros among others, and below windows of nothing else
    x[0] = 0

    def theirs(x):
        count = oracle.pool("max_pool", x, window, **options).shape[1:-1]
        spans, steps = oracle.reach(window, options["dilation"]), options["stride"]
        padded = oracle.pad(oracle.channels_first(x), as_given(options)["padding"], spans, steps)
        seen = oracle.whole_windows(padded, count, window, steps, options["dilation"])
        return oracle.channels_last(torch.linalg.vector_norm(seen.flatten(2 + len(space)), power, dim=-1))

    net = fcnn.LpPool(plain(window), power=power, **as_given(options))
    largest = oracle.pool("max_pool", torch.tensor(x), window, **options)
    assert_pool_agrees(net, theirs, x, empty=largest.isinf().any())


@examples(8)
@given(ranks.flatmap(lambda rank: axes(rank, 3, 2, 1, 4)))
def test_global_pools(space):
    cells = (1,) * len(space)

    def theirs(kind):
        return lambda x: oracle.pool(kind, x, cells).flatten(1)

    assert_pool_agrees(fcnn.GlobalMaxPool(), theirs("adaptive_max_pool"), tied(0, 2, *space, 3))
    assert_pool_agrees(fcnn.GlobalAvgPool(), theirs("adaptive_avg_pool"), normal(0, 2, *space, 3))


@examples(9)
@given(ranks.flatmap(lambda rank: st.tuples(axes(rank, 5, 3, 4, 2, 1), axes(rank, 2, 3, 1, None, 5))))
def test_adaptive_pools(case):
    space, out = case
    for layer, name in ((fcnn.AdaptiveMaxPool, "adaptive_max_pool"), (fcnn.AdaptiveAvgPool, "adaptive_avg_pool")):
        given = plain(out) if None not in out else out
        theirs = [
            size if n is None else n for n, size in zip(out, space, strict=True)
        ]  # in one dimension torch has no None
        assert_pool_agrees(
            layer(given), lambda x, name=name, theirs=theirs: oracle.pool(name, x, theirs), tied(0, 2, *space, 2)
        )


@examples(8)
@given(st.sampled_from((2, 3, 1)), st.sampled_from((2, 1)), st.integers(0, 3))
def test_maxout_is_max_pooling_over_channels(pieces, out, rank):
    def theirs(x):
        return F.max_pool1d(x.reshape(-1, 1, x.shape[-1]), pieces).reshape(*x.shape[:-1], out)

    assert_agrees(lambda x: ops.maxout(x, pieces), theirs, tied(0, 2, *(3, 2, 2)[:rank], pieces * out))


# Normalisation.

spaces = ranks.flatmap(lambda rank: axes(rank, 3, 2, 4))


def shifted(seed, *shape):
    """A mean and a spread unlike 0 and 1."""
    return 3 + 2 * normal(seed, *shape)


def scale_and_bias(channels):
    return normal(1, channels), normal(2, channels)


@examples(7)
@given(
    st.one_of(st.just(()), spaces),
    st.sampled_from((0.9, 0.5, 0.0, 1.0)),
    st.sampled_from((1e-5, 1e-1)),
)
def test_batch_norm(space, momentum, epsilon):
    """Two batches in training, then a third in use: the outputs, their gradients and the running statistics."""
    channels = 3
    net = fcnn.BatchNorm(momentum=momentum, epsilon=epsilon)
    with jax.enable_x64(True):
        state = net.init_state((*space, channels))
    mean, variance = torch.zeros(channels).double(), torch.ones(channels).double()

    def theirs(train, x, scale, bias):
        x = oracle.channels_first(x)
        y = F.batch_norm(x, mean, variance, scale, bias, train, momentum=1 - momentum, eps=epsilon)
        return oracle.channels_last(y)

    params = scale_and_bias(channels)
    for batch in range(2):
        x = shifted(batch, 4, *space, channels)

        def in_training(x, scale, bias, state=state):
            return net.apply_train({"scale": scale, "bias": bias}, x, state=state)

        with jax.enable_x64(True):
            new_state = jax.jit(in_training)(x, *params)[1]
        assert_agrees(lambda *arrays: in_training(*arrays)[0], lambda *arrays: theirs(True, *arrays), x, *params)
        state = new_state
        assert_close(state["mean"], mean, "the running mean")
        assert_close(state["variance"], variance, "the running variance")

    def in_use(x, scale, bias):
        return net.apply({"scale": scale, "bias": bias}, x, state=state)

    assert_agrees(in_use, lambda *arrays: theirs(False, *arrays), shifted(2, 4, *space, channels), *params)


def test_batch_norm_starts_from_torchs_statistics_and_settings():
    net, theirs = fcnn.BatchNorm(), torch.nn.BatchNorm2d(3)
    state = net.init_state((2, 2, 3))
    np.testing.assert_array_equal(state["mean"], theirs.running_mean)
    np.testing.assert_array_equal(state["variance"], theirs.running_var)
    assert (1 - net.momentum, net.epsilon) == (pytest.approx(theirs.momentum), theirs.eps)


def assert_norm_agrees(net, theirs, x):
    """Compare a normalising layer with a function of x, with channels first where it is torch's, scale and bias."""

    def ours(x, scale, bias):
        return net.apply({"scale": scale, "bias": bias}, x)

    assert_agrees(ours, theirs, x, *scale_and_bias(x.shape[-1]))


@examples(8)
@given(st.one_of(st.just(()), spaces), st.sampled_from((4, 3)), st.sampled_from((1e-5, 1e-1)))
def test_layer_norm(space, channels, epsilon):
    def theirs(x, scale, bias):
        return F.layer_norm(x, (channels,), scale, bias, epsilon)

    assert_norm_agrees(fcnn.LayerNorm(epsilon=epsilon), theirs, shifted(0, 2, *space, channels))


@examples(10)
@given(
    st.one_of(st.just(()), spaces), st.sampled_from((2, 1, 3)), st.sampled_from((3, 4)), st.sampled_from((1e-5, 1e-1))
)
def test_group_norm(space, groups, size, epsilon):
    def theirs(x, scale, bias):
        return oracle.channels_last(F.group_norm(oracle.channels_first(x), groups, scale, bias, epsilon))

    assert_norm_agrees(fcnn.GroupNorm(groups, epsilon=epsilon), theirs, shifted(0, 2, *space, groups * size))


@examples(8)
@given(spaces, st.sampled_from((2, 1)), st.sampled_from((1e-5, 1e-1)))
def test_instance_norm(space, channels, epsilon):
    def theirs(x, scale, bias):
        return oracle.channels_last(F.instance_norm(oracle.channels_first(x), None, None, scale, bias, eps=epsilon))

    assert_norm_agrees(fcnn.InstanceNorm(epsilon=epsilon), theirs, shifted(0, 2, *space, channels))


@examples(10)
@given(spaces, st.sampled_from((5, 2, 3, 1, 4)), st.sampled_from(((0.5, 0.75, 2.0), (1.0, 0.5, 1.0))))
def test_local_response_norm(space, size, constants):
    alpha, beta, k = constants
    net = fcnn.LocalResponseNorm(size=size, alpha=alpha, beta=beta, k=k)

    def theirs(x):
        y = F.local_response_norm(oracle.channels_first(x), size, alpha * size, beta, k)
        return oracle.channels_last(y)

    assert_agrees(lambda x: net.apply({}, x), theirs, normal(0, 2, *space, 6))
