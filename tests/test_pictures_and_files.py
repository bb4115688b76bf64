"""Pictures, saved weights, and the command that makes them all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn

ROOT = Path(__file__).parents[1]


def test_weights_come_back_as_they_were(tmp_path):
    net = fcnn.serial(fcnn.Conv(4, 3), fcnn.BatchNorm(), fcnn.repeat(fcnn.Dense(4), 2), fcnn.Flatten(), fcnn.Dense(2))
    params, state = net.init(jax.random.key(0), (5, 5, 1)), net.init_state((5, 5, 1))
    params["dense1"]["bias"] = jnp.array([1.5, -2.0], jnp.bfloat16)
    path = fcnn.interop.save_weights(tmp_path / "deep" / "net.safetensors", params, state)
    again = fcnn.interop.load_weights(path)
    assert jax.tree.structure(again) == jax.tree.structure((params, state))
    jax.tree.map(np.testing.assert_array_equal, again, (params, state))
    assert again[0]["dense1"]["bias"].dtype == jnp.bfloat16
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = fcnn.interop.save_weights(tmp_path / "net.safetensors", {"dense1": {"bias": jnp.ones(2)}})
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        fcnn.interop.save_weights(path, {"dense1": {"bias": jnp.zeros(2)}})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", [lambda raw: raw[:-3], lambda raw: b"junk", lambda raw: b""])
def test_a_damaged_file_of_weights_is_refused(tmp_path, damage):
    path = fcnn.interop.save_weights(tmp_path / "net.safetensors", {"dense1": {"bias": jnp.ones(2)}})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        fcnn.interop.load_weights(path)


def test_a_file_of_other_weights_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"layer.weight": np.ones(2, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="begin with params/ or state/"):
        fcnn.interop.load_weights(tmp_path / "other.safetensors")


@pytest.mark.parametrize("shape", [(3, 3, 1, 4), (5, 5, 3, 6), (3, 3, 4, 5)])
def test_kernels_of_any_number_of_channels_are_drawn(tmp_path, shape):
    figure = fcnn.draw.kernels(np.random.default_rng(0).normal(size=shape), title="kernels")
    drawn = [image for axis in figure.axes for image in axis.images]
    assert len(drawn) == (shape[3] if shape[2] == 3 else shape[2] * shape[3])
    figure.savefig(tmp_path / "kernels.png")


def test_kernels_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="two space dimensions"):
        fcnn.draw.kernels(np.zeros((3, 1, 4)))


def test_mistakes_shows_what_is_wrong_and_only_that(tmp_path):
    x = np.zeros((5, 8, 8, 1))
    figure = fcnn.draw.mistakes(x, [0, 1, 2, 3, 4], [0, 9, 2, 8, 4], "0123456789", title="wrong")
    assert [axis.get_title() for axis in figure.axes if axis.images] == ["1, said 9", "3, said 8"]
    figure.savefig(tmp_path / "mistakes.png")
    none = fcnn.draw.mistakes(x, [1] * 5, [1] * 5, "0123456789")
    assert none.axes[0].texts[0].get_text() == "no mistakes"
    with pytest.raises(ValueError, match="5 images, 5 labels and 1 predictions"):
        fcnn.draw.mistakes(x, [1] * 5, [1], "0123456789")


def test_a_learning_curve_holds_the_numbers_of_the_history():
    history = {"loss": [2.0, 1.0], "accuracy": [0.5, 0.75], "validation_loss": [2.5, 1.5]}
    figure = fcnn.draw.learning_curve([history, history])
    loss, accuracy = figure.axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[2.0, 1.0]] * 2 + [[2.5, 1.5]] * 2
    assert accuracy.lines[0].get_ydata().tolist() == [50.0, 75.0]
    with pytest.raises(ValueError, match="no 'loss'"):
        fcnn.draw.learning_curve({})


def run_train(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "train.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_training_command_writes_what_it_says(tmp_path):
    done = run_train("--epochs", "2", "--seeds", "2", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    written = {line.split()[-1] for line in done.stdout.split("written:")[1].splitlines() if line.strip()}
    assert {Path(path).name for path in written} == {
        "learning_curve.png", "kernels.png", "mistakes.png", "weights.safetensors", "result.json",
    }  # fmt: skip
    assert all(Path(path).stat().st_size > 100 for path in written)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(result["test_accuracy"]["seeds"]) == 2
    assert "21,482 parameters" in done.stdout
    assert "epoch 2/2" in done.stderr


def test_the_training_command_without_data_ends_in_one_sentence(tmp_path):
    done = run_train(
        "--data", "mnist",
        FCNN_DATA=str(tmp_path / "nowhere"), XDG_CACHE_HOME=str(tmp_path / "cache"), https_proxy="http://127.0.0.1:9",
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert "FCNN_DATA" in done.stderr
