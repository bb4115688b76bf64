"""One network at every position of an image: what sharing the work between positions brings.

    python benchmarks/scan.py [--out benchmarks/results/scan.json] [--rounds 3] [--cases lenet5] [--size 1024]

Two networks: the one for connectomics of Giusti et al. 2013 (a window of 75 x 75 with 4 channels, at every pixel of a
512 x 512 image, padded so that every pixel has a window) and LeNet-5 (32 x 32, at every position of 1024 x 1024).
In turn, in one run, in float32:

- by layers, with fragments and with dilation: ``fcnn.Scan``;
- patch by patch: ``fcnn.Scan(method="patches")`` with the chunk that was the fastest of those tried;
- shift and stitch (Sermanet et al. 2014): the strided network of convolutions once for every shift, interleaved;
- PyTorch, unfold and batch: windows by ``Tensor.unfold``, the network on batches of them, the best batch size tried.

The ways patch by patch take minutes, so they are timed on the positions of a smaller image, and the time for all
positions is the time for one times their number; the result names how many were timed. Last, an image of 8192 x 8192
from a file, by ``fcnn.scan_tiles``, with the most memory that the process held.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import fcnn
from fcnn.scan import Scan

CONNECTOMICS = fcnn.serial(
    fcnn.Conv(64, 3), jax.nn.relu, fcnn.Conv(48, 3), jax.nn.relu, fcnn.MaxPool(2),
    fcnn.Conv(48, 3), jax.nn.relu, fcnn.Conv(48, 3), jax.nn.relu, fcnn.MaxPool(2),
    fcnn.Flatten(), fcnn.Dense(32), jax.nn.relu, fcnn.Dense(2),
)  # fmt: skip
#: network, window, channels, size of the image for all positions, positions along an axis timed patch by patch, chunks
CASES = {
    "connectomics": (CONNECTOMICS, 75, 4, 512 + 74, 32, (16, 64, 256)),
    "lenet5": (fcnn.models.lenet5(padding="VALID"), 32, 1, 1024, 128, (64, 256, 1024)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--size", type=int, default=None, help="samples of the image along an axis, for a trial")
    parser.add_argument("--tiled", type=int, default=8192, help="size of the image by tiles; 0: none")
    parser.add_argument("--alone", choices=("torch", "tiles"), default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone == "torch":
        print(json.dumps(by_torch(options.cases[0], options.rounds)))
        return
    if options.alone == "tiles":
        print(json.dumps(by_tiles(options.tiled)))
        return
    result = {
        "what": "seconds for the network at every position, fastest of the rounds; float32",
        "cases": {name: measure(name, options) for name in options.cases},
        "tiles": child("tiles", ["--tiled", str(options.tiled)]) if options.tiled else None,
        "rounds": options.rounds,
        "versions": {"fcnn": fcnn.__version__, "jax": jax.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, JAX on {jax.devices()[0].device_kind}",
        "date": datetime.date.today().isoformat(),
    }
    text = json.dumps(result, indent=2) + "\n"
    if options.out:
        options.out.write_text(text)
    print(text)


def measure(name: str, options: argparse.Namespace) -> dict[str, object]:
    net, window, channels, size, sample, chunks = CASES[name]
    size = options.size or size
    shape, small = (size, size, channels), (window + sample - 1, window + sample - 1, channels)
    params = net.init(jax.random.key(0), (window, window, channels))
    x = jax.random.normal(jax.random.key(1), (1, *shape))
    part = x[:, : small[0], : small[1]]
    report = Scan(net, window).report(shape)
    total = float(np.prod(report.positions))

    ways = {
        f"by layers, {word}": (jax.jit(Scan(net, window, fragments=fragments).apply), x, 1.0)
        for word, fragments in (("fragments", True), ("dilation", False))
    }
    ways["shift and stitch"] = (stitched(net, params, window, channels), x, 1.0)
    for chunk in chunks:
        by_patches = jax.jit(Scan(net, window, method="patches", chunk=chunk).apply)
        ways[f"by patches, {chunk} at once"] = (by_patches, part, total / sample**2)
    answers = {way: np.asarray(function(params, image)) for way, (function, image, _) in ways.items()}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, (function, image, scale) in ways.items():
            begun = time.perf_counter()
            function(params, image).block_until_ready()
            times[way].append((time.perf_counter() - begun) * scale)
    scaled = {way: round(min(t), 4) for way, t in times.items()}
    torch = child("torch", ["--cases", name, "--rounds", str(options.rounds)], {})
    scaled |= {f"PyTorch, {way}": round(per_position * total, 4) for way, per_position in torch.items()}
    layers = min(t for way, t in scaled.items() if way.startswith("by layers"))
    patches = min(t for way, t in scaled.items() if way.startswith("by patches"))
    whole = answers["by layers, fragments"]
    worst = max(
        float(np.abs(y - whole[:, : y.shape[1], : y.shape[2]]).max() / np.abs(whole).max()) for y in answers.values()
    )
    return {
        "window": window,
        "image": shape,
        "positions": report.positions,
        "fragments": report.fragments,
        "multiply_adds_by_patches": report.by_patches,
        "multiply_adds_by_layers": report.by_layers,
        "ratio_of_multiply_adds": round(report.ratio, 2),
        "seconds": scaled,
        "median_seconds": {way: round(statistics.median(t), 4) for way, t in times.items()},
        "positions_timed_by_patches": sample**2,
        "speed_up_over_patches": round(patches / layers, 2),
        "share_of_the_ratio": round(patches / layers / report.ratio, 3),
        "speed_up_over_stitching": round(scaled["shift and stitch"] / layers, 2),
        "largest_relative_difference_of_the_ways": worst,
    }


def stitched(net: fcnn.Layer, params: fcnn.layer.Params, window: int, channels: int):
    """Shift and stitch: the strided network on the image moved by every offset below its step."""
    strided, converted = fcnn.fully_convolutional(net, params, (window, window, channels))
    step = 4  # two poolings of 2

    def run(_, x):
        positions = [n - window + 1 for n in x.shape[1:3]]
        rows = []
        for a, b in product(range(step), repeat=2):
            y = strided.apply(converted, x[:, a:, b:])
            wanted = [-(-n // step) for n in positions]
            y = y[:, : wanted[0], : wanted[1]]
            widths = [(0, 0), *((0, n - m) for n, m in zip(wanted, y.shape[1:3], strict=True)), (0, 0)]
            rows.append(jnp.pad(y, widths))
        y = jnp.stack(rows, 1).reshape(x.shape[0], step, step, *rows[0].shape[1:])
        y = y.transpose(0, 3, 1, 4, 2, 5).reshape(x.shape[0], step * rows[0].shape[1], step * rows[0].shape[2], -1)
        return y[:, : positions[0], : positions[1]]

    return jax.jit(run)


def child(what: str, arguments: list[str], otherwise: dict | None = None):
    """Run one part in a process of its own, so that libraries and memory do not meet."""
    command = [sys.executable, __file__, "--alone", what, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        print(answer.stderr[-2000:], file=sys.stderr)
        if otherwise is None:
            raise SystemExit(1)
        return otherwise
    return json.loads(answer.stdout.splitlines()[-1])


def by_torch(name: str, rounds: int) -> dict[str, float]:
    """Seconds for a position, for each batch size."""
    import torch
    from torch import nn

    _, window, channels, _, sample, chunks = CASES[name]
    if name == "connectomics":
        layers = [nn.Conv2d(channels, 64, 3), nn.ReLU(), nn.Conv2d(64, 48, 3), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(48, 48, 3), nn.ReLU(), nn.Conv2d(48, 48, 3), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(15 * 15 * 48, 32), nn.ReLU(), nn.Linear(32, 2)]
    else:
        layers = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(16, 120, 5), nn.ReLU(), nn.Flatten(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    net = nn.Sequential(*layers).eval()
    x = torch.randn(1, channels, window + sample - 1, window + sample - 1)

    def run(batch: int) -> None:
        windows = x.unfold(2, window, 1).unfold(3, window, 1)  # a view: (1, channels, rows, columns, window, window)
        windows = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels, window, window)
        for begin in range(0, len(windows), batch):
            net(windows[begin : begin + batch])

    found = {}
    with torch.inference_mode():
        for batch in chunks:
            run(batch)
            times = []
            for _ in range(rounds):
                begun = time.perf_counter()
                run(batch)
                times.append(time.perf_counter() - begun)
            found[f"unfold and {batch} at once"] = min(times) / sample**2
    return found


def by_tiles(size: int) -> dict[str, object]:
    """LeNet-5 over a large image in a file, into a file."""
    net = Scan(fcnn.models.lenet5(padding="VALID"), 32)
    params = net.init(jax.random.key(0), (64, 64, 1))
    with tempfile.TemporaryDirectory() as folder:
        image = np.memmap(Path(folder) / "image.bin", np.float32, "w+", shape=(size, size, 1))
        draw = np.random.default_rng(0)
        for row in range(0, size, 256):
            image[row : row + 256] = draw.normal(size=image[row : row + 256].shape)
        image.flush()
        out = np.memmap(Path(folder) / "out.bin", np.float32, "w+", shape=net.out_shape((size, size, 1)))
        begun = time.perf_counter()
        fcnn.scan_tiles(net, params, image, tile=512, out=out, progress=False)
        seconds = time.perf_counter() - begun
        rows = out[size // 2, : size // 2]
        expected = net.apply(params, jnp.asarray(image[size // 2 : size // 2 + 32, : size // 2 + 31])[None])[0, 0]
        worst = float(np.abs(rows - expected).max() / np.abs(expected).max())
    return {
        "image": [size, size, 1],
        "network": "LeNet-5, 32 x 32, every position",
        "tile": 512,
        "seconds": round(seconds, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),  # pages of the files as well
        "largest_relative_difference_from_a_strip_computed_whole": worst,
    }


if __name__ == "__main__":
    main()
