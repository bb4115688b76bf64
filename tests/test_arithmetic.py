"""Rules by hand for JAX's primitives: whatever jax.numpy and jax.nn make of them, values and gradients agree."""

import inspect

import jax
import jax.extend.core.primitives as listed
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive
from jax_functions import ARGUMENTS, EXAMPLES, LAX, WITHOUT, X, Y, examples, public

from fcnn import jaxprs
from fcnn.analysis.arithmetic import program
from fcnn.analysis.arithmetic.loops import LOOPS
from fcnn.analysis.arithmetic.program import MAKERS, RULES
from fcnn.tracing import positionwise

PARTS = 12


def reason(name):
    """Why there is no example of a function; names without a module are of jax.numpy."""
    return WITHOUT.get(name.removeprefix("jnp."), WITHOUT.get(name))


def test_every_function_has_an_example_or_a_reason():
    covered = {name for _, names in ARGUMENTS for name in names.split()} | set(EXAMPLES)
    missing = {name for name in public() if name not in covered and reason(name) is None}
    assert not missing, "give these functions arguments in jax_functions.py, or say there why they have no rule"


#: primitives of jax.lax without a rule by hand, each with the reason
_REASONS = {
    "devices that talk to one another": """
        all_gather all_to_all all_gather_invariant all_gather_reduced axis_index pmax pmin ppermute psum psum_invariant
        ragged_all_to_all reduce_scatter
    """,
    "no function of arrays": "after_all create_token empty2 infeed outfeed",
    "decompositions of matrices": """
        cholesky cholesky_update custom_linear_solve custom_lin eig eigh hessenberg householder_product lu
        lu_pivots_to_permutation qr schur svd triangular_solve tridiagonal tridiagonal_solve
    """,
    "random numbers; those of a key that is constant are constants, which JAX makes": """
        random_bits random_clone random_fold_in random_gamma random_seed random_split random_unwrap random_wrap
        rng_bit_generator rng_uniform threefry2x32
    """,
    "of jax.scipy alone": "igamma igammac igamma_grad_a regularized_incomplete_beta",
    "arrays that can be changed": "get swap addupdate",
    "made by derivatives alone": "select_and_gather_add select_and_scatter select_and_scatter_add dce_sink",
    "of whole numbers and truth values: no derivative, left to JAX": "eq_to le_to lt_to clz mulhi",
    "what it chooses depends on the device": "approx_top_k",
    "bits have no derivative": "bitcast_convert_type",
    "made for one kind of hardware": "ragged_dot_general",
    "of a function of one's own; jax.lax.reduce_window has primitives for sums and extremes": "reduce_window",
}
NO_RULE = {name: why for why, names in _REASONS.items() for name in names.split()}


def test_every_primitive_has_a_rule_or_a_reason():
    every = {value.name for module in (listed, lax) for value in vars(module).values() if isinstance(value, Primitive)}
    known = {*RULES, *MAKERS, *LOOPS, *jaxprs.CALLS, *NO_RULE}
    assert not every - known, "write these primitives by hand in analysis/arithmetic, or say here why not"


def inexact(array):
    return jnp.issubdtype(array.dtype, jnp.inexact)


def all_of(names, table):
    """One function of all examples, compiled as one: values and, for a cotangent of each output, gradients."""

    def one(name, arrays, slopes):
        function, _ = table[name]
        floating = [i for i, array in enumerate(arrays) if inexact(array)]

        def values(*changed):
            given = list(arrays)
            for i, array in zip(floating, changed, strict=True):
                given[i] = array
            return [jnp.asarray(leaf) for leaf in jax.tree.leaves(function(*given))]

        found, pull = jax.vjp(lambda *a: [v for v in values(*a) if inexact(v)], *(arrays[i] for i in floating))
        return values(*(arrays[i] for i in floating)), pull(slopes[: len(found)])

    return jax.jit(lambda arrays, slopes: {name: one(name, arrays[name], slopes[name]) for name in names})


@pytest.mark.parametrize("part", range(PARTS))
def test_values_and_gradients(part, x64):
    table = examples()
    names = sorted(table)[part::PARTS]
    generator = np.random.default_rng(part)
    nodes, slopes, values = {}, {}, {}
    for name in names:
        function, arrays = table[name]
        with jax.numpy_dtype_promotion("standard"):
            traced, form = jax.make_jaxpr(function, return_shape=True)(*arrays)
        nodes[name] = program(traced, jax.tree.structure(form))
        values[name] = jax.tree.leaves(nodes[name].forward(*arrays))
        slopes[name] = [cotangent(generator, v) for v in jax.tree.leaves(form) if inexact(v)]
    with jax.numpy_dtype_promotion("standard"):
        expected = jax.tree.map(np.asarray, all_of(names, table)({n: table[n][1] for n in names}, slopes))
    for name in names:
        arrays = table[name][1]
        truth, gradients = expected[name]
        for mine, true in zip(values[name], truth, strict=True):
            assert np.shape(mine) == true.shape, name
            np.testing.assert_allclose(mine, true, rtol=1e-12, atol=1e-12, err_msg=name)
            assert inexact(true) or np.asarray(mine).dtype == true.dtype, name
        shares = nodes[name].backward(filled(nodes[name], values[name], slopes[name]))
        floating = [i for i, array in enumerate(arrays) if inexact(array)]
        for i, true in zip(floating, gradients, strict=True):
            np.testing.assert_allclose(shares[i], true, rtol=1e-10, atol=1e-11, err_msg=name)
        by_differences(name, nodes[name], arrays, floating, shares, slopes[name], generator)


def cotangent(generator, like):
    made = generator.normal(size=like.shape)
    if jnp.issubdtype(like.dtype, jnp.complexfloating):
        made = made + 1j * generator.normal(size=like.shape)
    return made.astype(like.dtype)


def filled(node, values, slopes):
    """The gradient of all outputs, from those of the outputs that have one."""
    given = iter(slopes)
    leaves = [next(given) if inexact(np.asarray(value)) else np.zeros(np.shape(value)) for value in values]
    return jax.tree.unflatten(jax.tree.structure(node._output), leaves)


#: functions whose derivative is not that of their value, in JAX as here
NO_SLOPE = ("stop_gradient", "nextafter", "spacing", "single numbers", "constants", "infinite", "precision", "unwrap")


def by_differences(name, node, arrays, floating, shares, slopes, generator):
    """Backward against forward of the same rules, which share no line."""
    if not floating or any(word in name for word in NO_SLOPE):
        return
    step = 1e-6
    moves = {i: generator.normal(size=arrays[i].shape) for i in floating}

    def total(by):
        given = [array + by * moves[i] if i in moves else array for i, array in enumerate(arrays)]
        leaves = jax.tree.leaves(node.forward(*given))
        parts = zip([np.asarray(leaf) for leaf in leaves if inexact(np.asarray(leaf))], slopes, strict=True)
        with np.errstate(all="ignore"):  # infinities of both signs
            return sum((float(np.real(value * slope).sum()) for value, slope in parts), 0.0)

    expected = sum(float(np.real(shares[i] * moves[i]).sum()) for i in floating)
    found = (total(step) - total(-step)) / (2 * step)
    if np.isfinite(found):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), name


# Ties and kinks: the derivative is not unique, and JAX's is taken.

TIED = np.array([[1.0, 1.0, 0.0, 1.0], [0.0, -1.0, 0.0, 6.0], [3.0, -3.0, 3.0, 0.5]])

KINKS = {
    **{name: getattr(jax.nn, name) for name in (
        "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "hard_tanh", "hard_sigmoid", "hard_silu", "squareplus",
        "soft_sign", "sparse_plus", "sparse_sigmoid", "softmax", "log_softmax", "glu", "gelu", "silu", "identity",
    )},
    "abs": jnp.abs, "max": jnp.max, "min of rows": lambda x: jnp.min(x, 1), "clip": lambda x: jnp.clip(x, -1, 1),
    "maximum": lambda x: jnp.maximum(x, 1.0), "minimum": lambda x: jnp.minimum(x, x[::-1]), "sign": jnp.sign,
    "ptp": jnp.ptp, "norm": lambda x: jnp.linalg.norm(x, 1), "cummax": lambda x: lax.cummax(x, 1),
    "cummin": lambda x: lax.cummin(x, 1, reverse=True), "sort": jnp.sort, "top_k": lambda x: lax.top_k(x, 2)[0],
    "median": jnp.median, "logaddexp": lambda x: jnp.logaddexp(x, x[::-1]), "clamp": lambda x: lax.clamp(0.0, x, 1.0),
    "max pool": lambda x: lax.reduce_window(x, -np.inf, lax.max, (2, 2), (1, 1), "VALID"),
    "min pool": lambda x: lax.reduce_window(x, np.inf, lax.min, (1, 3), (1, 1), "SAME"),
    "prod": lambda x: jnp.prod(x, 1), "cumprod": lambda x: jnp.cumprod(x, 1), "power": lambda x: x**2 + x**1,
    "where": lambda x: jnp.where(x > 0, x, 0.3 * x), "remainder": lambda x: jnp.remainder(x, 1.5),
    "written largest": lambda x: x.at[np.array([0, 0])].max(x[1:]), "sinc": jnp.sinc,
    "logsumexp": lambda x: jax.nn.logsumexp(x, 1), "heaviside": lambda x: jnp.heaviside(x, 0.5) * x,
    "nan to num": lambda x: jnp.nan_to_num(x), "hypot": lambda x: jnp.hypot(x, 1.0), "floor": jnp.floor,
    "standardize": lambda x: jax.nn.standardize(x),
}  # fmt: skip


def test_ties_and_kinks_are_taken_as_jax_takes_them(x64):
    slopes = {name: jax.eval_shape(function, TIED) for name, function in KINKS.items()}
    slopes = {name: np.cos(1.0 + np.arange(s.size)).reshape(s.shape) for name, s in slopes.items()}

    @jax.jit
    def pulled(x):
        return {name: jax.vjp(function, x)[1](slopes[name])[0] for name, function in KINKS.items()}

    expected = pulled(TIED)
    for name, function in KINKS.items():
        node = program(jax.make_jaxpr(function)(TIED))
        node.forward(TIED)
        np.testing.assert_allclose(node.backward(slopes[name])[0], expected[name], atol=1e-12, err_msg=name)


def test_the_rule_of_relu_is_known_by_what_it_computes_and_not_by_its_name(x64):
    @jax.custom_jvp
    def relu(x):
        return jnp.maximum(x, 0) ** 2

    relu.defjvp(lambda primals, tangents: (relu(*primals), 2 * jnp.maximum(*primals, 0) * tangents[0]))
    node = program(jax.make_jaxpr(relu)(X))
    node.forward(X - 0.5)
    np.testing.assert_allclose(node.backward(np.ones_like(X))[0], 2 * np.maximum(X - 0.5, 0), atol=1e-14)


def test_a_loop_that_runs_as_long_as_the_data_say_goes_back_as_often(x64):
    def doubled(x):
        return lax.while_loop(lambda v: v.sum() < 100, lambda v: v * Y * 3, x)

    node = program(jax.make_jaxpr(doubled)(X))
    y, factor = X, np.ones_like(X)
    while y.sum() < 100:
        y, factor = y * Y * 3, factor * Y * 3
    np.testing.assert_allclose(node.forward(X), y, rtol=1e-14)
    np.testing.assert_allclose(node.backward(np.ones_like(X))[0], factor, rtol=1e-13)


def test_what_has_no_rule_is_named():
    with pytest.raises(NotImplementedError, match="primitive 'lu'"):
        program(jax.make_jaxpr(jnp.linalg.inv)(np.eye(3)))
    with pytest.raises(NotImplementedError, match="applies a function"):
        program(jax.make_jaxpr(lambda x: x.at[0].apply(jnp.sin))(X))


# One table of the primitives that call another program.

CALLED = dict.fromkeys(("jit", "remat2", "custom_jvp_call", "custom_vjp_call", "composite"), LAX["calls"])


def test_programs_that_are_called_are_found_in_this_version_of_jax():
    traced = jaxprs.body(jax.make_jaxpr(lambda x: (LAX["calls"](x), LAX["composite, with stop_gradient"](x)))(X))
    found = {equation.primitive.name: jaxprs.called(equation) for equation in traced.eqns}
    assert set(CALLED) <= set(found), "JAX has renamed a primitive that calls another program: add it to jaxprs.CALLS"
    for name, inner in found.items():
        holds = any(hasattr(jaxprs.body(value), "eqns") for value in equation_params(traced, name))
        assert (inner is not None) == holds, f"{name} holds a program: add it to jaxprs.CALLS"


def equation_params(traced, name):
    equation = next(equation for equation in traced.eqns if equation.primitive.name == name)
    return [value for key, value in equation.params.items() if "jaxpr" in key]


def test_functions_of_jax_nn_are_seen_to_look_at_single_positions():
    mixing = {"softmax", "log_softmax", "logsumexp", "logmeanexp", "standardize", "glu", "dot_product_attention"}
    single = 0
    for name in dir(jax.nn):
        function = getattr(jax.nn, name)
        if name.startswith("_") or inspect.isclass(function) or not callable(function) or name in mixing:
            continue
        try:
            jax.eval_shape(function, jax.ShapeDtypeStruct((2, 4, 4, 3), np.float32))
        except Exception:
            continue  # takes more than one array
        assert positionwise.why_not_positionwise(function, (4, 4, 3)) is None, name
        assert positionwise.why_not_positionwise(jax.checkpoint(function), (4, 4, 3)) is None, name
        single += 1
    assert single >= 20
    assert "space" in positionwise.why_not_positionwise(jax.checkpoint(lambda x: jnp.cumsum(x, 1)), (4, 4, 3))


def test_arrays_are_put_together_and_taken_apart_at_single_positions():
    why_not = positionwise.why_not_positionwise
    assert why_not(lambda x: jnp.stack([x, 2 * x], -1).sum(-1), (4, 4, 3)) is None
    assert why_not(lambda x: jnp.tile(x, (1, 1, 1, 2)), (4, 4, 3)) is None
    assert why_not(lambda x: sum(jnp.unstack(x, axis=-1))[..., None], (4, 4, 3)) is None
    assert "stack along the space" in why_not(lambda x: jnp.stack([x, x], 1).sum(1), (4, 4, 3))
    assert "unstack along the space" in why_not(lambda x: sum(jnp.unstack(x, axis=1)), (4, 4, 3))
    assert "tile" in why_not(lambda x: jnp.tile(x, (1, 2, 1, 1)), (4, 4, 3))


def test_operations_on_single_numbers_are_so_in_both_tables():
    """What analysis/arithmetic knows as elementwise, scan knows as well."""
    from fcnn.analysis.arithmetic import elementwise

    known = {*elementwise.RULES, *elementwise.MAKERS}
    assert not known - positionwise._NUMBERS
