"""Networks without convolutions: perceptrons, and the linear support vector machine."""

from __future__ import annotations

from typing import Any

import jax

from ..compose import serial
from ..compose.serial import Serial
from ..layers import Dense, Flatten


def mlp(*features: int, activation: Any = jax.nn.relu) -> Serial:
    """Dense layers with an activation between them, on a flattened input.

    ``mlp(1)`` is a perceptron: one linear unit, whose sign is the class. With one hidden layer the regions of a class
    are convex polygons, with two any shape. A scan of it over sound, images or volumes is a convolutional network.

    Args:
        features: units of each layer, the last of them the outputs.
        activation: the function between layers.

    Shapes:
        x (batch, ..., channels) to (batch, features[-1]).

    Returns:
        The network.

    Raises:
        ValueError: no layers.

    Source:
        Rosenblatt, "The perceptron", 1958; Rumelhart, Hinton and Williams, "Learning representations by
        back-propagating errors", 1986.

    Example:
        >>> mlp(300, 100, 10).out_shape((28, 28, 1))
        (10,)
        >>> params = mlp(1).init(jax.random.key(0), (2,))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        3
    """
    if not features:
        raise ValueError("mlp: there are no layers; give the units of each, such as mlp(300, 10)")
    parts: list[Any] = [Flatten()]
    for n in features:
        parts += [Dense(n), activation]
    return serial(*parts[:-1])


def linear_svm(classes: int = 10) -> Serial:
    r"""Linear scores for a support vector machine.

    The machine is the loss: train it with the hinge loss, ``loss=optax.losses.multiclass_hinge_loss``, and weight
    decay, which makes the margin wide:

    .. math:: \min_{W, b} \; \frac{\lambda}{2} \lVert W \rVert^2
        + \frac{1}{N} \sum_n \max\bigl(0, 1 + \max_{c \neq y_n} s_{n, c} - s_{n, y_n}\bigr),
        \qquad s_n = W^\top x_n + b

    Args:
        classes: number of outputs.

    Shapes:
        x (batch, ..., channels) to (batch, classes).

    Returns:
        The network.

    Source:
        Crammer and Singer, "On the algorithmic implementation of multiclass kernel-based vector machines", 2001.

    Example:
        >>> linear_svm(3).out_shape((28, 28, 1))
        (3,)
    """
    return serial(Flatten(), Dense(classes, kernel_init="zeros"))
