"""The activations of every part of a network."""

from __future__ import annotations

from typing import Any

import jax

from ..context import Observed
from ..layer import Layer
from ..types import Params, State
from .observe import observe


def capture(net: Layer, params: Params, x: jax.Array, *more: jax.Array, state: State | None = None) -> dict[str, Any]:
    """Apply a network and keep the output of every part.

    Args:
        net: the network.
        params: its parameters.
        x: input (batch, *space, channels).
        more: further inputs.
        state: its state, if it has one.

    Returns:
        A dict from path, such as ``"residual1/body/conv2"``, to the output there, in the order of computation.
        The second use of a shared layer has the path ``"name#2"``. For parts inside a ``repeat``, the first axis
        indexes the copies. The function is pure: it can be jitted and differentiated.

    Raises:
        ValueError: as for ``net.apply``.

    Example:
        >>> import fcnn, jax.numpy as jnp
        >>> net = fcnn.serial(fcnn.Conv(6, 5), jax.nn.relu, fcnn.MaxPool(2))
        >>> params = net.init(jax.random.key(0), (28, 28, 1))
        >>> {path: y.shape for path, y in capture(net, params, jnp.ones((1, 28, 28, 1))).items()}
        {'conv1': (1, 24, 24, 6), 'relu1': (1, 24, 24, 6), 'max_pool1': (1, 12, 12, 6)}
    """
    return observe(net, params, x, *more, observer=lambda seen: Observed(kept=seen.output), state=state).kept
