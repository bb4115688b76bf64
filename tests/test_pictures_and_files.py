"""Pictures, saved weights, and the command that makes them all."""

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

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


DTYPES = ["int8", "uint32", "int32", "float16", "bool", "complex64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back(tmp_path, dtype):
    given = {"a": {"b": jnp.array([1, 4, 2]).astype(dtype)}}
    (again, _) = fcnn.interop.load_weights(fcnn.interop.save_weights(tmp_path / "net.safetensors", given))
    assert again["a"]["b"].dtype == dtype
    assert np.asarray(again["a"]["b"]).tobytes() == np.asarray(given["a"]["b"]).tobytes()


def test_big_endian_arrays_are_saved_by_value(tmp_path):
    path = fcnn.interop.save_weights(tmp_path / "net.safetensors", {"a": np.array([1.5, -2.0], ">f4")})
    assert fcnn.interop.load_weights(path)[0]["a"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"a": np.array([2**40])}, ValueError, "params/a has dtype int64, which JAX would read back as int32"),
        ({"a": {"b": np.array([0.1])}}, ValueError, "params/a/b has dtype float64, which JAX would read back as"),
        ({"a/b": {"k": np.ones(1, "f")}, "a": {"b/k": np.zeros(1, "f")}}, ValueError, "'a/b'; in the file a slash"),
        ({"": np.ones(1, "f")}, ValueError, "can be neither empty"),
        ({"a": {}}, ValueError, "params/a is an empty dict"),
        ({3: np.ones(1, "f")}, TypeError, "entry 3; the names of entries must be strings"),
        ({"a": [np.ones(1, "f")]}, TypeError, "params/a must be an array in nested dicts, not a list"),
        ({"a": 1.0}, TypeError, "not a float"),
        ({"a": jax.random.key(0)}, TypeError, "not an array of key<"),
        ({"a": np.array(["x"])}, ValueError, "cannot be read back"),
        ({"a": np.array([None])}, ValueError, "has dtype object"),
        (np.ones(2, "f"), TypeError, "params must be nested dicts of arrays, not an array of float32"),
    ],
)  # fmt: skip
def test_what_would_not_come_back_as_it_was_is_refused_before_writing(tmp_path, params, error, message):
    with pytest.raises(error, match=message):
        fcnn.interop.save_weights(tmp_path / "net.safetensors", params)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_64_bits_is_not_narrowed(tmp_path):
    with jax.enable_x64(True):
        path = fcnn.interop.save_weights(tmp_path / "net.safetensors", {"a": jnp.array([0.1])})
        assert fcnn.interop.load_weights(path)[0]["a"].dtype == jnp.float64
    with pytest.raises(ValueError, match="params/a has dtype float64, of which half of the digits would be lost"):
        fcnn.interop.load_weights(path)


def test_a_file_in_which_an_array_has_entries_below_it_is_refused(tmp_path):
    from safetensors.numpy import save_file

    ones = np.ones(1, np.float32)
    save_file({"params/a": ones, "params/a/b": ones}, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match="params/a"):
        fcnn.interop.load_weights(tmp_path / "net.safetensors")


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


def drawn(axis):
    """Label of the axis, its lines as (colour, values), and the texts of its legend."""
    lines = [(line.get_color(), line.get_ydata().tolist()) for line in axis.lines]
    return axis.get_ylabel(), lines, [text.get_text() for text in axis.get_legend().get_texts()]


def test_an_accuracy_in_validation_alone_is_drawn():
    history = {"loss": [2.0, 1.0], "validation_loss": [2.5, 1.5], "validation_accuracy": [0.25, 0.5]}
    loss, accuracy = map(drawn, fcnn.draw.learning_curve(history).axes)
    assert loss[0] == "loss"
    assert [values for _, values in loss[1]] == [[2.0, 1.0], [2.5, 1.5]]
    assert loss[2] == ["training", "validation"]
    assert accuracy[0] == "accuracy (%)"
    assert [values for _, values in accuracy[1]] == [[25.0, 50.0]]
    assert accuracy[1][0][0] == loss[1][1][0]  # in the colour of validation
    assert accuracy[2] == ["validation"]


def test_an_accuracy_of_a_later_run_alone_is_drawn():
    runs = [{"loss": [2.0]}, {"loss": [1.0], "accuracy": [0.5]}]
    loss, accuracy = map(drawn, fcnn.draw.learning_curve(runs).axes)
    assert [values for _, values in loss[1]] == [[2.0], [1.0]]
    assert [values for _, values in accuracy[1]] == [[50.0]]
    assert (loss[2], accuracy[2]) == (["training"], ["training"])


def test_members_are_thin_lines_of_one_colour_with_one_entry_in_the_legend(tmp_path):
    members = np.array([[4.0, 5.0, 6.0], [1.0, 2.0, 3.0]])  # (epochs, members)
    names = ("loss", "validation_loss", "accuracy", "validation_accuracy")
    figure = fcnn.draw.learning_curve({name: members / 2**i for i, name in enumerate(names, start=3)})
    for axis, factors in zip(figure.axes, [(1 / 8, 1 / 16), (100 / 32, 100 / 64)], strict=True):
        _, lines, legend = drawn(axis)
        expected = [[first * factor, last * factor] for factor in factors for first, last in ((4, 1), (5, 2), (6, 3))]
        assert [values for _, values in lines] == expected
        assert len({colour for colour, _ in lines[:3]}) == len({colour for colour, _ in lines[3:]}) == 1
        assert lines[0][0] != lines[3][0]
        assert legend == ["training", "validation"]
    alone = fcnn.draw.learning_curve({"loss": [2.0, 1.0]}).axes[0].lines[0].get_linewidth()
    assert all(line.get_linewidth() < alone for axis in figure.axes for line in axis.lines)
    figure.savefig(tmp_path / "members.png")


def test_runs_and_ensembles_side_by_side_have_one_entry_too():
    runs = [{"loss": [2.0, 1.0]}, {"loss": [3.0, 2.0]}, {"loss": [[4.0, 5.0], [2.0, 3.0]]}]
    ((_, lines, legend),) = map(drawn, fcnn.draw.learning_curve(runs).axes)
    assert [values for _, values in lines] == [[2.0, 1.0], [3.0, 2.0], [4.0, 2.0], [5.0, 3.0]]
    assert legend == ["training"]


def test_a_run_without_a_finished_epoch_has_an_empty_curve():
    ((_, lines, legend),) = map(drawn, fcnn.draw.learning_curve({"loss": []}).axes)
    assert [values for _, values in lines] == [[]]
    assert legend == ["training"]


def test_a_notebook_shows_a_figure_as_png():
    figure = fcnn.draw.figure.new_figure(3.0, 2.0)
    figure.patch.set_facecolor("#204060")
    shown = figure._repr_png_()
    assert shown[:8] == b"\x89PNG\r\n\x1a\n"
    assert shown[12:16] == b"IHDR"
    assert struct.unpack(">II", shown[16:24]) == (300, 200)  # 100 pixels an inch
    pixels = np.asarray(Image.open(io.BytesIO(shown)).convert("RGB"))
    assert (pixels == [0x20, 0x40, 0x60]).all()


def test_a_notebook_is_shown_what_the_figure_holds():
    figure = fcnn.draw.learning_curve({"loss": [2.0, 1.0]})
    before = np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB")).astype(int)
    figure.axes[0].lines[0].set_color("#00ff00")
    after = np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB")).astype(int)
    greener = lambda pixels: ((pixels[..., 1] > 180) & (pixels[..., 0] < 100)).sum()  # noqa: E731
    assert greener(before) == 0
    assert greener(after) > 50


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
