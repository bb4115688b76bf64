"""How much work a scan takes by patches and by layers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp

from ..compose.remat import Remat
from ..compose.repeat import Repeat
from ..context import Kept, Observed
from ..errors import shown
from ..geometry import Shape
from ..layer import Context, Layer
from ..layers import Conv, ConvTranspose, Dense, LocallyConnected
from .fields import AtPositions, Wrapped


@dataclass(frozen=True)
class ScanReport:
    """What ``Scan.report`` returns; prints as a table.

    Attributes:
        positions: windows along each axis.
        fragments: interleaved fragments along each axis that strides inside the window leave at the end.
        by_patches: multiply-adds for one input, every window by itself.
        by_layers: multiply-adds for one input where windows share their work.
    """

    positions: Shape
    fragments: Shape
    by_patches: int
    by_layers: int

    @property
    def ratio(self) -> float:
        """How many times fewer multiply-adds the layers take."""
        return self.by_patches / self.by_layers if self.by_layers else float("nan")

    def __str__(self) -> str:
        rows = (
            ("positions", f"{shown(self.positions)}, {prod(self.positions):,} in all"),
            ("fragments", f"{shown(self.fragments)}, {prod(self.fragments):,} in all"),
            ("multiply-adds by patches", f"{self.by_patches:,}"),
            ("multiply-adds by layers", f"{self.by_layers:,}"),
            ("ratio", f"{self.ratio:,.1f}"),
        )
        return "\n".join(f"{name:<26}{text}" for name, text in rows)

    __repr__ = __str__


def multiply_adds(net: Layer, shape: Shape) -> int:
    """Multiplications by weights, each with an addition, that a network takes for one example.

    Convolutions, transposed convolutions, dense and locally connected layers count; nothing is computed.

    Args:
        net: the network.
        shape: shape of one example.

    Example:
        >>> import fcnn
        >>> multiply_adds(fcnn.serial(fcnn.Conv(6, 5), fcnn.Flatten(), fcnn.Dense(10)), (28, 28, 1))
        120960
    """
    context = Context(train=False, observer=lambda seen: Observed(kept=seen.inputs))
    params = jax.eval_shape(lambda: net.init_part(jax.random.key(0), (shape,)))
    state = jax.eval_shape(lambda: net.state_part((shape,)))
    x = jax.ShapeDtypeStruct((1, *shape), jnp.zeros(()).dtype)
    jax.eval_shape(lambda params, state, x: net.start_walk(context, params, state, (x,)), params, state, x)
    return sum(map(_of, context.kept))


def _of(use: Kept) -> int:
    first = len(use.copies)
    # the network is given one example, so that there are more where windows are its batch
    examples, *seen = use.value[0].shape[first:]
    return prod(use.copies) * examples * _times(use.layer, tuple(seen))


def _times(layer: Layer, seen: Shape) -> int:
    """The multiply-adds of a layer for one example; none for a composition, whose parts have events of their own."""
    from .layer import Scan  # which asks for reports itself

    if isinstance(layer, Repeat):
        return layer.n * _times(layer.layer, seen)
    if isinstance(layer, AtPositions):
        return prod(layer.keep) * _times(layer.layer, layer.local)
    if isinstance(layer, Wrapped):
        return _times(layer.layer, layer.inside(seen))
    if isinstance(layer, Remat):
        return _times(layer.layer, seen)
    if isinstance(layer, Scan) and layer.method == "patches":
        lattice, window = layer.placed(seen)
        return prod(lattice.positions) * _times(layer.net, window)
    if isinstance(layer, Scan):
        return _times(layer.rewritten(seen).net, seen)
    if not isinstance(layer, (Conv, ConvTranspose, Dense, LocallyConnected)):
        return 0
    kernel = prod(layer.parameters(seen)["kernel"].shape)
    if isinstance(layer, LocallyConnected):
        return kernel
    places = seen if isinstance(layer, ConvTranspose) else layer.infer_shape(seen)
    return prod(places[:-1]) * kernel
