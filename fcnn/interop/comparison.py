"""Layer by layer: where a network begins to differ from another framework's, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import jax
import numpy as np

from ..analysis.observe import observe
from ..compose.parts import Composite, lift
from ..context import Observed
from ..errors import described, format_shape, layer_path
from ..geometry import Shape
from ..tables import Table, Tabular
from ..types import Params, State
from .arrangement import arranged, difference
from .causes import likely_causes
from .torch_activations import torch_activations

HEADER = ("here", "there", "shape", "difference")
#: numbers of an array that are compared where arrays are put in pairs
SAMPLES = 256
#: what a pair of arrays of one shape is worth that do not agree, where one that agrees is worth 1
SHAPE_ALONE = 0.1
#: layers without a counterpart that are tried with other settings, from the first on
SUSPECTS = 8


@dataclass(frozen=True)
class Pair:
    """The output of one layer beside its counterpart.

    Attributes:
        path: the path of the layer here; "" where it has no counterpart.
        name: its name there; "" likewise.
        shape: shape of the output here, or there where there is none here.
        difference: the largest difference divided by the largest number there; None without a counterpart.
    """

    path: str
    name: str
    shape: Shape
    difference: float | None


@dataclass(frozen=True, repr=False)
class Comparison(Tabular):
    """The result of :func:`compare`; it prints as a table.

    Attributes:
        pairs: every layer, in the order of computation.
        first: the first layer whose output differs, or that has no counterpart where another one is; None: there is no
            difference.
        causes: what would explain that difference: with this change the layer gives what is there.
        tolerance: the difference from which on outputs differ.
    """

    pairs: tuple[Pair, ...]
    first: Pair | None
    causes: tuple[str, ...] = field(default=())
    tolerance: float = 1e-3

    @property
    def ok(self) -> bool:
        """Whether no output differs."""
        return self.first is None

    def table(self) -> Table:
        rows = []
        for pair in self.pairs:
            shown = "" if pair.difference is None else f"{pair.difference:.1e}"
            rows.append((pair.path or "-", pair.name or "-", format_shape(pair.shape), shown))
        if self.first is None:
            below = "no difference"
        else:
            where = self.first.path or self.first.name
            why = "; ".join(self.causes) or "none of the usual causes explains it"
            below = f"the first difference is in {where}: {why}"
        marked = () if self.first is None else (self.pairs.index(self.first),)
        return Table(HEADER, rows, below=below, right=(3,), marked=marked)


@dataclass
class _Output:
    """The output of one layer, with the layer, its entries and its inputs."""

    path: str
    layer: Any
    params: Any
    state: Any
    inputs: tuple[np.ndarray, ...]
    output: np.ndarray


def compare(
    net: Any, params: Params, state: State | None, x: Any, theirs: Any, *, tolerance: float = 1e-3
) -> Comparison:
    r"""Find the first layer whose output differs from another framework's, and the likely cause.

    The outputs here are put beside those there in the order of computation: as many as possible that agree, then as
    many as possible of one shape. Activations that the other framework computes without a module have no counterpart,
    which is no difference. At the first output that differs, its inputs being equal, the layer is computed again with
    the choices that frameworks make differently: padding at a stride, epsilon, batch statistics, the order of a dense
    layer's inputs, another activation.

    Args:
        net: the network.
        params: its parameters, as from :func:`~fcnn.interop.from_torch`.
        state: its state, where it has one.
        x: input (batch, \*space, channels), a few examples.
        theirs: a PyTorch module, which is called with x; or its activations by name, from
            :func:`~fcnn.interop.torch_activations`, :func:`~fcnn.interop.onnx_activations` or from elsewhere,
            (batch, channels, \*space) or channels last.
        tolerance: outputs differ where the largest difference is more than so many times the largest number.

    Returns:
        The comparison: ``.ok``, ``.first``, ``.causes``, and a table when printed.

    Raises:
        TypeError: activations that are no mapping from names to arrays.
        ValueError: as for ``net.apply``; no activations.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Conv(2, 3, stride=2, padding="SAME"), jax.nn.relu)
        >>> params = net.init(jax.random.key(0), (8, 8, 1))
        >>> x = jax.random.normal(jax.random.key(1), (1, 8, 8, 1))
        >>> other = fcnn.serial(fcnn.Conv(2, 3, stride=2, padding=1), jax.nn.relu)
        >>> found = compare(net, params, {}, x, fcnn.capture(other, params, x))
        >>> found.first.path, found.causes[0]
        ('conv1', 'padding: SAME here, 1 there, at stride 2')
    """
    with layer_path("compare"):
        net = lift(net)
        if callable(getattr(theirs, "named_modules", None)):
            theirs = torch_activations(theirs, x)
        if not isinstance(theirs, Mapping):
            raise TypeError(f"theirs is {described(theirs)}; give a PyTorch module, or a dict from names to arrays")
        there = {str(name): np.asarray(array) for name, array in theirs.items() if hasattr(array, "shape")}
        if not there:
            raise ValueError("theirs has no arrays; give the outputs of the modules by name")
    here = _outputs(net, params, {} if state is None else state, x)
    return _compared(here, there, tolerance)


def _outputs(net: Any, params: Params, state: State, x: Any) -> list[_Output]:
    """The outputs of all layers that are no compositions, in the order of computation."""
    layers: dict[str, Any] = {}

    def keep(seen: Any) -> Observed | None:
        if isinstance(seen.layer, Composite):
            return None
        layers[seen.path] = seen.layer, len(seen.indices)
        return Observed(kept=(seen.inputs, seen.output))

    kept = observe(net, params, x, observer=keep, state=state).kept
    found, group = [], []
    for path, (inputs, output) in kept.items():
        layer, depth = layers.get(path, (net, 0))
        if not depth:
            found += _in_order(group)
            group = []
            found.append(
                _Output(path, layer, _own(params, path), _own(state, path), _numpy(inputs), np.asarray(output))
            )
            continue
        lead = np.asarray(output).shape[:depth]
        for copy in np.ndindex(*lead):
            one = jax.tree.map(lambda a, copy=copy: np.asarray(a)[copy], (inputs, output))
            own = [jax.tree.map(lambda a, copy=copy: a[copy], _own(tree, path)) for tree in (params, state)]
            label = f"{path}[{', '.join(map(str, copy))}]"
            group.append((copy, _Output(label, layer, own[0], own[1], _numpy(one[0]), one[1])))
    return found + _in_order(group)


def _in_order(group: list[tuple[Shape, _Output]]) -> list[_Output]:
    """What a loop makes, copy after copy."""
    return [output for _, output in sorted(group, key=lambda pair: pair[0])]


def _own(tree: Any, path: str) -> Any:
    for step in filter(None, path.split("/")):
        tree = tree.get(step.split("#")[0], {}) if isinstance(tree, Mapping) else {}
    return tree


def _numpy(inputs: Any) -> tuple[np.ndarray, ...]:
    return tuple(map(np.asarray, inputs))


def _compared(here: list[_Output], there: dict[str, np.ndarray], tolerance: float) -> Comparison:
    flattened: list[Shape | None] = []
    last: Shape | None = None
    for one in here:  # the shape whose flattened form a vector may be
        before = one.inputs[0].shape[1:] if one.inputs else ()
        if len(before) > 1 and one.output.shape[1:] == (prod(before),):
            last = before
        flattened.append(last)
    names = list(there)
    arrays = [
        [arranged(there[name], one.output, shape) for name in names] for one, shape in zip(here, flattened, strict=True)
    ]
    links = _aligned(here, arrays, tolerance)
    pairs: list[Pair] = []
    bad: tuple[int, int] | None = None
    done = 0
    for i, one in enumerate(here):
        j = links.get(i)
        if j is None:
            pairs.append(Pair(one.path, "", one.output.shape, None))
            continue
        pairs += [Pair("", name, there[name].shape, None) for name in names[done:j]]
        done = j + 1
        array: Any = arrays[i][j]
        pairs.append(Pair(one.path, names[j], one.output.shape, difference(one.output, array)))
        if bad is None and pairs[-1].difference > tolerance:  # type: ignore[operator]
            bad = i, j
    pairs += [Pair("", name, there[name].shape, None) for name in names[done:]]
    return _explained(here, there, links, pairs, bad, flattened, tolerance)


def _explained(
    here: list[_Output],
    there: dict[str, np.ndarray],
    links: dict[int, int],
    pairs: list[Pair],
    bad: tuple[int, int] | None,
    flattened: list[Shape | None],
    tolerance: float,
) -> Comparison:
    """The first difference and its causes: a layer without a counterpart before it may be the one that differs."""
    arrays, found = list(there.values()), tuple(pairs)
    stop = bad[0] if bad is not None else len(here)
    agreed = max((i for i in links if i < stop), default=-1)
    rest = arrays[links[agreed] + 1 if agreed >= 0 else 0 : bad[1] + 1 if bad is not None else None]
    if bad is None and agreed == len(here) - 1:
        more = [pair for pair in pairs if not pair.path][-len(rest) :] if rest else []
        if rest and not any(_agree(array, here[-1], flattened[-1], tolerance) for array in rest):
            return Comparison(found, more[0], ("it has no counterpart here, and changes the output",), tolerance)
        return Comparison(found, None, (), tolerance)
    if bad is None and not rest:  # what follows here is computed without a module there
        return Comparison(found, None, (), tolerance)
    suspects = range(agreed + 1, stop + 1 if bad is not None else len(here))[:SUSPECTS]
    for i in suspects:
        causes = likely_causes(here[i], rest, flattened[i], tolerance)
        if causes:
            return Comparison(found, _pair_of(here[i], pairs), tuple(causes), tolerance)
    return Comparison(found, _pair_of(here[bad[0] if bad is not None else suspects[0]], pairs), (), tolerance)


def _agree(array: np.ndarray, one: _Output, flattened: Shape | None, tolerance: float) -> bool:
    """Whether an array there is the output of a layer here."""
    there = arranged(array, one.output, flattened)
    return there is not None and difference(one.output, there) <= tolerance


def _pair_of(one: _Output, pairs: list[Pair]) -> Pair:
    return next(pair for pair in pairs if pair.path == one.path)


def _aligned(here: list[_Output], arrays: list[list[np.ndarray | None]], tolerance: float) -> dict[int, int]:
    """Which output there belongs to each one here: the pairs in order that are worth most."""
    count, others = len(here), len(arrays[0]) if arrays else 0
    worth = np.zeros((count, others))
    for i, row in enumerate(arrays):
        step = max(1, here[i].output.size // SAMPLES)
        few = here[i].output.ravel()[::step]
        for j, array in enumerate(row):
            if array is not None:
                worth[i, j] = 1.0 if difference(few, array.ravel()[::step]) <= tolerance else SHAPE_ALONE
    best = np.zeros((count + 1, others + 1))
    for i in range(count - 1, -1, -1):
        for j in range(others - 1, -1, -1):
            paired = worth[i, j] + best[i + 1, j + 1] if worth[i, j] else 0.0
            best[i, j] = max(paired, best[i + 1, j], best[i, j + 1])
    links, i, j = {}, 0, 0
    while i < count and j < others:
        if worth[i, j] and best[i, j] == worth[i, j] + best[i + 1, j + 1]:
            links[i] = j
            i, j = i + 1, j + 1
        elif best[i, j] == best[i + 1, j]:
            i += 1
        else:
            j += 1
    return links
