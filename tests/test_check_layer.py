"""The contract test for layers of one's own: it passes what is right and says what is broken."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES

import fcnn
from fcnn import Parameter
from fcnn.testing import check_layer

KERNEL = jax.nn.initializers.normal(0.5)


@dataclass(frozen=True)
class Scale(fcnn.Layer):
    """Right in everything; the layers below break it in one thing each."""

    start: float = 1.5

    def parameters(self, shape):
        return {"scale": Parameter(shape[-1:], KERNEL)}

    def forward(self, params, x):
        return x * jnp.sin(params["scale"])


@dataclass(frozen=True)
class Seen(fcnn.Layer):
    """State: how far the inputs have gone."""

    def statistics(self, shape):
        return {"mean": Parameter(shape[-1:], jax.nn.initializers.zeros)}

    def forward_train(self, params, state, key, x):
        new = 0.9 * state["mean"] + 0.1 * x.astype(state["mean"].dtype).reshape(-1, x.shape[-1]).mean(0)
        return x, {"mean": new.astype(state["mean"].dtype)}

    def forward_eval(self, params, state, x):
        return x - state["mean"].astype(x.dtype)


@dataclass(frozen=True)
class Noise(fcnn.Layer):
    def needs_key(self):
        return True

    def forward_train(self, params, state, key, x):
        return x + jax.random.normal(key, x.shape, x.dtype), state

    def forward_eval(self, params, state, x):
        return x


@dataclass(frozen=True)
class Choice(fcnn.Layer):
    """Takes integers."""

    floating = False
    count: int

    def infer_shape(self, shape):
        return (*shape, 2)

    def parameters(self, shape):
        return {"table": Parameter((self.count, 2), KERNEL)}

    def forward(self, params, x):
        return params["table"][x]


def test_what_keeps_the_contract_passes():
    check_layer(Scale(), (3, 4))
    check_layer(fcnn.serial(Seen(), Noise(), fcnn.residual(Scale())), (2, 3))
    check_layer(Choice(5), (3,), inputs=(np.array([[0, 1, 4], [2, 2, 3], [1, 0, 0]]),))
    two = fcnn.graph(a=fcnn.Dense(3))(lambda layer, x, y: {"sum": layer.a(x) + y, "product": y * y})
    check_layer(two, (2,), (3,))


@pytest.mark.parametrize("name", ["conv of sound", "batch norm", "dropout", "graph sharing", "serial of a function"])
def test_what_the_library_has_passes(name):
    check_layer(CASES[name].net, *CASES[name].shapes)


@jax.custom_vjp
def reversible(x):
    return jnp.tanh(x)


reversible.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))


@jax.custom_jvp
def halved(x):
    return jnp.tanh(x)


halved.defjvp(lambda x, t: (jnp.tanh(x[0]), 0.5 * t[0]))


@dataclass(frozen=True)
class Depends(Scale):
    def forward(self, params, x):
        return x - x.mean(0, keepdims=True)


@dataclass(frozen=True)
class Widens(Scale):
    def forward(self, params, x):
        return x.astype("float32") * params["scale"].astype("float32")


@dataclass(frozen=True)
class Narrows(Scale):
    def forward(self, params, x):
        return (x * params["scale"]).astype("bfloat16").astype(x.dtype)


@dataclass(frozen=True)
class Counts(Seen):
    def forward_train(self, params, state, key, x):
        return x, {"mean": (state["mean"] + 1).astype("bfloat16")}


@dataclass(frozen=True)
class WrongGradient(Scale):
    def forward(self, params, x):
        return halved(x) * params["scale"]


@dataclass(frozen=True)
class NoForwardMode(Scale):
    def forward(self, params, x):
        return reversible(x) * params["scale"]


@dataclass(frozen=True)
class Remembers(Scale):
    def forward(self, params, x):
        calls.append(1)
        return x * params["scale"] * len(calls)


@dataclass(frozen=True)
class OtherRepr(Scale):
    def __repr__(self):
        return "OtherRepr(2.0)"


@dataclass(frozen=True)
class NoCode(Scale):
    def __repr__(self):
        return "no code"


@dataclass(frozen=True)
class NeverTheSame(Scale):
    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)


@dataclass(frozen=True)
class Drawn(Scale):
    def parameters(self, shape):
        calls.append(1)
        start = float(len(calls))
        return {"scale": Parameter(shape[-1:], lambda key, shape, dtype: jnp.full(shape, start, dtype))}


@dataclass(frozen=True)
class LooksAtValues(Scale):
    def forward(self, params, x):
        return x * params["scale"] if float(x.sum()) > -1e9 else x


@dataclass(frozen=True)
class OtherShape(Scale):
    def infer_shape(self, shape):
        return (*shape[:-1], 7)


calls = []
BROKEN = [
    (Depends(), AssertionError, "depends: at inference an example depends on the others in its batch"),
    (Widens(), AssertionError, "params and x of bfloat16 give y of float32"),
    (Narrows(), AssertionError, "by finite differences"),
    (Counts(), AssertionError, r"training changes the state \['mean'\] from float32 \(4,\) to bfloat16"),
    (WrongGradient(), AssertionError, "by jax.grad, .* by finite differences"),
    (NoForwardMode(), TypeError, "forward-mode|jvp"),
    (Remembers(), AssertionError, "differ|other numbers"),
    (OtherRepr(), AssertionError, "repr rebuilds a different layer"),
    (NoCode(), AssertionError, "repr is not code"),
    (NeverTheSame(), AssertionError, "rebuilds a different layer"),
    (Drawn(), AssertionError, r"other values for \['scale'\] with the same key"),
    (LooksAtValues(), Exception, "Concretization|traced|tracer"),
    (OtherShape(), ValueError, r"infer_shape says \(3, 7\) for one example, but forward returned \(3, 4\)"),
]


@pytest.mark.parametrize(("layer", "kind", "says"), BROKEN, ids=lambda v: type(v).__name__)
def test_what_breaks_the_contract_is_said(layer, kind, says):
    with pytest.raises(kind, match=says):
        check_layer(layer, (3, 4))


def test_gradients_and_examples_apart_can_be_left_out_and_what_is_no_layer_is_refused():
    check_layer(WrongGradient(), (3, 4), gradients=False)
    check_layer(Depends(), (3, 4), apart=False)
    with pytest.raises(TypeError, match=r"takes a layer, not .*serial"):
        check_layer(jax.nn.relu, (3,))
