"""An MLP with block-shared weights and a cascade of convolutions, each written as the other."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn.scan.cascade import as_cascade, as_mlp

CLOSE = {"rtol": 1e-11, "atol": 1e-12}


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def applied(net, params, x):
    return jax.jit(net.apply)(params, x)


def convolutions(cascade):
    return [layer for _, layer in cascade.parts if isinstance(layer, fcnn.Conv)]


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def with_biases(params):
    """Biases that are not zero, so that they are seen to be shared."""
    return jax.tree.map(lambda a: a + 0.1 * jnp.arange(1.0, a.size + 1) if a.ndim == 1 else a, params)


def shared_matrix(block, samples, channels, copies, stride):
    """A matrix of copies of a block, moved by stride samples and zero elsewhere."""
    matrix = np.zeros((samples * channels, copies * block.shape[1]))
    for i in range(copies):
        rows = slice(i * stride * channels, i * stride * channels + block.shape[0])
        matrix[rows, i * block.shape[1] : (i + 1) * block.shape[1]] = block
    return matrix


# Worked example 23: 128 steps of 24 features, window 8, stride 4, MLP 192-8-16-4.

MLP = fcnn.serial(fcnn.Flatten(), fcnn.Dense(8), jax.nn.relu, fcnn.Dense(16), jax.nn.relu, fcnn.Dense(4))
DISTRIBUTED = fcnn.serial(
    fcnn.Conv(2, 2, stride=2), jax.nn.relu, fcnn.Conv(8, 2, stride=2), jax.nn.relu, fcnn.Conv(4, 2)
)


def example_23():
    blocks = drawn(48, 2, seed=1), drawn(4, 8, seed=2), drawn(16, 4, seed=3)
    biases = drawn(2, seed=4), drawn(8, seed=5), drawn(4, seed=6)
    first, second = shared_matrix(blocks[0], 8, 24, 4, 2), shared_matrix(blocks[1], 4, 2, 2, 2)
    assert (first.shape, second.shape) == ((192, 8), (8, 16))
    return blocks, biases, (first, second, blocks[2]), (np.tile(biases[0], 4), np.tile(biases[1], 2), biases[2])


def scanned(recording, matrices, biases):
    """The MLP at every position, in plain NumPy."""
    found = []
    for start in range(0, 128 - 8 + 1, 4):
        h = recording[start : start + 8].reshape(-1)
        for i, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
            h = h @ matrix + bias
            if i < 2:
                h = np.maximum(h, 0)
        found.append(h)
    return np.stack(found)


def test_worked_example_23_from_the_mlp(x64):
    blocks, biases, matrices, all_biases = example_23()
    params = {f"dense{i + 1}": {"kernel": matrices[i], "bias": all_biases[i]} for i in range(3)}
    cascade, found = as_cascade(MLP, params, (8, 24))
    assert [layer for _, layer in cascade.parts] == [layer for _, layer in DISTRIBUTED.parts]
    assert [name for name, _ in cascade.parts] == ["dense1", "relu1", "dense2", "relu2", "dense3"]
    for i, features in enumerate((2, 8, 4)):
        assert found[f"dense{i + 1}"]["kernel"].shape == (2, blocks[i].shape[0] // 2, features)
        np.testing.assert_array_equal(found[f"dense{i + 1}"]["kernel"].reshape(blocks[i].shape), blocks[i])
        np.testing.assert_array_equal(found[f"dense{i + 1}"]["bias"], biases[i])
    recording = drawn(128, 24, seed=7)
    outputs = applied(cascade, found, jnp.asarray(recording)[None])
    assert outputs.shape == (1, 31, 4)
    np.testing.assert_allclose(outputs[0], scanned(recording, matrices, all_biases), **CLOSE)


def test_worked_example_23_written_out(x64):
    blocks, biases, matrices, all_biases = example_23()
    params = {
        f"conv{i + 1}": {"kernel": jnp.asarray(block.reshape(2, -1, block.shape[1])), "bias": jnp.asarray(bias)}
        for i, (block, bias) in enumerate(zip(blocks, biases, strict=True))
    }
    mlp, found = as_mlp(DISTRIBUTED, params, (8, 24))
    assert [layer for _, layer in mlp.parts] == [layer for _, layer in MLP.parts]
    assert [name for name, _ in mlp.parts] == ["flatten1", "conv1", "relu1", "conv2", "relu2", "conv3"]
    for i in range(3):
        np.testing.assert_array_equal(found[f"conv{i + 1}"]["kernel"], matrices[i])
        np.testing.assert_array_equal(found[f"conv{i + 1}"]["bias"], all_biases[i])
    recording = drawn(128, 24, seed=7)
    windows = np.stack([recording[i : i + 8] for i in range(0, 121, 4)])
    np.testing.assert_allclose(
        applied(mlp, found, jnp.asarray(windows)), scanned(recording, matrices, all_biases), **CLOSE
    )
    again, params_again = as_cascade(mlp, found, (8, 24))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params_again, params))
    assert again.out_shape((128, 24)) == (31, 4)


# Random cascades: written out, and recognised again.


def random_cascade(seed):
    """Convolutions and functions whose last layer has one position, and its window."""
    generator = np.random.default_rng(seed)
    rank = int(generator.integers(1, 4))
    layers, reach, steps = [], np.ones(rank, int), np.ones(rank, int)
    depth = int(generator.integers(1, 4))
    for i in range(depth):
        last = i == depth - 1
        kernel, stride, dilation = (generator.integers(1, top, rank) for top in (4, 3, 3))
        stride = stride * 0 + 1 if last else stride
        reach, steps = reach + (kernel - 1) * dilation * steps, steps * stride
        options = {"stride": tuple(map(int, stride)), "dilation": tuple(map(int, dilation))}
        layers.append(
            fcnn.Conv(
                int(generator.integers(1, 5)), tuple(map(int, kernel)), bias=bool(generator.integers(2)), **options
            )
        )
        layers += [] if last else [(jax.nn.relu, jnp.tanh, fcnn.Dropout(0.3))[generator.integers(3)]]
    return fcnn.serial(*layers), (*map(int, reach), int(generator.integers(1, 4)))


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 16))])
def test_a_random_cascade_comes_back(seed, x64):
    net, shape = random_cascade(seed)
    params = with_biases(net.init(jax.random.key(seed), shape))
    x = jnp.asarray(drawn(2, *shape, seed=seed))
    expected = applied(net, params, x)
    assert net.out_shape(shape)[:-1] == (1,) * (len(shape) - 1)
    mlp, written = as_mlp(net, params, shape)
    np.testing.assert_allclose(applied(mlp, written, x), expected.reshape(2, -1), **CLOSE)
    again, found = as_cascade(mlp, written, shape)
    assert count(found) <= count(params)  # fewer where a layer that sees one sample could be shared more finely
    np.testing.assert_allclose(applied(again, found, x), expected, **CLOSE)
    larger = jnp.asarray(drawn(1, *(n + 4 for n in shape[:-1]), shape[-1]))
    y = applied(again, found, larger)
    rank = len(shape) - 1
    steps = np.prod([np.broadcast_to(layer.stride, rank) for layer in convolutions(again)], axis=0)
    assert y.shape[1:-1] == tuple(4 // steps + 1)
    for place in ((0,) * rank, tuple(n - 1 for n in y.shape[1:-1])):  # the scan by its definition
        window = tuple(slice(p * s, p * s + n) for p, s, n in zip(place, steps, shape[:-1], strict=True))
        alone = applied(mlp, written, larger[(slice(None), *window)])
        np.testing.assert_allclose(y[(slice(None), *place)], alone, **CLOSE)


def test_the_matrix_of_a_convolution_in_two_dimensions_written_out(x64):
    net = fcnn.Conv(2, (2, 3), stride=(2, 1), padding=((1, 0), (0, 1)), groups=1)
    params = with_biases(net.init(jax.random.key(0), (4, 5, 2)))
    _, found = as_mlp(net, params, (4, 5, 2))
    kernel, matrix = np.asarray(params["kernel"]), np.zeros((4, 5, 2, 2, 4, 2))
    for p in np.ndindex(2, 4):
        for j in np.ndindex(2, 3):
            at = (2 * p[0] + j[0] - 1, p[1] + j[1])
            if 0 <= at[0] < 4 and at[1] < 5:
                matrix[(*at, slice(None), *p)] = kernel[j]
    np.testing.assert_array_equal(found["conv1"]["kernel"], matrix.reshape(40, 16))
    np.testing.assert_array_equal(found["conv1"]["bias"], np.tile(params["bias"], 8))


WRITABLE = {
    "padding and groups": (fcnn.serial(fcnn.Conv(4, 3, padding="SAME", groups=2, stride=2)), (5, 4, 2)),
    "circular": (fcnn.serial(fcnn.Conv(3, 4, padding="CIRCULAR"), jnp.tanh), (5, 2)),
    "reflect": (fcnn.serial(fcnn.Conv(3, 3, padding="REFLECT", dilation=2)), (6, 5, 1)),
    "causal": (fcnn.serial(fcnn.Conv(3, 3, padding="CAUSAL")), (6, 2)),
    "volumes": (fcnn.serial(fcnn.Conv(2, 2, padding=1), jax.nn.relu, fcnn.AvgPool(2)), (3, 4, 3, 2)),
    "pooling": (fcnn.serial(fcnn.AvgPool(3, stride=2, padding="SAME"), fcnn.Conv(2, 2)), (6, 5, 2)),
    "counted padding": (fcnn.serial(fcnn.AvgPool(3, padding=1, count_padding=True, ceil_mode=True)), (5, 6, 2)),
    "global": (fcnn.serial(fcnn.Conv(3, 2), jnp.tanh, fcnn.GlobalAvgPool(), fcnn.Dense(2), jax.nn.softmax), (4, 5, 1)),
    "unshared": (fcnn.serial(fcnn.LocallyConnected(4, 2, stride=2, groups=2), jax.nn.relu), (4, 6, 2)),
    "classifier": (
        fcnn.serial(
            fcnn.Conv(4, 3), fcnn.Maxout(2), fcnn.Dropout(0.5), fcnn.Dense(3), jax.nn.gelu, fcnn.Flatten(),
            fcnn.Dense(5), jax.nn.log_softmax,
        ),
        (5, 4, 2),
    ),
    "chain in chain": (
        fcnn.serial(fcnn.serial(fcnn.Conv(2, 3), jax.nn.relu), fcnn.remat(fcnn.serial(fcnn.Conv(1, 2)))), (7, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITABLE)
def test_what_is_a_matrix_product_is_written_out(name, x64):
    net, shape = WRITABLE[name]
    params = with_biases(net.init(jax.random.key(2), shape))
    x = jnp.asarray(drawn(3, *shape))
    mlp, found = as_mlp(net, params, shape)
    kinds = {type(layer) for _, layer in mlp.parts}
    allowed = {fcnn.Flatten, fcnn.Dense, fcnn.Dropout, fcnn.Maxout}
    assert all(kind in allowed or kind.__name__ == "Function" for kind in kinds)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, mlp.init(jax.random.key(0), shape))
    np.testing.assert_allclose(applied(mlp, found, x), applied(net, params, x).reshape(3, -1), **CLOSE)


def test_parts_of_chains_inside_keep_their_names():
    net, shape = WRITABLE["chain in chain"]
    mlp, _ = as_mlp(net, net.init(jax.random.key(0), shape), shape)
    assert [name for name, _ in mlp.parts] == ["flatten1", "serial1_conv1", "serial1_relu1", "serial2_conv1"]


# What is shared, and what is not.


def dense(*matrices, biases=None):
    """An MLP with tanh between its layers, and its params."""
    layers, params = [fcnn.Flatten()], {}
    for i, matrix in enumerate(matrices):
        layers += [jnp.tanh] * (i > 0) + [fcnn.Dense(matrix.shape[1], bias=biases is not None)]
        params[f"dense{i + 1}"] = {"kernel": jnp.asarray(matrix)}
        if biases is not None:
            params[f"dense{i + 1}"]["bias"] = jnp.asarray(biases[i])
    return fcnn.serial(*layers), params


def test_a_dense_layer_without_structure_sees_everything_from_one_position(x64):
    net, params = dense(drawn(24, 6), drawn(6, 6, seed=1), drawn(6, 2, seed=2))
    cascade, found = as_cascade(net, params, (4, 3, 2))
    options = {"bias": False}
    assert convolutions(cascade) == [
        fcnn.Conv(6, (4, 3), **options),
        fcnn.Conv(6, 1, **options),
        fcnn.Conv(2, 1, **options),
    ]
    assert count(found) == count(params)
    x = jnp.asarray(drawn(2, 7, 5, 2))
    y = applied(cascade, found, x)
    assert y.shape == (2, 4, 3, 2)
    for i, j in np.ndindex(4, 3):  # the scan by its definition
        np.testing.assert_allclose(y[:, i, j], applied(net, params, x[:, i : i + 4, j : j + 3]), **CLOSE)


def test_blocks_in_a_grid_are_scanned_in_two_dimensions(x64):
    block = drawn(2, 3, 2, 3, seed=1)  # 2 by 3 samples of 2 channels to 3 features
    matrix = np.zeros((6, 5, 2, 3, 2, 3))
    for i, j in np.ndindex(3, 2):
        matrix[2 * i : 2 * i + 2, 2 * j : 2 * j + 3, :, i, j] = block
    net, params = dense(matrix.reshape(60, 18), drawn(18, 4, seed=2))
    cascade, found = as_cascade(net, params, (6, 5, 2))
    assert convolutions(cascade) == [fcnn.Conv(3, (2, 3), stride=2, bias=False), fcnn.Conv(4, (3, 2), bias=False)]
    np.testing.assert_array_equal(found["dense1"]["kernel"], block)
    x = jnp.asarray(drawn(2, 12, 9, 2))
    y = applied(cascade, found, x)
    assert y.shape == (2, 4, 3, 4)
    for i, j in np.ndindex(4, 3):
        window = x[:, 2 * i : 2 * i + 6, 2 * j : 2 * j + 5]
        np.testing.assert_allclose(y[:, i, j], applied(net, params, window), **CLOSE)


NEARLY = {
    "one weight": lambda matrix, bias: (matrix + 1e-15 * (np.indices(matrix.shape).sum(0) == 0), bias),
    "one weight outside": lambda matrix, bias: (
        matrix + 1e-300 * (np.arange(matrix.size).reshape(matrix.shape) == 5),
        bias,
    ),
    "one bias": lambda matrix, bias: (matrix, bias + 1e-15 * (np.arange(8) == 7)),
    "unequal steps": lambda matrix, bias: (np.concatenate([matrix[:, :6], np.roll(matrix[:, 6:], -1, 0)], 1), bias),
    "another order": lambda matrix, bias: (matrix[:, [0, 2, 4, 6, 1, 3, 5, 7]], bias),
}


@pytest.mark.parametrize("name", NEARLY)
def test_weights_that_are_nearly_shared_are_not_merged(name, x64):
    matrix, bias = shared_matrix(drawn(4, 2), 8, 2, 4, 2), np.tile([0.3, -0.2], 4)
    last = drawn(8, 3, seed=1)
    net, params = dense(matrix, last, biases=[bias, np.zeros(3)])
    assert convolutions(as_cascade(net, params, (8, 2))[0])[0] == fcnn.Conv(2, 2, stride=2)
    changed, other = NEARLY[name](matrix, bias)
    net, params = dense(changed, last, biases=[other, np.zeros(3)])
    cascade, found = as_cascade(net, params, (8, 2))
    assert convolutions(cascade)[0] == fcnn.Conv(8, 8)
    np.testing.assert_array_equal(found["dense1"]["kernel"].reshape(16, 8), changed)


def test_the_finest_sharing_wins():
    block = drawn(2, 3)
    net, params = dense(shared_matrix(block, 6, 1, 5, 1), drawn(15, 2, seed=1))
    assert convolutions(as_cascade(net, params, (6, 1))[0])[0] == fcnn.Conv(3, 2, bias=False)  # not 6 features, 1 copy
    net, params = dense(np.kron(np.eye(4), drawn(2, 1)), drawn(4, 2, seed=1))
    assert convolutions(as_cascade(net, params, (8, 1))[0])[0] == fcnn.Conv(1, 2, stride=2, bias=False)


def test_a_block_with_samples_to_spare_has_as_many_positions_as_copies(x64):
    matrix = shared_matrix(drawn(2, 2), 9, 1, 3, 2)  # 9 samples would have room for a fourth copy
    net, params = dense(matrix, drawn(6, 2, seed=1))
    cascade, found = as_cascade(net, params, (9, 1))
    assert cascade.out_shape((9, 1)) == (1, 2)
    x = jnp.asarray(drawn(3, 9, 1))
    np.testing.assert_allclose(applied(cascade, found, x)[:, 0], applied(net, params, x), **CLOSE)
    matrix = np.roll(shared_matrix(drawn(2, 2), 8, 1, 3, 2), 1, 0)  # and one that begins later
    net, params = dense(matrix, drawn(6, 2, seed=1))
    cascade, found = as_cascade(net, params, (8, 1))
    assert convolutions(cascade)[0].stride == 2
    np.testing.assert_allclose(applied(cascade, found, x[:, :8])[:, 0], applied(net, params, x[:, :8]), **CLOSE)


def test_empty_matrices_keep_their_outputs(x64):
    net, params = dense(np.zeros((8, 4)), drawn(4, 2), biases=[np.full(4, 0.5), np.zeros(2)])
    cascade, found = as_cascade(net, params, (4, 2))
    x = jnp.asarray(drawn(3, 4, 2))
    np.testing.assert_allclose(applied(cascade, found, x)[:, 0], applied(net, params, x), **CLOSE)


def test_a_function_that_mixes_hidden_units_sees_all_of_them_at_one_position(x64):
    matrix = shared_matrix(drawn(4, 2), 8, 2, 4, 2)
    net = fcnn.serial(fcnn.Flatten(), fcnn.Dense(8, bias=False), jax.nn.softmax, fcnn.Dense(2, bias=False))
    params = {"dense1": {"kernel": matrix}, "dense2": {"kernel": drawn(8, 2)}}
    cascade, found = as_cascade(net, params, (8, 2))
    assert convolutions(cascade)[0] == fcnn.Conv(8, 8, bias=False)
    x = jnp.asarray(drawn(3, 11, 2))
    y = applied(cascade, found, x)
    for i in range(4):
        np.testing.assert_allclose(y[:, i], applied(net, params, x[:, i : i + 8]), **CLOSE)


def test_maxout_keeps_its_pieces_together(x64):
    matrix = shared_matrix(np.repeat(drawn(2, 1), 2, 1) * [1, 1], 4, 1, 2, 2)
    net = fcnn.serial(fcnn.Flatten(), fcnn.Dense(4, bias=False), fcnn.Maxout(2), fcnn.Dense(2), jax.nn.log_softmax)
    params = {"dense1": {"kernel": matrix}, "dense2": {"kernel": drawn(2, 2), "bias": drawn(2)}}
    cascade, found = as_cascade(net, params, (4, 1))
    assert convolutions(cascade)[0] == fcnn.Conv(2, 2, stride=2, bias=False)
    x = jnp.asarray(drawn(3, 4, 1))
    np.testing.assert_allclose(applied(cascade, found, x)[:, 0], applied(net, params, x), **CLOSE)


def test_half_precision_stays():
    net = fcnn.serial(fcnn.Conv(2, 2, stride=2), jax.nn.relu, fcnn.Conv(3, 2))
    params = jax.tree.map(lambda a: a.astype("bfloat16"), net.init(jax.random.key(0), (4, 1)))
    mlp, written = as_mlp(net, params, (4, 1))
    _, found = as_cascade(mlp, written, (4, 1))
    assert {leaf.dtype for leaf in jax.tree.leaves((written, found))} == {jnp.dtype("bfloat16")}
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, params))


# Mistakes.


def total(x):
    return x / (1 + jnp.square(x).sum(1, keepdims=True))


MISTAKES = {
    "max pooling": (as_mlp, fcnn.serial(fcnn.Conv(2, 2), fcnn.MaxPool(2)), (6, 2), ValueError, "max_pool1: fcnn.MaxP"),
    "the way out": (as_mlp, fcnn.serial(fcnn.MaxPool(2)), (6, 2), ValueError, "a cascade is a chain of Conv, LocallyC"),
    "norm": (as_mlp, fcnn.serial(fcnn.Conv(2, 2), fcnn.BatchNorm()), (6, 2), ValueError, "batch_norm1: fcnn.BatchNo"),
    "residual": (as_mlp, fcnn.residual(fcnn.Conv(2, 1)), (6, 2), ValueError, "residual1: fcnn.residual("),
    "mixing function": (
        as_mlp, fcnn.serial(fcnn.Conv(2, 2), jax.nn.softmax), (6, 2), ValueError, "between the layers of a cascade",
    ),
    "channel dropout": (
        as_mlp, fcnn.serial(fcnn.Dropout(0.5, whole_channels=True)), (6, 2), ValueError, "use fcnn.Dropout(0.5)",
    ),
    "too large": (
        as_mlp, fcnn.serial(fcnn.Conv(8, 3)), (227, 227, 3), ValueError, "conv1: fcnn.Conv(8, 3) on an input",
    ),
    "no Flatten": (as_cascade, fcnn.serial(fcnn.Dense(2)), (6, 2), ValueError, "the network begins with dense1 ("),
    "a convolution": (
        as_cascade, fcnn.serial(fcnn.Flatten(), fcnn.Dense(2), fcnn.LayerNorm()), (6, 2), ValueError,
        "layer_norm1: fcnn.LayerNorm() is not part of an MLP",
    ),
    "along the wrong axis": (
        as_cascade, fcnn.serial(fcnn.Flatten(), fcnn.Dense(2), total), (6, 2), ValueError, "along the last axis, axis=",
    ),
    "no space": (as_cascade, fcnn.serial(fcnn.Flatten(), fcnn.Dense(2)), (6,), ValueError, "with 1, 2 or 3 space"),
    "shape": (as_cascade, fcnn.serial(fcnn.Flatten(), fcnn.Dense(2)), 6, TypeError, "a shape is a tuple (*space, chan"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(name):
    convert, net, shape, kind, message = MISTAKES[name]
    params = jax.eval_shape(partial(net.init, shape=shape if isinstance(shape, tuple) else (6, 2)), jax.random.key(0))
    params = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), params)
    with pytest.raises(kind, match=re.escape(message)):
        convert(net, params, shape)


def test_params_of_another_network_and_traced_ones():
    net = fcnn.serial(fcnn.Flatten(), fcnn.Dense(2))
    params = net.init(jax.random.key(0), (6, 2))
    for convert in (as_cascade, as_mlp):
        with pytest.raises(ValueError, match="dense1: kernel has shape"):
            convert(net, params, (7, 2))
        with pytest.raises(ValueError, match="dense1: params have no 'kernel'"):
            convert(net, {}, (6, 2))
        with pytest.raises(TypeError, match="params must be a dict"):
            convert(net, None, (6, 2))
        with pytest.raises(TypeError, match=r"^as_(cascade|mlp): 'mlp' is neither a layer nor a function"):
            convert("mlp", {}, (6, 2))
        with pytest.raises(TypeError, match=r"^as_(cascade|mlp): .* call as_cascade and as_mlp outside jit"):
            jax.jit(lambda p, convert=convert: convert(net, p, (6, 2))[1])(params)


def test_weights_that_cannot_be_compared_and_a_network_without_any():
    net = fcnn.serial(fcnn.Flatten(), fcnn.Dense(2))
    params = jax.tree.map(lambda a: a * jnp.nan, net.init(jax.random.key(0), (6, 2)))
    with pytest.raises(ValueError, match="as_cascade: dense1 has weights that are not finite"):
        as_cascade(net, params, (6, 2))
    with pytest.raises(ValueError, match=r"as_cascade: the network is Flatten\(\) alone"):
        as_cascade(fcnn.Flatten(), {}, (6, 2))
