"""U-Net: a label for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from ..compose import branches, serial
from ..compose.serial import Serial
from ..layer import Layer
from ..layers import BatchNorm, Conv, ConvTranspose, Crop, MaxPool
from .densenet import same

#: features at full resolution and after each halving, in the paper
WIDTHS = (64, 128, 256, 512, 1024)


def unet(
    classes: int = 2, *, widths: Sequence[int] = WIDTHS, padding: str = "SAME", batch_norm: bool = False
) -> Serial:
    """Ronneberger's network: it contracts to see the whole, expands to say where, and puts the two together.

    At every level two 3x3 convolutions are followed by pooling and the level below; what comes back is brought to twice
    the resolution by a transposed 2x2 convolution and stands beside the level's own features, under two further 3x3
    convolutions. A 1x1 convolution gives the scores of each pixel.

    With ``padding="VALID"``, as in the paper, every output sees real pixels alone and is smaller than its input, by 184
    pixels at five levels: 572 to 388. With "SAME" it is as large, and sides must be multiples of 2 to the power of the
    levels below the first, 16 with five. Give ``fcnn.scan_tiles`` images of any size.

    Args:
        classes: scores for each pixel.
        widths: features of each level, from full resolution down.
        padding: "SAME" or "VALID".
        batch_norm: whether a batch normalisation follows every 3x3 convolution, which then has no bias.

    Shapes:
        x (batch, height, width, channels) to (batch, height, width, classes), smaller with "VALID"; sound and volumes
        likewise.

    Returns:
        The network, of parts ``level`` (the levels below inside it) and ``head``.

    Raises:
        ValueError: fewer than two levels, or another padding.

    Source:
        Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015,
        figure 1.

    Example:
        >>> unet(2).out_shape((256, 256, 1)), unet(2, padding="VALID").out_shape((572, 572, 1))
        ((256, 256, 2), (388, 388, 2))
    """
    widths = tuple(widths)
    if len(widths) < 2:
        raise ValueError(f"unet: widths {widths!r} make {len(widths)} levels, but a U-Net has two or more")
    if padding not in ("SAME", "VALID"):
        raise ValueError(f'unet: padding {padding!r} is neither "SAME" nor "VALID"')
    level: Layer = serial(*_block(widths[-1], padding, batch_norm))
    cut = 0
    for features in reversed(widths[:-1]):
        cut = 2 * cut + 4 if padding == "VALID" else 0  # pixels at either end that the levels below have lost
        across = Crop(cut) if cut else same
        below = serial(pool=MaxPool(2), level=level, up=ConvTranspose(features, 2, stride=2))
        level = serial(
            down=serial(*_block(features, padding, batch_norm)),
            join=branches(across=across, below=below),
            up=serial(*_block(features, padding, batch_norm)),
        )
        cut += 2 if padding == "VALID" else 0
    return serial(level=level, head=Conv(classes, 1))


def _block(features: int, padding: str, batch_norm: bool) -> list[Any]:
    conv = Conv(features, 3, padding=padding, bias=not batch_norm)
    return [conv, *([BatchNorm()] if batch_norm else []), jax.nn.relu] * 2
