"""What every layer and composition promises, put to every one of them."""

import pickle
from functools import cache, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, NOT_LAYERS, inputs_of

import fcnn

# of module scope, so that all tests of one case come together and find its operations compiled
ALL = pytest.mark.parametrize("name", CASES, scope="module")
SMALL = pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if "large" not in case.tags], scope="module"
)
#: cases whose outputs do not depend on the other examples
APART = pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if "joins examples" not in case.tags], scope="module"
)
SMALL_APART = pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if not case.tags & {"large", "joins examples"}], scope="module"
)
PARAMETERS = {
    name: jax.eval_shape(partial(case.net.init, shape=case.shape), jax.random.key(0))
    for name, case in CASES.items()
    if not case.more_shapes
}
LEARNED = pytest.mark.parametrize("name", [name for name in CASES if PARAMETERS.get(name, True)], scope="module")
KEY = 3


def made(name, dtype=None):
    return _made(name, dtype, jax.config.jax_enable_x64)


@cache
def _made(name, dtype, wide):
    case = CASES[name]

    def init(key):
        return case.net.init(key, *case.shapes)

    params = (jax.jit(init) if wide else init)(jax.random.key(0))
    if dtype is not None:
        params = jax.tree.map(lambda a: a.astype(dtype), params)
    return case, params, case.net.init_state(*case.shapes), inputs_of(case, 3, dtype)


def use(net, params, state, inputs):
    return net.apply(params, *inputs, state=state)


def train(net, params, state, inputs):
    return net.apply_train(params, *inputs, key=jax.random.key(KEY), state=state)


compiled_use, compiled_train = jax.jit(use), jax.jit(train)


def both_ways(*given):
    return use(*given), train(*given)


compiled_both = jax.jit(both_ways)


@cache
def eager(name):
    """What a case gives in use and in training, operation by operation."""
    case, params, state, inputs = made(name)
    return use(case.net, params, state, inputs), train(case.net, params, state, inputs)


def shapes_of(tree):
    return jax.tree.map(lambda a: (a.shape, a.dtype), tree)


def test_every_layer_at_the_door_has_a_case():
    offered = set(fcnn.__all__) - NOT_LAYERS
    modules = {name for name in offered if type(getattr(fcnn, name)).__name__ == "module"}
    covered = {case.covers for case in CASES.values()} - {"models"}
    assert offered - modules == covered


@ALL
def test_the_declared_shape_is_the_applied_shape(name):
    case = CASES[name]
    used, (trained, _) = eager(name)
    assert used.shape == trained.shape == (3, *case.net.out_shape(*case.shapes))


@ALL
def test_the_same_key_gives_the_same_params_and_another_gives_others(name):
    case, params, _, _ = made(name)
    again = case.net.init(jax.random.key(0), *case.shapes)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, again))
    other = case.net.init(jax.random.key(1), *case.shapes)
    kernels = [leaf for path, leaf in jax.tree.leaves_with_path(params) if "kernel" in jax.tree_util.keystr(path)]
    others = [leaf for path, leaf in jax.tree.leaves_with_path(other) if "kernel" in jax.tree_util.keystr(path)]
    assert all(bool((a != b).any()) for a, b in zip(kernels, others, strict=True))


@ALL
def test_params_are_nested_dicts_of_arrays_without_empty_entries(name):
    def check(tree):
        assert type(tree) is dict
        for entry in tree.values():
            if isinstance(entry, jax.Array):
                assert jnp.issubdtype(entry.dtype, jnp.floating)
            else:
                assert entry, "an empty entry"
                check(entry)

    _, params, state, _ = made(name)
    check(params)
    check(state)


@ALL
def test_compiled_equals_eager(name):
    case, params, state, inputs = made(name)
    compiled = compiled_use(case.net, params, state, inputs), compiled_train(case.net, params, state, inputs)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6), eager(name), compiled)


@APART
def test_vmap_over_examples_equals_the_batch(name):
    case, params, state, inputs = made(name)

    def one(*xs):
        return case.net.apply(params, *(x[None] for x in xs), state=state)[0]

    np.testing.assert_allclose(jax.jit(jax.vmap(one))(*inputs), eager(name)[0], rtol=2e-5, atol=2e-6)


def changed(x, value):
    """X with another value in the middle of its second example."""
    x = np.array(x)
    x[(1, *(n // 2 for n in x.shape[1:]))] = value
    return x


@ALL
def test_one_bad_sample_spoils_what_sees_it(name):
    case, params, state, (x, *others) = made(name)

    def used(x):
        return np.asarray(compiled_use(case.net, params, state, (jnp.asarray(x), *others)))

    spoilt = ~np.isfinite(used(changed(x, np.nan)))
    moved = (used(changed(x, 9.0)) != used(x)) | (used(changed(x, -9.0)) != used(x))
    if "joins examples" not in case.tags:
        assert not spoilt[[0, 2]].any()
        assert not moved[[0, 2]].any()
    if "moves values" not in case.tags:  # else a value that comes to lie elsewhere leaves a finite 0
        assert (spoilt == moved).all() if case.local else spoilt[moved].all()


@SMALL
def test_one_bad_output_gradient_spoils_the_gradients_of_what_it_sees(name):
    case, params, state, inputs = made(name)

    @jax.jit
    def gradients(g):
        return jax.vjp(lambda *inputs: use(case.net, params, state, inputs), *inputs)[1](g)

    g = np.full(compiled_use(case.net, params, state, inputs).shape, 0.5, "float32")
    pairs = zip(*map(gradients, (changed(g, np.nan), changed(g, 9.0), g)), strict=True)
    for bad, other, usual in pairs:
        spoilt, moved = ~np.isfinite(bad), np.asarray(other != usual)
        if "joins examples" not in case.tags:
            assert not spoilt[[0, 2]].any()
        assert (spoilt == moved).all() if case.local else spoilt[moved].all()


@LEARNED
def test_vmap_over_params_is_an_ensemble(name):
    case, _, state, inputs = made(name)
    members = [case.net.init(jax.random.key(i), *case.shapes) for i in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(lambda p: case.net.apply(p, *inputs, state=state)))(stacked)
    for member, y in zip(members, together, strict=True):
        np.testing.assert_allclose(compiled_use(case.net, member, state, inputs), y, rtol=2e-5, atol=2e-6)


#: of a central difference: so small that no value passes another, so no kink is crossed
STEP = 1e-6


@cache
def slopes(name):
    """Of the sum of the sines of the outputs, by one program: value, gradient, and the derivatives of both.

    Returns:
        (value, gradient), their derivatives along a random direction of params and inputs by forward mode, the same by
        differences, and the direction.
    """
    case, params, state, inputs = made(name)

    def objective(params, inputs):
        return jnp.sum(jnp.sin(train(case.net, params, state, inputs)[0]))

    @jax.jit
    def everything(at, along):
        return jax.jvp(jax.value_and_grad(objective, (0, 1)), at, along)

    at = jax.tree.map(np.asarray, (params, inputs))
    rng = np.random.default_rng(5)
    along = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), at)
    here, forward = everything(at, along)
    up, down = (
        everything(jax.tree.map(lambda a, d, step=step: a + step * d, at, along), along)[0] for step in (STEP, -STEP)
    )
    return here, forward, jax.tree.map(lambda a, b: (a - b) / (2 * STEP), up, down), along


@SMALL
def test_gradients_are_those_of_finite_differences_forward_and_reverse(name, x64):
    (_, gradient), (forward, _), (numeric, _), along = slopes(name)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    reverse = sum(np.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, along)), strict=True))
    np.testing.assert_allclose(reverse, numeric, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(forward, reverse, rtol=1e-11, atol=1e-12)


@SMALL
def test_forward_over_reverse_is_the_derivative_of_the_gradient(name, x64):
    _, (_, product), (_, numeric), _ = slopes(name)
    for found, expected in zip(*map(jax.tree.leaves, (product, numeric)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@SMALL_APART
def test_per_example_gradients_sum_to_the_gradient_of_the_batch(name, x64):
    case, params, state, inputs = made(name)

    def objective(params, inputs):
        return jnp.sum(jnp.sin(case.net.apply(params, *inputs, state=state)))

    def one(params, xs):
        return objective(params, tuple(x[None] for x in xs))

    @jax.jit
    def both(params, inputs):
        return jax.vmap(jax.grad(one), in_axes=(None, 0))(params, inputs), jax.grad(objective)(params, inputs)

    each, whole = both(params, inputs)
    jax.tree.map(lambda e, w: np.testing.assert_allclose(np.asarray(e).sum(0), w, rtol=1e-10, atol=1e-11), each, whole)


@ALL
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtypes_are_kept(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        case, params, state, inputs = made(name, dtype)
        used, (y, new) = jax.eval_shape(partial(both_ways, case.net), params, state, inputs)
        assert used.dtype == y.dtype == dtype
        assert shapes_of(new) == shapes_of(state)
        assert all(leaf.dtype == ("float64" if dtype == "float64" else "float32") for leaf in jax.tree.leaves(new))


@ALL
def test_halves_of_the_least_range_stay_finite(name):
    """No sum or square on the way passes 65,504, the largest float16, where the result does not."""
    case, params, state, inputs = made(name, "float16")
    used, (y, _) = compiled_both(case.net, params, state, inputs)
    assert np.isfinite(np.asarray(used, "float64")).all()
    assert np.isfinite(np.asarray(y, "float64")).all()


@ALL
def test_half_precision_is_close_to_single(name):
    case, params, state, inputs = made(name)
    half = jax.tree.map(lambda a: a.astype("bfloat16"), (params, inputs))
    single = jax.tree.map(lambda a: a.astype("float32"), half)
    # operation by operation, so that every one of them rounds
    low = np.asarray(use(case.net, half[0], state, half[1]), "float32")
    high = np.asarray(compiled_use(case.net, single[0], state, single[1]))
    # bfloat16 has 8 significant bits; a handful of roundings one after the other
    np.testing.assert_allclose(low, high, atol=0.03 * float(np.abs(high).max()) + 1e-6)


@LEARNED
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_gradients_of_params_in_half_precision_are_close_to_those_in_single(name, dtype):
    """So many shares of one size are summed that a sum kept in half precision would stand still.

    In bfloat16 256 + 1 is 256, in float16 2048 + 1 is 2048.
    """
    case, params, state, _ = made(name)
    draw, examples = np.random.default_rng(0), 600 if "large" in CASES[name].tags else 6000
    inputs = [draw.uniform(0, 1, (examples, *shape)) for shape in case.shapes]
    params, inputs = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, inputs))

    @jax.jit
    def gradients(params, inputs):
        return jax.grad(lambda params: case.net.apply(params, *inputs, state=state).astype("float32").sum() / 64)(
            params
        )

    low = gradients(params, inputs)
    high = gradients(*jax.tree.map(lambda a: a.astype("float32"), (params, inputs)))
    for path, expected in jax.tree_util.tree_leaves_with_path(high):
        found = reduce(lambda tree, step: tree[step.key], path, low)
        assert found.dtype == dtype
        far = np.abs(found.astype("float32") - expected).max() / np.abs(expected).max()
        assert far < 0.03, jax.tree_util.keystr(path)


@ALL
def test_training_leaves_the_tree_of_the_state_as_it_was(name):
    _, _, state, _ = made(name)
    _, answer = eager(name)
    assert type(answer) is tuple
    assert len(answer) == 2
    assert shapes_of(answer[1]) == shapes_of(state)
    assert jax.tree.structure(answer[1]) == jax.tree.structure(state)


@ALL
def test_a_missing_key_or_state_is_named_with_its_layer(name):
    case, params, state, inputs = made(name)
    if state:
        with pytest.raises(
            ValueError, match=r"^[a-z0-9_/]*(batch|instance)_norm1?: needs its mean and variance.*state="
        ):
            case.net.apply(params, *inputs)
    draws = "dropout" in repr(case.net).lower() or "StochasticDepth" in repr(case.net)
    if draws:
        with pytest.raises(
            ValueError, match=r"^[a-z0-9_/]*(dropout1?|drop|stochastic_depth1): draws random numbers.*key="
        ):
            case.net.apply_train(params, *inputs, state=state)
    if not state and not draws:
        y, new = case.net.apply_train(params, *inputs)
        assert new == {}
        np.testing.assert_allclose(y, eager(name)[0], rtol=1e-6, atol=1e-7)


@ALL
def test_repr_is_code_that_rebuilds_it(name):
    net = CASES[name].net
    names = {"fcnn": fcnn, "jax": jax, "cases": __import__("cases")}
    again = eval(repr(net), names)
    assert again == net
    assert hash(again) == hash(net)
    assert repr(again) == repr(net)


@ALL
def test_pickle_gives_an_equal_network(name):
    net = CASES[name].net
    again = pickle.loads(pickle.dumps(net))
    assert again == net
    assert hash(again) == hash(net)


@ALL
def test_two_equal_networks_trace_once(name):
    case, params, state, inputs = made(name)
    traces = []

    @jax.jit
    def apply(net, params, state, inputs):
        traces.append(1)
        net.apply(params, *inputs, state=state)  # what nobody asks for need not be compiled

    apply(case.net, params, state, inputs)
    apply(pickle.loads(pickle.dumps(case.net)), params, state, inputs)
    assert len(traces) == 1


@ALL
def test_a_network_is_a_frozen_static_node(name):
    net = CASES[name].net
    assert jax.tree.leaves(net) == []
    with pytest.raises(AttributeError):
        net.anything = 1


@ALL
def test_it_works_in_scan_and_under_checkpoint(name):
    case, params, state, inputs = made(name)

    def objective(params, inputs):
        return jnp.sum(train(case.net, params, state, inputs)[0])

    @jax.jit
    def three_ways(params, inputs):
        gradient = jax.grad(objective)
        scanned = jax.lax.scan(lambda c, _: (c, gradient(params, inputs)), 0, None, length=1)[1]
        return gradient(params, inputs), jax.grad(jax.checkpoint(objective))(params, inputs), scanned

    plain, remade, scanned = three_ways(params, inputs)
    for leaf, a, b in zip(*map(jax.tree.leaves, (plain, remade, scanned)), strict=True):
        scale = float(np.abs(leaf).max()) + 1e-6
        np.testing.assert_allclose(leaf, a, atol=1e-5 * scale)
        np.testing.assert_allclose(leaf, b[0], atol=1e-5 * scale)


@ALL
def test_every_public_class_has_a_docstring_with_shapes_source_or_returns_and_an_example(name):
    target = getattr(fcnn, CASES[name].covers)
    if type(target).__name__ == "module":
        return
    text = target.__doc__
    assert "Example:" in text
    assert ">>>" in text
    assert "Shapes:" in text or "Returns:" in text
