"""The benchmark compares like with like, computes its ratios rightly, and its table is what the result says.

No time is asserted: what is timed on the machine of a test is noise.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import xla_flags

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def modules(monkeypatch):
    """The benchmark's files as they import each other, forgotten afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    names = [path.stem for path in BENCHMARKS.glob("*.py")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def run(*words):
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla_flags.known()}"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What a run with fcnn alone, tiny and once, writes."""
    path = tmp_path_factory.mktemp("bench") / "result.json"
    cases = "lenet5,max_pool"
    code, said = run(
        BENCHMARKS / "bench.py", "--here", "--smoke", f"--cases={cases}", "--libraries=fcnn", "--out", path
    )
    assert code == 0, said
    return path


@functools.cache
def losses(library, package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    job = {"do": "losses", "library": library, "cases": ["lenet5", "six_conv"], "smoke": True}
    code, said = run(BENCHMARKS / "worker.py", json.dumps(job))
    assert code == 0, said
    return json.loads(said.split("RESULT ")[-1].splitlines()[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "package"),
    [("pytorch", "torch"), ("flax", "flax"), ("equinox", "equinox"), ("haiku", "haiku"), ("keras", "keras")],
)
def test_another_library_trains_the_same_network(library, package):
    theirs, ours = losses(library, package), losses("fcnn", "fcnn")
    for case in ("lenet5", "six_conv"):
        found = ours[case]
        assert found["parameters"] == theirs[case]["parameters"], case
        assert found["losses"] == pytest.approx(theirs[case]["losses"], rel=1e-5), case  # after two updates, too
        assert len(set(found["losses"])) == 3, "training changes the loss"


def test_networks_have_the_parameters_of_the_literature(modules):
    workloads = modules("workloads")
    assert workloads.NETWORKS["lenet5"].parameters() == 61_706  # LeCun et al. 1998, dense second convolution
    pairs = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    convolutions = sum(9 * a * b + b for a, b in pairs)
    assert workloads.NETWORKS["six_conv"].parameters() == convolutions + 4 * 4 * 256 * 10 + 10


def test_a_run_says_what_it_measured_and_where(result):
    found = json.loads(result.read_text())
    assert {"machine", "date", "commit", "source_sha256", "python", "options", "environment"} <= found.keys()
    assert {"jax", "jaxlib", "optax"} <= found["versions"].keys()
    assert found["failed"] == found["missing"] == {}
    step = found["cases"]["lenet5"]["fcnn"]["ms"]["step"]
    low, high = step["quartiles"]
    assert 0 < step["fastest"] <= low <= step["median"] <= high
    assert step["n"] >= 3
    assert found["cases"]["lenet5"]["fcnn"]["memory"]["peak_mb"]["fastest"] > 0
    assert "scan" in found["cases"]["lenet5"]["fcnn"]["ms"]
    # alone, fcnn can only be compared with itself
    assert [(got["against"], got["of"]) for got in found["ratios"]] == [("fcnn", "step")]


def summary(fastest, median):
    return {"fastest": fastest, "median": median, "quartiles": [median, median], "n": 3}


def test_ratios_are_over_the_better_of_the_others(modules):
    cases = {
        "lenet5": {
            "fcnn": {"ms": {"step": summary(6, 9), "scan": summary(6.6, 7)}, "memory": {"peak_mb": summary(120, 120)}},
            "pytorch": {"ms": {"step": summary(12, 12)}, "memory": {"peak_mb": summary(100, 100)}},
            "pytorch_channels_last": {"ms": {"step": summary(10, 15)}, "memory": {"peak_mb": summary(200, 200)}},
            "flax": {"ms": {"step": summary(12, 24)}},
        }
    }
    found = {(got["name"], got["against"]): got for got in modules("ratios").ratios(cases)}
    step = found["time", "pytorch_channels_last"]
    assert (step["ratio"], step["ratio_of_medians"], step["target"], step["reached"]) == (0.6, 0.75, 0.6, True)
    flax = found["time", "flax"]
    assert (flax["ratio"], flax["target"], flax["reached"]) == (0.5, 0.4, False)
    loop = found["time per step in a loop", "fcnn"]
    assert (loop["of"], loop["ratio"], loop["reached"]) == ("step", 1.1, False)
    memory = found["peak memory", "pytorch"]
    assert (memory["ratio"], memory["reached"]) == (1.2, True)
    assert len(found) == 4


def test_statistics_are_those_of_the_textbook(modules):
    found = modules("timing").summary([4.0, 1.0, 3.0, 2.0, 5.0])
    assert found == {"fastest": 1.0, "median": 3.0, "quartiles": [2.0, 4.0], "n": 5}
    assert modules("timing").significant(0.0123456) == 0.01235


def test_a_machine_that_does_other_things_is_noticed(modules, result):
    others = modules("timing").others
    half = (os.cpu_count() or 1) * 0.5
    assert others((100.0, 7.0), (100.0 + 10 * half + 4, 11.0), 10) == 0.5
    assert others((100.0, 7.0), (104.0, 12.0), 10) == 0  # clocks tick in coarse steps
    assert others(None, None, 10) is None
    found = json.loads(result.read_text())
    table = modules("table")
    for share, said in ((0.05, False), (0.4, True)):
        found["cases"]["lenet5"]["fcnn"]["others"] = found["cases"]["max_pool"]["fcnn"]["others"] = share
        assert ("other programs took up to 40%" in table.table(found)) is said


def test_the_table_goes_between_its_markers_and_is_checked_there(result, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench:start -->\nold\n<!-- bench:end -->\nafter\n")
    command = (BENCHMARKS / "table.py", result, page)
    code, said = run(*command, "--check")
    assert code == 1
    assert "is not that of" in said
    assert "old" in page.read_text()
    assert run(*command) == (0, "")
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| LeNet-5 step |" in text
    assert "old" not in text
    assert run(*command, "--check") == (0, "")
    assert run(*command) == (0, "")
    assert page.read_text() == text  # writing it twice adds nothing
    page.write_text(text.replace("LeNet-5", "LeNet-6"))
    assert run(*command, "--check")[0] == 1


def test_a_page_without_markers_is_an_error(modules):
    for text in ("", "<!-- bench:end --><!-- bench:start -->"):
        with pytest.raises(ValueError, match="the table goes between them"):
            modules("table").placed(text, "new")


def test_a_library_that_is_not_there_is_named_and_the_run_goes_on(modules, monkeypatch):
    bench = modules("bench")

    def ask(python, job, timeout):
        if job["library"] == "flax":
            raise bench.Failed("ModuleNotFoundError: No module named 'flax'")
        return {"versions": {}, "platform": "cpu"}

    monkeypatch.setattr(bench, "ask", ask)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--cases", "lenet5"])
    found, missing, unsuited = bench.present(bench.arguments(), sys.executable)
    assert missing == {"flax": "ModuleNotFoundError: No module named 'flax'"}
    assert set(unsuited) == {"pytorch_autocast", "pytorch_compile"}
    assert {"fcnn", "pytorch", "keras"} <= found.keys()
