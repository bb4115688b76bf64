"""Frozen parts stay as they are, bit for bit, and run as they are used."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcnn
from fcnn.training import TrainState, averaged, frozen, make_step, recompute_statistics, start, trainable

NET = fcnn.serial(
    trunk=fcnn.serial(fcnn.Conv(4, 3, padding="SAME"), fcnn.BatchNorm(), jax.nn.relu, fcnn.Dropout(0.5)),
    neck=fcnn.serial(fcnn.Conv(3, 3, padding="SAME"), fcnn.BatchNorm(), jax.nn.relu),
    pool=fcnn.GlobalAvgPool(),
    head=fcnn.Dense(2),
)
SHAPE = (5, 5, 1)


def data(count=24):
    numbers = np.random.default_rng(0)
    return numbers.normal(size=(count, *SHAPE)), numbers.integers(0, 2, count).astype("int32")


def first():
    """Parameters, and statistics that are those of no batch."""
    params, state = NET.init(jax.random.key(3), SHAPE), NET.init_state(SHAPE)
    return params, jax.tree.map(lambda a: a + jnp.arange(1.0, 1 + a.size, dtype=a.dtype) / 4, state)


def same(a, b):
    return all(
        x.tobytes() == y.tobytes() for x, y in zip(*(map(np.asarray, jax.tree.leaves(t)) for t in (a, b)), strict=True)
    )


def by_torch(params, state, x, y, steps):
    """The same network in PyTorch, its trunk by requires_grad_(False) and eval(), with SGD, momentum and decay."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def block(inputs, outputs):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout(0.5)
        )

    trunk, neck, head = block(1, 4), block(4, 3)[:3], nn.Linear(3, 2)
    tensor = lambda a: torch.tensor(np.asarray(a))  # noqa: E731
    for name, part in (("trunk", trunk), ("neck", neck)):
        own = params[name]
        part.double().load_state_dict(
            {
                "0.weight": tensor(own["conv1"]["kernel"]).permute(3, 2, 0, 1),
                "0.bias": tensor(own["conv1"]["bias"]),
                "1.weight": tensor(own["batch_norm1"]["scale"]),
                "1.bias": tensor(own["batch_norm1"]["bias"]),
                "1.running_mean": tensor(state[name]["batch_norm1"]["mean"]),
                "1.running_var": tensor(state[name]["batch_norm1"]["variance"]),
                "1.num_batches_tracked": torch.tensor(0),
            }
        )
    head.double().load_state_dict(
        {"weight": tensor(params["head"]["kernel"]).T, "bias": tensor(params["head"]["bias"])}
    )
    trunk.requires_grad_(False).eval()
    optimizer = torch.optim.SGD([*neck.parameters(), *head.parameters()], lr=0.1, momentum=0.9, weight_decay=0.01)
    images, labels = torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(y).long()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(neck(trunk(images)).mean((2, 3))), labels)
        loss.backward()
        optimizer.step()
    return neck, head


@pytest.mark.parametrize("chosen", [frozen("trunk"), trainable("neck/*", "head")])
def test_it_is_requires_grad_false_and_eval_of_torch(chosen, x64):
    (params, state), (x, y) = first(), data()
    optimizer = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9))
    step = jax.jit(make_step(NET, optimizer, trainable=chosen))
    train = start(NET, optimizer, jax.random.key(0), SHAPE, params=params, state=state, trainable=chosen)
    for _ in range(5):
        train, _ = step(train, (x, y))
    neck, head = by_torch(params, state, x, y, 5)
    own = train.params["neck"]
    for got, wanted in (
        (own["conv1"]["kernel"], neck[0].weight.permute(2, 3, 1, 0)),
        (own["conv1"]["bias"], neck[0].bias),
        (own["batch_norm1"]["scale"], neck[1].weight),
        (own["batch_norm1"]["bias"], neck[1].bias),
        (train.state["neck"]["batch_norm1"]["mean"], neck[1].running_mean),
        (train.state["neck"]["batch_norm1"]["variance"], neck[1].running_var),
        (train.params["head"]["kernel"], head.weight.T),
        (train.params["head"]["bias"], head.bias),
    ):
        np.testing.assert_allclose(got, wanted.detach().numpy(), rtol=1e-10, atol=1e-12)
    assert same(train.params["trunk"], params["trunk"])
    assert same(train.state["trunk"], state["trunk"])


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"average": 0.9, "keep_best": True, "monitor": "loss"},
        {"precision": "float16"},
        {"accumulate": 2},
        {"non_finite": "skip"},
    ],
    ids=lambda more: next(iter(more), "plain"),
)
def test_what_is_frozen_stays_bit_for_bit_in_fit(more):
    params, state = jax.tree.map(lambda a: a.astype("float32"), first())
    x, y = data()
    x = x.astype("float32")
    run = fcnn.fit(
        NET, (x, y), optimizer=optax.adamw(0.01, weight_decay=0.1), epochs=2, key=jax.random.key(0), batch_size=8,
        params=params, state=state, trainable=frozen("trunk"), progress=False, **more,
    )  # fmt: skip
    assert same(run.params["trunk"], params["trunk"])
    assert same(run.state["trunk"], state["trunk"])
    assert not same(run.params["head"], params["head"])
    assert not same(run.state["neck"], state["neck"])
    kept = sum(a.size for a in jax.tree.leaves(run.train.optimizer_state) if a.dtype == jnp.float32)
    trained = sum(a.size for name in ("neck", "head") for a in jax.tree.leaves(params[name]))
    assert kept <= 3 * trained + 2  # two moments, an average, a scale
    # what measures statistics anew leaves those of frozen parts
    again = recompute_statistics(NET, run.params, run.state, x, key=jax.random.key(0), trainable=frozen("trunk"))
    assert same(again["trunk"], state["trunk"])
    assert not same(again["neck"], run.state["neck"])


def test_no_gradient_of_what_is_frozen_is_computed():
    net = fcnn.serial(trunk=fcnn.serial(*[fcnn.Dense(16)] * 6), head=fcnn.Dense(2))
    optimizer, batch = optax.sgd(0.1), (jnp.ones((4, 16)), jnp.zeros(4, "int32"))

    def products(chosen):
        train = start(net, optimizer, jax.random.key(0), (16,), trainable=chosen)
        return str(jax.make_jaxpr(make_step(net, optimizer, trainable=chosen))(train, batch)).count("dot_general[")

    assert (products(None), products("head")) == (7 + 7 + 6, 7 + 1)


def test_members_of_an_ensemble_are_frozen_alike_and_a_run_goes_on(tmp_path):
    x, y = data()
    settings = {"optimizer": optax.adam(0.01), "batch_size": 8, "key": jax.random.key(0), "progress": False}
    ensemble = fcnn.fit(NET, (x.astype("float32"), y), members=2, epochs=2, trainable="head", **settings)
    begun = jax.vmap(lambda key: start(NET, optax.sgd(0.1), key, SHAPE).params)(jax.random.split(jax.random.key(0), 2))
    assert same(ensemble.params["trunk"], begun["trunk"])
    assert not same(ensemble.params["head"], begun["head"])

    pytest.importorskip("orbax.checkpoint")
    settings |= {"data": (x.astype("float32"), y), "net": NET, "trainable": ("head", "neck")}
    whole = fcnn.fit(epochs=3, **settings)
    fcnn.fit(epochs=1, checkpoint=tmp_path, **settings)
    with pytest.raises(fcnn.training.CheckpointError, match=r"other parts frozen|does not fit"):
        fcnn.fit(epochs=3, checkpoint=tmp_path, resume=True, **(settings | {"trainable": None}))
    resumed = fcnn.fit(epochs=3, checkpoint=tmp_path, resume=True, **settings)
    assert same((resumed.params, resumed.state), (whole.params, whole.state))


def test_parts_rest_where_they_are_shared_repeated_and_nested():
    block = fcnn.residual(fcnn.serial(fcnn.BatchNorm(), fcnn.Dropout(0.5)))
    net = fcnn.serial(
        a=fcnn.graph(norm=fcnn.BatchNorm(), out=fcnn.Dense(3))(lambda layer, x: layer.out(layer.norm(layer.norm(x)))),
        b=fcnn.repeat(block, 2),
        c=fcnn.remat(fcnn.serial(block, fcnn.BatchNorm(scale=False, bias=False))),
        d=fcnn.Dense(2),
    )
    params, state = net.init(jax.random.key(0), (3,)), net.init_state((3,))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)) * 3, "float32")
    batch = x, jnp.zeros(7, "int32")

    def after(chosen) -> TrainState:
        train = start(net, optax.sgd(0.1), jax.random.key(0), (3,), params=params, state=state, trainable=chosen)
        return jax.jit(make_step(net, optax.sgd(0.1), trainable=chosen))(train, batch)

    everything, _ = after(None)
    moved = lambda train: {name for name in state if not same(train.state[name], state[name])}  # noqa: E731
    assert moved(everything) == {"a", "b", "c"}
    for chosen, left in (
        (frozen("a/norm"), {"b", "c"}),
        (frozen("b"), {"a", "c"}),
        (frozen("**/batch_norm*"), {"a"}),
        (trainable("d"), set()),
    ):
        train, metrics = after(chosen)
        assert moved(train) == left, chosen
    # all of it rests but the last layer, so that the loss is that of use
    wanted = optax.losses.softmax_cross_entropy_with_integer_labels(net.apply(params, x, state=state), batch[1]).mean()
    assert metrics["loss"] == pytest.approx(float(wanted), rel=1e-6)


def test_it_is_a_mask_of_optax():
    params = NET.init(jax.random.key(0), SHAPE)
    optimizer = optax.masked(optax.set_to_zero(), lambda p: jax.tree.map(lambda m: not m, trainable("head")(p)))
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    assert {name: bool(updates[name]["bias"].any()) for name in ("head",)} == {"head": True}
    assert not any(a.any() for a in jax.tree.leaves((updates["trunk"], updates["neck"])))
    averages = averaged(optax.sgd(0.1), 0.9)
    state = NET.init_state(SHAPE)
    train = start(NET, averages, jax.random.key(0), SHAPE, params=params, state=state, trainable="head")
    assert same(fcnn.training.averaged_params(train.optimizer_state, params), params)


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        ("haed", ValueError, r"'haed' matches nothing; did you mean 'head'\? The parts are .*trunk/conv1/kernel"),
        (frozen("trunk", "conv1"), ValueError, "frozen: 'conv1' matches nothing"),
        (frozen("**"), ValueError, "leaves no parameter to train"),
        (3, TypeError, "must be paths of parts"),
        (("head", 3), TypeError, "must be a path such as"),
        ((), ValueError, "name at least one part"),
        ("/", ValueError, "is empty"),
    ],
)
def test_mistakes_are_explained(chosen, error, message):
    x, y = data(4)
    with pytest.raises(error, match=message):
        fcnn.fit(
            NET, (x.astype("float32"), y), optimizer=optax.sgd(0.1), epochs=1, key=jax.random.key(0), trainable=chosen,
            progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "path", "wanted"),
    [
        ("trunk", "trunk/conv1/kernel", True),
        ("trunk/", "trunk/conv1/kernel", True),
        ("trunk/*", "trunk/conv1/kernel", True),
        ("trunk", "trunk2/kernel", False),
        ("stage*/conv1", "stage4/conv1/bias", True),
        ("*/bias", "trunk/conv1/bias", False),
        ("**/bias", "trunk/conv1/bias", True),
        ("**/bias", "bias", True),
        ("a/**/kernel", "a/kernel", True),
        ("a/**/kernel", "b/a/kernel", False),
        ("**", "a", True),
    ],
)
def test_patterns(pattern, path, wanted):
    assert trainable(pattern).chosen(tuple(path.split("/"))) is wanted
    assert frozen(pattern).chosen(tuple(path.split("/"))) is not wanted
