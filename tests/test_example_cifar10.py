"""The recipe for CIFAR-10, examples/cifar10.py: its first layer, its optimizer, its six views, a run of a few steps."""

import functools
import importlib.util
import json
import operator
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn


@pytest.fixture(scope="module")
def recipe():
    path = Path(__file__).parents[1] / "examples" / "cifar10.py"
    spec = importlib.util.spec_from_file_location("example_cifar10", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)  # as for a program that is run from there
        spec.loader.exec_module(module)
    return module


def images(count, seed=0, size=32):
    """Images whose neighbouring pixels and channels are alike, as those of photographs are."""
    drawn = np.random.default_rng(seed).normal(size=(count, size + 3, size + 3, 3))
    smooth = sum(drawn[:, i : i + size, j : j + size] for i in range(4) for j in range(4)) / 4
    mixing = np.array([[1.0, 0.7, 0.5], [0.0, 0.6, 0.4], [0.0, 0.0, 0.3]])
    return (smooth @ mixing + 0.1).astype(np.float32)


def forged(count, seed):
    """Images in [0, 1] and labels that their brightness tells."""
    labels = np.arange(count, dtype=np.int32) % 10
    x = 0.5 + 0.05 * images(count, seed) + 0.04 * (labels[:, None, None, None] - 4.5)
    return np.clip(x, 0, 1).astype(np.float32), labels


def moments_of_responses(x, kernels):
    """Covariance of what the kernels answer to all patches, window by window in NumPy."""
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (2, 2), axis=(1, 2))  # (..., c, i, j)
    responses = np.einsum("nhwcij,ijck->nhwk", windows, np.asarray(kernels, np.float64))
    return np.cov(responses.reshape(-1, responses.shape[-1]), rowvar=False)


def test_whitening_makes_patches_uncorrelated_and_of_unit_variance(recipe):
    x = images(40, size=12)
    kernels = recipe.whitening(x, epsilon=0.0)
    assert kernels.shape == (2, 2, 3, 24)
    np.testing.assert_allclose(moments_of_responses(x, kernels[..., :12]), np.eye(12), atol=1e-4)
    np.testing.assert_array_equal(kernels[..., 12:], -kernels[..., :12])
    # and the layer of the network answers as NumPy does
    y = np.asarray(fcnn.Conv(24, 2, bias=False).apply({"kernel": kernels}, jnp.asarray(x)), np.float64)
    np.testing.assert_allclose(np.cov(y[..., :12].reshape(-1, 12), rowvar=False), np.eye(12), atol=1e-3)


def test_epsilon_keeps_directions_that_hardly_vary_small(recipe):
    x = images(40, size=12)
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (2, 2), axis=(1, 2))
    spectrum = np.linalg.eigvalsh(np.cov(windows.reshape(-1, 12), rowvar=False))[::-1]
    found = moments_of_responses(x, recipe.whitening(x, epsilon=0.05)[..., :12])
    np.testing.assert_allclose(found, np.diag(spectrum / (spectrum + 0.05)), atol=1e-4)
    assert np.diag(found).min() < 0.9  # else the test would not tell epsilon from none


def test_dirac_passes_channels_on(recipe):
    kernel = np.asarray(recipe.dirac(jax.random.key(0), (3, 3, 4, 9)))
    passing = np.zeros((3, 3, 4, 4), np.float32)
    for channel in range(4):
        passing[1, 1, channel, channel] = 1
    np.testing.assert_array_equal(kernel[..., :4], passing)
    # the others are within PyTorch's bound and fill it: the variance of uniform numbers is a third of its square
    bound = 1 / np.sqrt(3 * 3 * 4)
    assert 0.9 * bound < abs(kernel[..., 4:]).max() <= bound
    assert kernel[..., 4:].var() == pytest.approx(bound**2 / 3, rel=0.2)
    assert recipe.conv(9).kernel_init is recipe.dirac


def test_the_network_has_the_parameters_of_the_paper(recipe):
    params = jax.eval_shape(lambda: recipe.NET.init(jax.random.key(0), (32, 32, 3)))
    assert round(sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6, 2) == 1.97
    assert recipe.NET.out_shape((32, 32, 3)) == (10,)


def by_hand(gradients, first, factor, until, steps, batch):
    """The training of one number as PyTorch's SGD would do it, on the summed loss, and Lookahead; Python alone."""
    gain = 1 + 1 / (1 - 0.85)
    rate, decay = 11.5 / (1024 * gain) * factor, 0.0153 * batch / (1024 * gain)
    p, slow, velocity, risen = first, first, 0.0, int(0.23 * steps)
    for t, g in enumerate(gradients):
        now = rate * (0.2 + 0.8 * t / risen if t < risen else 1 - 0.93 * (t - risen) / (steps - risen))
        if t < until:
            total = batch * g + decay / rate * p
            velocity = 0.85 * velocity + total
            p -= now * (total + 0.85 * velocity)
        if (t + 1) % 5 == 0:
            alpha = 0.95**5 * ((t + 1) / steps) ** 3
            slow = alpha * slow + (1 - alpha) * p
            p = slow
    return slow


@pytest.mark.parametrize("steps", [30, 33])  # 33 ends between two meetings of the fast and the slow parameters
def test_the_optimizer_step_by_step(recipe, steps):
    params = {
        "whiten": {"kernel": jnp.array([1.5]), "bias": jnp.array([0.3])},
        "block1": {"conv1": {"kernel": jnp.array([0.7])}, "batch_norm1": {"bias": jnp.array([-0.2])}},
        "head": {"kernel": jnp.array([0.4])},
    }
    places = {
        ("whiten", "bias"): (1, 9),  # learns for three epochs
        ("block1", "conv1", "kernel"): (1, steps),
        ("block1", "batch_norm1", "bias"): (64, steps),
        ("head", "kernel"): (1, steps),
    }
    drawn = np.random.default_rng(0).normal(size=steps)
    optimizer = recipe.optimizer_for(steps, 3, 500)  # epochs of 3 steps
    now, state = params, optimizer.init(params)
    update = jax.jit(optimizer.update)
    with jax.numpy_dtype_promotion("standard"):  # optax counts on it; fit sees to it
        for g in drawn:
            updates, state = update(jax.tree.map(lambda p, g=g: jnp.full_like(p, g), now), state, now)
            now = jax.tree.map(jnp.add, now, updates)
    assert now["whiten"]["kernel"] == params["whiten"]["kernel"]
    for place, known in places.items():
        first, last = (functools.reduce(operator.getitem, place, tree)[0] for tree in (params, now))
        np.testing.assert_allclose(last, by_hand(drawn, float(first), *known, steps, 500), rtol=2e-4, err_msg=place)


def test_six_views_are_the_weighted_mean_of_explicit_ones(recipe):
    net = fcnn.serial(jnp.tanh, fcnn.Flatten(), fcnn.Dense(10))  # hears where everything is
    x = images(3, size=7)
    params = net.init(jax.random.key(0), (7, 7, 3))
    mirrored = [1, 0, 1, 2, 3, 4, 5, 6, 5]  # rows and columns -1 to 7 of an image of 0 to 6
    wanted = np.zeros((3, 10))
    for offset, weight in [(0, 1 / 8), (1, 1 / 4), (2, 1 / 8)]:
        seen = mirrored[offset : offset + 7]
        moved = x[:, seen][:, :, seen]
        for view in (moved, moved[:, :, ::-1]):
            wanted += weight * np.asarray(net.apply(params, jnp.asarray(view)), np.float64)
    graph = fcnn.graph(net=net)(recipe.six_views)
    np.testing.assert_allclose(graph.apply({"net": params}, jnp.asarray(x)), wanted, atol=1e-5)


def test_flops_are_those_counted_by_hand(recipe):
    # positions x kernel x channels x features; the pictures need no gradient and the first kernels do not learn
    first = 31 * 31 * 4 * 3 * 24
    others = 9 * (31**2 * 24 * 64 + 15**2 * 64**2 + 15**2 * 64 * 256 + 2 * 7**2 * 256**2 + 3**2 * 256**2) + 2560
    assert recipe.flops_per_step(recipe.NET, 10) == 2 * 10 * (first + 3 * others)
    # 476 steps, and six views of 10,000 images: the paper's table has 3.6e14
    assert f"{476 * recipe.flops_per_step(recipe.NET, 1024) + 6e4 * 2 * (first + others):.1e}" == "3.6e+14"


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA H200", "bfloat16", 989e12),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H200", "float32", None),
        ("cpu", "bfloat16", None),
    ],
)
def test_peaks_are_given_where_they_are_known(recipe, device, precision, peak):
    assert recipe.peak_of(device, precision) == peak


def test_the_step_can_be_taken_in_bfloat16(recipe):
    optimizer = recipe.optimizer_for(480, 48, 1024)
    training = fcnn.training
    loss = training.label_smoothing(recipe.SMOOTHING)
    step = training.make_step(recipe.NET, optimizer, loss, recipe.AUGMENT, precision="bfloat16")

    def taken(x, y):
        before = training.start(recipe.NET, optimizer, jax.random.key(0), (32, 32, 3))
        return before, *step(before, ((x,), y))

    shapes = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((8,), jnp.int32)
    before, after, metrics = jax.eval_shape(taken, *shapes)  # traced under strict promotion; nothing is computed
    assert jax.tree.map(lambda a: (a.shape, a.dtype), before) == jax.tree.map(lambda a: (a.shape, a.dtype), after)
    assert {leaf.dtype for leaf in jax.tree.leaves((after.params, metrics))} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_a_few_steps_through_the_command(recipe, monkeypatch, tmp_path, capsys):
    data = fcnn.data.Dataset(forged(70, 1), forged(20, 2), tuple("abcdefghij"), "forged: nobody's")
    asked, runs, fit = [], [], fcnn.fit
    ends = {"flatten": fcnn.Flatten(), "head": fcnn.Dense(10, bias=False), "scale": recipe.ninth}
    net = fcnn.serial(whiten=fcnn.Conv(24, 2), block1=recipe.block(4), pool=fcnn.MaxPool(15), **ends)
    monkeypatch.setattr(recipe, "NET", net)  # one block of the three: less to compile
    monkeypatch.setattr(fcnn.data, "cifar10", lambda *, variant: asked.append(variant) or data)
    monkeypatch.setattr(fcnn, "fit", lambda *given, **named: runs.append((named, fit(*given, **named))) or runs[-1][1])
    # the fast parameters meet the slow ones in step 5: with fewer nothing would be kept
    arguments = ["--steps", "6", "--batch", "32", "--tested", "15", "--data", "subset", "--precision", "float32"]
    monkeypatch.setattr(sys, "argv", ["cifar10.py", *arguments, "--out", str(tmp_path)])
    assert recipe.main() == 0
    assert asked == ["subset"]
    result = json.loads((tmp_path / "result.json").read_text())
    counts = {name: result[name] for name in ("steps", "epochs", "batch_size", "training_images", "test_images")}
    assert counts == {"steps": 6, "epochs": 3, "batch_size": 32, "training_images": 64, "test_images": 15}
    assert (result["precision"], result["data"]) == ("float32", "forged: nobody's")
    (named, run) = runs[0]
    assert int(run.train.step) == 6
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), named["params"], run.params)
    assert not moved["whiten"].pop("kernel")
    assert all(jax.tree.leaves(moved))
    x = (data.train[0] - recipe.MEAN) / recipe.STD
    np.testing.assert_array_equal(run.params["whiten"]["kernel"], recipe.whitening(x))
    (share,) = result["test_accuracy"]["seeds"]
    assert share * 15 == pytest.approx(round(share * 15), abs=1e-4)
    assert f"{share:.2%}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "examples", "wanted"),
    [
        ([], 50_000, (10, 48, 1024)),
        (["--steps", "100", "--batch", "250"], 50_000, (1, 100, 250)),
        (["--steps", "300", "--batch", "250"], 50_000, (2, 150, 250)),
        (["--steps", "5"], 3000, (3, 1, 1024)),
        (["--epochs", "2"], 500, (2, 1, 500)),
    ],
)
def test_steps_are_done_in_whole_epochs(recipe, monkeypatch, arguments, examples, wanted):
    monkeypatch.setattr(sys, "argv", ["cifar10.py", *arguments])
    assert tuple(recipe.plan(examples, recipe.read_options())) == wanted


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--seeds", "0"], ["--epochs", "3", "--steps", "3"]])
def test_numbers_that_make_no_sense_are_refused(recipe, monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["cifar10.py", *arguments])
    with pytest.raises(SystemExit):
        recipe.read_options()
    assert "--" in capsys.readouterr().err


def test_missing_data_are_said(recipe, monkeypatch, capsys):
    def missing(*, variant):
        raise FileNotFoundError("there is no file")

    monkeypatch.setattr(fcnn.data, "cifar10", missing)
    monkeypatch.setattr(sys, "argv", ["cifar10.py"])
    assert recipe.main() == 1
    assert "cannot read the data: there is no file" in capsys.readouterr().err
