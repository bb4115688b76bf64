"""Every convolution of the networks people use, and both its gradients, beside PyTorch with channels last.

    python benchmarks/grid.py --networks resnet18,mobilenet --batch 8 --out grid.json

In one process, each operation by fcnn and by PyTorch in turn; the fastest call counts. Prints the worst ratios and the
geometric mean. It runs in an environment with both, such as the one that `benchmarks/environment.py` makes.
"""

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import torch
from machine import provenance
from timing import significant
from torch.nn import functional as F

import fcnn
from fcnn import models, ops

#: name -> the network and the shape of an image
NETWORKS = {
    "resnet18": (lambda: models.resnet(18), (224, 224, 3)),
    "resnet18_small": (lambda: models.resnet(18, 10), (32, 32, 3)),
    "resnet50": (lambda: models.resnet(50), (224, 224, 3)),
    "resnet20": (lambda: models.resnet(20, 10, cifar=True), (32, 32, 3)),
    "vgg16": (lambda: models.vgg(16), (224, 224, 3)),
    "googlenet": (models.googlenet, (224, 224, 3)),
    "densenet121": (models.densenet, (224, 224, 3)),
    "mobilenet": (models.mobilenet_v2, (224, 224, 3)),
    "efficientnet_lite0": (models.efficientnet_lite0, (224, 224, 3)),
    "convnext_tiny": (models.convnext_tiny, (224, 224, 3)),
    "unet": (lambda: models.unet(2, widths=(16, 32, 64, 128), batch_norm=True), (128, 128, 3)),
}
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
FORMAT = {4: torch.channels_last, 5: torch.channels_last_3d}


def operations(name, batch):
    """The distinct operations of a network's training step."""
    make, shape = NETWORKS[name]
    for row in fcnn.analysis.algorithms(make(), shape, batch=batch).rows:
        geometry = row.geometry
        # transposed convolutions, and padding that PyTorch's convolution does not have, are left out
        if max(geometry.input_dilation) == 1 and all(lo == hi >= 0 for lo, hi in geometry.pads):
            yield row


def calls(row):
    """The operation by fcnn and by PyTorch, as functions without arguments."""
    draw = np.random.default_rng(0)
    x, kernel = (draw.normal(size=shape).astype("float32") for shape in (row.x, row.kernel))
    geometry = row.geometry
    function = partial(
        ops.conv,
        stride=geometry.stride,
        padding=geometry.pads,
        dilation=geometry.dilation,
        groups=geometry.groups,
    )
    g = draw.normal(size=jax.eval_shape(function, x, kernel).shape).astype("float32")
    on_device = [jax.device_put(a) for a in (x, kernel, g)]
    compiled = {
        "forward": jax.jit(lambda x, kernel, g: function(x, kernel)),
        "input gradient": jax.jit(lambda x, kernel, g: jax.vjp(lambda x: function(x, kernel), x)[1](g)[0]),
        "kernel gradient": jax.jit(lambda x, kernel, g: jax.vjp(lambda k: function(x, k), kernel)[1](g)[0]),
    }[row.operation]
    tensors = [channels_first(a) for a in (x, np.moveaxis(kernel, -1, 0), g)]
    how = [list(n) for n in (geometry.stride, [lo for lo, _ in geometry.pads], geometry.dilation)]
    mask = [row.operation == "input gradient", row.operation == "kernel gradient", False]

    def theirs():
        if row.operation == "forward":
            return CONV[geometry.rank](tensors[0], tensors[1], None, *how, geometry.groups)
        zeros = [0] * geometry.rank
        return torch.ops.aten.convolution_backward(
            tensors[2], tensors[0], tensors[1], None, *how, False, zeros, geometry.groups, mask
        )

    return lambda: compiled(*on_device).block_until_ready(), theirs


def channels_first(array):
    """A tensor in PyTorch's order of axes, with channels last in memory."""
    tensor = torch.from_numpy(array).movedim(-1, 1)
    return tensor.contiguous(memory_format=FORMAT[tensor.ndim]) if tensor.ndim in FORMAT else tensor.contiguous()


def fastest(pair, seconds):
    """Milliseconds of the fastest call of each, in turn."""
    for call in pair:
        call()
    best, end = [math.inf, math.inf], time.perf_counter() + seconds
    while time.perf_counter() < end or math.inf in best:
        for place, call in enumerate(pair):
            begun = time.perf_counter()
            call()
            best[place] = min(best[place], 1000 * (time.perf_counter() - begun))
    return best


def summary(points):
    """Geometric mean and the largest of the ratios, for all and by operation."""
    found = {}
    for kind in ("all", *dict.fromkeys(point["operation"] for point in points)):
        ratios = [point["ratio"] for point in points if kind in ("all", point["operation"])]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        found[kind] = {"n": len(ratios), "geometric_mean": significant(mean, 3), "largest": max(ratios)}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS), help=f"of {', '.join(NETWORKS)}", metavar="A,B")
    parser.add_argument("--batch", default="8", help="numbers of images", metavar="N,N")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each operation, both libraries together")
    parser.add_argument("--minutes", type=float, default=60, help="after which the rest is left out")
    parser.add_argument("--out", type=Path, required=True, help="where the result goes")
    options = parser.parse_args()
    end, seen, points, left = time.perf_counter() + 60 * options.minutes, set(), [], 0
    result = {"what": "milliseconds, fastest call", **provenance("torch"), "threads": torch.get_num_threads()}
    for batch in map(int, options.batch.split(",")):
        for name in options.networks.split(","):
            for row in operations(name, batch):
                key = (row.operation, row.x, row.kernel, row.geometry)
                if key in seen:
                    continue
                seen.add(key)
                if time.perf_counter() > end:
                    left += 1
                    continue
                ours, theirs = fastest(calls(row), options.seconds)
                point = {
                    "network": name,
                    "operation": row.operation,
                    "x": row.x,
                    "kernel": row.kernel,
                    "stride": row.geometry.stride,
                    "groups": row.geometry.groups,
                    "algorithm": row.algorithm,
                    "fcnn": significant(ours),
                    "pytorch": significant(theirs),
                    "ratio": significant(ours / theirs, 3),
                }
                points.append(point)
                print(
                    *(point[key] for key in ("network", "operation", "x", "kernel", "algorithm", "ratio")), flush=True
                )
            result |= {"left_out": left, "summary": summary(points), "points": points}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
