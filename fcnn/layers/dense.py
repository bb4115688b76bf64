"""Layers without geometry: dense, flatten, maxout, dropout, stochastic depth."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax

from .. import geometry, ops
from ..facts import EachPosition, Locality, WholeSpace
from ..geometry import Shape
from ..layer import Layer
from ..ops.cells import check_pieces
from ..ops.dense import check_rate, flattened
from ..types import Parameter, Params, State
from .hyperparameters import check_flag
from .initial import Initial, check, resolve


@dataclass(frozen=True, repr=False)
class Dense(Layer):
    r"""A matrix product: every output depends on every channel.

    .. math:: y_{\dots, o} = b_o + \sum_c x_{\dots, c} w_{c, o}

    On an input with space axes the same matrix is applied at every position, as by ``Conv(features, 1)``; put
    ``Flatten()`` before it to connect it to the whole space.

    Args:
        features: number of outputs.
        bias: whether a learned offset is added.
        kernel_init: "he_normal", any other name of ``jax.nn.initializers``, a name with arguments such as
            ("normal", 0.01), or a function (key, shape, dtype).
        bias_init: likewise.

    Shapes:
        x (batch, *space, channels) to (batch, *space, features);
        params["kernel"] (channels, features), params["bias"] (features,).

    Raises:
        ValueError: features below 1.

    Source:
        Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986, equation 1.

    Example:
        >>> Dense(10).out_shape((400,))
        (10,)
    """

    features: int
    _: KW_ONLY
    bias: bool = True
    kernel_init: Initial = "he_normal"
    bias_init: Initial = "zeros"

    def check(self) -> dict[str, Any]:
        return {
            "features": geometry.integer(self.features, "features"),
            "bias": check_flag(self.bias, "bias"),
            "kernel_init": check(self.kernel_init, "kernel_init"),
            "bias_init": check(self.bias_init, "bias_init"),
        }

    def infer_shape(self, *shapes: Shape) -> Shape:
        return (*shapes[0][:-1], self.features)

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        found = {"kernel": Parameter((shapes[0][-1], self.features), resolve(self.kernel_init), ("in", "out"))}
        if self.bias:
            found["bias"] = Parameter((self.features,), resolve(self.bias_init), ("out",))
        return found

    def locality(self, shape: Shape) -> Locality:
        return EachPosition()

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(shape) * self.features

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.dense(inputs[0], params["kernel"], params.get("bias"))


@dataclass(frozen=True, repr=False)
class Flatten(Layer):
    """Flatten each example to one vector, with the channels varying fastest; or flatten some adjacent axes only.

    Args:
        first: the first axis of x to flatten, where axis 0 is the batch; negative numbers count from the end. PyTorch's
            ``start_dim``.
        last: the last axis to flatten, PyTorch's ``end_dim``.

    Shapes:
        x (batch, *space, channels) to (batch, product of space and channels); the axes before ``first`` and after
        ``last`` are kept.

    Raises:
        ValueError: axes that x does not have.

    Example:
        >>> Flatten().out_shape((5, 5, 16))
        (400,)
        >>> Flatten(first=2).out_shape((10, 5, 5, 16)), Flatten(last=2).out_shape((5, 5, 16))
        ((10, 400), (25, 16))
    """

    _: KW_ONLY
    first: int = 1
    last: int = -1

    def check(self) -> dict[str, Any]:
        return {name: geometry.integer(getattr(self, name), name, -8) for name in ("first", "last")}

    def infer_shape(self, *shapes: Shape) -> Shape:
        return flattened(shapes[0], self.first, self.last)

    def locality(self, shape: Shape) -> Locality:
        return WholeSpace(
            "joins all positions, so the network is made for one size of input",
            "use it at every position by fcnn.Scan(net, window), or as convolutions by fcnn.fully_convolutional",
        )

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.flatten(inputs[0], first=self.first, last=self.last)


@dataclass(frozen=True, repr=False)
class Maxout(Layer):
    r"""The largest of every ``pieces`` neighbouring channels.

    .. math:: y_{\dots, i} = \max_{0 \le j < k} x_{\dots, k i + j}

    After ``Dense(k * n)`` or ``Conv(k * n, ...)`` it gives n units of k linear pieces each.

    Args:
        pieces: k, the number of channels in a group.

    Shapes:
        x (batch, *space, channels) to (batch, *space, channels // pieces).

    Raises:
        ValueError: pieces that do not divide the channels.

    Source:
        Goodfellow et al., "Maxout networks", 2013, section 3.

    Example:
        >>> Maxout(2).out_shape((8, 8, 6))
        (8, 8, 3)
    """

    pieces: int

    def check(self) -> dict[str, Any]:
        return {"pieces": geometry.integer(self.pieces, "pieces")}

    def infer_shape(self, *shapes: Shape) -> Shape:
        check_pieces(shapes[0][-1], self.pieces)
        return (*shapes[0][:-1], shapes[0][-1] // self.pieces)

    def locality(self, shape: Shape) -> Locality:
        return EachPosition()

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.maxout(inputs[0], self.pieces)


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    r"""In training, set a random fraction of the input to zero and scale the rest; at inference, do nothing.

    .. math:: y = \frac{m}{1 - r} x, \qquad m \sim \mathrm{Bernoulli}(1 - r)

    Args:
        rate: r, the fraction to drop, in [0, 1).
        whole_channels: draw one m for all positions of a channel of an example.

    Shapes:
        x (batch, *space, channels) to the same.

    Raises:
        ValueError: a rate outside [0, 1); in training, no key.

    Source:
        Srivastava et al., "Dropout", 2014, sections 4 and 10;
        Tompson et al., "Efficient object localization", 2015, section 3.2, for whole channels.

    Example:
        >>> net = Dropout(0.5)
        >>> x = jax.numpy.ones((1, 4))
        >>> net.apply({}, x).tolist()
        [[1.0, 1.0, 1.0, 1.0]]
        >>> y, state = net.apply_train({}, x, key=jax.random.key(0))
        >>> set(y.ravel().tolist()) <= {0.0, 2.0}
        True
    """

    rate: float
    _: KW_ONLY
    whole_channels: bool = False

    def check(self) -> dict[str, Any]:
        check_flag(self.whole_channels, "whole_channels")
        return {"rate": check_rate(self.rate)}

    def needs_key(self) -> bool:
        return self.rate > 0

    def locality(self, shape: Shape) -> Locality:
        return EachPosition(vectors=False)

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def forward_eval(self, params: Params, state: State, *inputs: jax.Array) -> jax.Array:
        return inputs[0]

    def forward_train(
        self, params: Params, state: State, key: jax.Array | None, *inputs: jax.Array
    ) -> tuple[jax.Array, State]:
        if key is None:  # a rate of 0 draws nothing
            return inputs[0], state
        return ops.dropout(key, inputs[0], self.rate, whole_channels=self.whole_channels), state


@dataclass(frozen=True, repr=False)
class StochasticDepth(Layer):
    r"""In training, drop the branch that it ends for a random fraction of the examples; at inference, do nothing.

    .. math:: y_n = \frac{m_n}{1 - r} x_n, \qquad m_n \sim \mathrm{Bernoulli}(1 - r)

    Put it last in the body of a ``residual``; a dropped example takes only the shortcut.

    Args:
        rate: r, the fraction of examples to drop, in [0, 1). Networks usually increase it from block to block.

    Shapes:
        x (batch, *space, channels) to the same.

    Raises:
        ValueError: a rate outside [0, 1); in training, no key.

    Source:
        Huang et al., "Deep networks with stochastic depth", 2016, section 3; torchvision.ops.StochasticDepth.

    Example:
        >>> import fcnn
        >>> block = fcnn.residual(fcnn.serial(fcnn.Conv(8, 3, padding="SAME"), jax.nn.relu, StochasticDepth(0.1)))
        >>> block.out_shape((14, 14, 8))
        (14, 14, 8)
        >>> y, state = StochasticDepth(0.5).apply_train({}, jax.numpy.ones((64, 2)), key=jax.random.key(0))
        >>> sorted({tuple(row) for row in y.tolist()})
        [(0.0, 0.0), (2.0, 2.0)]
    """

    rate: float

    def check(self) -> dict[str, Any]:
        return {"rate": check_rate(self.rate)}

    def needs_key(self) -> bool:
        return self.rate > 0

    def locality(self, shape: Shape) -> Locality:
        return EachPosition(vectors=False)

    def multiply_adds(self, shape: Shape) -> int:
        return 0

    def forward_eval(self, params: Params, state: State, *inputs: jax.Array) -> jax.Array:
        return inputs[0]

    def forward_train(
        self, params: Params, state: State, key: jax.Array | None, *inputs: jax.Array
    ) -> tuple[jax.Array, State]:
        if key is None:  # a rate of 0 draws nothing
            return inputs[0], state
        return ops.stochastic_depth(key, inputs[0], self.rate), state
