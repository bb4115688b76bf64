"""Weights, labels that do not count, several targets: one meaning in loss, accuracy, metrics, history, evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn
from fcnn.training import cross_entropy, label_smoothing, make_step, metrics, start

KEY = jax.random.key(0)
NET = fcnn.Dense(3)
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(48, 5))
Y = GENERATOR.integers(0, 3, 48).astype(np.int32)
W = GENERATOR.integers(0, 3, 48).astype(np.float64)
W[:16] = [0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]
SGD = optax.sgd(0.5)


def log_softmax(z):
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def stepped(given, net=NET, accumulate=1, params=None, **options):
    """The train state after a step, and its numbers."""
    before = start(net, SGD, KEY, np.shape(given[0])[1:], params=params)
    after, found = jax.jit(make_step(net, SGD, accumulate=accumulate, **options))(before, given)
    return after, jax.tree.map(float, found)


def assert_close(left, right, rtol=1e-10):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12), left, right)


# the history counts examples


def test_batches_of_unequal_size_count_by_their_examples():
    # of 9 examples one is wrong by 18: the mean of batches of 8 and 1 is 9, that of examples 2
    x, y = np.zeros((9, 1), "f"), np.zeros((9, 1), "f")
    y[8] = 18
    options = {"optimizer": optax.sgd(0.0), "epochs": 2, "key": KEY, "progress": False}
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    lost = lambda outputs, targets: jnp.abs(outputs - targets)[:, 0]  # noqa: E731
    run = fcnn.fit(fcnn.Dense(1), batches, loss=lost, validation=batches, **options)
    assert run.history["loss"] == pytest.approx([2.0, 2.0])
    assert run.history["validation_loss"] == pytest.approx([2.0, 2.0])
    assert fcnn.evaluate(fcnn.Dense(1), run.params, (x, y), loss=lost, batch_size=8)["loss"] == pytest.approx(2.0)


def test_steps_that_are_left_out_do_not_count():
    x = np.array([[1.0], [2.0], [np.nan], [5.0]], "f")
    batches = [(x[:1], x[:1]), (x[2:3], x[:1]), (x[[1, 3]], x[:2] * 0)]
    run = fcnn.fit(
        fcnn.Dense(1, bias=False),
        batches,
        loss=lambda outputs, targets: outputs[:, 0],
        optimizer=optax.sgd(0.0),
        epochs=1,
        key=KEY,
        params={"kernel": jnp.ones((1, 1))},
        non_finite="skip",
        progress=False,
    )
    assert run.history["loss"].tolist() == pytest.approx([8 / 3])
    assert run.history["skipped"].tolist() == [1]


# weights


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_weighted_step_is_the_formula(accumulate, x64):
    before = start(NET, SGD, KEY, (5,)).params
    before = jax.tree.map(lambda a: a.astype("float64"), before)
    after, found = stepped((X, Y, W), accumulate=accumulate, params=before)
    w, b = np.asarray(before["kernel"]), np.asarray(before["bias"])
    scores = X @ w + b
    gap = (np.exp(log_softmax(scores)) - np.eye(3)[Y]) * W[:, None] / W.sum()
    assert_close(after.params, {"kernel": w - 0.5 * X.T @ gap, "bias": b - 0.5 * gap.sum(0)})
    assert found["loss"] == pytest.approx(np.average(-log_softmax(scores)[np.arange(48), Y], weights=W), rel=1e-10)
    assert found["accuracy"] == pytest.approx(np.average(scores.argmax(-1) == Y, weights=W), rel=1e-6)


def test_weights_are_repetitions_and_zero_is_absence(x64):
    whole = W.astype(int)
    repeated = (X.repeat(whole, 0), Y.repeat(whole))
    (one, told), (other, same) = stepped((X, Y, W)), stepped(repeated)
    assert_close(one.params, other.params)
    assert told["loss"] == pytest.approx(same["loss"], rel=1e-10)
    spoilt = X.copy()
    spoilt[W == 0] = 1e6
    assert_close(stepped((spoilt, Y, W))[0].params, one.params)
    left, right = (
        fcnn.evaluate(NET, one.params, given, metrics={"f1": metrics.f1()}, batch_size=n)
        for given, n in (((X, Y, W), 7), (repeated, 512))
    )
    assert left == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("how", ["arrays", "batches", "validation"])
def test_weights_mean_the_same_in_the_history(how, x64):
    params = NET.init(KEY, (5,))
    options = {"optimizer": optax.sgd(0.0), "epochs": 1, "key": KEY, "params": params, "progress": False}
    own = lambda outputs, targets: outputs[:, 0]  # noqa: E731
    options |= {"metrics": {"own": own, "f1": metrics.f1()}, "batch_size": 12}
    given = (X, Y, W)
    if how == "batches":
        given = [(X[i:j], Y[i:j], W[i:j]) for i, j in ((0, 30), (30, 47), (47, 48))]
    run = fcnn.fit(NET, given, validation=(X, Y, W), **options)
    found = fcnn.evaluate(NET, params, (X, Y, W), metrics=options["metrics"])
    assert found["own"] == pytest.approx(np.average(np.asarray(NET.apply(params, X))[:, 0], weights=W))
    prefix = "validation_" if how == "validation" else ""
    for name, value in found.items():
        assert run.history[prefix + name][0] == pytest.approx(value, rel=1e-6)


def test_weights_of_labels_and_masks():
    x = GENERATOR.normal(size=(6, 4, 4, 3)).astype("f")
    y = GENERATOR.integers(0, 3, (6, 4, 4)).astype(np.int32)
    mask = GENERATOR.random((6, 4, 4)) < 0.5
    net = fcnn.serial(lambda x: x)
    found = fcnn.evaluate(net, {}, (x, y, mask), metrics={"iou": metrics.iou()}, batch_size=4)
    marked = np.where(mask, y, 255)
    other = fcnn.evaluate(net, {}, (x, marked), ignore_label=255, metrics={"iou": metrics.iou()})
    assert found == pytest.approx(other)
    losses = -np.take_along_axis(log_softmax(x.astype(float)), y[..., None], -1)[..., 0]
    assert found["loss"] == pytest.approx(losses[mask].mean(), rel=1e-5)


def test_a_batch_of_which_nothing_counts_changes_nothing():
    before = start(NET, SGD, KEY, (5,))
    after, found = jax.jit(make_step(NET, SGD))(before, (X.astype("f"), Y, np.zeros(48, "f")))
    assert_close(after.params, before.params, 0)
    assert np.isnan(found["loss"])
    options = {"optimizer": SGD, "epochs": 1, "key": KEY, "progress": False}
    batches = [(X.astype("f"), Y, np.ones(48, "f")), (X.astype("f"), Y, np.zeros(48, "f"))]
    run, alone = fcnn.fit(NET, batches, **options), fcnn.fit(NET, batches[:1], **options)
    assert run.history["loss"] == pytest.approx(alone.history["loss"])


# cross-entropy with weights of classes, an ignored label, smoothing: PyTorch's


LOSSES = {
    "weights": {"class_weights": (1.0, 0.2, 3.0)},
    "ignored": {"ignore_label": -100},
    "both": {"class_weights": (1.0, 0.2, 3.0), "ignore_label": 255},
    "smoothing": {"smoothing": 0.1, "class_weights": (1.0, 0.2, 3.0), "ignore_label": -1},
}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_the_cross_entropy_is_that_of_torch(name, accumulate, x64):
    torch = pytest.importorskip("torch")
    options = LOSSES[name]
    labels = Y.copy()
    ignored = options.get("ignore_label", -100)
    if "ignore_label" in options:
        labels[::5] = ignored
    theirs = torch.nn.CrossEntropyLoss(
        weight=torch.tensor(options["class_weights"], dtype=torch.float64) if "class_weights" in options else None,
        ignore_index=ignored,
        label_smoothing=options.get("smoothing", 0.0),
    )
    params = jax.tree.map(lambda a: a.astype("float64"), NET.init(KEY, (5,)))
    kernel, bias = (torch.tensor(np.asarray(params[n]), requires_grad=True) for n in ("kernel", "bias"))
    lost = theirs(torch.tensor(X) @ kernel + bias, torch.tensor(labels).long())
    lost.backward()
    after, found = stepped((X, labels), params=params, loss=cross_entropy(**options), accumulate=accumulate)
    assert found["loss"] == pytest.approx(lost.item(), rel=1e-10)
    gradient = {"kernel": kernel.grad.numpy(), "bias": bias.grad.numpy()}
    assert_close(after.params, jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient))
    for size in (7, 48):
        told = fcnn.evaluate(NET, params, (X, labels), loss=cross_entropy(**options), batch_size=size)
        assert told["loss"] == pytest.approx(lost.item(), rel=1e-10)
        there = labels != ignored
        said = np.asarray(NET.apply(params, X)).argmax(-1)
        assert told["accuracy"] == pytest.approx((said == labels)[there].mean())


def test_shares_of_classes_are_those_of_torch(x64):
    torch = pytest.importorskip("torch")
    shares, scores = np.random.default_rng(1).dirichlet(np.ones(3), 48), X[:, :3]
    weights = (1.0, 0.2, 3.0)
    theirs = torch.nn.CrossEntropyLoss(weight=torch.tensor(weights, dtype=torch.float64), label_smoothing=0.1)
    found = fcnn.evaluate(
        fcnn.serial(lambda x: x), {}, (scores, shares), loss=cross_entropy(class_weights=weights, smoothing=0.1)
    )
    assert found == {"loss": pytest.approx(theirs(torch.tensor(scores), torch.tensor(shares)).item(), rel=1e-10)}


@pytest.mark.parametrize("loss", [None, label_smoothing(0.1), optax.losses.softmax_cross_entropy_with_integer_labels])
@pytest.mark.parametrize(("mark", "dtype"), [(255, np.uint8), (-1, np.int32), (-100, np.int64)])
def test_an_ignored_label_is_as_if_it_were_not_there(loss, mark, dtype):
    labels = Y.astype(dtype)
    labels[::3] = mark
    there = labels != mark
    x = X.astype("f")
    options = {"loss": loss, "metrics": {"f1": metrics.f1(), "top": metrics.top_k(2)}}
    params = NET.init(KEY, (5,))
    found = fcnn.evaluate(NET, params, (x, labels), ignore_label=mark, batch_size=7, **options)
    assert found == pytest.approx(fcnn.evaluate(NET, params, (x[there], labels[there]), **options), rel=1e-5)
    fitted = {"optimizer": SGD, "epochs": 3, "key": KEY, "progress": False, **options}
    marked = fcnn.fit(NET, [(x, labels)], ignore_label=mark, validation=(x, labels), **fitted)
    without = fcnn.fit(NET, [(x[there], labels[there])], validation=(x[there], labels[there]), **fitted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), marked.params, without.params)
    for name in set(marked.history) - {"seconds"}:
        np.testing.assert_allclose(marked.history[name], without.history[name], rtol=1e-5)


# several targets


@fcnn.graph(trunk=fcnn.Dense(6), kind=fcnn.Dense(3), place=fcnn.Dense(2))
def two(layer, x):
    h = jnp.tanh(layer.trunk(x))
    return {"class": layer.kind(h), "box": layer.place(h)}


@fcnn.graph(trunk=fcnn.Dense(6), kind=fcnn.Dense(3), place=fcnn.Dense(2))
def pair(layer, x):
    h = jnp.tanh(layer.trunk(x))
    return layer.kind(h), layer.place(h)


BOX = np.random.default_rng(2).normal(size=(48, 2))
TARGETS = {"class": Y, "box": BOX}
BOTH = {"class": cross_entropy(), "box": optax.losses.squared_error}


def by_one(outputs, targets):
    """A loss per example of all outputs."""
    kind = optax.losses.softmax_cross_entropy_with_integer_labels(outputs["class"], targets["class"])
    return kind + 0.5 * jnp.mean(jnp.square(outputs["box"] - targets["box"]), -1)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_dict_of_losses_is_their_weighted_sum(accumulate, x64):
    single, alone = stepped((X, TARGETS), two, loss=by_one)
    after, found = stepped((X, TARGETS), two, loss=BOTH, loss_weights={"box": 0.5}, accumulate=accumulate)
    assert_close(after.params, single.params, rtol=1e-6)  # squared_error computes in the dtype of its arguments
    assert set(found) == {"loss", "loss/class", "loss/box", "accuracy/class", "gradient_norm"}
    assert found["loss"] == pytest.approx(alone["loss"], rel=1e-10)
    assert found["loss"] == pytest.approx(found["loss/class"] + 0.5 * found["loss/box"], rel=1e-10)


def test_several_targets_go_through_everything():
    x, targets = X.astype("f"), {"class": Y, "box": BOX.astype("f")}
    options = {"loss": BOTH, "metrics": {"class": {"f1": metrics.f1()}}}
    fitted = {"optimizer": optax.adam(0.05), "epochs": 40, "key": KEY, "progress": False, "batch_size": 12}
    run = fcnn.fit(two, (x, targets), validation=(x, targets), monitor="validation_f1/class", **options, **fitted)
    names = {"loss", "loss/class", "loss/box", "accuracy/class", "f1/class"}
    told = {"seconds", "learning_rate", "gradient_norm"}
    assert set(run.history) == names | {f"validation_{n}" for n in names} | told
    assert run.history["loss"][-1] < 0.8 * run.history["loss"][0]
    found = fcnn.evaluate(two, run.params, (x, targets), batch_size=10, **options)
    assert run.best_epoch == np.argmax(run.history["validation_f1/class"]) + 1
    assert {f"validation_{n}": run.history[f"validation_{n}"][-1] for n in found} == pytest.approx(
        {f"validation_{n}": v for n, v in found.items()}, rel=1e-5
    )
    first = {"class": Y[:20], "box": targets["box"][:20]}
    batches = [(x[:20], first), (x[20:], {"class": Y[20:], "box": targets["box"][20:]})]
    again = fcnn.evaluate(two, run.params, batches, **options)
    assert again == pytest.approx(found, rel=1e-5)
    outputs = fcnn.predict(two, run.params, x, batch_size=10)
    assert outputs["box"].shape == (48, 2)


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_a_loss_per_example_of_several_outputs(kind):
    x = X.astype("f")
    if kind == "dict":
        net, targets, loss = two, {"class": Y, "box": BOX.astype("f")}, by_one
    else:
        net, targets = pair, (Y, BOX.astype("f"))
        loss = lambda o, t: by_one(dict(zip(("class", "box"), o)), dict(zip(("class", "box"), t)))  # noqa: E731, B905
    params = net.init(KEY, (5,))
    found = fcnn.evaluate(net, params, (x, targets), loss=loss, batch_size=7)
    assert set(found) == {"loss"}
    assert found["loss"] == pytest.approx(float(jnp.mean(loss(net.apply(params, x), targets))), rel=1e-5)
    weighted = fcnn.evaluate(net, params, (x, targets, W.astype("f")), loss=loss, batch_size=7)
    each = np.asarray(loss(net.apply(params, x), targets))
    assert weighted["loss"] == pytest.approx(np.average(each, weights=W), rel=1e-5)


def test_a_tuple_of_losses_and_weights_for_each():
    x, targets = X.astype("f"), (Y, BOX.astype("f"))
    params = pair.init(KEY, (5,))
    weights = (W.astype("f"), np.ones(48, "f"))
    found = fcnn.evaluate(
        pair, params, (x, targets, weights), loss=(None, optax.losses.squared_error), loss_weights=(1, 2)
    )
    kind, box = pair.apply(params, x)
    losses = -log_softmax(np.asarray(kind, float))[np.arange(48), Y]
    assert found["loss/0"] == pytest.approx(np.average(losses, weights=W), rel=1e-5)
    assert found["loss/1"] == pytest.approx(np.square(np.asarray(box) - BOX).mean(), rel=1e-5)
    assert found["loss"] == pytest.approx(found["loss/0"] + 2 * found["loss/1"], rel=1e-6)


# a mesh, members, the rest


def test_devices_that_share_a_batch_count_alike():
    mesh = jax.make_mesh((len(jax.devices()),), ("batch",))
    labels = Y.copy()
    labels[:20] = 255  # those of one device count less
    options = {"optimizer": SGD, "epochs": 2, "key": KEY, "progress": False, "ignore_label": 255, "batch_size": 24}
    options |= {"metrics": {"f1": metrics.f1()}}
    given = (X.astype("f"), labels, W.astype("f") + 1)
    run, alone = (
        fcnn.fit(NET, given, mesh=mesh, validation=given, **options),
        fcnn.fit(NET, given, validation=given, **options),
    )
    for name in set(run.history) - {"seconds"}:
        np.testing.assert_allclose(run.history[name], alone.history[name], rtol=1e-5)


def test_a_run_goes_on_in_the_middle_of_an_epoch(tmp_path):
    most = (lambda: -jnp.inf, lambda a, o, t: jnp.maximum(a, jnp.max(o)), lambda a: a)
    options = {"optimizer": SGD, "epochs": 2, "key": KEY, "progress": False}
    options |= {"metrics": {"f1": metrics.f1(), "most": most}}
    parts = [(X[i : i + 8].astype("f"), Y[i : i + 8]) for i in range(0, 48, 8)]
    whole = fcnn.fit(NET, parts, **options)

    def breaking(epoch):
        yield from parts[:4] if epoch else parts
        if epoch and not (tmp_path / "mended").exists():
            raise OSError("the disk is gone")
        yield from parts[4:] if epoch else []

    with pytest.raises(OSError, match="the disk"):
        fcnn.fit(NET, breaking, checkpoint=tmp_path / "run", **options)
    (tmp_path / "mended").touch()
    run = fcnn.fit(NET, breaking, checkpoint=tmp_path / "run", resume=True, **options)
    jax.tree.map(np.testing.assert_array_equal, run.params, whole.params)
    for name in ("loss", "accuracy", "f1", "most"):
        np.testing.assert_array_equal(run.history[name], whole.history[name])
