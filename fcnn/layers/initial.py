"""Initialisers of ``jax.nn.initializers`` given by name in hyperparameters, and the fans that their scales use.

A name, or a name with its arguments, can be compared, pickled and printed; the functions themselves cannot.

Initialisers such as "he_normal" and "glorot_uniform" divide by a fan. A fan computed from the shape of the kernel alone
is right only for a plain convolution, so named initialisers use the fans of :class:`Fans`: fan_in is the number of
terms in the sum that gives an output, fan_out the number of outputs that an input contributes to. Both are counted
within a group and averaged over positions. A function (key, shape, dtype) is used unchanged.

JAX, Flax and Keras count fan_out over all groups and ignore the stride. PyTorch does the same, and swaps the two in
transposed convolutions.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..geometry import Shape
from ..identity import cached

#: "he_normal", ("normal", 0.01), or a function (key, shape, dtype) -> array
Initial = str | tuple[Any, ...] | Callable[..., Any]

#: initialisers of jax.nn.initializers that are used directly; the others are called to create one
_DIRECT = ("zeros", "ones")
#: the first word of an initialiser's name, and the fan that it divides by
_MODES = {
    **dict.fromkeys(("he", "kaiming", "lecun"), "fan_in"),
    **dict.fromkeys(("glorot", "xavier"), "fan_avg"),
}


def check(spec: Any, name: str) -> Initial:
    """Check an initialiser as far as possible without drawing from it.

    Raises:
        ValueError: a name that jax.nn.initializers does not have, or a scale that would give NaN.
        TypeError: neither a name, nor a name with arguments, nor a function.

    Example:
        >>> check(["normal", 0.01], "kernel_init")
        ('normal', 0.01)
    """
    if isinstance(spec, list):
        spec = tuple(spec)
    if isinstance(spec, str):
        spec_name, arguments = spec, ()
    elif isinstance(spec, tuple) and spec and isinstance(spec[0], str):
        spec_name, arguments = spec[0], spec[1:]
    elif callable(spec):
        return spec
    else:
        raise TypeError(
            f'{name} must be a name such as "he_normal", a name with arguments such as ("normal", 0.01), '
            f"or a function (key, shape, dtype), not {spec!r}"
        )
    known = _known()
    if spec_name not in known:
        raise ValueError(f"{name} {spec_name!r} is unknown; jax.nn.initializers has {', '.join(known)}")
    for value in arguments:
        if isinstance(value, str):
            if spec_name != "variance_scaling":
                raise TypeError(f"{name} {spec!r} has a string where a number belongs; write it without quotes")
        elif hasattr(value, "__float__") and not (math.isfinite(value) and (value >= 0 or spec_name == "constant")):
            raise ValueError(
                f"{name} {spec!r} has the scale {value}, which would give parameters that are not numbers; "
                "it must be finite and not negative"
            )
    if spec_name in _DIRECT and arguments:
        raise TypeError(f"{name} {spec!r}: {spec_name!r} takes no arguments")
    if spec_name not in _DIRECT:
        try:
            known[spec_name].bind(*arguments)
        except TypeError as error:
            raise TypeError(f"{name} {spec!r}: {error}") from None
    return spec


@functools.cache
def _known() -> dict[str, inspect.Signature]:
    """The initialisers of jax.nn.initializers by name, with their signatures; reading these takes long."""
    names = [name for name in dir(jax.nn.initializers) if name[0].islower()]
    return {name: inspect.signature(getattr(jax.nn.initializers, name)) for name in names}


class Fans(NamedTuple):
    r"""Numbers of inputs and outputs that a layer's weights connect.

    .. math:: \text{fan}_\text{in} = \frac{C}{g} \prod_a k_a, \qquad
        \text{fan}_\text{out} = \frac{F}{g} \prod_a \frac{k_a}{s_a}

    for a convolution from C to F channels in g groups with kernel k and stride s. A transposed convolution has the
    stride in fan_in instead: of the k kernel samples, only every s-th meets an input. Borders are ignored.

    Attributes:
        into: fan_in, the number of terms in the sum that gives an output.
        out_of: fan_out, the number of outputs that an input contributes to.
    """

    into: float
    out_of: float

    @staticmethod
    def of_kernel(sizes: Shape, depth: int, features: int, stride: Shape, *, transposed: bool = False) -> Fans:
        """The fans of a convolution.

        Args:
            sizes: size of the kernel along each axis.
            depth: input channels of a group.
            features: output channels of a group.
            stride: stride along each axis.
            transposed: whether the convolution is transposed.

        Example:
            >>> Fans.of_kernel((4, 4), 8, 16, (2, 2), transposed=True)
            Fans(into=32.0, out_of=256.0)
        """
        samples, strided = float(math.prod(sizes)), math.prod(sizes) / math.prod(stride)
        into, out_of = (strided, samples) if transposed else (samples, strided)
        return Fans(into * depth, out_of * features)

    def divisor(self, mode: str) -> float | None:
        """The fan that a mode of ``jax.nn.initializers.variance_scaling`` divides by; None: no such mode."""
        return {
            "fan_in": self.into,
            "fan_out": self.out_of,
            "fan_avg": (self.into + self.out_of) / 2,
            "fan_geo_avg": math.sqrt(self.into * self.out_of),
        }.get(mode)


@cached(maxsize=512)
def resolve(spec: Initial, fans: Fans | None = None, groups: int = 1) -> Callable[..., jax.Array]:
    """Convert a checked specification to a function (key, shape, dtype).

    Args:
        spec: the result of :func:`check`.
        fans: the fans of the kernel, for named initialisers; None: as ``jax.nn.initializers`` counts them.
        groups: groups of the kernel; an orthogonal kernel is drawn for each group separately.

    Example:
        >>> resolve("ones")(None, (2,), jnp.float32).tolist()
        [1.0, 1.0]
        >>> depthwise = resolve("glorot_normal", Fans.of_kernel((3, 3), 1, 1, (1, 1)))
        >>> round(float(depthwise(jax.random.key(0), (3, 3, 1, 4096), jnp.float32).var()) * 9, 1)
        1.0
    """
    if isinstance(spec, str):
        spec = (spec,)
    if not isinstance(spec, tuple):
        return spec
    name, *arguments = spec
    made = getattr(jax.nn.initializers, name)
    if name in _DIRECT:
        return made
    made = made(*arguments)
    if fans is not None and (mode := _mode(name, arguments)) is not None:
        return _rescaled(made, fans, mode)
    if groups > 1 and name.endswith("orthogonal") and len(arguments) < 2:  # a second argument chooses an axis
        return _by_groups(made, groups)
    return made


def _mode(name: str, arguments: list[Any]) -> str | None:
    """The fan that an initialiser divides by; None: it uses no fan, or its arguments choose the axes of the fan."""
    if name == "variance_scaling":
        return arguments[1] if len(arguments) == 3 else None
    return None if arguments else _MODES.get(name.partition("_")[0])


def _rescaled(init: Callable[..., jax.Array], fans: Fans, mode: str) -> Callable[..., jax.Array]:
    """An initialiser that divides by the given fans instead of those computed from the shape."""

    def draw(key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
        value, wanted = init(key, shape, dtype), fans.divisor(mode)
        samples = math.prod(shape[:-2])
        assumed = Fans(float(samples * shape[-2]), float(samples * shape[-1])).divisor(mode)
        if wanted is None or assumed is None or wanted == assumed:
            return value
        return value * jnp.asarray(math.sqrt(assumed / wanted), value.dtype)

    return draw


def _by_groups(init: Callable[..., jax.Array], groups: int) -> Callable[..., jax.Array]:
    def draw(key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
        keys = jax.random.split(key, groups)
        return jnp.concatenate([init(k, (*shape[:-1], shape[-1] // groups), dtype) for k in keys], -1)

    return draw
