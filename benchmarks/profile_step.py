"""Where the time of fcnn's training step goes: XLA's operations, from its profiler.

    python benchmarks/profile_step.py lenet5 --out profile.json
    python benchmarks/profile_step.py lenet5 six_conv --steps 20

It runs in any environment with fcnn and optax. An operation's time is summed over the threads that compute it and
averaged over the steps. Operations may overlap, and one that calls others (a loop) counts them too, so the sum need not
be the time of the step, which is measured beforehand, without the profiler.
"""

import argparse
import gzip
import json
import tempfile
from collections import Counter
from pathlib import Path

import jax
from machine import provenance
from peers import fcnn_
from timing import measure, significant
from workloads import NETWORKS, network

LISTED = 25


def operations(trace):
    """Milliseconds by operation, of a trace in Chrome's format as the profiler writes it."""
    found = Counter()
    for event in trace["traceEvents"]:
        name = event.get("args", {}).get("hlo_op")
        if event.get("ph") == "X" and name:
            found[name] += event["dur"] / 1000  # microseconds there
    return found


def traced(call, steps):
    """The milliseconds of each operation in so many calls."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                jax.block_until_ready(call())
        found = Counter()
        for path in Path(folder).rglob("*.trace.json.gz"):
            with gzip.open(path) as file:
                found += operations(json.load(file))
    if not found:
        raise RuntimeError("the profiler's trace names no operation")
    return found


def profile(case, options):
    """Time of a step and of its operations."""
    training = fcnn_.Training(network(case, batch=options.batch, smoke=options.smoke), "float32", None)
    step_ms = min(measure(training.step, fcnn_.wait, options.seconds)["ms"])
    found = traced(training.step, options.steps)
    means = [{"op": name, "ms": significant(total / options.steps)} for name, total in found.most_common()]
    rest = means[LISTED:]
    return {
        "step_ms": significant(step_ms),
        "operations_ms": significant(sum(found.values()) / options.steps),
        "operations": means[:LISTED],
        "rest": {"operations": len(rest), "ms": significant(sum(one["ms"] for one in rest))},
    }


def table(case, found):
    """A case as plain text: an operation in a line, with its share of all."""
    total = found["operations_ms"]
    rest = {"op": f"{found['rest']['operations']} more", "ms": found["rest"]["ms"]}
    lines = [f"{one['ms']:10.3f}  {one['ms'] / total:6.1%}  {one['op']}" for one in (*found["operations"], rest)]
    head = f"{case}: a step takes {found['step_ms']:g} ms, its operations {total:g} ms under the profiler"
    return "\n".join([head, *lines])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=list(NETWORKS), help="the networks", metavar="CASE")
    parser.add_argument("--out", type=Path, help="where the result goes; it is only printed where not given")
    parser.add_argument("--steps", type=int, default=10, help="steps under the profiler")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for the steps without it")
    parser.add_argument("--batch", type=int, help="of the networks; as in the table of targets where not given")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: only whether all of it runs")
    found = parser.parse_args()
    if found.smoke:
        found.steps, found.seconds = 2, 0.02
    return found


def main():
    options = arguments()
    result = {
        "what": "milliseconds of a training step and of its operations, summed over threads, mean of the steps",
        "options": {name: getattr(options, name) for name in ("cases", "steps", "seconds", "batch", "smoke")},
        **provenance(),
        **fcnn_.device(),
        "cases": {},
    }
    for case in dict.fromkeys(options.cases):
        result["cases"][case] = profile(case, options)
        print(table(case, result["cases"][case]), end="\n\n", flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
