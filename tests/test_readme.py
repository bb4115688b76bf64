"""The README's code runs and prints what it says; its figures are those of the committed results."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def printed(code, folder=ROOT):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_example_prints_what_is_below_it():
    shown = re.search(r"```python\n.*?```\s+```\n(.*?)```", TEXT, re.DOTALL).group(1)
    found = printed(CODE[0])
    assert found.splitlines()[1:] == shown.splitlines()[1:]
    # the last digits of a training depend on the machine
    accuracy = [float(re.search(r"'accuracy': ([0-9.]+)", text).group(1)) for text in (found, shown)]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.015)


def test_the_report_of_the_scan_is_the_one_that_is_printed():
    code, shown = re.search(r"```python\n([^`]*report\([^`]*)```\s+```\n(.*?)```", TEXT, re.DOTALL).groups()
    assert printed(code) == shown


@pytest.mark.parametrize("code", [code for code in CODE[1:] if "report(" not in code])
def test_every_other_example_runs(code, tmp_path):
    printed(code, tmp_path)


def test_the_table_of_gradients_is_the_one_that_is_printed():
    block = re.search(r"```\n(>>> net = .*?)```", TEXT, re.DOTALL).group(1).splitlines()
    calls = [line.removeprefix(">>> ") for line in block if line.startswith(">>> ")]
    shown = [line for line in block if not line.startswith(">>> ")]
    found = printed("import fcnn, jax\n" + "\n".join(calls[:-1]) + f"\nprint({calls[-1]})").splitlines()

    def outline(lines):  # the errors themselves are rounding, another on every machine
        return [re.sub(r"\S*e-\d+|\b0\b", "E", " ".join(line.split())) for line in lines[:-1]]

    assert outline(found) == outline(shown)
    assert found[-1].startswith("all gradients agree")


def test_the_error_shown_is_the_error_raised():
    call, message = re.search(r">>> (.*)\n(ValueError: .*)\n", TEXT).groups()
    done = subprocess.run([sys.executable, "-c", f"import fcnn; {call}"], capture_output=True, text=True)
    assert message in done.stderr


def test_figures_are_those_of_the_committed_results():
    for name in ("digits", "mnist"):
        result = json.loads((ROOT / "benchmarks" / "results" / f"train_{name}.json").read_text())
        accuracy = result["test_accuracy"]
        assert f"{accuracy['mean']:.2%} (mean of {accuracy['n']} seeds, s.d. {accuracy['std']:.2%})" in TEXT
        assert any(f"{result['seconds']:.{digits}f} seconds" in TEXT for digits in (0, 1))
    cost = json.loads((ROOT / "benchmarks" / "results" / "import_time.json").read_text())["extra_median"]
    assert f"takes {cost:.0f} ms more than `import jax`" in TEXT


@pytest.mark.parametrize("name", ["mnist", "fashion", "spoken_digits"])
def test_the_trainings_are_the_committed_ones(name):
    result = read(name)
    accuracy, minutes = result["test_accuracy"], [seconds / 60 for seconds in result["seconds"]["each"]]
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `examples/{name}.py`")]
    several = f"{accuracy['mean']:.2%} (mean of {accuracy['n']} seeds, s.d. {accuracy['std']:.2%})"
    assert several in row if accuracy["n"] > 1 else f"{accuracy['mean']:.2%} (1 seed)" in row
    assert f"{min(minutes):.1f}" in row
    assert f"{max(minutes):.1f}" in row


def test_what_training_costs_and_loses_is_as_committed():
    words = " ".join(TEXT.split())
    kills, blocks = read("kill_soak"), read("checkpoint")["results"]["10 million parameters"]["save_blocks_ms"]
    assert f"After {kills['kills']} `kill -9` at random moments" in words
    assert f"at most {kills['worst_steps_lost']} steps were computed again" in words
    assert (kills["damaged"], kills["different_runs"]) == (0, 0)
    for name, case in read("fit_overhead")["cases"].items():
        assert f"{case['ways']['fit']['over_bare_median_of_rounds']:.2f} ({name})" in words
    assert f"stops it for {blocks['median']:.0f} ms, {blocks['worst']:.0f} at most" in words


def read(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def test_the_soak_is_the_committed_one():
    result = json.loads((ROOT / "benchmarks" / "results" / "soak.json").read_text())
    cases, failures = result["cases"], result["failures"]
    agreed = f"{cases - len(failures):,} of {cases:,} (seed {result['first_seed']} and on) agreed in float64"
    assert f"{agreed} within {result['bound']:g}" in " ".join(TEXT.split())
    for failure in failures:  # each is accounted for
        assert f"seed {failure['seed']}" in TEXT


def test_the_table_of_speed_is_that_of_the_committed_run():
    command = [sys.executable, "benchmarks/table.py", "benchmarks/results/bench_cpu.json", "README.md", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_every_name_at_the_door_that_makes_a_layer_is_listed():
    import fcnn

    for name in set(fcnn.__all__) - {"Layer", "Parameter", "__version__"}:
        assert f"`{name}`" in TEXT, name


def test_figures_of_the_scan_are_those_of_the_committed_results():
    words, rows = " ".join(TEXT.split()), [line for line in TEXT.splitlines() if line.startswith("| ")]
    speed = read("scan")
    for name, first in (("connectomics", "75 x 75"), ("lenet5", "LeNet-5, every position")):
        case = speed["cases"][name]

        def fastest(way, seconds=case["seconds"]):
            return min(value for key, value in seconds.items() if key.startswith(way))

        ways = [fastest(way) for way in ("by layers", "shift and stitch", "by patches", "PyTorch")]
        shown = [f"{value:.2f} s" if value < 10 else f"{value:,.0f} s" for value in ways]
        both = [case["speed_up_over_patches"], case["ratio_of_multiply_adds"]]
        shown.append(" of ".join(f"{n:,.0f}" if n >= 100 else f"{n:.1f}" for n in both))
        (row,) = [row for row in rows if row.startswith(f"| {first}")]
        assert row.endswith(" | ".join(shown) + " |"), shown
        assert case["share_of_the_ratio"] >= 0.6
        assert case["speed_up_over_stitching"] > 1
    assert speed["cases"]["connectomics"]["speed_up_over_patches"] >= 100
    assert min(speed["cases"]["lenet5"]["seconds"].values()) < 5
    tiles = speed["tiles"]
    assert f"takes {tiles['seconds']:.0f} s and {tiles['peak_gib']} GiB at most" in words
    assert tiles["peak_gib"] < 4
    equal = read("scan_equality")
    above = equal["above_the_limit"]
    assert f"Over {equal['networks']:,} random networks" in words
    assert f"outputs agree within {equal['worst_forward']['difference']:.0e} of the largest" in words
    assert f"but for {len(above)} at {equal['worst_gradient']['difference']:.1e}" in words
    assert all("gradient" in case for case in above)
    assert f"both within {max(equal['worst_in_extended_precision'].values()):.0e}" in words
    for way, first in (("patches", "| `examples/find_digits.py`"), ("pictures", "| | the same")):
        found = read("find_digits")["trained_on"][way]
        (row,) = [row for row in rows if row.startswith(first)]
        average = found["average_precision"]
        assert f"{average['mean']:.3f} (mean of {average['n']}, s.d. {average['std']:.3f})" in row
        assert f"{found['centre_error_pixels']['mean']:.2g} pixels off" in row
    found = read("find_words")
    hits = found["all_hits"]
    assert f"{hits['mean']:.1%} (mean of {hits['n']}, s.d. {hits['std']:.1%})" in words
    assert f"at {found['all_false_alarms_per_hour']['mean']:.0f} false alarms per hour" in words


def test_figures_of_published_weights_are_those_of_the_committed_results():
    rows = {line.split("`")[1]: line for line in TEXT.splitlines() if line.startswith("| `examples/")}
    pictures = read("find_faces")["pictures"].values()
    off = [found["largest_difference"] for found in pictures]
    assert all(of["one_to_one"] for of in off)
    assert all(of["faces"] == of["faces_of_the_original"] for of in off)
    worst = max(of[part] for of in off for part in ("boxes", "landmarks"))
    row = rows["examples/find_faces.py"]
    assert (
        f"the {sum(of['faces'] for of in off)} faces that the original finds in {['no', 'one', 'two'][len(off)]}" in row
    )
    assert f"at most {worst:.0e} pixels" in row
    assert worst < 1
    heard, row = read("pitch"), rows["examples/pitch.py"]
    every = heard["likeliest"]["all"]
    assert f"at most {heard['largest_difference_from_the_original']:.0e} from the original's" in row
    assert f"{every['within_50_cents']:.1%} of {every['frames_with_pitch']:,} frames within 50 cents" in row
    assert f"median error {every['median_error_cents']:.1f} cents" in row


def test_what_a_trained_trunk_is_worth_is_as_committed():
    result, words = read("finetune"), " ".join(TEXT.split())
    ways = [result["test_accuracy"][way] for way in ("from nothing", "frozen", "unfrozen")]
    for count in result["pictures_of_each_class"]:
        of = [way[str(count)] for way in ways]
        row = " | ".join(f"{found['mean']:.1%} ({found['std']:.1%})" for found in of)
        assert f"| {count} | {row} |" in TEXT
        assert {found["n"] for found in of} == {len(result["seeds"])}
    assert f"mean and s.d. of {len(result['seeds'])} seeds" in words
    assert f"of the {result['test_images']:,} images" in words
    assert f"classifies {result['its_test_accuracy']:.1%} of clothes" in words
    assert result["of_these_changed"]["frozen"] == 0 < result["of_these_changed"]["unfrozen"]
