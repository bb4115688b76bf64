"""The check of a user's device and the soak of random networks: both pass, and both can fail."""

import functools
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soak

import fcnn
from fcnn import reference, selftest
from fcnn.selftest import known, sweep

SOAK = Path(soak.__file__)


def scaled(function, factor):
    """A function whose results are a little too large."""
    return functools.wraps(function)(lambda *args, **options: function(*args, **options) * factor)


def spoil_backward(monkeypatch, kind):
    """Let a node of the reference give a gradient of its input that is a millionth too large."""
    right = kind.backward
    monkeypatch.setattr(kind, "backward", lambda self, g: tuple(d * (1 + 1e-6) for d in right(self, g)))


def seeds_of(kind):
    return (seed for seed in itertools.count() if soak.draw(seed).kind == kind)


# The soak.


@pytest.mark.slow
def test_random_networks_agree_with_backpropagation_by_hand(tmp_path):
    """tests/soak.py itself takes 20,000 (benchmarks/results/soak.json)."""
    out = tmp_path / "soak.json"
    command = [sys.executable, SOAK, "--cases", "40", "--seed", "1000000", "--jobs", "2", "--out", out]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert (result["cases"], result["failures"]) == (40, [])
    assert (result["fully_optimised"], result["eager_too"]) == (2, 2)
    assert sum(result["kinds"].values()) == 40
    assert len(result["kinds"]) >= 15
    assert set(result["space_dimensions"]) >= {"1-D", "2-D", "3-D"}
    assert all(0 <= worst["error"] <= 1e-10 for worst in result["worst"].values())
    assert {"jax", "numpy"} <= set(result["versions"])
    assert "source_sha256" in result


def test_every_layer_and_composition_can_be_drawn():
    drawn = {name for seed in range(400) for name in soak.layers_of(soak.draw(seed).net)}
    compositions = {"Serial", "Residual", "Branches", "Repeat", "Graph"}
    public = {name for name in fcnn.layers.__all__ if name != "Function"}
    assert set(soak.KINDS) == public
    assert drawn >= public | compositions


def test_a_seed_stands_for_one_case():
    for seed in range(30):
        first, again = soak.draw(seed), soak.draw(seed)
        assert first == again
        assert str(first) == str(again)


def test_a_fault_in_a_backward_written_by_hand_is_reported_with_its_seed(monkeypatch, capsys, tmp_path, x64):
    monkeypatch.setattr(soak, "prepare", lambda: None)  # the fixture has switched float64 on, and switches it off again
    seed = next(seeds_of("Conv"))
    out = tmp_path / "soak.json"
    command = ["--cases", "1", "--seed", str(seed), "--out", str(out)]
    assert soak.main(command) == 0
    spoil_backward(monkeypatch, reference.Conv)
    capsys.readouterr()
    assert soak.main(command) == 1
    printed = capsys.readouterr().out
    assert f"WRONG seed {seed}: fcnn.Conv(" in printed
    assert f"--cases 1 --seed {seed}" in printed
    (failure,) = json.loads(out.read_text())["failures"]
    assert failure["seed"] == seed
    assert "gradient of x" in failure["where"]
    assert 1e-7 < failure["error"] < 1e-5


def test_a_fault_in_an_operation_is_reported(monkeypatch, x64):
    seed = next(seeds_of("MaxPool"))
    assert soak.run(seed)["error"] <= 1e-10
    monkeypatch.setattr(fcnn.ops, "max_pool", scaled(fcnn.ops.max_pool, 1 + 1e-9))
    done = soak.run(seed)
    assert 1e-10 < done["error"] < 1e-8
    assert "MaxPool" in done["case"]


def test_an_exception_is_a_failure_of_its_case_alone(monkeypatch, x64):
    def broken(*args, **options):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(soak, "by_hand", broken)
    result = soak.soak(2, soak.new(0), report=lambda text: None)
    assert result["cases"] == 2
    assert [failure["seed"] for failure in result["failures"]] == [0, 1]
    assert all("no such luck" in failure["where"] for failure in result["failures"])


def test_a_resumed_soak_is_the_same_as_one_in_one_go(x64):
    whole = soak.soak(4, soak.new(50))
    parts = json.loads(json.dumps(soak.soak(2, soak.new(50))))
    parts = soak.soak(4, parts)
    assert {**whole, "seconds": 0} == {**parts, "seconds": 0}
    alone = soak.run(53)  # the last of the four, by its own seed
    assert alone == soak.run(53)
    assert alone["error"] <= whole["worst"][alone["kind"]]["error"]


def test_relative_errors():
    assert soak.relative(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0
    assert soak.relative(np.array([1.0, 2.2]), np.array([1.0, 2.0])) == pytest.approx(0.1)
    assert soak.relative(np.array([1e-17]), np.array([0.0]), 1e-4) == pytest.approx(1e-13)
    assert soak.relative(np.array([np.nan]), np.array([0.0])) == np.inf
    assert soak.relative(np.zeros(2), np.zeros(3)) == np.inf


# The check of a device.


@pytest.mark.slow
def test_the_selftest_passes_here():
    done = subprocess.run([sys.executable, "-W", "error", "-m", "fcnn.selftest"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"jax \S+, jaxlib \S+, device .+", lines[0])
    assert "WRONG" not in done.stdout
    assert lines[-1] == f"all {len(known.KNOWN) + len(sweep.OPERATIONS)} lines are within bounds on this device"
    for kind in fcnn.layers.__all__:
        assert kind == "Function" or any(line.startswith(kind) for line in lines), kind


def test_the_selftest_reports_a_faulty_operation_with_its_seed(monkeypatch, capsys):
    monkeypatch.setattr(fcnn.ops, "avg_pool", scaled(fcnn.ops.avg_pool, np.float32(1 + 1e-4)))
    assert selftest.main(["--cases", "2", "--seed", "7", "--only", "AvgPool"]) == 1
    printed = capsys.readouterr().out
    assert "WRONG" in next(line for line in printed.splitlines() if line.startswith("AvgPool"))
    seed = re.search(r"again: --only 'AvgPool' --cases 1 --seed (\d+)", printed).group(1)
    assert seed in ("7", "8")
    assert selftest.main(["--cases", "1", "--seed", seed, "--only", "AvgPool"]) == 1
    assert printed.splitlines()[-1] == f"2 of {len(known.KNOWN) + 3} lines are WRONG on this device"


def test_the_selftest_reports_a_faulty_gradient(monkeypatch, capsys):
    spoil = reference.Dense.backward
    monkeypatch.setattr(reference.Dense, "backward", lambda self, g: tuple(d * (1 + 1e-4) for d in spoil(self, g)))
    assert selftest.main(["--cases", "1", "--only", "Dense"]) == 1
    assert "1 of" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("name", sweep.OPERATIONS)
def test_the_bound_of_every_operation_is_below_a_fault_of_one_in_ten_thousand(name, monkeypatch):
    for factor, wrong in ((1.0, False), (1 + 1e-4, True)):

        def computed(case, factor=factor):
            value, gradients = sweep._by_hand(case)
            return jax.tree.map(lambda a: np.float32(a * factor), (value, gradients))

        monkeypatch.setattr(sweep, "_compiled", computed)
        for error in sweep.sweep(name, 5, 0):
            assert (error.forward > error.forward_bound) == wrong
            assert (error.gradient > error.gradient_bound) == wrong


@pytest.mark.parametrize("case", known.KNOWN, ids=lambda case: case.name)
def test_a_known_result_that_is_wrong_is_seen(case):
    assert known.wrong(case) <= known.BOUND
    assert known.wrong(case._replace(value=case.value * (1 + 1e-5))) > known.BOUND
    first, *others = case.gradients
    assert known.wrong(case._replace(gradients=(first * (1 + 1e-5), *others))) > known.BOUND


def test_the_selftest_refuses_a_command_line_that_makes_no_sense(capsys):
    with pytest.raises(SystemExit):
        selftest.main(["--cases", "0"])
    assert "at least 1" in capsys.readouterr().err
