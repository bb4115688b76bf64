"""Fragments in chunks: the layers after the last stride process few of them at a time.

All fragments are examples of one batch, and the activations of a layer with many features exceed the processor's
caches by far. Fragments that are large on their own go through the rest of the network one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from math import prod
from typing import Any

import jax
from jax import lax

from ..compose.serial import Serial
from ..layer import Context, Layer
from ..ops.dtypes import wide
from ..types import Params, State
from .fields import Fragmented

#: the most spatial positions that go through the network together, summed over the fragments
TOGETHER = 2**14


def run_chunked(net: Layer, context: Context, params: Params, state: State, x: jax.Array) -> Any:
    r"""Run a rewritten network at inference, chunk by chunk; the result equals that of running it at once.

    Args:
        net: the network.
        context: the pass through it.
        params: its parameters.
        state: its state.
        x: the image, (batch, \*space, channels).

    Returns:
        The network's output.
    """
    parts = net.parts if isinstance(net, Serial) else ()
    last = max((i for i, (_, part) in enumerate(parts) if any(layers(part, Fragmented))), default=len(parts)) + 1
    if last >= len(parts):
        return net.run(context, params, state, (x,))[0]
    head, tail = Serial(parts[:last]), Serial(parts[last:])
    y, _ = head.run(context, _own(head, params), _own(head, state), (x,))
    total, size = y.shape[0], prod(y.shape[1:-1])
    chunk = max(n for n in range(1, total + 1) if total % n == 0 and (n == 1 or n * size <= TOGETHER))
    params, state = _own(tail, params), _own(tail, state)
    if chunk == total:
        return tail.run(context, params, state, (y,))[0]
    # gradients of the params are summed over the fragments: half precision is accumulated in a wider dtype
    sums = jax.tree.map(lambda a: a.astype(wide(a.dtype)), params)

    def step(some: jax.Array) -> Any:
        own = jax.tree.map(lambda a, p: a.astype(p.dtype), sums, params)
        return tail.run(context, own, state, (some,))[0]

    made = lax.map(step, y.reshape(total // chunk, chunk, *y.shape[1:]))
    return jax.tree.map(lambda leaf: leaf.reshape(total, *leaf.shape[2:]), made)


def _own(net: Serial, tree: Any) -> Any:
    """The entries of the parts of a network."""
    return {name: tree[name] for name, _ in net.parts if name in tree}


def layers(layer: Any, kind: type[Layer]) -> Iterator[Any]:
    """Every layer of a kind in a network, from the outside in."""
    if isinstance(layer, kind):
        yield layer
    inside = [getattr(layer, f.name) for f in fields(layer)] if isinstance(layer, Layer) else layer  # type: ignore[arg-type]
    for value in inside:
        if isinstance(value, (Layer, tuple)):
            yield from layers(value, kind)
