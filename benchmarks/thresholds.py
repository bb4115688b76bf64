"""The thresholds of `fcnn/ops/convolution/choice.py`, measured: which algorithm is the fastest from which size on.

    python benchmarks/thresholds.py                    # everything on the CPU, about 10 minutes
    python benchmarks/thresholds.py --grids few --out few.json
    python benchmarks/thresholds.py --smoke            # tiny sizes, one round: only whether all of it runs

It runs in any environment with fcnn, `make dev` makes one. For every problem of a grid, all algorithms that can
compute it take turns, round after round, and the fastest call of each counts: the result and both gradients in one
function. The derived threshold loses least, where a problem's loss is the logarithm of the time of the algorithm
that the threshold picks over that of the fastest one: 0.1 is ten percent.

The threshold of Winograd's algorithm with 4x4 kernels has no grid of its own.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
from machine import provenance
from timing import measure, significant
from workloads import random

import fcnn
from fcnn.ops.conv import polyphase_problem
from fcnn.ops.convolution import ALGORITHMS, choice, refusal

ROOT = Path(__file__).parents[1]
#: an algorithm so many times slower than the fastest in the first round is out of the question and takes no more turns
HOPELESS = 2
#: an algorithm that asks for more memory than this (bytes) is not measured: it would time the system's paging
MEMORY = 4 * 2**30


@dataclass(frozen=True)
class Problem:
    """A convolution in two dimensions over square images, or one with relu and 2x2 max pooling after it."""

    kernel: int
    padding: str
    batch: int
    side: int
    channels: int
    features: int
    pooled: bool = False
    kernel_gradient: bool = True

    def shapes(self):
        """Shapes of the input and the kernel."""
        square = (self.kernel, self.kernel, self.channels, self.features)
        return (self.batch, self.side, self.side, self.channels), square

    def small(self):
        """So small that only the code is tried."""
        few = {name: min(getattr(self, name), 8) for name in ("side", "channels", "features")}
        return dataclasses.replace(self, **few, batch=min(self.batch, 2))


@dataclass(frozen=True)
class Grid:
    """What one threshold, or a pair of them, is derived from.

    Args:
        constants: how the thresholds are called in choice.py.
        algorithm: what is picked where all sizes reach the thresholds.
        at_least: whether sizes reach a threshold from above; otherwise they must not exceed it.
        sizes: the sizes of a problem that are compared with the thresholds.
        current: reads the thresholds that hold now.
        otherwise: what is picked elsewhere.
    """

    constants: tuple[str, ...]
    algorithm: str
    at_least: bool
    sizes: Callable[[Problem], tuple[int, ...]]
    current: Callable[[], tuple[int, ...]]
    problems: tuple[Problem, ...]
    otherwise: str = "direct"


GRIDS = {
    "winograd3": Grid(
        ("WINOGRAD_CHANNELS[3]",), "winograd", True,
        lambda p: (min(p.channels, p.features),), lambda: (choice.WINOGRAD_CHANNELS[3],),
        tuple(Problem(3, "SAME", 64, n, c, c) for c in (16, 32, 64, 128, 256) for n in (32, 16, 8)
              if c * n <= 2048),
    ),
    "winograd5": Grid(
        ("WINOGRAD_CHANNELS[5]",), "winograd", True,
        lambda p: (min(p.channels, p.features),), lambda: (choice.WINOGRAD_CHANNELS[5],),
        tuple(Problem(5, "VALID", 128, 14, c, 2 * c) for c in (8, 16, 32, 64)),
    ),
    "winograd_side": Grid(
        ("WINOGRAD_SIDE",), "winograd", False,
        lambda p: (p.side,), lambda: (choice.WINOGRAD_SIDE,),
        tuple(Problem(k, "SAME", max(1, 2**15 // n**2), n, c, f)
              for k, c, f in ((3, 64, 64), (5, 16, 64), (5, 32, 64)) for n in (16, 24, 32, 48, 64, 96, 160)),
    ),
    "winograd_side_many": Grid(
        ("WINOGRAD_SIDE_MANY",), "winograd", False,
        lambda p: (p.side,), lambda: (choice.WINOGRAD_SIDE_MANY,),
        tuple(Problem(3, "SAME", max(1, 2**15 // n**2), n, 128, 128) for n in (16, 24, 32, 48, 64, 96, 160)),
    ),
    "few": Grid(
        ("FEW_CHANNELS", "FEW_FEATURES"), "blocks", False,
        lambda p: (p.channels, p.features), lambda: (choice.FEW_CHANNELS, choice.FEW_FEATURES),
        tuple(Problem(k, "SAME", 64, n, c, f, kernel_gradient=False)
              for k, c in ((5, 1), (5, 3), (5, 6), (3, 3), (3, 8)) for f in (8, 16, 32) for n in (28, 14)),
        "patches",
    ),
    "blocks_patch": Grid(
        ("BLOCKS_PATCH",), "blocks", False,
        lambda p: (p.kernel**2 * p.channels,), lambda: (choice.BLOCKS_PATCH,),
        tuple(Problem(5, "SAME", 64, 28, c, 16, pooled=True) for c in (1, 3, 6, 8, 12, 16)),
    ),
}  # fmt: skip


def algorithms(problem):
    """The algorithms that can compute a problem; with pooling, the two between which the thresholds decide."""
    if problem.pooled:
        return ["direct", "blocks"]
    asked = polyphase_problem(*problem.shapes(), "float32", (1, 1), padding=problem.padding)
    return [name for name in ALGORITHMS if refusal(name, asked) is None]


@contextmanager
def deciding(algorithm):
    """Whether a convolution and the pooling after it are joined in blocks follows from the thresholds alone: move them.

    Asking for "direct" is not enough, the two would be joined all the same; moving the thresholds is not enough
    either, a convolution of few channels would be computed in blocks by itself.
    """
    blocks = algorithm == "blocks"
    thresholds = {"BLOCKS_PATCH": 10**9 if blocks else 0}
    with mock.patch.multiple(choice, **thresholds), fcnn.ops.use_algorithm(None if blocks else algorithm):
        yield


def compiled(problem, algorithm):
    """The result and both gradients, compiled, and its arguments."""
    draw = random(0)
    x, kernel = (jnp.asarray(draw.normal(size=shape), "float32") for shape in problem.shapes())
    if problem.pooled:
        layer = fcnn.Conv(problem.features, problem.kernel, padding=problem.padding)
        net = fcnn.serial(layer, jax.nn.relu, fcnn.MaxPool(2))
        given = net.init(jax.random.key(0), x.shape[1:])

        def function(x, given):
            return net.apply(given, x)
    else:
        given = kernel

        def function(x, given):
            return fcnn.ops.conv(x, given, padding=problem.padding, algorithm=algorithm)

    def all_three(x, given, above):
        if not problem.kernel_gradient:
            y, back = jax.vjp(lambda x: function(x, given), x)
        else:
            y, back = jax.vjp(function, x, given)
        return y, *back(above)

    above = jnp.asarray(draw.normal(size=jax.eval_shape(function, x, given).shape), "float32")
    if not problem.pooled:
        return jax.jit(all_three).lower(x, given, above).compile(), (x, given, above)
    with deciding(algorithm):
        return jax.jit(all_three).lower(x, given, above).compile(), (x, given, above)


def times(problem, rounds, seconds):
    """Milliseconds of the fastest call of each algorithm, and why others have none."""
    calls, left_out = {}, {}
    for name in algorithms(problem):
        function, arguments = compiled(problem, name)
        needed = function.memory_analysis().temp_size_in_bytes
        if needed > MEMORY:
            left_out[name] = f"asks for {needed / 2**30:.1f} GiB"
        else:
            calls[name] = lambda function=function, arguments=arguments: function(*arguments)
    found = {}
    for turn in range(rounds):
        best = min(found.values(), default=math.inf)
        order = [name for name in calls if found.get(name, 0) <= HOPELESS * best]
        for name in order if turn % 2 == 0 else reversed(order):
            taken = min(measure(calls[name], jax.block_until_ready, seconds, fewest=1)["ms"])
            found[name] = min(taken, found.get(name, math.inf))
    return {name: significant(found[name]) for name in calls}, left_out


def loss(points, thresholds, algorithm, *, at_least, otherwise="direct"):
    """The mean of log(time of the algorithm that the thresholds pick / time of the fastest) over points."""

    def picked(sizes):
        pairs = list(zip(sizes, thresholds, strict=True))
        return algorithm if all(s >= t if at_least else s <= t for s, t in pairs) else otherwise

    return math.fsum(math.log(p["ms"][picked(p["sizes"])] / min(p["ms"].values())) for p in points) / len(points)


def derive(points, current, algorithm, *, at_least, otherwise="direct"):
    """The thresholds that lose least over points, and what they and the current ones lose.

    Args:
        points: {"sizes": what is compared with the thresholds, "ms": {algorithm: time}}, each with the times of
            ``algorithm`` and of ``otherwise``; those of more algorithms count only for the fastest.
        current: one threshold for each size.
        algorithm: what is picked where all sizes are at least, or else at most, the thresholds.
        at_least: which of the two.
        otherwise: what is picked elsewhere.

    Returns:
        {"current": ..., "derived": ..., "mean_loss": {"current": ..., "derived": ...}}; of thresholds that lose
        alike the current ones, or those nearest to them.
    """
    axes = []
    for seen, now in zip(zip(*(p["sizes"] for p in points), strict=True), current, strict=True):
        never = max(seen) + 1 if at_least else min(seen) - 1
        axes.append(sorted({*seen, never, now}))

    def order(thresholds):
        far = sum(abs(t - now) for t, now in zip(thresholds, current, strict=True))
        return round(loss(points, thresholds, algorithm, at_least=at_least, otherwise=otherwise), 9), far

    best = min(itertools.product(*axes), key=order)
    found = {"current": list(current), "derived": list(best)}
    return {**found, "mean_loss": {name: significant(order(value)[0], 3) for name, value in found.items()}}


def measured(grid, rounds, seconds, smoke):
    """All points of a grid, with a line for each as it is done."""
    problems = [grid.problems[-1].small()] if smoke else grid.problems
    points = []
    for number, problem in enumerate(problems, 1):
        ms, left_out = times(problem, rounds, seconds)
        points.append({**dataclasses.asdict(problem), "sizes": list(grid.sizes(problem)), "ms": ms})
        if left_out:
            points[-1]["left_out"] = left_out
        shown = ", ".join(f"{name} {value:g}" for name, value in sorted(ms.items(), key=lambda item: item[1]))
        size = f"{problem.kernel}x{problem.kernel}, {problem.channels} to {problem.features}, side {problem.side}"
        say(f"{'/'.join(grid.constants)} {number}/{len(problems)}  {size}, batch {problem.batch}: {shown} ms")
    return points


def table(grids):
    """The thresholds as plain text, one in a line."""
    rows = [("", "current", "loses", "derived", "loses")]
    for found in grids.values():
        lost = [f"{found['mean_loss'][name]:.3f}" for name in ("current", "derived")]
        current, derived = (", ".join(map(str, found[name])) for name in ("current", "derived"))
        rows.append((", ".join(found["constants"]), current, lost[0], derived, lost[1]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def say(*words):
    print(*words, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", default=",".join(GRIDS), help=f"of {', '.join(GRIDS)}", metavar="A,B")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every algorithm")
    parser.add_argument("--seconds", type=float, default=0.25, help="time for a turn")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "thresholds.json", help="where the result goes")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round: only whether all of it runs")
    found = parser.parse_args()
    found.grids = list(dict.fromkeys(found.grids.split(",")))
    if unknown := [name for name in found.grids if name not in GRIDS]:
        parser.error(f"--grids: no {', '.join(unknown)}; there are {', '.join(GRIDS)}")
    if found.smoke:
        found.rounds, found.seconds = 1, 0.01
    return found


def main():
    options = arguments()
    jax.config.update("jax_platforms", "cpu")  # the thresholds are those of the CPU
    result = {
        "what": "milliseconds of the fastest call: a convolution and both gradients, by algorithm",
        "options": {name: getattr(options, name) for name in ("grids", "rounds", "seconds", "smoke")},
        **provenance(),
        "load_before": [significant(load, 3) for load in os.getloadavg()],
        "grids": {},
    }
    for name in options.grids:
        grid = GRIDS[name]
        points = measured(grid, options.rounds, options.seconds, options.smoke)
        derived = derive(points, grid.current(), grid.algorithm, at_least=grid.at_least, otherwise=grid.otherwise)
        result["grids"][name] = {"constants": list(grid.constants), **derived, "points": points}
        result["load_after"] = [significant(load, 3) for load in os.getloadavg()]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    say(f"\n{table(result['grids'])}\n\nwritten: {options.out}")


if __name__ == "__main__":
    main()
