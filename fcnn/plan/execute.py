"""Execution of a step of a plan: a layer in a layout other than the usual one."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .. import authoring
from ..checks import check_entries, checked_shapes
from ..identity import nearest
from ..layers.conv import Conv
from ..layers.pool import AvgPool, MaxPool
from ..ops.conv import conv_hwnc, conv_polyphase
from ..ops.dtypes import plus
from ..ops.pool import max_of_polyphase
from ..types import Params, State
from .value import BATCH_FIRST, HWNC, POLYPHASE, Plan, Step


def execute(
    step: Step, layer: Any, context: Any, params: Params, state: State, inputs: tuple[Any, ...]
) -> tuple[Any, State]:
    """Run a layer by its step; the observer sees its output in the usual layout."""
    (x,) = inputs
    if step.layout == POLYPHASE:
        y, new_state = _polyphase(step, layer, context, params, state, x)
        return y, new_state
    if step.layout == BATCH_FIRST:
        y, new_state = layer.run(dataclasses.replace(context, observer=None), params, state, inputs)
        return to_hwnc(context.seen(layer, inputs, y)), new_state
    if step.enter:
        x = to_hwnc(x)
    y, new_state = _hwnc(step, layer, context, params, state, x)
    if context.observer is not None:
        seen = context.seen(layer, (to_batch_first(x),), to_batch_first(y))
        return (seen if step.leave else to_hwnc(seen)), new_state
    return (to_batch_first(y) if step.leave else y), new_state


def watch(
    plan: Plan, layer: Any, context: Any, params: Params, state: State, inputs: tuple[Any, ...]
) -> tuple[Any, State]:
    """Run a composition, or a layer without a step; the observer sees arrays in the usual layout."""
    given, made = dict(plan.inputs).get(context.planned), dict(plan.outputs).get(context.planned)
    usual = inputs
    if given is not None:
        usual = (to_batch_first(inputs[0]) if given == HWNC else context.shadow[given][0],)
    y, new_state = layer.run(context, params, state, inputs)
    if made is None:
        return context.seen(layer, usual, y), new_state
    if made == HWNC:
        return to_hwnc(context.seen(layer, usual, to_batch_first(y))), new_state
    plain, replaced = context.shadow[made]
    seen = context.seen(layer, usual, plain)
    if replaced or seen is not plain:
        context.shadow[made] = seen, True
        return seen, new_state
    return y, new_state


def to_hwnc(x: jax.Array) -> jax.Array:
    """(batch, *space, channels) to (*space, batch, channels)."""
    return jnp.moveaxis(x, 0, -2)


def to_batch_first(y: jax.Array) -> jax.Array:
    """(*space, batch, channels) to (batch, *space, channels)."""
    return jnp.moveaxis(y, -2, 0)


def _check(step: Step, layer: Any, params: Params, state: State, x: Any, batch: int) -> None:
    """The checks of a layer's own ``run``, on the shape of x in the usual layout."""
    usual = jax.ShapeDtypeStruct((batch, *step.shapes[0]), x.dtype)
    shapes = checked_shapes((usual,), layer.inputs, layer.floating)
    layer.check_given(params, (usual,))
    check_entries("params", params, authoring.declared(layer, "parameters", shapes), shapes)
    check_entries("state", state, authoring.declared(layer, "statistics", shapes), shapes)


def _options(conv: Any) -> dict[str, Any]:
    return {"groups": conv.groups, "stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}


def _hwnc(step: Step, layer: Any, context: Any, params: Params, state: State, x: Any) -> tuple[Any, State]:
    if nearest(layer, (Conv,)):
        _check(step, layer, params, state, x, x.shape[-2])
        return conv_hwnc(x, params["kernel"], params.get("bias"), **_options(layer)), state
    if nearest(layer, (MaxPool, AvgPool)):
        _check(step, layer, params, state, x, x.shape[-2])
        # pooling treats examples and channels alike, so both are merged into channels
        *space, batch, channels = x.shape
        y = layer.forward(params, x.reshape(1, *space, batch * channels))
        return y.reshape(*y.shape[1:-1], batch, channels), state
    # elementwise functions, and norms over all axes but the last: the order of the other axes does not matter
    return layer.run(dataclasses.replace(context, observer=None), params, state, (x,))


def _polyphase(step: Step, layer: Any, context: Any, params: Params, state: State, x: Any) -> tuple[Any, State]:
    """A layer of a run in the polyphase layout.

    With an observer, the layers are also computed separately, in the usual layout, for the observer to see; if it
    replaces an output, the run continues from the replacement.
    """
    plain = None
    if context.observer is not None:
        apart = dataclasses.replace(context, observer=None)
        source, replaced = (x, False) if step.phases else context.shadow.pop(step.run)
        plain, _ = layer.run(apart, params, state, (source,))
        seen = context.seen(layer, (source,), plain)
        replaced = replaced or seen is not plain
        plain = seen
        if replaced:
            context.shadow[step.run] = plain, True
            last = nearest(layer, (MaxPool,))
            return (to_hwnc(plain) if last and not step.leave else plain), state
        context.shadow[step.run] = plain, False
    return _polyphase_part(step, layer, context, params, state, x), state


def _polyphase_part(step: Step, layer: Any, context: Any, params: Params, state: State, x: Any) -> Any:
    if step.phases:
        _check(step, layer, params, state, x, x.shape[0])
        kernel, bias = params["kernel"], params.get("bias")
        if not step.early:
            return conv_polyphase(x, kernel, bias, step.phases, **_options(layer))
        largest = conv_polyphase(x, kernel, None, step.phases, **_options(layer))
        return plus(max_of_polyphase(largest, hwnc=not step.leave), bias)
    if not nearest(layer, (MaxPool,)):  # an elementwise function
        return layer.run(dataclasses.replace(context, observer=None), params, state, (x,))[0]
    check_entries("params", params, {}, step.shapes)
    check_entries("state", state, {}, step.shapes)
    # ReLU and adding a bias are monotonic, so they commute with the maximum
    return x if step.early else max_of_polyphase(x, hwnc=not step.leave)
