"""A plan: which layers are computed together, and how; it prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..geometry import Shape
from ..tables import Table, Tabular

HEADER = ("layers", "algorithm", "layout", "why")

#: orders of axes: the usual one; space first, as Winograd's products have it; the positions of every pooling window
#: one after another
BATCH_FIRST, HWNC, POLYPHASE = "NHWC", "HWNC", "polyphase"


@dataclass(frozen=True)
class Step:
    """How one use of a layer is executed.

    Attributes:
        path: the path of the use.
        layout: the order of axes that it computes in; of a step in the usual one, the output is turned to HWNC.
        shapes: shape of one example of its inputs, in the usual order of axes.
        enter: whether its input is brought into that order.
        leave: whether its output is brought back.
        phases: of a convolution in the polyphase layout, the pooling window that follows.
        early: whether the pooling is done by the convolution, before bias and ReLU.
        run: which run of layers in that layout it belongs to: the path of their convolution.
    """

    path: str
    layout: str
    shapes: tuple[Shape, ...]
    enter: bool = False
    leave: bool = False
    phases: Shape = ()
    early: bool = False
    run: str = ""


@dataclass(frozen=True)
class Segment:
    """Layers that are computed together.

    Attributes:
        paths: their paths, in the order of computation.
        algorithm: of their convolutions; "" where there are none.
        layout: the order of axes that they compute in.
        reason: why.
    """

    paths: tuple[str, ...]
    algorithm: str
    layout: str
    reason: str


@dataclass(frozen=True, repr=False)
class Plan(Tabular):
    """What is computed together in a network, for inputs of one shape.

    Attributes:
        segments: all layers, in the order of computation.
        steps: the layers that are not computed as they stand.
        batch: number of examples.
        dtype: of the inputs.
        inputs: paths of compositions whose input is not in the usual order of axes: "HWNC", or the polyphase run.
        outputs: likewise of their outputs.
    """

    segments: tuple[Segment, ...]
    steps: tuple[Step, ...]
    batch: int
    dtype: str
    inputs: tuple[tuple[str, str], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    _by_path: dict[str, Step] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_path", {step.path: step for step in self.steps})

    def step(self, path: str) -> Step | None:
        """How a use of a layer is executed; None: as it stands."""
        return self._by_path.get(path)

    def execute(self, step: Step, layer: Any, *given: Any) -> Any:
        """Run a layer by its step: (output, new state)."""
        from .execute import execute

        return execute(step, layer, *given)

    def watch(self, layer: Any, *given: Any) -> Any:
        """Run a composition, or a layer as it stands, and let the observer see it: (output, new state)."""
        from .execute import watch

        return watch(self, layer, *given)

    def table(self) -> Table:
        count = len(self.steps)
        above = f"{self.batch} examples of {self.dtype}; {count or 'no'} layer{'s' * (count != 1)} in runs"
        rows = [(_listed(each.paths), each.algorithm, each.layout, each.reason) for each in self.segments]
        return Table(HEADER, rows, above)


def _listed(paths: tuple[str, ...], width: int = 48) -> str:
    text = ", ".join(paths)
    return text if len(text) <= width else f"{paths[0]}, ..., {paths[-1]} ({len(paths)})"


def no_plan(batch: Any = 0, dtype: str = "") -> Plan:
    """A plan in which every layer is computed as it stands."""
    return Plan((), (), batch, dtype)
