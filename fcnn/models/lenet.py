"""LeNet-5, in its modern form and as in 1998."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..compose import branches, serial
from ..compose.serial import Serial
from ..geometry import Padding
from ..layers import AvgPool, Conv, Dense, Flatten, MaxPool

#: which of the six maps below each map of the third layer sees: three in a row, four in a row, four in two pairs, all
#: (table I)
CONNECTIONS = (
    *(tuple(sorted((i + j) % 6 for j in range(3))) for i in range(6)),
    *(tuple(sorted((i + j) % 6 for j in range(4))) for i in range(6)),
    *(tuple(sorted((i + j) % 6 for j in (0, 1, 3, 4))) for i in range(3)),
    tuple(range(6)),
)


def lenet5(classes: int = 10, *, padding: Padding = "SAME") -> Serial:
    """LeCun's network for digits in its modern form: ReLU, max pooling, and every map sees all maps below.

    The third convolution covers the whole remaining 5 x 5 map and so acts as a dense layer, for 32 x 32 pixels and
    ``padding="VALID"``, or 28 x 28 and "SAME". With 10 classes the network has 61,706 parameters.

    Args:
        classes: number of outputs.
        padding: padding of the first convolution.

    Shapes:
        x (batch, 28, 28, channels) with "SAME", (batch, 32, 32, channels) with "VALID", to (batch, classes).

    Returns:
        The network.

    Source:
        LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998,
        section II.B and figure 2. There the second convolution is sparse, subsampling is trainable and
        activations are scaled tanh: :func:`lenet5_1998`.

    Example:
        >>> params = lenet5().init(jax.random.key(0), (28, 28, 1))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        61706
    """
    return serial(
        Conv(6, 5, padding=padding), jax.nn.relu, MaxPool(2),
        Conv(16, 5), jax.nn.relu, MaxPool(2),
        Conv(120, 5), jax.nn.relu, Flatten(),
        Dense(84), jax.nn.relu,
        Dense(classes),
    )  # fmt: skip


def lenet5_1998(classes: int = 10, *, output: str = "rbf") -> Serial:
    r"""LeNet-5 as it was published: 60,000 trainable parameters for ten digits.

    - Subsampling takes the mean of 2 x 2 values times a learned coefficient, and adds a learned bias, one pair for each
      map.
    - Each of the 16 maps of C3 sees three, four or six of the six maps below (:data:`CONNECTIONS`).
    - Activations are :math:`1.7159 \tanh(\tfrac{2}{3} a)`.
    - Each output is the squared distance of the 84 features from a fixed code of -1 and 1, so the smallest wins; here
      with a minus, so that the largest does. The codes are drawn at random, one of the choices that the paper gives; it
      uses drawings of the characters.

    Args:
        classes: number of outputs.
        output: "rbf", the distances, which have no parameters; or "dense", an ordinary last layer.

    Shapes:
        x (batch, 32, 32, 1) to (batch, classes).

    Returns:
        The network, whose parts have the paper's names.

    Raises:
        ValueError: another output.

    Source:
        LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998,
        section II.B, figure 2 and table I.

    Example:
        >>> params = lenet5_1998().init(jax.random.key(0), (32, 32, 1))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        60000
    """
    if output not in ("rbf", "dense"):
        raise ValueError(f'lenet5_1998: output {output!r} is unknown; use "rbf" or "dense"')
    maps = [serial(partial(chosen, channels=seen), Conv(1, 5, **_init(25 * len(seen)))) for seen in CONNECTIONS]
    last: Any = partial(distances, classes=classes) if output == "rbf" else Dense(classes, **_init(84))
    return serial(
        c1=Conv(6, 5, **_init(25)), squash1=scaled_tanh,
        s2=_subsampling(6), squash2=scaled_tanh,
        c3=branches(*maps), squash3=scaled_tanh,
        s4=_subsampling(16), squash4=scaled_tanh,
        c5=Conv(120, 5, **_init(400)), squash5=scaled_tanh, flatten=Flatten(),
        f6=Dense(84, **_init(120)), squash6=scaled_tanh,
        output=last,
    )  # fmt: skip


def _init(fan_in: int) -> dict[str, Any]:
    """Uniform between -2.4 and 2.4 over the number of inputs (appendix A)."""
    return {"kernel_init": partial(symmetric, bound=2.4 / fan_in)}


def symmetric(key: jax.Array, shape: tuple[int, ...], dtype: Any, *, bound: float) -> jax.Array:
    """Draw uniformly between -bound and bound."""
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _subsampling(maps: int) -> Serial:
    return serial(AvgPool(2), Conv(maps, 1, groups=maps, kernel_init="ones"))


def scaled_tanh(a: jax.Array) -> jax.Array:
    """1.7159 tanh(2 a / 3), which is 1 at 1 and -1 at -1 (equation 6).

    Example:
        >>> scaled_tanh(jnp.array([0.0, 1.0])).round(4).tolist()
        [0.0, 1.0]
    """
    return 1.7159 * jnp.tanh(2 / 3 * a)


def chosen(x: jax.Array, channels: tuple[int, ...]) -> jax.Array:
    """Some of the channels.

    Example:
        >>> chosen(jnp.array([[1.0, 2.0, 3.0]]), (0, 2)).tolist()
        [[1.0, 3.0]]
    """
    return x[..., np.array(channels)]


def distances(x: jax.Array, classes: int) -> jax.Array:
    r"""Minus the squared distances of x from the codes of the classes, :math:`-\sum_j (x_j - w_{ij})^2` (equation 7).

    The codes, of -1 and 1, are the same for the same number of features and classes.
    """
    codes = np.random.default_rng(1998).choice([-1.0, 1.0], (classes, x.shape[-1]))
    return -jnp.square(x[..., None, :] - codes.astype(x.dtype)).sum(-1)
