"""A forward pass in which a function sees the output of every layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from ..checks import check_key
from ..context import LayerOutput, Observed, Observer
from ..errors import format_shape, layer_path, outermost_path
from ..layer import Context, Layer
from ..types import Params, State


class Observation(NamedTuple):
    """The result of :func:`observe`.

    Attributes:
        output: the output of the network.
        kept: the values kept by the observer, by path, in the order of computation.
        state: in training the new state, otherwise the given one.
    """

    output: Any
    kept: dict[str, Any]
    state: State


def observe(
    net: Layer,
    params: Params,
    x: jax.Array,
    *more: jax.Array,
    observer: Observer,
    state: State | None = None,
    key: jax.Array | None = None,
) -> Observation:
    """Apply a network, and let a function read, keep and replace the output of every layer.

    The observer gets a :class:`fcnn.context.LayerOutput`: ``path``, ``layer``, ``inputs``, ``output`` and, inside
    ``repeat``, ``indices``. It returns None, or ``Observed(kept=..., output=...)``: a tree of arrays to keep, and an
    array that replaces the output in the rest of the computation. It is called once for each use of each layer and
    composition, when the network is traced; inside a ``repeat`` once for all copies.

    Args:
        net: the network.
        params: its parameters.
        x: input (batch, *space, channels).
        more: further inputs.
        observer: the function.
        state: its state, if it has one.
        key: random key; with a key the network runs in training mode, without one in inference mode.

    Returns:
        The output, the kept values by path, and the state. The second use of a shared layer has the path ``"name#2"``;
        values kept inside a ``repeat`` have a first axis for the copies. The function is pure if the observer is.

    Raises:
        ValueError: as for ``net.apply``; also if a replacement's shape differs from that of the output.
        TypeError: if the observer is not a function, or returns anything but ``Observed`` or None.

    Example:
        >>> import fcnn, jax.numpy as jnp
        >>> from fcnn.analysis import Observed, observe
        >>> net = fcnn.serial(fcnn.Conv(6, 5), jax.nn.relu, fcnn.MaxPool(2))
        >>> params, x = net.init(jax.random.key(0), (28, 28, 1)), jnp.ones((1, 28, 28, 1))
        >>> def share_of_zeros(seen):
        ...     if seen.layer == fcnn.Conv(6, 5):
        ...         return Observed(output=-jnp.abs(seen.output))
        ...     return Observed(kept=(seen.output == 0).mean())
        >>> found = observe(net, params, x, observer=share_of_zeros)
        >>> {path: float(value) for path, value in found.kept.items()}, found.output.shape
        ({'relu1': 1.0, 'max_pool1': 1.0}, (1, 12, 12, 6))
    """
    with layer_path("observe"):
        if not callable(observer):
            raise TypeError(
                f"observer must be a function of one fcnn.context.LayerOutput, not {observer!r}; "
                "to keep every output use fcnn.capture"
            )

    def checked(seen: LayerOutput) -> Observed | None:
        answer = observer(seen)
        if answer is not None:
            _check(answer, seen)
        return answer

    with outermost_path(net.label):
        root = None if key is None else check_key(key)
    context = Context(train=key is not None, root=root, observer=checked)
    output, new_state = net.start_walk(context, params, state, (x, *more))
    kept = {each.path or net.label: each.value for each in context.kept if each.value is not None}
    return Observation(output, kept, new_state)


def _check(answer: Any, seen: LayerOutput) -> None:
    if not isinstance(answer, Observed):
        raise TypeError(
            f"observer returned a {type(answer).__name__} for {seen.path or seen.layer.label}; it must return "
            "fcnn.analysis.Observed(kept=..., output=...) or None"
        )
    if answer.output is None:
        return
    given, made = (jax.tree.map(lambda a: tuple(a.shape), tree) for tree in (answer.output, seen.output))
    if given != made:
        raise ValueError(
            f"observer replaced the output of {seen.path or seen.layer.label} by {_shapes(given)}; the output is "
            f"{_shapes(made)}, and its replacement must have its shape"
        )


def _shapes(shapes: Any) -> str:
    return (
        format_shape(shapes) if isinstance(shapes, tuple) and all(isinstance(n, int) for n in shapes) else str(shapes)
    )
