"""Time fcnn beside Flax, Equinox, Haiku, Keras and PyTorch: training steps, single operations, memory.

    python benchmarks/bench.py                                     # everything, in .bench/venv
    python benchmarks/bench.py --cases lenet5 --libraries fcnn,pytorch --rounds 1 --seconds 1
    python benchmarks/bench.py --here --dtype bfloat16 --batch 512 # in this interpreter's environment: a GPU's

Every library takes its turn in a process of its own, round after round, so that a slow minute of the machine
falls on all. The result, with versions, machine and source, is written as JSON after every round;
`benchmarks/table.py` makes a table of it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import environment
import machine
import ratios
import table
from peers import LIBRARIES
from timing import others, processors, significant, summary
from worker import MARK
from workloads import CASES, LOOPS, NETWORKS, PUBLISHED, TORCH_ON_GPU

ROOT = Path(__file__).parents[1]
#: settings from outside that change what is measured, so the result names them
TELLING = ("XLA_", "JAX_", "OMP_", "MKL_", "KMP_", "TORCH", "CUDA_", "NVIDIA_TF32", "KERAS_")
#: libraries that start from the same weights agree to rounding; the third loss has it three times over
SAME = {"cpu": 1e-4, "gpu": 2e-2}  # on GPUs float32 convolutions compute in TF32


class Failed(Exception):
    """A worker that gave no answer, with the last line that it said."""


def ask(python, job, timeout):
    """Start a worker and return its answer."""
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    variables = {**kept, "PYTHONPATH": str(ROOT)}
    before, begun = processors(), time.perf_counter()
    command = [str(python), str(ROOT / "benchmarks" / "worker.py"), json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"took longer than {timeout} s") from None
    answers = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not answers:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in said if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
        raise Failed([f"ended with {done.returncode}", *said[-1:], *errors[-1:]][-1])
    busy = others(before, processors(), time.perf_counter() - begun)
    return {**json.loads(answers[-1].removeprefix(MARK)), "others": busy}


def say(*words):
    print(*words, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = {"cases": CASES, "libraries": LIBRARIES}
    for option, known in names.items():
        parser.add_argument(f"--{option}", default=",".join(known), help=f"of {', '.join(known)}", metavar="A,B")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every library")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each measurement of a turn")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, help="of the networks; as in the table of targets where not given")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "last.json", help="where the result goes")
    parser.add_argument("--no-scan", action="store_true", help="leave out the step inside lax.scan")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round: only whether all of it runs")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds after which a turn is given up")
    parser.add_argument("--patience", type=float, default=60, help="seconds for another library's step in a loop")
    parser.add_argument("--unchecked", action="store_true", help="not whether all train the same network, once known")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--here", action="store_true", help="the environment of this interpreter, as it is")
    where.add_argument("--python", type=Path, help="the environment of that interpreter, as it is")
    found = parser.parse_args()
    for option, known in names.items():
        chosen = list(dict.fromkeys(getattr(found, option).split(",")))
        if unknown := [name for name in chosen if name not in known]:
            parser.error(f"--{option}: no {', '.join(unknown)}; there are {', '.join(known)}")
        setattr(found, option, chosen)
    if found.smoke:
        found.rounds, found.seconds = 1, 0.02
    return found


def present(options, python):
    """What each wanted library is and runs on, why the missing ones are missing, and which do not apply."""
    found, missing, unsuited = {}, {}, {}
    for name in options.libraries:
        if not any(name in CASES[case] for case in options.cases):
            continue
        try:
            answer = ask(python, {"do": "probe", "library": name}, options.timeout)
        except Failed as reason:
            missing[name] = str(reason)
            continue
        if name in TORCH_ON_GPU and answer["platform"] != "gpu":
            unsuited[name] = "only timed on a GPU"
        elif name == "pytorch_autocast" and options.dtype != "bfloat16":
            unsuited[name] = "computes in bfloat16, this run is in float32"
        else:
            found[name] = answer
    return found, missing, unsuited


def fairness(options, python, libraries):
    """Whether the libraries train the same network: parameters, and losses from the same weights."""
    found = {}
    for name in libraries:
        cases = [case for case in options.cases if case in {**NETWORKS, **PUBLISHED} and name in CASES[case]]
        if not cases or name == "pytorch_autocast":  # which computes in another precision
            continue
        job = {"do": "losses", "library": name, "cases": cases, "smoke": options.smoke}
        try:
            answer = ask(python, job, options.timeout)
            for case in cases:
                found.setdefault(case, {})[name] = answer[case]
        except Failed as reason:
            say(f"{name}: losses cannot be compared: {reason}")
    for case, answers in found.items():
        first = next(iter(answers.values()))
        counts = {answer["parameters"] for answer in answers.values()}
        apart = max(
            (
                abs(a - b) / abs(b)
                for answer in answers.values()
                for a, b in zip(answer["losses"], first["losses"], strict=bool(answer["losses"]))
            ),
            default=0,
        )
        limit = max(SAME["gpu" if libraries[name]["platform"] != "cpu" else "cpu"] for name in answers)
        same = len(counts) == 1 and apart <= limit
        said = f"{case}: {counts} parameters, losses of {len(answers)} libraries differ by {apart:.1e} at most"
        say(said if same else f"NOT THE SAME NETWORK, do not compare: {said}")
        answers["same"], answers["largest_relative_difference"] = same, significant(apart, 2)
    return found


def digest(turns):
    """The figures of a library in a case from all its turns."""
    measures = {name: [] for turn in turns for name in turn["measures"]}
    found = {"ms": {}, "compile_s": {}, "memory": {}}
    for name in measures:
        seen = [turn["measures"][name] for turn in turns if name in turn["measures"]]
        rounds = [summary(one["ms"])["median"] for one in seen]
        found["ms"][name] = {**summary([ms for one in seen for ms in one["ms"]]), "medians_by_round": rounds}
        found["compile_s"][name] = summary([one["compile_s"] for one in seen])
    for name in dict.fromkeys(name for turn in turns for name in turn["memory"]):
        found["memory"][name] = summary([turn["memory"][name] for turn in turns if name in turn["memory"]])
    if steps := [turn["scan_steps"] for turn in turns if turn.get("scan_steps")]:
        found["scan_steps"] = steps[0]
    busy = [turn["others"] for turn in turns if turn["others"] is not None]
    found["others"] = max(busy) if busy else None
    return found


def line(turn):
    """What a turn found, in short."""
    shown = list(turn["measures"].items())[:2]
    times = ", ".join(f"{name} {summary(seen['ms'])['median']} ms" for name, seen in shown)
    more = f" and {len(turn['measures']) - 2} more" if len(turn["measures"]) > 2 else ""
    compiled = sum(seen["compile_s"] for seen in turn["measures"].values())
    busy = f"; OTHER PROGRAMS TOOK {turn['others']:.0%}" if (turn["others"] or 0) > table.BUSY else ""
    return f"{times}{more}; first calls {compiled:.1f} s, peak {turn['memory']['peak_mb']:.0f} MB{busy}"


def main():
    options = arguments()
    uninstalled = []
    if not (options.here or options.python):
        uninstalled = environment.make()
    python = sys.executable if options.here else options.python or environment.interpreter()
    libraries, missing, unsuited = present(options, python)
    for name, reason in {**missing, **unsuited}.items():
        say(f"without {name}: {reason}")
    if not libraries:
        sys.exit(f"none of these libraries can be used by {python}")
    result = {
        "what": "milliseconds for each call, seconds of the first call beyond a warm one, memory in 2**20 bytes",
        "options": {
            **{name: getattr(options, name) for name in ("cases", "rounds", "seconds", "dtype", "batch", "smoke")},
            "scan": not options.no_scan,
        },
        "missing": missing,
        "unsuited": unsuited,
        "not_installed": uninstalled,
        "versions": {package: v for found in libraries.values() for package, v in found["versions"].items()},
        "python": next(iter(libraries.values()))["python"],
        "devices": {
            name: {what: value for what, value in found.items() if what in ("platform", "device", "threads")}
            for name, found in libraries.items()
        },
        **machine.machine(),
        **machine.source(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(TELLING)},
        "load_before": [significant(load, 3) for load in os.getloadavg()],
        "same_network": {} if options.unchecked else fairness(options, python, libraries),
        "failed": {},
        "loops_given_up": {},
    }
    turns = {}
    for turn in range(options.rounds):
        for case in options.cases:
            order = [name for name in libraries if name in CASES[case]]
            for name in order if turn % 2 == 0 else reversed(order):
                if name in result["failed"].get(case, {}):
                    continue
                job = {"do": "time", "library": name, "case": case, "dtype": options.dtype, "batch": options.batch}
                scan = not options.no_scan and case in NETWORKS
                job |= {"seconds": options.seconds, "smoke": options.smoke, "scan": scan and name == "fcnn"}
                say_as = f"round {turn + 1}/{options.rounds}  {case:12}{name:22}"
                try:
                    answer = ask(python, job, options.timeout)
                except Failed as reason:
                    result["failed"].setdefault(case, {})[name] = str(reason)
                    say(f"{say_as}failed: {reason}")
                    continue
                if scan and turn == 0 and name in LOOPS and name != "fcnn":
                    # the loops of others can take minutes a step and are no part of a target: one turn, with a limit
                    try:
                        loop = ask(python, {**job, "do": "loop"}, options.patience)
                        answer["measures"] |= loop["measures"]
                    except Failed as reason:
                        result["loops_given_up"].setdefault(case, {})[name] = str(reason)
                        say(f"{say_as}in a loop: {reason}")
                turns.setdefault(case, {}).setdefault(name, []).append(answer)
                say(f"{say_as}{line(answer)}")
        result["cases"] = {
            case: {name: digest(turns[case][name]) for name in libraries if name in turns[case]} for case in turns
        }
        result["ratios"] = ratios.ratios(result["cases"])
        result["rounds_done"] = turn + 1
        result["load_after"] = [significant(load, 3) for load in os.getloadavg()]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    say(f"\n{table.table(result)}\n\nwritten: {options.out}")


if __name__ == "__main__":
    main()
