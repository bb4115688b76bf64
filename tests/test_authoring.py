"""Mistakes that authors of layers make: each is said in their own terms, with the path of the layer."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mistakes import images, refused

import fcnn
from fcnn import Parameter

ONES = jax.nn.initializers.ones
X = images(2, 5, 3)


def layer(**methods):
    """A layer with these methods, at the end of a network of two."""
    return dataclass(frozen=True)(type("Mine", (fcnn.Layer,), methods))()


def use(part, train=False, jit=False):
    net = fcnn.serial(jnp.tanh, part)
    params = {"mine1": part.init(jax.random.key(0), (5, 3))} if part.parameters((5, 3)) else {}
    state = {"mine1": part.init_state((5, 3))} if part.statistics((5, 3)) else {}
    call = net.apply_train if train else net.apply
    return (jax.jit(call) if jit else call)(params, X, state=state)


def double(self, params, x):
    return 2 * x


SHAPES = {
    "another shape": (
        {"infer_shape": lambda self, shape: (*shape[:-1], 7), "forward": double},
        (ValueError, "infer_shape says (5, 7) for one example, but forward returned (5, 3)"),
    ),
    "another rank": (
        {"forward": lambda self, params, x: x.mean(1)},
        (ValueError, "infer_shape says (5, 3)", "forward returned (3,)"),
    ),
    "half of the batch": ({"forward": lambda self, params, x: x[:1]}, (ValueError, "(1, 5, 3)", "batch of 2", "first")),
    "the batch is lost": ({"forward": lambda self, params, x: x.sum()}, (ValueError, "()", "the batch")),
    "nothing": ({"forward": lambda self, params, x: None}, (TypeError, "a NoneType", "must return an array")),
    "a float": ({"forward": lambda self, params, x: 2.0}, (TypeError, "a float", "must return an array")),
    "two arrays": ({"forward": lambda self, params, x: (x, x)}, (TypeError, "forward returned", "infer_shape says")),
    "no shape": (
        {"infer_shape": lambda self, shape: None, "forward": double},
        (TypeError, "infer_shape returned None", "tuple of whole numbers"),
    ),
    "half a size": (
        {"infer_shape": lambda self, shape: (2.5, 3), "forward": double},
        (TypeError, "infer_shape returned (2.5, 3)", "whole numbers"),
    ),
    "forward without params": (
        {"forward": lambda self, x: x},
        (TypeError, "forward of Mine takes (x), but is called with 2 arguments", "def forward(self, params, x)"),
    ),
    "infer_shape without shape": (
        {"infer_shape": lambda self: (3,), "forward": double},
        (TypeError, "infer_shape of Mine takes ()", "def infer_shape(self, shape)"),
    ),
    "no forward": ({}, (TypeError, "Mine defines no forward(self, params, x)")),
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("train", [False, True], ids=["use", "training"])
@pytest.mark.parametrize("name", SHAPES)
def test_what_forward_gives_is_compared_with_what_the_layer_declares(name, train, jit):
    methods, (kind, *says) = SHAPES[name]
    with refused(kind, "mine1", *says):
        use(layer(**methods), train, jit)


def test_shapes_as_lists_and_sizes_of_numpy_are_taken():
    part = layer(infer_shape=lambda self, shape: [np.int64(n) for n in shape], forward=double)
    np.testing.assert_array_equal(use(part), 2 * np.tanh(X))
    two = layer(
        infer_shape=lambda self, shape: {"a": shape, "b": shape[:1]},
        forward=lambda self, p, x: {"b": x[..., 0], "a": x},
    )
    assert use(two)["b"].shape == (2, 5)


def mean(shape):
    return {"mean": Parameter(shape[-1:], jax.nn.initializers.zeros)}


def training(answer, **more):
    return {
        "statistics": lambda self, shape: mean(shape),
        "forward_train": lambda self, params, state, key, x: answer(state, x),
        "forward_eval": lambda self, params, state, x: x,
        **more,
    }


TRAINING = {
    "y alone": (training(lambda state, x: x), (TypeError, "must return the pair (y, state)")),
    "no state": (training(lambda state, x: (x, None)), (TypeError, "NoneType as state", "the pair")),
    "an empty state": (training(lambda state, x: (x, {})), (ValueError, "a state of no entries", "'mean'")),
    "another entry": (
        training(lambda state, x: (x, {**state, "more": x})),
        (ValueError, "a state of 'mean' and 'more', but statistics declares 'mean'"),
    ),
    "another shape": (
        training(lambda state, x: (x, {"mean": x})),
        (ValueError, "mean has shape (2, 5, 3), but statistics declares (3,)"),
    ),
    "a number": (training(lambda state, x: (x, {"mean": 1.0})), (TypeError, "mean is a float, not an array")),
    "another kind": (
        training(lambda state, x: (x, {"mean": state["mean"].astype("int32")})),
        (TypeError, "mean has become int32 from float32"),
    ),
    "another output": (training(lambda state, x: (x[:, :2], state)), (ValueError, "forward_train returned (2, 3)")),
    "x and state the other way round": (training(lambda state, x: (state, x)), (TypeError, "forward_train returned")),
    "no key in the signature": (
        training(lambda s, x: (x, s), forward_train=lambda self, params, state, x: (x, state)),
        (TypeError, "forward_train of Mine takes (params, state, x)", "def forward_train(self, params, state, key, x)"),
    ),
    "draws without needs_key": (
        training(
            lambda s, x: (x, s),
            forward_train=lambda self, params, state, key, x: (x + jax.random.normal(key, x.shape, x.dtype), state),
        ),
        (ValueError, "draws random numbers, but needs_key does not say so", "def needs_key(self): return True"),
    ),
    "splits without needs_key": (
        training(
            lambda s, x: (x, s),
            forward_train=lambda self, params, state, key, x: (x * jax.random.uniform(jax.random.split(key)[0]), state),
        ),
        (ValueError, "needs_key"),
    ),
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", TRAINING)
def test_mistakes_in_training(name, jit):
    methods, (kind, *says) = TRAINING[name]
    with refused(kind, "mine1", *says):
        use(layer(**methods), train=True, jit=jit)


def test_only_one_mode():
    part = layer(forward_train=lambda self, params, state, key, x: (x, state))
    with refused(TypeError, "mine1", "defines no forward(self, params, x), and no forward_eval either"):
        use(part)
    np.testing.assert_array_equal(use(part, train=True)[0], np.tanh(X))


def test_errors_of_the_layers_own_stay_as_they_are():
    def fails(self, params, state, key, x):
        raise ValueError("my own words")

    with refused(ValueError, "mine1", "my own words"):
        use(layer(forward_train=fails, forward_eval=fails), train=True)

    def wrong(self, params, x):
        return len(3)

    with refused(TypeError, "mine1", "object of type 'int' has no len()"):
        use(layer(forward=wrong))


DECLARED = {
    "nothing": (lambda self, shape: None, "returned a NoneType; it must return a dict"),
    "a tuple": (lambda self, shape: (Parameter((3,), ONES),), "returned a tuple; it must return a dict"),
    "a Parameter": (lambda self, shape: Parameter((3,), ONES), "returned a Parameter; it must return a dict"),
    "an array": (lambda self, shape: {"scale": np.ones(3)}, "'scale' as an array of (3,)"),
    "a pair": (lambda self, shape: {"scale": ((3,), ONES)}, "'scale' as ((3,), "),
    "a shape": (lambda self, shape: {"scale": (3,)}, "'scale' as (3,)"),
    "a size": (lambda self, shape: {"scale": Parameter(3, ONES)}, "'scale' the shape 3; a shape is a tuple"),
    "no function": (lambda self, shape: {"scale": Parameter((3,), "ones")}, "'scale' the initialiser 'ones'"),
    "a slash": (lambda self, shape: {"a/b": Parameter((3,), ONES)}, "named 'a/b'"),
    "a number as name": (lambda self, shape: {1: Parameter((3,), ONES)}, "named 1"),
}


@pytest.mark.parametrize("method", ["parameters", "statistics"])
@pytest.mark.parametrize("name", DECLARED)
def test_what_a_layer_declares_is_a_dict_of_parameters(name, method):
    function, says = DECLARED[name]
    net = fcnn.serial(jnp.tanh, layer(**{method: function}, forward=double))
    first = net.init_state if method == "statistics" else lambda shape: net.init(jax.random.key(0), shape)
    for call in (lambda: first((5, 3)), lambda: net.apply({}, X)):
        with refused(TypeError, "mine1", f"{method} ", says):
            call()


def test_first_statistics_get_no_key_and_must_have_their_shape():
    for init, kind, says in (
        (jax.nn.initializers.normal(), TypeError, "gets no key"),
        (lambda key, shape, dtype: jnp.ones(()), ValueError, "returned an array of (), expected an array of (3,)"),
        (lambda key, shape, dtype: None, ValueError, "returned None of type NoneType"),
    ):
        part = layer(statistics=lambda self, shape, init=init: {"mean": Parameter((3,), init)}, forward=double)
        with refused(kind, "mine1", "the initialiser of mean", says):
            fcnn.serial(part).init_state((5, 3))


# Classes


def test_classes_that_are_no_frozen_dataclasses_are_refused_when_a_layer_is_made():
    class Plain(fcnn.Layer):
        def __init__(self, rate):
            self.rate = rate

    @dataclass
    class Thawed(fcnn.Layer):
        rate: float = 1.0

    class Forgot(fcnn.Conv):
        extra: int = 3

    with refused(TypeError, "plain", "not a frozen dataclass", "@dataclass(frozen=True)"):
        Plain(1)
    with refused(TypeError, "thawed", "not a frozen dataclass", "@dataclass(frozen=True)"):
        Thawed()
    with refused(TypeError, "forgot", "extra would be no hyperparameter", "@dataclass(frozen=True)"):
        Forgot(3, 3)

    class Methods(fcnn.Conv):
        """Changes what a layer does, and has no fields of its own."""

        constant: ClassVar[int] = 3

        def forward(self, params, *inputs):
            return 2 * super().forward(params, *inputs)

    net, plain = Methods(2, 1), fcnn.Conv(2, 1)
    assert net != plain
    params = net.init(jax.random.key(0), (4, 3))
    np.testing.assert_allclose(net.apply(params, X[:, :4]), 2 * plain.apply(params, X[:, :4]))


@pytest.mark.parametrize("name", ["init", "inputs", "parameters", "label", "forward"])
def test_fields_that_hide_what_every_layer_has_are_refused(name):
    kind = dataclass(frozen=True)(type("Hides", (fcnn.Layer,), {"__annotations__": {name: int}, name: 3}))
    with refused(TypeError, "hides", f"a field {name!r}", "another name"):
        kind()


def test_a_forgotten_super_of_post_init_changes_nothing():
    @dataclass(frozen=True)
    class Own(fcnn.Layer):
        size: object

        def __post_init__(self):
            object.__setattr__(self, "size", self.size or (3,))

        def check(self):
            return {"size": tuple(self.size)}

    assert Own(None) == Own([3])
    assert Own([3]).size == (3,)
    with refused(TypeError, "own", "size is a dict, which cannot be hashed"):

        @dataclass(frozen=True)
        class Holds(Own):
            def check(self):
                """Nothing."""

        Holds.__name__ = "Own"
        Holds({"a": 1})

    @dataclass(frozen=True)
    class Calls(fcnn.Layer):
        size: int

        def __post_init__(self):
            super().__post_init__()
            object.__setattr__(self, "size", self.size + 1)

    assert Calls(1) == Calls(1)
    assert Calls(1).size == 2
    assert hash(Calls(1)) != hash(Calls(2))
