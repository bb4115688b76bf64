"""Dense layers, flattening and dropout on plain arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from ..errors import format_shape, layer_path, refuse_traced
from ..native import native
from .devices import explicit_axes
from .dtypes import floating, plus, together, wide

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


def dense(
    x: Float[Array, "batch *space channels"],
    kernel: Float[Array, "channels features"],
    bias: Float[Array, " features"] | None = None,
) -> Float[Array, "batch *space features"]:
    r"""A matrix product over the last axis: every output depends on every channel.

    .. math:: y_{\dots, o} = b_o + \sum_c x_{\dots, c} w_{c, o}

    With space axes the same matrix is applied at every position, as in a convolution with a kernel of size 1.

    Args:
        x: input.
        kernel: the matrix.
        bias: added to every row.

    Shapes:
        x (batch, *space, channels), kernel (channels, features), bias (features,).

    Returns:
        (batch, *space, features) in the common dtype of the arguments.

    Raises:
        ValueError: shapes that do not match.

    Source:
        Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986, equation 1.

    Example:
        >>> dense(jnp.array([[1.0, 2.0]]), jnp.array([[3.0], [4.0]]), jnp.array([0.5])).tolist()
        [[11.5]]
    """
    with layer_path("dense"):
        x, kernel, bias = together(x, kernel, bias)
        if kernel.ndim != 2 or not x.ndim or x.shape[-1] != kernel.shape[0]:
            raise ValueError(
                f"kernel {format_shape(kernel.shape)} does not take x {format_shape(x.shape)}: "
                "it must be (channels, features) with the channels of x's last axis"
            )
        if bias is not None and bias.shape != kernel.shape[1:]:
            raise ValueError(
                f"bias has shape {format_shape(bias.shape)}, the kernel asks for {format_shape(kernel.shape[1:])}"
            )
    one = math.prod(x.shape[:-1]) == 1 and not explicit_axes(x) and not explicit_axes(kernel)
    y = _one_row(x, kernel) if one else jnp.matmul(x, kernel)
    return plus(y, bias)


@jax.custom_jvp
def _one_row(x: Array, kernel: Array) -> Array:
    """The product of a single row and the matrix, as in per-example gradients.

    Its gradient with respect to the matrix is the outer product of x and the cotangent. With JAX's own rule, XLA would
    compute the transpose of that product, and transpose it back, for every example.
    """
    return jnp.matmul(x, kernel)


@_one_row.defjvp
def _one_row_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    share = jnp.sum(x.reshape(-1, 1) * dkernel, 0, dtype=wide(dkernel.dtype)).astype(dkernel.dtype)
    return _one_row(x, kernel), jnp.matmul(dx, kernel) + share.reshape(*x.shape[:-1], -1)


def flatten(x: Float[Array, "batch *space channels"], *, first: int = 1, last: int = -1) -> Float[Array, "batch ..."]:
    """Flatten adjacent axes of each example to one, the last of them varying fastest; by default all axes.

    Args:
        x: input.
        first: the first axis of x to flatten, where axis 0 is the batch; negative numbers count from the end. PyTorch's
            ``start_dim``.
        last: the last axis to flatten, PyTorch's ``end_dim``.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, product of space and channels); the axes before ``first`` and after ``last`` are kept.

    Raises:
        ValueError: no batch axis, or axes that x does not have.

    Example:
        >>> flatten(jnp.ones((2, 3, 4, 5))).shape
        (2, 60)
        >>> flatten(jnp.ones((2, 3, 4, 5)), first=2).shape, flatten(jnp.ones((2, 3, 4, 5)), last=2).shape
        ((2, 3, 20), (2, 12, 5))
    """
    with layer_path("flatten"):
        x = jnp.asarray(native(x))
        if x.ndim < 2:
            raise ValueError(
                f"x has shape {format_shape(x.shape)}; flatten keeps the batch axis and needs one after it"
            )
        shape = flattened(x.shape[1:], first, last)
    return x.reshape(x.shape[0], *shape)


def flattened(shape: tuple[int, ...], first: int, last: int) -> tuple[int, ...]:
    """The shape of one example with the axes from first to last flattened; the axes count the batch as axis 0.

    Raises:
        ValueError: axes that the example does not have, or that are in the wrong order.

    Example:
        >>> flattened((3, 4, 5), 1, -1), flattened((3, 4, 5), 1, 2)
        ((60,), (12, 5))
    """
    rank = len(shape)
    for name, axis in (("first", first), ("last", last)):
        if axis == 0 or not -rank <= axis <= rank:
            raise ValueError(
                f"{name} is {axis}, but an example of {format_shape(shape)} has the axes 1 to {rank}, or -{rank} to "
                "-1; axis 0 is the batch"
            )
    low, high = (axis - 1 if axis > 0 else axis + rank for axis in (first, last))
    if low > high:
        raise ValueError(f"first {first} comes after last {last} in an example of {format_shape(shape)}; swap them")
    return (*shape[:low], math.prod(shape[low : high + 1]), *shape[high + 1 :])


def dropout(
    key: Array, x: Float[Array, "batch *space channels"], rate: float, *, whole_channels: bool = False
) -> Float[Array, "batch *space channels"]:
    r"""Set a random fraction of x to zero and scale the rest, which preserves the mean.

    .. math:: y = \frac{m}{1 - r} x, \qquad m \sim \mathrm{Bernoulli}(1 - r)

    Args:
        key: random key; the same key gives the same mask.
        x: input.
        rate: r, the fraction to drop, in [0, 1).
        whole_channels: draw one mask value for all positions of a channel of an example.

    Shapes:
        x (batch, *space, channels).

    Returns:
        The shape and dtype of x.

    Raises:
        ValueError: a rate outside [0, 1).

    Source:
        Srivastava et al., "Dropout", 2014, section 4, with the scaling moved to training (section 10);
        Tompson et al., "Efficient object localization", 2015, section 3.2, for whole channels.

    Example:
        >>> y = dropout(jax.random.key(0), jnp.ones((1, 1000)), 0.5)
        >>> sorted(set(y.ravel().tolist()))
        [0.0, 2.0]
    """
    with layer_path("dropout"):
        x = floating(x)
        rate = check_rate(rate)
    if rate == 0:
        return x
    kept = dropout_mask(key, x.shape, rate, whole_channels=whole_channels)
    return jnp.where(kept, x * jnp.asarray(1 / (1 - rate), x.dtype), 0)


def dropout_mask(key: Array, shape: tuple[int, ...], rate: float, *, whole_channels: bool = False) -> Array:
    """The mask of :func:`dropout`, True where x is kept; for whole channels its shape broadcasts to ``shape``.

    Example:
        >>> dropout_mask(jax.random.key(0), (2, 8, 8, 16), 0.5, whole_channels=True).shape
        (2, 1, 1, 16)
    """
    if whole_channels:
        shape = (shape[0], *(1,) * (len(shape) - 2), shape[-1])
    return jax.random.bernoulli(key, 1 - rate, shape)


def stochastic_depth(key: Array, x: Float[Array, "batch ..."], rate: float) -> Float[Array, "batch ..."]:
    r"""Set whole examples to zero and scale the rest, which preserves the mean.

    .. math:: y_n = \frac{m_n}{1 - r} x_n, \qquad m_n \sim \mathrm{Bernoulli}(1 - r)

    At the end of a residual branch it drops the branch for some examples, which then take only the shortcut.

    Args:
        key: random key; the same key gives the same mask.
        x: input.
        rate: r, the fraction of examples to drop, in [0, 1).

    Shapes:
        x (batch, ...).

    Returns:
        The shape and dtype of x.

    Raises:
        ValueError: a rate outside [0, 1).

    Source:
        Huang et al., "Deep networks with stochastic depth", 2016, equation 2, with the scaling moved to training;
        torchvision.ops.stochastic_depth in the mode "row".

    Example:
        >>> y = stochastic_depth(jax.random.key(0), jnp.ones((1000, 2)), 0.5)
        >>> sorted({tuple(row) for row in y.tolist()})
        [(0.0, 0.0), (2.0, 2.0)]
    """
    with layer_path("stochastic_depth"):
        x = floating(x)
        rate = check_rate(rate)
    if rate == 0:
        return x
    return jnp.where(depth_mask(key, x.shape, rate), x * jnp.asarray(1 / (1 - rate), x.dtype), 0)


def depth_mask(key: Array, shape: tuple[int, ...], rate: float) -> Array:
    """The mask of :func:`stochastic_depth`: True for each example that is kept.

    Example:
        >>> depth_mask(jax.random.key(0), (2, 8, 8, 16), 0.5).shape
        (2, 1, 1, 1)
    """
    return jax.random.bernoulli(key, 1 - rate, (shape[0], *(1,) * (len(shape) - 1)))


def check_rate(rate: float) -> float:
    """Raise unless the rate of a dropout is a number in [0, 1)."""
    refuse_traced(rate, "rate")
    if isinstance(rate, bool) or not hasattr(rate, "__float__"):
        raise TypeError(f"rate must be a number in [0, 1), not {rate!r}")
    rate = float(rate)
    if not 0 <= rate < 1:
        raise ValueError(
            f"rate is {rate:g}, it must be in [0, 1): it is the share dropped, so 1 would drop everything; "
            "to keep 90 % use rate=0.1"
        )
    return rate
