"""Sums, products and extremes: along axes, cumulative, over sliding windows; and sorting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import padded, sampled
from .elementwise import RULES as ELEMENTWISE
from .rule import Maker, Rule, without_gradient


def _axes(params: dict[str, Any]) -> tuple[int, ...]:
    return tuple(map(int, params["axes"]))


def _reduce_sum(params: dict[str, Any], shape: Any) -> Rule:
    axes = _axes(params)
    return (lambda x: np.sum(x, axes, dtype=x.dtype)), lambda g, y, x: (
        np.broadcast_to(np.expand_dims(g, axes), shape),
    )


def _reduce_extreme(choose: Any, worst: Callable[[Any], Any]) -> Maker:
    """Tied values share the gradient equally."""

    def make(params: dict[str, Any], shape: Any) -> Rule:
        axes = _axes(params)

        def back(g: Any, y: Any, x: Any) -> tuple[Any]:
            chosen = x == np.expand_dims(y, axes)
            return (np.expand_dims(g, axes) * chosen / np.maximum(chosen.sum(axes, keepdims=True), 1),)

        return (lambda x: choose.reduce(x, axes, initial=worst(x.dtype))), back

    return make


def _lowest(dtype: Any) -> Any:
    return -np.inf if dtype.kind == "f" else False if dtype.kind == "b" else np.iinfo(dtype).min


def _highest(dtype: Any) -> Any:
    return np.inf if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max


def _reduce_prod(params: dict[str, Any], shape: Any) -> Rule:
    """Each factor's gradient is the product of all others, computed without division, so that zeros are allowed."""
    axes = _axes(params)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    order = [*kept, *axes]

    def back(g: Any, y: Any, x: Any) -> tuple[Any]:
        last = np.transpose(x, order).reshape(*(shape[axis] for axis in kept), -1)
        ones = np.ones_like(last[..., :1])
        before = np.cumprod(np.concatenate([ones, last[..., :-1]], -1), -1)
        after = np.cumprod(np.concatenate([ones, last[..., :0:-1]], -1), -1)[..., ::-1]
        gradient = (g[..., None] * before * after).reshape([shape[axis] for axis in order])
        return (np.transpose(gradient, np.argsort(order)),)

    return (lambda x: np.prod(x, axes, dtype=x.dtype)), back


def _reduce_bits(function: Any) -> Maker:
    return lambda params, shape: without_gradient(lambda x: function.reduce(x, axis=_axes(params)))


def _arg(function: Any) -> Maker:
    def make(params: dict[str, Any], shape: Any) -> Rule:
        (axis,) = _axes(params)
        return without_gradient(lambda x: function(x, axis).astype(params["index_dtype"]))

    return make


# Cumulative sums, products and extremes.


def _log_add(a: Any, b: Any) -> Any:
    return np.logaddexp(a, b)


def _log_add_back(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    same = a == b  # includes both being minus infinity
    return tuple(g * np.where(same, 0.5, np.exp(x - y)) for x in (a, b))  # type: ignore[return-value]


def _running(combine: Rule, x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """A cumulative reduction along the first axis, and the function for its gradient.

    Pairs are combined, then pairs of pairs, as in ``jax.lax.associative_scan``: how tied values in a cumulative maximum
    share its gradient depends on the order of comparison.
    """
    if len(x) < 2:
        return x, lambda g: g
    first, second, rest = x[:-1:2], x[1::2], x[2::2]
    pairs = combine[0](first, second)
    odd, odd_back = _running(combine, pairs)
    left = odd[: len(rest)]
    even = combine[0](left, rest)
    y = np.empty_like(x)
    y[0], y[1::2], y[2::2] = x[0], odd, even

    def back(g: Any) -> Any:
        gradient = np.zeros(x.shape, g.dtype)
        to_left, to_rest = combine[1](g[2::2], even, left, rest)
        to_odd = g[1::2].copy()
        to_odd[: len(rest)] += to_left
        gradient[0] = g[0]
        gradient[2::2] += to_rest
        to_first, to_second = combine[1](odd_back(to_odd), pairs, first, second)
        gradient[:-1:2] += to_first
        gradient[1::2] += to_second
        return gradient

    return y, back


def _cumulative(combine: Rule) -> Maker:
    def make(params: dict[str, Any], shape: Any) -> Rule:
        axis, reverse = params["axis"], params["reverse"]

        def along_first(x: Any) -> Any:
            moved = np.moveaxis(x, axis, 0)
            return moved[::-1] if reverse else moved

        def along_axis(x: Any) -> Any:
            return np.moveaxis(x[::-1] if reverse else x, 0, axis)

        def value(x: Any) -> Any:
            return along_axis(_running(combine, along_first(x))[0])

        def back(g: Any, y: Any, x: Any) -> tuple[Any]:
            return (along_axis(_running(combine, along_first(x))[1](along_first(g))),)

        return value, back

    return make


# Sliding windows.


def _sliding(params: dict[str, Any], fill: Any, x: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The input seen by each window sample, one array per sample, and the function for their gradients."""
    config = [(*pair, base - 1) for pair, base in zip(params["padding"], params["base_dilation"], strict=True)]
    full, full_back = padded(x, fill, config)
    sizes = params["window_dimensions"], params["window_strides"], params["window_dilation"]
    _, seen = sampled(full.shape, *sizes)

    def back(gradients: list[Any]) -> Any:
        total = np.zeros(full.shape)
        for place, g in zip(seen, gradients, strict=True):
            total[place] += g
        return full_back(total)

    return [full[place] for place in seen], back


def _window_sum(params: dict[str, Any], shape: Any) -> Rule:
    def value(x: Any) -> Any:
        return np.sum(_sliding(params, 0, x)[0], 0, dtype=x.dtype)

    def back(g: Any, y: Any, x: Any) -> tuple[Any]:
        samples, back = _sliding(params, 0, x)
        return (back([g] * len(samples)),)

    return value, back


def _window_extreme(arg: Any, worst: Callable[[Any], Any]) -> Maker:
    """The first of tied values gets the whole gradient."""

    def make(params: dict[str, Any], shape: Any) -> Rule:
        def best(x: Any) -> tuple[Any, Any, Any]:
            samples, back = _sliding(params, worst(x.dtype), x)
            stacked = np.stack(samples)
            return stacked, arg(stacked, 0), back

        def value(x: Any) -> Any:
            stacked, which, _ = best(x)
            return np.take_along_axis(stacked, which[None], 0)[0]

        def back(g: Any, y: Any, x: Any) -> tuple[Any]:
            stacked, which, back = best(x)
            return (back([g * (which == i) for i in range(len(stacked))]),)

        return value, back

    return make


# Sorting.


def _sort(params: dict[str, Any], *shapes: Any) -> Rule:
    axis, keys = params["dimension"], params["num_keys"]

    def order(xs: Any) -> Any:
        return np.lexsort(xs[keys - 1 :: -1], axis)  # lexsort takes the primary key last

    def value(*xs: Any) -> Any:
        found = order(xs)
        return [np.take_along_axis(x, found, axis) for x in xs]

    def back(gs: Any, ys: Any, *xs: Any) -> tuple[Any, ...]:
        home = np.argsort(order(xs), axis)
        return tuple(np.take_along_axis(g, home, axis) for g in gs)

    return value, back


def _top_k(params: dict[str, Any], shape: Any) -> Rule:
    k, axis = params["k"], params.get("axis", len(shape) - 1) % max(len(shape), 1)

    def places(x: Any) -> Any:
        # descending; ties keep their original order
        backward = np.argsort(np.flip(x, axis), axis, kind="stable")
        return np.take(np.flip(shape[axis] - 1 - backward, axis), np.arange(k), axis)

    def value(x: Any) -> Any:
        found = places(x)
        return [np.take_along_axis(x, found, axis), found.astype(np.int32)]

    def back(gs: Any, ys: Any, x: Any) -> tuple[Any]:
        gradient = np.zeros(shape, gs[0].dtype)
        np.put_along_axis(gradient, places(x), gs[0], axis)
        return (gradient,)

    return value, back


MAKERS: dict[str, Maker] = {
    "reduce_sum": _reduce_sum,
    "reduce_prod": _reduce_prod,
    "reduce_max": _reduce_extreme(np.maximum, _lowest),
    "reduce_min": _reduce_extreme(np.minimum, _highest),
    "reduce_and": _reduce_bits(np.bitwise_and),
    "reduce_or": _reduce_bits(np.bitwise_or),
    "reduce_xor": _reduce_bits(np.bitwise_xor),
    "argmax": _arg(np.argmax),
    "argmin": _arg(np.argmin),
    "cumsum": _cumulative(ELEMENTWISE["add"]),
    "cumprod": _cumulative(ELEMENTWISE["mul"]),
    "cummax": _cumulative(ELEMENTWISE["max"]),
    "cummin": _cumulative(ELEMENTWISE["min"]),
    "cumlogsumexp": _cumulative((_log_add, _log_add_back)),
    "reduce_window_sum": _window_sum,
    "reduce_window_max": _window_extreme(np.argmax, _lowest),
    "reduce_window_min": _window_extreme(np.argmin, _highest),
    "sort": _sort,
    "top_k": _top_k,
}
