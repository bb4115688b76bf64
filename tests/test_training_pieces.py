"""Wrappers of optimizers, losses, statistics and votes: held to NumPy written out, to optax and to PyTorch."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn
from fcnn.training.ensemble import count_members, evaluate_ensemble, vote
from fcnn.training.losses import cross_entropy, label_smoothing
from fcnn.training.optimizers import averaged, averaged_params, decay_mask, loss_scale, loss_scaling
from fcnn.training.statistics import recompute_statistics

KEY = jax.random.key(0)


@pytest.fixture
def standard():
    """Optax counts on JAX's standard promotion; the step of training sets it around an update."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def drawn(*shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


# Weight decay.


def test_only_kernels_are_decayed_whatever_their_axes():
    net = fcnn.serial(
        fcnn.LocallyConnected(2, 3),
        fcnn.repeat(fcnn.residual(fcnn.serial(fcnn.Conv(2, 1), fcnn.BatchNorm())), 2),
        fcnn.Flatten(),
        fcnn.LayerNorm(),
        head=fcnn.Dense(3),
    )
    keys = jax.random.split(KEY, 4)
    params = jax.eval_shape(jax.vmap(lambda key: net.init(key, (5, 5, 2))), keys)
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): value
        for path, value in jax.tree.leaves_with_path(decay_mask(params))
    }
    assert found == {
        "head/bias": False,
        "head/kernel": True,
        "layer_norm1/bias": False,
        "layer_norm1/scale": False,
        "locally_connected1/bias": False,
        "locally_connected1/kernel": True,
        "repeat1/body/batch_norm1/bias": False,
        "repeat1/body/batch_norm1/scale": False,
        "repeat1/body/conv1/bias": False,
        "repeat1/body/conv1/kernel": True,
    }
    assert params["locally_connected1"]["bias"].ndim > params["head"]["kernel"].ndim  # axes alone would not do


def test_decay_with_the_mask_moves_kernels_alone(standard):
    params = fcnn.serial(fcnn.Dense(3), fcnn.BatchNorm()).init(KEY, (2,))
    params = jax.tree.map(lambda a: a + 1, params)
    optimizer = optax.adamw(0.1, weight_decay=0.5, mask=decay_mask)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["dense1"]["kernel"], -0.05 * params["dense1"]["kernel"], rtol=1e-6)
    assert not any(u.any() for u in (updates["dense1"]["bias"], *updates["batch_norm1"].values()))


# Averages.


def trained(optimizer, gradients, start):
    """The parameters before and after every step, and the last state."""
    params, state = {"kernel": jnp.asarray(start)}, None
    state = optimizer.init(params)
    seen = [np.asarray(params["kernel"])]
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update({"kernel": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(np.asarray(params["kernel"]))
    return seen, state


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("warm_up", [True, False], ids=["warm-up", "constant"])
def test_the_average_is_the_one_written_out(every, warm_up, standard, x64):
    start, gradients = drawn(4), drawn(20, 4, seed=1)
    seen, state = trained(averaged(optax.adam(0.1), 0.6, every=every, warm_up=warm_up), gradients, start)
    average, taken = start, 0
    for step, params in enumerate(seen[1:], 1):
        if step % every == 0:
            decay = min(0.6, (1 + taken) / (10 + taken)) if warm_up else 0.6
            average, taken = decay * average + (1 - decay) * params, taken + 1
    np.testing.assert_allclose(averaged_params(state)["kernel"], average, rtol=1e-6)  # decay is a float32
    plain, _ = trained(optax.adam(0.1), gradients, start)
    np.testing.assert_array_equal(seen, plain)  # the updates are those of the optimizer


def test_the_average_is_that_of_torch(standard):
    torch = pytest.importorskip("torch")
    swa = pytest.importorskip("torch.optim.swa_utils")
    start, gradients = drawn(4, dtype="float32"), drawn(15, 4, seed=1, dtype="float32")
    seen, state = trained(averaged(optax.sgd(0.1), 0.9, warm_up=False), gradients, start)
    model = torch.nn.Linear(4, 1, bias=False)
    average = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9))
    for params in seen:
        with torch.no_grad():
            model.weight.copy_(torch.tensor(params))
        average.update_parameters(model)
    found = next(average.module.parameters()).detach().numpy()[0]
    np.testing.assert_allclose(averaged_params(state)["kernel"], found, rtol=1e-5, atol=1e-7)


def test_the_published_example_of_tensorflow(standard):
    # v = 0, then 5: decay min(0.99, 1/10), so the shadow is 0.1 * 0 + 0.9 * 5
    _, state = trained(averaged(optax.sgd(1.0), 0.99), [np.float32(-5.0)], np.float32(0.0))
    assert float(averaged_params(state)["kernel"]) == pytest.approx(4.5, rel=1e-6)


def test_the_average_of_halves_is_kept_in_float32(standard):
    start = jnp.ones(3, "bfloat16")
    steps = np.full((50, 3), -(2.0**-7), "float32").astype(jnp.bfloat16)
    seen, state = trained(averaged(optax.sgd(1.0), 0.99, warm_up=False), steps, start)
    average = np.ones(3)
    for params in seen[1:]:
        average = 0.99 * average + 0.01 * params.astype("float64")
    found = averaged_params(state)["kernel"]
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, average, rtol=1e-5)
    assert averaged_params(state, {"kernel": start})["kernel"].dtype == "bfloat16"


def test_the_average_is_found_anywhere_and_refused_where_there_is_none(standard):
    params = {"kernel": jnp.ones(2)}
    inside = optax.chain(optax.clip(1.0), optax.masked(averaged(optax.adam(0.1)), {"kernel": True}))
    np.testing.assert_array_equal(averaged_params(loss_scaling(inside).init(params))["kernel"], params["kernel"])
    with pytest.raises(ValueError, match=r"no averages.*wrap the optimizer"):
        averaged_params(optax.adam(0.1).init(params))
    with pytest.raises(ValueError, match=r"2 averages.*once"):
        averaged_params(averaged(averaged(optax.adam(0.1))).init(params))
    with pytest.raises(ValueError, match="needs the parameters"):
        averaged(optax.sgd(0.1)).update(params, averaged(optax.sgd(0.1)).init(params))


def test_line_searches_get_what_they_ask_for(standard):
    def bowl(params):
        return jnp.sum(jnp.square(params["kernel"] - 3.0))

    params = {"kernel": jnp.zeros(2)}
    optimizer = averaged(loss_scaling(optax.lbfgs()))
    state = optimizer.init(params)
    for _ in range(3):
        scale = loss_scale(state)
        gradient = jax.grad(lambda p, scale=scale: bowl(p) * scale)(params)
        updates, state = optimizer.update(gradient, state, params, value=bowl(params), grad=gradient, value_fn=bowl)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["kernel"], 3.0, rtol=1e-4)


# Scaling.


def test_scaling_is_the_one_written_out(standard):
    period, scale, good = 3, 8.0, 0
    optimizer = loss_scaling(optax.sgd(0.5, momentum=0.9), initial=scale, period=period)
    params, momentum = {"kernel": jnp.zeros(2)}, np.zeros(2)
    state = optimizer.init(params)
    bad = {4: np.inf, 5: -np.inf, 9: np.nan, 10: np.inf, 11: np.inf, 12: np.inf, 13: np.inf, 14: np.inf}
    for step in range(22):
        gradient = drawn(2, seed=step)
        given = gradient * scale
        if step in bad:
            given[1] = bad[step]
        updates, state = jax.jit(optimizer.update)({"kernel": jnp.asarray(given, "float32")}, state, params)
        if step in bad:
            wanted, scale, good = np.zeros(2), max(scale / 2, 1.0), 0
        else:
            momentum = 0.9 * momentum + gradient
            wanted, good = -0.5 * momentum, good + 1
            if good == period:
                scale, good = scale * 2, 0
        np.testing.assert_allclose(updates["kernel"], wanted, rtol=1e-5, atol=1e-7)
        assert float(loss_scale(state)) == scale
    assert scale > 1.0


def test_gradients_below_the_range_of_float16_arrive(standard):
    x = jnp.full((1,), 2.0**-14, "float16")

    def small(params, scale):  # the product of two halves of 2**-14 is below float16; the scale lifts it
        return jnp.sum((params["kernel"] * x).astype("float32")) * jnp.float32(2.0**-14) * scale

    params = {"kernel": jnp.zeros(1, "float16")}
    for initial, wanted in ((1.0, 0.0), (2.0**15, -(2.0**-28))):
        optimizer = loss_scaling(optax.sgd(1.0), initial=initial)
        state = optimizer.init(params)
        gradient = jax.grad(small)(params, loss_scale(state))
        updates, _ = optimizer.update(gradient, state, params)
        assert updates["kernel"].dtype == "float32"
        assert float(updates["kernel"][0]) == wanted


def test_the_scale_stays_finite(standard):
    optimizer = loss_scaling(optax.sgd(1.0), initial=2.0**126, period=1)
    params = {"kernel": jnp.zeros(1)}
    state = optimizer.init(params)
    for _ in range(4):
        _, state = optimizer.update({"kernel": jnp.ones(1)}, state, params)
    assert float(loss_scale(state)) == 2.0**127
    assert loss_scale(optax.adam(0.1).init(params)) is None
    assert float(loss_scale(averaged(optimizer).init(params))) == 2.0**126
    with pytest.raises(ValueError, match=r"2 scales.*once"):
        loss_scale(loss_scaling(optimizer).init(params))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: averaged(optax.sgd, 0.9), TypeError, "averaged: optimizer must be an optax optimizer"),
        (lambda: averaged(optax.sgd(0.1), 1.0), ValueError, r"averaged: decay is 1, it must be in \[0, 1\)"),
        (lambda: averaged(optax.sgd(0.1), "0.9"), TypeError, "averaged: decay must be a number"),
        (lambda: averaged(optax.sgd(0.1), every=0), ValueError, "averaged: every is 0"),
        (lambda: loss_scaling(None), TypeError, "loss_scaling: optimizer must be an optax optimizer"),
        (
            lambda: loss_scaling(optax.sgd(0.1), initial=0.5),
            ValueError,
            "loss_scaling: initial is 0.5, it must be at least 1",
        ),
        (lambda: loss_scaling(optax.sgd(0.1), period=1.5), TypeError, "loss_scaling: period"),
        (lambda: loss_scaling(optax.sgd(0.1), factor=1), ValueError, "loss_scaling: factor is 1"),
        (lambda: label_smoothing(1.5), ValueError, r"label_smoothing: smoothing is 1.5, it must be in \[0, 1\]"),
        (lambda: label_smoothing("a little"), TypeError, "label_smoothing: smoothing must be a number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_out_of_range_are_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


# LabelSmoothing labels.


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("space", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("kind", ["labels", "distributions"])
def test_label_smoothing_is_that_of_torch(smoothing, space, kind, x64):
    torch = pytest.importorskip("torch")
    scores = drawn(5, *space, 4)
    generator = np.random.default_rng(1)
    targets = generator.integers(0, 4, (5, *space))
    if kind == "distributions":
        targets = generator.dirichlet(np.ones(4), (5, *space))
    loss = torch.nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
    classes_second = [torch.tensor(np.moveaxis(a, -1, 1) if a.ndim == scores.ndim else a) for a in (scores, targets)]
    found = label_smoothing(smoothing)(jnp.asarray(scores), jnp.asarray(targets))
    np.testing.assert_allclose(found, loss(*classes_second).numpy(), rtol=1e-12, atol=1e-12)


def test_without_smoothing_it_is_the_cross_entropy_and_it_compiles_once():
    scores, labels = jnp.asarray(drawn(6, 5, dtype="float32")), jnp.arange(6) % 5
    np.testing.assert_allclose(label_smoothing(0.0)(scores, labels), cross_entropy(scores, labels), rtol=1e-6)
    assert label_smoothing(0.0)(scores.astype("bfloat16"), labels).dtype == "float32"
    traced = []

    def total(loss, scores):
        traced.append(loss)
        return loss(scores, labels).sum()

    compiled = jax.jit(total, static_argnums=0)
    for loss in (
        label_smoothing(0.1),
        label_smoothing(0.1),
        pickle.loads(pickle.dumps(label_smoothing(0.1))),
        label_smoothing(0.2),
    ):
        compiled(loss, scores)
    assert traced == [label_smoothing(0.1), label_smoothing(0.2)]


@pytest.mark.parametrize(
    ("targets", "kind", "message"),
    [
        (np.zeros(3, "float32"), TypeError, "labels must be integers, not float32"),
        (np.zeros((3, 4), "int32"), TypeError, "must be of floating point, not int32"),
        (np.zeros((3, 5), "float32"), ValueError, r"\(3, 5\) do not suit outputs of \(3, 4\)"),
        (np.zeros((3, 1), "int32"), ValueError, r"give labels of \(3,\)"),
    ],
    ids=["labels of floating point", "one-hot integers", "five classes", "a column"],
)
def test_targets_that_do_not_suit_are_refused(targets, kind, message):
    with pytest.raises(kind, match=message):
        label_smoothing(0.1)(jnp.zeros((3, 4)), targets)


# Statistics.


def normalised(momentum=0.9):
    return fcnn.serial(
        fcnn.Conv(3, 3), fcnn.BatchNorm(momentum=momentum), jnp.tanh, fcnn.Conv(2, 1), fcnn.BatchNorm(momentum=momentum)
    )


def test_statistics_are_the_mean_over_batches_and_momentum_is_gone(x64):
    x = drawn(20, 6, 6, 1)
    params = normalised().init(KEY, (6, 6, 1))
    # the first norm sees the convolution alone
    seen = np.asarray(fcnn.Conv(3, 3).apply(params["conv1"], jnp.asarray(x)))
    means = [part.mean((0, 1, 2)) for part in np.split(seen, 4)]
    variances = [part.var((0, 1, 2), ddof=1) for part in np.split(seen, 4)]
    for momentum in (0.0, 0.5, 0.999):
        net = normalised(momentum)
        old = jax.tree.map(lambda a: a * 7 + 3, net.init_state((6, 6, 1)))
        found = recompute_statistics(net, params, old, x, batch_size=5)
        np.testing.assert_allclose(found["batch_norm1"]["mean"], np.mean(means, 0), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found["batch_norm1"]["variance"], np.mean(variances, 0), rtol=1e-10)
        assert jax.tree.structure(found) == jax.tree.structure(old)


def test_statistics_are_those_of_torch(x64):
    torch = pytest.importorskip("torch")
    swa = pytest.importorskip("torch.optim.swa_utils")
    net, x = normalised(), drawn(24, 6, 6, 1)
    params = net.init(KEY, (6, 6, 1))
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Tanh(), torch.nn.Conv2d(3, 2, 1),
        torch.nn.BatchNorm2d(2),
    ).double()  # fmt: skip
    with torch.no_grad():
        for name, layer in (("conv1", model[0]), ("conv2", model[3])):
            layer.weight.copy_(torch.tensor(np.asarray(params[name]["kernel"]).transpose(3, 2, 0, 1).copy()))
            layer.bias.copy_(torch.tensor(np.asarray(params[name]["bias"])))
    swa.update_bn([torch.tensor(part.transpose(0, 3, 1, 2).copy()) for part in np.split(x, 3)], model)
    found = recompute_statistics(net, params, net.init_state((6, 6, 1)), x, batch_size=8)
    for name, layer in (("batch_norm1", model[1]), ("batch_norm2", model[4])):
        np.testing.assert_allclose(found[name]["mean"], layer.running_mean.numpy(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found[name]["variance"], layer.running_var.numpy(), rtol=1e-10)


def test_statistics_of_batches_of_unlike_size_and_of_a_norm_that_never_moves(x64):
    x = drawn(7, 3)
    net = fcnn.serial(fcnn.BatchNorm(momentum=0.8), fixed=fcnn.BatchNorm(momentum=1.0))
    state = jax.tree.map(lambda a: a + 2, net.init_state((3,)))
    found = recompute_statistics(net, net.init(KEY, (3,)), state, x, batch_size=3)  # 2, 2 and 3 examples
    np.testing.assert_allclose(found["batch_norm1"]["mean"], x.mean(0), rtol=1e-12)
    variances = [part.var(0, ddof=1) * len(part) / 7 for part in (x[:2], x[2:4], x[4:])]
    np.testing.assert_allclose(found["batch_norm1"]["variance"], sum(variances), rtol=1e-12)
    jax.tree.map(np.testing.assert_array_equal, found["fixed"], state["fixed"])


def test_statistics_of_a_norm_used_twice_in_float32_with_dropout():
    net = fcnn.graph(norm=fcnn.BatchNorm(momentum=0.9), drop=fcnn.Dropout(0.5))(
        lambda layer, x: layer.drop(layer.norm(layer.norm(x) + 1))
    )
    x = drawn(50, 2, dtype="float32") + 4
    params, state = net.init(KEY, (2,)), net.init_state((2,))
    found = recompute_statistics(net, params, state, x, key=KEY)
    # the running average sees the mean of x, then that of the normalised x + 1: where it settles
    wanted = (0.9 * x.mean(0) + 1.0) / 1.9
    np.testing.assert_allclose(found["norm"]["mean"], wanted, rtol=1e-5)
    assert found["norm"]["mean"].dtype == "float32"
    with pytest.raises(ValueError, match="needs a key"):
        recompute_statistics(net, params, state, x)
    assert recompute_statistics(fcnn.Dense(2), fcnn.Dense(2).init(KEY, (2,)), {}, x) == {}


# Votes.


def members(net, shape, count=3):
    return jax.vmap(lambda key: net.init(key, shape))(jax.random.split(KEY, count))


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_the_vote_and_its_figures_are_those_written_out(x64):
    net, x = fcnn.serial(fcnn.Dense(8), jnp.tanh, fcnn.BatchNorm(), fcnn.Dense(4)), drawn(30, 5)
    params = members(net, (5,))
    labels = np.random.default_rng(1).integers(0, 4, 30)
    state = jax.tree.map(lambda a: jnp.stack([a, a + 1, a + 2]), net.init_state((5,)))
    p = []
    for i in range(3):
        own, own_state = jax.tree.map(lambda a, i=i: np.asarray(a[i]), (params, state))
        h = np.tanh(x @ own["dense1"]["kernel"] + own["dense1"]["bias"])
        norm = own_state["batch_norm1"]
        h = (h - norm["mean"]) / np.sqrt(norm["variance"] + 1e-5)
        p.append(softmax(h @ own["dense2"]["kernel"] + own["dense2"]["bias"]))
    voted = np.mean(p, 0)
    np.testing.assert_allclose(vote(net, params, x, state=state), voted, rtol=1e-10)
    found = evaluate_ensemble(net, params, (x, labels), state=state, batch_size=7)
    rows = np.arange(30)
    np.testing.assert_allclose(found["accuracy"], [(q.argmax(-1) == labels).mean() for q in p], rtol=1e-6)
    np.testing.assert_allclose(found["loss"], [-np.log(q[rows, labels]).mean() for q in p], rtol=1e-10)
    assert found["vote_accuracy"] == pytest.approx((voted.argmax(-1) == labels).mean())
    assert found["vote_loss"] == pytest.approx(-np.log(voted[rows, labels]).mean(), rel=1e-10)
    assert found["gain"] == pytest.approx(found["vote_accuracy"] - np.mean(found["accuracy"]), abs=1e-6)
    # the logarithm is concave: the vote is no worse than its members are on average
    assert found["vote_loss"] < found["loss"].mean()


def test_each_member_is_evaluated_as_it_is_alone():
    net, x = (
        fcnn.serial(fcnn.Conv(3, 2), jax.nn.relu, fcnn.Flatten(), fcnn.Dense(3)),
        drawn(9, 4, 4, 1, dtype="float32"),
    )
    labels, params = np.arange(9, dtype="int32") % 3, members(net, (4, 4, 1), 4)
    found = evaluate_ensemble(net, params, (x, labels))
    for i in range(4):
        alone = fcnn.evaluate(net, jax.tree.map(lambda a, i=i: a[i], params), (x, labels))
        assert found["accuracy"][i] == pytest.approx(alone["accuracy"])
        assert found["loss"][i] == pytest.approx(alone["loss"], rel=1e-5)


def test_a_sure_mistake_of_all_costs_a_finite_loss():
    net, params = fcnn.Dense(2, bias=False), {"kernel": jnp.array([[[0.0, 1.0]], [[0.0, 2.0]]])}
    found = evaluate_ensemble(net, params, (np.array([[1e4]], "float32"), np.array([0])))
    assert found["vote_loss"] == pytest.approx(1e4 + np.log(2), rel=1e-5)  # log(1/2 exp(-1e4) + 1/2 exp(-2e4))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda p: {**p, "bias": p["bias"][:2]}, r"params\['kernel'\] has shape \(3, .*2 members"),
        (lambda p: {**p, "bias": jnp.ones(())}, r"params\['bias'\] has shape \(\)"),
        (lambda p: {}, "params have no arrays"),
    ],
    ids=["unlike numbers", "a single number", "none"],
)
def test_members_are_counted(break_it, message):
    params = members(fcnn.Dense(2), (4,))
    assert count_members(params, {}) == 3
    broken = break_it(copy.copy(params))
    for call in (vote, lambda *given: evaluate_ensemble(*given[:2], (given[2], np.zeros(1, "int32")))):
        with pytest.raises(ValueError, match=message):
            call(fcnn.Dense(2), broken, np.ones((1, 4), "float32"))
