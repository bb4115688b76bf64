"""Losses and metrics: sums over the examples of a batch, and values computed from sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..identity import Value
from ..ops.dtypes import wide
from .losses import cross_entropy as cross_entropy
from .metric import Accumulator, Mean, are_labels, check_shape, ignoring, leading, multiplied, ratio, weighted_sum
from .metrics import Accuracy

_MEAN = Mean(lambda outputs, targets: outputs)


class Weighted(NamedTuple):
    """Targets with weights of examples or labels, in place of plain targets.

    Attributes:
        targets: an array, or a tree of arrays.
        weights: (batch,) or (batch, *space); for several targets, possibly a tree with weights for each.
    """

    targets: Any
    weights: Any


class Measured(NamedTuple):
    """Sums and accumulators of a batch, from which its loss and metrics are computed.

    Attributes:
        sums: sums over the examples, by name.
        accumulators: accumulators of metrics that are carried from batch to batch, by name.
    """

    sums: dict[str, Any]
    accumulators: dict[str, Any]


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss.

    Attributes:
        place: its key or index among outputs and targets; None: all of them.
        loss: the function.
        weight: its factor in the sum of losses.
    """

    place: Any
    loss: Any
    weight: float = 1.0

    @property
    def name(self) -> str:
        """The name in the history."""
        return "loss" if self.place is None else f"loss/{self.place}"


@dataclass(frozen=True)
class Measures(Value):
    """Losses, metrics and the ignored label, as a value, so that a compiled step is found again by an equal one.

    Attributes:
        terms: the losses.
        metrics: triples of a name, a key or index among the outputs (None: all), and a metric.
        ignore_label: a label to leave out.
        probabilities: whether the cross-entropy was passed explicitly; its targets may then be class probabilities.
    """

    terms: tuple[LossTerm, ...] = (LossTerm(None, cross_entropy),)
    metrics: tuple[tuple[str, Any, Any], ...] = ()
    ignore_label: int | None = None
    probabilities: bool = False

    # in a compiled step

    def measure(
        self, outputs: Any, targets: Any, accumulators: Mapping[str, Any] | None = None, shares: Any = None
    ) -> tuple[jax.Array, Measured]:
        """The loss of a batch, and the sums that are reported.

        Args:
            outputs: outputs of the network; bfloat16 and float16 are converted to float32.
            targets: targets, or Weighted.
            accumulators: accumulators before this batch; None: the initial ones.
            shares: for each loss, the fraction of the weight of the whole batch that this part of it has; None: this is
                the whole batch.

        Returns:
            The weighted sum of the mean losses, and the sums.
        """
        outputs = jax.tree.map(
            lambda a: a.astype(wide(a.dtype)) if jnp.issubdtype(a.dtype, jnp.floating) else a, outputs
        )
        targets, weights = targets if isinstance(targets, Weighted) else (targets, None)
        examples, sums, total = leading(outputs), {}, None
        for index, term in enumerate(self.terms):
            mean, sums[term.name] = self._lost(term, outputs, targets, weights, examples)
            mean = mean if shares is None else mean * shares[index].astype(mean.dtype)
            mean = mean * term.weight if term.weight != 1 else mean
            total = mean if total is None else total + mean.astype(total.dtype)
        named = {name for name, _, _ in self.metrics}
        for place in dict.fromkeys(term.place for term in self.terms):
            name = "accuracy" if place is None else f"accuracy/{place}"
            output, target = _at(outputs, place), _at(targets, place)
            if name not in named and are_labels(output, target):
                sums[name] = Accuracy(self.ignore_label).tally(output, target, _at(weights, place))
        now = self.accumulators() if accumulators is None else dict(accumulators)
        for name, place, metric in self.metrics:
            output, target, weight = (_at(a, place) for a in (outputs, targets, weights))
            if isinstance(weight, (Mapping, tuple)):
                raise ValueError(
                    f"the metric {name}: each target has weights of its own; give metrics for each target as well"
                )
            if getattr(metric, "ignore_label", None) is None:
                target, weight = _left_out(target, self.ignore_label, weight)
            if isinstance(metric, Accumulator):
                now[name] = metric.update(now[name], output, target, weight)
            elif (tally := metric.tally(output, target, weight)) is not None:
                sums[name] = tally
        return total, Measured(sums, now)  # type: ignore[return-value]

    def _lost(
        self, term: LossTerm, outputs: Any, targets: Any, weights: Any, examples: int
    ) -> tuple[jax.Array, dict[str, Any]]:
        """The mean of one loss over a batch, and its sum and weight."""
        output, target, weights = (_at(a, term.place) for a in (outputs, targets, weights))
        target, weights = _left_out(target, self.ignore_label, weights)
        losses = jnp.asarray(term.loss(output, target))
        what = "the loss" if term.place is None else f"the loss of {term.place!r}"
        check_shape(losses, output, target, what)
        own = _own_weights(term.loss, target)
        sums = weighted_sum(losses, weights, examples, what)
        if weights is None and own is None:
            return jnp.mean(losses, dtype=wide(losses.dtype)), sums
        if own is not None:  # the losses are multiplied by their weights already
            if weights is None:
                sums = {"sum": jnp.sum(losses, dtype=sums["sum"].dtype), "weight": sums["weight"]}
            below = multiplied(own, weights).astype(sums["sum"].dtype)
            below = jnp.broadcast_to(below.reshape(below.shape + (1,) * (losses.ndim - below.ndim)), losses.shape)
            sums["weight"] = jnp.sum(below)
        return ratio(sums["sum"], sums["weight"], otherwise=0.0), sums

    def shares(self, targets: Any, count: int) -> list[jax.Array] | None:
        """For each loss, the fractions of its weight in ``count`` parts of a batch; None: they are equal.

        Args:
            targets: the targets of the parts, (count, batch, ...).
            count: number of parts.
        """
        targets, weights = targets if isinstance(targets, Weighted) else (targets, None)

        def total(term: LossTerm, target: Any, weight: Any) -> Any:
            target, weight = (_at(a, term.place) for a in (target, weight))
            target, weight = _left_out(target, self.ignore_label, weight)
            weight = multiplied(_own_weights(term.loss, target), weight)
            return None if weight is None else jnp.sum(weight, dtype=jnp.result_type(float))

        found = []
        for term in self.terms:
            weighs = [total(term, *jax.tree.map(lambda a, i=i: a[i], (targets, weights))) for i in range(count)]
            if weighs[0] is None:
                found.append(None)
            else:
                stacked = jnp.stack(weighs)
                found.append(ratio(stacked, jnp.sum(stacked), otherwise=0.0))
        if all(share is None for share in found):
            return None
        return [jnp.full(count, 1 / count, jnp.result_type(float)) if s is None else s for s in found]

    def accumulators(self, members: int | None = None) -> dict[str, Any]:
        """The initial accumulators; for an ensemble, with a first axis of members."""
        found = {name: metric.start() for name, _, metric in self.metrics if isinstance(metric, Accumulator)}
        return found if members is None else jax.tree.map(lambda a: jnp.stack([a] * members), found)

    # numbers

    def results(self, sums: Mapping[str, Any], accumulators: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Loss and metrics by name from sums and accumulators, of a step or an epoch, compiled or on the host."""
        known = {name: metric for name, _, metric in self.metrics}
        found = {name: known.get(name, _MEAN).result(tally) for name, tally in sums.items()}
        names = [term.name for term in self.terms]
        if self.several and all(name in found for name in names):
            total = reduce(lambda a, b: a + b, (found[term.name] * term.weight for term in self.terms))
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
        """Whether there are several losses, whose weighted sum is reported as "loss"."""
        return self.terms[0].place is not None

    def mode_of(self, name: str) -> str | None:
        """Whether the highest ("max") or the lowest ("min") value is best; None if unknown."""
        name = name.removeprefix("validation_")
        if name == "loss" or name.startswith("loss/"):
            return "min"
        for known, _, metric in self.metrics:
            if known == name and metric.mode is not None:
                return metric.mode
        return "max" if name.split("/")[0].endswith("accuracy") else None

    @property
    def names(self) -> list[str]:
        """Names of values that may be reported."""
        losses = [term.name for term in self.terms]
        accuracies = [name.replace("loss", "accuracy", 1) for name in losses]
        return list(dict.fromkeys([*(["loss"] if self.several else []), *losses, *accuracies, *self.further]))

    @property
    def further(self) -> list[str]:
        """Names of the metrics that were passed."""
        return [name for name, _, _ in self.metrics]


def _own_weights(loss: Any, targets: Any) -> Any:
    weights = getattr(loss, "weights", None)
    return weights(targets) if callable(weights) else None


def _left_out(targets: Any, ignore: int | None, weights: Any) -> tuple[Any, Any]:
    """Targets without the ignored label, and weights that are 0 for it."""
    if ignore is None or not hasattr(targets, "dtype"):
        return targets, weights
    return ignoring(targets, ignore, weights)


def _at(tree: Any, place: Any) -> Any:
    """An entry of a tuple or dict; an array stands for every entry."""
    if place is None or tree is None or hasattr(tree, "dtype"):
        return tree
    return tree[place]
