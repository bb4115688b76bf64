"""One network at every position: both ways of computing against windows cut out by NumPy, PyTorch and each other."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scans_drawn import differences, differences_by_hand, drawn

import fcnn
from fcnn.analysis import multiply_adds
from fcnn.scan import Scan, ScanReport, chunked
from fcnn.scan import layer as scan_layer
from fcnn.scan.rewrite import rewrite
from fcnn.scan.sample_grid import SampleGrid

relu = jax.nn.relu


def windows_of(x, window, stride):
    """Every window of x (batch, *space, channels), cut out by NumPy: (batch, *positions, *window, channels)."""
    x = np.asarray(x)
    counts = [(n - w) // s + 1 for n, w, s in zip(x.shape[1:-1], window, stride, strict=True)]
    found = np.empty((x.shape[0], *counts, *window, x.shape[-1]), x.dtype)
    for place in itertools.product(*map(range, counts)):
        cut = tuple(slice(p * s, p * s + w) for p, s, w in zip(place, stride, window, strict=True))
        found[(slice(None), *place)] = x[(slice(None), *cut)]
    return found


def one_by_one(net, params, x, window, stride, state=None):
    """The network on every window by itself, without any scan."""
    cut = windows_of(x, window, stride)
    lead = cut.shape[: 1 + len(window)]
    y = jax.jit(lambda p, x: net.apply(p, x, state=state))(
        params, jnp.asarray(cut.reshape(-1, *cut.shape[len(lead) :]))
    )
    return np.asarray(y).reshape(*lead, *y.shape[1:])


def filled(net, shape, seed=0):
    """Parameters and state with no zeros in them."""
    draw = np.random.default_rng(seed)
    declared = jax.eval_shape(lambda: (net.init(jax.random.key(0), shape), net.init_state(shape)))
    params = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(0.1, 0.6, leaf.shape)), declared[0])
    return params, jax.tree.map(lambda leaf: jnp.asarray(draw.uniform(0.5, 1.5, leaf.shape)), declared[1])


POOLED = fcnn.serial(
    fcnn.Conv(4, 3), relu, fcnn.MaxPool(2), fcnn.Conv(5, 2), jnp.tanh, fcnn.MaxPool(2),
    fcnn.Flatten(), fcnn.Dense(6), relu, fcnn.Dense(3),
)  # fmt: skip
VARIED = fcnn.serial(
    fcnn.Conv(4, 3, stride=2), fcnn.BatchNorm(), relu, fcnn.residual(fcnn.serial(fcnn.Conv(4, 1), fcnn.LayerNorm())),
    fcnn.branches(fcnn.AvgPool(3, stride=2), fcnn.MaxPool(3, stride=2)), fcnn.repeat(fcnn.residual(fcnn.Dense(8)), 2),
    fcnn.Dropout(0.5), fcnn.GlobalAvgPool(), fcnn.BatchNorm(), jax.nn.softmax,
)  # fmt: skip
VOLUME = fcnn.serial(fcnn.Conv(3, 2), relu, fcnn.LpPool(2), fcnn.Flatten(), relu, fcnn.Dense(3))
INNER = fcnn.serial(
    Scan(fcnn.serial(fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(4)), 4, stride=2), relu, fcnn.GlobalMaxPool()
)
CASES = {
    "pooled": (POOLED, (12, 12), (1, 1), (20, 19, 2)),
    "pooled, odd window, stride 2": (POOLED, (13, 13), (2, 2), (22, 23, 2)),
    "pooled, stride 3 x 6": (POOLED, (13, 12), (3, 6), (30, 31, 2)),
    "strides that leave fragments and skip": (
        fcnn.serial(
            fcnn.Conv(3, 2, stride=2), fcnn.Conv(3, 2, stride=2), fcnn.MaxPool(3), fcnn.Flatten(), fcnn.Dense(2)
        ),
        (30,), (6,), (60, 2),
    ),
    "varied": (VARIED, (15, 11), (1, 1), (19, 18, 2)),
    "varied, stride 2 x 5": (VARIED, (15, 15), (2, 5), (22, 26, 2)),
    "volume": (VOLUME, (5, 4, 3), (1, 2, 1), (8, 7, 6, 2)),
    "a scan inside": (INNER, (9, 8), (1, 1), (13, 12, 2)),
    "more than a vector": (fcnn.serial(fcnn.Conv(3, 2), fcnn.MaxPool(3, stride=2)), (9, 8), (1, 1), (12, 11, 2)),
    "nothing but Flatten": (fcnn.Flatten(), (3, 2), (2, 1), (8, 5, 2)),
    "a window of one sample": (fcnn.serial(fcnn.Conv(3, 1), fcnn.Flatten(), fcnn.Dense(2)), (1, 1), (3, 2), (9, 8, 2)),
    "a function": (lambda x: jnp.maximum(x[..., :1], 0.1), (2, 2), (2, 1), (6, 5, 2)),
}  # fmt: skip


@pytest.mark.parametrize("fragments", [False, True], ids=["dilation", "fragments"])
@pytest.mark.parametrize("name", CASES)
def test_layers_and_patches_give_what_the_network_makes_of_every_window(name, fragments, x64):
    net, window, stride, shape = CASES[name]
    scan = Scan(net, window, stride=stride, fragments=fragments)
    params, state = filled(scan, shape)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, *shape)))
    expected = one_by_one(scan.net, params, x, window, stride, state)
    y = jax.jit(lambda p, x: scan.apply(p, x, state=state))(params, x)
    assert y.shape[1:] == scan.out_shape(shape)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)
    by_patches = Scan(net, window, stride=stride, method="patches", chunk=5)
    y = jax.jit(lambda p, x: by_patches.apply(p, x, state=state))(params, x)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_two_hundred_drawn_networks_by_hand(first, x64):
    """The rewritten network against the window's, both by the reference; tests/scan_soak.py takes 10,000."""
    for seed in range(first, first + 20):
        found = differences_by_hand(drawn(seed), seed)
        assert found.forward <= 1e-12, seed
        assert found.gradient <= 1e-12, seed


@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 12), marks=pytest.mark.slow)])
def test_drawn_networks_compiled(seeds, x64):
    """Both ways by XLA; tests/scan_soak.py --compiled takes thousands."""
    for seed in seeds:
        found = differences(drawn(seed), seed)
        assert found.forward <= 1e-12, seed
        assert found.gradient <= 1e-12, seed


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="np.longdouble has no more digits here than float64")
@pytest.mark.parametrize("seed", [3929, 4496])
def test_the_two_of_ten_thousand_that_differ_most_differ_by_rounding(seed, x64):
    """With three digits more, three digits of the difference go: it is not in what is computed."""
    assert differences_by_hand(drawn(seed), seed).gradient > 1e-12
    assert differences_by_hand(drawn(seed), seed, np.longdouble).gradient < 1e-14


def test_the_comparison_of_drawn_networks_can_fail(x64, monkeypatch):
    after = SampleGrid.after

    def wrong(self, kernel, stride, dilation, *, fragments):  # the step inside the window forgotten
        grid, strides = after(self, kernel, stride, dilation, fragments=fragments)
        return dataclasses.replace(grid, step=self.step), strides

    monkeypatch.setattr(SampleGrid, "after", wrong)
    rewrite.cache_clear()
    failed = 0
    for seed in range(6, 16):
        try:
            found = differences_by_hand(drawn(seed), seed)
        except (ValueError, ZeroDivisionError):
            failed += 1
        else:
            failed += found.forward > 1e-12
    rewrite.cache_clear()
    assert failed > 3


def test_example_21_an_mlp_that_scans_is_a_convolution_with_the_window_as_kernel(x64):
    for window, shape in (((8,), (40, 3)), ((4, 5), (11, 12, 2)), ((2, 3, 2), (5, 6, 4, 2))):
        mlp = fcnn.serial(fcnn.Flatten(), fcnn.Dense(6), relu, fcnn.Dense(4))
        scan = Scan(mlp, window)
        params, _ = filled(scan, shape)
        x = np.random.default_rng(0).normal(size=(2, *shape))
        # by hand: every window as a row, two products of matrices
        rows = windows_of(x, window, (1,) * len(window))
        rows = rows.reshape(*rows.shape[: 1 + len(window)], -1)
        first, second = params["dense1"], params["dense2"]
        hidden = np.maximum(rows @ np.asarray(first["kernel"]) + np.asarray(first["bias"]), 0)
        expected = hidden @ np.asarray(second["kernel"]) + np.asarray(second["bias"])
        np.testing.assert_allclose(scan.apply(params, jnp.asarray(x)), expected, rtol=1e-12, atol=1e-13)
        conv, converted = fcnn.fully_convolutional(scan, params, shape)
        assert dict(conv.parts)["dense1"].kernel in (window, window[0])
        assert converted["dense2"]["kernel"].shape == (6, 4)
        np.testing.assert_allclose(conv.apply(converted, jnp.asarray(x)), expected, rtol=1e-12, atol=1e-13)


def test_example_22_the_layers_share_work():
    """Counted by hand: the network of Giusti et al. 2013, 75 x 75 with 4 channels, at every pixel of 512 x 512."""
    net = fcnn.serial(
        fcnn.Conv(64, 3), relu, fcnn.Conv(48, 3), relu, fcnn.MaxPool(2), fcnn.Conv(48, 3), relu, fcnn.Conv(48, 3), relu,
        fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(32), relu, fcnn.Dense(2),
    )  # fmt: skip
    report = Scan(net, 75).report((586, 586, 4))
    assert report.positions == (512, 512)
    assert report.fragments == (4, 4)
    window = 73**2 * 9 * 4 * 64 + 71**2 * 9 * 64 * 48 + (33**2 + 31**2) * 9 * 48 * 48 + 15**2 * 48 * 32 + 32 * 2
    assert report.by_patches == 512**2 * window
    # after a pooling everything lies twice as far apart: a kernel of 3 reaches over 5 samples, the window's 15 over 57
    layers = 584**2 * 9 * 4 * 64 + 582**2 * 9 * 64 * 48 + (577**2 + 573**2) * 9 * 48 * 48
    assert report.by_layers == layers + 515**2 * (15**2 * 48 * 32 + 32 * 2)
    assert report.ratio == report.by_patches / report.by_layers
    assert "(512, 512), 262,144 in all" in str(report)


def test_example_24_is_there_one_anywhere(x64):
    """A max over the positions is a logical OR: it fires exactly where some window does, and only that one learns."""
    detector = fcnn.serial(fcnn.Flatten(), fcnn.Dense(1))
    anywhere = fcnn.serial(Scan(detector, 3), fcnn.GlobalMaxPool())
    pattern = np.zeros((3, 3, 1))
    pattern[1], pattern[:, 1] = 1, 1
    params = {"scan1": {"dense1": {"kernel": jnp.asarray(pattern.reshape(9, 1)), "bias": jnp.array([-4.5])}}}
    x = np.zeros((2, 10, 12, 1))
    x[1, 4:7, 6:9] = pattern
    y = anywhere.apply(params, jnp.asarray(x))
    assert y.tolist() == [[-4.5], [0.5]]
    slope = jax.grad(lambda x: anywhere.apply(params, x)[1, 0])(jnp.asarray(x))
    assert np.argwhere(np.asarray(slope)).tolist() == [[1, i + 4, j + 6, 0] for i, j in np.argwhere(pattern[..., 0])]


@pytest.mark.parametrize("head", ["noisy or", "mean", "flatten and dense"])
def test_other_ways_to_join_positions_differentiate_alike(head, x64):
    heads = {
        "noisy or": [jax.nn.sigmoid, lambda p: 1 - jnp.prod(1 - p, (1, 2))],
        "mean": [fcnn.GlobalAvgPool()],
        "flatten and dense": [fcnn.Flatten(), fcnn.Dense(3), jnp.tanh, fcnn.Dense(2)],
    }
    shape = (15, 14, 2)
    nets = [fcnn.serial(Scan(POOLED, 12, method=method), *heads[head]) for method in ("layers", "patches")]
    params, _ = filled(nets[0], shape)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *shape)))
    found, expected = (
        jax.jit(jax.value_and_grad(lambda p, net=net: jnp.sum(jnp.sin(net.apply(p, x)))))(params) for net in nets
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_lenet_at_every_position_against_pytorch(x64):
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch==2.13.0")
    net = fcnn.models.lenet5(padding="VALID")
    scan = Scan(net, 32, stride=(2, 3))
    params, _ = filled(scan, (38, 41, 1))
    params = jax.tree.map(lambda a: a / 5, params)
    x = np.random.default_rng(0).normal(size=(1, 38, 41, 1))
    cut = torch.tensor(x[..., 0]).unfold(1, 32, 2).unfold(2, 32, 3).reshape(-1, 1, 32, 32)
    y = cut
    for name, pooled in (("conv1", True), ("conv2", True), ("conv3", False)):
        kernel = torch.tensor(np.asarray(params[name]["kernel"])).permute(3, 2, 0, 1)
        y = torch.relu(torch.nn.functional.conv2d(y, kernel, torch.tensor(np.asarray(params[name]["bias"]))))
        y = torch.nn.functional.max_pool2d(y, 2) if pooled else y
    y = y.reshape(len(y), -1)
    for name in ("dense1", "dense2"):
        y = y @ torch.tensor(np.asarray(params[name]["kernel"])) + torch.tensor(np.asarray(params[name]["bias"]))
        y = torch.relu(y) if name == "dense1" else y
    np.testing.assert_allclose(
        jax.jit(scan.apply)(params, jnp.asarray(x)).reshape(-1, 10), y.numpy(), rtol=1e-10, atol=1e-12
    )


def test_on_cpus_a_large_kernel_after_pooling_goes_by_fragments(x64):
    net = fcnn.serial(fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(3))
    params, _ = filled(net, (14, 14, 2))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 17, 18, 2)))
    expected = one_by_one(net, params, x, (14, 14), (1, 1))
    np.testing.assert_allclose(Scan(net, 14).apply(params, x), expected, rtol=1e-12, atol=1e-13)
    programs = {way: str(jax.make_jaxpr(Scan(net, 14, fragments=way).apply)(params, x)) for way in (None, True, False)}
    assert (programs[None] == programs[True]) == (jax.default_backend() == "cpu")
    assert programs[True] != programs[False]
    small = [str(jax.make_jaxpr(Scan(POOLED, 12, fragments=way).apply)(*_pooled())) for way in (None, False)]
    assert small[0] == small[1]


@pytest.mark.parametrize("together", [1, 40, 10**6])
@pytest.mark.parametrize("net", [POOLED, VARIED], ids=["pooled", "varied"])
def test_fragments_in_chunks_are_fragments_at_once(net, together, x64, monkeypatch):
    monkeypatch.setattr(chunked, "TOGETHER", together)
    shape = (23, 22, 2)
    scan = Scan(net, 15, stride=(1, 2), fragments=True)
    params, state = filled(scan, shape)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, *shape)))
    expected = one_by_one(scan.net, params, x, (15, 15), (1, 2), state)
    y = jax.jit(lambda p, x: scan.apply(p, x, state=state))(params, x)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)
    weights = np.random.default_rng(2).normal(size=y.shape)
    dilated = Scan(net, 15, stride=(1, 2), fragments=False)
    found, expected = (
        jax.jit(jax.grad(lambda p, x, s=s: jnp.vdot(weights, s.apply(p, x, state=state)), (0, 1)))(params, x)
        for s in (scan, dilated)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    loops = str(jax.make_jaxpr(lambda p: scan.apply(p, x, state=state))(params)).count("scan[")
    alone = str(jax.make_jaxpr(lambda p: dilated.apply(p, x, state=state))(params)).count("scan[")
    assert loops - alone == (together < 10**6 and jax.default_backend() == "cpu" and jax.device_count() == 1)


def test_on_cpus_many_positions_go_by_fragments(monkeypatch):
    monkeypatch.setattr(scan_layer, "_MANY", 18)
    params, _ = filled(POOLED, (12, 12, 2))
    for batch, fragments in ((1, False), (2, jax.default_backend() == "cpu")):  # 9 positions, and 18
        x = jnp.ones((batch, 14, 14, 2), jax.tree.leaves(params)[0].dtype)
        programs = [str(jax.make_jaxpr(Scan(POOLED, 12, fragments=way).apply)(params, x)) for way in (None, fragments)]
        assert programs[0] == programs[1]
        trained = [Scan(POOLED, 12, fragments=way).apply_train for way in (None, False)]
        assert len({str(jax.make_jaxpr(train)(params, x)) for train in trained}) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradients_in_half_precision_add_up_from_fragment_to_fragment(dtype, monkeypatch):
    monkeypatch.setattr(chunked, "TOGETHER", 1)
    net = fcnn.serial(fcnn.MaxPool(64), fcnn.Flatten(), fcnn.Dense(1))
    params = {"dense1": {"kernel": jnp.ones((2, 1), dtype), "bias": jnp.zeros(1, dtype)}}
    scan, x = Scan(net, 128, fragments=True), jnp.ones((1, 128 + 4095, 1), dtype)  # 64 fragments of 64 positions
    slope = jax.jit(jax.grad(lambda p: scan.apply(p, x).astype("float32").sum()))(params)
    assert [float(leaf[0]) for leaf in (slope["dense1"]["bias"], slope["dense1"]["kernel"][0])] == [4096, 4096]


def _pooled():
    params, _ = filled(POOLED, (12, 12, 2))
    return params, jnp.ones((1, 14, 14, 2), jax.tree.leaves(params)[0].dtype)


# Training.


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_batch_norm_in_training_takes_all_windows_as_one_batch(stride, x64):
    net = fcnn.serial(
        fcnn.Conv(3, 2), fcnn.BatchNorm(), relu, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(4), fcnn.BatchNorm()
    )
    shape = (9, 11, 2)
    params, state = filled(Scan(net, 5), shape)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, *shape)))
    cut = windows_of(x, (5, 5), (stride, stride))
    windows = jnp.asarray(cut.reshape(-1, 5, 5, 2))

    def trained(net, x):
        """Output, new state, and the gradient of something that depends on all of them."""

        def total(p):
            y, new = net.apply_train(p, x, state=state)
            return jnp.sum(jnp.sin(y)), (y, new)

        slope, (y, new) = jax.jit(jax.grad(total, has_aux=True))(params)
        return y, new, slope

    expected, moved, by_hand = trained(net, windows)
    for method in ("layers", "patches"):
        y, new, slope = trained(Scan(net, 5, stride=stride, method=method), x)
        np.testing.assert_allclose(y.reshape(-1, 4), expected, rtol=1e-11, atol=1e-12)
        assert y.shape[:3] == cut.shape[:3]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), new, moved)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), slope, by_hand)


@pytest.mark.parametrize("strides", [(1, 1), (7, 1), (2, 2), (1, 3)])
def test_batch_norm_in_a_scan_inside_a_scan_takes_the_windows_of_all_windows(strides, x64):
    outer_stride, inner_stride = strides
    inner = fcnn.serial(fcnn.Conv(2, 2), fcnn.BatchNorm(), relu, fcnn.Flatten(), fcnn.Dense(2), fcnn.BatchNorm())
    net = fcnn.serial(Scan(inner, 4, stride=inner_stride), relu, fcnn.Flatten(), fcnn.Dense(2))
    shape = (15, 16, 1)
    params, state = filled(Scan(net, 7), shape)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *shape)))
    # by hand: the windows of the windows are the batch of the inner network
    cut = windows_of(windows_of(x, (7, 7), (outer_stride,) * 2).reshape(-1, 7, 7, 1), (4, 4), (inner_stride,) * 2)
    by_hand = jax.jit(lambda x: inner.apply_train(params["scan1"], x, state=state["scan1"]))
    y, moved = by_hand(jnp.asarray(cut.reshape(-1, 4, 4, 1)))
    rows = relu(y).reshape(-1, params["dense1"]["kernel"].shape[0])
    expected = rows @ params["dense1"]["kernel"] + params["dense1"]["bias"]
    found, new = jax.jit(lambda x: Scan(net, 7, stride=outer_stride).apply_train(params, x, state=state))(x)
    np.testing.assert_allclose(found.reshape(-1, 2), expected, rtol=1e-11, atol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), new["scan1"], moved)


def test_dropout_by_layers_draws_for_every_value_and_by_patches_for_every_window(key):
    x = jnp.ones((1, 400, 1))
    net = fcnn.serial(fcnn.Dropout(0.25), fcnn.Flatten())
    shared, _ = Scan(net, 4).apply_train({}, x, key=key)
    own, _ = Scan(net, 4, method="patches", chunk=100).apply_train({}, x, key=key)
    for y in (shared, own):
        assert set(np.asarray(y, float).round(4).ravel().tolist()) == {0.0, 1.3333}
        assert abs(float((y == 0).mean()) - 0.25) < 0.05
    # the second value of a window is the first of the next: one draw by layers, two by patches
    assert bool((shared[0, :-1, 1] == shared[0, 1:, 0]).all())
    assert 0.5 < float((own[0, :-1, 1] == own[0, 1:, 0]).mean()) < 0.75  # 0.75^2 + 0.25^2 = 0.625
    after = fcnn.serial(fcnn.Flatten(), fcnn.Dense(1, kernel_init="ones"), fcnn.Dropout(0.25))
    y, _ = Scan(after, 4).apply_train(Scan(after, 4).init(key, (400, 1)), x, key=key)
    assert abs(float((y == 0).mean()) - 0.25) < 0.08


def test_params_are_those_of_the_network_once(key):
    scan = Scan(POOLED, 12)
    params, inside = scan.init(key, (40, 50, 2)), POOLED.init(key, (12, 12, 2))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, inside))
    assert jax.tree.structure(params) == jax.tree.structure(inside)


def test_capture_shows_the_maps_of_the_whole_image(key):
    scan = Scan(POOLED, 12)
    maps = fcnn.capture(scan, scan.init(key, (20, 20, 2)), jnp.ones((1, 20, 20, 2)))
    assert {name: a.shape for name, a in maps.items() if "conv" in name or "dense" in name} == {
        "conv1": (1, 18, 18, 4),
        "conv2": (1, 15, 15, 5),
        "dense1": (1, 9, 9, 6),
        "dense2": (1, 9, 9, 3),
    }


def test_an_ensemble_and_half_precision(key):
    scan = Scan(POOLED, 12)
    x = jax.random.normal(key, (2, 16, 15, 2))
    members = [scan.init(jax.random.key(i), (16, 15, 2)) for i in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(lambda p: scan.apply(p, x)))(stacked)
    np.testing.assert_allclose(together[1], jax.jit(scan.apply)(members[1], x), rtol=1e-4, atol=1e-5)
    low = jax.tree.map(lambda a: a.astype("bfloat16"), members[0])
    assert jax.jit(scan.apply)(low, x.astype("bfloat16")).dtype == jnp.bfloat16


# The network of convolutions.


@pytest.mark.parametrize(
    "head", [jax.nn.softmax, lambda x: jnp.concatenate([x, x[..., :1] * x], -1)], ids=["softmax", "wider"]
)
def test_branches_of_single_values_join_after_a_function_of_channels(head, x64):
    """A classifier beside a regression, all of convolutions, as in P-Net of Zhang et al. 2016."""
    net = fcnn.serial(
        fcnn.Conv(4, 3), relu, fcnn.MaxPool(2, ceil_mode=True), fcnn.Conv(5, 2), relu,
        fcnn.branches(fcnn.serial(fcnn.Conv(2, 1), head), fcnn.Conv(3, 1)),
    )  # fmt: skip
    params, _ = filled(net, (6, 6, 2))
    x = np.random.default_rng(0).normal(size=(2, 13, 10, 2))
    wanted = one_by_one(net, params, x, (6, 6), (1, 1))
    for fragments in (False, True):
        found = Scan(net, 6, fragments=fragments).apply(params, x)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)
    conv, converted = fcnn.fully_convolutional(net, params, (6, 6, 2))
    np.testing.assert_allclose(conv.apply(converted, x), net.apply(params, x), rtol=1e-12)


def test_a_classifier_becomes_convolutions_of_the_same_names(x64):
    net = fcnn.serial(
        fcnn.Conv(8, 3, padding="SAME"), fcnn.BatchNorm(), relu, fcnn.MaxPool(2),
        fcnn.residual(fcnn.Conv(8, 3, padding="SAME")), fcnn.Flatten(), fcnn.Dense(5), relu, fcnn.Dropout(0.5),
        head=fcnn.Dense(3),
    )  # fmt: skip
    params, state = filled(net, (12, 12, 3))
    conv, converted = fcnn.fully_convolutional(net, params, (12, 12, 3))
    assert not any(isinstance(part, fcnn.Flatten) for _, part in conv.parts)
    assert jax.tree.map(jnp.shape, converted)["dense1"] == {"bias": (5,), "kernel": (6, 6, 8, 5)}
    assert eval(repr(conv)) == conv
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 12, 3)))
    expected = net.apply(params, x, state=state)
    np.testing.assert_allclose(conv.apply(converted, x, state=state)[:, 0, 0], expected, rtol=1e-12, atol=1e-13)
    assert conv.out_shape((24, 20, 3)) == (7, 5, 3)


def test_without_padding_the_map_of_a_classifier_is_its_scan_in_steps(x64):
    net = fcnn.serial(
        fcnn.Conv(4, 3), relu, fcnn.MaxPool(2), fcnn.Conv(4, 3), fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(3)
    )
    params, _ = filled(net, (14, 14, 1))
    conv, converted = fcnn.fully_convolutional(net, params, (14, 14, 1))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 26, 30, 1)))
    expected = one_by_one(net, params, x, (14, 14), (4, 4))
    np.testing.assert_allclose(conv.apply(converted, x), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("make", [fcnn.models.alexnet, fcnn.models.lenet5], ids=["alexnet", "lenet5"])
def test_classifiers_of_the_library(make):
    net = make()
    shape = (227, 227, 3) if make is fcnn.models.alexnet else (28, 28, 1)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), shape))
    zeros = (
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params) if make is fcnn.models.lenet5 else params
    )
    if make is fcnn.models.lenet5:
        conv, converted = fcnn.fully_convolutional(net, zeros, shape)
    else:  # 60 million parameters, in shape only
        made = {}

        def convert(params):
            made["net"], converted = fcnn.fully_convolutional(net, params, shape)
            return converted

        converted, conv = jax.eval_shape(convert, params), made["net"]
        assert converted["dense1"]["kernel"].shape == (6, 6, 256, 4096)
    assert conv.out_shape(shape) == (1, 1, net.out_shape(shape)[0])
    assert sum(a.size for a in jax.tree.leaves(converted)) == sum(a.size for a in jax.tree.leaves(params))


def test_windows_of_one_sample_a_step_apart_inside_others(x64):
    """What no window holds is left out in a scan, in one inside another, and in the network of convolutions."""
    points = Scan(fcnn.serial(fcnn.Flatten(), fcnn.Dense(1, bias=False)), 1, stride=2)
    params, x = {"dense1": {"kernel": jnp.ones((1, 1))}}, jnp.arange(8.0).reshape(1, 8, 1)
    assert points.apply(params, x).ravel().tolist() == [0, 2, 4, 6]
    conv, converted = fcnn.fully_convolutional(points, params, (8, 1))
    assert conv.apply(converted, x).ravel().tolist() == [0, 2, 4, 6]
    pairs = Scan(fcnn.serial(points, fcnn.Flatten()), 4)
    assert pairs.apply({"scan1": params}, x)[0].tolist() == [[0, 2], [1, 3], [2, 4], [3, 5], [4, 6]]
    mixed = fcnn.serial(Scan(fcnn.serial(fcnn.Flatten(), fcnn.Dense(2)), (1, 3), stride=(2, 1)), fcnn.Flatten())
    params, _ = filled(mixed, (5, 6, 2))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 11, 2)))
    expected = one_by_one(mixed, params, x, (5, 6), (1, 2))
    for fragments in (True, False):
        scan = Scan(mixed, (5, 6), stride=(1, 2), fragments=fragments)
        np.testing.assert_allclose(scan.apply(params, x), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("stride", [1, 2, 3, 6])
@pytest.mark.parametrize("fragments", [False, True])
def test_a_scan_inside_that_leaves_one_of_its_positions(fragments, stride, x64):
    """The convolution leaves 4 values, 3 samples apart, and the scan inside has one window of 4."""
    inside = Scan(fcnn.serial(fcnn.MaxPool(3), fcnn.Flatten(), fcnn.Dense(2)), 4)
    net = fcnn.serial(fcnn.Conv(2, 1, stride=3), inside, fcnn.Flatten(), fcnn.Dense(2))
    params, _ = filled(net, (11, 1))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 31, 1)))
    found = Scan(net, 11, stride=stride, fragments=fragments).apply(params, x)
    np.testing.assert_allclose(found, one_by_one(net, params, x, (11,), (stride,)), rtol=1e-12, atol=1e-13)


def test_a_network_in_a_scan_counts_at_all_its_positions():
    conv, times = fcnn.Conv(4, 3), 18**2 * 9 * 4
    for net in (conv, fcnn.serial(conv)):
        for outer in (Scan(net, 8), fcnn.serial(Scan(net, 8))):
            assert multiply_adds(outer, (20, 20, 1)) == times
        assert multiply_adds(Scan(net, 8, method="patches"), (20, 20, 1)) == 13**2 * 6**2 * 9 * 4
    shared = fcnn.serial(conv, fcnn.graph(a=fcnn.Dense(5))(lambda layer, x: layer.a(x)))  # on what single windows make
    assert Scan(shared, 3).report((20, 20, 1)).by_layers == times + 18**2 * 4 * 5


def test_multiply_adds_by_hand():
    net = fcnn.serial(
        fcnn.Conv(6, 5),
        fcnn.LocallyConnected(2, 3, stride=3),
        fcnn.repeat(fcnn.Dense(2), 3),
        fcnn.Flatten(),
        fcnn.Dense(10),
    )
    assert multiply_adds(net, (28, 28, 1)) == 24**2 * 25 * 6 + 8**2 * (9 * 6 * 2 + 3 * 4) + 128 * 10
    assert ScanReport((2,), (1,), 6, 3).ratio == 2
