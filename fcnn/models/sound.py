"""A one-dimensional network for raw sound."""

from __future__ import annotations

from typing import Any

import jax

from ..compose import serial
from ..compose.serial import Serial
from ..layers import BatchNorm, Conv, Dense, GlobalAvgPool, MaxPool


def m5(classes: int = 10, *, width: int = 128, stride: int = 4) -> Serial:
    """Dai's network of five layers for waveforms: a long first kernel, then short ones.

    The first kernel, 80 samples or 10 ms at 8 kHz, becomes a bank of band-pass filters. Each pooling makes the steps of
    time four times as long, and the average over time gives one vector for a recording of any length.

    Args:
        classes: number of outputs.
        width: features of the first two convolutions; the third has twice, the fourth four times as many.
        stride: of the first convolution.

    Shapes:
        x (batch, samples, channels) to (batch, classes); 32,000 samples in the paper.

    Returns:
        The network.

    Source:
        Dai, Dai, Qu, Li and Das, "Very deep convolutional neural networks for raw waveforms", 2017, table 1, M5.

    Example:
        >>> m5().out_shape((32000, 1))
        (10,)
    """
    parts: list[Any] = []
    for features, kernel, step in ((width, 80, stride), (width, 3, 1), (2 * width, 3, 1), (4 * width, 3, 1)):
        conv = Conv(features, kernel, stride=step, padding="SAME")
        parts += [conv, BatchNorm(), jax.nn.relu, MaxPool(4)]
    return serial(*parts, GlobalAvgPool(), Dense(classes))
