"""When layers are equal: by type, sign and structure, in compiled functions, caches, repr and pickles."""

import copy
import enum
import functools
import pickle
import sys
import types
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn
from fcnn.data import augment
from fcnn.identity import Key, cached

X = np.ones((2, 3), "float32")
NAN = float("nan")


class Colour(enum.IntEnum):
    RED = 1


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclass(frozen=True)
class Options:
    """A hyperparameter with parts."""

    value: Any


@dataclass(frozen=True)
class Told(fcnn.Layer):
    """A layer that says by its output what its hyperparameter is."""

    value: Any
    extra: Any = field(default=1, kw_only=True)

    def forward(self, params, x):
        return x * 0 + told(self.value)


def told(value):
    """A number for every value that is to be told from the others."""
    return jnp.float32(sum((i + 1) * ord(c) for i, c in enumerate(f"{type(value).__name__}{value!r}")))


def plus(x, amount=0):
    return x * 0 + told(amount)


#: values that Python takes for equal, or that are equal here and not in Python
DIFFERENT = [
    (1, True), (0, False), (1, 1.0), (0.0, -0.0), (1.0, np.float32(1)), (1.0, np.float64(1)),
    (np.int32(1), np.int64(1)), (1, np.int32(1)), (True, np.bool_(True)), ("a", np.str_("a")), (1, Colour.RED),
    ((1, 2), Pair(1, 2)), (0j, -0j), (complex(0.0, 0.0), complex(0.0, -0.0)), (np.float32(0), np.float32(-0.0)),
    (np.dtype("float32"), np.dtype(">f4")), (frozenset({1}), frozenset({True})),
]  # fmt: skip
WRAPPED = {
    "alone": lambda v: v,
    "in a tuple": lambda v: ("a", (v,)),
    "in a named tuple": lambda v: Pair(0, v),
    "in a dataclass": lambda v: Options((v,)),
    "in a partial": lambda v: functools.partial(plus, amount=v),
    "in a layer": lambda v: Told(v),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("pair", DIFFERENT, ids=repr)
def test_values_that_python_takes_for_equal_make_different_layers(wrap, pair):
    a, b = (Told(wrap(value)) for value in pair)
    assert a != b
    assert a == Told(wrap(pair[0]))
    assert hash(a) == hash(Told(wrap(pair[0])))
    nets = [fcnn.serial(fcnn.residual(layer)) for layer in (a, b, Told(wrap(pair[0])))]
    assert nets[0] != nets[1]
    assert nets[0] == nets[2]


@pytest.mark.parametrize("nan", [NAN, np.float32("nan"), complex(0, NAN), (NAN,), Options(NAN)], ids=repr)
def test_nan_is_nan(nan):
    again = pickle.loads(pickle.dumps(nan))
    assert Told(nan) == Told(again)
    assert hash(Told(nan)) == hash(Told(again))
    assert Told(nan) != Told(0.0)


@pytest.mark.parametrize("pair", [(True, 1), (0.0, -0.0), ((1,), (True,))], ids=repr)
def test_a_compiled_function_computes_with_the_network_that_it_is_given(pair):
    makers = [
        Told,
        lambda v: fcnn.serial(functools.partial(plus, amount=v)),
        lambda v: fcnn.residual(Told(v)),
        lambda v: fcnn.remat(Told(v)),
        lambda v: fcnn.repeat(Told(v), 2),
        lambda v: fcnn.branches(Told(v)),
        lambda v: fcnn.graph(a=Told(v))(first),
        lambda v: fcnn.graph(a=Told(0))(functools.partial(wiring, amount=v)),
    ]
    for make in makers:
        apply = jax.jit(lambda net, x: net.apply({}, x))
        shared = jax.jit(lambda x, net: net.apply({}, x), static_argnames="net")
        for value in pair:
            net, expected = make(value), np.asarray(make(value).apply({}, X))
            np.testing.assert_array_equal(apply(net, X), expected)
            np.testing.assert_array_equal(shared(X, net=net), expected)
        assert not np.array_equal(make(pair[0]).apply({}, X), make(pair[1]).apply({}, X))


def first(layer, x):
    return layer.a(x)


def wiring(layer, x, amount=0):
    return plus(layer.a(x), amount)


@dataclass(frozen=True)
class Widened(fcnn.Layer):
    """A layer whose output shape depends on the type of its hyperparameter."""

    value: Any

    def infer_shape(self, shape):
        return (*shape[:-1], 2 if isinstance(self.value, bool) else 3)

    def forward(self, params, x):
        return jnp.zeros((*x.shape[:-1], 2 if isinstance(self.value, bool) else 3))


def test_the_caches_of_shapes_tell_the_layers_apart():
    for make in (lambda v: fcnn.serial(Widened(v)), lambda v: fcnn.residual(Widened(v), Widened(v))):
        assert make(True).out_shape((5,)) == (2,)
        assert make(1).out_shape((5,)) == (3,)
        assert make(True).apply({}, X).shape == (2, 2)
        assert make(1).apply({}, X).shape == (2, 3)
    net = fcnn.serial(fcnn.Dense(2), functools.partial(jnp.sum, axis=1, keepdims=True))
    other = fcnn.serial(fcnn.Dense(2), functools.partial(jnp.sum, axis=1, keepdims=1))
    assert net != other


@dataclass(frozen=True)
class Scaled:
    """A loss, or a metric, of the user's own."""

    factor: Any

    def __call__(self, outputs, targets):
        return jnp.square(outputs - targets) * 0 + told(self.factor)


@dataclass(frozen=True)
class Marked(augment.Augmentation):
    """An augmentation whose result tells the type of its number."""

    value: Any

    def __call__(self, key, batch):
        return batch[0], batch[1] * 0 + told(self.value)


def test_training_and_evaluation_use_the_loss_metric_and_augmentation_that_they_are_given():
    net, data = fcnn.Dense(1), (X, np.ones((2, 1), "float32"))
    params = net.init(jax.random.key(0), (3,))
    options = {"optimizer": optax.sgd(0.0), "epochs": 1, "key": jax.random.key(0), "progress": False, "batch_size": 2}
    for value in (True, 1, 0.0, -0.0):
        expected = pytest.approx(float(told(value)))
        found = fcnn.evaluate(net, params, data, loss=Scaled(value), metrics={"told": Scaled(value)})
        assert found["loss"] == expected
        assert found["told"] == expected
    optimizer = options.pop("optimizer")
    steps = [
        fcnn.training.make_step(net, optimizer, Scaled(value), Marked(value), metrics={"told": Scaled(value)})
        for value in (True, 1)
    ]
    assert steps[0] is not steps[1]
    again = fcnn.training.make_step(net, optimizer, Scaled(True), Marked(True), metrics={"told": Scaled(True)})
    assert again is steps[0]
    assert Marked(True) != Marked(1)
    assert augment.compose(Marked(0.0)) != augment.compose(Marked(-0.0))
    assert augment.compose(Marked(NAN)) == augment.compose(Marked(float("nan")))


def test_own_equality_of_a_users_class_and_fields_that_do_not_count_are_respected():
    @dataclass(frozen=True)
    class Own(fcnn.Layer):
        value: Any
        note: str = field(default="", compare=False)

        def __eq__(self, other):
            return isinstance(other, Own)

        def __hash__(self):
            return 7

    @dataclass(frozen=True)
    class Noted(fcnn.Layer):
        value: Any
        note: str = field(default="", compare=False)

    assert Own(1) == Own(2)
    assert hash(Own(1)) == 7
    assert Noted(1, "a") == Noted(1, "b")
    assert Noted(1) != Noted(True)
    assert Noted(1) != Told(1)
    assert (Told(1) == 3) is False


def test_numbers_of_numpy_stand_for_the_same_hyperparameters_of_the_librarys_layers():
    assert fcnn.Conv(np.int64(6), np.int8(3)) == fcnn.Conv(6, 3)
    assert fcnn.Dropout(np.float64(0.5)) == fcnn.Dropout(0.5)
    assert fcnn.LpPool(2, power=2) == fcnn.LpPool(2, power=2.0)
    assert fcnn.BatchNorm(momentum=1, epsilon=1) == fcnn.BatchNorm(momentum=1.0, epsilon=1.0)


VALUES = [
    1, True, 0.0, -0.0, NAN, -float("inf"), np.float32(1.5), np.float32("nan"), np.float64(-0.0), np.int8(3),
    np.bool_(False), np.str_("a"), "a'b", None, complex(0.0, -0.0), complex(NAN, 1), np.complex64(1 - 2j), Colour.RED,
    Pair(1, (2.0,)), frozenset({1, 2}), frozenset(), (), (1,), jnp.dtype("bfloat16"), Options(True),
    functools.partial(plus, amount=-0.0),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=[type(value).__name__ for value in VALUES])
def test_repr_and_pickle_rebuild_an_equal_layer(value):
    names = {"fcnn": fcnn, "jax": jax, "numpy": np, "functools": functools, "tests": sys.modules[__name__]}
    names |= vars(sys.modules[__name__])
    for layer in (Told(value), Told(0, extra=value), fcnn.serial(Told(0, extra=value), a=fcnn.residual(Told(value)))):
        made = eval(repr(layer).replace(f"{__name__}.", ""), names)
        for again in (made, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), copy.copy(layer)):
            assert again == layer
            assert hash(again) == hash(layer)
            assert repr(again) == repr(layer)
    assert replace(Told(1), value=value) == Told(value)


def test_equality_is_cheap_after_the_first_time_and_deep_networks_compare():
    def deep():
        net = fcnn.Dense(3)
        for _ in range(3000):
            net = fcnn.residual(net)
        return net

    a, b = deep(), deep()
    assert a == b
    assert hash(a) == hash(b)
    assert a != fcnn.residual(b)
    assert a._identity._children is b._identity._children


def test_a_cache_tells_arguments_apart():
    calls = []

    @cached(maxsize=8)
    def function(*args, **options):
        calls.append((args, options))
        return len(calls)

    assert [function(1), function(True), function(1), function(a=0.0), function(a=-0.0)] == [1, 2, 1, 3, 4]
    assert Key(1, (2,)) != Key(1, 2)
    assert Key((), (1,)) != Key((1,), ())


# Pickles of what is not there


def test_unpickling_a_network_whose_function_is_gone_says_which(monkeypatch):
    module = types.ModuleType("my_functions")
    exec("def squash(x):\n    return x\n\ndef wire(layer, x):\n    return layer.a(x)", module.__dict__)
    monkeypatch.setitem(sys.modules, "my_functions", module)
    nets = [
        fcnn.serial(name=module.squash),
        fcnn.serial(functools.partial(module.squash)),
        fcnn.graph(a=fcnn.Dense(2))(module.wire),
        fcnn.Dense(3, kernel_init=module.squash),
    ]
    decorated = fcnn.graph(a=fcnn.Dense(2))(module.wire)
    decorated.wiring.__module__ = "my_functions"
    pickles = [pickle.dumps(net) for net in nets]
    module.wire = decorated  # as a decorator would
    pickles.append(pickle.dumps(decorated))
    assert [pickle.loads(data) for data in pickles[:2]] == nets[:2]
    del module.squash, module.wire
    for data in pickles:
        with pytest.raises(pickle.UnpicklingError, match=r"my_functions\.(squash|wire), which cannot be imported"):
            pickle.loads(data)


def test_a_lambda_is_refused_by_pickle_and_taken_by_cloudpickle():
    cloudpickle = pytest.importorskip("cloudpickle")
    factor = 3.0

    @dataclass(frozen=True)
    class Local(fcnn.Layer):
        amount: float

        def forward(self, params, x):
            return x + self.amount

    net = fcnn.serial(lambda x: factor * x, functools.partial(lambda x, k: x + k, k=1.0), fcnn.residual(Local(2.0)))
    with pytest.raises(pickle.PicklingError, match=r"the function .*lambda.* cannot be pickled.*define it with def"):
        pickle.dumps(net)
    with pytest.raises(pickle.PicklingError, match="cannot be pickled"):
        pickle._Pickler(__import__("io").BytesIO()).dump(fcnn.serial(lambda x: x))
    again = pickle.loads(cloudpickle.dumps(net))
    np.testing.assert_array_equal(again.apply({}, X), net.apply({}, X))
    assert pickle.loads(cloudpickle.dumps(fcnn.serial(jax.nn.relu, fcnn.Dense(3)))) == fcnn.serial(
        jax.nn.relu, fcnn.Dense(3)
    )
