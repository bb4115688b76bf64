"""Convolution by Fourier transforms beside the direct one, for growing kernels: from what size on it is the faster.

    python benchmarks/fft.py --out benchmarks/results/fft.json

Both compute the result and both gradients, float32, in one compiled function; they take turns, the fastest call counts.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from machine import provenance
from timing import measure, significant
from workloads import random

import fcnn

BATCH, SIDE = 16, 64
KERNELS = (5, 7, 11, 15, 21, 31)
CHANNELS = (3, 16, 64)


def milliseconds(side, kernel, channels, rounds, seconds):
    """The fastest call of each way."""
    draw = random(0)
    out = side - kernel + 1
    shapes = (BATCH, side, side, channels), (kernel, kernel, channels, 16), (BATCH, out, out, 16)
    x, weights, above = (jnp.asarray(draw.normal(size=shape), "float32") for shape in shapes)
    calls = {}
    for name in ("direct", "fourier"):

        def all_three(x, weights, above, name=name):
            y, back = jax.vjp(lambda x, weights: fcnn.ops.conv(x, weights, algorithm=name), x, weights)
            return y, *back(above)

        compiled = jax.jit(all_three).lower(x, weights, above).compile()
        calls[name] = lambda compiled=compiled: compiled(x, weights, above)
    for a, b in zip(calls["direct"](), calls["fourier"](), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * float(jnp.abs(a).max()))
    found = {}
    for _ in range(rounds):
        for name, call in calls.items():
            taken = min(measure(call, jax.block_until_ready, seconds, fewest=1)["ms"])
            found[name] = min(taken, found.get(name, taken))
    return {name: significant(ms) for name, ms in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".bench/fft.json"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--smoke", action="store_true", help="small images: only whether it runs")
    options = parser.parse_args()
    side, kernels = (12, (5,)) if options.smoke else (SIDE, KERNELS)
    result = {"what": "milliseconds of the result and both gradients, the fastest call", "side": side, "batch": BATCH}
    result |= {"features": 16, **provenance(), "points": []}
    for channels in CHANNELS:
        for kernel in kernels:
            point = {"kernel": kernel, "channels": channels}
            point["ms"] = milliseconds(side, kernel, channels, options.rounds, options.seconds)
            result["points"].append(point)
            print(point, flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
