"""Residual networks: He's two papers, their wide form and their grouped form."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..compose import residual, serial
from ..compose.serial import Serial
from ..layer import Layer
from ..layers import BatchNorm, Conv, Dense, GlobalAvgPool, MaxPool

#: blocks in each of the four stages, by depth (table 1); from 50 layers on the blocks are bottlenecks
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
#: a bottleneck has four times as many features as its 3x3 convolution
EXPANSION = 4


def resnet(
    depth: int = 50,
    classes: int = 1000,
    *,
    cifar: bool = False,
    preactivation: bool = False,
    groups: int = 1,
    group_width: int = 64,
    width: int = 1,
) -> Serial:
    r"""He's residual network: every block learns what to add to its input.

    .. math:: y = \operatorname{relu}(x + f(x)), \qquad \text{with pre-activation}\quad y = x + f(x)

    f is two 3x3 convolutions, or from 50 layers on a bottleneck of 1x1, 3x3 and 1x1, each with batch normalisation. The
    first block of a stage halves the resolution, and projects the shortcut by a 1x1 convolution. As in torchvision, the
    stride of a bottleneck is in its 3x3 convolution, where the paper has it in the first 1x1.

    With ``cifar`` it is the network of section 4.2 for images of 32 x 32 pixels: a 3x3 stem and three stages of
    16, 32 and 64 features with (depth - 2) / 6 blocks each. Its shortcuts have no parameters: they drop every second
    position and fill the new channels with zeros (option A). With ``preactivation`` (the second paper) normalisation
    and ReLU come before each convolution, and the shortcuts are free of both; where the shape changes, the shortcut is
    a projection of the block's activated input.

    Args:
        depth: 18, 34, 50, 101 or 152; with ``cifar`` 6 n + 2: 20, 32, 44, 56, 110.
        classes: number of outputs.
        cifar: whether it is the form for small images.
        preactivation: whether normalisation and ReLU come before the convolutions.
        groups: groups of the 3x3 convolutions of bottlenecks; above 1 the network is a ResNeXt.
        group_width: features of one group in the first stage.
        width: factor of the features of the stages, with ``cifar`` alone.

    Shapes:
        x (batch, height, width, 3) to (batch, classes); 224 x 224 pixels in the paper, 32 x 32 with ``cifar``.

    Returns:
        The network, of parts ``stem``, ``stage1`` to ``stage4`` (with ``cifar`` ``stage3``) and ``head``.

    Raises:
        ValueError: a depth that the papers do not have; groups without bottlenecks.

    Source:
        He et al., "Deep residual learning for image recognition", 2016, table 1 and section 4.2;
        He et al., "Identity mappings in deep residual networks", 2016, figure 1(b).

    Example:
        >>> resnet(18).out_shape((224, 224, 3))
        (1000,)
        >>> params = resnet(20, 10, cifar=True).init(jax.random.key(0), (32, 32, 3))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        269722
    """
    if cifar:
        count, rest = divmod(depth - 2, 6)
        if rest or count < 1:
            raise ValueError(f"resnet: depth {depth!r} is not 6 n + 2, as with cifar=True; use 20, 32, 44, 56 or 110")
        blocks, features, bottleneck = (count,) * 3, tuple(width * n for n in (16, 32, 64)), False
    else:
        if depth not in BLOCKS:
            raise ValueError(f"resnet: depth {depth!r} is not one of {', '.join(map(str, BLOCKS))}; or give cifar=True")
        blocks, features, bottleneck = BLOCKS[depth], (64, 128, 256, 512), depth >= 50
    if not bottleneck and (groups, group_width) != (1, 64):
        raise ValueError(
            f"resnet: groups are for bottlenecks, which a depth of {depth} does not have; use 50, 101 or 152"
        )
    make = partial(_bottleneck, groups=groups, group_width=group_width) if bottleneck else _basic
    before = 16 if cifar else 64
    stages = {}
    for number, (count, n) in enumerate(zip(blocks, features, strict=True), 1):
        out = n * (EXPANSION if bottleneck else 1)
        block, stride, shortcut = _preactivated if preactivation else _block, min(number, 2), None
        if stride > 1 or before != out:
            shortcut = _padded(out, stride) if cifar and width == 1 else _conv(out, 1, stride)
        first, others = block(n, stride, shortcut, make), block(n, 1, None, make)
        stages[f"stage{number}"] = serial(first, *[others] * (count - 1))
        before = out
    if preactivation:
        last = f"stage{len(blocks)}"
        stages[last] = serial(*stages[last], BatchNorm(), jax.nn.relu)
    head = serial(GlobalAvgPool(), Dense(classes))
    return serial(stem=_stem(cifar, preactivation), **stages, head=head)


def resnext(depth: int = 50, classes: int = 1000, *, groups: int = 32, group_width: int = 4) -> Serial:
    """Xie's residual network of grouped convolutions: many narrow paths in a block instead of one wide path.

    Args:
        depth: 50, 101 or 152.
        classes: number of outputs.
        groups: the cardinality, paths in a block.
        group_width: features of one path in the first stage.

    Returns:
        The network, of the same parts as :func:`resnet`.

    Source:
        Xie et al., "Aggregated residual transformations for deep neural networks", 2017, table 1.

    Example:
        >>> resnext(50)["stage1"].out_shape((56, 56, 64))
        (56, 56, 256)
    """
    return resnet(depth, classes, groups=groups, group_width=group_width)


def wide_resnet(depth: int = 28, classes: int = 10, *, width: int = 10) -> Serial:
    """Zagoruyko's residual network: fewer blocks with more features.

    28 layers of tenfold width (WRN-28-10) are the paper's network for CIFAR: pre-activated blocks of two 3x3
    convolutions. With 50 or 101 layers it is the network for ImageNet, whose bottlenecks have 3x3 convolutions of
    ``width`` times the features; torchvision has it with a width of 2.

    Args:
        depth: 6 n + 4: 16, 22, 28, 40; or 50 or 101 for ImageNet.
        classes: number of outputs.
        width: factor of the features.

    Returns:
        The network, of the same parts as :func:`resnet`.

    Raises:
        ValueError: another depth.

    Source:
        Zagoruyko and Komodakis, "Wide residual networks", 2016, table 1.

    Example:
        >>> wide_resnet(28, 10).out_shape((32, 32, 3))
        (10,)
    """
    if depth in (50, 101):
        return resnet(depth, classes, group_width=64 * width)
    if (depth - 4) % 6 or depth < 10:
        raise ValueError(f"wide_resnet: depth {depth!r} is neither 6 n + 4 nor 50 or 101; use 16, 22, 28 or 40")
    # the paper counts the projections of the three stages among the layers where resnet's depth does not
    return resnet(depth - 2, classes, cifar=True, preactivation=True, width=width)


def _conv(features: int, kernel: int, stride: int = 1, groups: int = 1) -> Conv:
    """A convolution that keeps the space but for its stride; normalisation follows, so it has no bias."""
    init = ("variance_scaling", 2.0, "fan_out", "normal")
    return Conv(features, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, kernel_init=init)


def _stem(cifar: bool, preactivation: bool) -> Serial:
    first = _conv(16, 3) if cifar else _conv(64, 7, 2)
    after: list[Any] = [] if preactivation and cifar else [BatchNorm(), jax.nn.relu]
    return serial(first, *after, *([] if cifar else [MaxPool(3, stride=2, padding=1)]))


def _basic(features: int, stride: int) -> list[Conv]:
    return [_conv(features, 3, stride), _conv(features, 3)]


def _bottleneck(features: int, stride: int, *, groups: int, group_width: int) -> list[Conv]:
    inner = features * group_width // 64 * groups
    return [_conv(inner, 1), _conv(inner, 3, stride, groups), _conv(EXPANSION * features, 1)]


def _block(features: int, stride: int, shortcut: Any, make: Any) -> Serial:
    """The block of the first paper."""
    body: list[Any] = []
    for conv in make(features, stride):
        body += [conv, BatchNorm(), jax.nn.relu]
    across = serial(shortcut, BatchNorm()) if isinstance(shortcut, Conv) else shortcut
    return serial(residual(serial(*body[:-1]), across), jax.nn.relu)


def _preactivated(features: int, stride: int, shortcut: Any, make: Any) -> Layer:
    """The block of the second paper."""
    body: list[Any] = []
    for conv in make(features, stride):
        body += [BatchNorm(), jax.nn.relu, conv]
    if isinstance(shortcut, Conv):  # it projects what the first convolution sees
        return serial(*body[:2], residual(serial(*body[2:]), shortcut))
    return residual(serial(*body), shortcut)


def _padded(features: int, stride: int) -> Any:
    """Option A of the first paper: every second position, and zeros in the new channels."""
    return serial(MaxPool(1, stride=stride), partial(zeros_beside, features=features))


def zeros_beside(x: jax.Array, features: int) -> jax.Array:
    """Add channels of zeros, half of them before and half after the others.

    Example:
        >>> zeros_beside(jnp.ones((1, 2)), 4).tolist()
        [[0.0, 1.0, 1.0, 0.0]]
    """
    more = features - x.shape[-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(more // 2, more - more // 2)])
