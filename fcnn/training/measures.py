"""What training minimises, and what is reported beside it: sums over the examples of a batch, and numbers from sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..identity import Value
from ..ops.dtypes import wide
from .losses import cross_entropy as cross_entropy
from .metrics import Accuracy
from .tally import Accumulator, Mean, are_labels, check_shape, combined, leading, ratio, weighed, without

#: (outputs, targets) -> one number for each example, or one for the batch
Loss = Callable[[Any, Any], jax.Array]

_MEAN = Mean(lambda outputs, targets: outputs)


class Weighted(NamedTuple):
    """Targets, and what each example or each of its labels weighs; it takes the place of targets without weights.

    Attributes:
        targets: an array, or a tree of arrays.
        weights: (batch,) or (batch, *space); for several targets also a tree with weights for each.
    """

    targets: Any
    weights: Any


class Measured(NamedTuple):
    """What was measured, as what it is computed from.

    Attributes:
        sums: sums over the examples, by name.
        accumulators: accumulators of the metrics that go from batch to batch, by name.
    """

    sums: dict[str, Any]
    accumulators: dict[str, Any]


@dataclass(frozen=True)
class LossTerm:
    """One of the losses.

    Attributes:
        place: the key or position among outputs and targets; None: all of them.
        loss: the function.
        weight: what it counts in the sum of losses.
    """

    place: Any
    loss: Any
    weight: float = 1.0

    @property
    def name(self) -> str:
        """Its name in the history."""
        return "loss" if self.place is None else f"loss/{self.place}"


@dataclass(frozen=True)
class Measures(Value):
    """Losses, metrics, and which labels count; equal for equal ones, so that what is compiled with it is found again.

    Attributes:
        parts: the losses.
        metrics: triples of a name, the place among the outputs (None: all), and a metric.
        ignore_label: a label that does not count.
        shares_of_classes: whether the cross-entropy was asked for, and not only taken by default: it may get shares of
            the classes as targets then.
    """

    parts: tuple[LossTerm, ...] = (LossTerm(None, cross_entropy),)
    metrics: tuple[tuple[str, Any, Any], ...] = ()
    ignore_label: int | None = None
    shares_of_classes: bool = False

    # in a compiled step

    def measure(
        self, outputs: Any, targets: Any, accumulators: Mapping[str, Any] | None = None, shares: Any = None
    ) -> tuple[jax.Array, Measured]:
        """What is minimised, and what is reported, for a batch.

        Args:
            outputs: what the network gave; bfloat16 and float16 are measured in float32.
            targets: what was wanted; or Weighted.
            accumulators: accumulators before this batch; None: of the first.
            shares: for each loss the share of the whole batch's weight that this part of it has; None: it is whole.

        Returns:
            The sum of the mean losses, and what was found.
        """
        outputs = jax.tree.map(
            lambda a: a.astype(wide(a.dtype)) if jnp.issubdtype(a.dtype, jnp.floating) else a, outputs
        )
        targets, weights = targets if isinstance(targets, Weighted) else (targets, None)
        examples, sums, total = leading(outputs), {}, None
        for index, part in enumerate(self.parts):
            mean, sums[part.name] = self._lost(part, outputs, targets, weights, examples)
            mean = mean if shares is None else mean * shares[index].astype(mean.dtype)
            mean = mean * part.weight if part.weight != 1 else mean
            total = mean if total is None else total + mean.astype(total.dtype)
        named = {name for name, _, _ in self.metrics}
        for place in dict.fromkeys(part.place for part in self.parts):
            name = "accuracy" if place is None else f"accuracy/{place}"
            said, wanted = _at(outputs, place), _at(targets, place)
            if name not in named and are_labels(said, wanted):
                sums[name] = Accuracy(self.ignore_label).tally(said, wanted, _at(weights, place))
        now = self.accumulators() if accumulators is None else dict(accumulators)
        for name, place, metric in self.metrics:
            said, wanted, weighing = (_at(a, place) for a in (outputs, targets, weights))
            if isinstance(weighing, (Mapping, tuple)):
                raise ValueError(f"the metric {name}: there are weights for each target; give metrics for each as well")
            if getattr(metric, "ignore_label", None) is None:
                wanted, weighing = _left_out(wanted, self.ignore_label, weighing)
            if isinstance(metric, Accumulator):
                now[name] = metric.update(now[name], said, wanted, weighing)
            elif (tally := metric.tally(said, wanted, weighing)) is not None:
                sums[name] = tally
        return total, Measured(sums, now)  # type: ignore[return-value]

    def _lost(
        self, part: LossTerm, outputs: Any, targets: Any, weights: Any, examples: int
    ) -> tuple[jax.Array, dict[str, Any]]:
        """The mean loss of a batch, and sum and weight of it."""
        said, wanted, weights = (_at(a, part.place) for a in (outputs, targets, weights))
        wanted, weights = _left_out(wanted, self.ignore_label, weights)
        losses = jnp.asarray(part.loss(said, wanted))
        what = "the loss" if part.place is None else f"the loss of {part.place!r}"
        check_shape(losses, said, wanted, what)
        own = _own_weights(part.loss, wanted)
        sums = weighed(losses, weights, examples, what)
        if weights is None and own is None:
            return jnp.mean(losses, dtype=wide(losses.dtype)), sums
        if own is not None:  # the losses have their weights in them already
            if weights is None:
                sums = {"sum": jnp.sum(losses, dtype=sums["sum"].dtype), "weight": sums["weight"]}
            below = combined(own, weights).astype(sums["sum"].dtype)
            below = jnp.broadcast_to(below.reshape(below.shape + (1,) * (losses.ndim - below.ndim)), losses.shape)
            sums["weight"] = jnp.sum(below)
        return ratio(sums["sum"], sums["weight"], otherwise=0.0), sums

    def shares(self, targets: Any, count: int) -> list[jax.Array] | None:
        """For each loss the shares of ``count`` parts of a batch in its weight; None: they are equal.

        Args:
            targets: (count, batch, ...), the targets of the parts.
            count: number of parts.
        """
        targets, weights = targets if isinstance(targets, Weighted) else (targets, None)

        def weight(part: LossTerm, wanted: Any, weighing: Any) -> Any:
            wanted, weighing = (_at(a, part.place) for a in (wanted, weighing))
            wanted, weighing = _left_out(wanted, self.ignore_label, weighing)
            weighing = combined(_own_weights(part.loss, wanted), weighing)
            return None if weighing is None else jnp.sum(weighing, dtype=jnp.result_type(float))

        found = []
        for part in self.parts:
            weighs = [weight(part, *jax.tree.map(lambda a, i=i: a[i], (targets, weights))) for i in range(count)]
            if weighs[0] is None:
                found.append(None)
            else:
                stacked = jnp.stack(weighs)
                found.append(ratio(stacked, jnp.sum(stacked), otherwise=0.0))
        if all(share is None for share in found):
            return None
        return [jnp.full(count, 1 / count, jnp.result_type(float)) if s is None else s for s in found]

    def accumulators(self, members: int | None = None) -> dict[str, Any]:
        """Accumulators before the first batch, of every member of an ensemble where there are any."""
        found = {name: metric.start() for name, _, metric in self.metrics if isinstance(metric, Accumulator)}
        return found if members is None else jax.tree.map(lambda a: jnp.stack([a] * members), found)

    # numbers

    def results(self, sums: Mapping[str, Any], accumulators: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The numbers by name, from sums and accumulators; those of a step or an epoch, compiled or on the host."""
        known = {name: metric for name, _, metric in self.metrics}
        found = {name: known.get(name, _MEAN).result(tally) for name, tally in sums.items()}
        names = [part.name for part in self.parts]
        if self.several and all(name in found for name in names):
            total = reduce(lambda a, b: a + b, (found[part.name] * part.weight for part in self.parts))
            found = {"loss": total, **found}
        for name, accumulator in (accumulators or {}).items():
            found[name] = known[name].finish(accumulator)
        return found

    def numbers(self, sums: Mapping[str, Any], accumulators: Any = None, members: int | None = None) -> dict[str, Any]:
        """:meth:`results` on the host; for an ensemble, an array with one entry for each member."""
        if members is None:
            return self.results(sums, accumulators)
        each = [self.results(*jax.tree.map(lambda a, i=i: a[i], (sums, accumulators or {}))) for i in range(members)]
        return {name: np.stack([np.asarray(found[name]) for found in each]) for name in each[0]}

    @property
    def several(self) -> bool:
        """Whether there are several losses, whose weighted sum is "loss"."""
        return self.parts[0].place is not None

    def mode_of(self, name: str) -> str | None:
        """Whether a number is best high, "max", or low, "min"; None where nobody said."""
        name = name.removeprefix("validation_")
        if name == "loss" or name.startswith("loss/"):
            return "min"
        for known, _, metric in self.metrics:
            if known == name and metric.mode is not None:
                return metric.mode
        return "max" if name.split("/")[0].endswith("accuracy") else None

    @property
    def names(self) -> list[str]:
        """Names of numbers that may be reported."""
        parts = [part.name for part in self.parts]
        accuracies = [name.replace("loss", "accuracy", 1) for name in parts]
        return list(dict.fromkeys([*(["loss"] if self.several else []), *parts, *accuracies, *self.further]))

    @property
    def further(self) -> list[str]:
        """Names of the metrics that were asked for."""
        return [name for name, _, _ in self.metrics]


def _own_weights(loss: Any, targets: Any) -> Any:
    weights = getattr(loss, "weights", None)
    return weights(targets) if callable(weights) else None


def _left_out(targets: Any, ignore: int | None, weights: Any) -> tuple[Any, Any]:
    """Targets whose labels are classes, and weights that are 0 for those that do not count."""
    if ignore is None or not hasattr(targets, "dtype"):
        return targets, weights
    return without(targets, ignore, weights)


def _at(tree: Any, place: Any) -> Any:
    """What stands at a place of a tuple or dict; weights of one array hold for all."""
    if place is None or tree is None or hasattr(tree, "dtype"):
        return tree
    return tree[place]
