"""Corners that users reach: shared buffers, odd dtypes, nested and partial wirings, layers of their own."""

import functools
import pickle
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
fit = functools.partial(fcnn.fit, epochs=2, key=KEY, progress=False, batch_size=16)


def test_fit_gives_away_no_array_that_an_initialiser_keeps():
    kept = jnp.ones((5, 2))
    net = fcnn.serial(fcnn.branches(*[fcnn.Dense(2, kernel_init=lambda key, shape, dtype: kept)] * 2), fcnn.Dense(2))
    fit(net, (X, Y), optimizer=optax.sgd(0.1))
    assert float(kept.sum()) == 10


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.lbfgs(),
        optax.polyak_sgd(),
        optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, mask={"kernel": True, "bias": False})),
        optax.MultiSteps(optax.adam(1e-2), 2),
    ],
    ids=["line search", "step from the value", "state that holds params", "mask", "accumulated"],
)
def test_optimizers_that_ask_for_more_than_the_gradient(optimizer):
    run = fit(fcnn.Dense(2), (X, Y), optimizer=optimizer, epochs=4)
    assert run.history["loss"][-1] < run.history["loss"][0]


def test_labels_of_few_bits_are_not_confused():
    says_259 = {"kernel": jnp.zeros((5, 300)), "bias": jnp.zeros(300).at[259].set(9.0)}
    found = fcnn.evaluate(fcnn.Dense(300), says_259, (X, np.full(64, 3, np.uint8)))
    assert found["accuracy"] == 0


def test_a_loss_for_every_pair_of_examples_is_refused():
    with pytest.raises(ValueError, match=r"loss has shape \(16, 16\).*reshape the targets to the shape of the outputs"):
        fit(fcnn.Dense(1), (X, X[:, 0]), loss=lambda o, t: (o - t) ** 2, optimizer=optax.sgd(0.1))


def test_one_score_has_no_accuracy():
    run = fit(
        fcnn.Dense(1), (X, Y[:, None].astype(np.float32)), loss=optax.losses.squared_error, optimizer=optax.sgd(0.1)
    )
    assert "accuracy" not in run.history


def test_accuracy_is_not_rounded_to_half_precision():
    params = {"kernel": jnp.zeros((5, 2), jnp.bfloat16), "bias": jnp.array([1, 0], jnp.bfloat16)}
    x, y = X[:3].astype(jnp.bfloat16), np.array([0, 1, 1])
    loss = optax.losses.softmax_cross_entropy_with_integer_labels
    assert fcnn.evaluate(fcnn.Dense(2), params, (x, y), loss=loss)["accuracy"] == pytest.approx(1 / 3, abs=1e-6)


def test_a_number_for_each_example_may_pass_between_functions():
    net = fcnn.serial(fcnn.Dense(1), lambda x: x[..., 0], jax.nn.sigmoid)
    assert net.out_shape((5,)) == ()
    assert net.apply(net.init(KEY, (5,)), X).shape == (64,)
    with pytest.raises(ValueError, match=r"dense2: takes \(batch, \*space, channels\).*\(batch,\) alone"):
        fcnn.serial(fcnn.Dense(1), lambda x: x[..., 0], fcnn.Dense(2)).out_shape((5,))
    with pytest.raises(ValueError, match=r"branches.*must have channels"):
        fcnn.branches(lambda x: x[:, 0]).out_shape((3,))


def both(layer, x):
    return layer.a(x), layer.b(x)


def test_a_graph_in_a_graph_may_give_several_arrays():
    inner = fcnn.graph(a=fcnn.Dense(3), b=fcnn.Dense(4))(both)
    net = fcnn.graph(i=inner)(lambda layer, x: jnp.concatenate(layer.i(x), -1))
    assert net.apply(net.init(KEY, (5,)), X).shape == (64, 7)
    with pytest.raises(TypeError, match=r"dense1: takes one array, but the part before it gives several"):
        fcnn.serial(inner, fcnn.Dense(2)).out_shape((5,))


def test_deeply_nested_graphs_are_walked_once():
    walks = []

    @dataclass(frozen=True)
    class Counted(fcnn.Layer):
        def infer_shape(self, shape):
            walks.append(1)
            return shape

        def forward(self, params, x):
            return x

    net = Counted()
    for _ in range(8):
        net = fcnn.graph(inner=net)(lambda layer, x: layer.inner(layer.inner(x)))
    net.out_shape((4,))
    assert len(walks) < 50  # two batches, two uses, remembered at every level; not 2^8


def scaled(layer, x, scale):
    return scale * layer.f(x)


def named_function(x, act):
    return act(x)


def test_partial_wirings_and_functions_compare_and_pickle():
    def net(scale):
        return fcnn.graph(f=fcnn.Dense(2))(functools.partial(scaled, scale=scale))

    assert net(2.0) == net(2.0)
    assert hash(net(2.0)) == hash(net(2.0))
    assert net(2.0) != net(3.0)
    assert pickle.loads(pickle.dumps(net(2.0))) == net(2.0)
    bound = fcnn.serial(functools.partial(named_function, act=jax.nn.relu))
    assert pickle.loads(pickle.dumps(bound)) == bound


@dataclass(frozen=True)
class Activated(fcnn.Layer):
    act: object = jax.nn.relu

    def parameters(self, shape):
        return {"gain": fcnn.Parameter((), jax.nn.initializers.ones)}

    def forward(self, params, x):
        return self.act(x) * params["gain"]


def test_a_users_layer_has_a_repr_that_is_code_and_scalars_survive_saving(tmp_path):
    net = fcnn.serial(Activated(jnp.tanh))
    assert repr(net) == "fcnn.serial(Activated(jax.nn.tanh))"
    assert eval(repr(net)) == net == pickle.loads(pickle.dumps(net))
    params = net.init(KEY, (3,))
    again, _ = fcnn.interop.load_weights(fcnn.interop.save_weights(tmp_path / "net.safetensors", params))
    assert again["activated1"]["gain"].shape == ()
    np.testing.assert_array_equal(net.apply(again, X[:, :3]), net.apply(params, X[:, :3]))


@dataclass(frozen=True)
class Counting(fcnn.Layer):
    """Counts the batches it was trained on; ``fault`` makes it break the contract."""

    fault: str = ""

    def statistics(self, shape):
        return {"seen": fcnn.Parameter((), lambda key, shape, dtype: jnp.zeros(shape, "int32"))}

    def forward_train(self, params, state, key, x):
        answers = {"": (x, {"seen": state["seen"] + 1}), "pair": x, "shape": (x, {"seen": jnp.zeros(3, "int32")})}
        return answers[self.fault]

    def forward_eval(self, params, state, x):
        return x


def test_integer_state_and_what_training_must_return():
    net = fcnn.serial(Counting(), fcnn.Dense(2))
    run = fit(net, (X, Y), optimizer=optax.sgd(0.1))
    assert int(run.state["counting1"]["seen"]) == 2 * 4
    for fault, message in (("pair", "must return the pair"), ("shape", r"seen has shape \(3,\)")):
        wrong = fcnn.serial(Counting(fault))
        with pytest.raises((TypeError, ValueError), match=f"counting1: .*{message}"):
            wrong.apply_train({}, X, state=wrong.init_state((5,)))


def test_layers_that_are_no_frozen_dataclass_are_refused_by_name():
    class Plain(fcnn.Layer):
        pass

    @dataclass
    class Thawed(fcnn.Layer):
        rate: float = 1.0

    for kind in (Plain, Thawed):
        with pytest.raises(
            TypeError, match=rf"{kind.__name__.lower()}: the layer {kind.__name__} is not a frozen data"
        ):
            fcnn.serial(kind())

    @dataclass(frozen=True)
    class Holding(fcnn.Layer):
        table: object

    with pytest.raises(TypeError, match=r"holding: table is a ndarray, which cannot be hashed.*make arrays parameters"):
        Holding(np.ones(3))


def test_functions_that_split_or_walk_the_batch_are_layers():
    net = fcnn.serial(lambda x: x.reshape(-1, 4, *x.shape[1:]).reshape(x.shape), lambda x: jnp.stack(list(x)))
    assert net.out_shape((3,)) == (3,)
    assert net.apply({}, X[:8, :3]).shape == (8, 3)


def test_pooling_counts_the_windows_of_a_long_recording_by_a_formula():
    windows = fcnn.geometry.slide((1000,), 7, stride=3, dilation=4, padding=((5, 9),))
    padded = np.zeros(1014)
    padded[5:1005] = 1
    by_hand = [int(padded[i : i + 25 : 4].sum()) for i in range(0, 1014 - 24, 3)]
    assert windows.counts(padding=False) == (tuple(by_hand),)
    assert windows.counts(padding=True) == ((7,) * len(by_hand),)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: fcnn.ops.avg_pool(x, 2),
        lambda x: fcnn.ops.lp_pool(x, 2),
        fcnn.ops.global_avg_pool,
        lambda x: fcnn.ops.adaptive_avg_pool(x, 1),
        fcnn.ops.layer_norm,
        lambda x: fcnn.ops.dropout(KEY, x, 0.5),
    ],
)
def test_means_and_norms_of_integers_are_refused_rather_than_cut(call):
    with pytest.raises(TypeError, match=r"int32, expected floating point.*astype"):
        call(jnp.ones((1, 2, 2), "int32"))


def test_the_sum_of_absolutes_has_a_second_derivative_at_zero():
    x = jnp.zeros((1, 2, 1)).at[0, 1, 0].set(3.0)
    slope = jax.grad(lambda a: fcnn.ops.lp_pool(a, 2, power=1.0).sum())
    assert slope(x).ravel().tolist() == [0.0, 1.0]
    assert bool(jnp.isfinite(jax.jvp(slope, (x,), (jnp.ones_like(x),))[1]).all())


@pytest.mark.parametrize(
    ("net", "shape"), [(fcnn.LayerNorm(), (28, 28, 1)), (fcnn.GroupNorm(4), (4,)), (fcnn.InstanceNorm(), (1, 1, 8))]
)
def test_norms_of_a_single_value_are_refused(net, shape):
    with pytest.raises(ValueError, match="no variance"):
        net.out_shape(shape)


def test_capture_leaks_nothing_out_of_a_repeat():
    net = fcnn.repeat(fcnn.serial(fcnn.Dense(5), jnp.tanh), 3)
    params = net.init(KEY, (5,))
    with jax.checking_leaks():
        seen = jax.jit(lambda p, x: fcnn.capture(net, p, x))(params, jnp.asarray(X))
    assert seen["dense1"].shape == (3, 64, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fcnn.BatchNorm().apply({}, X, {"mean": 0}), "pass state and key by keyword"),
        (lambda: fcnn.Dropout(0.5).apply_train({}, X, KEY), "pass keys by keyword"),
        (lambda: fit(jax.nn.relu, (X, Y), optimizer=optax.sgd(0.1)), "net must be a layer"),
        (lambda: fit(fcnn.Dense(2), (X, Y == 1), optimizer=optax.sgd(0.1)), r"y\.astype\('int32'\)"),
        (lambda: fcnn.Dense(3, kernel_init=("zeros", 5)), "'zeros' takes no arguments"),
    ],
)
def test_slips_of_the_hand_are_understood(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("size", [5, 6, 7])
def test_with_ceil_mode_the_window_that_begins_past_the_data_is_left_out(window, stride, after, size):
    x = np.random.default_rng(0).normal(size=size)
    last = -(-(size + after - window) // stride) * stride  # rounded up
    begins = [b for b in range(0, last + 1, stride) if b < size or b < last]
    seen = [x[b : b + window] for b in begins]
    options = {"stride": stride, "padding": ((0, after),), "ceil_mode": True}
    if not all(map(len, seen)):
        with pytest.raises(ValueError, match="nothing but padding"):
            fcnn.ops.max_pool(x.reshape(1, -1, 1), window, **options)
        return
    expected = [part.max() for part in seen]
    found = fcnn.ops.max_pool(jnp.asarray(x.reshape(1, -1, 1)), window, **options)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6)
    np.testing.assert_allclose(fcnn.reference.MaxPool(window, **options).forward(x.reshape(1, -1, 1)).ravel(), expected)


@pytest.mark.parametrize(("dtype", "large"), [("bfloat16", 256), ("float16", 2048)])
def test_a_sample_that_is_the_maximum_of_many_windows_gets_the_gradients_of_all(dtype, large):
    x = jnp.zeros((1, 99, 1), dtype).at[0, 49, 0].set(1)  # all 50 windows of 50 hold the 1
    slopes = jnp.ones((1, 50, 1), dtype).at[0, jnp.array([0, 49]), 0].set(large)  # large + 1 is large in this dtype
    (back,) = jax.jit(lambda x, g: jax.vjp(lambda x: fcnn.MaxPool(50, stride=1).apply({}, x), x)[1](g))(x, slopes)
    assert float(back[0, 49, 0]) == float(jnp.asarray(2 * large + 48, dtype))


@pytest.mark.parametrize("method", ["layers", "patches"])
def test_the_shares_of_many_windows_add_up_in_half_precision(method):
    net = fcnn.Scan(fcnn.serial(fcnn.Flatten(), fcnn.Dense(1)), 3, method=method, chunk=1)
    params = {"dense1": {"kernel": jnp.ones((3, 1), "bfloat16"), "bias": jnp.zeros(1, "bfloat16")}}
    x = jnp.ones((1, 1026, 1), "bfloat16")
    slope = jax.jit(jax.grad(lambda p: net.apply(p, x).astype("float32").sum()))(params)
    assert [float(leaf[0]) for leaf in (slope["dense1"]["bias"], slope["dense1"]["kernel"][0])] == [1024, 1024]
