r"""A bad sample must affect only the outputs whose windows contain it.

Three algorithms compute outputs from samples outside their windows as well:

- Blocks multiply such samples by zeros. That is exact while they are finite; 0 times infinity or NaN is NaN.
- Winograd's and Fourier's transforms add such samples and subtract them again. Their rounding errors remain, which are
  proportional to the largest sample nearby, not to the largest sample in the window.

So the latter two are used only for data of similar magnitude. The norms over channels at all positions of an example
are compared: half of the nonzero norms must be at least 1 / L of the largest, with the algorithm's limit L in
``SPREAD``. With the median M of these norms,

.. math::
    |\hat y_i - y_i| \le c\, u \max_j \|x_j\| \, \|w\| \le c\, u\, L\, M\, \|w\|

holds at every output of a feature, whether or not its window contains the largest sample. Here u is the unit roundoff,
x_j are the channels at position j of the example, w are all weights of the feature, and c does not depend on the data.
For Winograd's algorithm, c is the growth of its products (``winograd.growth``, squared for two axes) times the number
of successive roundings; for Fourier's, it grows with the number of samples. In the input gradient, the output gradient
takes the place of x; in the kernel gradient, the product of the norms of x and of the output gradient, summed over
positions, takes the place of those of x and w.

Other data (with an infinity or NaN, a code for missing values, a saturated pixel) are computed again by an algorithm
that multiplies only the samples inside the windows. This is decided at run time, by one pass over the data.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

#: algorithms that multiply samples outside an output's window by zero
SPARSE = ("blocks",)
#: algorithms that add samples outside an output's window and subtract them again, with limits of the largest norm of a
#: position over the median. Networks in training stay below (activations 16, gradients mostly 30), and rounding errors
#: stay near those for level data, whose ratio is 2 to 4. Fourier's rounding errors are smaller, because they are
#: distributed over all outputs
SPREAD = {"winograd": 32, "fourier": 256}


def level(a: Array, channel: int, example: int, limit: int) -> Array:
    """Whether all values are finite, and half of the nonzero positions have at least 1 / limit of the largest norm.

    Args:
        a: x or an output gradient, with the ensemble as first axis.
        channel: the axis of its channels.
        example: the axis of its examples, which are tested separately.
        limit: the largest allowed norm of a position, as a multiple of the median.

    Example:
        >>> x = jnp.ones((1, 1, 10, 1))
        >>> [bool(level(x.at[0, 0, :n, 0].set(1e4), 3, 1, 32)) for n in (0, 1, 5)]
        [True, False, True]
    """
    channel, example = channel % a.ndim, example % a.ndim
    squares = jnp.sum(jnp.square(a), channel)  # the only pass; float32 values beyond 1e19 give infinity
    place = example - (channel < example)
    positions = tuple(axis for axis in range(1, squares.ndim) if axis != place)
    largest = jnp.max(squares, positions, keepdims=True)
    usual = jnp.where(squares * limit**2 >= largest, 1.0, jnp.where(squares > 0, -1.0, 0.0))
    # maxima and minima of XLA:CPU may lose NaN, comparisons and sums do not; sums also compile faster than jnp.all
    balance = jnp.sum(jnp.where(squares < jnp.inf, usual, -jnp.inf), positions)
    return jnp.sum(jnp.minimum(balance, 0)) >= 0


def finite(a: Array) -> Array:
    """Whether the sum of squares of a is finite, which implies that all its values are.

    Example:
        >>> bool(finite(jnp.ones(3))), bool(finite(jnp.array([1.0, jnp.nan])))
        (True, False)
    """
    if jnp.finfo(a.dtype).bits < 32:
        a = a.astype(jnp.float32)
    return jnp.sum(jnp.square(a)) < jnp.inf


def unless(fits: Array, y: Array, again: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    """Y if ``fits``, else the result of ``again`` for a and b.

    This is a loop of zero or one iterations: y stays in place, where a conditional would copy it. The operands are made
    to depend on the loop; otherwise XLA would hoist the computation out of the loop as invariant.
    """

    def turn(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        left, _ = carry
        return jnp.zeros_like(left), again(*(jnp.where(left, operand, 0) for operand in (a, b)))

    return lax.while_loop(lambda carry: carry[0], turn, (~fits, y))[1]
