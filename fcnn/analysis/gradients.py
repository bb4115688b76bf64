"""The gradient computed three ways: by autodiff, by hand-written backpropagation, by finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks import check_inputs, check_key, check_mapping
from ..errors import format_shape, layer_path
from ..geometry import integer
from ..layer import Layer
from ..native import native
from ..tables import Table, Tabular
from ..types import Params, State
from .kinks import Neighbours, at_kink
from .targets import check_targets

#: the allowed difference between autodiff and the hand-written gradient, relative to the largest entry of the array (or
#: to a ten-thousandth of the largest entry of all arrays, if that is larger)
HAND_BOUND = 1e-10
#: the allowed difference between autodiff and central differences, likewise; the latter's own error is about 1e-9
NUMERIC_BOUND = 1e-6
#: the step of the differences, in units of the parameter
STEP = 1e-5

HEADER = ("gradient of", "shape", "by hand", "by differences", "checked", "kinks", "")


@dataclass(frozen=True)
class Coordinate:
    """One entry of one gradient.

    Attributes:
        path: the array, ``conv1/kernel``, or ``x`` for the input.
        index: the entry.
        autodiff: the gradient there by ``jax.grad``.
        other: the gradient there by the other method.
        way: the other method, "hand" or "differences".
        error: the difference, relative to the largest entry of the array.
    """

    path: str
    index: tuple[int, ...]
    autodiff: float
    other: float
    way: str
    error: float

    def __str__(self) -> str:
        return (
            f"{self.path}{list(self.index)}: autodiff {self.autodiff:.6g}, by {self.way} {self.other:.6g}, "
            f"relative error {self.error:.1e}"
        )


@dataclass(frozen=True)
class GradientRow:
    """The result for one array.

    Attributes:
        path: as in params, or ``x``.
        shape: its shape.
        hand: largest relative error of autodiff against the gradient by hand; None if there is none.
        numeric: likewise against central differences, over the coordinates compared.
        checked: number of coordinates at which differences were taken.
        kinks: number of coordinates at a kink, where the gradient is not unique. Within a step of a kink, differences
            are meaningless; at a kink, the gradient by hand may be a different one.
        worst: the worst coordinate.
        ok: whether all errors are within bounds.
        compared: number of coordinates whose differences were compared: those checked, without kinks.
    """

    path: str
    shape: tuple[int, ...]
    hand: float | None
    numeric: float
    checked: int
    kinks: int
    worst: Coordinate
    ok: bool
    compared: int


@dataclass(frozen=True, repr=False)
class GradientReport(Tabular):
    """The result of :func:`check_gradients`; prints as a table in a terminal and in a notebook.

    Attributes:
        rows: one for each array of params and each input.
        loss: the value of the loss.
        hand_loss: the loss of the hand-written network, or None.
        unwritten: why there is no gradient by hand, or None.
    """

    rows: tuple[GradientRow, ...]
    loss: float
    hand_loss: float | None
    unwritten: str | None

    @property
    def ok(self) -> bool:
        """Whether all gradients and the losses agree."""
        same = self.hand_loss is None or abs(self.hand_loss - self.loss) <= HAND_BOUND * max(1.0, abs(self.loss))
        return same and all(row.ok for row in self.rows)

    @property
    def worst(self) -> Coordinate:
        """The worst coordinate, from a failing array if there is one."""
        return max(self.rows, key=lambda row: (not row.ok, row.worst.error)).worst

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                row.path,
                format_shape(row.shape),
                _small(row.hand),
                _small(row.numeric if row.compared else None),
                str(row.checked),
                str(row.kinks) if row.kinks else "",
                "ok" if row.ok else "WRONG",
            )
            for row in self.rows
        ]

    def _verdict(self) -> str:
        lines = [] if self.unwritten is None else [f"not by hand: {self.unwritten}"]
        if self.ok:
            lines.append(f"all gradients agree; worst {self.worst}")
        else:
            wrong = [row for row in self.rows if not row.ok]
            lines += [f"wrong: {row.worst}" for row in wrong]
            if not wrong:
                lines.append(f"the losses differ: autodiff {self.loss!r}, by hand {self.hand_loss!r}")
        return "\n".join(lines)

    def table(self) -> Table:
        wrong = tuple(i for i, row in enumerate(self.rows) if not row.ok)
        return Table(HEADER, self._cells(), below=self._verdict(), right=(2, 3, 4, 5, 6), marked=wrong)


def check_gradients(
    net: Layer,
    params: Params,
    x: Any,
    y: Any,
    *,
    loss: Callable[[Any, Any], Any] | None = None,
    state: State | None = None,
    key: jax.Array | None = None,
    train: bool = False,
    samples: int = 30,
    seed: int = 0,
) -> GradientReport:
    r"""Compare the gradient of a network computed three ways, in float64.

    The three are autodiff, the hand-written backward passes of ``fcnn.reference``, and central differences

    .. math:: \frac{\partial L}{\partial w} \approx \frac{L(w + h) - L(w - h)}{2 h}

    at sampled coordinates of every array of params and of the input. At a kink, such as that of a ReLU or of a maximum
    with a tie, the gradient is not unique, and the three may differ; zero padding with zero biases puts whole images at
    a kink. A coordinate at which two methods disagree counts as a kink, not as an error, if all agree at neighbouring
    points and the gradient lies among those found there (or equals the one by hand). A derivative that is wrong at a
    kink or beside it is an error.

    Args:
        net: the network.
        params: its parameters.
        x: input, or a tuple of inputs; a few examples are enough.
        y: targets; for a network with several outputs, an array or a tuple or dict of arrays.
        loss: (outputs, targets) to one number per example, or one for the batch; None: softmax cross-entropy with
            integer labels, also differentiated by hand. A loss of your own is differentiated by autodiff with respect
            to the outputs, and the network below it by hand. A network whose output is a tuple or dict needs a loss
            that takes it as it is.
        state: its state, if it has one.
        key: in training, the random key of the dropout masks.
        train: whether to check ``apply_train`` rather than ``apply``.
        samples: the most coordinates per array at which differences are taken.
        seed: the seed for choosing coordinates.

    Returns:
        A report with ``ok`` and ``worst``; a failing array is named with its worst coordinate. If a layer has no
        hand-written counterpart, it is named, and the gradients are checked by differences alone.

    Raises:
        ValueError, TypeError: if the arguments do not fit the network.

    Source:
        Karpathy, CS231n notes, "Gradient checks", 2015, for relative errors and kinks.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(fcnn.Dense(4), jnp.tanh, fcnn.Dense(3))
        >>> params = net.init(jax.random.key(0), (5,))
        >>> report = check_gradients(net, params, np.linspace(-1, 1, 10).reshape(2, 5), np.array([0, 2]))
        >>> report.ok, len(report.rows)
        (True, 5)
    """
    with layer_path("check_gradients"):
        samples = integer(samples, "samples")
        if key is not None:
            check_key(key)
        inputs = tuple(map(native, x if isinstance(x, (tuple, list)) else (x,)))
        check_inputs(inputs)
        check_mapping("params", params)
    with jax.enable_x64(True):
        params, state, inputs = _double((params, state or {}, inputs))
        outputs = jax.eval_shape(lambda p, i: _outputs(net, p, i, state, key, train), params, inputs)
        with layer_path("check_gradients"):
            y, measured = check_targets(y, outputs, loss)

        @jax.jit
        def objective(params: Any, inputs: Any) -> Any:
            return jnp.mean(measured(_outputs(net, params, inputs, state, key, train), y))

        slopes = jax.jit(jax.grad(objective, (0, 1)))
        value = objective(params, inputs)
        autodiff = _named(slopes(params, inputs))

        def by_hand(params: Any, inputs: Any) -> Any:
            return _by_hand(net, params, inputs, y, loss, state, key, train)

        hand, hand_loss, unwritten = by_hand(params, inputs)
        arrays = {path: np.array(leaf) for path, leaf in _named((params, inputs)).items()}
        tree = jax.tree.structure((params, inputs))
        generator = np.random.default_rng(seed)

        def point(arrays: dict[str, np.ndarray]) -> Any:
            return jax.tree.unflatten(tree, [jnp.asarray(array) for array in arrays.values()])

        near = Neighbours(
            arrays,
            autodiff=lambda arrays: _named(slopes(*point(arrays))),
            hand=lambda arrays: None if hand is None else by_hand(*point(arrays))[0],
            loss=lambda arrays: float(objective(*point(arrays))),
            generator=np.random.default_rng(seed + 1),
        )

        def at_point(path: str, index: tuple[int, ...], move: float) -> float:
            moved = arrays[path].copy()
            moved[index] += move
            return float(objective(*point({**arrays, path: moved})))

        # an array whose true gradient is 0, such as a bias before batch norm, contains only rounding errors
        least = 1e-4 * max((float(np.abs(array).max(initial=0)) for array in autodiff.values()), default=0.0)
        rows = []
        for path in arrays:
            own = None if hand is None else hand[path]
            rows.append(_row(path, autodiff[path], own, float(value), least, at_point, near, samples, generator))
        return GradientReport(tuple(rows), float(value), hand_loss, unwritten)


def _row(
    path: str,
    autodiff: np.ndarray,
    hand: np.ndarray | None,
    value: float,
    least: float,
    at_point: Callable[[str, tuple[int, ...], float], float],
    near: Neighbours,
    samples: int,
    generator: np.random.Generator,
) -> GradientRow:
    scale = max(least, *(float(np.abs(g).max(initial=0)) for g in (autodiff, hand) if g is not None), 1e-12)
    found: list[tuple[float, Coordinate]] = []  # each with its error in units of the bound
    hand_error = None
    kinks = np.zeros(autodiff.shape, bool)
    if hand is not None:
        errors = np.abs(autodiff - hand) / scale
        if errors.max(initial=0) > HAND_BOUND:
            # a different choice at a kink, if it lies among the gradients beside it and both methods agree there
            kinks = (errors > HAND_BOUND) & near.among(path, autodiff) & near.same_by_hand(path, HAND_BOUND * scale)
            errors = np.where(kinks, 0, errors)
        place = tuple(map(int, np.unravel_index(int(errors.argmax()), errors.shape)))
        hand_error = float(errors[place])
        coordinate = Coordinate(path, place, float(autodiff[place]), float(hand[place]), "hand", hand_error)
        found.append((hand_error / HAND_BOUND, coordinate))
    chosen = generator.permutation(autodiff.size)[:samples]
    numeric_error, compared = 0.0, 0
    # the second term is the rounding error of the losses, divided by the step
    allowed = NUMERIC_BOUND * scale + 1e-9 * max(1.0, abs(value))
    for flat in chosen:
        index = tuple(map(int, np.unravel_index(int(flat), autodiff.shape)))
        up, down = at_point(path, index, STEP), at_point(path, index, -STEP)
        slope, sides = (up - down) / (2 * STEP), ((value - down) / STEP, (up - value) / STEP)
        exact = float(autodiff[index])
        difference = abs(slope - exact)
        settled = hand is not None and abs(exact - float(hand[index])) <= HAND_BOUND * scale
        if difference > allowed:
            # a real error remains; the error at a continuous but one-sidedly curved slope shrinks with the step
            finer = (at_point(path, index, STEP / 10) - at_point(path, index, -STEP / 10)) / (STEP / 5)
            bends = abs(finer - exact) <= 0.2 * difference + 2e-9 * max(1.0, abs(value))
            if kinks[index] or bends or at_kink(near, path, index, sides, autodiff, allowed, settled):
                kinks[index] = True
                continue
        compared += 1
        error = difference / max(scale, abs(slope))
        numeric_error = max(numeric_error, error)
        found.append((difference / allowed, Coordinate(path, index, exact, slope, "differences", error)))
    if not found:
        found.append((0.0, Coordinate(path, (0,) * autodiff.ndim, 0.0, 0.0, "differences", 0.0)))
    excess, worst = max(found, key=lambda pair: pair[0])
    count = int(kinks.sum())
    return GradientRow(
        path, autodiff.shape, hand_error, numeric_error, len(chosen), count, worst, excess <= 1, compared
    )


def _small(error: float | None) -> str:
    return "-" if error is None else f"{error:.0e}" if error else "0"


def _by_hand(
    net: Layer, params: Any, inputs: Any, y: Any, loss: Any, state: Any, key: Any, train: bool
) -> tuple[dict[str, np.ndarray] | None, float | None, str | None]:
    from .. import reference  # loaded here, because most programs never check a gradient
    from .bridge import Unwritten, to_reference

    shapes = [tuple(a.shape[1:]) for a in inputs]
    try:
        node, gradients = to_reference(
            net, params, *shapes, state=state, key=key, batch=inputs[0].shape[0], train=train
        )
    except Unwritten as error:
        return None, None, str(error)
    found = node.forward(*map(np.asarray, inputs))
    if loss is None:
        entropy = reference.SoftmaxCrossEntropy()
        value = float(entropy.forward(found, np.asarray(y)))
        slope = entropy.backward()
    else:
        # outputs that are integers or booleans have a gradient of dtype float0
        slope_of = jax.value_and_grad(lambda outputs: jnp.mean(loss(outputs, y)), allow_int=True)
        value, slope = slope_of(jax.tree.map(jnp.asarray, found))
        value = float(value)
        slope = jax.tree.map(lambda a: np.zeros(a.shape) if a.dtype == jax.dtypes.float0 else np.asarray(a), slope)
    input_gradients = node.backward(slope)
    return _named((gradients(), tuple(input_gradients))), value, None


def _outputs(net: Layer, params: Any, inputs: Any, state: Any, key: Any, train: bool) -> Any:
    if train:
        return net.apply_train(params, *inputs, key=key, state=state)[0]
    return net.apply(params, *inputs, state=state)


def _double(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), tree)


def _named(trees: tuple[Any, Any]) -> dict[str, np.ndarray]:
    """The leaves of (params, inputs) by path, in the order of the tree: ``conv1/kernel``, and ``x`` or ``x[1]``."""
    params, inputs = trees
    found = {}
    for path, leaf in jax.tree.leaves_with_path(params):
        found["/".join(str(step.key) for step in path)] = np.asarray(leaf)
    for i, leaf in enumerate(inputs):
        found["x" if len(inputs) == 1 else f"x[{i}]"] = np.asarray(leaf)
    return found
