"""One library, one case, one process: what bench.py starts, over and over. Answers with one line of JSON.

    python benchmarks/worker.py '{"do": "time", "library": "fcnn", "case": "lenet5", "seconds": 2}'

A process each, because libraries share neither a thread pool nor a memory allocator with good grace, and because
the peak of memory is a process's own.
"""

import importlib
import json
import math
import os
import platform
import statistics
import sys
import time

import machine
import timing
import workloads
from peers import LIBRARIES

#: what a line of output that is the answer begins with; libraries print too
MARK = "RESULT "
SCAN_STEPS = 20
#: a loop of all steps is tried with two first where a step takes longer (milliseconds), and is left at
#: two where all would take longer than so many seconds
SLOW_MS, SCAN_PATIENCE = 100, 10
FAIR_STEPS = 3


def probe(peer, job):
    """What is installed, and on what it computes."""
    return {"versions": machine.versions(*peer.PACKAGES), "python": platform.python_version(), **peer.device()}


def losses(peer, job):
    """The number of parameters and the first losses of each network: equal in all libraries, or nothing compares."""
    found = {}
    for name in job["cases"]:
        published = name in workloads.PUBLISHED
        network = workloads.network(name, batch=2 if published else 8, smoke=job.get("smoke", False))
        training = (peer.Published if published else peer.Training)(network, "float32", LIBRARIES[job["library"]][1])
        steps = 0 if training.step is None or (published and network.drops) else FAIR_STEPS
        values = [float(peer.wait(training.step())) for _ in range(steps)]
        found[name] = {"parameters": int(training.parameters), "losses": values}
    return found


def timed(peer, job):
    """Times, compile times and memory of one case."""
    case, dtype = job["case"], job.get("dtype", "float32")
    variant, smoke, seconds = LIBRARIES[job["library"]][1], job.get("smoke", False), job["seconds"]
    peer.device()  # starts the backend, which is not the case's doing
    measures = {}
    if case in ("max_pool", "depthwise", "ops"):
        operations = workloads.operations(case, smoke=smoke)
        make = peer.max_pool if case == "max_pool" else peer.convolution
        start = timing.resident_mb()
        for label, operation in operations.items():
            for what, call in make(operation, dtype, variant).items():
                measures[f"{label}: {what}"] = timing.measure(call, peer.wait, seconds / 4)
        return {"measures": measures, "memory": memory(peer, start)}
    if case in workloads.PUBLISHED:
        return published(peer, job)
    network = workloads.network(case.replace("per_example", "lenet5"), batch=job.get("batch"), smoke=smoke)
    network.data()
    start = timing.resident_mb()
    if case == "per_example":
        call = peer.per_example(network, dtype, variant)
        measures["gradients"] = timing.measure(call, peer.wait, seconds)
        return {"measures": measures, "memory": memory(peer, start, call)}
    training = peer.Training(network, dtype, variant)
    measures["step"] = timing.measure(training.step, peer.wait, seconds)
    used = memory(peer, start, training.step)  # before the loop, which is another program
    last = float(peer.wait(training.step()))
    if not math.isfinite(last):
        raise ArithmeticError(f"the loss is {last} after training: these times would be those of no real training")
    answer = {"measures": measures, "memory": used}
    if job.get("scan", True):
        answer["scan_steps"] = looped(training, peer, measures, seconds, 2 if smoke else SCAN_STEPS)
    return answer


def published(peer, job):
    """Times, compile times and memory of a network of the literature: a training step, then inference."""
    variant, smoke, seconds = LIBRARIES[job["library"]][1], job.get("smoke", False), job["seconds"]
    network = workloads.network(job["case"], batch=job.get("batch"), smoke=smoke)
    network.data()
    start = timing.resident_mb()
    training = peer.Published(network, job.get("dtype", "float32"), variant)
    measures, used = {}, memory(peer, start)
    if training.step is not None:
        measures["step"] = timing.measure(training.step, peer.wait, seconds)
        used = memory(peer, start, training.step)
        last = float(peer.wait(training.step()))
        if not math.isfinite(last):
            raise ArithmeticError(f"the loss is {last} after training: these times would be those of no real training")
    for name, call in training.inferences().items():
        measures[name] = timing.measure(call, peer.wait, seconds)
    return {"measures": measures, "memory": used}


def loop(peer, job):
    """The step in one compiled loop alone."""
    network = workloads.network(job["case"], batch=job.get("batch"), smoke=job.get("smoke", False))
    training = peer.Training(network, job["dtype"], LIBRARIES[job["library"]][1])
    measures = {"step": timing.measure(training.step, peer.wait, 0.1)}
    looped(training, peer, measures, job["seconds"], 2 if job.get("smoke") else SCAN_STEPS)
    return {"measures": {"scan": measures["scan"]}}


def looped(training, peer, measures, seconds, steps):
    """Time the step in one compiled loop, per step; two steps stand for all where those would take minutes."""
    if statistics.median(measures["step"]["ms"]) > SLOW_MS:
        loop = training.scan(2)
        if loop is None:
            return None
        begun = time.perf_counter()
        peer.wait(loop())
        if (time.perf_counter() - begun) / 2 * steps > SCAN_PATIENCE:
            steps = 2
    loop = training.scan(steps)
    if loop is None:
        return None
    found = timing.measure(loop, peer.wait, seconds, fewest=1)
    measures["scan"] = {**found, "ms": [ms / steps for ms in found["ms"]]}
    return steps


def memory(peer, start, call=None):
    """Peaks in units of 2**20 bytes: of the process, beyond what it held before the case, and while it repeats."""
    found = {"peak_mb": timing.peak_mb(), "peak_over_start_mb": timing.peak_mb() - start}
    if (device := peer.device_peak_mb()) is not None:
        found["device_peak_mb"] = device
    if call is not None and timing.forget_peak():
        for _ in range(2):
            peer.wait(call())
        found["repeating_mb"] = timing.peak_mb()
    return found


def main():
    job = json.loads(sys.argv[1])
    if job["do"] == "losses":
        # nothing is timed here, and threads that wait for each other crawl on a machine that does other things
        os.environ["OMP_NUM_THREADS"] = "1"
    peer = importlib.import_module(f"peers.{LIBRARIES[job['library']][0]}")
    answer = {"probe": probe, "losses": losses, "time": timed, "loop": loop}[job["do"]](peer, job)
    print(MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
