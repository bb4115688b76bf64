"""Augmentations that mix two examples and their targets."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...errors import format_shape, layer_path
from ...geometry import integer
from ...native import native
from .augmentation import Augmentation, Batch, check_input, pack, real, unpack, wide
from .erasing import box


@dataclass(frozen=True)
class _Mixing(Augmentation):
    """The base of mixing augmentations: a partner for each example, and targets as class probabilities.

    The partner is the previous example in the batch, and the last one for the first. Batches are drawn at random, so
    a neighbour is a random example.
    """

    alpha: float
    _: KW_ONLY
    classes: int | None = None
    mixes: ClassVar[bool] = True

    def check(self) -> dict[str, Any]:
        alpha = real(self.alpha, "alpha", 0)
        if alpha == 0:
            raise ValueError("alpha is 0, it must be above 0: shares are drawn from Beta(alpha, alpha)")
        return {"alpha": alpha, "classes": None if self.classes is None else integer(self.classes, "classes", 2)}

    def __call__(self, key: jax.Array, batch: Batch) -> Batch:
        with layer_path(type(self).__name__):
            inputs, targets, alone = unpack(batch)
            x = check_input(inputs[0], floating=True, rank=self.least_rank())
            targets = soft(targets, self.classes, x)
        x, share = self.mix(key, x)
        other = 1 - share
        rows = (-1, *(1,) * (targets.ndim - 1))
        dtype = targets.dtype
        targets = share.astype(dtype).reshape(rows) * targets + other.astype(dtype).reshape(rows) * partner(targets)
        return pack((x, *inputs[1:]), targets, alone)

    def least_rank(self) -> int:
        """The least number of space axes of x."""
        return 0

    def mix(self, key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mixed inputs, and each example's share (batch,) in its mixture, float32."""
        raise NotImplementedError


@dataclass(frozen=True)
class Mixup(_Mixing):
    r"""Replace each example by a weighted mean with another, and the targets likewise.

    .. math::
        x'_i = \lambda_i x_i + (1 - \lambda_i) x_j, \quad y'_i = \lambda_i y_i + (1 - \lambda_i) y_j,
        \quad \lambda_i \sim \text{Beta}(\alpha, \alpha)

    with j the example before i in the batch. Labels become class probabilities, for a cross-entropy with soft targets.

    Args:
        alpha: above 0; small values mix little, 1 draws shares uniformly.
        classes: number of classes, needed if the targets are labels.

    Shapes:
        x (batch, *space, channels), shape unchanged; labels (batch,) to (batch, classes); floating-point targets keep
        their shape.

    Raises:
        ValueError: alpha not above 0, or labels without ``classes``.
        TypeError: x is not floating point.

    Source:
        Zhang et al., "mixup: beyond empirical risk minimization", 2018, equation in section 1.

    Example:
        >>> batch = ((jnp.ones((8, 28, 28, 1)),), jnp.arange(8))
        >>> _, y = Mixup(0.2, classes=10)(jax.random.key(0), batch)
        >>> y.shape, bool(jnp.allclose(y.sum(1), 1))
        ((8, 10), True)
    """

    def mix(self, key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        share = self.draw(key, len(x))
        dtype = wide(x.dtype)
        own = share.astype(dtype).reshape(-1, *(1,) * (x.ndim - 1))
        return (own * x.astype(dtype) + (1 - own) * partner(x).astype(dtype)).astype(x.dtype), share

    def draw(self, key: jax.Array, batch: int) -> jax.Array:
        """Draw each example's share in its mixture, (batch,) float32."""
        return jax.random.beta(key, self.alpha, self.alpha, (batch,), jnp.float32)


@dataclass(frozen=True)
class CutMix(_Mixing):
    r"""Paste a box of another example into each, and mix their targets in proportion to the samples.

    .. math:: x'_i = M_i \odot x_i + (1 - M_i) \odot x_j, \quad y'_i = \bar{M}_i y_i + (1 - \bar{M}_i) y_j

    with j the example before i in the batch. The box has sides :math:`\lfloor W_d (1 - \lambda)^{1/rank} \rfloor`,
    :math:`\lambda \sim \text{Beta}(\alpha, \alpha)`. Its centre is any sample, with equal probability, and the part
    outside the image is cut off.

    Args:
        alpha: above 0; 1, as in the paper, draws areas uniformly.
        classes: number of classes, needed if the targets are labels.

    Shapes:
        x (batch, *space, channels), shape unchanged; labels (batch,) to (batch, classes); floating-point targets keep
        their shape.

    Raises:
        ValueError: alpha not above 0, or labels without ``classes``.
        TypeError: x is not floating point.

    Source:
        Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", 2019,
        equations 1 and 2.

    Example:
        >>> batch = ((jnp.ones((8, 28, 28, 1)),), jnp.arange(8))
        >>> _, y = CutMix(1.0, classes=10)(jax.random.key(0), batch)
        >>> y.shape, bool(jnp.allclose(y.sum(1), 1))
        ((8, 10), True)
    """

    def least_rank(self) -> int:
        return 1

    def mix(self, key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        space = x.shape[1:-1]
        start, stop = self.draw(key, len(x), space)
        inside = jax.vmap(lambda lo, hi: box(space, lo, hi))(start, stop)
        share = 1 - inside.reshape(len(x), -1).mean(1, dtype=jnp.float32)
        return jnp.where(inside[..., None], partner(x), x), share

    def draw(self, key: jax.Array, batch: int, space: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Draw start and stop of each box, (batch, rank) int32; they may lie outside."""
        area_key, place_key = jax.random.split(key)
        kept = jax.random.beta(area_key, self.alpha, self.alpha, (batch, 1), jnp.float32)
        sizes = jnp.asarray(space, jnp.int32)
        sides = ((1 - kept) ** (1 / len(space)) * sizes.astype(jnp.float32)).astype(jnp.int32)
        middle = jax.random.randint(place_key, (batch, len(space)), 0, sizes, jnp.int32)
        start = middle - sides // 2
        return start, start + sides


def partner(array: jax.Array) -> jax.Array:
    """For each example, the previous one in the batch."""
    return jnp.roll(array, 1, axis=0)


def soft(targets: Any, classes: int | None, x: jax.Array) -> jax.Array:
    """Targets that can be mixed: labels as class probabilities, floating-point targets unchanged."""
    if not hasattr(targets, "dtype"):
        raise TypeError(f"targets must be one array, labels (batch,) or shares (batch, classes), not {targets!r}")
    targets = jnp.asarray(native(targets, "targets"))
    if targets.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"targets have shape {format_shape(targets.shape)}, expected one for each of the {len(x)} examples of x"
        )
    if jnp.issubdtype(targets.dtype, jnp.floating):
        if classes is not None and targets.shape[1:] != (classes,):
            raise ValueError(
                f"targets of floating point have shape {format_shape(targets.shape)}, expected "
                f"{format_shape((len(x), classes))} for these classes; leave classes out where targets are no shares "
                "of classes"
            )
        return targets
    if targets.ndim != 1:
        raise ValueError(f"labels have shape {format_shape(targets.shape)}, expected (batch,)")
    if classes is None:
        raise ValueError(
            "mixed labels are shares of the classes, and how many there are does not show in a batch; "
            "give classes=10 for ten"
        )
    return jax.nn.one_hot(targets, classes, dtype=wide(x.dtype))
