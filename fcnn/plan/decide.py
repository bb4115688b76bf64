"""Decide from the trace of a network which layers are computed together.

There are two kinds of runs:

- A convolution of few channels, elementwise functions, and max pooling. The convolution is computed in blocks of
  positions, which pooling would have to take apart again. In the polyphase layout, the positions of every window lie
  along an axis of phases, and the maximum needs no gathering.
- Convolutions by Winograd's algorithm and the operations between them: elementwise functions, pooling, batch
  normalisation, sums and concatenations of paths. Winograd's products have the layout HWNC, with the space first and
  (batch, channels) last. All parts of the run use this layout, so nothing is transposed in between.

Parameters, results, gradients, names and errors are the same as for separate layers.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import prod
from typing import Any

import jax

from .. import geometry
from ..geometry import Shape
from ..identity import cached, nearest
from ..layers.conv import Conv
from ..layers.norm import BatchNorm
from ..layers.pool import AvgPool, MaxPool
from ..ops.conv import polyphase_problem
from ..ops.convolution import choice, choose, explain, refusal
from ..ops.devices import explicit_axes, varying_axes
from ..ops.pool import pool_windows
from ..symbolic_sizes import symbolic
from ..tracing import Node, Trace, trace
from ..tracing.positionwise import _NUMBERS, of_numbers
from .regions import Ownership, composition_of
from .value import BATCH_FIRST, HWNC, POLYPHASE, Plan, Segment, Step, no_plan


def planned(net: Any, train: bool, inputs: tuple[Any, ...]) -> Plan:
    """The plan of a network for its inputs; where no plan applies, every layer is run by itself."""
    first = inputs[0]
    shapes = tuple(tuple(x.shape[1:]) for x in inputs)
    sizes = [n for shape in shapes for n in shape]
    if first.ndim < 3 or any(map(symbolic, sizes)) or not may_run_together(net):
        return no_plan()
    if any(explicit_axes(x) or varying_axes(x) for x in inputs):
        return no_plan()
    return _plan(net, train, shapes, first.shape[0], first.dtype.name, jax.default_backend(), _settings())


def plan(net: Any, *shapes: Shape, batch: int = 128, dtype: Any = "float32", train: bool = False) -> Plan:
    """Report which layers of a network are computed together, by which algorithm and in which layout, and why.

    Args:
        net: the network.
        shapes: shape of one example of each input.
        batch: number of examples at once.
        dtype: dtype of the inputs.
        train: whether to plan for training mode.

    Returns:
        The plan; it prints as a table.

    Raises:
        ValueError: the shapes do not suit the network.

    Example:
        >>> import fcnn, jax
        >>> net = fcnn.serial(fcnn.Conv(6, 5, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2), fcnn.Conv(16, 5))
        >>> [(segment.paths, segment.layout) for segment in plan(net, (28, 28, 1)).segments]
        [(('conv1', 'relu1', 'max_pool1'), 'polyphase'), (('conv2',), 'NHWC')]
    """
    traced = trace(net, *shapes, train=train)
    return _decided(net, traced, batch, jax.numpy.dtype(dtype).name)


@cached(maxsize=256)
def may_run_together(net: Any) -> bool:
    """Whether a network contains a convolution."""
    return nearest(net, (Conv,)) is not None or any(
        may_run_together(part) for value in vars(net).values() for part in _layers(value)
    )


def _layers(value: Any) -> list[Any]:
    if hasattr(value, "check_shapes"):
        return [value]
    return [part for item in value for part in _layers(item)] if isinstance(value, tuple) else []


def _settings() -> Any:
    """The settings that the choice of an algorithm also depends on."""
    limits = tuple(value for value in vars(choice).values() if isinstance(value, (int, float, tuple)))
    return choice.forced(), choice.usable("cpu"), limits


@cached(maxsize=256)
def _plan(net: Any, train: bool, shapes: Any, batch: Any, dtype: str, backend: str, settings: Any) -> Plan:
    try:
        return _decided(net, trace(net, *shapes, train=train), batch, dtype)
    except Exception:  # without a plan, the layers run by themselves and raise their own errors
        return no_plan(batch, dtype)


def _decided(net: Any, traced: Trace, batch: Any, dtype: str) -> Plan:
    decider = _Decider(net, traced, batch, dtype)
    decider.level(traced)
    steps = tuple(decider.steps.values())
    crossings = (tuple(each.items()) for each in (decider.inputs, decider.outputs))
    return Plan(tuple(decider.segments(traced)), steps, batch, dtype, *crossings)


class _Decider:
    """Decides for a network; holds what is the same at all levels of its trace.

    Args:
        net: the network.
        traced: its trace.
        batch: number of examples.
        dtype: dtype of the inputs.
    """

    def __init__(self, net: Any, traced: Trace, batch: Any, dtype: str) -> None:
        self.batch, self.dtype = batch, dtype
        self.ownership = Ownership(net)
        self.counts = Counter(node.path for node in traced.walk() if node.layer is not None)
        self.steps: dict[str, Step] = {}
        self.inputs: dict[str, str] = {}
        self.outputs: dict[str, str] = {}

    def level(self, traced: Trace) -> None:
        """Decide for a trace, and for the bodies of its loops."""
        consumers: dict[int, list[Node]] = {}
        for node in traced.nodes:
            for number in set(node.inputs):
                consumers.setdefault(number, []).append(node)
        for number in (*traced.outputs, *traced.rest, *(n for _, n in traced.new_state)):
            consumers.setdefault(number, []).append(_OUTSIDE)
        ends = self._polyphase(traced, consumers)
        self._hwnc(traced, consumers, ends)
        for node in traced.nodes:
            if node.layer is None:
                for inner in node.inside:
                    self.level(inner)

    def _plain(self, node: Node, traced: Trace) -> bool:
        """Whether a use of a layer maps one batched array to one output, and its path is unique."""
        known = node.layer is not None and self.counts[node.path] == 1 and self.ownership.part(node) == node.layer
        return known and len(node.inputs) == len(node.outputs) == 1 and traced.batched[node.inputs[0]]

    def _next(self, node: Node, consumers: dict[int, list[Node]]) -> Node | None:
        """The only consumer of a node's output, if only compositions that pass the value on are in between."""
        following = consumers.get(node.outputs[0], [])
        if len(following) != 1 or following[0] is _OUTSIDE or following[0].layer is None:
            return None
        return following[0] if self.ownership.handed_on(node, following[0]) else None

    def _polyphase(self, traced: Trace, consumers: dict[int, list[Node]]) -> dict[int, Node]:
        """Find the runs in the polyphase layout; return the pooling at the end of each by the number of its output."""
        ends = {}
        for conv in traced.nodes:
            if conv.layer is None or not nearest(conv.layer, (Conv,)) or not self._plain(conv, traced):
                continue
            functions: list[Node] = []
            node = self._next(conv, consumers)
            while node is not None and self._plain(node, traced) and of_numbers(node.layer, node.shapes[0]):
                functions.append(node)
                node = self._next(node, consumers)
            if node is None or not nearest(node.layer, (MaxPool,)) or not self._plain(node, traced):
                continue
            x, pool = traced.shapes[conv.inputs[0]], node.layer
            windows = pool_windows(
                conv.shapes[0][:-1], pool.window, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
            )
            padded = any(map(any, windows.constant_pads)) or windows.fill != "constant"
            if padded or windows.stride != windows.kernel or prod(windows.kernel) == 1 or set(windows.dilation) != {1}:
                continue
            problem = self._problem(conv.layer, x, windows.kernel)
            if refusal("blocks", problem) is not None or choose(problem).algorithm != "blocks":
                continue
            # ReLU and adding a bias are monotonic, so they commute with the maximum
            early = all(f.layer.function is jax.nn.relu for f in functions)
            run = {"layout": POLYPHASE, "leave": True, "early": early, "run": conv.path}
            self.steps[conv.path] = Step(conv.path, shapes=(x,), phases=windows.kernel, **run)
            for maker, taker in pairwise((conv, *functions, node)):
                self._crosses(maker, taker, conv.path)
            for each in (*functions, node):
                self.steps[each.path] = Step(each.path, shapes=(traced.shapes[each.inputs[0]],), **run)
            ends[node.outputs[0]] = node
        return ends

    def _problem(self, conv: Any, x: Shape, phases: Shape) -> Any:
        sizes = geometry.per_axis(conv.kernel, len(x) - 1, "kernel")
        kernel = (*sizes, x[-1] // conv.groups, conv.features)
        options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
        return polyphase_problem((self.batch, *x), kernel, self.dtype, phases, **options)

    def _by_winograd(self, node: Node, traced: Trace) -> bool:
        """Whether a node is a convolution that computes in HWNC."""
        conv = node.layer
        if not nearest(conv, (Conv,)) or not self._plain(node, traced) or node.path in self.steps:
            return False
        if geometry.split(conv.padding)[0] is not None:  # padding by copies of samples
            return False
        x = traced.shapes[node.inputs[0]]
        return choose(self._problem(conv, x, (1,) * (len(x) - 1))).algorithm == "winograd"

    def _follows(self, node: Node, traced: Trace) -> bool:
        """Whether a layer computes in the layout of its input, whatever it is."""
        if node.layer is None or not self._plain(node, traced) or node.path in self.steps:
            return False
        if nearest(node.layer, (MaxPool, AvgPool)):
            return True
        if nearest(node.layer, (BatchNorm,)):
            return len(node.shapes[0]) > 1
        return of_numbers(node.layer, node.shapes[0])

    def _hwnc(self, traced: Trace, consumers: dict[int, list[Node]], ends: dict[int, Node]) -> None:
        """Find the values that are passed on in HWNC, and the steps that produce and consume them."""
        convolutions = {id(node): node for node in traced.nodes if self._by_winograd(node, traced)}
        if not convolutions:
            return
        follow = {id(node) for node in traced.nodes if self._follows(node, traced)}
        joins = {id(node) for node in traced.nodes if self._joins(node, traced)}
        makers = {n: node for node in traced.nodes for n in node.outputs}
        carried = {node.outputs[0] for node in traced.nodes if id(node) in {*convolutions, *follow, *joins}}
        carried |= set(ends)
        # a value from outside that joins a run is transposed once, by the layer that computes it
        turned = {
            node.outputs[0]
            for node in traced.nodes
            if node.path not in self.steps
            and self._plain(node, traced)
            and any(id(taker) in joins for taker in consumers.get(node.outputs[0], []))
        }
        carried |= turned

        def stays(number: int) -> bool:
            maker = makers[number]
            if id(maker) in follow and maker.inputs[0] not in carried and number not in turned:
                return False
            if id(maker) in joins and not set(maker.inputs) <= carried:
                return False
            for node in consumers.get(number, []):
                if node is _OUTSIDE or not self.ownership.handed_on(maker, node):
                    return False
                if id(node) in joins and not ({*node.inputs, *node.outputs} <= carried):
                    return False
                if id(node) not in joins and id(node) not in follow and id(node) not in convolutions:
                    return False
            return True

        # removing a value may make others impossible in HWNC, so repeat until nothing changes
        while left := {number for number in carried if not stays(number)}:
            carried -= left
        for number in carried:
            for taker in consumers.get(number, []):
                self._crosses(makers[number], taker, HWNC)
        for node in traced.nodes:
            if id(node) in convolutions or (id(node) in follow and node.inputs[0] in carried):
                self.steps[node.path] = Step(
                    node.path,
                    HWNC,
                    (traced.shapes[node.inputs[0]],),
                    enter=node.inputs[0] not in carried,
                    leave=node.outputs[0] not in carried,
                )
            elif node.layer is not None and node.path not in self.steps and node.outputs[0] in carried:
                self.steps[node.path] = Step(node.path, BATCH_FIRST, (traced.shapes[node.inputs[0]],))
        for number in set(ends) & carried:
            for path, step in list(self.steps.items()):
                if step.layout == POLYPHASE and step.run == self.steps[ends[number].path].run:
                    self.steps[path] = Step(**{**vars(step), "leave": False})

    def _crosses(self, maker: Node, taker: Node, form: str) -> None:
        """Record the compositions that a value enters or leaves on its way, and its layout there."""
        one, other = composition_of(maker), composition_of(taker)
        within = [{"/".join(steps[:n]) for n in range(1, len(steps) + 1)} for steps in (one, other)]
        self.outputs.update(dict.fromkeys(within[0] - within[1], form))
        self.inputs.update(dict.fromkeys(within[1] - within[0], form))

    def _joins(self, node: Node, traced: Trace) -> bool:
        """Whether an operation joins paths in the layout of its inputs, whatever it is."""
        if node.layer is not None or not node.inputs or not all(traced.batched[n] for n in node.inputs):
            return False
        shapes = {traced.shapes[n] for n in node.inputs}
        if node.primitive in _NUMBERS:
            return len(shapes) == 1
        last = len(next(iter(shapes)))
        return node.primitive == "concatenate" and dict(node.settings)["dimension"] == last

    # The plan as a table.

    def segments(self, traced: Trace) -> list[Segment]:
        """All layers of a trace; layers that are computed together form one segment."""
        found: list[Segment] = []
        run: list[Node] = []

        def close() -> None:
            if run:
                found.append(self._segment(run, traced))
                run.clear()

        for node in traced.nodes:
            if node.layer is None:
                if any(inner.uses_layers for inner in node.inside):
                    close()
                    for inner in node.inside:
                        found.extend(self.segments(inner))
                continue
            if run and not self._together(run[-1], node):
                close()
            run.append(node)
        close()
        return found

    def _together(self, before: Node, node: Node) -> bool:
        one, other = self.steps.get(before.path), self.steps.get(node.path)
        if one is None or other is None:
            return one is other is None and not nearest(node.layer, (Conv,)) and not nearest(before.layer, (Conv,))
        if BATCH_FIRST in (one.layout, other.layout):
            return other.layout != BATCH_FIRST
        return (one.layout, one.run) == (other.layout, other.run) and not other.enter

    def _segment(self, run: list[Node], traced: Trace) -> Segment:
        paths, first = tuple(node.path for node in run), run[0]
        step = self.steps.get(first.path)
        if step is not None and step.layout == POLYPHASE:
            return Segment(
                paths, "blocks", POLYPHASE, "the positions of a pooling window are computed one after another"
            )
        if step is not None and any(nearest(node.layer, (Conv,)) for node in run):
            reason = "Winograd's products have the space first; nothing is transposed in between"
            return Segment(paths, "winograd", HWNC, reason)
        if nearest(first.layer, (Conv,)) and len(run) == 1 and first.inputs:
            x = traced.shapes[first.inputs[0]]
            chosen = explain(self._problem(first.layer, x, (1,) * (len(x) - 1)))
            return Segment(paths, chosen.algorithm, BATCH_FIRST, chosen.reason)
        return Segment(paths, "", BATCH_FIRST, "as they stand")


#: represents the consumer of a result of the network
_OUTSIDE: Any = object()
