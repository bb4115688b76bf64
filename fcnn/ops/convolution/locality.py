r"""One bad sample spoils the outputs that see it, and no others.

Three algorithms compute outputs from samples that those do not see:

- Blocks multiply such samples by zeros. That is exact while they are finite; 0 times infinity or NaN is NaN.
- Winograd's transforms and Fourier's add such samples and subtract them again. What is left is their rounding:
  a share of the largest sample around, not of those seen.

So both are held to data of one magnitude. The norms over the channels of all positions of an example are compared: half
of those that are not zero must be at least 1 / L of the largest, L the algorithm's limit in ``SPREAD``. With the median
M of these norms,

.. math::
    |\hat y_i - y_i| \le c\, u \max_j \|x_j\| \, \|w\| \le c\, u\, L\, M\, \|w\|

holds at every output of a feature, whether it sees the largest sample or not: u is the unit roundoff, x_j are the
channels at position j of the example, w are all weights of the feature, and c does not depend on the data. It is the
growth of Winograd's products (``winograd.growth``, squared for two axes) times the number of roundings one after
another, and grows with the number of samples for Fourier's. In the input gradient, the output gradient takes the place
of x; in the kernel's, the product of both norms, summed over positions, that of x and w.

Data that are not so (an infinity or NaN, a code for missing data, a saturated pixel) are computed once more by an
algorithm that multiplies what outputs see and nothing else. That is found out at run time: one pass over the data.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

#: multiply samples that an output does not see by zero
SPARSE = ("blocks",)
#: add samples that an output does not see and subtract them again: limits of the largest norm of a position over the
#: median. Networks in training stay below (activations 16, gradients mostly 30), and rounding stays near that of level
#: data, whose ratio is 2 to 4. Fourier's rounding is smaller, because it spreads over all outputs
SPREAD = {"winograd": 32, "fourier": 256}


def level(a: Array, channel: int, example: int, limit: int) -> Array:
    """Whether all is finite, and half of the positions that are not zero hold 1 / limit of the largest or more.

    Args:
        a: x or an output gradient, with the ensemble in front.
        channel: the axis of its channels.
        example: the axis of its examples, each of which is looked at by itself.
        limit: the largest norm of a position, as a multiple of the usual one.

    Example:
        >>> x = jnp.ones((1, 1, 10, 1))
        >>> [bool(level(x.at[0, 0, :n, 0].set(1e4), 3, 1, 32)) for n in (0, 1, 5)]
        [True, False, True]
    """
    channel, example = channel % a.ndim, example % a.ndim
    squares = jnp.sum(jnp.square(a), channel)  # the one pass; beyond 1e19 a float32 is infinite here
    place = example - (channel < example)
    positions = tuple(axis for axis in range(1, squares.ndim) if axis != place)
    largest = jnp.max(squares, positions, keepdims=True)
    usual = jnp.where(squares * limit**2 >= largest, 1.0, jnp.where(squares > 0, -1.0, 0.0))
    # maxima and minima of XLA:CPU may lose NaN, comparisons and sums do not; sums also compile sooner than jnp.all
    balance = jnp.sum(jnp.where(squares < jnp.inf, usual, -jnp.inf), positions)
    return jnp.sum(jnp.minimum(balance, 0)) >= 0


def finite(a: Array) -> Array:
    """Whether all of a is finite, and not so large that the sum of squares is not.

    Example:
        >>> bool(finite(jnp.ones(3))), bool(finite(jnp.array([1.0, jnp.nan])))
        (True, False)
    """
    if jnp.finfo(a.dtype).bits < 32:
        a = a.astype(jnp.float32)
    return jnp.sum(jnp.square(a)) < jnp.inf


def unless(fits: Array, y: Array, again: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    """Y if it fits, else what ``again`` computes of a and b.

    A loop of no turns or one: y stays where it lies, where a conditional would copy it. The operands are made to depend
    on the loop, or XLA would take what is computed of them out of it, as the same at every turn.
    """

    def turn(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        left, _ = carry
        return jnp.zeros_like(left), again(*(jnp.where(left, operand, 0) for operand in (a, b)))

    return lax.while_loop(lambda carry: carry[0], turn, (~fits, y))[1]
