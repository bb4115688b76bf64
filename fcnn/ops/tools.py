"""Support of the library's primitives in Taylor mode and in the policies of checkpoints.

``jax.experimental.jet`` and the policies of ``jax.checkpoint_policies`` have rules for each of JAX's primitives. Here
rules for the primitives of this library are registered.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import jax
from jax import lax
from jax.extend.core import Primitive, Var
from jax.interpreters import partial_eval


class Own(Primitive):
    """A primitive that is linear in its last operand, or, with ``bilinear``, in each of its two operands.

    It registers its rule with ``jax.experimental.jet`` at its first use after jet was imported; importing jet here
    would be slow.
    """

    def __init__(self, name: str, *, bilinear: bool = False) -> None:
        super().__init__(name)
        self.taylor = self._of_products if bilinear else self._of_last

    def bind(self, *args: Any, **params: Any) -> Any:
        jet = sys.modules.get("jax.experimental.jet")
        if jet is not None and self not in jet.jet_rules:
            jet.jet_rules[self] = self.taylor
        return super().bind(*args, **params)

    def _of_last(self, primals: Any, series: Any, **params: Any) -> tuple[Any, list[Any]]:
        *fixed, x = primals
        y, *terms = (self.bind(*fixed, term, **params) for term in (x, *series[-1]))
        return y, terms

    def _of_products(self, primals: Any, series: Any, **params: Any) -> tuple[Any, list[Any]]:
        """Coefficient k of a product is the sum over j of the products of coefficients j and k - j."""
        first, second = ([x, *terms] for x, terms in zip(primals, series, strict=True))
        y, *terms = (
            reduce(add, [self.bind(first[j], second[k - j], **params) for j in range(k + 1)]) for k in range(len(first))
        )
        return y, terms


def in_taylor_mode(x: Any) -> bool:
    """Whether x is a series of ``jax.experimental.jet``, which does not support custom derivative rules."""
    jet = sys.modules.get("jax.experimental.jet")
    return jet is not None and isinstance(x, jet.JetTracer)


def one_program(function: Callable[..., Any], *arrays: Any) -> Any:
    """Apply the function to the arrays as one compiled program, even under ``jax.disable_jit``."""
    with jax.disable_jit(False):
        return jax.jit(function)(*arrays)


def kept_as_convolution(primitive: Primitive) -> None:
    """Let policies of ``jax.checkpoint`` save the result of a primitive if they save it or XLA's convolution.

    A result that a policy would offload to another memory is saved on the device.
    """
    partial_eval.partial_eval_jaxpr_custom_rules[primitive] = _known_or_again


def _known_or_again(policy: Callable[..., Any], unknown: Any, instantiated: Any, eqn: Any) -> Any:
    """JAX's rule for an operation under a checkpoint: what to compute in the forward and what in the backward pass."""
    needed = [x for x, there in zip(eqn.invars, instantiated, strict=True) if isinstance(x, Var) and not there]
    if any(unknown):
        return None, eqn, [True], [True], needed
    avals = [x.aval for x in eqn.invars]
    if any(_keeps(policy(p, *avals, **eqn.params)) for p in (eqn.primitive, lax.conv_general_dilated_p)):
        return eqn, None, [False], [False], []
    return eqn, eqn, [False], [True], needed


def _keeps(answer: Any) -> bool:
    return answer if isinstance(answer, bool) else type(answer).__name__ != "RecomputeType"
