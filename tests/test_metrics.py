"""Ready-made metrics: scikit-learn's numbers, or those of the definition, however the examples are split."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn
from fcnn.training import evaluate_ensemble, make_step, metrics, start

KEY = jax.random.key(0)
NET = fcnn.Dense(4)
AVERAGES = ("macro", "micro", "weighted")


def data(count=53, seed=0):
    """Labels of four classes, one of which does not occur, and inputs that tell them by halves."""
    generator = np.random.default_rng(seed)
    y = generator.choice([0, 1, 3], count, p=[0.7, 0.2, 0.1]).astype(np.int32)
    x = (np.eye(4)[y] + generator.normal(0, 1.0, (count, 4))).astype(np.float32)
    return x, y


X, Y = data()
W = np.random.default_rng(1).integers(0, 4, len(Y)).astype(np.float32)
PARAMS = NET.init(KEY, (4,)) | {"kernel": jnp.eye(4)}
SAID = np.asarray(NET.apply(PARAMS, X)).argmax(-1)


def theirs(name, average, weights=None):
    sklearn = pytest.importorskip("sklearn.metrics")
    function = {
        "precision": sklearn.precision_score,
        "recall": sklearn.recall_score,
        "f1": sklearn.f1_score,
        "iou": sklearn.jaccard_score,
    }[name]
    return function(Y, SAID, average=average, sample_weight=weights, zero_division=0)


KINDS = {"precision": metrics.precision, "recall": metrics.recall, "f1": metrics.f1, "iou": metrics.iou}
READY = {
    **{f"{name}_{average}": kind(average) for name, kind in KINDS.items() for average in AVERAGES},
    "top2": metrics.top_k(2),
    "top1": metrics.top_k(1),
    "own": metrics.accuracy(),
    "confusion": metrics.confusion_matrix(),
}


def expected(weights=None):
    """The numbers of READY by scikit-learn."""
    sklearn = pytest.importorskip("sklearn.metrics")
    scores = np.asarray(NET.apply(PARAMS, X))
    right = {k: (np.argsort(-scores, -1, kind="stable")[:, :k] == Y[:, None]).any(-1) for k in (1, 2)}
    found = {f"{name}_{average}": theirs(name, average, weights) for name in KINDS for average in AVERAGES}
    found |= {"top1": np.average(right[1], weights=weights), "top2": np.average(right[2], weights=weights)}
    found["own"] = sklearn.accuracy_score(Y, SAID, sample_weight=weights)
    found["confusion"] = sklearn.confusion_matrix(Y, SAID, labels=range(4), sample_weight=weights)
    return found


@pytest.mark.parametrize("weights", [None, W], ids=["alike", "weighted"])
@pytest.mark.parametrize("batch_size", [7, 512])
def test_they_are_scikit_learns_whatever_the_batch_size(weights, batch_size):
    given = (X, Y) if weights is None else (X, Y, weights)
    found = fcnn.evaluate(NET, PARAMS, given, metrics=READY, batch_size=batch_size)
    for name, value in expected(weights).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_each_class_has_its_number_and_nan_where_it_does_not_occur():
    sklearn = pytest.importorskip("sklearn.metrics")
    said, wanted = np.array([0, 1, 1, 3]), np.array([0, 1, 3, 3])
    scores = jnp.asarray(np.eye(5)[said])
    found = metrics.f1(None)(scores, jnp.asarray(wanted))
    np.testing.assert_allclose(found[jnp.array([0, 1, 3])], sklearn.f1_score(wanted, said, average=None), rtol=1e-6)
    assert np.isnan(found[jnp.array([2, 4])]).all()


@pytest.mark.parametrize("form", ["(n, 1)", "(n,)", "bool"])
def test_one_score_is_yes_or_no(form):
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    scores, y = generator.normal(size=(40, 1)).astype("f"), generator.integers(0, 2, (40, 1))
    y = {"(n, 1)": y, "(n,)": y[:, 0], "bool": y.astype(bool)}[form]
    for name, theirs in (("precision", sklearn.precision_score), ("f1", sklearn.f1_score)):
        found = KINDS[name]("binary")(jnp.asarray(scores), jnp.asarray(y))
        np.testing.assert_allclose(found, theirs(y.ravel(), scores.ravel() > 0), rtol=1e-6)
    assert metrics.accuracy()(scores, y) == pytest.approx(((scores.ravel() > 0) == y.ravel()).mean())


def test_segmentation_by_the_definition_without_the_ignored_label():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, (6, 5, 5)).astype(np.uint8)
    scores = generator.normal(size=(6, 5, 5, 3)).astype("f")
    labels[generator.random(labels.shape) < 0.3] = 255
    there, said = labels != 255, scores.argmax(-1)
    each = [((said == k) & (labels == k)).sum() / (((said == k) | (labels == k)) & there).sum() for k in range(3)]
    net = fcnn.serial(lambda x: x)
    # by the metric's own argument, and by that of evaluate
    own = fcnn.evaluate(
        net, {}, (scores, labels), loss=lambda o, t: o[:, 0, 0, 0], metrics={"iou": metrics.iou(ignore_label=255)}
    )
    both = fcnn.evaluate(net, {}, (scores, labels), ignore_label=255, metrics={"iou": metrics.iou()}, batch_size=4)
    assert own["iou"] == pytest.approx(np.mean(each))
    assert both["iou"] == pytest.approx(np.mean(each))
    assert both["accuracy"] == pytest.approx((said == labels)[there].mean())


def test_errors_of_numbers_by_the_definition():
    generator = np.random.default_rng(0)
    x = generator.random((9, 4, 4, 1)).astype("f")
    y = generator.random((9, 4, 4, 1)).astype("f")
    named = {"mae": metrics.mean_absolute_error(), "mse": metrics.mean_squared_error(), "psnr": metrics.psnr(2.0)}
    found = fcnn.evaluate(
        fcnn.serial(lambda x: x), {}, (x, y), loss=optax.losses.squared_error, metrics=named, batch_size=4
    )
    assert found["mae"] == pytest.approx(np.abs(x - y).mean())
    assert found["mse"] == pytest.approx(np.square(x - y).mean())
    each = np.square(x - y).mean((1, 2, 3))
    assert found["psnr"] == pytest.approx((10 * np.log10(4 / each)).mean())


def test_of_equal_scores_the_first_counts_and_nan_is_no_hit():
    scores = jnp.array([[1.0, 1.0, 0.0], [np.nan, 1.0, 2.0]])
    labels = jnp.array([1, 0])
    assert metrics.top_k(1)(scores[:1], labels[:1]) == 0  # class 0 comes first, as in argmax
    assert metrics.top_k(2)(scores, labels) == 0.5


def greatest(outputs, targets):
    return jnp.max(jnp.abs(outputs), -1)


FOLD = (
    lambda: {"most": -jnp.inf, "seen": 0},
    lambda a, outputs, targets: {
        "most": jnp.maximum(a["most"], jnp.max(outputs)),
        "seen": a["seen"] + targets.shape[0],
    },
    lambda a: jnp.where(a["seen"] > 0, a["most"], jnp.nan),
)


@pytest.mark.parametrize("batch_size", [7, 512])
def test_an_accumulator_of_ones_own_goes_from_batch_to_batch(batch_size):
    found = fcnn.evaluate(NET, PARAMS, (X, Y), metrics={"most": FOLD}, batch_size=batch_size)
    assert found["most"] == pytest.approx(float(np.asarray(NET.apply(PARAMS, X)).max()))


def fit(given, **options):
    settings = {"optimizer": optax.sgd(0.0), "epochs": 2, "key": KEY, "progress": False, "params": PARAMS, **options}
    return fcnn.fit(NET, given, **settings)


SPLIT = {
    "arrays": {"batch_size": 53},
    "batches of unequal size": {"data": [(X[:40], Y[:40]), (X[40:50], Y[40:50]), (X[50:], Y[50:])]},
    "parts": {"data": [(X[:40], Y[:40]), (X[40:], Y[40:])], "accumulate": 1},
    "accumulated": {"data": [(X[:52], Y[:52]), (X[52:].repeat(4, 0)[:4], Y[52:].repeat(4)[:4])], "accumulate": 4},
}


@pytest.mark.parametrize("how", ["arrays", "batches of unequal size"])
def test_the_history_of_a_network_that_stays_is_its_evaluation(how):
    options = dict(SPLIT[how])
    wanted = {**READY, "most": FOLD, "greatest": greatest}
    given = options.pop("data", (X, Y))
    run = fit(given, metrics=wanted, validation=[(X[:50], Y[:50]), (X[50:], Y[50:])], **options)
    found = fcnn.evaluate(NET, PARAMS, (X, Y), metrics=wanted)
    told = {"seconds", "learning_rate", "gradient_norm"}
    assert set(run.history) == set(found) | {f"validation_{name}" for name in found} | told
    for name, value in found.items():
        for epoch in range(2):
            np.testing.assert_allclose(run.history[name][epoch], value, rtol=1e-6, err_msg=name)
            np.testing.assert_allclose(run.history[f"validation_{name}"][epoch], value, rtol=1e-6, err_msg=name)
    assert run.history["confusion"].shape == (2, 4, 4)
    assert "confusion" not in repr(run)


def test_accumulated_parts_are_the_batch():
    wanted = {"f1": metrics.f1(), "confusion": metrics.confusion_matrix(), "most": FOLD}
    whole, parts = (fit((X[:52], Y[:52]), metrics=wanted, batch_size=52, accumulate=n) for n in (1, 4))
    for name in ("loss", "accuracy", *wanted):
        np.testing.assert_allclose(whole.history[name], parts.history[name], rtol=1e-6, err_msg=name)


def test_many_numbers_for_each_step_take_bounded_memory(monkeypatch):
    monkeypatch.setattr("fcnn.training.compiled_loop.SLOTS_BYTES", 300)
    run = fit((X, Y), metrics={"confusion": metrics.confusion_matrix()}, batch_size=5)
    assert run.history["confusion"].sum(axis=(1, 2)).tolist() == [50, 50]
    assert int(run.train.step) == 20


def test_a_step_of_ones_own_takes_the_metrics_of_fit():
    wanted = {"f1": metrics.f1(), "most": FOLD}
    step = make_step(NET, optax.sgd(0.0), metrics=wanted)
    assert step is make_step(NET, optax.sgd(0.0), metrics=dict(wanted)) or optax.sgd(0.0) != optax.sgd(0.0)
    _, found = jax.jit(step)(start(NET, optax.sgd(0.0), KEY, (4,), params=PARAMS), (X, Y))
    assert float(found["f1"]) == pytest.approx(theirs("f1", "macro"))
    assert float(found["most"]) == pytest.approx(float(np.asarray(NET.apply(PARAMS, X)).max()))


def test_members_of_an_ensemble_have_each_their_own():
    wanted = {"f1": metrics.f1(), "confusion": metrics.confusion_matrix(), "most": FOLD}
    settings = {"members": 2, "optimizer": optax.sgd(0.1), "epochs": 2, "key": KEY, "progress": False}
    run = fcnn.fit(NET, (X, Y), metrics=wanted, validation=(X, Y), batch_size=13, **settings)
    assert run.history["f1"].shape == (2, 2)
    assert run.history["confusion"].shape == (2, 2, 4, 4)
    found = evaluate_ensemble(NET, run.params, (X, Y), metrics=wanted, batch_size=10)
    for i in range(2):
        own = jax.tree.map(lambda a, i=i: a[i], run.params)
        alone = fcnn.evaluate(NET, own, (X, Y), metrics=wanted)
        for name in ("loss", "f1", "confusion", "most"):
            np.testing.assert_allclose(found[name][i], alone[name], rtol=1e-6)
            np.testing.assert_allclose(run.history[f"validation_{name}"][-1, i], alone[name], rtol=1e-6)
    probabilities = np.mean(
        [jax.nn.softmax(NET.apply(jax.tree.map(lambda a, i=i: a[i], run.params), X)) for i in (0, 1)], 0
    )
    sklearn = pytest.importorskip("sklearn.metrics")
    assert found["vote_f1"] == pytest.approx(sklearn.f1_score(Y, probabilities.argmax(-1), average="macro"))


def test_they_are_values_and_a_second_run_compiles_nothing():
    assert metrics.f1("micro") == metrics.f1("micro") != metrics.f1()
    assert len({metrics.top_k(2), metrics.top_k(2), metrics.top_k(3)}) == 2
    from fcnn.training.evaluate import _measured

    fcnn.evaluate(NET, PARAMS, (X, Y), metrics={"f1": metrics.f1(), "top": metrics.top_k(3)})
    before = _measured._cache_size()
    fcnn.evaluate(NET, PARAMS, (X, Y), metrics={"f1": metrics.f1(), "top": metrics.top_k(3)})
    assert _measured._cache_size() == before


# what is best


@functools.lru_cache
def rising():
    """Histories: the loss falls, so does everything below."""
    return lambda outputs, targets: jnp.max(outputs, -1)


def test_ready_metrics_say_which_way_is_good():
    falling = metrics.mean_squared_error()
    modes = {f1.mode for f1 in (metrics.f1(), metrics.iou(), metrics.recall(), metrics.accuracy(), metrics.psnr())}
    assert modes == {"max"}
    assert falling.mode == metrics.mean_absolute_error().mode == "min"
    wrong = (X, (Y + 1) % 4)  # the better the network, the worse its recall of these
    run = fit(
        (X, Y),
        optimizer=optax.sgd(0.3),
        params=None,
        epochs=6,
        validation=wrong,
        metrics={"recall": metrics.recall()},
        monitor="validation_recall",
        keep_best=True,
    )
    assert run.best_epoch == np.argmax(run.history["validation_recall"]) + 1
    kept = fcnn.evaluate(NET, run.params, wrong, metrics={"recall": metrics.recall()})["recall"]
    assert kept == pytest.approx(run.history["validation_recall"].max())
    assert run.history["validation_recall"].max() > run.history["validation_recall"].min()


@pytest.mark.parametrize("mode", ["max", "min"])
def test_which_way_is_good_can_be_said(mode):
    run = fit((X, Y), optimizer=optax.sgd(0.3), epochs=4, metrics={"most": rising()}, monitor="most", mode=mode)
    best = np.argmax if mode == "max" else np.argmin
    assert run.best_epoch == best(run.history["most"]) + 1
    assert len(set(run.history["most"])) == 4


MISTAKES = {
    "nobody says which way": (
        {"metrics": {"f1": greatest}, "monitor": "f1"},
        ValueError,
        "unknown whether a high or a low",
    ),
    "a mode of nothing": ({"mode": "max"}, ValueError, "name the number: monitor="),
    "an unknown mode": ({"monitor": "loss", "mode": "up"}, ValueError, "mode is 'up'"),
    "a matrix to go by": (
        {"metrics": {"c": metrics.confusion_matrix()}, "monitor": "c", "mode": "max", "patience": 2},
        ValueError,
        "which is an array",
    ),
    "not called": ({"metrics": {"f1": metrics.f1}}, TypeError, r"call it: f1\(...\)"),
    "a list": ({"metrics": [metrics.f1()]}, TypeError, "metrics must be a dict"),
    "two functions": ({"metrics": {"f1": (greatest, greatest)}}, TypeError, r"must be \(start, update, result\)"),
    "a taken name": ({"metrics": {"loss/a": greatest}}, ValueError, "'loss/a' is reserved"),
    "an accumulator that changes": (
        {"metrics": {"n": (lambda: 0, lambda a, o, t: a + jnp.float32(1), lambda a: a)}},
        (ValueError, TypeError),
        "n: update made float32|promot",
    ),
    "binary of four": ({"metrics": {"f": metrics.f1("binary")}}, ValueError, "the network scores 4"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(name):
    options, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message):
        fit((X, Y), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.f1("samples"), "average is 'samples', expected one of 'macro'"),
        (lambda: metrics.top_k(0), "k is 0"),
        (lambda: metrics.psnr(0), "peak is 0"),
        (lambda: metrics.iou(ignore_label="void"), "ignore_label must be an integer label"),
    ],
)
def test_numbers_out_of_range_are_explained(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
