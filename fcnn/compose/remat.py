"""A layer whose inner values are computed again in the backward pass instead of being kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import numpy as np

from .. import names
from ..errors import at
from ..geometry import Shape
from ..given import Params, State
from ..layer import Call, Event, Layer
from .cutting import Parted, inside
from .parts import Parts, lift


@dataclass(frozen=True, repr=False)
class Remat(Parted, Layer):
    """What :func:`remat` returns."""

    layer: Layer
    _: KW_ONLY
    policy: Callable[..., Any] | None = None

    def named_parts(self) -> Parts:
        if not isinstance(self.layer, Parted):
            raise TypeError(f"{self.label} has no parts")
        return self.layer.named_parts()

    @property
    def parts(self) -> Parts:
        """The parts of the layer by name."""
        return self.named_parts()

    def sliced(self, places: slice) -> Remat:
        return dataclasses.replace(self, layer=inside(self.layer, places))

    @property
    def inputs(self) -> int | None:  # type: ignore[override]
        return self.layer.inputs

    @property
    def floating(self) -> bool:  # type: ignore[override]
        return self.layer.floating

    @property
    def label(self) -> str:
        return self.layer.label  # so that a chain names it, and draws for it, as it would without

    def accept_shapes(self, shapes: tuple[Any, ...]) -> tuple[Shape, ...]:
        return self.layer.accept_shapes(shapes)

    def infer_shape(self, *shapes: Shape) -> Any:
        return self.layer.infer_shape(*shapes)

    def slides(self, shapes: tuple[Shape, ...]) -> bool:
        return self.layer.slides(shapes)

    def init_part(self, key: jax.Array, shapes: tuple[Shape, ...]) -> Params:
        return self.layer.init_part(key, shapes)

    def state_part(self, shapes: tuple[Shape, ...]) -> State:
        return self.layer.state_part(shapes)

    def run(self, call: Call, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        leaves, tree = jax.tree.flatten((params, state, inputs))
        # what is no array goes past the checkpoint, for the layer's own checks to find
        arrays = [leaf if isinstance(leaf, (jax.Array, np.ndarray)) else None for leaf in leaves]
        noted: list[tuple[str, Layer, Shape]] = []

        def walk(arrays: list[Any]) -> Any:
            merged = [leaf if array is None else array for leaf, array in zip(others, arrays, strict=True)]
            own = dataclasses.replace(call, events=None if call.events is None else [])
            y, new_state = self.layer.run(own, *jax.tree.unflatten(tree, merged))
            events = own.events or []
            noted[:] = [(event.path, event.layer, event.copies) for event in events]
            return y, new_state, [(event.inputs, event.output) for event in events]

        others = [leaf if array is None else None for leaf, array in zip(leaves, arrays, strict=True)]
        y, new_state, seen = jax.checkpoint(walk, policy=self.policy)(arrays)
        if call.events is not None:
            for (path, layer, copies), (own_inputs, output) in zip(noted, seen, strict=True):
                call.events.append(Event(path, layer, own_inputs, output, copies))
        return y, new_state

    def __repr__(self) -> str:
        policy = "" if self.policy is None else f", policy={_policy_code(self.policy)}"
        return f"fcnn.remat({names.code(self.layer)}{policy})"


def _policy_code(policy: Callable[..., Any]) -> str:
    """A policy as code: those of JAX live in a private module, and people write ``jax.checkpoint_policies``."""
    offered = jax.checkpoint_policies
    for name in sorted(vars(offered), reverse=True):  # of two names for one policy not the older, checkpoint_...
        if getattr(offered, name) == policy:
            return f"jax.checkpoint_policies.{name}"
    kept = sorted(getattr(policy, "saveable_names", ()))
    if kept and offered.save_only_these_names(*kept) == policy:
        return f"jax.checkpoint_policies.save_only_these_names({', '.join(map(repr, kept))})"
    return names.code(policy)


def remat(layer: Any, *, policy: Callable[..., Any] | None = None) -> Remat:
    r"""Keep none of the values inside a layer for the backward pass; compute them again there.

    Parameters, state, results and gradients are those of the layer, and so is its name in ``serial``: put it around
    a layer, or take it away, and everything that has been trained or saved still fits. For n equal blocks in a row
    training keeps the input of each block and the inner values of one,

    .. math:: O(n \cdot \text{input} + \text{block}) \quad\text{instead of}\quad O(n \cdot \text{block})

    numbers, and computes every block forward twice. ``repeat(remat(block), n)`` saves this memory everywhere. Blocks
    one by one in a ``serial`` save it where the compiler leaves apart what JAX asks it to: on the CPU it does not
    (jax 0.10.2), and joins the two computations again.

    Args:
        layer: a layer or function.
        policy: which inner values are kept after all, one of ``jax.checkpoint_policies``; None: none.

    Shapes:
        Those of the layer.

    Returns:
        A layer whose params and state are those of ``layer``, with no level of its own.

    Raises:
        TypeError: something that is neither a layer nor a function, or a policy that is not a function.

    Source:
        Chen et al., "Training deep nets with sublinear memory cost", 2016, section 4; ``jax.checkpoint``.

    Example:
        >>> import fcnn
        >>> block = fcnn.serial(fcnn.Conv(8, 3, padding="SAME"), jax.nn.relu, fcnn.Conv(8, 3, padding="SAME"))
        >>> net = fcnn.serial(*[fcnn.residual(remat(block))] * 12)
        >>> sorted(net.init(jax.random.key(0), (16, 16, 8))["residual1"]["body"])
        ['conv1', 'conv2']
    """
    with at("remat"):
        inner = lift(layer)
        if policy is not None and not callable(policy):
            raise TypeError(
                f"policy must be a function such as jax.checkpoint_policies.dots_saveable, or None, not {policy!r}"
            )
        return Remat(inner, policy=policy)
