"""Shapes and dtypes of the results of ``init`` and ``init_state``, without drawing random numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..geometry import Shape
from ..identity import cached
from ..initialization import without_values


def structure(net: Any, shapes: tuple[Shape, ...]) -> tuple[Any, Any]:
    """Params and state of a network as trees of ``jax.ShapeDtypeStruct``.

    Args:
        net: the network.
        shapes: shape of one example of each input.

    Raises:
        ValueError: the shapes do not suit the network.

    Example:
        >>> params, state = structure(fcnn.serial(fcnn.Conv(4, 3), fcnn.BatchNorm()), ((8, 8, 3),))
        >>> params["conv1"]["kernel"].shape, state["batch_norm1"]["mean"].shape
        ((3, 3, 3, 4), (4,))
    """
    return _structure(net, shapes, jnp.zeros(()).dtype.name)


@cached(maxsize=256)
def _structure(net: Any, shapes: tuple[Shape, ...], dtype: str) -> tuple[Any, Any]:
    """Cached separately for each default dtype of JAX."""

    def made(kind: str, key: Any) -> Any:
        with without_values(kind):
            return net.init_part(key, shapes), net.state_part(shapes)

    try:
        return made("structs", None)
    except Exception:  # a layer may compute with its parts' parameters and need arrays; other errors recur
        return jax.eval_shape(lambda: made("zeros", jax.random.key(0)))
