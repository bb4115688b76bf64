"""Convolutions and products with a kernel."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from ... import layers
from ..channel_order import to_last
from . import functions
from .builder import Builder
from .elementwise import binary_of
from .learned import Combine
from .node import Made, Node, Operand, array_of, constant_of, operand, padding_of, same_or_all, value_of
from .values import Constant, Unreadable, Value


def conv(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Conv: the kernel (out, in / groups, *kernel) becomes (*kernel, in / groups, out)."""
    x, kernel = b.image(value_of(operands[0])), array_of(operands[1], "kernel")
    rank = kernel.ndim - 2
    layer = layers.Conv(
        kernel.shape[0], same_or_all(list(kernel.shape[2:])), stride=_sizes(node, "strides", rank),
        padding=padding_of(node, rank), dilation=_sizes(node, "dilations", rank), groups=node.get("group", 1),
        bias=operand(operands, 2) is not None,
    )  # fmt: skip
    return _sliding(b, layer, x, np.moveaxis(kernel, (0, 1), (-1, -2)), operands)


def conv_transpose(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """ConvTranspose: the kernel (in, out / groups, *kernel) becomes (*kernel, in / groups, out)."""
    x, kernel = b.image(value_of(operands[0])), array_of(operands[1], "kernel")
    groups, rank = node.get("group", 1), kernel.ndim - 2
    into, out = kernel.shape[0] // groups, kernel.shape[1] * groups
    split = kernel.reshape(groups, into, kernel.shape[1], *kernel.shape[2:])
    moved = np.moveaxis(split, (0, 1, 2), (-2, -3, -1)).reshape(*kernel.shape[2:], into, out)
    stride, dilation = _sizes(node, "strides", rank), _sizes(node, "dilations", rank)
    padding, more = padding_of(node, rank), node.get("output_padding", [0] * rank)
    wanted = node.get("output_shape")
    if wanted is not None or padding in ("SAME", "SAME_LOWER"):
        padding, more = _cropped(node, x, kernel.shape[2:], wanted, more)
    layer = layers.ConvTranspose(
        out, same_or_all(list(kernel.shape[2:])), stride=stride, padding=padding, dilation=dilation, groups=groups,
        bias=operand(operands, 2) is not None, output_padding=same_or_all(list(more)),
    )  # fmt: skip
    return _sliding(b, layer, x, moved, operands)


def _cropped(node: Node, x: Value, kernel: Any, wanted: Any, more: Any) -> tuple[Any, list[int]]:
    """Padding and output padding that give the wanted size, by ONNX's formula."""
    rank = len(kernel)
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    sizes = list(wanted)[-rank:] if wanted is not None else [n * s for n, s in zip(x.example, strides, strict=False)]
    pads, after = [], []
    for n, k, s, d, size, q in zip(x.example, kernel, strides, dilations, sizes, more, strict=False):
        total = s * (n - 1) + q + (k - 1) * d + 1 - size
        if total < 0:  # more samples than the kernels reach
            pads.append((0, 0))
            after.append(q - total)
            continue
        lower, upper = total // 2, total - total // 2
        # for SAME_UPPER the odd sample is cropped at the end
        pads.append((lower, upper) if node.get("auto_pad", "NOTSET") == "SAME_UPPER" else (upper, lower))
        after.append(q)
    return (tuple(pads) if any(map(any, pads)) else "VALID"), after


def _sizes(node: Node, name: str, rank: int) -> Any:
    return same_or_all(list(node.get(name) or [1] * rank))


def _sliding(b: Builder, layer: Any, x: Value, kernel: np.ndarray, operands: list[Operand]) -> Value:
    if kernel.shape[-2] * layer.groups != x.example[-1]:
        raise Unreadable(
            f"has a kernel for {kernel.shape[-2] * layer.groups} channels and an input of {x.example[-1]} channels"
        )
    params = {"kernel": kernel}
    weights = [constant_of(operands[1], "kernel")]
    if layer.bias:
        params["bias"] = array_of(operands[2], "bias").reshape(layer.features)
        weights.append(constant_of(operands[2], "bias"))
    return b.layer(layer, x, params=params, weights=weights)


def _dense(b: Builder, x: Value, kernel: np.ndarray, bias: np.ndarray | None, weights: list[Constant]) -> Value:
    if kernel.shape[0] != x.example[-1]:
        raise Unreadable(f"has a kernel for {kernel.shape[0]} features and an input of {x.example[-1]}")
    if x.flat is not None:
        kernel = kernel[to_last(x.flat)]
    layer = layers.Dense(kernel.shape[1], bias=bias is not None)
    params = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
    return b.layer(layer, x, params=params, weights=weights)


def gemm(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Gemm: a dense layer, with alpha and beta in the weights."""
    x = value_of(operands[0])
    if node.get("transA", 0):
        raise Unreadable("transposes its input, and with it the axis of the examples")
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    more = operand(operands, 2)
    kernel = array_of(operands[1], "kernel")
    kernel = (kernel.T if node.get("transB", 0) else kernel) * np.asarray(alpha, kernel.dtype)
    weights = [constant_of(operands[1], "kernel")]
    if alpha != 1 or beta != 1:  # the weights are not those of another layer of the same initialisers
        weights = [Constant(kernel)]
    if more is not None and not isinstance(more, Constant):
        more = value_of(more)
    if isinstance(more, Value) or (more is not None and more.array.ndim == 2 and more.array.shape[0] > 1):
        made = _dense(b, x, kernel, None, weights)
        scaled = more if beta == 1 else binary_of(b, jnp.multiply, more, Constant(np.asarray(beta, np.float32)))
        return binary_of(b, jnp.add, made, scaled)
    bias = None
    if more is not None:
        bias = np.broadcast_to(array_of(more, "bias").reshape(-1), (kernel.shape[1],)) * np.asarray(beta, kernel.dtype)
        weights.append(more)
    return _dense(b, x, kernel, bias, weights)


def matmul(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """MatMul: a dense layer along the last axis, or a product of two values."""
    left, right = operands
    if isinstance(left, Value) and isinstance(right, Constant) and right.array.ndim == 2:
        x = left if left.rank == 2 else b.last(left, -1)
        return _dense(b, x, array_of(right, "kernel"), None, [right])
    if isinstance(left, Value) and isinstance(right, Value):
        if left.rank != right.rank or left.rank < 3:
            raise Unreadable("multiplies values of all examples with each other")
        return b.call(jnp.matmul, [b.plain(left), b.plain(right)])
    first = isinstance(left, Constant)
    x = b.plain(value_of(right if first else left))
    weight = constant_of(left if first else right, "factor")
    if x.rank < 3 and (first or weight.array.ndim != 1):
        raise Unreadable("multiplies along the axis of the examples")
    array = array_of(weight, "factor")
    if array.ndim > x.rank:
        raise Unreadable("gives a value more axes than it has")
    while array.ndim >= x.rank and array.shape[0] == 1:
        array = array[0]
    if array.ndim >= x.rank:
        raise Unreadable("has a factor for every example")
    out = x.rank - (array.ndim == 1)
    layer = Combine(jnp.matmul, array.shape, first=first)
    return b.layer(layer, x, order=tuple(range(out)), params={"weight": array}, weights=[weight])


def einsum(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Einsum of values, or of one value and a weight, that keeps the examples first."""
    equation = node.get("equation", "").replace(" ", "")
    if "->" not in equation or "." in equation:
        raise Unreadable(f"has the equation {equation!r}; it is read where it names all axes")
    terms, out = equation.split("->")
    letters = terms.split(",")
    values = [(term, x) for term, x in zip(letters, operands, strict=True) if isinstance(x, Value)]
    batch = values[0][0][:1]
    constants = [(term, x) for term, x in zip(letters, operands, strict=True) if not isinstance(x, Value)]
    apart = [term.count(batch) == 1 and term[0] == batch for term, _ in values]
    if not all(apart) or out[:1] != batch or any(batch in term for term, _ in constants):
        raise Unreadable(f"has the equation {equation!r}, which does not keep the examples apart")
    plain = [b.plain(value) for _, value in values]
    order = tuple(range(len(out)))
    if not constants:
        return b.call(functools.partial(functions.einsum, equation=equation), plain, order=order)
    if len(constants) > 1 or len(values) > 1:
        raise Unreadable("multiplies several values and weights at once")
    array = array_of(constants[0][1], "weight")
    turned = f"{values[0][0]},{constants[0][0]}->{out}"
    layer = Combine(functools.partial(functions.einsum, equation=turned), array.shape)
    weight = constant_of(constants[0][1], "weight")
    return b.layer(layer, plain[0], order=order, params={"weight": array}, weights=[weight])


RULES = {"Conv": conv, "ConvTranspose": conv_transpose, "Gemm": gemm, "MatMul": matmul, "Einsum": einsum}
