"""Steps that a layer or a function of the library is in one: biases, SiLU, exact GELU, hard swish."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import names
from ...layers import Conv, ConvTranspose, Dense, LayerNorm, ScaleChannels
from . import functions
from .learned import Combine
from .response import number_of, response_norm
from .values import Step


def simplified(steps: list[Step], outputs: tuple[int, ...]) -> list[Step]:
    """The steps, of which some are functions that their inputs do not need any more.

    Steps keep their numbers; those that nothing uses any more are left for the caller to drop.
    """
    steps = list(steps)
    uses = Counter(n for step in steps for n in set(step.inputs)) + Counter(outputs)
    for number in range(len(steps)):
        for rule in (_bias, _scale, _layer_norm, response_norm, _silu, _gelu, _hard_swish):
            made = rule(steps, number, uses)
            if made is not None:
                steps[number] = made
                break
    return steps


def _bias(steps: list[Step], number: int, uses: Counter[int]) -> Step | None:
    """A weight for each channel that is added to a layer without a bias."""
    step = steps[number]
    if not (isinstance(step.layer, Combine) and step.layer.operation is jnp.add):
        return None
    source = step.inputs[0]
    before = steps[source] if source >= 0 else None
    if before is None or uses[source] != 1:
        return None
    layer: Any = before.layer
    if type(layer) in (Conv, ConvTranspose, Dense):
        fits = step.layer.shape == (layer.features,)
    else:
        fits = (
            (_channel_norm(layer) or type(layer) is ScaleChannels)
            and len(step.layer.shape) == 1
            and step.layer.shape == before.example[-1:]
        )
    if not fits or layer.bias:
        return None
    return _taken(before, replace(layer, bias=True), "bias", step, "weight")


def _scale(steps: list[Step], number: int, uses: Counter[int]) -> Step | None:
    """A factor for each channel after a layer norm that has none."""
    step = steps[number]
    if type(step.layer) is not ScaleChannels:
        return None
    source = step.inputs[0]
    before = steps[source] if source >= 0 else None
    if before is None or uses[source] != 1 or not _channel_norm(before.layer):
        return None
    layer: Any = before.layer
    if layer.scale or layer.bias:
        return None
    return _taken(before, replace(layer, scale=True), "scale", step, "scale")


def _channel_norm(layer: Any) -> bool:
    return type(layer) is LayerNorm and layer.axes == -1


def _taken(before: Step, layer: Any, name: str, step: Step, entry: str) -> Step:
    """A layer that takes a weight of the step after it."""
    complete = (before.weights or not before.params) and step.weights
    weights = (*before.weights, *step.weights) if complete else ()
    params = {**before.params, name: step.params[entry]}
    return replace(before, layer=layer, params=params, weights=weights)


def _layer_norm(steps: list[Step], number: int, uses: Counter[int]) -> Step | None:
    r""":math:`(x - m) / \sqrt{v + \epsilon}`, as it is written where a file has no node for it."""
    step = steps[number]
    if step.layer is not functions.divide or len(step.inputs) != 2 or min(step.inputs) < 0:
        return None
    centred, root = (steps[n] for n in step.inputs)
    if centred.layer is not jnp.subtract or root.layer is not jnp.sqrt or min(centred.inputs[1], *root.inputs) < 0:
        return None
    shifted = steps[root.inputs[0]]
    epsilon = number_of(shifted, jnp.add)
    mean = _mean(steps[centred.inputs[1]])
    if epsilon is None or mean is None or shifted.inputs[0] < 0:
        return None
    spread = steps[shifted.inputs[0]]
    if _mean(spread) != mean or steps[centred.inputs[1]].inputs != centred.inputs[:1] or spread.inputs[0] < 0:
        return None
    square = steps[spread.inputs[0]]
    squared = square.layer is jnp.square or (square.layer is jnp.multiply and len(square.inputs) == 2)
    if not squared or set(square.inputs) != {step.inputs[0]}:
        return None
    axes, rank = mean
    if all(step.example[axis - 1] == 1 for axis in axes):  # the layer refuses to normalise one number
        return None
    layer = LayerNorm(axes=-1 if axes == (rank - 1,) else axes, epsilon=epsilon, scale=False, bias=False)
    return Step(step.label, layer.label, step.path, layer, centred.inputs[:1], example=step.example)


def _mean(step: Step) -> tuple[tuple[int, ...], int] | None:
    """The axes of a mean that keeps them, and the number of axes."""
    function = step.layer
    if not isinstance(function, functools.partial) or function.func is not functions.reduce:
        return None
    options = function.keywords
    return (options["axes"], len(step.example) + 1) if options["kind"] == "mean" and options["keep"] else None


def _silu(steps: list[Step], number: int, uses: Counter[int]) -> Step | None:
    """A value times its sigmoid."""
    step = steps[number]
    if step.layer is not jnp.multiply or len(step.inputs) != 2:
        return None
    for x, gate in (step.inputs, step.inputs[::-1]):
        if gate < 0 or steps[gate].inputs != (x,):
            continue
        if steps[gate].layer is jax.nn.sigmoid:
            return _function(step, jax.nn.silu, (x,))
        if steps[gate].layer is jax.nn.hard_sigmoid:
            return _function(step, jax.nn.hard_silu, (x,))
    return None


def _hard_swish(steps: list[Step], number: int, uses: Counter[int]) -> Step | None:
    """The product x relu6(x + 3) / 6, and its second factor."""
    step = steps[number]
    if len(step.inputs) == 1 and _scaled(step) in (1 / 6, 6.0):
        (source,) = step.inputs
        inner = steps[source] if source >= 0 else None
        if inner is not None and inner.layer is jax.nn.relu6 and inner.inputs[0] >= 0:
            shifted = steps[inner.inputs[0]]
            if number_of(shifted, jnp.add) == 3.0:
                return _function(step, jax.nn.hard_sigmoid, shifted.inputs)
        if inner is not None and inner.layer is jnp.multiply and len(inner.inputs) == 2:
            for x, gate in (inner.inputs, inner.inputs[::-1]):
                if gate < 0 or steps[gate].layer is not jax.nn.relu6 or steps[gate].inputs[0] < 0:
                    continue
                shifted = steps[steps[gate].inputs[0]]
                if number_of(shifted, jnp.add) == 3.0 and shifted.inputs == (x,):
                    return _function(step, jax.nn.hard_silu, (x,))
    return None


def _scaled(step: Step) -> float | None:
    """The number that a step divides by, or one over what it multiplies by."""
    by = number_of(step, functions.divide)
    if by is not None:
        return by
    times = number_of(step, jnp.multiply)
    return 6.0 if times is not None and abs(times - 1 / 6) < 1e-7 else None


def _gelu(steps: list[Step], number: int, uses: Counter[int]) -> Step | None:
    r""":math:`\tfrac12 x (1 + \mathrm{erf}(x / \sqrt 2))`, in the orders that exporters write."""
    step = steps[number]
    whole = _product(steps, number)
    if whole is None:
        return None
    factor, sources = whole
    if abs(factor - 0.5) > 1e-7 or len(sources) != 2:
        return None
    for x, gate in (sources, sources[::-1]):
        if gate < 0 or number_of(steps[gate], jnp.add) != 1.0:
            continue
        (source,) = steps[gate].inputs
        if source < 0 or steps[source].layer is not jax.scipy.special.erf or steps[source].inputs[0] < 0:
            continue
        inner = steps[steps[source].inputs[0]]
        by, times = number_of(inner, functions.divide), number_of(inner, jnp.multiply)
        scale = times if times is not None else 1 / by if by else None
        if scale is not None and abs(scale - np.sqrt(0.5)) < 1e-6 and inner.inputs == (x,):
            return _function(step, functools.partial(jax.nn.gelu, approximate=False), (x,))
    return None


def _product(steps: list[Step], number: int) -> tuple[float, tuple[int, ...]] | None:
    """A product as a number and the two values that are multiplied."""
    factor, left, sources = 1.0, [number], []
    while left:
        here = left.pop()
        step = steps[here] if here >= 0 else None
        times = None if step is None else number_of(step, jnp.multiply)
        if step is not None and times is not None:
            factor *= times
            left += step.inputs
        elif step is not None and step.layer is jnp.multiply and len(sources) + len(left) < 2:
            left += step.inputs
        else:
            sources.append(here)
    return (factor, (sources[0], sources[1])) if len(sources) == 2 else None


def _function(step: Step, function: Any, inputs: tuple[int, ...]) -> Step:
    kind = names.snake(names.short(function))
    return Step(step.label, kind, step.path, function, inputs, example=step.example)
