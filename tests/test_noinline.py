"""Computations kept apart from their neighbours give what they give anyway, with every derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn.ops import pool
from fcnn.ops.maximum import largest_of_polyphase
from fcnn.ops.noinline import noinline, reordered

RNG = np.random.default_rng(0)


def test_a_function_alone_is_a_computation_of_its_own():
    def f(x):
        return noinline(lambda x: x * 2, x + 1) + 1

    x = jnp.arange(4.0)
    np.testing.assert_array_equal(jax.jit(f)(x), 2 * (np.arange(4) + 1) + 1)
    compiled = jax.jit(f).lower(x).compile().as_text()
    called = [line for line in compiled.splitlines() if " call(" in line]
    assert len(called) == (1 if jax.default_backend() == "cpu" else 0)


def test_reordered_is_transposed_with_every_derivative():
    x, g, order = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(5, 2, 4, 3)), (3, 0, 2, 1)
    x, g = jnp.asarray(x), jnp.asarray(g)

    def f(x):
        return reordered(x, order)

    np.testing.assert_array_equal(f(x), x.transpose(order))
    np.testing.assert_array_equal(jax.jit(f)(x), x.transpose(order))
    y, pull = jax.vjp(f, x)
    np.testing.assert_array_equal(jax.jit(pull)(g)[0], g.transpose(1, 3, 2, 0))
    np.testing.assert_array_equal(jax.jvp(f, (x,), (2 * x,))[1], 2 * y)
    many = jnp.stack([x, 3 * x], 2)
    np.testing.assert_array_equal(jax.vmap(f, 2)(many), jnp.stack([y, 3 * y]))
    looped, _ = jax.lax.scan(lambda c, _: (c + f(x), None), jnp.zeros_like(y), length=3)
    np.testing.assert_allclose(looped, 3 * y, rtol=1e-6)


def by_hand(x, g):
    """The gradient g (channels, ...) put at the first largest of the phases of x (channels, phases, ...)."""
    found = np.zeros_like(x)
    for place in np.ndindex(g.shape):
        channel, rest = place[0], place[1:]
        found[(channel, int(np.argmax(x[(channel, slice(None), *rest)])), *rest)] = g[place]
    return found


def test_the_gradient_of_a_maximum_over_phases_goes_to_the_first_of_the_largest():
    x = RNG.integers(0, 3, (2, 4, 3, 5)).astype(np.float32)  # many are equal
    g = RNG.normal(size=(2, 3, 5)).astype(np.float32)
    y, pull = jax.vjp(largest_of_polyphase, jnp.asarray(x))
    np.testing.assert_array_equal(y, x.max(1))
    np.testing.assert_array_equal(pull(jnp.asarray(g))[0], by_hand(x, g))
    change = RNG.normal(size=x.shape).astype(np.float32)
    along = jax.jvp(largest_of_polyphase, (jnp.asarray(x),), (jnp.asarray(change),))[1]
    assert float((along * g).sum()) == pytest.approx(float((by_hand(x, g) * change).sum()), rel=1e-4)
    many, back = np.stack([x, x[::-1]]), np.stack([g, 2 * g])
    pulled = jax.vmap(lambda x, g: jax.vjp(largest_of_polyphase, x)[1](g)[0])(jnp.asarray(many), jnp.asarray(back))
    np.testing.assert_array_equal(pulled, [by_hand(*pair) for pair in zip(many, back, strict=True)])
    shared = jax.vmap(jax.vjp(largest_of_polyphase, jnp.asarray(x))[1])(jnp.asarray(back))[0]
    np.testing.assert_array_equal(shared, [by_hand(x, one) for one in back])


def test_hessian_vector_products_pass_through_it():
    x = jnp.asarray(RNG.normal(size=(2, 4, 3, 5)))
    v = jnp.asarray(RNG.normal(size=x.shape))

    def f(x):
        return (pool.max_of_polyphase(x) ** 3).sum()

    found = jax.jvp(jax.grad(f), (x,), (v,))[1]
    at = np.asarray(x).argmax(1, keepdims=True) == np.arange(4).reshape(-1, 1, 1)
    np.testing.assert_allclose(found, np.where(at, 6 * np.asarray(x) * np.asarray(v), 0), rtol=1e-5)


@pytest.mark.parametrize("space", [(), (1, 1)])
def test_one_row_has_the_derivatives_of_the_product(space):
    xs, kernel = RNG.normal(size=(3, 1, *space, 4)), RNG.normal(size=(4, 2))
    gs, dx, dkernel = RNG.normal(size=(3, 1, *space, 2)), RNG.normal(size=(1, *space, 4)), RNG.normal(size=(4, 2))
    xs, kernel, gs, dx, dkernel = (jnp.asarray(a, jnp.float32) for a in (xs, kernel, gs, dx, dkernel))

    def pulled(x, g):
        return jax.vjp(fcnn.ops.dense, x, kernel)[1](g)

    along_x, along_kernel = jax.vmap(pulled)(xs, gs)
    np.testing.assert_allclose(along_kernel, np.einsum("ni,no->nio", xs.reshape(3, 4), gs.reshape(3, 2)), rtol=1e-5)
    np.testing.assert_allclose(along_x.reshape(3, 4), gs.reshape(3, 2) @ kernel.T, rtol=1e-5, atol=1e-6)
    _, along = jax.jvp(fcnn.ops.dense, (xs[0], kernel), (dx, dkernel))
    wanted = np.asarray(dx).reshape(1, 4) @ np.asarray(kernel) + np.asarray(xs[0]).reshape(1, 4) @ np.asarray(dkernel)
    np.testing.assert_allclose(along.reshape(1, 2), wanted, rtol=1e-5, atol=1e-6)


def test_one_row_in_sixteen_bits_keeps_its_dtype():
    x, kernel = jnp.ones((1, 300), jnp.bfloat16), jnp.ones((300, 2), jnp.bfloat16)
    _, along = jax.jvp(fcnn.ops.dense, (x, kernel), (jnp.zeros_like(x), kernel))
    assert along.dtype == jnp.bfloat16
    np.testing.assert_array_equal(along.astype(jnp.float32), 300)  # summed in float32; bfloat16 would stop at 256
