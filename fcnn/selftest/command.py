"""The command ``python -m fcnn.selftest``: its output and exit status."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Sequence

import jax

from ..ops.convolution import onednn_use
from . import known, sweep

_LINE = "{:20} {:>5} {:>9} {:>7} {:>10} {:>7} {:>9}  {}"


def main(argv: Sequence[str] | None = None) -> int:
    """Check the compiler and device on known and random cases.

    Args:
        argv: the command-line arguments without the program's name; None: those of the process.

    Returns:
        0 if everything is within bounds, otherwise 1.

    Example:
        >>> main(["--cases", "1", "--only", "Flatten"])    # doctest: +ELLIPSIS
        jax ..., jaxlib ..., device ...
        oneDNN ...
        ...
        all 10 lines are within bounds on this device
        0
    """
    options = _options(argv)
    device = jax.devices()[0]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib"))
    print(f"{versions}, device {device.device_kind} ({device.platform})")
    if device.platform == "cpu":
        why = onednn_use.unusable()
        print("oneDNN computes convolutions" if why is None else f"oneDNN is not used: {why}")
    names = [name for name in sweep.OPERATIONS if options.only in name]
    # otherwise GPUs would round the factors of a product to fewer digits, which is not a fault
    with jax.default_matmul_precision("highest"):
        good = [_known(case) for case in known.KNOWN]
        print(_LINE.format("operation", "cases", "forward", "bound", "gradients", "bound", "seed", "(errors in ulp)"))
        good += [_swept(name, options.cases, options.seed) for name in names]
    wrong = good.count(False)
    print(f"{wrong} of {len(good)} lines are WRONG" if wrong else f"all {len(good)} lines are within bounds", end=" ")
    print("on this device")
    return int(wrong > 0)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m fcnn.selftest", description="Check values and gradients on this device against NumPy in float64."
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case of each operation (default 0)")
    parser.add_argument("--cases", type=int, default=3, help="cases per operation, one seed each (default 3)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only operations whose name contains TEXT")
    options = parser.parse_args(argv)
    if options.cases < 1 or options.seed < 0:
        parser.error("--cases must be at least 1 and --seed at least 0")
    return options


def _known(case: known.Known) -> bool:
    error = known.wrong(case)
    good = error <= known.BOUND
    print(f"known result of {case.name}: {error:.1f} ulp, bound {known.BOUND:g}, {_verdict(good)}", flush=True)
    return good


def _swept(name: str, cases: int, seed: int) -> bool:
    """Sweep one operation and print a line for its worst case."""
    worst = max(sweep.sweep(name, cases, seed), key=lambda error: error.share)
    good = worst.share <= 1
    numbers = [f"{n:.1f}" for n in (worst.forward, worst.forward_bound, worst.gradient, worst.gradient_bound)]
    print(_LINE.format(name, cases, *numbers, worst.case.seed, _verdict(good)), flush=True)
    if not good:
        print(f"  {worst.case.layer!r} on x {worst.case.x.shape}; again: --only {name!r} --cases 1 ", end="")
        print(f"--seed {worst.case.seed}", flush=True)
    return good


def _verdict(good: bool) -> str:
    return "ok" if good else "WRONG"
