"""GoogLeNet, the first inception network."""

from __future__ import annotations

from typing import Any

import jax

from ..compose import branches, graph, serial
from ..compose.serial import Serial
from ..layer import Layer
from ..layers import (
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LocalResponseNorm,
    MaxPool,
)

#: of each inception module: 1x1; 3x3 after its reduction; 5x5 after its reduction; 1x1 after pooling (table 1)
STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


def googlenet(classes: int = 1000, *, variant: str = "torchvision", auxiliary: bool = False) -> Layer:
    """Szegedy's network of inception modules: 1x1, 3x3 and 5x5 convolutions and pooling side by side.

    1x1 convolutions reduce the channels before the larger ones, so that a module of four branches is affordable.

    - "paper": convolutions with biases, and local response normalisation in the stem.
    - "torchvision": batch normalisation after every convolution, and 3x3 in the place of 5x5.

    Two classifiers on inner modules, with ``auxiliary``, send gradients to the lower layers in training. Their losses
    count 0.3 each in the paper: ``fit(net, (x, {"main": y, "aux1": y, "aux2": y}), loss=...)``, a dict of losses and
    weights by the same names. The params of the trained network are those of the one without them, and more.

    Args:
        classes: number of outputs.
        variant: "paper" or "torchvision".
        auxiliary: whether the network gives a dict of ``main``, ``aux1`` and ``aux2``, in training and at inference.

    Shapes:
        x (batch, height, width, 3) to (batch, classes), or a dict of three such arrays; 224 x 224 pixels.

    Returns:
        The network, of parts ``stem``, ``stage1`` to ``stage3`` and ``head``; with ``auxiliary`` a graph, whose second
        stage is in three parts, and which has ``aux1`` and ``aux2`` as well.

    Raises:
        ValueError: an unknown variant.

    Source:
        Szegedy et al., "Going deeper with convolutions", 2015, table 1 and section 5.

    Example:
        >>> googlenet().out_shape((224, 224, 3))
        (1000,)
    """
    if variant not in ("paper", "torchvision"):
        raise ValueError(f'googlenet: variant {variant!r} is unknown; use "paper" or "torchvision"')
    norm = variant == "torchvision"
    pool = MaxPool(3, stride=2, ceil_mode=True)
    local: list[Any] = [] if norm else [LocalResponseNorm()]
    stem = serial(
        *_conv(norm, 64, 7, stride=2), pool, *local,
        *_conv(norm, 64, 1), *_conv(norm, 192, 3), *local, pool,
    )  # fmt: skip
    first, second, third = ([_inception(norm, *widths) for widths in stage] for stage in STAGES)
    between = MaxPool(2, ceil_mode=True) if norm else pool
    head = serial(GlobalAvgPool(), Dropout(0.2 if norm else 0.4), Dense(classes))
    if not auxiliary:
        stages = {"stage1": serial(*first, pool), "stage2": serial(*second, between), "stage3": serial(*third)}
        return serial(stem=stem, **stages, head=head)
    return graph(
        stem=stem,
        stage1=serial(*first, pool),
        stage2a=serial(second[0]),
        stage2b=serial(*second[1:4]),
        stage2c=serial(second[4], between),
        stage3=serial(*third),
        aux1=_auxiliary(norm, classes),
        aux2=_auxiliary(norm, classes),
        head=head,
    )(three_heads)


def three_heads(layer: Any, x: jax.Array) -> dict[str, jax.Array]:
    """The wiring: a classifier on the first and fourth module of the second stage, and one at the end."""
    a = layer.stage2a(layer.stage1(layer.stem(x)))
    b = layer.stage2b(a)
    y = layer.head(layer.stage3(layer.stage2c(b)))
    return {"main": y, "aux1": layer.aux1(a), "aux2": layer.aux2(b)}


def _conv(norm: bool, features: int, kernel: int, stride: int = 1) -> list[Any]:
    conv = Conv(features, kernel, stride=stride, padding=kernel // 2, bias=not norm)
    return [conv, *([BatchNorm(epsilon=0.001)] if norm else []), jax.nn.relu]


def _inception(norm: bool, one: int, reduce3: int, three: int, reduce5: int, five: int, pooled: int) -> Layer:
    """The inception module (figure 2b)."""
    return branches(
        serial(*_conv(norm, one, 1)),
        serial(*_conv(norm, reduce3, 1), *_conv(norm, three, 3)),
        serial(*_conv(norm, reduce5, 1), *_conv(norm, five, 3 if norm else 5)),
        serial(MaxPool(3, stride=1, padding=1), *_conv(norm, pooled, 1)),
    )


def _auxiliary(norm: bool, classes: int) -> Serial:
    pool = AdaptiveAvgPool(4) if norm else AvgPool(5, stride=3)
    dense = [Flatten(), Dense(1024), jax.nn.relu, Dropout(0.7), Dense(classes)]
    return serial(pool, *_conv(norm, 128, 1), *dense)
