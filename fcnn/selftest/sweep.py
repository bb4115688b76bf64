r"""Random cases of every operation in float32, compared with the reference in float64.

The error of an array is its largest difference from the reference, in units in the last place (ulp) of the float32
with the largest magnitude in the array; one ulp is between :math:`2^{-24}` and :math:`2^{-23}` of it. Its bound is

.. math:: b(n) = 8 + 4 \sqrt n

where n bounds the number of terms in the sum for one entry: the entries of x for the output, the larger of those of x
and of the output for the gradients. The rounding errors of n products have random signs, so they grow with the square
root of n. For the sizes drawn here n is at most 2,400, so b is at most 204, which is 2.4e-5 of the largest entry: a
fault of 1e-4 fails.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..analysis import to_reference
from ..geometry import Shape
from ..layer import Layer
from .drawn import KINDS, fitting, input_shape
from .known import ulps

BATCH = 2
#: the operations: from a name for the table to the kind of layer, its space dimensions (0: drawn), and whether it is
#: trained
OPERATIONS: dict[str, tuple[str, int, bool]] = {
    **{f"{kind} {rank}-D": (kind, rank, False) for kind in ("Conv", "ConvTranspose") for rank in (1, 2, 3)},
    **{f"{kind}": (kind, 0, False) for kind in KINDS if kind not in ("Conv", "ConvTranspose", "Dropout")},
    "BatchNorm trained": ("BatchNorm", 0, True),
    "Dropout trained": ("Dropout", 0, True),
}


@dataclass(frozen=True)
class Case:
    """One layer, its arguments in float32, and the key of its dropout.

    Attributes:
        seed: the seed from which everything was drawn.
        layer: the layer.
        shape: shape of one example.
        train: whether ``apply_train`` is called.
        params: its parameters.
        state: its state.
        x: input.
        cotangent: the gradient with respect to the output.
    """

    seed: int
    layer: Layer
    shape: Shape
    train: bool
    params: Any
    state: Any
    x: np.ndarray
    cotangent: np.ndarray

    @property
    def key(self) -> jax.Array:
        """The key of the dropout mask."""
        return jax.random.key(self.seed)


@dataclass(frozen=True)
class Error:
    """The errors of one case and their bounds, in units in the last place; -1 if nothing was compared."""

    case: Case
    forward: float
    forward_bound: float
    gradient: float
    gradient_bound: float

    @property
    def share(self) -> float:
        """The larger of the two errors, as a fraction of its bound."""
        return max(self.forward / self.forward_bound, self.gradient / self.gradient_bound)


def bound(n: int) -> float:
    """The allowed error of a sum of n products, in units in the last place.

    Example:
        >>> bound(100)
        48.0
    """
    return 8 + 4 * math.sqrt(n)


def draw(name: str, seed: int) -> Case:
    """Draw the case of an operation for a seed.

    Example:
        >>> draw("Conv 2-D", 7).layer == draw("Conv 2-D", 7).layer
        True
    """
    kind, rank, train = OPERATIONS[name]
    # the name is part of the seed, so that operations get different numbers
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    layer = None
    shape: Shape = ()
    while layer is None:
        shape = input_shape(generator, rank or int(generator.integers(1, 3)))
        layer = fitting(kind, generator, shape, BATCH)
    tree = jax.eval_shape(lambda key: layer.init(key, shape), jax.random.key(0))
    params = jax.tree.map(lambda leaf: _normal(generator, leaf.shape), tree)
    state = {name: np.abs(_normal(generator, shape[-1:])) + np.float32(0.5) for name in layer.init_state(shape)}
    x = _normal(generator, (BATCH, *shape))
    cotangent = _normal(generator, (BATCH, *layer.out_shape(shape)))
    return Case(seed, layer, shape, train, params, state, x, cotangent)


def compare(case: Case) -> Error:
    """Run a case under jit and by the reference, and compare.

    Example:
        >>> compare(draw("Dense", 0)).share < 1
        True
    """
    value, gradients = jax.tree.map(np.asarray, _compiled(case))
    hand, hand_gradients = _by_hand(case)
    # a gradient that is exactly 0, for example by cancellation in a normalisation, contains only rounding errors
    least = 1e-2 * max(float(np.abs(leaf).max(initial=0)) for leaf in jax.tree.leaves(hand_gradients))
    pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(hand_gradients), strict=True)
    return Error(
        case,
        ulps(value, hand),
        bound(case.x.size),
        max(ulps(found, expected, least) for found, expected in pairs),
        bound(max(case.x.size, value.size)),
    )


def sweep(name: str, cases: int, seed: int) -> Iterator[Error]:
    """The errors of several cases of an operation, with one seed each.

    Example:
        >>> [error.case.seed for error in sweep("Flatten", 2, 5)]
        [5, 6]
    """
    for i in range(cases):
        yield compare(draw(name, seed + i))


def _compiled(case: Case) -> tuple[jax.Array, Any]:
    def both(params: Any, x: jax.Array, cotangent: jax.Array, state: Any, key: jax.Array) -> Any:
        def output(params: Any, x: jax.Array) -> jax.Array:
            if case.train:
                return case.layer.apply_train(params, x, key=key, state=state)[0]
            return case.layer.apply(params, x, state=state)

        value, pull = jax.vjp(output, params, x)
        return value, pull(cotangent)

    arrays = jax.tree.map(jnp.asarray, (case.params, case.x, case.cotangent, case.state))
    return jax.jit(both)(*arrays, case.key)


def _by_hand(case: Case) -> tuple[np.ndarray, Any]:
    node, gradients = to_reference(
        case.layer, case.params, case.shape, state=case.state, key=case.key, batch=BATCH, train=case.train
    )
    value = node.forward(case.x.astype(np.float64))
    (input_gradient,) = node.backward(case.cotangent.astype(np.float64))
    return value, (gradients(), input_gradient)


def _normal(generator: np.random.Generator, shape: Shape) -> np.ndarray:
    return generator.normal(size=shape).astype(np.float32)
