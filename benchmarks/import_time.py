"""What `import fcnn` costs beyond `import jax`, in milliseconds.

    python benchmarks/import_time.py        # writes benchmarks/results/import_time.json

Each import runs in a process of its own; the two take turns, so that both see the same machine.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from machine import provenance

ROUNDS = 20
CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(module):
    out = subprocess.run([sys.executable, "-c", CODE.format(module)], capture_output=True, text=True, check=True)
    return float(out.stdout)


def main():
    times = {"jax": [], "fcnn": []}
    for module in times:
        seconds(module)  # the first import compiles the modules to bytecode
    for _ in range(ROUNDS):
        for module, seen in times.items():
            seen.append(1000 * seconds(module))
    extra = [b - a for a, b in zip(times["jax"], times["fcnn"], strict=True)]
    result = {
        "what": "milliseconds, each import in a process of its own, taking turns",
        "rounds": ROUNDS,
        "median": {name: round(statistics.median(seen), 1) for name, seen in times.items()},
        "extra_median": round(statistics.median(extra), 1),
        "extra_quartiles": [round(q, 1) for q in statistics.quantiles(extra, n=4)[::2]],
        **provenance(),
    }
    path = Path(__file__).parent / "results" / "import_time.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
