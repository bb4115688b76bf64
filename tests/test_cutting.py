"""Networks are cut and put together: parts by position, name and slice, with the params and state that were theirs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn

IMAGE = (6, 6, 2)
NET = fcnn.serial(
    fcnn.Conv(4, 3, padding="SAME"), fcnn.BatchNorm(), jax.nn.relu, fcnn.residual(fcnn.Conv(4, 3, padding="SAME")),
    fcnn.Flatten(), head=fcnn.Dense(3),
)  # fmt: skip
PARAMS, STATE = NET.init(jax.random.key(0), IMAGE), NET.init_state(IMAGE)
X = np.random.default_rng(0).normal(size=(5, *IMAGE)).astype("float32")


def test_a_chain_is_a_sequence_of_layers_that_is_also_asked_by_name():
    assert len(NET) == 6
    assert NET
    assert list(NET) == [part for _, part in NET.parts]
    assert NET[0] == NET["conv1"] == fcnn.Conv(4, 3, padding="SAME")
    assert NET[-1] == NET["head"] == fcnn.Dense(3)
    assert NET[np.int64(1)] == fcnn.BatchNorm()
    assert NET["residual1/body"] == fcnn.Conv(4, 3, padding="SAME")
    assert "head" in NET
    assert "tail" not in NET
    assert fcnn.Flatten() in NET
    assert fcnn.Dense(4) not in NET
    assert NET._ipython_key_completions_() == ["conv1", "batch_norm1", "relu1", "residual1", "flatten1", "head"]
    first, *_, last = NET
    assert (first, last) == (NET[0], NET["head"])


def test_slices_keep_names_and_their_repr_rebuilds_them():
    for places in (slice(None, -1), slice(2, None), slice(1, 4), slice(None), slice(None, None, 2)):
        part = NET[places]
        assert type(part) is type(NET)
        assert part.parts == NET.parts[places]
        assert eval(repr(part), {"fcnn": fcnn, "jax": jax}) == part
    assert NET[:] == NET
    assert NET[:2].own(PARAMS) == {name: PARAMS[name] for name in ("conv1", "batch_norm1")}
    assert list(NET[2:].own(PARAMS)) == ["residual1", "head"]
    assert NET[:2].own(STATE) == STATE
    assert NET[2:].own(STATE) == {}


def test_the_pieces_compute_what_the_whole_does():
    for cut in (1, 2, 4, 5):
        first, second = NET[:cut], NET[cut:]
        middle = first.apply(first.own(PARAMS), X, state=first.own(STATE))
        whole = second.apply(second.own(PARAMS), middle, state=second.own(STATE))
        np.testing.assert_allclose(whole, NET.apply(PARAMS, X, state=STATE), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(NET["head"].apply(PARAMS["head"], np.ones((1, 144), "float32")).shape, (1, 3))


def test_a_trunk_with_another_head_is_trained_and_only_the_head_if_so_wished():
    trunk = NET[:-1]
    net = fcnn.serial(trunk=trunk, head=fcnn.Dense(2))
    params = net.init(jax.random.key(1), IMAGE) | {"trunk": trunk.own(PARAMS)}
    state = {"trunk": trunk.own(STATE)}
    assert jax.tree.structure(state) == jax.tree.structure(net.init_state(IMAGE))
    middle = trunk.apply(trunk.own(PARAMS), X, state=trunk.own(STATE))
    by_hand = middle @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(net.apply(params, X, state=state), by_hand, rtol=1e-5, atol=1e-6)

    def loss(params):
        return jnp.sum(jnp.sin(net.apply(params, X, state=state)))

    gradient = jax.grad(loss)(params)
    whole = jax.grad(lambda p: jnp.sum(jnp.sin(fcnn.serial(*NET[:-1], head=fcnn.Dense(2)).apply(p, X, state=STATE))))(
        {**trunk.own(PARAMS), "head": params["head"]}
    )
    for name, entry in gradient["trunk"].items():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), entry, whole[name])
    frozen = optax.multi_transform(
        {"train": optax.sgd(0.1), "keep": optax.set_to_zero()}, {"trunk": "keep", "head": "train"}
    )
    run = fcnn.fit(
        net, (X, np.arange(5) % 2), optimizer=frozen, epochs=2, key=jax.random.key(0), batch_size=5, params=params,
        state=state, progress=False,
    )  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, run.params["trunk"], params["trunk"])
    assert np.abs(run.params["head"]["kernel"] - params["head"]["kernel"]).max() > 0


def test_branches_residual_and_graphs():
    module = fcnn.branches(fcnn.Conv(2, 1), fcnn.Conv(3, 1), pool=fcnn.MaxPool(1), join="concat")
    params = module.init(jax.random.key(0), IMAGE)
    two = module[:2]
    assert two == fcnn.branches(fcnn.Conv(2, 1), fcnn.Conv(3, 1))
    np.testing.assert_array_equal(two.apply(two.own(params), X), module.apply(params, X)[..., :5])
    assert module["pool"] == module[2] == fcnn.MaxPool(1)
    block = fcnn.residual(fcnn.serial(fcnn.Conv(2, 1), jax.nn.relu), fcnn.Conv(2, 1))
    assert block.parts == (("body", block[0]), ("shortcut", block[1]))
    assert block["body/conv1"] == fcnn.Conv(2, 1)
    assert len(fcnn.residual(jax.nn.relu)) == 1
    graph = fcnn.graph(a=fcnn.Dense(2), b=jnp.tanh)(lambda layer, x: layer.b(layer.a(x)))
    assert graph["a"] == fcnn.Dense(2)
    assert [name for name, _ in graph.parts] == ["a", "b"]
    for cannot in (block, graph):
        with pytest.raises(TypeError, match=rf"^{cannot.label} cannot be cut by a slice; take one part by its name"):
            cannot[:1]


def test_what_wraps_a_layer_hands_on_its_parts():
    inner = fcnn.serial(fcnn.Conv(2, 3, padding="SAME"), jax.nn.relu, fcnn.Conv(2, 3, padding="SAME"))
    remat = fcnn.remat(inner, policy=jax.checkpoint_policies.dots_saveable)
    params = remat.init(jax.random.key(0), IMAGE)
    assert remat[:1] == fcnn.remat(inner[:1], policy=jax.checkpoint_policies.dots_saveable)
    assert remat["conv2"] == inner["conv2"]
    assert remat.parts == inner.parts
    first, rest = remat[:1], remat[1:]
    whole = rest.apply(rest.own(params), first.apply(first.own(params), X))
    np.testing.assert_allclose(whole, remat.apply(params, X), rtol=1e-5, atol=1e-6)
    scan = fcnn.Scan(fcnn.serial(fcnn.Conv(3, 2), fcnn.Flatten(), fcnn.Dense(2)), 3)
    assert scan["dense1"] == fcnn.Dense(2)
    with pytest.raises(TypeError, match=r"cut its network, scan\.net"):
        scan[:1]
    with pytest.raises(TypeError, match="dense has no parts"):
        fcnn.remat(fcnn.Dense(2))[0]


def test_repeated_layers_are_copies():
    block = fcnn.residual(fcnn.Conv(2, 3, padding="SAME"))
    net = fcnn.serial(blocks=fcnn.repeat(block, 4), head=fcnn.Flatten())
    params = net.init(jax.random.key(0), IMAGE)
    repeat = net["blocks"]
    assert len(repeat) == 4
    assert list(repeat) == [block] * 4
    assert repeat[-1] == net["blocks/3"] == block
    assert net["blocks/3/body"] == fcnn.Conv(2, 3, padding="SAME")
    assert repeat[1:] == fcnn.repeat(block, 3)
    middle = repeat[:3].apply(jax.tree.map(lambda a: a[:3], params["blocks"]), X)
    last = repeat[3].apply(jax.tree.map(lambda a: a[3], params["blocks"]), middle)
    np.testing.assert_allclose(last, repeat.apply(params["blocks"], X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("take", "kind", "says"),
    [
        (lambda: NET["tail"], ValueError, "serial has no part 'tail'; its parts are conv1, batch_norm1, relu1"),
        (lambda: NET[6], IndexError, "serial has 6 parts, none at 6"),
        (lambda: NET[-7], IndexError, "none at -7"),
        (lambda: NET[2:2], ValueError, "none of them in slice"),
        (lambda: NET[1.5], TypeError, "no part 1.5; take parts by number"),
        (lambda: NET["conv1/kernel"], TypeError, "conv has no parts, so none at 'kernel'"),
        (lambda: NET[0][0], TypeError, "not subscriptable"),
        (lambda: fcnn.repeat(jnp.tanh, 2)["body"], ValueError, "repeat has 2 copies, known by their number"),
        (lambda: fcnn.repeat(jnp.tanh, 2)[2:], ValueError, "repeat has 2 copies, none"),
        (lambda: fcnn.repeat(jnp.tanh, 2)[2], IndexError, "range"),
        (lambda: NET.own(3), TypeError, "must be a dict"),
    ],
)
def test_parts_that_are_not_there(take, kind, says):
    with pytest.raises(kind, match=says):
        take()
