"""Convolution and its two gradients as three bilinear primitives of JAX, each the transpose of the others.

With plain autodiff, the gradient would have to use the transposed operations of the forward algorithm; a rule by
``jax.custom_vjp`` would rule out forward mode. As primitives they support every transformation:

=================  ===================  =======================  =======================
primitive          of                   transposed to the first  transposed to the second
=================  ===================  =======================  =======================
``forward``        x, kernel            ``input`` (g, kernel)    ``kernel`` (x, g)
``input``          g, kernel            ``forward`` (x, kernel)  ``kernel`` (x, g)
``kernel``         x, g                 ``input`` (g, kernel)    ``forward`` (x, kernel)
=================  ===================  =======================  =======================

All arrays have an additional first axis: an ensemble of problems with separate operands, which ``vmap`` over both
operands creates. ``vmap`` over one operand alone does not need it: its copies become examples, channels or features.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec

from ...geometry import Shape
from ..devices import explicit_axes, in_process, varying_axes
from ..memory import keep_memory
from ..noinline import plainly
from ..tools import Own, kept_as_convolution
from . import blocks, depthwise, direct, fourier, locality, onednn, patches, split, winograd
from .choice import Problem, choose, forced, refusal, usable
from .conv_geometry import Geometry

forward_p, input_p, kernel_p = (
    Own(f"fcnn_convolution_{name}", bilinear=True) for name in ("forward", "input", "kernel")
)
_OPERATION = {forward_p: "forward", input_p: "input", kernel_p: "kernel"}
_Params = dict[str, Any]
#: "direct" whose parts, if any, are also computed by XLA's convolution, and not by the algorithm of ``choose``
DIRECT_ALONE = "direct alone"


def convolve(x: Array, kernel: Array, geometry: Geometry, algorithm: str | None = None) -> Array:
    """Cross-correlate x (batch, *space, channels) with kernel (*kernel, channels // groups, features).

    Args:
        x: input; same dtype as the kernel.
        kernel: kernel.
        geometry: the positions of the windows.
        algorithm: one of ``ALGORITHMS``; None: chosen by platform, shapes and dtype.

    Returns:
        (batch, *out, features), or another layout given by the geometry.
    """
    algorithm = algorithm or forced()
    if explicit_axes(x) and not geometry.hwnc:
        # XLA partitions the work as with Auto axes; the result is sharded by examples
        sharding = jax.typeof(x).sharding
        parts = [None] * (geometry.rank + 2)
        parts[0] = sharding.spec[0]
        if geometry.polyphase:
            parts = [None, *parts[::-1]]
        function = partial(_convolve, geometry=geometry, algorithm=algorithm)
        with jax.sharding.use_abstract_mesh(sharding.mesh):
            spread = jax.sharding.auto_axes(function, out_sharding=PartitionSpec(*parts))
            return spread(x, kernel)  # pyright: ignore[reportCallIssue]  (its type is too narrow)
    return _convolve(x, kernel, geometry, algorithm)


def _convolve(x: Array, kernel: Array, geometry: Geometry, algorithm: str | None) -> Array:
    x, kernel = _varying_alike(x[None], kernel[None])
    space = x.shape[1:-2] if geometry.hwnc else x.shape[2:-1]
    sizes = {"space": space, "kernel": kernel.shape[1:-2]}
    return forward_p.bind(x, kernel, geometry=geometry, algorithm=algorithm, **sizes)[0]


def _varying_alike(*arrays: Array) -> list[Array]:
    """Under shard_map: mark all arrays as varying over every mesh axis that one of them varies over."""
    axes = [varying_axes(a) for a in arrays]
    every = frozenset[str]().union(*axes)
    pairs = zip(arrays, axes, strict=True)
    return [lax.pcast(a, tuple(every - own), to="varying") if every - own else a for a, own in pairs]


# Shapes.


def _shape(operation: str, a: Any, b: Any, geometry: Geometry, space: Shape, kernel: Shape) -> Shape:
    """Shape of the result, including the ensemble."""
    ensemble = a.shape[0]
    if operation == "forward":
        return (ensemble, *geometry.result(a.shape[_given(geometry)], space, kernel, b.shape[-1]))
    if operation == "input":
        batch, channels = a.shape[_examples(geometry)], b.shape[-2] * geometry.groups
        return (ensemble, *space, batch, channels) if geometry.hwnc else (ensemble, batch, *space, channels)
    return (ensemble, *kernel, a.shape[-1] // geometry.groups, b.shape[_features(geometry)])


def _given(geometry: Geometry) -> int:
    """The axis of an input (of one ensemble and more) that holds the batch, counted from its end."""
    return -2 if geometry.hwnc else -2 - geometry.rank


def _examples(geometry: Geometry) -> int:
    """The axis of a result that holds the batch, counted from its end."""
    return -1 if geometry.polyphase else _given(geometry)


def _features(geometry: Geometry) -> int:
    """The axis of a result that holds the features, counted from its end."""
    return -3 - geometry.rank if geometry.polyphase else -1


def _abstract(operation, a, b, *, geometry, algorithm, space, kernel):
    shape = _shape(operation, a, b, geometry, space, kernel)
    return a.update(shape=shape, sharding=a.sharding.update(spec=PartitionSpec(*(None,) * len(shape))))


# Derivatives.


def _to_first(to, known_first, cotangent, a, b, **params):
    """The transpose to the first operand: the primitive ``to`` of the cotangent and the second."""
    del a
    return to.bind(*((b, cotangent) if known_first else (cotangent, b)), **params)


def _to_second(to, known_first, cotangent, a, b, **params):
    """The transpose to the second operand: the primitive ``to`` of the cotangent and the first."""
    del b
    return to.bind(*((a, cotangent) if known_first else (cotangent, a)), **params)


# vmap.


def _batched(primitive, args, dims, **params):
    """Move the batch of vmap into an existing axis of the primitive."""
    a, b = args
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    first, second = dims
    geometry = params["geometry"]
    if first is not None:
        a = jnp.moveaxis(a, first, 0)
    if second is not None:
        b = jnp.moveaxis(b, second, 0)
    alone = (a.shape[1] if first is not None else a.shape[0]) == 1
    operation = _OPERATION[primitive]
    one, other = (
        x if d is None else jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x, d in zip((a, b), dims, strict=True)
    )
    shape = _shape(operation, one, other, geometry, params["space"], params["kernel"])
    if alone and second is None and operation != "kernel":  # many inputs or output gradients: more examples
        plain, result = _given(geometry), _examples(geometry)
        taken, given = (result, plain) if operation == "input" else (plain, result)
        return _split(primitive.bind(_join(a, taken), b, **params), size, given, shape), 0
    if alone and geometry.groups == 1 and (first is None or second is None):
        if first is None:  # many kernels or output gradients for one input: more features, or channels
            taken = {"forward": -1, "input": -2, "kernel": _features(geometry)}[operation]
            given = _features(geometry) if operation == "forward" else -1
            return _split(primitive.bind(a, _join(b, taken), **params), size, given, shape), 0
        y = primitive.bind(_join(a, -1), b, **params)  # many inputs for one output gradient
        return _split(y, size, -2, shape), 0
    a = jnp.broadcast_to(a, (size, *a.shape)) if first is None else a
    b = jnp.broadcast_to(b, (size, *b.shape)) if second is None else b
    ensemble = shape[0]
    a, b = (x.reshape(size * ensemble, *x.shape[2:]) for x in (a, b))
    return primitive.bind(a, b, **params).reshape(size, *shape), 0


def _join(a: Array, axis: int) -> Array:
    """Concatenate the copies (copies, ...) along an axis, the copies outermost."""
    a = jnp.moveaxis(a, 0, axis - 1)
    shape = list(a.shape)
    shape[axis - 1 : len(shape) + axis + 1] = [shape[axis - 1] * shape[axis]]
    return a.reshape(shape)


def _split(a: Array, copies: int, axis: int, one: Shape) -> Array:
    """The inverse of :func:`_join`, for copies of the shape ``one``."""
    place = len(one) + axis
    return jnp.moveaxis(a.reshape(*one[:place], copies, *one[place:]), place, 0)


# Computing.


def _compute(operation, platform, onednn, a, b, *, geometry, algorithm, space, kernel):
    if platform == "cpu":
        keep_memory()
    if 0 in (*a.shape, *b.shape):  # no examples, channels or features: empty sums
        return jnp.zeros(_shape(operation, a, b, geometry, space, kernel), a.dtype)
    problem = replace(problem_of(operation, platform, a, b, geometry, space, kernel), onednn=onednn)
    if algorithm is None or refusal(algorithm, problem) is not None:
        algorithm = choose(problem).algorithm
    dtype = a.dtype
    if platform == "cpu" and dtype in (jnp.bfloat16, jnp.float16):
        # the CPU computes in float32 anyway; this keeps sums of several products in float32 as well
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return _local(problem, algorithm, a, b).astype(dtype)


def _local(problem: Problem, algorithm: str, a: Array, b: Array) -> Array:
    """Compute the problem by an algorithm, and again by another where the data do not suit it (see ``locality``)."""

    def computed(algorithm: str, a: Array, b: Array) -> Array:
        one = partial(_one, problem, algorithm)
        return one(a[0], b[0])[None] if a.shape[0] == 1 else jax.vmap(one)(a, b)

    y = computed(algorithm, a, b)
    if algorithm not in {*locality.SPARSE, *locality.SPREAD} or not a.size or not b.size:
        return y
    again = "patches" if problem.ensemble > 1 or problem.dtype == "float64" else DIRECT_ALONE
    return locality.unless(_suits(problem, algorithm, a, b, y), y, partial(computed, again), a, b)


def _suits(problem: Problem, algorithm: str, a: Array, b: Array, y: Array) -> Array:
    """Whether the data suit an algorithm that computes outputs from samples outside their windows too."""
    geometry = problem.geometry
    if algorithm in locality.SPARSE:
        # values that are not finite propagate to the result; test the smaller array, such as a kernel gradient
        if problem.operation == "kernel" or y.size <= a.size:
            return locality.finite(y)
        return locality.finite(a)
    given, result = (-1, _given(geometry)), (_features(geometry), _examples(geometry))
    limit = locality.SPREAD[algorithm]
    if problem.operation == "kernel":
        return locality.level(a, *given, limit) & locality.level(b, *result, limit)
    return locality.level(a, *(given if problem.operation == "forward" else result), limit)


def problem_of(operation: str, platform: str, a: Any, b: Any, geometry: Geometry, space: Shape, kernel: Shape):
    """The problem of a primitive for its operands, which include the ensemble."""
    groups = geometry.groups
    if operation == "forward":
        batch, channels, features = a.shape[_given(geometry)], a.shape[-1], b.shape[-1]
    elif operation == "input":
        batch, channels, features = a.shape[_examples(geometry)], b.shape[-2] * groups, a.shape[_features(geometry)]
    else:
        batch, channels, features = a.shape[_given(geometry)], a.shape[-1], b.shape[_features(geometry)]
    x, k = (batch, *space, channels), (*kernel, channels // groups, features)
    return Problem(operation, x, k, geometry, a.dtype.name, platform, a.shape[0], usable(platform))


def _one(problem: Problem, algorithm: str, a: Array, b: Array) -> Array:
    """Compute one problem, without the ensemble."""
    geometry, sizes, space = problem.geometry, problem.kernel[:-2], problem.x[1:-1]
    cpu = problem.platform == "cpu"
    if algorithm == "blocks" and not geometry.hwnc:
        if problem.operation == "forward":
            return blocks.forward(a, b, geometry)
        if problem.operation == "input":
            return blocks.input_gradient(a, b, geometry, space)
        return blocks.kernel_gradient(a, b, geometry, sizes)
    if geometry.hwnc:
        return _hwnc(problem, algorithm, a, b)
    plain = geometry.plain
    simple = replace(problem, geometry=plain)
    if problem.operation == "forward":
        return _to_polyphase(_forward(algorithm, a, b, simple), geometry)
    if problem.operation == "input":
        g = _from_polyphase(a, geometry)
        if algorithm in ("winograd", "patches", "fourier") or (algorithm in ("direct", DIRECT_ALONE) and not cpu):
            x = jax.ShapeDtypeStruct(problem.x, g.dtype)
            return jax.linear_transpose(lambda x: _forward(algorithm, x, b, simple), x)(g)[0]
        turned = direct.turned(b, geometry.groups)
        return _forward(algorithm, g, turned, simple.transposed)
    g = _from_polyphase(b, geometry)
    if algorithm == "depthwise":
        return depthwise.kernel_gradient(a, g, plain, sizes, cpu=cpu)
    few = problem.several and geometry.groups == 1 and problem.x[-1] < patches.LONG_RUN
    if algorithm == "patches" and cpu and few:
        return patches.kernel_gradient(a, g, plain, sizes)
    if algorithm == "onednn":
        return onednn.kernel_gradient(a, g, plain, sizes)
    if algorithm == "direct" and cpu and geometry.groups > 1:
        return split.by_group(partial(_simpler_kernel, sizes), a, g, plain)
    if algorithm == "direct" and cpu and geometry.rank == 3:
        return split.kernel_by_depth(partial(_simpler_kernel, sizes[1:]), a, g, plain, sizes)
    if algorithm == DIRECT_ALONE and cpu and geometry.rank == 3:
        flat = partial(direct.kernel_gradient, kernel=sizes[1:], avoid_ynnpack=True)
        return split.kernel_by_depth(flat, a, g, plain, sizes)
    if algorithm in ("direct", DIRECT_ALONE) and cpu:
        return direct.kernel_gradient(a, g, plain, sizes, avoid_ynnpack=True)
    kernel = jax.ShapeDtypeStruct(problem.kernel, g.dtype)
    return jax.linear_transpose(lambda kernel: _forward(algorithm, a, kernel, simple), kernel)(g)[0]


def _hwnc(problem: Problem, algorithm: str, a: Array, b: Array) -> Array:
    """Compute one problem whose input and result are (*space, batch, channels)."""
    geometry = problem.geometry
    if algorithm == "winograd":
        if problem.operation == "forward":
            return winograd.forward(a, b, geometry)
        batch, *space, channels = problem.x
        x, kernel = (*space, batch, channels), problem.kernel
        if problem.operation == "input":
            shape = jax.ShapeDtypeStruct(x, a.dtype)
            return jax.linear_transpose(lambda x: winograd.forward(x, b, geometry), shape)(a)[0]
        shape = jax.ShapeDtypeStruct(kernel, b.dtype)
        return jax.linear_transpose(lambda kernel: winograd.forward(a, kernel, geometry), shape)(b)[0]
    usual = replace(problem, geometry=geometry.plain)
    last = geometry.rank
    if problem.operation != "kernel":
        return jnp.moveaxis(_one(usual, algorithm, jnp.moveaxis(a, last, 0), b), 0, last)
    return _one(usual, algorithm, jnp.moveaxis(a, last, 0), jnp.moveaxis(b, last, 0))


def _forward(algorithm: str, x: Array, kernel: Array, problem: Problem) -> Array:
    """Compute a forward problem, whose x and kernel may be those of a gradient."""
    geometry, cpu = problem.geometry, problem.platform == "cpu"
    if algorithm == "onednn":
        return onednn.forward(x, kernel, geometry)
    if algorithm == "direct" and cpu and geometry.groups > 1:
        return split.by_group(_simpler_forward, x, kernel, geometry)
    if algorithm == "direct" and cpu and geometry.rank == 3:
        return split.forward_by_depth(_simpler_forward, x, kernel, geometry)
    if algorithm == DIRECT_ALONE and cpu and geometry.rank == 3:
        return split.forward_by_depth(partial(direct.forward, avoid_ynnpack=True), x, kernel, geometry)
    if algorithm in ("direct", DIRECT_ALONE):
        return direct.forward(x, kernel, geometry, avoid_ynnpack=cpu)
    if algorithm == "depthwise" and geometry.groups != x.shape[-1]:  # the gradient with several features per channel
        return patches.forward(x, kernel, geometry)
    if algorithm == "depthwise":
        return depthwise.forward(x, kernel, geometry, cpu=cpu)
    module = {"patches": patches, "winograd": winograd, "fourier": fourier}[algorithm]
    return module.forward(x, kernel, geometry)


def _simpler_forward(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """A convolution on the CPU that is part of another one, by its own choice of algorithm."""
    part = Problem("forward", x.shape, kernel.shape, geometry, x.dtype.name, "cpu")
    return _local(part, choose(part).algorithm, x[None], kernel[None])[0]


def _simpler_kernel(sizes: Shape, x: Array, g: Array, geometry: Geometry) -> Array:
    """The kernel gradient of such a part."""
    shape = (*sizes, x.shape[-1], g.shape[-1])
    part = Problem("kernel", x.shape, shape, geometry, x.dtype.name, "cpu")
    return _local(part, choose(part).algorithm, x[None], g[None])[0]


def _to_polyphase(y: Array, geometry: Geometry) -> Array:
    if not geometry.polyphase:
        return y
    batch, *out, features = y.shape
    split = [n for size, b in zip(out, geometry.phases, strict=True) for n in (size // b, b)]
    y = y.reshape(batch, *split, features)
    rank = geometry.rank
    y = y.transpose(2 * rank + 1, *(2 + 2 * a for a in range(rank)), *(1 + 2 * a for a in range(rank)), 0)
    return y.reshape(features, -1, *y.shape[rank + 1 :])


def _from_polyphase(y: Array, geometry: Geometry) -> Array:
    if not geometry.polyphase:
        return y
    features, _, *out, batch = y.shape
    rank = geometry.rank
    y = y.reshape(features, *geometry.phases, *out, batch)
    y = y.transpose(2 * rank + 1, *(axis for a in range(rank) for axis in (rank + 1 + a, 1 + a)), 0)
    whole = [n * b for n, b in zip(out, geometry.phases, strict=True)]
    return y.reshape(batch, *whole, features)


def _lower(operation, ctx, *operands, **static):
    """The rule for the CPU: what is lowered knows whether it may call oneDNN."""
    may_call = in_process(ctx) and usable("cpu")
    return plainly(partial(_compute, operation, "cpu", may_call))(ctx, *operands, **static)


def _eager(compiled, a, b, **params):
    with jax.disable_jit(False):  # compiled as one program even under jax.disable_jit
        return compiled(a, b, **params)


_STATIC = ("geometry", "algorithm", "space", "kernel")
for _primitive in (forward_p, input_p, kernel_p):
    _operation = _OPERATION[_primitive]
    _primitive.def_impl(partial(_eager, jax.jit(_primitive.bind, static_argnames=_STATIC)))
    _primitive.def_abstract_eval(partial(_abstract, _operation))
    batching.primitive_batchers[_primitive] = partial(_batched, _primitive)
    kept_as_convolution(_primitive)
    mlir.register_lowering(_primitive, partial(_lower, _operation), platform="cpu")
    mlir.register_lowering(_primitive, plainly(partial(_compute, _operation, "gpu", False)))

# transposes: with respect to the first operand given the second, and to the second given the first
ad.defbilinear(forward_p, partial(_to_first, input_p, False), partial(_to_second, kernel_p, True))
ad.defbilinear(input_p, partial(_to_first, forward_p, False), partial(_to_second, kernel_p, False))
ad.defbilinear(kernel_p, partial(_to_first, input_p, True), partial(_to_second, forward_p, True))
