"""A plan: the layers that are computed together, and how; it prints as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..geometry import Shape
from ..tables import Table, Tabular

HEADER = ("layers", "algorithm", "layout", "why")

#: layouts: the usual one; space first, as in Winograd's products; the positions of every pooling window along an axis
#: of phases
BATCH_FIRST, HWNC, POLYPHASE = "NHWC", "HWNC", "polyphase"


@dataclass(frozen=True)
class Step:
    """The execution of one use of a layer.

    Attributes:
        path: the path of the use.
        layout: the layout that it computes in; for a step in the usual layout, the output is transposed to HWNC.
        shapes: shape of one example of its inputs, in the usual layout.
        enter: whether its input is converted to that layout.
        leave: whether its output is converted back.
        phases: for a convolution in the polyphase layout, the size of the following pooling windows.
        early: whether the convolution does the pooling, before bias and ReLU.
        run: the run of layers in the polyphase layout that it belongs to: the path of its convolution.
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
        algorithm: the algorithm of their convolutions; "" where there are none.
        layout: the layout that they compute in.
        reason: the reason for this choice.
    """

    paths: tuple[str, ...]
    algorithm: str
    layout: str
    reason: str


@dataclass(frozen=True, repr=False)
class Plan(Tabular):
    """The layers of a network that are computed together, for inputs of one shape.

    Attributes:
        segments: all layers, in the order of computation.
        steps: the layers that are not simply run by themselves.
        batch: number of examples.
        dtype: dtype of the inputs.
        inputs: paths of compositions whose input is not in the usual layout, with "HWNC" or the polyphase run.
        outputs: likewise for their outputs.
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
        """The step of a use of a layer; None: it is run by itself."""
        return self._by_path.get(path)

    def execute(self, step: Step, layer: Any, *given: Any) -> Any:
        """Run a layer by its step: (output, new state)."""
        from .execute import execute

        return execute(step, layer, *given)

    def watch(self, layer: Any, *given: Any) -> Any:
        """Run a composition, or a layer without a step, and show the output to the observer: (output, new state)."""
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
    """A plan in which every layer is run by itself."""
    return Plan((), (), batch, dtype)
