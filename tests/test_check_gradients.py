"""Autodiff, the backward passes written by hand and finite differences agree, and planted faults are caught."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, inputs_of

import fcnn
from fcnn import reference
from fcnn.analysis import to_reference

KEY = jax.random.key(3)


def made(name):
    case = CASES[name]
    params, state = case.net.init(jax.random.key(0), *case.shapes), case.net.init_state(*case.shapes)
    batch = 1 if "large" in case.tags else 3
    return case, params, state, inputs_of(case, batch)


def agrees(actual, expected, what, least=1e-300):
    """The bound for float64: 1e-10 of the largest entry, or of ``least`` where all entries are rounding errors of 0."""
    scale = max(float(np.abs(expected).max()), least)
    worst = float(np.abs(np.asarray(actual) - expected).max()) / scale
    assert worst <= 1e-10, f"{what}: relative error {worst:.1e}"


@pytest.mark.parametrize("train", [False, True], ids=["used", "trained"])
@pytest.mark.parametrize("name", CASES, scope="module")
def test_every_case_by_hand_gives_the_values_and_gradients_of_autodiff(name, train, x64):
    case, params, state, inputs = made(name)
    node, gradients = to_reference(
        case.net, params, *case.shapes, state=state, key=KEY, batch=inputs[0].shape[0], train=train
    )

    def outputs(params, inputs):
        if train:
            return case.net.apply_train(params, *inputs, key=KEY, state=state)[0]
        return case.net.apply(params, *inputs, state=state)

    found = node.forward(*map(np.asarray, inputs))
    cotangent = np.cos(np.arange(found.size)).reshape(found.shape)

    @jax.jit
    def value_and_gradients(params, inputs):
        value, pull = jax.vjp(outputs, params, inputs)
        return value, pull(cotangent)

    expected, by_autodiff = value_and_gradients(params, inputs)
    agrees(found, expected, "the value")
    input_gradients = node.backward(cotangent)
    by_hand = (gradients(), tuple(input_gradients))
    assert jax.tree.structure(by_hand) == jax.tree.structure(by_autodiff)
    least = 1e-4 * max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(by_autodiff))
    for (path, a), h in zip(jax.tree.leaves_with_path(by_autodiff), jax.tree.leaves(by_hand), strict=True):
        agrees(h, np.asarray(a), jax.tree_util.keystr(path), least)


NET = fcnn.serial(fcnn.Conv(3, 3), jnp.tanh, fcnn.AvgPool(2), fcnn.Flatten(), fcnn.Dense(4))
X = np.random.default_rng(0).normal(size=(2, 6, 6, 2))
Y = np.array([0, 3])


def params_of(net, shape=(6, 6, 2)):
    return net.init(jax.random.key(0), shape)


def test_a_correct_network_passes_and_says_so():
    report = fcnn.check_gradients(NET, params_of(NET), X, Y)
    assert report.ok
    assert [row.path for row in report.rows] == ["conv1/bias", "conv1/kernel", "dense1/bias", "dense1/kernel", "x"]
    assert all(row.hand < 1e-12 and row.numeric < 1e-6 for row in report.rows)
    assert "all gradients agree" in str(report)
    assert "conv1/kernel" in report._repr_html_()
    assert "WRONG" not in report._repr_html_()


def test_all_coordinates_of_small_arrays_and_a_sample_of_large_ones_are_checked():
    report = fcnn.check_gradients(NET, params_of(NET), X, Y, samples=20)
    assert {row.path: row.checked for row in report.rows} == {
        "conv1/bias": 3, "conv1/kernel": 20, "dense1/bias": 4, "dense1/kernel": 20, "x": 20,
    }  # fmt: skip


def test_a_kink_is_reported_as_a_kink_and_not_as_an_error():
    net = fcnn.serial(fcnn.Flatten(), fcnn.Dense(1, bias=False), jax.nn.relu)
    params = {"dense1": {"kernel": jnp.array([[1.0], [-1.0]])}}
    x = np.array([[[2.0], [2.0 - 1e-7]]])  # the argument of the ReLU is 1e-7, within the step
    report = fcnn.check_gradients(net, params, x, np.array([[1.0]]), loss=optax.losses.squared_error)
    assert report.ok
    assert sum(row.kinks for row in report.rows) > 0
    tie = fcnn.serial(fcnn.MaxPool(2), fcnn.Flatten())
    report = fcnn.check_gradients(tie, {}, np.ones((1, 2, 2, 1)), np.zeros((1, 1)), loss=optax.losses.squared_error)
    assert report.ok
    assert report.rows[0].kinks == 4


def test_kinks_that_meet_in_one_coordinate_of_a_real_digit():
    """Flat background makes ties in the pooling and zeros in the ReLU, several for each pixel."""
    net = fcnn.serial(fcnn.Conv(4, 3, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(10))
    x, y = fcnn.data.digits().test
    report = fcnn.check_gradients(net, params_of(net, (8, 8, 1)), x[:4], y[:4])
    assert report.ok, str(report)
    assert sum(row.kinks for row in report.rows) > 0


def test_training_with_dropout_and_batch_norm():
    net = fcnn.serial(fcnn.Conv(3, 3), fcnn.BatchNorm(), jax.nn.relu, fcnn.Flatten(), fcnn.Dropout(0.5), fcnn.Dense(4))
    state = net.init_state((6, 6, 2))
    report = fcnn.check_gradients(net, params_of(net), X, Y, state=state, key=KEY, train=True)
    assert report.ok, str(report)
    assert report.unwritten is None


def test_another_loss_and_several_inputs():
    @fcnn.graph(f=fcnn.Dense(3))
    def siamese(layer, a, b):
        return jnp.square(jnp.tanh(layer.f(a)) - layer.f(b)).sum(-1, keepdims=True) / 2

    params = siamese.init(jax.random.key(0), (5,), (5,))
    a, b = np.random.default_rng(1).normal(size=(2, 4, 5))
    report = fcnn.check_gradients(siamese, params, (a, b), np.ones((4, 1)), loss=optax.losses.squared_error)
    assert report.ok, str(report)
    assert report.unwritten is None
    assert [row.path for row in report.rows] == ["f/bias", "f/kernel", "x[0]", "x[1]"]


def test_a_layer_that_is_not_written_by_hand_is_named_and_checked_by_differences():
    @dataclasses.dataclass(frozen=True)
    class Cube(fcnn.Layer):
        def forward(self, params, x):
            return x**3

    net = fcnn.serial(fcnn.Flatten(), fcnn.Dense(4), Cube())
    report = fcnn.check_gradients(net, params_of(net), X, Y)
    assert report.ok
    assert "Cube()" in report.unwritten
    assert all(row.hand is None for row in report.rows)
    assert "not by hand" in str(report)


# Faults planted in a backward pass. The hand-written side is spoilt where the fault is one of arithmetic; the
# differences know nothing of either side, so they say which of the two is wrong.


def spoil(monkeypatch, kind, change):
    """Let a node's backward return what ``change(node, gradient, right answer)`` makes of the right one."""
    right = kind.backward

    @functools.wraps(right)
    def wrong(self, gradient):
        before = {name: value.copy() for name, value in self.gradients.items()}
        answer = right(self, gradient)
        added = {name: self.gradients[name] - before[name] for name in before}
        inputs, shares = change(list(answer), added)
        for name, share in shares.items():
            self.gradients[name][...] = before[name] + share
        return tuple(inputs)

    monkeypatch.setattr(kind, "backward", wrong)


def inputs(change):
    """A fault in the gradient of the input."""
    return lambda shares, own: ([change(shares[0])], own)


def parameter(name, change):
    """A fault in the gradient of a parameter."""
    return lambda shares, own: (shares, {**own, name: change(own[name])})


def one_entry(g):
    wrong = g.copy()
    wrong[4, 1] += 1e-6
    return wrong


FAULTS = {
    "the kernel's gradient is turned": (
        reference.Conv,
        "conv1/kernel",
        parameter("kernel", lambda g: np.flip(g, (0, 1))),
    ),
    "the input's gradient is turned": (reference.Conv, "x", inputs(lambda g: np.flip(g, (1, 2)))),
    "a mean over the batch for the sum": (reference.Conv, "conv1/kernel", parameter("kernel", lambda g: g / 2)),
    "a mean over positions for the sum": (reference.Conv, "conv1/bias", parameter("bias", lambda g: g / 16)),
    "padding is off by one": (reference.Conv, "x", inputs(lambda g: np.roll(g, 1, 1))),
    "channels are swapped": (reference.Conv, "conv1/kernel", parameter("kernel", lambda g: g[:, :, ::-1])),
    "a matrix is transposed": (reference.Dense, "dense1/kernel", parameter("kernel", lambda g: g.T.reshape(g.shape))),
    "a bias is forgotten": (reference.Dense, "dense1/bias", parameter("bias", lambda g: 0 * g)),
    "a slope is a hundredth too steep": (reference.Tanh, "conv1/kernel", inputs(lambda g: g * 1.01)),
    "a sum over the window for the mean": (reference.AvgPool, "conv1/kernel", inputs(lambda g: g * 4)),
    "a pool is a sample late": (reference.AvgPool, "x", inputs(lambda g: np.roll(g, 1, 2))),
    "one entry is wrong by a millionth": (reference.Dense, "dense1/kernel", parameter("kernel", one_entry)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_planted_in_the_hand_written_backward_is_caught(name, monkeypatch):
    kind, path, change = FAULTS[name]
    spoil(monkeypatch, kind, change)
    report = fcnn.check_gradients(NET, params_of(NET), X, Y)
    assert not report.ok
    wrong = {row.path for row in report.rows if not row.ok}
    assert path in wrong
    assert report.worst.way == "hand"
    assert f"wrong: {path}[" in str(report)
    assert "WRONG" in report._repr_html_()
    if "one entry" in name:
        assert wrong == {"dense1/kernel"}
        assert report.worst.index == (4, 1)


@jax.custom_vjp
def wrong_square(x):
    """x^2 whose backward forgets the 2."""
    return x * x


wrong_square.defvjp(lambda x: (x * x, x), lambda x, g: (x * g,))


@jax.custom_vjp
def late_shift(x):
    """The identity whose backward is a sample late, as of a convolution padded on the wrong side."""
    return x


late_shift.defvjp(lambda x: (x, None), lambda _, g: (jnp.roll(g, 1, 1),))


@jax.custom_vjp
def mean_for_sum(x):
    """Every channel's sum, whose backward gives the mean's gradient."""
    return x.sum((1, 2))


mean_for_sum.defvjp(lambda x: (x.sum((1, 2)), x.shape), lambda s, g: (jnp.broadcast_to(g[:, None, None] / 16, s),))


@pytest.mark.parametrize("function", [wrong_square, late_shift, mean_for_sum])
def test_a_fault_planted_in_autodiff_is_caught_by_the_differences(function):
    parts = [fcnn.Conv(3, 3), function]
    parts += [] if function is mean_for_sum else [fcnn.Flatten()]
    net = fcnn.serial(*parts, fcnn.Dense(4))
    report = fcnn.check_gradients(net, params_of(net), X, Y)
    assert not report.ok
    wrong = {row.path for row in report.rows if row.numeric > 1e-6}
    assert "conv1/kernel" in wrong
    assert "dense1/kernel" not in wrong  # above the fault all is well


def test_lenet_trains_the_same_by_hand_for_fifty_steps(x64):
    """Batch norm, dropout with the same masks and momentum, on real digits: the losses agree to 1e-8 at every step."""
    net = fcnn.serial(
        fcnn.Conv(6, 5, padding="SAME"), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(2),
        fcnn.Conv(16, 3, padding="SAME"), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(2),
        fcnn.Flatten(), fcnn.Dense(84), jax.nn.relu, fcnn.Dropout(0.5), fcnn.Dense(10),
    )  # fmt: skip
    x, y = (a[:960] for a in fcnn.data.digits().train)
    x = x.astype(np.float64)
    params, state = net.init(jax.random.key(0), (8, 8, 1)), net.init_state((8, 8, 1))
    optimizer = optax.sgd(0.05, momentum=0.9)

    @jax.jit
    def step(params, state, memory, key, x, y):
        def objective(p):
            scores, new = net.apply_train(p, x, key=key, state=state)
            return optax.losses.softmax_cross_entropy_with_integer_labels(scores, y).mean(), new

        (loss, new), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, memory = optimizer.update(gradient, memory)
        return optax.apply_updates(params, updates), new, memory, loss

    hand_params = jax.tree.map(np.array, params)
    velocity = jax.tree.map(np.zeros_like, hand_params)
    memory, entropy, losses = optimizer.init(params), reference.SoftmaxCrossEntropy(), []
    for i in range(50):
        chosen = slice(32 * (i % 30), 32 * (i % 30) + 32)
        key = jax.random.fold_in(KEY, i)
        node, gradients = to_reference(net, hand_params, (8, 8, 1), state=state, key=key, batch=32, train=True)
        params, state, memory, loss = step(params, state, memory, key, x[chosen], y[chosen])
        by_hand = entropy.forward(node.forward(x[chosen]), y[chosen])
        node.backward(entropy.backward())
        # v <- 0.9 v + g, w <- w - 0.05 v
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradients())
        hand_params = jax.tree.map(lambda w, v: w - 0.05 * v, hand_params, velocity)
        assert abs(float(loss) - by_hand) <= 1e-8, f"step {i}"
        losses.append(by_hand)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


# Kinks. Zero images and zero biases put every value before an activation exactly on its kink.

PIECEWISE = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "celu": jax.nn.celu,
    "selu": jax.nn.selu,
    "hard_tanh": jax.nn.hard_tanh,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_silu": jax.nn.hard_silu,
    "soft_sign": jax.nn.soft_sign,
    "sparse_plus": jax.nn.sparse_plus,
    "sparse_sigmoid": jax.nn.sparse_sigmoid,
    "abs": jnp.abs,
    "clip": lambda x: jnp.clip(x, 0, 1),
    "maximum": lambda x: jnp.maximum(x, 0),
    "where": lambda x: jnp.where(x > 0, x, -0.3 * x),
}


def empty_images(function, shift=0.0):
    """A network whose activation gets zeros alone, and its report."""
    net = fcnn.serial(fcnn.Conv(2, 3, padding="SAME"), function, fcnn.Flatten(), fcnn.Dense(2))
    params = net.init(jax.random.key(2), (3, 3, 1))
    assert not params["conv1"]["bias"].any()
    return fcnn.check_gradients(net, params, np.full((2, 3, 3, 1), shift), np.array([0, 1]), samples=5)


@pytest.mark.parametrize("name", PIECEWISE)
def test_piecewise_functions_on_empty_images_are_right_and_have_kinks(name):
    report = empty_images(PIECEWISE[name])
    assert report.unwritten is None
    assert report.ok, str(report)


def test_kinks_on_empty_images_are_counted():
    report = empty_images(jax.nn.leaky_relu)
    assert sum(row.kinks for row in report.rows) > 0
    assert report.ok


@dataclasses.dataclass(frozen=True)
class Unwritten(fcnn.Layer):
    """A function as a layer that has no counterpart by hand."""

    function: object

    def forward(self, params, x):
        return self.function(x)


def sloped(slope):
    """max(x, 0) with a slope of its own, which may be wrong."""

    @jax.custom_jvp
    def rectified(x):
        return jnp.where(x > 0, x, 0)

    @rectified.defjvp
    def rule(primals, tangents):
        (x,), (t,) = primals, tangents
        return rectified(x), t * slope(x)

    return rectified


#: slopes that are right, each with its choice at 0
RIGHT = {
    "0 at 0": lambda x: jnp.where(x > 0, 1.0, 0.0),
    "1 at 0": lambda x: jnp.where(x >= 0, 1.0, 0.0),
    "a half at 0": lambda x: (jnp.sign(x) + 1) / 2,
}
#: and slopes that are wrong at 0, above or below
WRONG = {
    "5 at 0": lambda x: jnp.where(x == 0, 5.0, jnp.where(x > 0, 1.0, 0.0)),
    "-1 at 0": lambda x: jnp.where(x == 0, -1.0, jnp.where(x > 0, 1.0, 0.0)),
    "too flat above, as at 0": lambda x: jnp.where(x >= 0, 0.7, 0.0),
    "too steep below, as at 0": lambda x: jnp.where(x > 0, 1.0, 0.3),
    "turned": lambda x: jnp.where(x > 0, 0.0, 1.0),
}


@pytest.mark.parametrize("lift", [lambda f: f, Unwritten], ids=["by hand", "unwritten"])
@pytest.mark.parametrize("name", RIGHT)
def test_a_choice_at_a_kink_is_no_error(name, lift):
    report = empty_images(lift(sloped(RIGHT[name])))
    assert (report.unwritten is None) == (lift is not Unwritten)
    assert report.ok, str(report)
    assert sum(row.kinks for row in report.rows) > 0


@pytest.mark.parametrize("lift", [lambda f: f, Unwritten], ids=["by hand", "unwritten"])
@pytest.mark.parametrize("shift", [0.0, 1e-7], ids=["at the kink", "within a step"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_derivative_at_a_kink_is_found(name, shift, lift):
    if shift and " at 0" in name and "as at 0" not in name:
        shift = 0.0  # wrong at the kink alone
    report = empty_images(lift(sloped(WRONG[name])), shift)
    assert not report.ok, str(report)
    assert "WRONG" in str(report)


def test_kinks_that_cancel_are_settled_by_hand():
    """relu(x) - relu(-x) is x: no slope jumps, and JAX gives 0 where all values are 0."""
    report = empty_images(lambda x: jax.nn.relu(x) - jax.nn.relu(-x))
    assert report.ok, str(report)
    assert sum(row.kinks for row in report.rows) > 0
