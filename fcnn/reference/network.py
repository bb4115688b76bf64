"""Networks of nodes, which are nodes themselves: sequential, residual, parallel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .gates import Add, Concatenate
from .node import Node


class _Network(Node):
    """The base of networks: the parameters of all parts in one dict, as ``part.parameter``.

    The arrays are shared with the parts. A part that occurs twice is listed once, under its first name.
    """

    def __init__(self, parts: Mapping[str, Node]) -> None:
        super().__init__()
        seen: set[int] = set()
        for name, part in parts.items():
            if not isinstance(part, Node):
                raise TypeError(f"part {name} is a {type(part).__name__}, not a node")
            for key, value in part.params.items():
                if id(value) not in seen:
                    self.params[f"{name}.{key}"], self.gradients[f"{name}.{key}"] = value, part.gradients[key]
                seen.add(id(value))


class Chain(_Network):
    r"""Nodes in sequence; backward runs them in reverse order (the chain rule).

    .. math:: y = f_n(\dots f_1(x)), \qquad
        \frac{\partial L}{\partial x} = \frac{\partial L}{\partial y} \, f_n' \cdots f_1'

    Args:
        nodes: the nodes, each with one input and one output; the first may have several inputs.

    Shapes:
        As for the nodes; the parameter ``kernel`` of the second node is ``params["1.kernel"]``.

    Raises:
        TypeError: if a part is not a node.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Chain, Dense, ReLU
        >>> net = Chain([Dense(kernel=np.array([[2.0, -2.0]])), ReLU()])
        >>> net.forward(np.array([[3.0]])).tolist(), net.backward(np.ones((1, 2)))[0].tolist()
        ([[6.0, 0.0]], [[2.0]])
        >>> net.gradients["0.kernel"].tolist()
        [[3.0, 0.0]]
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = list(nodes)
        super().__init__({str(i): node for i, node in enumerate(self.nodes)})

    def forward(self, *inputs: np.ndarray) -> np.ndarray:
        for node in self.nodes:
            inputs = (node.forward(*inputs),)
        return inputs[0]

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        gradients = (gradient,)
        for node in reversed(self.nodes):
            gradients = node.backward(*gradients)
        return gradients


class Residual(_Network):
    r"""The sum of a body and a shortcut; backward sends the gradient through both and adds the results.

    .. math:: y = f(x) + g(x), \qquad \frac{\partial L}{\partial x} =
        \frac{\partial L}{\partial y} f'(x) + \frac{\partial L}{\partial y} g'(x)

    Args:
        body: f.
        shortcut: g; None: the identity, whose derivative is 1, so that the gradient passes unchanged.

    Shapes:
        f(x) and g(x) of equal shape.

    Raises:
        ValueError: if body and shortcut differ in shape.

    Source:
        He et al., "Deep residual learning for image recognition", 2016, equations 1 and 2.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Dense, Residual
        >>> net = Residual(Dense(kernel=np.array([[2.0]])))
        >>> net.forward(np.array([[3.0]])).tolist(), net.backward(np.ones((1, 1)))[0].tolist()
        ([[9.0]], [[3.0]])
    """

    def __init__(self, body: Node, shortcut: Node | None = None) -> None:
        self.body, self.shortcut = body, shortcut
        super().__init__({"body": body} if shortcut is None else {"body": body, "shortcut": shortcut})

    def forward(self, x: np.ndarray) -> np.ndarray:
        inner = self.body.forward(x)
        outer = x if self.shortcut is None else self.shortcut.forward(x)
        if inner.shape != outer.shape:
            raise ValueError(f"the body gives {inner.shape}, the shortcut {outer.shape}: they cannot be added")
        return inner + outer

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        # in reverse order: the shortcut ran last
        outer = gradient if self.shortcut is None else self.shortcut.backward(gradient)[0]
        (inner,) = self.body.backward(gradient)
        return (inner + outer,)


class Branches(_Network):
    r"""Several nodes with the same input; their outputs are joined, and their gradients are added.

    .. math:: y = (f_1(x), \dots, f_n(x)) \text{ or } \sum_i f_i(x), \qquad
        \frac{\partial L}{\partial x} = \sum_i \frac{\partial L}{\partial f_i} f_i'(x)

    Args:
        nodes: the branches.
        join: "concat" concatenates the channels, "sum" adds.

    Shapes:
        The outputs agree in all axes, with "concat" in all but the channels.

    Raises:
        ValueError: if there are no branches, or the join is unknown.

    Source:
        Szegedy et al., "Going deeper with convolutions", 2015, figure 2.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Branches, Identity, Square
        >>> net = Branches([Identity(), Square()])
        >>> net.forward(np.array([[3.0]])).tolist(), net.backward(np.ones((1, 2)))[0].tolist()
        ([[3.0, 9.0]], [[7.0]])
    """

    def __init__(self, nodes: Sequence[Node], join: str = "concat") -> None:
        self.nodes = list(nodes)
        if join not in ("concat", "sum") or not self.nodes:
            raise ValueError(f'{len(self.nodes)} branches with join {join!r}: give some, and "concat" or "sum"')
        super().__init__({str(i): node for i, node in enumerate(self.nodes)})
        self.join = Concatenate() if join == "concat" else Add()

    def forward(self, x: np.ndarray) -> np.ndarray:
        outputs = [node.forward(x) for node in self.nodes]
        if isinstance(self.join, Add) and len({y.shape for y in outputs}) > 1:
            raise ValueError(f"branches that are summed must agree in shape, not {[y.shape for y in outputs]}")
        return self.join.forward(*outputs)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        shares = self.join.backward(gradient)
        dx = 0
        for node, share in reversed(list(zip(self.nodes, shares, strict=True))):
            dx = dx + node.backward(share)[0]
        return (np.asarray(dx),)
