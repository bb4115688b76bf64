"""What fit and evaluate say of labels, targets, weights, batches and optimizers that they cannot work with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn
from fcnn.data import augment
from fcnn.training import cross_entropy, label_smoothing, start

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(64, 6)).astype("f")
Y = (np.arange(64) % 3).astype("int32")
NET = fcnn.Dense(3)
NORMED = fcnn.serial(fcnn.Dense(4), fcnn.BatchNorm(), fcnn.Dense(3))
ONES = np.ones(64, "f")
BINARY = r"one score for each label.*sigmoid_binary_cross_entropy with y\.reshape\(-1, 1\)\.astype\('float32'\)"


@fcnn.graph(a=fcnn.Dense(3), b=fcnn.Dense(2))
def two(layer, x):
    return {"class": layer.a(x), "box": layer.b(x)}


def fit(data, net=NET, **options):
    return fcnn.fit(net, data, **{"optimizer": optax.sgd(0.1), "epochs": 1, "key": KEY, "progress": False, **options})


def segmented(y):
    return fit((X.reshape(4, 4, 4, 6), y), fcnn.Conv(3, 1))


LABELS = {
    "(N, 1)": (
        lambda: fit((X, Y[:, None])),
        ValueError,
        r"y has shape \(64, 1\).*leave out the last axis: y\[\.\.\., 0\]",
    ),
    "one-hot integers": (lambda: fit((X, np.eye(3, dtype=int)[Y])), ValueError, r"one-hot: use y\.argmax\(-1\)"),
    "one-hot numbers": (lambda: fit((X, np.eye(3, dtype="f")[Y])), TypeError, r"y\.argmax\(-1\) for one-hot"),
    "-1": (lambda: fit((X, Y - 1)), ValueError, r"labels run from -1 to 1.*ignore_label=-1; else count labels from 0"),
    "255": (lambda: fit((X, np.where(Y, Y, 255))), ValueError, "labels run from 1 to 255.*give ignore_label=255"),
    "-100": (lambda: fit((X, np.where(Y, Y, -100))), ValueError, "give ignore_label=-100"),
    "two marks": (lambda: fit((X, np.choose(Y, (-1, 1, 255)))), ValueError, "-1 and 255 mark labels to leave out"),
    "from 1": (lambda: fit((X, Y + 1)), ValueError, "give the last layer 4 features, or count labels from 0"),
    "floats": (lambda: fit((X, Y.astype("f"))), TypeError, r"y\.reshape\(-1,\)\.astype\('int32'\) for labels"),
    "strings": (lambda: fit((X, np.array(list("abc"))[Y])), TypeError, r"make numbers of it: .*numpy\.unique"),
    "bool for one score": (lambda: fit((X, Y > 0), fcnn.Dense(1)), TypeError, BINARY),
    "integers for one score": (lambda: fit((X, Y % 2), fcnn.Dense(1)), ValueError, BINARY),
    "bool for classes": (lambda: fit((X, Y > 0), fcnn.Dense(2)), TypeError, r"y\.astype\('int32'\)"),
    "nothing but ignored": (lambda: fit((X, Y * 0 + 7), ignore_label=7), ValueError, "every label in y is 7"),
    "masks with a channel": (lambda: segmented(Y.reshape(4, 4, 4, 1)), ValueError, r"y\[\.\.\., 0\]"),
    "a dict": (lambda: fit((X, {"class": Y})), TypeError, "data have several targets.*loss={'class'"),
    "a dict of outputs": (lambda: fit((X, Y), two), ValueError, "network gives several outputs.*loss={'class'"),
    "a list of numbers": (lambda: fit((X, Y.tolist())), TypeError, "y must be an array, not a list; use numpy.asarray"),
    "a loss without a target": (
        lambda: fit((X, {"class": Y}), two, loss={"class": None, "box": optax.losses.squared_error}),
        ValueError,
        "loss has 'box', but y has no such targets",
    ),
    "a loss without an output": (
        lambda: fit((X, {"class": Y, "boxes": Y}), two, loss={"class": None, "boxes": None}),
        ValueError,
        "loss has 'boxes', but the network has no such outputs",
    ),
    "a label of one of several": (
        lambda: fit(
            (X, {"class": Y + 9, "box": X[:, :2]}), two, loss={"class": None, "box": optax.losses.squared_error}
        ),
        ValueError,
        "labels run from 9",
    ),
    "weights of a loss that is not there": (
        lambda: fit((X, Y), loss={"class": None}, loss_weights={"box": 1}),
        ValueError,
        "loss_weights has 'box', but the losses are 'class'",
    ),
    "weights of one loss": (
        lambda: fit((X, Y), loss_weights={"a": 1}),
        ValueError,
        "loss_weights are factors of several",
    ),
    "two ignored labels": (
        lambda: fit((X, Y), loss=cross_entropy(ignore_label=1), ignore_label=2),
        ValueError,
        "ignore_label is 2, but the loss ignores 1",
    ),
    "class weights for others": (
        lambda: fit((X, Y), loss=cross_entropy(class_weights=(1, 2))),
        ValueError,
        "class_weights has 2 numbers, but the outputs score 3",
    ),
}
FORMS = {
    "integer weights": (lambda: fit((X, Y, Y)), TypeError, r"third of \(x, y, w\), has dtype int32"),
    "negative weights": (lambda: fit((X, Y, -ONES)), ValueError, "weights that are negative"),
    "too few weights": (lambda: fit((X, Y, ONES[:3])), ValueError, "64 in x, 64 in y, 3 in w"),
    "no weights": (lambda: fit((X, Y, ONES * 0)), ValueError, "all weights in w are 0"),
    "weights of channels": (lambda: fit((X, Y, np.ones((64, 2), "f"))), ValueError, "one number for each example"),
    "weights and one number": (
        lambda: fit((X, Y, ONES), loss=lambda o, t: jnp.mean(o)),
        ValueError,
        r"the loss has shape \(\), but the weights .*\(64,\).*without a mean",
    ),
    "weights and a metric of one number": (
        lambda: fit((X, Y, ONES), metrics={"own": lambda o, t: jnp.mean(o)}),
        ValueError,
        r"the metric own has shape \(\)",
    ),
    "weights and an accumulator": (
        lambda: fit((X, Y, ONES), metrics={"own": (0.0, lambda a, o, t: a, lambda a: a)}),
        ValueError,
        "write update.accumulator, outputs, targets, weights.",
    ),
    "pictures of several sizes": (
        lambda: fit(([np.zeros((n, 5, 1), "f") for n in range(5, 69)], Y)),
        TypeError,
        r"^fit: data: x is a list of 64 arrays \(\(5, 5, 1\), .*numpy\.stack",
    ),
    "many pictures of one size": (lambda: fit((list(X), Y)), TypeError, "x is a list of 64 arrays"),
    "boxes of several sizes": (
        lambda: fit((X, [np.zeros((n, 4), "f") for n in range(64)]), loss=lambda o, t: o[:, 0]),
        TypeError,
        "y is a list of 64 arrays",
    ),
    "inputs by name": (
        lambda: fit(({"a": X, "b": X}, Y)),
        TypeError,
        "x is a dict with 'a', 'b'; several inputs are a tuple",
    ),
    "augmentation by places on batches": (
        lambda: fit([(X.reshape(64, 2, 3, 1), Y)], fcnn.Dense(3), augment=augment.compose(augment.AlternatingFlip())),
        ValueError,
        "^fit: augment depends on the indices of the examples.*give the data as arrays",
    ),
    "mixed labels that do not count": (
        lambda: fit((X, Y), augment=augment.Mixup(0.2, classes=3), ignore_label=1),
        ValueError,
        "augment mixes the labels",
    ),
    "mixed examples of several weights": (
        lambda: fit((X, Y, ONES), augment=augment.Mixup(0.2, classes=3)),
        ValueError,
        "augment mixes the labels",
    ),
    "params without state": (
        lambda: fit((X, Y), NORMED, params=NORMED.init(KEY, (6,))),
        ValueError,
        "^fit: params are given without state.*state=net.init_state",
    ),
    "params without state in batches": (
        lambda: fit([(X, Y)], NORMED, params=NORMED.init(KEY, (6,))),
        ValueError,
        "^fit: params are given without state",
    ),
    "a start without state": (
        lambda: start(NORMED, optax.sgd(0.1), KEY, (6,), params=NORMED.init(KEY, (6,))),
        ValueError,
        "^start: params are given without state",
    ),
    "an iterator for validation": (
        lambda: fit((X, Y), validation=iter([(X, Y)]), epochs=2),
        ValueError,
        "validation is a list_iterator, which can be used only once",
    ),
    "a batch of validation": (
        lambda: fit((X, Y), validation=lambda epoch: [(X, Y + 5)]),
        ValueError,
        "^fit: validation: batch: labels run from 5",
    ),
    "evaluation of nothing": (
        lambda: fcnn.evaluate(NET, {}, lambda epoch: []),
        ValueError,
        "^evaluate: data: there are no batches",
    ),
    "a function without the epoch": (
        lambda: fcnn.evaluate(NET, {}, lambda: []),
        TypeError,
        "^evaluate: data is a function that does not take the epoch",
    ),
}
OPTIMIZERS = {
    "a number": (0.1, r"a number is a learning rate, and belongs to one: optax\.adam\(0\.1\)"),
    "a name": ("SGD", r"optimizers are optax's: optax\.sgd\(1e-3\)"),
    "a schedule": (optax.schedules.cosine_decay_schedule(0.1, 10), r"optax\.adam\(schedule\)"),
    "a function": (optax.adam, "call it, such as optax.adam"),
    "nothing": (None, "make one by optax"),
}


@pytest.mark.parametrize("name", LABELS | FORMS)
def test_mistakes_are_explained(name):
    call, kind, message = (LABELS | FORMS)[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_no_optimizer_is_told_how_to_be_one(name):
    given, message = OPTIMIZERS[name]
    with pytest.raises(TypeError, match=f"^fit: optimizer must be an optax optimizer.*{message}"):
        fit((X, Y), optimizer=given)


def test_an_optimizer_of_torch_is_told_which_it_is_in_optax():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"the one of optax is optax\.adamw\(1e-3\)"):
        fit((X, Y), optimizer=torch.optim.AdamW([torch.zeros(1)]))


def watched(computed):
    def loss(outputs, targets):
        jax.debug.callback(lambda: computed.append(1))
        return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets)

    return loss


LATE = {
    "one example under a norm": ([(X[:32], Y[:32]), (X[:1], Y[:1])], {"net": NORMED}, "batch 2, of 1 example"),
    "a part that accumulate does not divide": (
        [(X[:32], Y[:32]), (X[:32], Y[:32]), (X[:30], Y[:30])],
        {"accumulate": 4},
        "batch 3, of 30 examples: accumulate is 4, which does not divide",
    ),
}


@pytest.mark.parametrize("name", LATE)
def test_what_a_later_batch_will_break_is_said_before_the_first_step(name):
    data, options, message = LATE[name]
    computed = []
    with pytest.raises(ValueError, match=f"^fit: data: {message}"):
        fit(data, loss=watched(computed), **options)
    jax.effects_barrier()
    assert not computed


def test_the_last_batch_of_a_loader_of_torch_is_known_before_the_first_step():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X[:33]), torch.from_numpy(Y[:33]))
    computed = []
    with pytest.raises(ValueError, match=r"^fit: data: the last batch, of 1 example"):
        fit(torch.utils.data.DataLoader(data, batch_size=16), NORMED, loss=watched(computed))
    jax.effects_barrier()
    assert not computed
    fit(torch.utils.data.DataLoader(data, batch_size=16, drop_last=True), NORMED)


def test_pairs_may_be_lists_and_batches_anything():
    one = fit([X, Y], validation=[X, Y])
    other = fit((X, Y), validation=[(X, Y)])
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    expected = fcnn.evaluate(NET, one.params, (X, Y))
    assert one.history["validation_loss"] == pytest.approx([expected["loss"]])
    assert other.history["validation_loss"] == pytest.approx([expected["loss"]])
    halves = [(X[:40], Y[:40]), (X[40:], Y[40:])]
    for given in (halves, iter(halves), lambda epoch: iter(halves), [X, Y]):
        assert fcnn.evaluate(NET, one.params, given) == pytest.approx(expected)
    seen = []
    fit((X, Y), epochs=2, validation=lambda epoch: seen.append(epoch) or halves)
    assert seen == [0, 1]


def test_places_are_known_where_data_come_from_the_host(monkeypatch):
    """Alternating flips turn every picture once in two epochs, also where batches are made of arrays on the host."""
    x = np.random.default_rng(0).normal(size=(24, 4, 4, 1)).astype("f")
    options = {"net": fcnn.serial(fcnn.Flatten(), fcnn.Dense(3)), "augment": augment.AlternatingFlip()}
    options |= {"epochs": 3, "batch_size": 8}
    run = fit((x, Y[:24]), **options)
    monkeypatch.setattr("fcnn.training.arrays.on_device", lambda *given: False)
    other = fit((x, Y[:24]), **options)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), run.params, other.params)


def test_smoothing_and_class_weights_are_values():
    assert cross_entropy(class_weights=[1, 2]) == cross_entropy(class_weights=np.array([1.0, 2.0]))
    assert cross_entropy(smoothing=0.1) != cross_entropy()
    for call, message in (
        (lambda: cross_entropy(class_weights=(1, -2)), "must be finite and at least 0"),
        (lambda: cross_entropy(class_weights=3), "a number for each class"),
        (lambda: cross_entropy(smoothing=2), "smoothing is 2"),
        (lambda: cross_entropy(jnp.zeros((2, 3))), "give outputs and labels"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()
    shares = np.eye(3, dtype="f")[Y]
    np.testing.assert_allclose(
        cross_entropy(smoothing=0.1)(X[:, :3], shares), label_smoothing(0.1)(X[:, :3], Y), rtol=1e-5
    )
