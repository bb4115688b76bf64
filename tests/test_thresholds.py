"""Thresholds are derived rightly from measured times, and those of the library lose little where they were measured.

No time is asserted that is taken here: what is timed on the machine of a test is noise.
"""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
GRIDS = ("winograd3", "winograd5", "winograd_side", "winograd_side_many", "few", "blocks_patch")


@pytest.fixture
def modules(monkeypatch):
    """The benchmark's files as they import each other, forgotten afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    names = [path.stem for path in BENCHMARKS.glob("*.py")] + ["peers"]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in [*names, *(name for name in sys.modules if name.startswith("peers."))]:
        sys.modules.pop(name, None)


def run(*words):
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def points(*rows):
    return [{"sizes": sizes, "ms": dict(zip(("direct", "fast", "other"), ms, strict=False))} for *sizes, ms in rows]


def test_a_threshold_lies_where_the_algorithms_cross(modules):
    derive = modules("thresholds").derive
    times = points((16, (1, 2)), (32, (1, 1.5)), (64, (3, 2)), (128, (4, 1)))
    # by hand: from 64 on nothing is lost; "from 16 on" loses 2 and 1.5 times, "from 128 on" 1.5 times
    found = derive(times, (16,), "fast", at_least=True)
    assert (found["derived"], found["current"]) == ([64], [16])
    assert found["mean_loss"] == {"derived": 0, "current": pytest.approx(math.log(3) / 4, rel=5e-3)}
    # the other way round, "at most": never is best where it is slower everywhere
    found = derive(points((25, (1, 2)), (75, (1, 3))), (75,), "fast", at_least=False)
    assert found["derived"] == [24]
    assert found["mean_loss"]["current"] == pytest.approx(math.log(6) / 2, rel=5e-3)


def test_noise_is_weighed_by_its_ratio(modules):
    # fast wins by little at 1, loses by much at 2, wins by most at 3: by hand the losses of thresholds 1, 2, 3, never
    # are log 2, log 1.1 + log 2, log 1.1, log 1.1 + log 5
    times = points((1, (1.1, 1)), (2, (1, 2)), (3, (5, 1)))
    found = modules("thresholds").derive(times, (1,), "fast", at_least=True)
    assert found["derived"] == [3]
    assert found["mean_loss"]["derived"] == pytest.approx(math.log(1.1) / 3, rel=5e-3)
    assert found["mean_loss"]["current"] == pytest.approx(math.log(2) / 3, rel=5e-3)


def test_the_current_threshold_stays_where_none_is_better(modules):
    derive = modules("thresholds").derive
    times = points((16, (1, 2)), (64, (2, 1)))
    for now in (17, 40, 64):
        assert derive(times, (now,), "fast", at_least=True)["derived"] == [now]
    # equally bad on both sides: everything from 16 to never loses log 2 once
    assert derive(points((16, (1, 2)), (64, (1, 1))), (64,), "fast", at_least=True)["derived"] == [64]


def test_a_pair_of_thresholds_is_derived_together(modules):
    # fast wins with at most 4 channels and at most 16 features, and nowhere else
    rows = [(c, f, (2, 1) if c <= 4 and f <= 16 else (1, 2)) for c in (1, 4, 8) for f in (6, 16, 32)]
    found = modules("thresholds").derive(points(*rows), (8, 6), "fast", at_least=False)
    assert found["derived"] == [4, 16]
    # by hand, of 9 problems: fast is wrongly picked at (8, 6), and wrongly not at (1, 16) and (4, 16)
    assert found["mean_loss"] == {"derived": 0, "current": pytest.approx(math.log(8) / 9, rel=5e-3)}


def test_a_third_algorithm_counts_for_the_fastest_alone(modules):
    found = modules("thresholds").derive(points((1, (2, 4, 1)), (2, (4, 2, 1))), (2,), "fast", at_least=True)
    assert found["derived"] == [2]
    assert found["mean_loss"]["derived"] == pytest.approx(math.log(2), rel=5e-3)


def test_with_pooling_each_algorithm_is_what_is_measured(modules):
    if jax.default_backend() != "cpu":
        pytest.skip("the thresholds are those of the CPU")
    thresholds = modules("thresholds")
    before = {name: grid.current() for name, grid in thresholds.GRIDS.items()}
    # without the thresholds moved, the choice would be the same for both: few channels, few examples
    problem = thresholds.Problem(3, "SAME", 2, 6, 1, 2, pooled=True)
    texts, results = {}, {}
    for name in ("direct", "blocks"):
        function, arguments = thresholds.compiled(problem, name)
        texts[name] = function.as_text()
        results[name] = jax.tree.leaves(function(*arguments))
    for a, b in zip(*results.values(), strict=True):
        assert jnp.allclose(a, b, atol=1e-5)
    assert results["direct"][0].shape == (2, 3, 3, 2)
    # XLA's convolution has a window of the kernel's size, blocks have matrix products, and a loop around the other
    # algorithm, for data that are not finite
    assert "size=3x3" in texts["direct"]
    assert " while(" not in texts["direct"]
    assert " while(" in texts["blocks"]
    assert {name: grid.current() for name, grid in thresholds.GRIDS.items()} == before


def test_the_script_measures_every_grid(tmp_path):
    path = tmp_path / "thresholds.json"
    said = run(BENCHMARKS / "thresholds.py", "--smoke", "--out", path)
    found = json.loads(path.read_text())
    assert {"machine", "date", "commit", "source_sha256", "python", "options", "versions"} <= found.keys()
    assert tuple(found["grids"]) == GRIDS
    for grid in found["grids"].values():
        assert len(grid["derived"]) == len(grid["current"]) == len(grid["constants"])
        assert grid["mean_loss"]["derived"] <= grid["mean_loss"]["current"]
        assert all(name in said for name in grid["constants"])
        for point in grid["points"]:
            assert len(point["ms"]) >= 2
            assert min(point["ms"].values()) > 0


def test_operations_of_a_trace_are_summed(modules):
    def event(ph="X", dur=1000, **args):
        return {"ph": ph, "dur": dur, "args": args}

    events = [
        event(hlo_op="dot"), event(hlo_op="dot", dur=500), event(hlo_op="add", dur=250),
        event(ph="B", hlo_op="dot"), event(other="dot"), {"ph": "X", "dur": 7000}, {"ph": "M"},
    ]  # fmt: skip
    assert modules("profile_step").operations({"traceEvents": events}) == {"dot": 1.5, "add": 0.25}


def test_a_profile_names_the_operations_of_a_step(tmp_path):
    path = tmp_path / "profile.json"
    said = run(BENCHMARKS / "profile_step.py", "lenet5", "--smoke", "--out", path)
    case = json.loads(path.read_text())["cases"]["lenet5"]
    times = [one["ms"] for one in case["operations"]]
    assert times == sorted(times, reverse=True)
    assert len(times) == 25
    assert case["operations_ms"] == pytest.approx(sum(times) + case["rest"]["ms"], rel=0.01)
    assert case["step_ms"] > 0
    assert case["operations"][0]["op"] in said


@pytest.mark.parametrize("name", GRIDS)
def test_the_thresholds_lose_little_where_they_were_measured(modules, name):
    path = BENCHMARKS / "results" / "thresholds.json"
    if not path.exists():
        pytest.skip("benchmarks/results/thresholds.json has not been measured")
    thresholds = modules("thresholds")
    grid = thresholds.GRIDS[name]
    times = json.loads(path.read_text())["grids"][name]["points"]
    lost = thresholds.derive(times, grid.current(), grid.algorithm, at_least=grid.at_least, otherwise=grid.otherwise)
    assert lost["mean_loss"]["current"] <= lost["mean_loss"]["derived"] + 0.1, lost
