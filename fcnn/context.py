"""One pass through a network: its mode, the position in the network, and who observes the layers' outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name

from .checks import check_mapping
from .errors import layer_path
from .geometry import Shape
from .initialization import number
from .types import Params, State


class LayerOutput(NamedTuple):
    """The output of one use of a layer, as an observer sees it.

    Attributes:
        path: the layer's path, as in params; the second use of a shared layer is ``"name#2"``.
        layer: the layer.
        inputs: its inputs.
        output: its output.
        indices: inside ``repeat``, the number of the running copy for each loop around the layer.
    """

    path: str
    layer: Any
    inputs: tuple[Any, ...]
    output: Any
    indices: tuple[Any, ...] = ()


class Observed(NamedTuple):
    """The result of an observer: what to keep of an output, and what replaces it.

    Attributes:
        kept: a tree of arrays, carried out of every loop around the layer; None: nothing.
        output: replaces the output in the rest of the computation; None: the output is unchanged.
    """

    kept: Any = None
    output: Any = None


class Kept(NamedTuple):
    """What an observer kept of one use of a layer; inside ``repeat``, arrays have leading axes for the copies."""

    path: str
    layer: Any
    value: Any
    copies: Shape = ()


#: marks the loops of recorded programs whose iterations have their own parameters
COPIES = "copies"

#: is called with the output of every layer, and may keep a part of it or replace it
Observer = Callable[[LayerOutput], Observed | None]


@dataclass(frozen=True)
class Context:
    """One pass through a network: its mode, and the position in the network.

    Attributes:
        train: whether the network is being trained.
        root: the random key of the whole pass, or None.
        folds: numbers to fold into the root key on the way to this part; folded in only where a layer draws.
        path: names of the parts on the way.
        observer: called with every layer's output; None: no observer.
        kept: what the observer has kept so far.
        indices: the number of the running copy for each ``repeat`` around this part.
        constant: paths of layers whose own parameters are constants for differentiation.
        resting: paths, from here, of parts that run in inference mode although the network is being trained.
        plan: how the network is executed, see :mod:`fcnn.plan`; None: not decided yet, False: layer by layer.
        base: number of steps of the path that lead to the composition that the plan is for.
        shadow: for an observed run of layers in the polyphase layout: the layer's output in the usual layout, computed
            separately, and whether the observer has replaced an output.
        record: replaces the computation of a layer while a network is traced, see :mod:`fcnn.tracing`.
    """

    train: bool
    root: jax.Array | None = None
    folds: tuple[Any, ...] = ()
    path: tuple[str, ...] = ()
    observer: Observer | None = None
    kept: list[Kept] = dataclasses.field(default_factory=list)
    indices: tuple[Any, ...] = ()
    constant: frozenset[str] = frozenset()
    resting: frozenset[str] = frozenset()
    plan: Any = None
    base: int = 0
    shadow: dict[str, Any] = dataclasses.field(default_factory=dict)
    record: Any = None

    @property
    def key(self) -> jax.Array:
        """The random key of this part."""
        if self.root is None:
            raise ValueError(
                "draws random numbers in training and needs a key: apply_train(..., key=jax.random.key(0))"
            )
        key = self.root
        for step in self.folds:
            key = jax.random.fold_in(key, step)
        return key

    @property
    def place(self) -> str:
        """The path as one string."""
        return "/".join(self.path)

    @property
    def planned(self) -> str:
        """The path relative to the composition that the plan is for."""
        return "/".join(self.path[self.base :])

    def part(
        self, name: str, layer: Any, params: Params, state: State, inputs: tuple[Any, ...], use: int = 0
    ) -> tuple[Any, State]:
        """Run one named part of a composition; ``use`` counts the uses of a shared part."""
        folds = (*self.folds, number(name), *((use,) if use else ()))
        step = name if not use else f"{name}#{use + 1}"
        inner = dataclasses.replace(self, folds=folds, path=(*self.path, step), **self._mode(name))
        with layer_path(name), jax.named_scope(step):
            own_params = check_mapping("params", params.get(name, {}))
            own_state = check_mapping("state", state.get(name, {}))
            if self.constant and inner.place in self.constant:
                own_params = jax.lax.stop_gradient(own_params)
            if self.record is not None:
                return self.record.part(layer, inner, own_params, own_state, inputs)
            planned = self.plan.step(inner.planned) if self.plan else None
            if planned is not None:
                return self.plan.execute(planned, layer, inner, own_params, own_state, inputs)
            if self.plan and self.observer is not None:
                return self.plan.watch(layer, inner, own_params, own_state, inputs)
            y, new_state = layer.run(inner, own_params, own_state, inputs)
            return inner.seen(layer, inputs, y), new_state

    def seen(self, layer: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Show the output of the layer at this path to the observer; return the output, or its replacement."""
        if self.observer is None:
            return output
        answer = self.observer(LayerOutput(self.place, layer, inputs, output, self.indices)) or Observed()
        self.kept.append(Kept(self.place, layer, answer.kept))
        return output if answer.output is None else answer.output

    def _mode(self, name: str) -> dict[str, Any]:
        """The fields that change for one part when some parts run in inference mode."""
        if not self.resting:
            return {}
        if name in self.resting:
            return {"train": False, "resting": frozenset()}
        inside = (path.removeprefix(f"{name}/") for path in self.resting if path.startswith(f"{name}/"))
        return {"resting": frozenset(inside)}


class Inside:
    """Observation inside a function that JAX transforms: a loop, a checkpoint, a map.

    Whatever is kept inside has to leave that function as one of its results. Use :meth:`enter` for the context of the
    body, return the arrays of :meth:`leave` beside the body's own result, and pass what the transformed function
    returned for them to :meth:`bring_out`.

    Args:
        context: the pass around the function.

    Example:
        >>> import jax.numpy as jnp
        >>> outer = Context(train=False, observer=lambda seen: Observed(kept=seen.output))
        >>> inside = Inside(outer)
        >>> def body(carry, i):
        ...     inner = inside.enter(i)
        ...     y = inner.seen("layer", (carry,), carry + 1)
        ...     return y, inside.leave(inner)
        >>> _, values = jax.lax.scan(body, 0, jnp.arange(3))
        >>> inside.bring_out(values, (3,))
        >>> outer.kept[0].value.tolist(), outer.kept[0].copies
        ([1, 2, 3], (3,))
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: list[Kept] = []

    def enter(self, index: Any = None) -> Context:
        """The context of the body; with ``index``, of one of several copies, each with its own random numbers."""
        context = dataclasses.replace(self._context, kept=[])
        if index is None:
            return context
        if context.record is not None:  # lets a reader of the program see which loops run over copies
            index = checkpoint_name(index, COPIES)
        return dataclasses.replace(context, folds=(*context.folds, index), indices=(*context.indices, index))

    def leave(self, context: Context) -> list[Any]:
        """The arrays that were kept inside."""
        self._known = [kept._replace(value=None) for kept in context.kept]
        return [kept.value for kept in context.kept]

    def bring_out(self, values: Iterable[Any], copies: Shape = ()) -> None:
        """Add the values kept inside to those kept outside; ``copies`` are the leading axes that they gained."""
        for kept, value in zip(self._known, values, strict=True):
            self._context.kept.append(kept._replace(value=value, copies=(*copies, *kept.copies)))
