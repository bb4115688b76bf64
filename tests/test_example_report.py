"""What the examples share, examples/report.py: one command, its options, what it writes and how it fails."""

import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import fcnn

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def command(monkeypatch):
    """The shared command, called with words as they stand after the name of the program."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import report

    def call(train, load, *words):
        monkeypatch.setattr("sys.argv", ["example.py", *words])
        return report.main("An example.", train, load, epochs=7, batch_size=5, out="runs/example")

    return call


def shapes():
    x = np.zeros((4, 2, 2, 1), np.float32)
    return fcnn.data.Dataset((x, np.zeros(4, np.int32)), (x, np.zeros(4, np.int32)), ("a", "b"), "nobody's")


def test_every_seed_is_trained_on_the_data_and_reported(command, tmp_path, capsys):
    asked = []

    def train(data, seed, options):
        asked.append((len(data.train[0]), seed, options.epochs, options.progress))
        return (0.5, 0.75, 1.0)[seed]

    assert command(train, shapes, "--out", str(tmp_path / "out"), "--quiet") == 0
    assert asked == [(4, 0, 7, False), (4, 1, 7, False), (4, 2, 7, False)]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["data"], result["batch_size"], result["epochs"], result["seeds"]) == ("shapes", 5, 7, [0, 1, 2])
    accuracy = result["test_accuracy"]
    assert (accuracy["mean"], accuracy["n"], accuracy["seeds"]) == (0.75, 3, [0.5, 0.75, 1.0])
    assert accuracy["std"] == pytest.approx((2 * 0.25**2 / 3) ** 0.5)
    assert result["versions"] == {
        "fcnn": fcnn.__version__,
        "jax": jax.__version__,
        "optax": optax.__version__,
        "python": platform.python_version(),
    }
    assert platform.machine() in result["machine"]
    assert abs(datetime.date.fromisoformat(result["date"]) - datetime.date.today()) <= datetime.timedelta(days=1)
    out = capsys.readouterr().out
    assert "seed 1: test accuracy 75.00%" in out
    assert str(tmp_path / "out" / "result.json") in out


def test_missing_data_are_said_in_one_line(command, tmp_path, capsys):
    def missing():
        raise FileNotFoundError("there is no file")

    assert command(None, missing, "--out", str(tmp_path / "out")) == 1
    assert capsys.readouterr().err == "cannot read the data: there is no file\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--epochs", "0"], ["--quiet", "--progress"]], ids=" ".join)
def test_options_that_make_no_sense_are_refused(command, capsys, words):
    with pytest.raises(SystemExit) as left:
        command(None, None, *words)
    assert left.value.code == 2
    assert "--" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mnist", "fashion", "spoken_digits"])
def test_the_commands_say_what_they_are(name):
    path = EXAMPLES / f"{name}.py"
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=True)
    assert f"python examples/{name}.py" in done.stdout
    assert f"runs/{name}" in done.stdout
