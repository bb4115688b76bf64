"""Whether a function acts on every position separately.

A function of an array (batch, *space, channels) can be applied unchanged to a larger space if its output at a position
depends on that position alone, and in the same way everywhere. This is decided from the operations of the function:
elementwise operations are allowed, and operations along the axes after the space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal

from ..context import Context
from ..errors import format_shape
from ..geometry import Shape
from ..identity import cached
from ..jaxprs import body, called, constants

#: elementwise operations
_NUMBERS = frozenset({
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e",
    "bessel_i1e", "bitcast_convert_type", "cbrt", "ceil", "clamp", "clz", "complex", "conj", "convert_element_type",
    "copy", "copy_p", "cos", "cosh", "device_put", "digamma", "div", "eq", "eq_to", "erf", "erf_inv", "erfc", "exp",
    "exp2", "expm1", "floor", "ge", "gt", "igamma", "igammac", "imag", "integer_pow", "is_finite", "layout_constraint",
    "le", "le_to", "lgamma", "log", "log1p", "log2", "logistic", "lt", "lt_to", "max", "mesh_cast", "min", "mul",
    "mulhi", "name", "ne", "neg", "nextafter", "not", "one_minus_square", "optimization_barrier", "or", "polygamma",
    "polynomial", "population_count", "pow", "pvary", "real", "reduce_precision", "regularized_incomplete_beta", "rem",
    "round", "rsqrt", "select_n", "sharding_constraint", "shift_left", "shift_right_arithmetic", "shift_right_logical",
    "sign", "sin", "sinh", "sqrt", "square", "stage", "stop_gradient", "sub", "tan", "tanh", "xor", "zeta",
})  # fmt: skip
#: operations along axes, and the parameter that names these axes
_ALONG = {
    "reduce_sum": "axes", "reduce_max": "axes", "reduce_min": "axes", "reduce_prod": "axes", "reduce_and": "axes",
    "reduce_or": "axes", "argmax": "axes", "argmin": "axes", "squeeze": "dimensions", "rev": "dimensions",
    "cumsum": "axis", "cumprod": "axis", "cummax": "axis", "cummin": "axis", "cumlogsumexp": "axis",
    "sort": "dimension", "concatenate": "dimension", "split": "axis", "top_k": "axis", "reduce_xor": "axes",
    "stack": "axis", "unstack": "axis",
}  # fmt: skip


class Seen(NamedTuple):
    """The known properties of a value inside a function.

    Attributes:
        mark: the mark of a value with positions; None for values that do not depend on the input.
        uniform: for values without a mark, the axes along which they do not vary.
    """

    mark: Any
    uniform: frozenset[int] = frozenset()


class Mixes(Exception):
    """Raised where a function mixes positions, or cannot be proved not to.

    Attributes:
        place: the names of the parts around the operation; None: not known.
    """

    place: tuple[str, ...] | None = None


def why_not_positionwise(
    function: Callable[..., Any], shape: Shape, lead: int | None = None, larger: Shape | None = None
) -> str | None:
    """Say why a function of x (batch, *space, channels) may not be used at every position of a larger space.

    The function is traced for the given space and for larger ones, and must do the same for all of them.

    Args:
        function: a function of one array.
        shape: shape of one example.
        lead: number of leading axes, including the batch, that count as positions; None: all but the last.
        larger: the space to use it on; it is tested in addition to one that is larger by 3 along every axis.

    Returns:
        The reason, a phrase that continues a sentence after the function's name; None if the function is positionwise.

    Example:
        >>> why_not_positionwise(jax.nn.relu, (8, 8, 3))
        >>> why_not_positionwise(jax.nn.softmax, (8, 8, 3))
        >>> why_not_positionwise(lambda x: x - x.mean((1, 2), keepdims=True), (8, 8, 3))
        'mixes positions (reduce_sum along the space)'
    """
    lead = len(shape) if lead is None else lead
    said: list[Any] = []
    try:
        outs = follow(_traced(function, shape), [Seen("x")], lead, said)
    except Mixes as error:
        return str(error)
    except (jax.errors.JAXTypeError, jax.errors.ConcretizationTypeError):
        return "depends on concrete values, so it cannot be traced"
    if any(out.mark is None for out in outs):
        return "makes something that does not depend on its input"
    space, rest = shape[: lead - 1], shape[lead - 1 :]
    for other in {tuple(n + 3 for n in space), space if larger is None else larger} - {space}:
        again: list[Any] = []
        try:
            follow(_traced(function, (*other, *rest)), [Seen("x")], lead, again)
        except Exception:  # a user's function may raise anything on another space
            return f"works for a space of {format_shape(space)} only"
        if again != said:
            return "computes with the size of the space"
    return None


@cached(maxsize=1024)
def of_numbers(layer: Any, shape: Shape, larger: Shape | None = None) -> bool:
    """Whether a layer is provably elementwise, so that the order of the axes does not affect it.

    Args:
        layer: a layer; the proof exists only for functions wrapped as layers.
        shape: shape of one example.
        larger: another space, on which it has to do the same.

    Example:
        >>> from fcnn.layers import Function
        >>> of_numbers(Function(lambda x: x * jax.nn.sigmoid(2 * x)), (8, 8, 3))
        True
        >>> of_numbers(Function(jax.nn.softmax), (8, 8, 3))
        False
    """
    function = getattr(layer, "function", None)
    if function is None or layer.infer_shape(shape) != shape:
        return False
    return why_not_positionwise(function, shape, len(shape) + 1, larger) is None


def applied(layer: Any, shape: Shape, *, train: bool = False) -> Callable[[jax.Array], jax.Array]:
    """A layer as a function of its input; its parameters are constants, so their variation over positions counts."""
    made = jax.eval_shape(lambda key: layer.init_part(key, (shape,)), jax.random.key(0))
    kept = jax.eval_shape(lambda: layer.state_part((shape,)))
    # NumPy arrays keep their values while JAX is tracing
    params, state = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), (made, kept))
    context = Context(train=train, root=jax.random.key(0) if train else None, plan=False)
    return lambda x: layer.run(context, params, state, (x,))[0]


def _traced(function: Callable[..., Any], shape: Shape) -> Any:
    return jax.make_jaxpr(function)(jax.ShapeDtypeStruct((2, *shape), jnp.zeros(()).dtype))


def _value(value: Any) -> Any:
    """A value that is equal for equal arrays; a traced array or a random key is equal only to itself."""
    if isinstance(value, Tracer) or not isinstance(getattr(value, "dtype", None), (np.dtype, type(None))):
        return id(value)
    array = np.asarray(value)
    return array.shape, array.dtype.name, array.tobytes()


def _settings(params: Any, lead: int) -> list[Any]:
    """The parameters of an operation, without the sizes of the leading axes."""
    found = []
    for name, value in sorted(params.items()):
        if isinstance(value, (bool, int, float, str)):
            found.append((name, value))
        elif isinstance(value, tuple) and all(isinstance(item, (int, tuple)) for item in value):
            found.append((name, value[lead:]))
    return found


def follow(closed: Any, given: list[Seen], lead: int, said: list[Any]) -> list[Seen]:
    """Follow marks through a traced function.

    Args:
        closed: the closed jaxpr.
        given: the known properties of its arguments.
        lead: number of leading axes, batch and space, that must be kept.
        said: a list to which a record of the operations is appended, without the sizes of the space. Records for
            different spaces are equal if the function does not compute with these sizes.

    Returns:
        The known properties of its results.

    Raises:
        Mixes: an operation mixes positions, or is unknown.
    """
    jaxpr = body(closed)
    known: dict[Any, Seen] = {}
    for var, value in zip(jaxpr.constvars, constants(closed), strict=True):
        known[var] = _constant(var.aval.shape)
        said.append(_value(value))
    known.update(zip(jaxpr.invars, given, strict=True))

    def look(atom: Any) -> Seen:
        return known[atom] if not isinstance(atom, Literal) else _constant(jnp.shape(atom.val))

    for eqn in jaxpr.eqns:
        seen = [look(atom) for atom in eqn.invars]
        said.append(eqn.primitive.name)
        said += [_value(atom.val) for atom in eqn.invars if isinstance(atom, Literal)]
        said += _settings(eqn.params, lead)
        known.update(zip(eqn.outvars, _through(eqn, seen, lead, said), strict=True))
    return [look(atom) for atom in jaxpr.outvars]


def _constant(shape: Shape) -> Seen:
    return Seen(None, frozenset(axis for axis, size in enumerate(shape) if size == 1))


def _through(eqn: Any, seen: list[Seen], lead: int, said: list[Any]) -> list[Seen]:
    name = eqn.primitive.name
    program = called(eqn)
    if program is not None:
        return follow(program, seen, lead, said)
    marks = {value.mark for value in seen if value.mark is not None}
    if not marks:
        if name != "broadcast_in_dim" and name not in _NUMBERS:  # sum(ones) gives the size of the space
            said += [atom.aval.shape for atom in eqn.invars]
        return [Seen(None, _uniform(eqn, seen, out.aval)) for out in eqn.outvars]
    if len(marks) > 1:
        raise Mixes(f"joins values that lie at different positions ({name})")
    _check(eqn, seen, lead)
    return [Seen(next(iter(marks))) for _ in eqn.outvars]


def _uniform(eqn: Any, seen: list[Seen], out: Any) -> frozenset[int]:
    """The axes along which the result of an operation on constants does not vary."""
    small = _constant(out.shape).uniform
    if eqn.primitive.name == "broadcast_in_dim":
        found = set(range(len(out.shape))) - set(eqn.params["broadcast_dimensions"])
        for axis, target in enumerate(eqn.params["broadcast_dimensions"]):
            if axis in seen[0].uniform or eqn.invars[0].aval.shape[axis] == 1:
                found.add(target)
        return small | found
    if eqn.primitive.name in _NUMBERS:
        full = [v.uniform for v, atom in zip(seen, eqn.invars, strict=True) if atom.aval.shape == out.shape]
        return small | (frozenset.intersection(*full) if full else frozenset())
    return small


def _check(eqn: Any, seen: list[Seen], lead: int) -> None:
    """Raise unless an operation keeps the positions apart."""
    name, params = eqn.primitive.name, eqn.params
    front = frozenset(range(lead))
    ranks = [len(atom.aval.shape) for atom in eqn.invars]
    marked = [value.mark is not None for value in seen]
    if any(is_marked and rank < lead for is_marked, rank in zip(marked, ranks, strict=True)):
        raise Mixes(f"mixes positions ({name} after axes of the space were lost)")

    if name in _NUMBERS or name in ("concatenate", "stack"):
        for value, rank in zip(seen, ranks, strict=True):
            if value.mark is None and rank and not front <= value.uniform:
                raise Mixes(f"uses numbers of its own that differ from position to position ({name})")
        if name in _NUMBERS:
            return
    if name in _ALONG:
        axes = params[_ALONG[name]]
        if name == "top_k":
            axes = axes % ranks[0] if axes is not None else ranks[0] - 1
        if front & set((axes,) if isinstance(axes, int) else axes):
            raise Mixes(f"mixes positions ({name} along the space)")
        return
    shape, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    fine = False
    if name == "broadcast_in_dim":
        fine = tuple(params["broadcast_dimensions"][:lead]) == tuple(range(lead)) and out[:lead] == shape[:lead]
    elif name == "reshape":
        fine = params.get("dimensions") is None and out[:lead] == shape[:lead]
    elif name == "transpose":
        fine = tuple(params["permutation"][:lead]) == tuple(range(lead))
    elif name == "slice":
        fine = out[:lead] == shape[:lead]
    elif name == "tile":
        fine = all(n == 1 for n in params["reps"][:lead])
    elif name == "dynamic_slice":
        fine = marked[0] and not any(marked[1:]) and tuple(params["slice_sizes"][:lead]) == shape[:lead]
    elif name == "pad":
        fine = marked[0] and not any(map(any, params["padding_config"][:lead]))
    elif name == "dot_general":
        (contract, _), (batch, _) = params["dimension_numbers"]
        fine = marked == [True, False] and not batch and not front & set(contract)
    if not fine:
        raise Mixes(f"mixes positions, or cannot be proved not to ({name})")
