"""Local response normalisation as PyTorch's exporters write it, step by step."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...layer import Layer
from ...layers import AvgPool, LocalResponseNorm, Pad
from . import functions, movements
from .values import Step

#: steps that may lie between, which move numbers
_MOVES = (movements.reshape, movements.permute, movements.negative_pad)


def response_norm(steps: list[Step], number: int, uses: Counter[int]) -> Step | None:
    r""":math:`x / (k + \alpha m)^\beta`, where m is the mean square of neighbouring channels.

    The steps between are many and their order differs, so that the layer is taken if it gives what they give.
    """
    step = steps[number]
    if step.layer is not functions.divide or len(step.inputs) != 2 or min(step.inputs) < 0:
        return None
    x, last = step.inputs
    chain = _back_to_square(steps, last, x)
    if chain is None:
        return None
    told = [steps[n] for n in chain if not _moves(steps[n])]
    if len(told) != 4:
        return None
    exponent, shift, factor, pool = told
    beta, k, alpha = _exponent(exponent), number_of(shift, jnp.add), number_of(factor, jnp.multiply)
    if beta is None or k is None or alpha is None or not isinstance(pool.layer, AvgPool):
        return None
    size = int(np.max(pool.layer.window))
    if size % 2 == 0:
        return None
    layer = LocalResponseNorm(size=size, alpha=alpha / size, beta=beta, k=k)
    if not _agrees(layer, steps, chain[::-1], x, number):
        return None
    return Step(step.label, layer.label, step.path, layer, (x,), example=step.example)


def _back_to_square(steps: list[Step], last: int, x: int) -> list[int] | None:
    """The steps from a step back to the square of x, which is left out."""
    chain, here = [], last
    while here >= 0 and len(steps[here].inputs) == 1 and len(chain) < 16:
        if steps[here].layer is jnp.square:
            return chain if steps[here].inputs == (x,) else None
        chain.append(here)
        (here,) = steps[here].inputs
    if here < 0 or steps[here].layer is not jnp.multiply:
        return None
    return chain if steps[here].inputs == (x, x) else None


def _moves(step: Step) -> bool:
    function = step.layer
    return isinstance(function, Pad) or (isinstance(function, functools.partial) and function.func in _MOVES)


def _exponent(step: Step) -> float | None:
    function = step.layer
    if function is jnp.sqrt:
        return 0.5
    if isinstance(function, functools.partial) and function.func is functions.power:
        return function.keywords["exponent"]
    return None


def _agrees(layer: Layer, steps: list[Step], chain: list[int], x: int, number: int) -> bool:
    """Whether a layer gives what the steps give, on random numbers."""
    given = jnp.asarray(np.random.default_rng(0).normal(size=(2, *steps[number].example)), jnp.zeros(()).dtype)
    here: Any = jnp.square(given)
    for place in chain:
        made = steps[place].layer
        here = made.apply({}, here) if isinstance(made, Layer) else made(here)
    wanted = functions.divide(given, here)
    return bool(jnp.allclose(layer.apply({}, given), wanted, rtol=1e-5, atol=1e-6))


def number_of(step: Step, operation: Any) -> float | None:
    """The number that a step combines its input with by an operation."""
    function = step.layer
    if not isinstance(function, functools.partial) or function.func is not functions.apply_with:
        return None
    options = function.keywords
    if options["operation"] is not operation or (options.get("first") and operation is functions.divide):
        return None
    return float(options["value"]) if isinstance(options["value"], int | float) else None
