"""What every tool is tried on: all cases, empty subclasses, subclasses that compute something else, layers of users."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from cases import CASES, IMAGE, SOUND, VECTOR, Case
from jax import lax

import fcnn
from fcnn import facts, geometry
from fcnn.layer import Layer


def leaf(net):
    """Whether a network is one public layer, and not a composition."""
    return getattr(fcnn, type(net).__name__, None) is type(net)


def as_kind(kind, layer):
    """A layer of another class with the hyperparameters of a layer."""
    return kind(**{field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)})


def empty(layer):
    """The same layer as an instance of a subclass that changes nothing."""
    return as_kind(type(f"Empty{type(layer).__name__}", (type(layer),), {"__module__": __name__}), layer)


def doubled(layer):
    """A layer whose class overrides what computes, to twice as much."""
    kind = type(layer)

    def forward(self, params, *inputs):
        return jax.tree.map(lambda y: 2 * y, kind.forward(self, params, *inputs))

    def forward_eval(self, params, state, *inputs):
        return 2 * kind.forward_eval(self, params, state, *inputs)

    def forward_train(self, params, state, key, *inputs):
        y, state = kind.forward_train(self, params, state, key, *inputs)
        return 2 * y, state

    def run(self, context, params, state, inputs):
        y, state = kind.run(self, context, params, state, inputs)
        return 2 * y, state

    if kind is fcnn.Scan:
        methods = {"run": run}
    elif kind.forward is not Layer.forward:
        methods = {"forward": forward}
    else:
        methods = {"forward_eval": forward_eval, "forward_train": forward_train}
    return as_kind(type(f"Doubled{kind.__name__}", (kind,), {"__module__": __name__, **methods}), layer)


# Layers of a user's own: each with what it states, and, where the name ends in Unstated, without a word.


@dataclass(frozen=True)
class Mixer(fcnn.Layer):
    """Each position by itself, with a kernel over the channels."""

    features: int

    def infer_shape(self, shape):
        return (*shape[:-1], self.features)

    def parameters(self, shape):
        init = jax.nn.initializers.normal(0.5)
        return {"kernel": fcnn.Parameter((shape[-1], self.features), init, ("in", "out"))}

    def locality(self, shape):
        return facts.EachPosition()

    def forward(self, params, x):
        return jnp.sin(x) @ params["kernel"]


@dataclass(frozen=True)
class MixerUnstated(Mixer):
    def locality(self, shape):
        return None


@dataclass(frozen=True)
class Window(fcnn.Layer):
    """A convolution that is written down in JAX."""

    features: int
    kernel: int = 3
    stride: int = 1
    padding: str = "VALID"
    dilation: int = 1

    def _windows(self, shape):
        return geometry.slide(shape[:-1], self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation)

    def infer_shape(self, shape):
        return (*self._windows(shape).out, self.features)

    def parameters(self, shape):
        sizes = self._windows(shape).kernel
        axes = (*["space"] * len(sizes), "in", "out")
        init = jax.nn.initializers.normal(0.5)
        return {"kernel": fcnn.Parameter((*sizes, shape[-1], self.features), init, axes)}

    def locality(self, shape):
        return facts.SlidingWindow(self._windows(shape))

    def multiply_adds(self, shape):
        windows = self._windows(shape)
        out, size = jnp.prod(jnp.array(windows.out)), jnp.prod(jnp.array(windows.kernel))
        return int(out * size) * shape[-1] * self.features

    def forward(self, params, x):
        windows = self._windows(x.shape[1:])
        order = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}[x.ndim - 2]
        return lax.conv_general_dilated(
            x,
            params["kernel"],
            windows.stride,
            windows.pads,
            rhs_dilation=windows.dilation,
            dimension_numbers=order,
        )


@dataclass(frozen=True)
class WindowUnstated(Window):
    def locality(self, shape):
        return None

    def multiply_adds(self, shape):
        return None


@dataclass(frozen=True)
class Centre(fcnn.Layer):
    """Sees the whole space."""

    def locality(self, shape):
        return facts.WholeSpace("subtracts the mean of all positions", "leave it out")

    def forward(self, params, x):
        return x - x.mean(tuple(range(1, x.ndim - 1)), keepdims=True)


@dataclass(frozen=True)
class CentreUnstated(Centre):
    def locality(self, shape):
        return None


@dataclass(frozen=True)
class Unshuffle(fcnn.Layer):
    """Reshapes: two samples along every axis of the space become channels."""

    def infer_shape(self, shape):
        return (*(n // 2 for n in shape[:-1]), shape[-1] * 2 ** (len(shape) - 1))

    def forward(self, params, x):
        space, rank = x.shape[1:-1], x.ndim - 2
        x = x.reshape(x.shape[0], *(size for n in space for size in (n // 2, 2)), x.shape[-1])
        x = x.transpose(0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1)
        return x.reshape(*x.shape[: 1 + rank], -1)


@dataclass(frozen=True)
class Running(fcnn.Layer):
    """One with state."""

    def statistics(self, shape):
        return {"mean": fcnn.Parameter(shape[-1:], jax.nn.initializers.ones)}

    def locality(self, shape):
        return facts.EachPosition()

    def forward_train(self, params, state, key, x):
        return x - state["mean"], {"mean": 0.9 * state["mean"] + 0.1 * x.reshape(-1, x.shape[-1]).mean(0)}

    def forward_eval(self, params, state, x):
        return x - state["mean"]


@dataclass(frozen=True)
class Noise(fcnn.Layer):
    """One with a key."""

    def needs_key(self):
        return True

    def locality(self, shape):
        return facts.EachPosition(vectors=False)

    def forward_train(self, params, state, key, x):
        return x + jax.random.normal(key, x.shape, x.dtype), state

    def forward_eval(self, params, state, x):
        return jnp.cos(x)


@dataclass(frozen=True)
class Gate(fcnn.Layer):
    """One of two inputs."""

    inputs = 2

    def infer_shape(self, shape, other):
        return shape

    def parameters(self, shape, other):
        return {"gain": fcnn.Parameter(shape[-1:], jax.nn.initializers.normal(0.5))}

    def forward(self, params, x, other):
        return x * jnp.tanh(other * params["gain"])


@fcnn.graph(a=fcnn.Conv(3, 3, padding="SAME"), b=Mixer(3), gate=Gate())
def gated(layer, x):
    return layer.gate(layer.a(x), layer.b(x))


MADE = {
    "user's mixer": Case(Mixer(3), IMAGE),
    "user's mixer in a chain": Case(fcnn.serial(fcnn.Conv(3, 2), Mixer(3), jnp.tanh), IMAGE),
    "user's mixer unstated": Case(MixerUnstated(3), IMAGE),
    "user's window": Case(Window(3), IMAGE),
    "user's window of sound": Case(Window(3, 2, 2, "SAME", 1), SOUND),
    "user's window in a chain": Case(fcnn.serial(Window(3, 2), jnp.tanh, fcnn.Conv(2, 2)), IMAGE),
    "user's window in a repeat": Case(fcnn.repeat(Window(4, 3, padding="SAME"), 2), IMAGE),
    "user's window unstated": Case(WindowUnstated(3, 2), IMAGE),
    "user's whole space": Case(fcnn.serial(Centre(), fcnn.Conv(2, 2)), IMAGE),
    "user's whole space unstated": Case(fcnn.serial(CentreUnstated(), fcnn.Conv(2, 2)), IMAGE),
    "user's reshape": Case(fcnn.serial(Unshuffle(), fcnn.Conv(2, 2)), (6, 8, 4)),
    "user's state": Case(fcnn.serial(fcnn.Conv(3, 2), Running()), IMAGE),
    "user's key": Case(fcnn.serial(fcnn.Conv(3, 2), Noise()), IMAGE),
    "user's two inputs": Case(gated, IMAGE),
    "user's two inputs alone": Case(Gate(), VECTOR, (VECTOR,)),
}

LEAVES = {name: case for name, case in CASES.items() if leaf(case.net)}
#: layers that are cases only as parts of networks
PARTS = {
    "prelu alone": Case(fcnn.PReLU(), IMAGE),
    "stochastic depth alone": Case(fcnn.StochasticDepth(0.4), IMAGE),
    "max unpool alone": Case(fcnn.MaxUnpool(2), (3, 2, 4), ((6, 4, 4),)),
}
EMPTY = {f"empty {name}": dataclasses.replace(case, net=empty(case.net)) for name, case in (LEAVES | PARTS).items()}
DOUBLED = {
    f"doubled {name}": dataclasses.replace(case, net=doubled(case.net)) for name, case in (LEAVES | PARTS).items()
}
SUBJECTS = {**CASES, **PARTS, **EMPTY, **DOUBLED, **MADE}
