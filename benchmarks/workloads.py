"""What is timed: networks, their weights and data, and single operations, said once for all libraries.

Plain numbers and NumPy arrays only, channels last. Each library's file in `peers` turns them into its own layout.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass

LEARNING_RATE = 0.01
MOMENTUM = 0.9
CLASSES = 10


def random(seed):
    """NumPy's generator; imported here, so that bench.py itself runs in any Python."""
    import numpy as np

    return np.random.default_rng(seed)


@dataclass(frozen=True)
class Network:
    """A network by its kind, "lenet" or "six", and the number of maps of its convolutions."""

    kind: str
    maps: tuple[int, ...]
    shape: tuple[int, int, int]
    batch: int

    def shapes(self):
        """The kernels in order: (height, width, in, out) of convolutions, (in, out) of dense layers."""
        size = 5 if self.kind == "lenet" else 3
        convs = [(size, size, a, b) for a, b in itertools.pairwise((self.shape[-1], *self.maps))]
        hidden = (120, 84) if self.kind == "lenet" else ()
        return convs + list(itertools.pairwise((math.prod(self.flat()), *hidden, CLASSES)))

    def flat(self):
        """What is flattened before the first dense layer: (height, width, maps)."""
        side = (self.shape[0] // 2 - 4) // 2 if self.kind == "lenet" else self.shape[0] // 8
        return side, side, self.maps[-1]

    def weights(self):
        """The kernels and biases that every library starts from: He et al. 2015, biases not zero, a small last layer.

        With a small last layer no first step is large, so that all libraries train alike and none trains on NaN.
        """
        draw = random(0)
        scales = [math.sqrt(2 / math.prod(shape[:-1])) for shape in self.shapes()]
        scales[-1] /= 10
        return [
            (draw.normal(0, scale, shape).astype("float32"), draw.normal(0, 0.1, shape[-1]).astype("float32"))
            for shape, scale in zip(self.shapes(), scales, strict=True)
        ]

    def data(self):
        """A batch of images (batch, height, width, channels) and labels; noise, since only time matters."""
        draw = random(1)
        images = draw.normal(size=(self.batch, *self.shape)).astype("float32")
        return images, draw.integers(0, CLASSES, self.batch).astype("int32")

    def parameters(self):
        return sum(math.prod(shape) + shape[-1] for shape in self.shapes())


@dataclass(frozen=True)
class Published:
    """A network of the literature as `fcnn.models` has it, under a name that every library's file knows.

    Attributes:
        kind: "resnet18", "resnet50", "mobilenet", "unet", "vgg" (11 layers, with norms) or "densenet".
        shape: of one image.
        batch: images in a step.
        classes: scores of an image, or of each pixel ("unet").
    """

    kind: str
    shape: tuple[int, int, int]
    batch: int
    classes: int = 1000

    @property
    def pixels(self):
        return self.kind == "unet"

    @property
    def drops(self):
        """Whether it has dropout, so that losses depend on what is drawn."""
        return self.kind == "vgg"

    def kernel(self, shape):
        """The values of a kernel (*space, in, out): He et al. 2015, the same wherever a kernel of that shape stands.

        So no library has to know in which order another keeps its layers. Norms begin as they are, biases at zero.
        """
        draw = random([*shape, len(shape)])
        return draw.normal(0, math.sqrt(2 / math.prod(shape[:-1])), shape).astype("float32")

    def data(self):
        """A batch of images and labels; noise, since only time matters."""
        draw = random(1)
        images = draw.normal(size=(self.batch, *self.shape)).astype("float32")
        places = (self.batch, *self.shape[:2]) if self.pixels else self.batch
        return images, draw.integers(0, self.classes, places).astype("int32")


@dataclass(frozen=True)
class Convolution:
    """One convolution: x (batch, *space, inputs), kernel (*kernel, inputs // groups, features), zeros on both sides."""

    batch: int
    space: tuple[int, ...]
    inputs: int
    features: int
    kernel: int
    pad: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1

    def arrays(self):
        """Input, kernel, and what comes back from above."""
        rank = len(self.space)
        span = self.dilation * (self.kernel - 1) + 1
        out = [(n + 2 * self.pad - span) // self.stride + 1 for n in self.space]
        shapes = (
            (self.batch, *self.space, self.inputs),
            (*[self.kernel] * rank, self.inputs // self.groups, self.features),
            (self.batch, *out, self.features),
        )
        draw = random(2)
        return [draw.normal(size=shape).astype("float32") for shape in shapes]


@dataclass(frozen=True)
class Pool:
    """Max pooling of an array (batch, height, width, channels) without padding."""

    shape: tuple[int, int, int, int]
    window: int
    stride: int

    def arrays(self):
        """Input, and what comes back from above."""
        batch, height, width, channels = self.shape
        out = [(n - self.window) // self.stride + 1 for n in (height, width)]
        draw = random(3)
        return [draw.normal(size=s).astype("float32") for s in (self.shape, (batch, *out, channels))]


NETWORKS = {
    "lenet5": Network("lenet", (6, 16), (28, 28, 1), 128),
    "lenet_wide": Network("lenet", (32, 64), (28, 28, 1), 128),
    "six_conv": Network("six", (64, 64, 128, 128, 256, 256), (32, 32, 3), 64),
}
PUBLISHED = {
    "resnet18": Published("resnet18", (224, 224, 3), 8),
    "resnet18_small": Published("resnet18", (32, 32, 3), 64, classes=10),
    "mobilenet": Published("mobilenet", (224, 224, 3), 8),
    "unet": Published("unet", (128, 128, 3), 8, classes=2),
    "resnet50": Published("resnet50", (224, 224, 3), 4),
    "vgg": Published("vgg", (224, 224, 3), 4),
    "densenet": Published("densenet", (224, 224, 3), 4),
}
POOLS = {
    "2x2, (128, 28, 28, 32)": Pool((128, 28, 28, 32), 2, 2),
    "3x3 stride 2, (64, 55, 55, 96)": Pool((64, 55, 55, 96), 3, 2),
}
DEPTHWISE = {"3x3, (64, 16, 16, 128)": Convolution(64, (16, 16), 128, 128, 3, 1, groups=128)}
CONVOLUTIONS = {
    "3x3, 64 maps, 32x32": Convolution(64, (32, 32), 64, 64, 3, 1),
    "3x3, 128 maps, 16x16": Convolution(64, (16, 16), 128, 128, 3, 1),
    "3x3, 256 maps, 8x8": Convolution(64, (8, 8), 256, 256, 3, 1),
    "1x1, 256 to 64, 14x14": Convolution(64, (14, 14), 256, 64, 1, 0),
    "LeNet first, 5x5, 1 to 6": Convolution(128, (28, 28), 1, 6, 5, 2),
    "LeNet second, 5x5, 6 to 16": Convolution(128, (14, 14), 6, 16, 5, 0),
    "3x3 stride 2, 64 maps, 32x32": Convolution(64, (32, 32), 64, 64, 3, 1, stride=2),
    "3x3 dilation 2, 64 maps, 32x32": Convolution(64, (32, 32), 64, 64, 3, 2, dilation=2),
    "3x3 groups 4, 64 maps, 32x32": Convolution(64, (32, 32), 64, 64, 3, 1, groups=4),
    "1-D, 9, 16 to 32, 8000": Convolution(16, (8000,), 16, 32, 9, 4),
    "3-D, 3, 8 to 16, 16^3": Convolution(16, (16, 16, 16), 8, 16, 3, 1),
}

TRAINING = ("fcnn", "flax", "equinox", "haiku", "keras")
#: libraries with a step in `lax.scan`
LOOPS = TRAINING
TORCH = ("pytorch", "pytorch_channels_last")
#: these ask for a GPU
TORCH_ON_GPU = ("pytorch_autocast", "pytorch_compile")
#: case -> the libraries that it compares
CASES = {
    **dict.fromkeys(NETWORKS, (*TRAINING, *TORCH, *TORCH_ON_GPU)),
    "per_example": ("fcnn", "flax", "pytorch"),
    "max_pool": ("fcnn", "lax", *TORCH),
    "depthwise": ("fcnn", "lax", *TORCH),
    "ops": ("fcnn", "lax", *TORCH),
    **dict.fromkeys(PUBLISHED, ("fcnn", "flax", "onnxruntime", *TORCH, "pytorch_compile")),
}


def network(name, *, batch=None, smoke=False):
    """A network of the list, with another batch, or so small that only the code is tried."""
    net = {**NETWORKS, **PUBLISHED}[name]
    if smoke and name in PUBLISHED:
        net = dataclasses.replace(net, shape=(64, 64, 3), batch=4, classes=2 if net.pixels else 10)
    elif smoke:
        net = dataclasses.replace(net, maps=tuple(max(2, maps // 16) for maps in net.maps), batch=4)
    return dataclasses.replace(net, batch=batch) if batch else net


def operations(name, *, smoke=False):
    """The pools or convolutions of a case; small batches and few maps where only the code is tried."""
    found = {"max_pool": POOLS, "depthwise": DEPTHWISE, "ops": CONVOLUTIONS}[name]
    if not smoke:
        return found
    if name == "max_pool":
        return {label: dataclasses.replace(pool, shape=(2, 9, 9, 4)) for label, pool in found.items()}
    if name == "depthwise":
        return {label: dataclasses.replace(c, batch=2, inputs=8, features=8, groups=8) for label, c in found.items()}
    kept = list(found.items())[-2:]
    return {label: dataclasses.replace(c, batch=1, space=tuple(8 for _ in c.space)) for label, c in kept}
