"""Compositions: names, sharing, keys, and what they equal when written out by hand."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn

KEY = jax.random.key(0)


def images(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


def test_parts_are_named_by_class_and_count_or_as_the_user_likes():
    net = fcnn.serial(fcnn.Conv(2, 3), jnp.tanh, fcnn.Conv(2, 3), fcnn.MaxPool(2), fcnn.Flatten(), head=fcnn.Dense(3))
    assert sorted(net.init(KEY, (9, 9, 1))) == ["conv1", "conv2", "head"]
    assert list(fcnn.capture(net, net.init(KEY, (9, 9, 1)), images(1, 9, 9, 1))) == [
        "conv1", "tanh1", "conv2", "max_pool1", "flatten1", "head",
    ]  # fmt: skip


def test_inserting_a_layer_leaves_the_other_parameters_as_they_were():
    before = fcnn.serial(fcnn.Conv(4, 3), jax.nn.relu, fcnn.Flatten(), head=fcnn.Dense(3)).init(KEY, (8, 8, 1))
    after = fcnn.serial(
        fcnn.BatchNorm(), fcnn.Conv(4, 3), fcnn.BatchNorm(), jnp.tanh, fcnn.Dropout(0.5), fcnn.Flatten(),
        head=fcnn.Dense(3),
    ).init(KEY, (8, 8, 1))  # fmt: skip
    for name in before:
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])


def test_inserting_a_layer_leaves_the_other_dropout_masks_as_they_were():
    x = jnp.ones((2, 50))
    plain, _ = fcnn.serial(fcnn.Dropout(0.5)).apply_train({}, x, key=KEY)
    longer, _ = fcnn.serial(jnp.abs, fcnn.Dropout(0.5), fcnn.Flatten()).apply_train({}, x, key=KEY)
    np.testing.assert_array_equal(plain, longer)


def test_two_dropouts_draw_different_masks():
    net = fcnn.serial(fcnn.Dropout(0.5), fcnn.Dropout(0.5))
    y, _ = net.apply_train({}, jnp.ones((1, 4000)), key=KEY)
    # one mask twice would leave half of the units, two masks leave a quarter
    assert abs(float((y != 0).mean()) - 0.25) < 0.04


def test_every_use_of_a_shared_dropout_draws_a_mask_of_its_own_and_the_first_is_as_before():
    @fcnn.graph(drop=fcnn.Dropout(0.5))
    def twice(layer, x):
        return jnp.stack([layer.drop(x), layer.drop(x)], 1)

    y, _ = twice.apply_train({}, jnp.ones((1, 400)), key=KEY)
    once, _ = fcnn.serial(drop=fcnn.Dropout(0.5)).apply_train({}, jnp.ones((1, 400)), key=KEY)
    np.testing.assert_array_equal(y[:, 0], once)
    assert bool((y[:, 0] != y[:, 1]).any())


def test_every_copy_of_a_repeated_dropout_draws_a_mask_of_its_own():
    y, _ = fcnn.repeat(fcnn.Dropout(0.5), 3).apply_train({}, jnp.ones((1, 8000)), key=KEY)
    assert abs(float((y != 0).mean()) - 0.125) < 0.02


def test_dropout_keeps_the_share_it_promises_and_the_mean():
    y, _ = fcnn.Dropout(0.1).apply_train({}, jnp.ones((4, 10_000)), key=KEY)
    dropped = float((y == 0).mean())
    assert abs(dropped - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 40_000)  # four standard deviations
    np.testing.assert_allclose(y[y != 0], 1 / 0.9, rtol=1e-6)


def test_dropout_of_whole_channels_drops_every_position_of_a_channel():
    y, _ = fcnn.Dropout(0.5, whole_channels=True).apply_train({}, jnp.ones((8, 3, 4, 16)), key=KEY)
    per_channel = np.asarray(y).reshape(8, 12, 16)
    assert (per_channel == per_channel[:, :1]).all()
    assert 0 < (per_channel[:, 0] == 0).mean() < 1


def test_serial_is_its_parts_one_after_the_other():
    net = fcnn.serial(fcnn.Conv(4, 3), jnp.tanh, fcnn.Flatten(), fcnn.Dense(2))
    params, x = net.init(KEY, (6, 6, 1)), images(2, 6, 6, 1)
    by_hand = jnp.tanh(fcnn.ops.conv(x, **{k: params["conv1"][k] for k in ("kernel", "bias")}))
    by_hand = by_hand.reshape(2, -1) @ params["dense1"]["kernel"] + params["dense1"]["bias"]
    np.testing.assert_allclose(net.apply(params, x), by_hand, rtol=1e-5, atol=1e-6)


def test_residual_adds_and_branches_concatenate_or_sum():
    x, body = images(2, 5, 5, 3), fcnn.Conv(3, 3, padding="SAME")
    net = fcnn.residual(body)
    params = net.init(KEY, (5, 5, 3))
    np.testing.assert_allclose(net.apply(params, x), x + body.apply(params["body"], x), rtol=1e-6)
    for join, by_hand in (("concat", lambda a, b: jnp.concatenate([a, b], -1)), ("sum", jnp.add)):
        net = fcnn.branches(fcnn.Conv(2, 1), other=fcnn.Conv(2, 3, padding="SAME"), join=join)
        params = net.init(KEY, (5, 5, 3))
        a = fcnn.Conv(2, 1).apply(params["conv1"], x)
        b = fcnn.Conv(2, 3, padding="SAME").apply(params["other"], x)
        np.testing.assert_allclose(net.apply(params, x), by_hand(a, b), rtol=1e-6)


def test_repeat_is_n_layers_in_a_row_and_every_copy_has_its_own_parameters():
    block = fcnn.residual(fcnn.serial(fcnn.Conv(3, 3, padding="SAME"), fcnn.BatchNorm(), jnp.tanh))
    net, x = fcnn.repeat(block, 3), images(4, 5, 5, 3)
    params, state = net.init(KEY, (5, 5, 3)), net.init_state((5, 5, 3))
    assert not np.allclose(params["body"]["conv1"]["kernel"][0], params["body"]["conv1"]["kernel"][1])
    y, new = net.apply_train(params, x, state=state)
    by_hand, states = x, []
    for i in range(3):
        take = functools.partial(jax.tree.map, lambda a, i=i: a[i])
        by_hand, copy = block.apply_train(take(params), by_hand, state=take(state))
        states.append(copy)
    np.testing.assert_allclose(y, by_hand, rtol=1e-5, atol=1e-6)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), new, stacked)


def test_more_copies_leave_the_first_ones_as_they_were():
    few, many = (fcnn.repeat(fcnn.Dense(4), n).init(KEY, (4,)) for n in (2, 5))
    np.testing.assert_array_equal(few["kernel"], many["kernel"][:2])


def test_the_gradient_of_a_layer_used_twice_is_the_sum_over_its_uses(x64):
    @fcnn.graph(f=fcnn.Dense(4, bias=False))
    def twice(layer, x):
        return layer.f(jnp.tanh(layer.f(x)))

    params, x = twice.init(KEY, (4,)), images(3, 4)

    def unshared(first, second):
        return jnp.sum(jnp.sin(jnp.tanh(x @ first) @ second))

    shared = jax.grad(lambda p: jnp.sum(jnp.sin(twice.apply(p, x))))(params)["f"]["kernel"]
    shares = jax.grad(unshared, (0, 1))(params["f"]["kernel"], params["f"]["kernel"])
    np.testing.assert_allclose(shared, shares[0] + shares[1], rtol=1e-12)


def test_tied_weights_are_one_entry_and_get_both_gradients(x64):
    @fcnn.graph(encode=fcnn.Dense(3))
    def autoencoder(layer, x):
        code = jnp.tanh(layer.encode(x))
        return code @ layer.params["encode"]["kernel"].T

    params, x = autoencoder.init(KEY, (5,)), images(2, 5)
    assert jax.tree.map(jnp.shape, params) == {"encode": {"kernel": (5, 3), "bias": (3,)}}

    def untied(w, v, b):
        return jnp.sum(jnp.square(jnp.tanh(x @ w + b) @ v.T - x))

    w, b = params["encode"]["kernel"], params["encode"]["bias"]
    tied = jax.grad(lambda p: jnp.sum(jnp.square(autoencoder.apply(p, x) - x)))(params)["encode"]["kernel"]
    dw, dv = jax.grad(untied, (0, 1))(w, w, b)
    np.testing.assert_allclose(tied, dw + dv, rtol=1e-11)


def test_running_statistics_pass_from_use_to_use():
    @fcnn.graph(norm=fcnn.BatchNorm(momentum=0.5))
    def twice(layer, x):
        return layer.norm(x) + layer.norm(x + 10.0)

    x = jnp.array([[1.0], [3.0]])
    params, state = twice.init(KEY, (1,)), twice.init_state((1,))
    _, new = twice.apply_train(params, x, state=state)
    # 0 -> 0.5 * 0 + 0.5 * 2 = 1 -> 0.5 * 1 + 0.5 * 12 = 6.5
    np.testing.assert_allclose(new["norm"]["mean"], [6.5])


def test_a_graph_of_several_outputs():
    @fcnn.graph(body=fcnn.Dense(4), box=fcnn.Dense(2), kind=fcnn.Dense(3))
    def heads(layer, x):
        h = jnp.tanh(layer.body(x))
        return {"box": layer.box(h), "kind": layer.kind(h)}

    assert heads.out_shape((5,)) == {"box": (2,), "kind": (3,)}
    y = heads.apply(heads.init(KEY, (5,)), images(7, 5))
    assert jax.tree.map(jnp.shape, y) == {"box": (7, 2), "kind": (7, 3)}


def test_several_outputs_joined_by_a_graph_pass_on_through_serial_residual_and_branches():
    @fcnn.graph(left=fcnn.Dense(4), right=fcnn.Dense(4))
    def both(layer, x):
        return layer.left(x), jnp.tanh(layer.right(x))

    product = fcnn.graph(both=both)(lambda layer, x: jnp.multiply(*layer.both(x)))
    nets = {
        "serial": (fcnn.serial(product, jnp.abs), lambda x, y: jnp.abs(y)),
        "residual": (fcnn.residual(product), jnp.add),
        "branches": (fcnn.branches(jnp.sin, product), lambda x, y: jnp.concatenate([jnp.sin(x), y], -1)),
    }
    x = images(3, 4)
    for name, (net, by_hand) in nets.items():
        params = net.init(KEY, (4,))
        (own,) = params.values()
        left, right = (own["both"][side] for side in ("left", "right"))
        y = (x @ left["kernel"] + left["bias"]) * jnp.tanh(x @ right["kernel"] + right["bias"])
        np.testing.assert_allclose(net.apply(params, x), by_hand(x, y), rtol=1e-5, atol=1e-6, err_msg=name)


def test_compositions_nest_and_paths_follow():
    net = fcnn.serial(
        fcnn.residual(fcnn.serial(fcnn.Conv(2, 3, padding="SAME"), jax.nn.relu)),
        inception=fcnn.branches(fcnn.Conv(2, 1), fcnn.repeat(fcnn.Conv(2, 3, padding="SAME"), 2)),
    )
    params, x = net.init(KEY, (4, 4, 2)), images(1, 4, 4, 2)
    assert params["residual1"]["body"]["conv1"]["kernel"].shape == (3, 3, 2, 2)
    assert params["inception"]["repeat1"]["kernel"].shape == (2, 3, 3, 2, 2)
    seen = fcnn.capture(net, params, x)
    assert list(seen) == [
        "residual1/body/conv1", "residual1/body/relu1", "residual1/body", "residual1",
        "inception/conv1", "inception/repeat1", "inception",
    ]  # fmt: skip
    np.testing.assert_array_equal(seen["inception"], net.apply(params, x))


def test_capture_of_a_shared_layer_a_repeat_and_a_single_layer():
    @fcnn.graph(f=fcnn.Dense(3))
    def twice(layer, x):
        return layer.f(layer.f(x))

    assert list(fcnn.capture(twice, twice.init(KEY, (3,)), images(2, 3))) == ["f", "f#2"]
    net = fcnn.repeat(fcnn.serial(fcnn.Dense(3), jnp.tanh), 4)
    params, x = net.init(KEY, (3,)), images(2, 3)
    seen = fcnn.capture(net, params, x)
    assert seen["tanh1"].shape == (4, 2, 3)
    np.testing.assert_allclose(seen["tanh1"][-1], net.apply(params, x), rtol=1e-6)
    assert list(fcnn.capture(fcnn.Flatten(), {}, images(2, 3, 3))) == ["flatten"]


def test_capture_can_be_compiled_and_differentiated():
    net = fcnn.serial(fcnn.Conv(2, 3), jnp.tanh, fcnn.GlobalAvgPool())
    params, x = net.init(KEY, (6, 6, 1)), images(1, 6, 6, 1)
    compiled = jax.jit(lambda p: fcnn.capture(net, p, x)["tanh1"])(params)
    np.testing.assert_allclose(compiled, fcnn.capture(net, params, x)["tanh1"], rtol=1e-5)
    slope = jax.grad(lambda x: fcnn.capture(net, params, x)["tanh1"][0, 1, 1, 0])(x)
    assert slope.shape == x.shape
    assert float(jnp.abs(slope[0, 4:]).max()) == 0  # outside the receptive field


def test_a_partial_function_compares_by_its_arguments_and_can_be_pickled():
    def leaky(slope):
        return fcnn.serial(functools.partial(jax.nn.leaky_relu, negative_slope=slope))

    assert leaky(0.1) == leaky(0.1)
    assert hash(leaky(0.1)) == hash(leaky(0.1))
    assert leaky(0.1) != leaky(0.2)
    assert pickle.loads(pickle.dumps(leaky(0.1))) == leaky(0.1)
    assert eval(repr(leaky(0.1))) == leaky(0.1)


def test_a_lambda_is_a_layer_but_says_why_it_cannot_be_pickled():
    net = fcnn.serial(lambda x: x - 1.0, fcnn.Flatten())
    np.testing.assert_array_equal(net.apply({}, jnp.ones((1, 2, 2, 1))), jnp.zeros((1, 4)))
    with pytest.raises(pickle.PicklingError, match="define it with def"):
        pickle.dumps(net)


@fcnn.graph(encode=fcnn.Dense(3))
def decorated(layer, x):
    return layer.encode(x)


def test_a_graph_made_by_a_decorator_can_be_pickled():
    assert pickle.loads(pickle.dumps(fcnn.serial(decorated))) == fcnn.serial(decorated)


def test_integer_images_may_enter_through_a_function():
    net = fcnn.serial(lambda x: x.astype("float32") / 255, fcnn.Flatten(), fcnn.Dense(2))
    params = net.init(KEY, (2, 2, 1))
    assert net.apply(params, jnp.full((1, 2, 2, 1), 255, "uint8")).dtype == "float32"


def test_several_inputs_pass_through_serial_to_its_first_part():
    @fcnn.graph(a=fcnn.Dense(3), b=fcnn.Dense(3))
    def meet(layer, x, y):
        return layer.a(x) + layer.b(y)

    net = fcnn.serial(meet, jnp.tanh, head=fcnn.Dense(2))
    params = net.init(KEY, (4,), (6,))
    assert net.out_shape((4,), (6,)) == (2,)
    assert net.apply(params, images(5, 4), images(5, 6)).shape == (5, 2)


def test_a_user_defined_layer_keeps_the_contract():
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Scale(fcnn.Layer):
        start: float = 1.0

        def parameters(self, shape):
            return {"scale": fcnn.Parameter(shape[-1:], jax.nn.initializers.constant(self.start))}

        def forward(self, params, x):
            return x * params["scale"]

    net = fcnn.serial(fcnn.Flatten(), Scale(3.0))
    params = net.init(KEY, (2, 2, 1))
    np.testing.assert_array_equal(net.apply(params, jnp.ones((1, 2, 2, 1))), 3 * jnp.ones((1, 4)))
    with pytest.raises(ValueError, match=r"scale1: scale has shape \(4,\), an input of \(9,\) asks for \(9,\)"):
        net.apply(params, jnp.ones((1, 3, 3, 1)))


def test_the_ensemble_by_vmap_of_init():
    net = fcnn.serial(fcnn.Conv(2, 3), jax.nn.relu, fcnn.Dropout(0.5), fcnn.Flatten(), fcnn.Dense(3))
    params = jax.vmap(lambda key: net.init(key, (6, 6, 1)))(jax.random.split(KEY, 4))
    x = images(5, 6, 6, 1)
    y = jax.vmap(lambda p: net.apply(p, x))(params)
    assert y.shape == (4, 5, 3)
    one = jax.tree.map(lambda a: a[2], params)
    np.testing.assert_allclose(y[2], net.apply(one, x), rtol=1e-5, atol=1e-6)


def test_summary_counts_a_shared_layer_once():
    @fcnn.graph(f=fcnn.Conv(4, 3, padding="SAME"))
    def twice(layer, x):
        return layer.f(layer.f(x))

    table = fcnn.summary(fcnn.serial(twice, fcnn.BatchNorm()), (5, 5, 4))
    assert table.parameters == 9 * 4 * 4 + 4 + 2 * 4
    assert table.state == 8
    assert [(row.path, row.parameters, row.shared) for row in table.rows] == [
        ("graph1/f", 148, False), ("graph1/f#2", 0, True), ("batch_norm1", 8, False),
    ]  # fmt: skip
    assert "shared" in str(table)
    assert "<table>" in table._repr_html_()


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (fcnn.Conv(6, 5), (28, 28, 1)),
        (fcnn.models.lenet5(), (28, 28, 1)),
        (fcnn.repeat(fcnn.Conv(4, 3, padding="SAME"), 5), (8, 8, 4)),
        (fcnn.residual(fcnn.Conv(6, 3, stride=2), fcnn.serial(fcnn.Conv(6, 3, stride=2))), (9, 9, 2)),
    ],
)
def test_summary_counts_what_init_makes(net, shape):
    table = fcnn.summary(net, shape)
    made = sum(leaf.size for leaf in jax.tree.leaves(net.init(KEY, shape)))
    assert table.parameters == made == sum(row.parameters for row in table.rows)


def test_functions_whose_shape_is_known_keep_it():
    from fcnn.layers.function import _OF_NUMBERS

    for function in _OF_NUMBERS:
        for shape in ((2, 3, 4), (5,), (0, 3)):
            made = jax.eval_shape(function, jax.ShapeDtypeStruct(shape, "float32"))
            assert (made.shape, made.dtype) == (shape, "float32"), function
