"""Shared parameters made explicit: the edges of a layer are partitioned into sets, with one value per set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .node import Node
from .windows import NOTHING, Sizes, each, place

#: the label of an edge that does not exist
ABSENT = -1


class SharedLinear(Node):
    r"""A linear layer whose edges are partitioned into sets, with one value per set.

    .. math:: y_o = \sum_i x_i \, w_{S(i, o)}, \qquad
        \frac{\partial L}{\partial w_S} = \sum_{e \in S} \frac{\partial L}{\partial w_e}, \quad
        \frac{\partial L}{\partial w_{(i, o)}} = x_i \, \frac{\partial L}{\partial y_o}

    Backpropagation computes the derivative for every edge as if nothing were shared. The derivatives of the edges in a
    set are summed, and its value is updated once.

    Args:
        values: w, one per set.
        sets: S, the set of each edge; -1 where there is no edge.

    Shapes:
        x (batch, inputs) to (batch, outputs); values (n_sets,), sets (inputs, outputs).

    Raises:
        TypeError: if the sets are not integers.
        ValueError: if shapes do not match, or a set has no value.

    Source:
        LeCun, "Generalization and network design strategies", 1989, section 3 (weight sharing).

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import SharedLinear
        >>> node = SharedLinear(values=np.array([0.3, 0.5]), sets=np.array([[0, -1], [1, 0], [-1, 1]]))
        >>> node.forward(np.array([[1.0, 2.0, 3.0]])).round(9).tolist()
        [[1.3, 2.1]]
        >>> node.backward(np.array([[-0.1, 0.2]]))[0].round(9).tolist(), node.gradients["values"].round(9).tolist()
        ([[-0.03, 0.01, 0.1]], [0.3, 0.4])
    """

    def __init__(self, values: np.ndarray, sets: np.ndarray) -> None:
        super().__init__(values=values)
        self.sets = np.array(sets)
        if not np.issubdtype(self.sets.dtype, np.integer):
            raise TypeError(f"sets must hold integers, not {self.sets.dtype}")
        if np.ndim(values) != 1 or self.sets.ndim != 2:
            raise ValueError(f"values {np.shape(values)} must be (n_sets,), sets {self.sets.shape} (inputs, outputs)")
        if self.sets.size and not (self.sets.min() >= ABSENT and self.sets.max() < len(values)):
            raise ValueError(f"sets run from {self.sets.min()} to {self.sets.max()}, there are {len(values)} values")

    def matrix(self) -> np.ndarray:
        """The weight of every edge (inputs, outputs), 0 where there is none."""
        return np.where(self.sets == ABSENT, 0, self.params["values"][self.sets])

    def forward(self, x: np.ndarray) -> np.ndarray:
        if x.ndim != 2 or x.shape[1] != self.sets.shape[0]:
            raise ValueError(f"x has shape {x.shape}, it must be (batch, {self.sets.shape[0]})")
        return self.keep(x @ self.matrix(), x)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = self.recall(gradient)
        of_edges = x.T @ gradient  # (inputs, outputs): one derivative per edge
        of_sets = np.zeros_like(self.params["values"])
        for edge in product(*map(range, self.sets.shape)):
            if self.sets[edge] != ABSENT:
                of_sets[self.sets[edge]] += of_edges[edge]
        self.add_gradient("values", of_sets)
        return (gradient @ self.matrix().T,)


def scanning_sets(
    space: Sequence[int],
    kernel: Sizes,
    *,
    channels: int = 1,
    features: int = 1,
    stride: Sizes = 1,
    padding: Any = "VALID",
    dilation: Sizes = 1,
) -> np.ndarray:
    r"""The sets of edges that make a linear layer a convolution, in any number of dimensions.

    The edges that use the same weight as the kernel scans the input form one set:

    .. math:: S\bigl( (m, c), (i, o) \bigr) = (j, c, o) \text{ where } m = s i + d j - p

    Args:
        space: samples of the input along each axis, (M,) or (M, N).
        kernel: window size; an integer applies to every axis.
        channels: channels of the input.
        features: channels of the output.
        stride: s.
        padding: as for ``Conv``.
        dilation: d.

    Returns:
        The label of every edge (inputs, outputs), -1 where there is none. Inputs are the flattened
        (*space, channels), outputs (*out, features); label n is entry n of the flattened kernel
        (*kernel, channels, features).

    Raises:
        ValueError: if the kernel does not fit, or copied padding puts two weights on one edge.

    Source:
        Waibel et al., "Phoneme recognition using time-delay neural networks", 1989, section II.

    Example:
        >>> from fcnn.reference import scanning_sets
        >>> scanning_sets((3,), 2).tolist()
        [[0, -1], [1, 0], [-1, 1]]
    """
    sizes = each(kernel, len(space), "kernel")
    windows = place(space, sizes, stride=stride, padding=padding, dilation=dilation)
    sets = np.full((*space, channels, *windows.out, features), ABSENT)
    labels = np.arange(np.prod(sizes) * channels * features).reshape(*sizes, channels, features)
    for i, j in product(product(*map(range, windows.out)), windows.samples()):
        steps = zip(windows.sources, i, j, windows.stride, windows.dilation, strict=True)
        m = [int(source[s * a + d * b]) for source, a, b, s, d in steps]
        if NOTHING in m:
            continue  # zero padding has no edges
        for c, o in product(range(channels), range(features)):
            if sets[*m, c, *i, o] != ABSENT:
                raise ValueError(f"padding {padding!r} puts two weights on the edge from {m} to {i}")
            sets[*m, c, *i, o] = labels[*j, c, o]
    return sets.reshape(int(np.prod(space)) * channels, -1)


class WeightCounts(NamedTuple):
    """The number of weights of the same connections with and without sharing.

    Attributes:
        shared: one per set, as in a convolution.
        unshared: one per edge, as in a locally connected layer.
        dense: one per pair of input and output.
    """

    shared: int
    unshared: int
    dense: int


def count_weights(sets: np.ndarray) -> WeightCounts:
    """Count the weights of a layer with shared, unshared and all possible edges.

    Example:
        >>> from fcnn.reference import count_weights, scanning_sets
        >>> count_weights(scanning_sets((3, 3), 2))    # a 2x2 kernel over a 3x3 input
        WeightCounts(shared=4, unshared=16, dense=36)
    """
    present = sets[sets != ABSENT]
    return WeightCounts(len(np.unique(present)), present.size, sets.size)
