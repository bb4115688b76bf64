"""A layer whose inner values are recomputed in the backward pass instead of stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from .. import names
from ..context import Inside
from ..errors import layer_path
from ..geometry import Shape
from ..layer import Context, Layer
from ..types import Params, State
from .cutting import Parted, inside
from .parts import Parts, lift


@dataclass(frozen=True, repr=False)
class Remat(Parted, Layer):
    """The result of :func:`remat`."""

    only_hands_on: ClassVar[bool] = True

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

    def check(self) -> dict[str, Any]:
        return {"policy": _as_value(self.policy)}

    @property
    def inputs(self) -> int | None:  # type: ignore[override]
        return self.layer.inputs

    @property
    def floating(self) -> bool:  # type: ignore[override]
        return self.layer.floating

    @property
    def label(self) -> str:
        return self.layer.label  # a serial gives it the name, and so the random numbers, of the layer alone

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

    def run(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        leaves, tree = jax.tree.flatten((params, state, inputs))
        # anything but arrays bypasses the checkpoint, and the layer's own checks report it
        arrays = [leaf if isinstance(leaf, (jax.Array, np.ndarray)) else None for leaf in leaves]
        inside = Inside(context)

        def walk(arrays: list[Any]) -> Any:
            merged = [leaf if array is None else array for leaf, array in zip(others, arrays, strict=True)]
            inner = inside.enter()
            y, new_state = self.layer.run(inner, *jax.tree.unflatten(tree, merged))
            return y, new_state, inside.leave(inner)

        others = [leaf if array is None else None for leaf, array in zip(leaves, arrays, strict=True)]
        y, new_state, kept = jax.checkpoint(walk, policy=self.policy)(arrays)
        inside.bring_out(kept)
        return y, new_state

    def __repr__(self) -> str:
        policy = "" if self.policy is None else f", policy={_policy_code(self.policy)}"
        return f"fcnn.remat({names.code(self.layer)}{policy})"


#: functions of ``jax.checkpoint_policies`` that create a policy from names
_FROM_NAMES = ("save_only_these_names", "save_any_names_but_these", "save_anything_except_these_names")


@dataclass(frozen=True)
class _FromNames:
    """A policy created from names, as a value; JAX's own policy objects may support neither equality nor pickling."""

    maker: str
    given: tuple[str, ...]

    def __call__(self, *args: Any, **params: Any) -> Any:
        return getattr(jax.checkpoint_policies, self.maker)(*self.given)(*args, **params)

    def __repr__(self) -> str:
        return f"jax.checkpoint_policies.{self.maker}({', '.join(map(repr, self.given))})"


def _as_value(policy: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The policy, or an equivalent :class:`_FromNames` where JAX created it from names."""
    for maker in _FROM_NAMES:
        made = getattr(jax.checkpoint_policies, maker, lambda *given: None)("some")
        # some versions of JAX return objects of one class, others functions that share their code
        if made is None or type(made) is not type(policy):
            continue
        if getattr(made, "__code__", None) is getattr(policy, "__code__", None):
            held = [cell.cell_contents for cell in getattr(policy, "__closure__", None) or ()]
            held = held or list(vars(policy).values())
            if len(held) == 1 and isinstance(held[0], (set, frozenset, tuple)):
                return _FromNames(maker, tuple(sorted(held[0])))
    return policy


def _policy_code(policy: Callable[..., Any]) -> str:
    """A policy as code; JAX defines its policies in a private module, but users write ``jax.checkpoint_policies``."""
    offered = jax.checkpoint_policies
    for name in sorted(vars(offered), reverse=True):  # some policies have an older second name, checkpoint_...
        if getattr(offered, name) == policy:
            return f"jax.checkpoint_policies.{name}"
    return names.code(policy)


def remat(layer: Any, *, policy: Callable[..., Any] | None = None) -> Remat:
    r"""Store none of the values inside a layer for the backward pass; recompute them there.

    Parameters, state, results and gradients are those of the layer, and so is its name in ``serial``. So ``remat`` can
    be added to or removed from a layer, and trained or saved params still fit. For n equal blocks in a row, training
    stores the input of each block and the inner values of one,

    .. math:: O(n \cdot \text{input} + \text{block}) \quad\text{instead of}\quad O(n \cdot \text{block})

    numbers, and computes the forward pass of every block twice. ``repeat(remat(block), n)`` saves this memory on every
    backend. Separate blocks in a ``serial`` save it only where the compiler respects JAX's optimization barriers: on
    the CPU (jax 0.10.2) it does not, and merges the two computations again.

    Args:
        layer: a layer or function.
        policy: the inner values to store nevertheless, one of ``jax.checkpoint_policies``; None: none.

    Shapes:
        Those of the layer.

    Returns:
        A layer whose params and state are those of ``layer``, without an extra level of nesting.

    Raises:
        TypeError: ``layer`` is neither a layer nor a function, or ``policy`` is not a function.

    Source:
        Chen et al., "Training deep nets with sublinear memory cost", 2016, section 4; ``jax.checkpoint``.

    Example:
        >>> import fcnn
        >>> block = fcnn.serial(fcnn.Conv(8, 3, padding="SAME"), jax.nn.relu, fcnn.Conv(8, 3, padding="SAME"))
        >>> net = fcnn.serial(*[fcnn.residual(remat(block))] * 12)
        >>> sorted(net.init(jax.random.key(0), (16, 16, 8))["residual1"]["body"])
        ['conv1', 'conv2']
    """
    with layer_path("remat"):
        inner = lift(layer)
        if policy is not None and not callable(policy):
            raise TypeError(
                f"policy must be a function such as jax.checkpoint_policies.dots_saveable, or None, not {policy!r}"
            )
        return Remat(inner, policy=policy)
