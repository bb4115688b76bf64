"""SqueezeNet: the accuracy of AlexNet with a fiftieth of its parameters."""

from __future__ import annotations

import jax

from ..compose import branches, serial
from ..compose.serial import Serial
from ..layers import Conv, Dropout, GlobalAvgPool, MaxPool


def squeezenet(classes: int = 1000, *, version: str = "1.0") -> Serial:
    """Iandola's network of fire modules: 1x1 convolutions squeeze the channels, 1x1 and 3x3 ones expand them.

    There is no dense layer: the last convolution gives a map for each class, and its average is the score. Version 1.1
    pools earlier, at 0.4 of the multiply-adds.

    Args:
        classes: number of outputs.
        version: "1.0" (the paper) or "1.1".

    Shapes:
        x (batch, height, width, 3) to (batch, classes); at least 32 x 32 pixels, 224 x 224 in the paper.

    Returns:
        The network, of parts ``stem``, ``stage1`` to ``stage3`` and ``head``.

    Raises:
        ValueError: another version.

    Source:
        Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", 2016,
        table 1; version 1.1: the authors' repository.

    Example:
        >>> squeezenet().out_shape((224, 224, 3))
        (1000,)
    """
    if version not in ("1.0", "1.1"):
        raise ValueError(f'squeezenet: version {version!r} is unknown; use "1.0" or "1.1"')
    pool = MaxPool(3, stride=2, ceil_mode=True)
    small, middle = [_fire(16, 64)] * 2, [_fire(32, 128)]
    large = [_fire(48, 192)] * 2 + [_fire(64, 256)]
    if version == "1.0":
        stem = serial(Conv(96, 7, stride=2), jax.nn.relu, pool)
        stages = {
            "stage1": serial(*small, *middle, pool),
            "stage2": serial(*middle, *large, pool),
            "stage3": serial(_fire(64, 256)),
        }
    else:
        stem = serial(Conv(64, 3, stride=2), jax.nn.relu, pool)
        stages = {
            "stage1": serial(*small, pool),
            "stage2": serial(*middle * 2, pool),
            "stage3": serial(*large, _fire(64, 256)),
        }
    last = Conv(classes, 1, kernel_init=("normal", 0.01))
    return serial(stem=stem, **stages, head=serial(Dropout(0.5), last, jax.nn.relu, GlobalAvgPool()))


def _fire(squeeze: int, expand: int) -> Serial:
    """Squeeze to few channels, then expand to twice ``expand``."""
    return serial(
        Conv(squeeze, 1), jax.nn.relu,
        branches(
            serial(Conv(expand, 1), jax.nn.relu),
            serial(Conv(expand, 3, padding=1), jax.nn.relu),
        ),
    )  # fmt: skip
