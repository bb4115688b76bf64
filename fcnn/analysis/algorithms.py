"""The algorithm chosen for every convolution of a network and for its gradients, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import format_shape, outermost_path
from ..geometry import Shape
from ..jaxprs import scopes
from ..layer import Context, Layer
from ..ops.convolution import Geometry, Problem, explain, use_algorithm
from ..ops.convolution.primitive import problem_of
from ..tables import Table, Tabular
from ..types import Params, State

HEADER = ("layer", "operation", "input", "kernel", "output", "algorithm", "why")
#: the kind of each primitive, and its name in the table
OPERATIONS = {
    "fcnn_convolution_forward": ("forward", "forward"),
    "fcnn_convolution_input": ("input", "input gradient"),
    "fcnn_convolution_kernel": ("kernel", "kernel gradient"),
}
#: JAX's name in a name stack for what a checkpoint recomputes
RECOMPUTED = "rematted_computation"


@dataclass(frozen=True)
class Operation:
    """One convolution of a network, or one of its gradients.

    Attributes:
        path: the layer's path in the network, as in params; a later use of a layer is "name#2".
        operation: "forward", "input gradient" or "kernel gradient".
        x: shape of the input, (batch, *space, channels).
        kernel: shape (*kernel, channels // groups, features).
        output: shape (batch, *out, features).
        geometry: stride, padding, dilation and groups.
        ensemble: number of such convolutions that run at once, each with its own input and kernel.
        times: number of runs in one training step, over the copies of ``repeat``.
        algorithm: the algorithm.
        reason: why it was chosen.
    """

    path: str
    operation: str
    x: Shape
    kernel: Shape
    output: Shape
    geometry: Geometry
    ensemble: int
    times: int
    algorithm: str
    reason: str


@dataclass(frozen=True, repr=False)
class Algorithms(Tabular):
    """The result of :func:`algorithms`; prints as a table in a terminal and in a notebook.

    Attributes:
        rows: each convolution in the order of computation, followed by those of its gradients that training computes.
        platform: the platform that the choice is for.
        dtype: the dtype of parameters and inputs.
    """

    rows: tuple[Operation, ...]
    platform: str
    dtype: str

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as text; entries equal to those of the row above are left out."""
        lines, reason = [], ""
        for row in self.rows:
            many = "".join(f"{n} x " for n in (row.times, row.ensemble) if n > 1)
            first = row.operation == "forward"  # its gradients follow
            place = (
                (row.path, many + format_shape(row.x), format_shape(row.kernel), format_shape(row.output))
                if first
                else ("",) * 4
            )
            why = "" if row.reason == reason and not first else row.reason
            lines.append((place[0], row.operation, *place[1:], row.algorithm, why))
            reason = row.reason
        return lines

    def _caption(self) -> str:
        count = sum(row.operation == "forward" for row in self.rows)
        return f"{count or 'no'} convolution{'s' * (count != 1)}, {self.dtype} on {self.platform}"

    def table(self) -> Table:
        return Table(HEADER, self.cells(), self._caption())


def algorithms(
    net: Layer,
    shape: Shape,
    *more_shapes: Shape,
    batch: int = 128,
    platform: str | None = None,
    dtype: Any = "float32",
) -> Algorithms:
    """List the algorithm of every convolution of a network and of its gradients in training, and why it was chosen.

    The network is traced; nothing is computed. A convolution of the data itself has no row for the input gradient,
    because training does not need it. Choices made by :func:`fcnn.ops.convolution.use_algorithm` appear in the table.

    Args:
        net: the network.
        shape: shape of one example, (*space, channels).
        more_shapes: shapes of further inputs.
        batch: number of examples per batch.
        platform: "cpu", "cuda", "rocm" or "tpu"; None: the platform of JAX's default backend.
        dtype: the dtype of parameters and inputs.

    Returns:
        The table.

    Raises:
        ValueError: if the shape does not fit the network, the platform is unknown, or the dtype is not a
            floating-point type.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(128, 3, padding="SAME"), fcnn.Conv(128, 3, padding="SAME"))
        >>> table = algorithms(net, (16, 16, 64), platform="cpu")
        >>> [(row.path, row.operation, row.algorithm) for row in table.rows][:2]
        [('conv1', 'forward', 'winograd'), ('conv1', 'kernel gradient', 'winograd')]
        >>> {row.algorithm for row in algorithms(net, (16, 16, 64), platform="cuda").rows}
        {'direct'}
    """
    platform = _platform() if platform is None else platform
    if platform not in PLATFORMS:
        raise ValueError(f"unknown platform {platform!r}; choose one of {', '.join(PLATFORMS)}")
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype {dtype} is not of floating point; layers compute in floating point")
    wide = jnp.float64 in (dtype, jnp.zeros(()).dtype)
    with jax.enable_x64(wide):  # otherwise JAX would take float64 as float32, in the table too
        forward, gradient = _traced(net, (shape, *more_shapes), batch, dtype)
        rows = _rows(list(_found(forward, platform)), list(_found(gradient, platform)))
    rows = tuple(row if row.path else replace(row, path=net.label) for row in rows)
    return Algorithms(rows, platform, dtype.name)


#: the platforms, by JAX's names
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def _platform() -> str:
    backend = jax.default_backend()
    if backend != "gpu":
        return backend
    return "rocm" if "rocm" in jax.devices()[0].client.platform_version.lower() else "cuda"


def _traced(net: Layer, shapes: tuple[Shape, ...], batch: int, dtype: Any) -> tuple[Any, Any]:
    """A training step as jaxprs: the forward pass alone, and the gradient of the sum of the outputs."""

    def cast(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    def total(params: Params, state: State, key: jax.Array, *inputs: jax.Array) -> jax.Array:
        with outermost_path(net.label):
            y, _ = net.run(Context(train=True, root=key), params, state, inputs)
        return reduce(add, [jnp.sum(leaf) for leaf in jax.tree.leaves(y)])

    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(lambda: (net.init(jax.random.key(0), *shapes), net.init_state(*shapes)))
    inputs = [jax.ShapeDtypeStruct((batch, *s), dtype) for s in net.check_shapes(shapes)]
    given = (*jax.tree.map(cast, (params, state)), key, *inputs)
    return jax.make_jaxpr(total)(*given), jax.make_jaxpr(jax.grad(total))(*given)


def _found(jaxpr: Any, platform: str, path: tuple[str, ...] = (), times: int = 1) -> Iterator[Operation]:
    """The convolutions in a jaxpr and in its inner jaxprs: loops, calls, checkpoints, derivative rules."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        here = (*path, *scopes(equation))
        if name in OPERATIONS:
            yield _operation(equation, "/".join(here), times, platform)
        runs = times * params["length"] if name == "scan" else times
        for inner in jax.tree.leaves(list(params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                yield from _found(inner, platform, here, runs)


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


def _operation(equation: Any, path: str, times: int, platform: str) -> Operation:
    kind, title = OPERATIONS[equation.primitive.name]
    params = equation.params
    a, b = (atom.aval for atom in equation.invars)
    problem: Problem = problem_of(kind, platform, a, b, params["geometry"], params["space"], params["kernel"])
    with use_algorithm(params["algorithm"]):
        choice = explain(problem)
    out = problem.geometry.out(problem.x[1:-1], problem.kernel[:-2])
    return Operation(
        path,
        title,
        problem.x,
        problem.kernel,
        (problem.x[0], *out, problem.kernel[-1]),
        problem.geometry,
        problem.ensemble,
        times,
        choice.algorithm,
        choice.reason,
    )


def _rows(forward: list[Operation], gradients: list[Operation]) -> tuple[Operation, ...]:
    """Every convolution followed by its gradients, input before kernel.

    Gradients appear in the order of the backward pass. Convolutions with the same path and the same problem are matched
    by their order alone.
    """
    rows: list[Operation] = []
    kinds = ("input gradient", "kernel gradient")
    left = {kind: [row for row in gradients if row.operation == kind] for kind in kinds}
    for n, row in enumerate(forward):
        later = sum(_place(other) == _place(row) for other in forward[n + 1 :])
        rows.append(row)
        for kind in kinds:
            own = [other for other in left[kind] if _place(other) == _place(row)]
            if len(own) > later:
                rows.append(own[later])
    return tuple(rows)


def _place(row: Operation) -> tuple[Any, ...]:
    return row.path, row.x, row.kernel, row.geometry, row.ensemble, row.times
