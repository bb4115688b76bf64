"""How hyperparameters name an initialiser of ``jax.nn.initializers``, and what its scale refers to.

A name, or a name with its arguments, can be compared, pickled and printed; the functions themselves cannot.

The scales of "he_normal", "glorot_uniform" and their like divide by a fan. Read from the shape of a kernel alone it is
right for a plain convolution only, so named initialisers get the fans that :class:`Fans` counts: fan_in is the number
of terms in the sum that makes an output, fan_out the number of outputs that an input is a term of, of the same group
and averaged over positions. A function (key, shape, dtype) is used as it is.

JAX, Flax and Keras count fan_out over all groups and leave the stride out. PyTorch does the same, and exchanges the two
in transposed convolutions.
"""

from __future__ import annotations

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

#: initialisers of jax.nn.initializers that are functions themselves rather than makers of one
_DIRECT = ("zeros", "ones")
#: the fan that initialisers divide by, by the first word of their names
_MODES = {
    **dict.fromkeys(("he", "kaiming", "lecun"), "fan_in"),
    **dict.fromkeys(("glorot", "xavier"), "fan_avg"),
}


def check(spec: Any, name: str) -> Initial:
    """Check an initialiser as far as it can be without drawing from it.

    Raises:
        ValueError: a name that jax.nn.initializers does not have, or a scale that would make NaN.
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
    known = [n for n in dir(jax.nn.initializers) if n[0].islower()]
    if spec_name not in known:
        raise ValueError(f"{name} {spec_name!r} is unknown; jax.nn.initializers has {', '.join(known)}")
    for value in arguments:
        if isinstance(value, str):
            if spec_name != "variance_scaling":
                raise TypeError(f"{name} {spec!r} has a text where a number belongs; write it without quotes")
        elif hasattr(value, "__float__") and not (math.isfinite(value) and (value >= 0 or spec_name == "constant")):
            raise ValueError(
                f"{name} {spec!r} has the scale {value}, which would give parameters that are not numbers; "
                "it must be finite and not negative"
            )
    if spec_name in _DIRECT and arguments:
        raise TypeError(f"{name} {spec!r}: {spec_name!r} takes no arguments")
    if spec_name not in _DIRECT:
        try:
            inspect.signature(getattr(jax.nn.initializers, spec_name)).bind(*arguments)
        except TypeError as error:
            raise TypeError(f"{name} {spec!r}: {error}") from None
    return spec


class Fans(NamedTuple):
    r"""Between how many inputs and outputs a layer's weights stand.

    .. math:: \text{fan}_\text{in} = \frac{C}{g} \prod_a k_a, \qquad
        \text{fan}_\text{out} = \frac{F}{g} \prod_a \frac{k_a}{s_a}

    for a convolution from C to F channels in g groups with kernel k and stride s. A transposed convolution has the
    stride in fan_in instead: of k samples that an output could be made from, every s-th is there. Borders are left out.

    Attributes:
        into: terms in the sum that makes an output.
        out_of: outputs that an input is a term of.
    """

    into: float
    out_of: float

    @staticmethod
    def of_kernel(sizes: Shape, depth: int, features: int, stride: Shape, *, transposed: bool = False) -> Fans:
        """Those of a convolution.

        Args:
            sizes: the kernel's, along each axis.
            depth: input channels of a group.
            features: output channels of a group.
            stride: along each axis.
            transposed: whether the convolution is transposed.

        Example:
            >>> Fans.of_kernel((4, 4), 8, 16, (2, 2), transposed=True)
            Fans(into=32.0, out_of=256.0)
        """
        samples, strided = float(math.prod(sizes)), math.prod(sizes) / math.prod(stride)
        into, out_of = (strided, samples) if transposed else (samples, strided)
        return Fans(into * depth, out_of * features)

    def divisor(self, mode: str) -> float | None:
        """What a scale is divided by in a mode of ``jax.nn.initializers.variance_scaling``; None: no such mode."""
        return {
            "fan_in": self.into,
            "fan_out": self.out_of,
            "fan_avg": (self.into + self.out_of) / 2,
            "fan_geo_avg": math.sqrt(self.into * self.out_of),
        }.get(mode)


@cached(maxsize=512)
def resolve(spec: Initial, fans: Fans | None = None, groups: int = 1) -> Callable[..., jax.Array]:
    """The function (key, shape, dtype) that a checked specification stands for.

    Args:
        spec: what :func:`check` returned.
        fans: those of a kernel, for initialisers that are named; None: as ``jax.nn.initializers`` counts them.
        groups: groups of a kernel; an orthogonal one is drawn for each by itself.

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
    if groups > 1 and name.endswith("orthogonal") and len(arguments) < 2:  # a second one chooses an axis
        return _by_groups(made, groups)
    return made


def _mode(name: str, arguments: list[Any]) -> str | None:
    """Which fan an initialiser divides by; None: by none, or by one of axes that its arguments choose."""
    if name == "variance_scaling":
        return arguments[1] if len(arguments) == 3 else None
    return None if arguments else _MODES.get(name.partition("_")[0])


def _rescaled(init: Callable[..., jax.Array], fans: Fans, mode: str) -> Callable[..., jax.Array]:
    """An initialiser that divides by the fans given instead of those that its shape seems to have."""

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
