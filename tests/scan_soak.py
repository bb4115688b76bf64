"""Random networks scanned by layers and by patches in float64: how far apart they are at worst, forward and gradients.

    python tests/scan_soak.py --networks 10000 --out benchmarks/results/scan_equality.json
    python tests/scan_soak.py --compiled --minutes 60 --out benchmarks/results/scan_equality_compiled.json

Networks are drawn from seeds 0, 1, 2, ... (see scans_drawn.py). The first form runs both ways by hand, with the layers
and the backpropagation of ``fcnn.reference`` in NumPy: the window's network on every window, and the network that the
scan is rewritten to on the whole input, a twentieth of a second for each. The second compiles ``Scan.apply`` and its
gradient by both methods, which takes a second or more for each network, with XLA's optimisations left out.

The run may be ended at any moment, with Ctrl-C or by ``--minutes``, and goes on where it was when it is started again
with the same ``--out``. The result names the seeds, the count, and the worst case; a disagreement of more than 1e-12 is
listed. By hand all is computed once more in extended precision (``np.longdouble``), where a difference that is rounding
shrinks by the digits gained. One that does not ends the run with status 1. ``--part 0/2`` takes the even seeds alone,
for two processes at once; ``--join`` puts their results together.
"""

import argparse
import collections
import datetime
import hashlib
import json
import os
import platform
import sys
import time
from pathlib import Path

import jax
import numpy as np
import xla_flags

import fcnn

LIMIT = 1e-12
#: what a difference that is rounding must have shrunk to in extended precision
SHRUNK = LIMIT / 100


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=10_000, help="seeds below this number")
    parser.add_argument("--compiled", action="store_true", help="by XLA instead of by hand in NumPy")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--part", default="0/1", help="of all seeds, those that leave this rest")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--join", type=Path, nargs="*", default=None)
    options = parser.parse_args()
    if options.join is not None:
        parts = [json.loads(path.read_text()) for path in options.join]
        write(options.out, join(parts))
        return
    os.environ["XLA_FLAGS"] = xla_flags.known()  # before the first computation; the arithmetic is the same
    from scans_drawn import differences, differences_by_hand, drawn

    def checked(seed):
        """The differences, and by hand or where they are above the limit those in extended precision."""
        one = drawn(seed)
        found = compare(one, seed)
        again = not options.compiled or not max(found.forward, found.gradient) <= LIMIT
        return one, found, differences_by_hand(one, seed, np.longdouble) if again else None

    jax.config.update("jax_enable_x64", True)
    way = "compiled by XLA" if options.compiled else "by hand in NumPy"
    compare = differences if options.compiled else differences_by_hand
    found = json.loads(options.out.read_text()) if options.out.exists() else fresh(way)
    if (found["source"], found["way"]) != (source(), way):
        raise SystemExit(f"{options.out} is of another source or way; move it away to begin anew")
    rest, of = map(int, options.part.split("/"))
    begun = time.time()
    try:
        for seed in range(rest, options.networks, of):
            if seed < found["next_seed"]:
                continue
            if time.time() - begun > 60 * options.minutes:
                break
            note(found, seed, *checked(seed))
            found["next_seed"] = seed + of
            if found["networks"] % (10 if options.compiled else 200) == 0:
                jax.clear_caches()
                write(options.out, found)
                worst = max(found["worst_forward"]["difference"], found["worst_gradient"]["difference"])
                print(f"{found['networks']} networks, {time.time() - begun:.0f} s, worst {worst:.1e}", flush=True)
    except KeyboardInterrupt:
        print("interrupted; what is done is kept")
    write(options.out, found)
    sys.exit(not max(found["worst_in_extended_precision"].values()) <= SHRUNK)


def fresh(way):
    return {
        "what": "largest difference of Scan by layers and by patches, relative to the largest value, float64",
        "way": way,
        "limit": LIMIT,
        "networks": 0,
        "next_seed": 0,
        "worst_forward": {"difference": 0.0},
        "worst_gradient": {"difference": 0.0},
        "above_the_limit": [],
        "worst_in_extended_precision": {"forward": 0.0, "gradient": 0.0},
        "ranks": {},
        "with_fragments": 0,
        "positions": 0,
        "layers": {},
        "source": source(),
        "versions": {"fcnn": fcnn.__version__, "jax": jax.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, JAX on {jax.devices()[0].device_kind}",
        "date": datetime.date.today().isoformat(),
    }


def note(found, seed, one, differences, extended):
    case = {"seed": seed, "network": repr(one.net), "window": one.window, "stride": one.stride, "shape": one.shape}
    for kind in ("forward", "gradient"):
        difference = getattr(differences, kind)
        if difference > found[f"worst_{kind}"]["difference"]:
            found[f"worst_{kind}"] = {"difference": difference, **case}
        if not difference <= LIMIT:
            again = {"in_extended_precision": getattr(extended, kind)}
            found["above_the_limit"].append({kind: difference, **again, **case})
        if extended is not None:
            worst = found["worst_in_extended_precision"]
            worst[kind] = max(worst[kind], getattr(extended, kind))
    found["networks"] += 1
    found["positions"] += differences.positions
    found["with_fragments"] += differences.fragments > 1
    counts = collections.Counter(found["ranks"])
    counts[str(len(one.window))] += 1
    found["ranks"] = dict(counts)
    layers = collections.Counter(found["layers"])
    layers.update(part.label for _, part in one.net.parts)
    found["layers"] = dict(layers)


def join(parts):
    found = dict(parts[0])
    if len({part["source"] for part in parts}) > 1:
        raise SystemExit("the parts are of different sources")
    for part in parts[1:]:
        for name in ("networks", "with_fragments", "positions"):
            found[name] += part[name]
        for kind in ("worst_forward", "worst_gradient"):
            found[kind] = max(found[kind], part[kind], key=lambda case: case["difference"])
        extended = found["worst_in_extended_precision"], part["worst_in_extended_precision"]
        found["worst_in_extended_precision"] = {name: max(a[name] for a in extended) for name in extended[0]}
        for name in ("ranks", "layers"):
            found[name] = dict(collections.Counter(found[name]) + collections.Counter(part[name]))
        found["above_the_limit"] = found["above_the_limit"] + part["above_the_limit"]
    found["next_seed"] = [part["next_seed"] for part in parts]
    return found


def source():
    """What the files hash to that the result depends on."""
    files = [*sorted(Path(fcnn.__file__).parent.glob("scan/*.py")), Path(__file__).with_name("scans_drawn.py")]
    kept = [
        path
        for path in files
        if path.name
        not in ("tiles.py", "tile_plan.py", "receptive_field.py", "cascade.py", "matrices.py", "convolutional.py")
    ]
    return hashlib.sha256(b"".join(path.read_bytes() for path in kept)).hexdigest()[:16]


def write(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(found, indent=2) + "\n")
    beside.replace(path)


if __name__ == "__main__":
    main()
