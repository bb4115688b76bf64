"""Mistakes in what a network is given. Each is refused before any device computes, by a ValueError or TypeError that
names the layer by its path, shows the value, states the rule and offers a way out."""

import copy

import jax
import numpy as np
import pytest
from jax.nn import relu
from mistakes import (
    DEEP,
    DROPPED,
    IMAGES,
    NET,
    NORMED,
    NORMED_STATE,
    PARAMS,
    SHAPE,
    any_key,
    blank,
    changed,
    images,
    loses_the_batch,
    mistake,
    refused,
    returns_nothing,
    sum_of_two,
    wired,
)

import fcnn

USING = [
    mistake(
        "a single grey image",
        lambda: NET.apply(PARAMS, images(12, 12)),
        *(ValueError, "conv1", "(12, 12)", "2 space dimensions", "needs a batch axis, x[None]"),
    ),
    mistake(
        "one example without batch axis",
        lambda: NET.apply(PARAMS, images(12, 12, 1)),
        *(ValueError, "conv1", "(12, 12, 1)", "2 space dimensions", "needs a batch axis, x[None]"),
    ),
    mistake(
        "a single feature vector",
        lambda: fcnn.Dense(3).apply(blank(fcnn.Dense(3), (4,)), images(4)),
        *(ValueError, "dense", "(4,)", "expected (batch, *space, channels)", "x[None]"),
    ),
    mistake("a nested list", lambda: NET.apply(PARAMS, [[1.0]]), TypeError, "serial", "a list", "use jnp.asarray"),
    mistake(
        "another number of channels",
        lambda: NET.apply(PARAMS, images(2, 12, 12, 3)),
        *(
            ValueError,
            "conv1",
            "(2, 12, 12, 3)",
            "(5, 5, 1, 6)",
            "the kernel takes 1 channels",
            "make new ones by init",
        ),
    ),
    mistake(
        "channels first",
        lambda: NET.apply(PARAMS, images(2, 1, 12, 12)),
        *(ValueError, "conv1", "(2, 1, 12, 12)", "channels last"),
    ),
    mistake(
        "uint8 images",
        lambda: NET.apply(PARAMS, images(2, *SHAPE, dtype="uint8")),
        *(TypeError, "conv1", "uint8", "floating point", "x.astype('float32') / 255"),
    ),
    mistake(
        "an image of another size before Flatten and Dense",
        lambda: NET.apply(PARAMS, images(2, 16, 16, 1)),
        *(ValueError, "dense1", "(64, 10)", "(256, 10)", "make new ones by init, or give the input they were made for"),
    ),
    mistake(
        "an image too small for the network",
        lambda: NET.apply(PARAMS, images(2, 8, 8, 1)),
        *(ValueError, "conv2", "kernel (5, 5)", "(4, 4", "a smaller kernel"),
    ),
    mistake(
        "two inputs to a network of one",
        lambda: NET.apply(PARAMS, IMAGES, IMAGES),
        *(TypeError, "conv1", "takes 1 input", "2 were given"),
    ),
    mistake(
        "two shapes for a network of one input",
        lambda: NET.init(any_key(), SHAPE, SHAPE),
        *(TypeError, "conv1", "takes 1 input", "2 were given"),
    ),
    mistake(
        "two inputs to a residual block",
        lambda: fcnn.residual(relu).apply({}, IMAGES, IMAGES),
        *(TypeError, "residual", "takes one input", "2 were given", "use graph"),
    ),
    mistake(
        "params and x the other way round",
        lambda: NET.apply(IMAGES, PARAMS),
        *(TypeError, "serial", "params must be a dict", "(2, 12, 12, 1)", "net.init(key, shape)"),
    ),
    mistake(
        "no params", lambda: NET.apply(None, IMAGES), TypeError, "serial", "params", "None", "net.init(key, shape)"
    ),
    mistake(
        "params of another network",
        lambda: NET.apply(blank(NORMED, SHAPE), IMAGES),
        *(ValueError, "serial", "'batch_norm1'", "the parts are conv1", "this network's init made"),
    ),
    mistake(
        "params without one layer",
        lambda: NET.apply(changed("conv2", None), IMAGES),
        *(ValueError, "conv2", "'kernel'", "(5, 5, 6, 16)", "this network's init made"),
    ),
    mistake(
        "params without one array",
        lambda: NET.apply(changed("conv2/bias", None), IMAGES),
        *(ValueError, "conv2", "'bias'", "(16,)", "this network's init made"),
    ),
    mistake(
        "params with one layer more",
        lambda: NET.apply(changed("conv3", PARAMS["conv2"]), IMAGES),
        *(ValueError, "serial", "'conv3'", "the parts are conv1", "this network's init made"),
    ),
    mistake(
        "params with one array more",
        lambda: NET.apply(changed("conv2/scale", images(16)), IMAGES),
        *(ValueError, "conv2", "'scale'", "this layer has kernel, bias", "this network's init made"),
    ),
    mistake(
        "params for a function",
        lambda: NET.apply(changed("relu1", {"slope": images(1)}), IMAGES),
        *(ValueError, "relu1", "jax.nn.relu", "has none"),
    ),
    mistake(
        "a list in place of a dict",
        lambda: NET.apply(changed("conv2", [PARAMS["conv2"]["kernel"]]), IMAGES),
        *(TypeError, "conv2", "must be a dict", "list", "net.init(key, shape)"),
    ),
    mistake(
        "an int array among the params",
        lambda: NET.apply(changed("conv2/bias", images(16, dtype="int32")), IMAGES),
        *(TypeError, "conv2", "'bias'", "int32", "expected floating point"),
    ),
    mistake(
        "a number among the params",
        lambda: NET.apply(changed("conv2/bias", 0.5), IMAGES),
        *(TypeError, "conv2", "'bias'", "0.5", "must be an array"),
    ),
    mistake(
        "an array of another shape among the params",
        lambda: NET.apply(changed("conv2/bias", images(3)), IMAGES),
        *(ValueError, "conv2", "bias has shape (3,)", "(16,)", "make new ones by init"),
    ),
    mistake(
        "params of fewer copies",
        lambda: fcnn.serial(fcnn.repeat(fcnn.Dense(4), 4)).apply(
            blank(fcnn.serial(fcnn.repeat(fcnn.Dense(4), 3)), (4,)), images(2, 4)
        ),
        *(ValueError, "repeat1", "has shape (3, 4", "a first axis of 4", "repeat(..., 4)"),
    ),
    mistake(
        "no key for dropout",
        lambda: DROPPED.apply_train(blank(DROPPED, (3,)), images(2, 3)),
        *(ValueError, "dropout1", "needs a key", "apply_train(..., key=jax.random.key(0))"),
    ),
    mistake(
        "an int as key of dropout",
        lambda: DROPPED.apply_train(blank(DROPPED, (3,)), images(2, 3), key=0),
        *(TypeError, "serial", "not 0", "jax.random.key(0)"),
    ),
    mistake(
        "several keys for dropout",
        lambda: DROPPED.apply_train(blank(DROPPED, (3,)), images(2, 3), key=jax.random.split(any_key(), 2)),
        *(TypeError, "serial", "(2,)", "give one key", "jax.vmap"),
    ),
    mistake(
        "no state",
        lambda: NORMED.apply(blank(NORMED, SHAPE), IMAGES),
        *(ValueError, "batch_norm1", "mean and variance", "pass state=", "net.init_state(shape)"),
    ),
    mistake(
        "no state in training",
        lambda: NORMED.apply_train(blank(NORMED, SHAPE), IMAGES),
        *(ValueError, "batch_norm1", "mean and variance", "pass state=", "net.init_state(shape)"),
    ),
    mistake(
        "state for a network without",
        lambda: NET.apply(PARAMS, IMAGES, state=NORMED_STATE),
        *(ValueError, "serial", "state", "'batch_norm1'", "this network's init_state made"),
    ),
    mistake(
        "state with an entry too many",
        lambda: NORMED.apply(
            blank(NORMED, SHAPE), IMAGES, state={"batch_norm1": {**NORMED_STATE["batch_norm1"], "count": images(4)}}
        ),
        *(ValueError, "batch_norm1", "'count'", "this layer has mean, variance", "this network's init_state made"),
    ),
    mistake(
        "state of another width",
        lambda: NORMED.apply(
            blank(NORMED, SHAPE), IMAGES, state={"batch_norm1": {"mean": images(3), "variance": images(3)}}
        ),
        *(ValueError, "batch_norm1", "mean has shape (3,)", "(4,)", "make new ones by init_state"),
    ),
    mistake(
        "the pair of apply_train as state",
        lambda: NORMED.apply(blank(NORMED, SHAPE), IMAGES, state=(IMAGES, NORMED_STATE)),
        *(TypeError, "serial", "state must be a dict", "tuple", "net.init_state(shape)"),
    ),
    mistake(
        "batch normalisation of a single value",
        lambda: fcnn.serial(fcnn.Flatten(), fcnn.BatchNorm()).apply_train(
            {"batch_norm1": {"scale": images(4), "bias": images(4)}}, images(1, 4), state=NORMED_STATE
        ),
        *(ValueError, "batch_norm1", "(1, 4)", "no variance", "batches of at least two", "LayerNorm"),
    ),
    mistake(
        "a function that loses the batch axis when it runs",
        lambda: fcnn.serial(loses_the_batch).apply({}, IMAGES),
        *(
            ValueError,
            "loses_the_batch1",
            "returned an output of () without the batch axis",
            "keeps the batch as its first axis",
        ),
    ),
    mistake(
        "an array deep inside",
        lambda: DEEP.apply(deep_params(bias=images(7)), IMAGES),
        *(ValueError, "residual1/body/conv2", "bias has shape (7,)", "(4,)", "make new ones by init"),
    ),
]


def deep_params(**entries):
    params = blank(DEEP, SHAPE)
    params["residual1"]["body"]["conv2"].update(entries)
    return params


@pytest.mark.parametrize("case", USING, ids=lambda case: case.name)
def test_arguments_that_do_not_match_the_network_are_refused(case):
    with refused(case.kind, case.where, *case.says):
        case.call()


WIRING = [
    mistake(
        "inputs with different numbers of examples",
        lambda: wired(sum_of_two).apply({"dense": blank(fcnn.Dense(3), (4,))}, images(2, 4), images(3, 4)),
        *(ValueError, "graph", "(2, 4), (3, 4)", "counts the same examples"),
    ),
    mistake(
        "one shape for a wiring of two inputs",
        lambda: wired(sum_of_two).init(any_key(), (4,)),
        *(TypeError, "graph", "missing", "'b'"),
    ),
    mistake(
        "calling an unknown layer",
        lambda: wired(lambda layer, x: layer.conv(x)).init(any_key(), (4,)),
        *(ValueError, "graph", "layer.conv", "the graph's layers are dense", "graph(conv=...)"),
    ),
    mistake(
        "never calling a layer",
        lambda: wired(lambda layer, x: layer.used(x), used=fcnn.Dense(3), spare=fcnn.Dense(3)).init(any_key(), (4,)),
        *(ValueError, "graph", "'spare'", "never calls it", "call it or leave it out"),
    ),
    mistake(
        "reading params before use",
        lambda: wired(lambda layer, x: layer.dense(x @ layer.params["dense"]["kernel"])).init(any_key(), (4,)),
        *(ValueError, "graph", "layer.params['dense']", "before it calls layer.dense", "call the layer first"),
    ),
    mistake(
        "reading params of an unknown layer",
        lambda: wired(lambda layer, x: layer.dense(x) @ layer.params["conv"]["kernel"]).init(any_key(), (4,)),
        *(ValueError, "graph", "layer.params['conv']", "no such layer"),
    ),
    mistake(
        "a shared layer on inputs of different widths",
        lambda: wired(lambda layer, x: layer.dense(layer.dense(x))).init(any_key(), (4,)),
        *(ValueError, "dense", "(4,)", "(3,)", "a shared layer needs inputs that suit one set"),
    ),
    mistake(
        "a list given to a layer",
        lambda: wired(lambda layer, x: layer.dense([x, x])).init(any_key(), (4,)),
        *(TypeError, "dense", "takes arrays", "a list"),
    ),
    mistake(
        "a wiring that loses the batch axis",
        lambda: wired(lambda layer, x: layer.dense(x).sum()).init(any_key(), (4,)),
        *(ValueError, "graph", "returned an output of ()", "keep the batch as their first axis"),
    ),
    mistake(
        "a wiring that loses the batch axis when it runs",
        lambda: wired(lambda layer, x: layer.dense(x).sum()).apply({"dense": blank(fcnn.Dense(3), (4,))}, images(2, 4)),
        *(ValueError, "graph", "returned an output of ()", "keep the batch as their first axis"),
    ),
    mistake(
        "a wiring that returns nothing",
        lambda: wired(returns_nothing).init(any_key(), (4,)),
        *(TypeError, "graph", "None"),
    ),
]


@pytest.mark.parametrize("case", WIRING, ids=lambda case: case.name)
def test_a_wiring_that_cannot_work_is_refused(case):
    with refused(case.kind, case.where, *case.says):
        case.call()


@pytest.mark.parametrize("name", ["state", "uses", "seen", "init", "apply", "parts"])
def test_only_the_name_params_is_taken_in_a_graph(name):
    net = wired(lambda layer, x: getattr(layer, name)(x), **{name: fcnn.Dense(3)})
    assert net.out_shape((4,)) == (3,)
    assert net.apply(blank(net, (4,)), images(2, 4)).shape == (2, 3)


# Nothing is computed before an error


@pytest.fixture
def ran():
    """What has been computed: one entry for each time that the first layer ran."""
    return []


def watched(ran, *layers):
    """A network whose first part notes down that it runs; on shapes alone it does not."""

    def watch(x):
        jax.debug.callback(lambda: ran.append("ran"))
        return x

    return fcnn.serial(watch, fcnn.Dense(4), *layers)


def finished(ran):
    jax.effects_barrier()
    return len(ran)


def test_the_watch_sees_a_network_run(ran):
    net = watched(ran, fcnn.Dense(3))
    net.out_shape((4,))
    params = blank(net, (4,))
    assert finished(ran) == 0
    net.apply(params, images(2, 4))
    assert finished(ran) == 1


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"kernel": images(4, 3), "bias": images(5)}, ValueError),
        ({"kernel": images(4, 3)}, ValueError),
        ({"kernel": images(4, 3), "bias": images(3), "scale": images(3)}, ValueError),
        ({"kernel": images(4, 3), "bias": images(3, dtype="int32")}, TypeError),
        ({"kernel": images(4, 3), "bias": 0.5}, TypeError),
        ({"kernel": images(4, 3), "bias": [0.5, 0.5, 0.5]}, TypeError),
        ({"kernel": images(4, 3), "bias": None}, TypeError),
        ([images(4, 3), images(3)], TypeError),
    ],
    ids=["shape", "missing", "extra", "int array", "number", "list of numbers", "None", "list"],
)
def test_nothing_is_computed_where_the_parameters_of_the_last_layer_are_wrong(ran, entry, kind):
    net = watched(ran, fcnn.Dense(3))
    params = {**blank(net, (4,)), "dense2": entry}
    with refused(kind, "dense2"):
        net.apply(params, images(2, 4))
    with refused(kind, "dense2"):
        net.apply_train(params, images(2, 4))
    assert finished(ran) == 0


@pytest.mark.parametrize(
    ("last", "where"),
    [
        (fcnn.Dropout(0.5), "dropout1"),
        (fcnn.BatchNorm(), "batch_norm1"),
        (loses_the_batch, "loses_the_batch1"),
        (fcnn.MaxPool(2), "max_pool1"),
        (fcnn.residual(fcnn.serial(relu, fcnn.Dense(3))), "residual1/body/dense1"),
    ],
    ids=["no key", "no state", "no batch axis", "no space", "no parameters"],
)
def test_nothing_is_computed_where_the_last_layer_cannot_work(ran, last, where):
    net = watched(ran, last)
    params = blank(watched(ran), (4,))
    if where == "batch_norm1":
        params[where] = {"scale": images(4), "bias": images(4)}
    with refused(ValueError, where):
        net.apply_train(params, images(2, 4))
    assert finished(ran) == 0


# The same errors in transformed functions


TRANSFORMED = [
    mistake(
        "an array deep inside",
        lambda transform: transform(DEEP.apply)(deep_params(bias=images(7)), IMAGES),
        *(ValueError, "residual1/body/conv2", "bias has shape (7,)", "(4,)", "make new ones by init"),
    ),
    mistake(
        "a kernel of integers deep inside",
        lambda transform: transform(DEEP.apply)(deep_params(kernel=images(3, 3, 4, 4, dtype="int32")), IMAGES),
        *(TypeError, "residual1/body/conv2", "'kernel'", "int32", "expected floating point"),
    ),
    mistake(
        "a missing layer",
        lambda transform: transform(NET.apply)(changed("conv2", None), IMAGES),
        *(ValueError, "conv2", "'kernel'", "(5, 5, 6, 16)", "this network's init made"),
    ),
    mistake(
        "uint8 images",
        lambda transform: transform(NET.apply)(PARAMS, images(2, *SHAPE, dtype="uint8")),
        *(TypeError, "conv1", "uint8", "x.astype('float32') / 255"),
    ),
    mistake(
        "images of another size",
        lambda transform: transform(NET.apply)(PARAMS, images(2, 16, 16, 1)),
        *(ValueError, "dense1", "(64, 10)", "(256, 10)", "give the input they were made for"),
    ),
    mistake(
        "a missing key",
        lambda transform: transform(DROPPED.apply_train)(blank(DROPPED, (3,)), images(2, 3)),
        *(ValueError, "dropout1", "needs a key", "key=jax.random.key(0)"),
    ),
    mistake(
        "a missing state",
        lambda transform: transform(NORMED.apply)(blank(NORMED, SHAPE), IMAGES),
        *(ValueError, "batch_norm1", "pass state="),
    ),
]


def nested(function):
    """Scanned within jit: two transformations around the network."""

    def many(params, x):
        return jax.lax.scan(lambda carry, _: (carry, function(params, x)), 0.0, None, length=2)[1]

    return jax.jit(many)


def in_a_gradient(function):
    return jax.grad(lambda params, x: jax.tree.leaves(function(params, x))[0].sum(), allow_int=True)


def ensemble(function):
    return jax.vmap(function, in_axes=None, axis_size=2)


@pytest.mark.parametrize("case", TRANSFORMED, ids=lambda case: case.name)
@pytest.mark.parametrize(
    "transform", [jax.jit, nested, in_a_gradient, ensemble, jax.checkpoint], ids=lambda transform: transform.__name__
)
def test_errors_keep_their_path_in_transformed_functions(transform, case):
    with refused(case.kind, case.where, *case.says):
        case.call(transform)


def test_an_error_in_jit_comes_again_when_called_again():
    apply = jax.jit(DEEP.apply)
    for _ in range(2):
        with refused(ValueError, "residual1/body/conv2", "(7,)"):
            apply(deep_params(bias=images(7)), IMAGES)
    assert apply(deep_params(), IMAGES).shape == (2, 12, 12, 4)


# What a failing call leaves behind


@pytest.mark.parametrize("wrong_x", [images(2, 16, 16, 1), images(2, *SHAPE, dtype="uint8"), images(12, 12, 1)])
def test_a_failing_call_leaves_params_and_state_untouched(wrong_x):
    net = fcnn.serial(*(part for _, part in NORMED.parts), fcnn.Flatten(), fcnn.Dense(3))
    params, state = blank(net, SHAPE), copy.deepcopy(NORMED_STATE)
    before = copy.deepcopy((params, state))
    leaves = jax.tree.leaves((params, state))
    for method in (net.apply, net.apply_train):
        with pytest.raises((ValueError, TypeError)):
            method(params, wrong_x, state=state)
    assert jax.tree.structure((params, state)) == jax.tree.structure(before)
    assert list(params) == list(before[0])
    assert all(now is then for now, then in zip(jax.tree.leaves((params, state)), leaves, strict=True))
    jax.tree.map(np.testing.assert_array_equal, (params, state), before)


def test_a_failing_call_does_not_spoil_the_next():
    with refused(ValueError, "dense1", "(64, 10)"):
        NET.apply(PARAMS, images(2, 16, 16, 1))
    assert NET.apply(PARAMS, IMAGES).shape == (2, 10)
