"""Elementwise operations."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from .rule import Maker, Rule, unary, without_gradient

LOG2 = np.log(2.0)


def _whole(x: Any) -> bool:
    return np.asarray(x).dtype.kind in "iub"


def _divide(a: Any, b: Any) -> Any:
    """Division; integers round towards zero, and division by zero gives -1, as in XLA."""
    if not _whole(a):
        return np.divide(a, b)
    down = np.asarray(a // b)
    quotient = down + ((down < 0) & (a != down * b)).astype(down.dtype)
    return np.where(np.asarray(b) == 0, np.asarray(-1).astype(down.dtype), quotient)


def _remainder(a: Any, b: Any) -> Any:
    found = np.fmod(a, b)
    return np.where(np.asarray(b) == 0, a, found) if _whole(a) else found


def _half(a: Any, b: Any) -> Any:
    """The derivative of max(a, b) or min(a, b) with respect to the selected operand: 1, or 0.5 in a tie."""
    return np.where(a == b, 0.5, 1.0)


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _absolute(x: Any, y: Any) -> Any:
    if np.iscomplexobj(x):
        return np.conj(x) / np.where(y == 0, 1, y)
    return np.where(x >= 0, 1.0, -1.0)


def _power_slope(a: Any, b: Any) -> Any:
    if _whole(b):
        return np.where(b == 0, 0.0, b * np.power(a, np.where(b == 0, 1, b) - 1.0))
    return b * np.power(a, b - 1)


def _power(a: Any, b: Any) -> Any:
    return _whole_power(a, b) if _whole(a) else np.power(a, np.asarray(b, np.float64) if _whole(b) else b)


def _whole_power(a: Any, b: Any) -> Any:
    a, b = np.broadcast_arrays(a, b)
    result = np.power(a, np.maximum(b, 0))
    return np.where(b < 0, np.where(np.abs(a) == 1, np.power(a, np.abs(b) % 2 + 2), 0), result).astype(a.dtype)


def _select(which: Any, *cases: Any) -> Any:
    chosen = cases[0]
    for number, case in enumerate(cases[1:], 1):
        chosen = np.where(np.asarray(which, int) == number, case, chosen)
    return np.array(chosen)


def _selected(g: Any, y: Any, which: Any, *cases: Any) -> tuple[Any, ...]:
    return None, *(np.where(np.asarray(which, int) == number, g, 0) for number in range(len(cases)))


def _logical_shift(x: Any, by: Any) -> Any:
    unsigned = np.asarray(x).view(f"u{np.asarray(x).dtype.itemsize}")
    return np.right_shift(unsigned, np.asarray(by).astype(unsigned.dtype)).view(np.asarray(x).dtype)


def _special(name: str) -> Any:
    def value(*inputs: Any) -> Any:
        from scipy import special  # a dependency of JAX; slow to import, and few functions need it

        return getattr(special, name)(*inputs)

    return value


def _i0e_slope(x: Any, y: Any) -> Any:
    return _special("i1e")(x) - np.sign(x) * y


def _i1e_slope(x: Any, y: Any) -> Any:
    small = np.abs(x) < np.finfo(np.float64).eps
    safe = np.where(small, 1.0, x)
    return np.where(small, 0.5, _special("i0e")(safe) - y * (np.sign(safe) + 1 / safe))


_CHOOSES = {
    "max": (np.maximum, lambda g, y, a, b: (g * (a >= b) * _half(a, b), g * (a <= b) * _half(a, b))),
    "min": (np.minimum, lambda g, y, a, b: (g * (a <= b) * _half(a, b), g * (a >= b) * _half(a, b))),
    "clamp": (
        lambda low, x, high: np.minimum(np.maximum(x, low), high),
        lambda g, y, low, x, high: (g * ((low > x) & (low < high)), g * ((x > low) & (x < high)), g * (high < x)),
    ),
    "select_n": (_select, _selected),
}

_COMPARES = {
    "eq": np.equal, "ne": np.not_equal, "gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "shift_left": np.left_shift, "shift_right_arithmetic": np.right_shift, "shift_right_logical": _logical_shift,
    "population_count": lambda x: np.bitwise_count(x).astype(x.dtype),
    "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "is_finite": np.isfinite,
    "stop_gradient": np.array,
}  # fmt: skip

#: y = f(x), and dy/dx as a function of x and y
_SMOOTH = {
    "neg": (np.negative, lambda x, y: -1.0),
    "exp": (np.exp, lambda x, y: y),
    "exp2": (np.exp2, lambda x, y: LOG2 * y),
    "expm1": (np.expm1, lambda x, y: y + 1),
    "log": (np.log, lambda x, y: 1 / x),
    "log2": (np.log2, lambda x, y: 1 / (LOG2 * x)),
    "log1p": (np.log1p, lambda x, y: 1 / (1 + x)),
    "sin": (np.sin, lambda x, y: np.cos(x)),
    "cos": (np.cos, lambda x, y: -np.sin(x)),
    "tan": (np.tan, lambda x, y: 1 + y * y),
    "asin": (np.arcsin, lambda x, y: 1 / np.sqrt(1 - x * x)),
    "acos": (np.arccos, lambda x, y: -1 / np.sqrt(1 - x * x)),
    "atan": (np.arctan, lambda x, y: 1 / (1 + x * x)),
    "sinh": (np.sinh, lambda x, y: np.cosh(x)),
    "cosh": (np.cosh, lambda x, y: np.sinh(x)),
    "tanh": (np.tanh, lambda x, y: 1 - y * y),
    "asinh": (np.arcsinh, lambda x, y: 1 / np.sqrt(x * x + 1)),
    "acosh": (np.arccosh, lambda x, y: 1 / np.sqrt(x * x - 1)),
    "atanh": (np.arctanh, lambda x, y: 1 / ((1 + x) * (1 - x))),
    "logistic": (_logistic, lambda x, y: y * (1 - y)),
    "sqrt": (np.sqrt, lambda x, y: 0.5 / y),
    "rsqrt": (lambda x: 1 / np.sqrt(x), lambda x, y: -0.5 * y / x),
    "cbrt": (np.cbrt, lambda x, y: y / (3 * x)),
    "square": (np.square, lambda x, y: 2 * x),
    "one_minus_square": (lambda x: 1 - x * x, lambda x, y: -2 * x),
    "abs": (np.abs, _absolute),
    "erf": (_special("erf"), lambda x, y: 2 / np.sqrt(np.pi) * np.exp(-x * x)),
    "erfc": (_special("erfc"), lambda x, y: -2 / np.sqrt(np.pi) * np.exp(-x * x)),
    "erf_inv": (_special("erfinv"), lambda x, y: np.sqrt(np.pi) / 2 * np.exp(y * y)),
    "lgamma": (_special("gammaln"), lambda x, y: _special("digamma")(x)),
    "digamma": (_special("digamma"), lambda x, y: _special("polygamma")(1, x)),
    "bessel_i0e": (_special("i0e"), _i0e_slope),
    "bessel_i1e": (_special("i1e"), _i1e_slope),
}

#: primitives that return their input, or all their inputs, unchanged
_SAME = ("copy", "copy_p", "name", "sharding_constraint", "layout_constraint", "mesh_cast", "pvary", "stage")
_SAME_OF_SEVERAL = ("optimization_barrier", "device_put")

RULES: dict[str, Rule] = {
    **{name: unary(*pair) for name, pair in _SMOOTH.items()},
    **{name: without_gradient(value) for name, value in _COMPARES.items()},
    **_CHOOSES,
    **dict.fromkeys(_SAME, unary(np.array, lambda x, y: 1.0)),
    **dict.fromkeys(_SAME_OF_SEVERAL, (lambda *xs: [np.array(x) for x in xs], lambda gs, ys, *xs: tuple(gs))),
    "add": (np.add, lambda g, y, a, b: (g, g)),
    "add_any": (np.add, lambda g, y, a, b: (g, g)),
    "sub": (np.subtract, lambda g, y, a, b: (g, -g)),
    "mul": (np.multiply, lambda g, y, a, b: (g * b, g * a)),
    "div": (_divide, lambda g, y, a, b: (g / b, -g * y / b)),
    "rem": (_remainder, lambda g, y, a, b: (g, -g * np.trunc(a / b))),
    "pow": (
        _power,
        lambda g, y, a, b: (g * _power_slope(a, b), None if _whole(b) else g * y * np.log(np.where(a == 0, 1, a))),
    ),
    "atan2": (np.arctan2, lambda g, y, a, b: (g * b / (a * a + b * b), -g * a / (a * a + b * b))),
    "nextafter": (np.nextafter, lambda g, y, a, b: (g, None)),
    "polygamma": (_special("polygamma"), lambda g, y, m, x: (None, g * _special("polygamma")(m + 1, x))),
    "zeta": (_special("zeta"), lambda g, y, x, q: (None, -g * x * _special("zeta")(x + 1, q))),
    "conj": (np.conj, lambda g, y, x: (np.conj(g) if np.iscomplexobj(x) else np.real(g),)),
    # for complex numbers, JAX returns the conjugate of the mathematical gradient: d Re(g y) is Re(x' dx)
    "real": (np.real, lambda g, y, x: (g + 0j,)),
    "imag": (np.imag, lambda g, y, x: (-1j * g,)),
    "complex": (lambda a, b: a + 1j * b, lambda g, y, a, b: (np.real(g), -np.imag(g))),
}


def _integer_pow(params: dict[str, Any], *shapes: Any) -> Rule:
    n = params["y"]
    if n >= 0:
        return unary(lambda x: x**n, lambda x, y: n * x ** (n - 1) if n else np.zeros(np.shape(x)))
    return unary(lambda x: 1 / x**-n, lambda x, y: n / x ** (1 - n))


def _round(params: dict[str, Any], *shapes: Any) -> Rule:
    def away_from_zero(x: Any) -> Any:
        low = np.trunc(x)
        return low + np.where(np.abs(x - low) >= 0.5, np.sign(x), 0)

    return without_gradient(np.rint if int(params["rounding_method"]) else away_from_zero)


def _polynomial(params: dict[str, Any], *shapes: Any) -> Rule:
    """A polynomial in the first input; the other inputs are the coefficients, lowest power first."""

    def value(x: Any, *factors: Any) -> Any:
        y = factors[-1]
        for factor in factors[-2::-1]:
            y = factor + x * y
        return y

    def back(g: Any, y: Any, x: Any, *factors: Any) -> tuple[Any, ...]:
        slope = value(x, *(n * factor for n, factor in enumerate(factors[1:], 1)))
        return g * slope, *(g * x**n for n in range(len(factors)))

    return value, back


def _convert(params: dict[str, Any], *shapes: Any) -> Rule:
    """Floating point of any width stays float64 here; conversion to integers or booleans has no gradient."""
    new = params["new_dtype"]

    def back(g: Any, y: Any, x: Any) -> tuple[Any]:
        if _whole(x):
            return (None,)
        return (g if np.iscomplexobj(x) else np.real(g),)

    if jnp.issubdtype(new, jnp.complexfloating):
        return (lambda x: np.asarray(x, np.complex128)), back
    if jnp.issubdtype(new, jnp.floating):
        return (lambda x: np.asarray(np.real(x), np.float64)), back
    return without_gradient(lambda x: _as_whole(x, np.dtype(new)))


def _as_whole(x: Any, dtype: Any) -> Any:
    """Truncate to integers; values out of range become the nearest limit, and NaN becomes 0, as in XLA."""
    if dtype.kind == "b" or _whole(x):
        return np.asarray(x).astype(dtype)
    limits = jnp.iinfo(dtype)
    inside = np.where(np.isnan(x) | (x <= limits.min) | (x >= limits.max), 0, x).astype(dtype)
    return np.where(x <= limits.min, limits.min, np.where(x >= limits.max, limits.max, inside)).astype(dtype)


def _reduce_precision(params: dict[str, Any], *shapes: Any) -> Rule:
    bits, largest = params["mantissa_bits"], 2.0 ** (2 ** (params["exponent_bits"] - 1))

    def rounded(x: Any) -> Any:
        fraction, exponent = np.frexp(x)
        y = np.where(np.isfinite(x), np.ldexp(np.rint(np.ldexp(fraction, bits + 1)), exponent - bits - 1), x)
        return np.where(np.abs(y) >= largest, np.copysign(np.inf, y), y)

    return rounded, lambda g, y, x: (rounded(g),)


MAKERS: dict[str, Maker] = {
    "integer_pow": _integer_pow,
    "round": _round,
    "polynomial": _polynomial,
    "convert_element_type": _convert,
    "reduce_precision": _reduce_precision,
}
