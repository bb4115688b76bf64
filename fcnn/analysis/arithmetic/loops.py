"""Control flow: conditionals and loops, whose backward pass runs in reverse order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ... import reference
from ...jaxprs import body, parts_of_scan
from .program import Program, _Tree, program


def _listed(jaxpr: Any, layers: Any) -> Program:
    """A program whose result is the list of its outputs."""
    return program(jaxpr, jax.tree.structure([0] * len(body(jaxpr).outvars)), layers)


class Cond(_Tree):
    """``jax.lax.switch``: one of several programs, selected by an integer."""

    def __init__(self, params: dict[str, Any], layers: Any = None) -> None:
        super().__init__()
        self._branches = [_listed(branch, layers) for branch in params["branches"]]

    def forward(self, which: Any, *inputs: Any) -> Any:
        branch = self._branches[int(np.clip(int(which), 0, len(self._branches) - 1))]
        y = branch.forward(*inputs)
        return self.keep(y, branch)

    def backward(self, gradient: Any) -> tuple[Any, ...]:
        (branch,) = self.recall(gradient)
        return None, *branch.backward(gradient)


class Loop(_Tree):
    """``jax.lax.scan``: a program that passes a carry from step to step, and reads and writes a slice in each."""

    def __init__(self, params: dict[str, Any], layers: Any = None) -> None:
        super().__init__()
        self._consts, self._carry = parts_of_scan(params)
        self._body = _listed(params["jaxpr"], layers)
        order = range(params["length"])
        self._order = list(reversed(order) if params["reverse"] else order)
        self._shapes = [out.aval.shape for out in body(params["jaxpr"]).outvars[self._carry :]]

    def _apart(self, values: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        a, b = self._consts, self._consts + self._carry
        return list(values[:a]), list(values[a:b]), list(values[b:])

    def forward(self, *inputs: Any) -> Any:
        consts, carry, slices = self._apart(inputs)
        made: list[Any] = [[None] * len(self._order) for _ in self._shapes]
        for i in self._order:
            out = self._body.forward(*consts, *carry, *(x[i] for x in slices))
            carry = out[: self._carry]
            for series, y in zip(made, out[self._carry :], strict=True):
                series[i] = y
        ys = [np.stack(series) if series else np.zeros((0, *s)) for series, s in zip(made, self._shapes, strict=True)]
        y: Any = [*map(np.asarray, carry), *ys]
        return self.keep(y, [np.shape(x) for x in inputs])

    def backward(self, gradient: Any) -> tuple[Any, ...]:
        (shapes,) = self.recall(gradient)
        consts, _, slices = self._apart([np.zeros(shape) for shape in shapes])
        carry, series = list(gradient[: self._carry]), gradient[self._carry :]
        for i in reversed(self._order):
            found = self._body.backward([*carry, *(g[i] for g in series)])
            shares, carry, parts = self._apart(found)
            consts = [total + share for total, share in zip(consts, shares, strict=True)]
            for n, part in enumerate(parts):
                slices[n] = slices[n].astype(np.result_type(slices[n], part))
                slices[n][i] = part
        return *consts, *carry, *slices


class While(_Tree):
    """``jax.lax.while_loop``: a program that runs while a condition holds."""

    def __init__(self, params: dict[str, Any], layers: Any = None) -> None:
        super().__init__()
        self._counts = params["cond_nconsts"], params["body_nconsts"]
        self._cond, self._body = _listed(params["cond_jaxpr"], layers), _listed(params["body_jaxpr"], layers)

    def _goes_on(self, *inputs: Any) -> bool:
        (more,) = self._cond.forward(*inputs)
        self._cond.backward([np.zeros(())])  # discards what forward saved
        return bool(more)

    def forward(self, *inputs: Any) -> Any:
        a, b = self._counts[0], sum(self._counts)
        asked, consts, carry, steps = inputs[:a], inputs[a:b], list(inputs[b:]), 0
        while self._goes_on(*asked, *carry):
            carry, steps = self._body.forward(*consts, *carry), steps + 1
        y: Any = list(map(np.asarray, carry))
        return self.keep(y, steps, [np.shape(x) for x in inputs])

    def backward(self, gradient: Any) -> tuple[Any, ...]:
        steps, shapes = self.recall(gradient)
        a, b = self._counts[0], sum(self._counts)
        consts, carry = [np.zeros(shape) for shape in shapes[a:b]], list(gradient)
        for _ in range(steps):
            found = self._body.backward(carry)
            consts = [total + share for total, share in zip(consts, found[: b - a], strict=True)]
            carry = list(found[b - a :])
        return *(None for _ in shapes[:a]), *consts, *carry


class Reduce(_Tree):
    """``jax.lax.reduce``: arrays are folded in half until one entry is left, by a program that combines two entries."""

    def __init__(self, params: dict[str, Any], layers: Any = None) -> None:
        super().__init__()
        self._axes = tuple(map(int, params["dimensions"]))
        self._body = _listed(params["jaxpr"], layers)

    def forward(self, *inputs: Any) -> Any:
        xs, starts = inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]
        first = tuple(range(len(self._axes)))
        moved = [np.moveaxis(x, self._axes, first) for x in xs]
        shape = moved[0].shape
        folded = [x.reshape(-1, *shape[len(first) :]) for x in moved]
        sizes = []
        while len(folded[0]) > 1:
            n = len(folded[0])
            half = (n + 1) // 2
            rest = [
                np.concatenate([x[half:], np.full((2 * half - n, *x.shape[1:]), start, x.dtype)])
                for x, start in zip(folded, starts, strict=True)
            ]
            folded = self._body.forward(*(x[:half] for x in folded), *rest)
            sizes.append(n)
        if not len(folded[0]):
            folded = [np.full((1, *x.shape[1:]), start, x.dtype) for x, start in zip(folded, starts, strict=True)]
        y: Any = [np.asarray(x)[0] for x in folded]
        return self.keep(y, sizes, shape, len(starts))

    def backward(self, gradient: Any) -> tuple[Any, ...]:
        sizes, shape, starts = self.recall(gradient)
        gradients = [g[None] for g in gradient]
        for n in reversed(sizes):
            found = self._body.backward(gradients)
            half = (n + 1) // 2
            gradients = [
                np.concatenate([a, b[: n - half]]) for a, b in zip(found[:starts], found[starts:], strict=True)
            ]
        if not np.prod(shape[: len(self._axes)]):
            gradients = [g[:0] for g in gradients]
        first = tuple(range(len(self._axes)))
        return *(np.moveaxis(g.reshape(shape), first, self._axes) for g in gradients), *(None for _ in range(starts))


LOOPS: dict[str, Callable[..., reference.Node]] = {"cond": Cond, "scan": Loop, "while": While, "reduce": Reduce}
