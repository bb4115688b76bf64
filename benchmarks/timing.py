"""Time and memory of one process."""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from pathlib import Path


def milliseconds(call, wait, seconds, *, fewest=3, most=20_000):
    """Milliseconds of each of many calls, one after the other, each waited for.

    Asynchronous libraries return before they have computed; without waiting one would time the queue.
    """
    taken = []
    end = time.perf_counter() + seconds
    while len(taken) < fewest or (time.perf_counter() < end and len(taken) < most):
        begun = time.perf_counter()
        wait(call())
        taken.append(1000 * (time.perf_counter() - begun))
    return taken


def measure(call, wait, seconds, *, fewest=3):
    """The first call, which compiles, and warm ones: {"compile_s": ..., "ms": [...]}.

    What the first call takes beyond a warm one is compiling, tracing and whatever else the library does once.
    """
    begun = time.perf_counter()
    wait(call())
    first = time.perf_counter() - begun
    if first < 10 * seconds:
        milliseconds(call, wait, min(0.3, seconds / 4), fewest=1)  # caches, clocks, memory pools
    taken = milliseconds(call, wait, seconds, fewest=fewest)
    return {"compile_s": max(0.0, first - statistics.median(taken) / 1000), "ms": taken}


def summary(values):
    """Fastest, median, quartiles and number of measurements."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "fastest": significant(min(values)),
        "median": significant(statistics.median(values)),
        "quartiles": [significant(low), significant(high)],
        "n": len(values),
    }


def significant(value, digits=4):
    """A number to so many digits: what lies below is noise and would make every run's file unlike the last."""
    return float(f"{value:.{digits}g}")


def resident_mb():
    """Memory of this process now, in units of 2**20 bytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return peak_mb()


def peak_mb():
    """The most memory that this process has held.

    Linux's VmHWM begins with the program; ru_maxrss would begin with what the parent held when it forked.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        scale = 2**20 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def forget_peak():
    """Let the peak begin again from what is held now; False where the system has no such thing."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def processors():
    """Seconds of processor time that the machine, and that the finished children of this process, have used.

    Returns:
        (machine, children), or None where the system does not say.
    """
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = sum(ticks) - ticks[3] - ticks[4]  # all but idle and waiting for a disk
    return busy / os.sysconf("SC_CLK_TCK"), children.ru_utime + children.ru_stime


def others(before, after, seconds):
    """The share of all processors that other programs took meanwhile, 0 to 1; None where it is not known."""
    if before is None or after is None:
        return None
    (machine, children), (machine_then, children_then) = after, before
    taken = (machine - machine_then) - (children - children_then)
    return significant(min(1.0, max(0.0, taken / (seconds * (os.cpu_count() or 1)))), 2)
