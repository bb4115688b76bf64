"""What looking at the data costs, and what one bad pixel does with it and without.

    python benchmarks/locality.py --out benchmarks/results/locality.json

Steps of training with fcnn as it is, and with the second computation taken out (so that XLA removes the look at the
data too), in turn. Errors are those of outputs that do not see the pixel, beside outputs of 1; seed 0, n = 1.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from machine import provenance
from peers import fcnn_
from timing import significant, summary
from workloads import NETWORKS, network, random

import fcnn
from fcnn.ops.convolution import locality

UNLESS = locality.unless
KINDS = {"as it is": UNLESS, "without looking": lambda fits, y, *again: y}
#: x, kernel, algorithm
CONVOLUTIONS = {
    "winograd 3x3": ((1, 16, 16, 64), (3, 3, 64, 64), "winograd"),
    "winograd 5x5": ((1, 16, 16, 16), (5, 5, 16, 16), "winograd"),
    "fourier 25x25": ((1, 64, 64, 1), (25, 25, 1, 1), "fourier"),
}


def steps(case, seconds, smoke):
    """Milliseconds of a step and seconds of processor time that compiling takes, of each kind."""
    trainings, found = {}, {}
    for kind, unless in KINDS.items():
        locality.unless = unless
        jax.clear_caches()
        trainings[kind] = training = fcnn_.Training(network(case, smoke=smoke), "float32", None)
        begun = time.process_time()
        fcnn_.wait(training.step())
        found[kind] = {"first_step_cpu_s": significant(time.process_time() - begun), "ms": []}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(found["as it is"]["ms"]) < 3:
        for kind, training in trainings.items():
            begun = time.perf_counter()
            fcnn_.wait(training.step())
            found[kind]["ms"].append(1000 * (time.perf_counter() - begun))
    locality.unless = UNLESS
    return {kind: {**entry, "ms": summary(entry["ms"])} for kind, entry in found.items()}


def errors(shape, kernel, algorithm):
    """The largest error of outputs that do not see the pixel, for each value of it."""
    draw = random(0)
    x = draw.normal(size=shape).astype("float32")
    weights = draw.normal(size=kernel).astype("float32") / float(kernel[0] * kernel[1] * kernel[2]) ** 0.5
    middle = (0, shape[1] // 2, shape[2] // 2, 0)

    def convolved(x, algorithm):
        return jax.jit(lambda x: fcnn.ops.conv(x, weights, padding="SAME", algorithm=algorithm))(x)

    with jax.enable_x64(True):
        exact = convolved(x.astype("float64"), "direct").astype("float32")
    found = {}
    for value in (None, 65535.0, 1e30, float("nan")):
        bad = x.copy()
        if value is not None:
            bad[middle] = value
        seen = fcnn.ops.conv(jnp.asarray(bad != x, "float32"), jnp.ones(kernel), padding="SAME") > 0.5
        for kind, unless in KINDS.items():
            locality.unless = unless
            jax.clear_caches()
            error = jnp.where(seen, 0, jnp.abs(convolved(bad, algorithm) - exact)).max()
            found.setdefault(str(value), {})[kind] = str(significant(float(error), 2))
    locality.unless = UNLESS
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".bench/locality.json"))
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--smoke", action="store_true", help="small networks: only whether it runs")
    options = parser.parse_args()
    result = {"what": __doc__.splitlines()[0], **provenance(), "errors": {}, "steps": {}}
    for name, problem in CONVOLUTIONS.items():
        result["errors"][name] = errors(*problem)
        print(name, result["errors"][name], flush=True)
    for case in NETWORKS:
        result["steps"][case] = steps(case, 0.1 if options.smoke else options.seconds, options.smoke)
        print(case, result["steps"][case], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
