"""The choice of algorithm for a convolution or one of its gradients, with the reason, by platform, shapes and dtype.

The thresholds were measured on two cores with AVX-512 (jax 0.10.2); ``benchmarks/thresholds.py`` derives them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

from ...errors import format_shape
from ...geometry import Shape
from ...symbolic_sizes import assumed, symbolic
from ..forced import forced as _forced
from . import fourier, onednn, onednn_use, winograd
from .conv_geometry import Geometry

ALGORITHMS = ("direct", "patches", "depthwise", "blocks", "winograd", "fourier", "onednn")

#: Winograd's algorithm is faster from this many channels and features on, by the size of the kernel
WINOGRAD_CHANNELS = {3: 64, 4: 32, 5: 8}
#: ... up to this many samples along an axis of the image, because every sample of the axis enters the transform of
#: every tile; from MANY_CHANNELS channels and features on, the limit is larger
WINOGRAD_SIDE, WINOGRAD_SIDE_MANY, MANY_CHANNELS = 48, 96, 128
#: where there is oneDNN, Winograd's algorithm is faster from this many examples and products for each sample of a tile
#: on, where the layers of a run share their layout
WINOGRAD_EXAMPLES, WINOGRAD_PRODUCTS = 32, 8_000_000
#: blocks beat XLA's convolution where a patch has at most this many samples and pooling follows
BLOCKS_PATCH = 160
#: Fourier transforms beat a convolution where its multiplications per number of the transform are at least this many
#: for one example, and this many over all examples, for which the kernel is transformed once ...
FOURIER_KERNEL, FOURIER_EXAMPLES = 40, 500
#: ... and the transformed kernel, which has the size of an image for every channel and feature, at most this many
#: numbers
FOURIER_NUMBERS = 20_000_000
#: groups are computed one after another if there are at most this many and each has at least this many channels
MOST_GROUPS, GROUP_CHANNELS = 16, 8
#: without pooling afterwards, if there are at most this many channels: blocks up to this many features, else patches
FEW_CHANNELS, FEW_FEATURES = 8, 16


class Choice(NamedTuple):
    """An algorithm and the reason for it."""

    algorithm: str
    reason: str


@dataclass(frozen=True)
class Problem:
    """The properties of a convolution or one of its gradients that the choice depends on.

    Args:
        operation: "forward", "input" or "kernel": the result, or a gradient.
        x: shape (batch, *space, channels).
        kernel: shape (*kernel, channels // groups, features).
        geometry: the positions of the windows.
        dtype: name of the dtype of all arrays.
        platform: "cpu", or any other; GPUs and TPUs are all treated alike.
        ensemble: number of such problems at once, each with its own x and kernel, from ``vmap``.
        onednn: whether oneDNN may be called: in a program for the CPU of one device, which is not to be exported, where
            ``onednn_use`` allows it.
    """

    operation: str
    x: Shape
    kernel: Shape
    geometry: Geometry
    dtype: str
    platform: str
    ensemble: int = 1
    onednn: bool = False

    @property
    def several(self) -> bool:
        """Whether there are several problems, or a symbolic number of them."""
        return symbolic(self.ensemble) or self.ensemble > 1

    @property
    def transposed(self) -> Problem:
        """The forward problem whose result is the input gradient, with the output gradient and the flipped kernel."""
        *sizes, _, features = self.kernel
        batch, *space, channels = self.x
        geometry = self.geometry.transposed(tuple(space), tuple(sizes))
        out = self.geometry.out(tuple(space), tuple(sizes))
        kernel = (*sizes, features // self.geometry.groups, channels)
        return replace(self, operation="forward", x=(batch, *out, features), kernel=kernel, geometry=geometry)


def choose(problem: Problem) -> Choice:
    """The algorithm for a problem, with the reason.

    Example:
        >>> geometry = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 1, (1, 1), (1, 1))
        >>> choose(Problem("forward", (64, 16, 16, 128), (3, 3, 128, 128), geometry, "float32", "cpu")).algorithm
        'winograd'
        >>> choose(Problem("forward", (64, 16, 16, 128), (3, 3, 128, 128), geometry, "float32", "cuda")).algorithm
        'direct'
    """
    geometry, sizes = problem.geometry, problem.kernel[:-2]
    channels, features = problem.x[-1], problem.kernel[-1]
    if problem.several:
        if problem.platform == "cpu" or problem.operation == "kernel":
            return Choice("patches", "every example or network has a kernel of its own: one batched product")
        return Choice("direct", "the platform's own convolution, in groups")
    if problem.platform != "cpu":
        return Choice("direct", "the platform's own convolution is the fastest")
    if any(map(symbolic, problem.x[1:])):
        return Choice("direct", "XLA's convolution: the sizes are not known before the program runs")
    native = refusal("onednn", problem) is None
    if geometry.groups > 1:
        if geometry.groups == channels:
            return Choice("depthwise", "every feature sees one channel: shifted multiplications and additions")
        if native:
            return Choice("onednn", f"{geometry.groups} groups: oneDNN's direct convolution")
        if problem.dtype != "float64" and geometry.groups <= MOST_GROUPS and problem.kernel[-2] >= GROUP_CHANNELS:
            return Choice("direct", f"{geometry.groups} groups, a convolution each")
        return Choice("patches", "groups are the batch of one batched product")
    if all(k == 1 for k in sizes) and all(u == 1 for u in geometry.input_dilation):
        return Choice("patches", "a kernel of one sample is a matrix product")
    if problem.dtype == "float64":
        return Choice("patches", "XLA:CPU has no fast convolution in float64, but a fast product")
    if refusal("blocks", problem) is None:
        patch = channels * prod(sizes)
        pooled = prod(geometry.phases) > 1
        if pooled and patch <= BLOCKS_PATCH:
            return Choice("blocks", f"patches of {patch} samples are short and pooling follows: blocks of positions")
        few = channels <= FEW_CHANNELS and patch <= BLOCKS_PATCH and not native
        if not pooled and few and problem.operation != "kernel":
            if features <= FEW_FEATURES:
                return Choice("blocks", f"{channels} channels and {features} features are few: blocks of positions")
            return Choice("patches", f"{channels} channels are few: patches of {patch} samples")
    if refusal("fourier", problem) is None and _large(problem):
        return Choice("fourier", f"a kernel of {prod(sizes)} samples is large: products of Fourier transforms")
    if native and not _outweighs_onednn(problem):
        return Choice("onednn", "oneDNN's direct convolution")
    if refusal("winograd", problem) is None and _suits_winograd(problem):
        saved = prod(k * winograd.TILE / (k + winograd.TILE - 1) for k in sizes)
        size = "x".join(map(str, sizes))
        return Choice("winograd", f"{size} over {channels} channels: {saved:.1f} times fewer multiplications")
    if native:
        return Choice("onednn", "oneDNN's direct convolution")
    if problem.operation == "input" and all(s == 1 for s in geometry.stride):
        return choose(problem.transposed)
    if geometry.rank == 3:
        return Choice("direct", "XLA's convolution in two dimensions, the third beside the channels")
    return Choice("direct", "XLA's convolution, its gradients in the layout that stays fast inside loops")


def _suits_winograd(problem: Problem) -> bool:
    """Whether there are enough channels for Winograd's products, and few enough samples for its transforms."""
    *sizes, channels, features = problem.kernel
    most = WINOGRAD_SIDE_MANY if min(channels, features) >= MANY_CHANNELS else WINOGRAD_SIDE
    return min(channels, features) >= WINOGRAD_CHANNELS[max(sizes)] and max(problem.x[1:-1]) <= most


def _outweighs_onednn(problem: Problem) -> bool:
    """Whether there is so much to multiply that Winograd's products gain over oneDNN's direct convolution."""
    *sizes, channels, features = problem.kernel
    batch, *space, _ = problem.x
    tiles = batch * prod(n / winograd.TILE for n in problem.geometry.out(tuple(space), tuple(sizes)))
    return batch >= WINOGRAD_EXAMPLES and tiles * channels * features >= WINOGRAD_PRODUCTS


def _large(problem: Problem) -> bool:
    """Whether a kernel is so large that Fourier transforms are faster."""
    geometry, sizes, space = problem.geometry, problem.kernel[:-2], problem.x[1:-1]
    numbers = prod(fourier.period(space, sizes, geometry))
    work = prod(geometry.out(space, sizes)) * prod(sizes) / numbers
    transformed = numbers * problem.x[-1] * problem.kernel[-1]
    examples = assumed(problem.x[0])
    return work >= FOURIER_KERNEL and work * examples >= FOURIER_EXAMPLES and transformed <= FOURIER_NUMBERS


def refusal(algorithm: str, problem: Problem) -> str | None:
    """Why an algorithm cannot compute a problem; None if it can."""
    geometry, sizes = problem.geometry, problem.kernel[:-2]
    if algorithm not in ALGORITHMS:
        return f"unknown algorithm {algorithm!r}; choose one of {', '.join(ALGORITHMS)}"
    if algorithm == "onednn":
        return _refused_by_onednn(problem)
    if algorithm == "direct" and problem.operation == "kernel" and problem.several:
        return "XLA partitions the kernel gradients of a vmapped convolution wrongly where they lie on several devices"
    if algorithm == "depthwise" and (geometry.groups != problem.x[-1]):
        return f"depthwise needs as many groups as channels, not {geometry.groups} for {problem.x[-1]}"
    if algorithm in ("blocks", "winograd", "fourier") and any(map(symbolic, problem.x[1:])):
        return f"{algorithm} needs to know the size of the space when the program is traced"
    if algorithm == "blocks" and prod(geometry.phases) > 1 and set(geometry.phases) != {2}:
        return f"blocks have two positions along every axis, not {format_shape(geometry.phases)}"
    if algorithm in ("blocks", "winograd", "fourier") and not geometry.dense:
        return f"{algorithm} needs stride 1, dilation 1 and one group"
    if algorithm == "winograd" and problem.dtype not in ("float32", "float64"):
        return f"winograd loses too many digits in {problem.dtype}"
    if algorithm == "fourier" and problem.dtype not in ("float32", "float64"):
        return f"fourier has no transforms in {problem.dtype}"
    if algorithm == "winograd" and (len(sizes) != 2 or not set(sizes) <= set(winograd.KERNELS)):
        return f"winograd needs a kernel of 3, 4 or 5 samples along two axes, not {format_shape(sizes)}"
    if algorithm == "winograd" and min(p for pair in geometry.pads for p in pair) < 0:
        return "winograd needs padding of 0 or more"
    return None


def _refused_by_onednn(problem: Problem) -> str | None:
    if not problem.onednn:
        why = "" if problem.platform != "cpu" else onednn_use.unusable()
        return (
            f"onednn: {why}"
            if why
            else "onednn computes on the CPU, in programs of one device that stay in the process"
        )
    if problem.dtype == "float64":
        return "onednn has no float64"
    if problem.several:
        return "onednn computes one problem at a time"
    if any(map(symbolic, problem.x)):
        return "onednn needs to know all sizes when the program is traced"
    if problem.operation == "input":
        sizes, space = problem.kernel[:-2], tuple(problem.x[1:-1])
        return onednn.refused(problem.geometry.plain.transposed(space, tuple(sizes)), "input")
    return onednn.refused(problem.geometry, problem.operation)


def usable(platform: str) -> bool:
    """Whether oneDNN may be called in a program for this platform, if it is of one device and stays in the process."""
    return platform == "cpu" and onednn_use.unusable() is None


@contextmanager
def use_algorithm(algorithm: str | None) -> Iterator[None]:
    """Compute every convolution traced inside by this algorithm where possible; elsewhere the usual choice applies.

    ``compiled.cost_analysis()`` counts the operations of the algorithm: with "winograd" or "fourier" fewer than the
    definition of a convolution has, with "blocks" more, with "direct" those of the definition.

    Args:
        algorithm: "direct", "onednn", "patches", "depthwise", "blocks", "winograd", "fourier", or None for the usual
            choice. The last three algorithms fall back to another one at run time for data that they would not compute
            accurately.

    Raises:
        ValueError: an unknown algorithm.

    Example:
        >>> import jax.numpy as jnp
        >>> from fcnn import ops
        >>> with use_algorithm("patches"):
        ...     ops.conv(jnp.ones((1, 4, 1)), jnp.ones((2, 1, 1))).ravel().tolist()
        [2.0, 2.0, 2.0]
    """
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r}; choose one of {', '.join(ALGORITHMS)}, or None")
    with _forced(algorithm):
        yield


def forced() -> str | None:
    """The algorithm requested by :func:`use_algorithm`."""
    return _forced.value


def explain(problem: Problem) -> Choice:
    """The choice with which a problem will be computed; a requested algorithm takes precedence where possible."""
    asked = forced()
    if asked is not None and refusal(asked, problem) is None:
        return Choice(asked, "asked for")
    return choose(problem)
