"""Files of weights with random faults: each is refused with a ValueError, or gives what was written.

    python tests/weights_fuzz.py --files 1000000 --seed 0 --out benchmarks/results/weights_fuzz.json

A fault is one of: bits flipped, bytes replaced, a piece cut off, a piece taken out, a piece put in, two pieces
exchanged, the length of the header replaced by another number.
"""

import argparse
import collections
import json
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import fcnn
from fcnn.interop import load_weights, save_weights


def written(folder):
    """A file with several dtypes, its bytes and what it holds."""
    params = {
        "conv1": {"kernel": jnp.arange(18.0).reshape(3, 3, 1, 2), "bias": jnp.array([1.5, -2.0], jnp.bfloat16)},
        "dense1": {"kernel": jnp.ones((2, 3), jnp.float16)},
    }
    state = {"batch_norm1": {"mean": jnp.zeros(2), "variance": jnp.ones(2)}}
    net = fcnn.serial(fcnn.Conv(2, 3), fcnn.BatchNorm(), fcnn.Dense(3))
    path = save_weights(Path(folder) / "net.safetensors", params, state, net=net, metadata={"data": "none"})
    return path, path.read_bytes(), (params, state)


def faulty(raw, random):
    """The bytes with one fault."""
    data, kind = bytearray(raw), random.integers(7)
    # half of all faults in the header, which is longer than the arrays in a small file and more easily misread
    at = int(random.integers(len(data) if random.integers(2) else 8 + int.from_bytes(raw[:8], "little")))
    length = int(random.integers(1, 9))
    if kind == 0:
        for place in random.integers(len(data), size=length):
            data[place] ^= 1 << random.integers(8)
    elif kind == 1:
        data[at : at + length] = random.bytes(len(data[at : at + length]))
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        del data[at : at + length]
    elif kind == 4:
        data[at:at] = random.bytes(length)
    elif kind == 5:
        other = int(random.integers(len(data)))
        first, second = sorted((at, other))
        data = data[second:] + data[first:second] + data[:first]
    else:
        data[:8] = int(random.integers(2 ** int(random.integers(1, 63)))).to_bytes(8, "little")
    return bytes(data)


def outcome(path, raw, data, known):
    """How a file is taken: "refused", "unchanged", or what is wrong."""
    path.write_bytes(data)
    try:
        found = load_weights(path)
    except ValueError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    same = jax.tree.structure(found) == jax.tree.structure(known) and jax.tree.all(
        jax.tree.map(lambda a, b: a.dtype == b.dtype and bool((np.asarray(a) == np.asarray(b)).all()), found, known)
    )
    return "unchanged" if same else f"other weights without a word ({len(raw)} bytes, {len(data)} read)"


def run(files, seed, folder):
    """Count the outcomes; keep the first of every kind that is wrong."""
    path, raw, known = written(folder)
    assert outcome(path, raw, raw, known) == "unchanged"
    random, counts, wrong = np.random.default_rng(seed), collections.Counter(), {}
    for number in range(files):
        data = faulty(raw, random)
        found = outcome(path, raw, data, known)
        counts[found if found in ("refused", "unchanged") else "wrong"] += 1
        if found not in ("refused", "unchanged"):
            wrong.setdefault(found[:80], {"number": number, "data": data.hex()})
    return {"files": files, "seed": seed, **counts, "faults": wrong}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = run(options.files, options.seed, folder)
    found |= {
        "seconds": round(time.perf_counter() - begin, 1),
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "numpy", "safetensors")},
    }
    print(json.dumps(found, indent=2))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
