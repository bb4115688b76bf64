"""Convolution and transposed convolution of plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from .. import geometry
from ..errors import format_shape, layer_path
from ..geometry import Padding
from ..transposed import folded, transposed
from . import convolution
from .convolution import Geometry
from .dtypes import plus, together
from .windows import pad, unpad

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


def conv(
    x: Float[Array, "batch *space channels"],
    kernel: Float[Array, "*kernel group_channels features"],
    bias: Float[Array, " features"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> Float[Array, "batch *out features"]:
    r"""Convolve x with a kernel that all positions share.

    .. math:: y_{n, i, o} = b_o + \sum_{j, c} x_{n,\, s i + d j - p,\, c} \; w_{j, c, o}

    for output position i, kernel sample j, stride s, dilation d and padding p before. As in all neural-network
    libraries this is cross-correlation: the kernel is not flipped.

    Args:
        x: input, in 1, 2 or 3 space dimensions.
        kernel: the shared weights.
        bias: added to every position.
        stride: step between windows, in samples; an integer applies to every axis.
        padding: the amount: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an integer, or one pair for each axis. For copies
            instead of zeros: a mode, "CIRCULAR", "REFLECT" or "EDGE", alone or with an amount, such as ("EDGE", 1).
            :func:`fcnn.geometry.slide` documents the values.
        dilation: distance between neighbouring kernel samples.
        groups: features of group g depend on channels of group g only; ``groups=channels`` is depthwise.
        algorithm: "direct", "patches", "depthwise", "blocks", "winograd" or "fourier"; None: chosen by platform, shapes
            and dtype.

    Shapes:
        x (batch, *space, channels), kernel (*kernel, channels // groups, features), bias (features,).

    Returns:
        (batch, *out, features), with ``out`` from :func:`fcnn.geometry.slide`, in the common dtype of the arguments.

    Raises:
        ValueError: ranks, channels or groups that do not match, or a kernel that does not fit.

    Source:
        LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II;
        Dumoulin and Visin 2016 for the sizes.

    Example:
        >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
        >>> conv(x, jnp.array([0.3, 0.5]).reshape(2, 1, 1)).ravel().round(4).tolist()
        [1.2999999523162842, 2.0999999046325684]
    """
    with layer_path("conv"):
        x, kernel, bias = together(x, kernel, bias)
        rank = _check(x, kernel, bias, groups)
        windows = geometry.slide(x.shape[1:-1], kernel.shape[:rank], stride=stride, padding=padding, dilation=dilation)
        x, placed = _placed(x, windows, groups)
        check_algorithm(algorithm, x, kernel, placed)
    y = convolution.convolve(x, kernel, placed, algorithm)
    return plus(y, bias)


def conv_polyphase(
    x: Array, kernel: Array, bias: Array | None, phases: geometry.Shape, **options: Any
) -> Float[Array, "features phases *out batch"]:
    """:func:`conv` in the polyphase layout, for a following pooling over windows of size ``phases``.

    The result has a separate axis of phases: for every feature, first the first position of every window, then the
    second position of every window, and so on. Positions that fill no window are dropped. Pooling then reduces along
    one axis, without gathering (:func:`fcnn.ops.pool.max_of_polyphase`). The axes are in their order in memory.

    Shapes:
        x (batch, *space, channels) to (features, phases, *out, batch).

    Example:
        >>> x = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]).reshape(1, 5, 1)
        >>> conv_polyphase(x, jnp.ones((1, 1, 1)), None, (2,))[0, :, :, 0].tolist()
        [[1.0, 3.0], [2.0, 4.0]]
    """
    groups = options.pop("groups", 1)
    with layer_path("conv"):
        x, kernel, bias = together(x, kernel, bias)
        rank = _check(x, kernel, bias, groups)
        windows = geometry.slide(x.shape[1:-1], kernel.shape[:rank], **options)
        x, placed = _placed(x, windows, groups)
    y = convolution.convolve(x, kernel, to_polyphase(placed, windows.out, phases))
    return plus(y, None if bias is None else bias.reshape(-1, *[1] * (rank + 2)))


def conv_hwnc(x: Array, kernel: Array, bias: Array | None, **options: Any) -> Float[Array, "*out batch features"]:
    """:func:`conv` of x (*space, batch, channels), for several convolutions in a row that all use this layout.

    Example:
        >>> conv_hwnc(jnp.ones((4, 4, 2, 1)), jnp.ones((3, 3, 1, 5)), None).shape
        (2, 2, 2, 5)
    """
    groups = options.pop("groups", 1)
    with layer_path("conv"):
        x, kernel, bias = together(x, kernel, bias)
        windows = geometry.slide(x.shape[:-2], kernel.shape[:-2], **options)
        ones = (1,) * windows.rank
        placed = Geometry(windows.stride, windows.pads, windows.dilation, groups, ones, ones, hwnc=True)
    y = convolution.convolve(x, kernel, placed)
    return plus(y, bias)


def polyphase_problem(x: geometry.Shape, kernel: geometry.Shape, dtype: str, phases: geometry.Shape, **options: Any):
    """The problem that :func:`conv_polyphase` solves for x (batch, *space, channels), for ``refusal`` and ``choose``.

    With phases of 1 it is the problem of :func:`conv`.
    """
    groups = options.pop("groups", 1)
    windows = geometry.slide(x[1:-1], kernel[:-2], **options)
    ones = (1,) * windows.rank
    pads = windows.pads if windows.fill == "constant" else ((0, 0),) * windows.rank
    space = [n + lo + hi for n, (lo, hi) in zip(x[1:-1], windows.pads, strict=True)]
    space = x[1:-1] if windows.fill == "constant" else tuple(space)
    placed = Geometry(windows.stride, pads, windows.dilation, groups, ones, ones)
    placed = to_polyphase(placed, windows.out, phases)
    backend = jax.default_backend()
    onednn = convolution.usable(backend)
    return convolution.Problem("forward", (x[0], *space, x[-1]), kernel, placed, dtype, backend, onednn=onednn)


def to_polyphase(placed: Geometry, out: geometry.Shape, phases: geometry.Shape) -> Geometry:
    """The geometry in the polyphase layout, without the positions that fill no window."""
    axes = zip(placed.pads, out, phases, placed.stride, strict=True)
    pads = tuple((lo, hi - n % b * s) for (lo, hi), n, b, s in axes)
    return replace(placed, pads=pads, phases=phases)


def _placed(x: Array, windows: geometry.Windows, groups: int) -> tuple[Array, Geometry]:
    """X and its geometry; padding that copies samples is applied to x."""
    ones, pads = (1,) * windows.rank, windows.pads
    if windows.fill != "constant":
        x, pads = pad(x, windows), ((0, 0),) * windows.rank
    return x, Geometry(windows.stride, pads, windows.dilation, groups, ones, ones)


def conv_transpose(
    x: Float[Array, "batch *space channels"],
    kernel: Float[Array, "*kernel group_channels features"],
    bias: Float[Array, " features"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    output_padding: int | Sequence[int] = 0,
    out: int | Sequence[int] | None = None,
    algorithm: str | None = None,
) -> Float[Array, "batch *out features"]:
    r"""Transposed convolution: every input sample adds a scaled copy of the kernel to the output.

    .. math:: y_{n,\, s i + d j - p,\, o} \mathrel{+}= \sum_c x_{n, i, c} \; w_{j, c, o}

    It is the gradient of :func:`conv` with respect to its input (with channels and features swapped in the
    kernel), hence the name.

    Arguments that reproduce other libraries' results, for an input of M samples, kernel P and stride s:

    - PyTorch ``ConvTranspose(padding=p, output_padding=q)``: ``padding=p, output_padding=q``.
      Output (M - 1) s - 2 p + d (P - 1) + q + 1. PyTorch's weight (in, out // groups, *kernel) must be
      transposed to (*kernel, in, out); with groups g, reshape it to (g, in // g, out // g, *kernel) and
      transpose it to (*kernel, in // g, g, out // g) first.
    - Keras ``padding="same"``: ``padding="SAME"``. Output s M.
    - Keras ``padding="valid"``: ``padding="VALID"``, with ``output_padding=max(s - P, 0)``.
      Output s M + max(P - s, 0). Keras's kernel (*kernel, out, in) needs its last two axes swapped.

    Args:
        x: input, in 1, 2 or 3 space dimensions.
        kernel: the shared weights.
        bias: added to every position.
        stride: distance between neighbouring input samples in the output.
        padding: samples to crop from the full result: "VALID" none, "SAME" down to s M samples, the odd one after
            ("SAME_LOWER": before), or integers. With a mode, "CIRCULAR", "REFLECT" or "EDGE", alone or with an amount,
            the cropped samples are added where :func:`conv` with this padding would have copied them from, so that the
            two stay transposes of each other; "CIRCULAR" is that of Flax's ConvTranspose with
            ``transpose_kernel=True``.
        dilation: distance between neighbouring kernel samples.
        groups: features of group g depend on channels of group g only.
        output_padding: samples added after; less than the stride or the dilation.
        out: the output size, instead of output_padding; "SAME" crops to it.
        algorithm: as for :func:`conv`.

    Shapes:
        x (batch, *space, channels), kernel (*kernel, channels // groups, features), bias (features,).

    Returns:
        (batch, *out, features) in the common dtype of the arguments.

    Raises:
        ValueError: ranks, channels or groups that do not match, a padding without a transpose, an output_padding
            that is too large, or a size that cannot be reached.

    Source:
        Zeiler et al., "Deconvolutional networks", 2010; Dumoulin and Visin 2016, section 4.

    Example:
        >>> x = jnp.array([1.0, 2.0]).reshape(1, 2, 1)
        >>> conv_transpose(x, jnp.array([1.0, 10.0, 100.0]).reshape(3, 1, 1), stride=2).ravel().tolist()
        [1.0, 10.0, 102.0, 20.0, 200.0]
    """
    with layer_path("conv_transpose"):
        x, kernel, bias = together(x, kernel, bias)
        rank = _check(x, kernel, bias, groups)
        _, crops = transposed(
            x.shape[1:-1],
            kernel.shape[:rank],
            stride=stride,
            padding=padding,
            dilation=dilation,
            output_padding=output_padding,
            out=out,
        )
        strides = geometry.per_axis(stride, rank, "stride")
        dilations = geometry.per_axis(dilation, rank, "dilation")
    crops, folds = folded(crops, padding)
    spans = [geometry.extent(k, d) for k, d in zip(kernel.shape[:rank], dilations, strict=True)]
    pads = tuple((p - 1 - lo, p - 1 - hi) for p, (lo, hi) in zip(spans, crops, strict=True))
    turned = jnp.flip(kernel, tuple(range(rank)))
    ones = (1,) * rank
    placed = Geometry(ones, pads, dilations, groups, strides, ones)
    with layer_path("conv_transpose"):
        check_algorithm(algorithm, x, turned, placed)
    y = convolution.convolve(x, turned, placed, algorithm)
    return plus(unpad(y, *folds), bias)


def check_algorithm(algorithm: str | None, x: Array, kernel: Array, placed: Geometry) -> None:
    """Raise where the requested algorithm cannot compute a convolution."""
    if algorithm is None:
        return
    backend = jax.default_backend()
    onednn = convolution.usable(backend)
    problem = convolution.Problem("forward", x.shape, kernel.shape, placed, x.dtype.name, backend, onednn=onednn)
    reason = convolution.refusal(algorithm, problem)
    if reason is not None:
        raise ValueError(f"{reason}; leave algorithm=None for the usual choice")


def check_groups(channels: int, features: int, groups: int) -> None:
    """Raise unless groups divide channels and features."""
    for count, name in ((channels, "input channels"), (features, "features")):
        if count % groups:
            raise ValueError(
                f"groups {groups} do not divide {count} {name}; "
                "choose a number of groups that divides the input channels and the features"
            )


def _check(x: Array, kernel: Array, bias: Array | None, groups: int) -> int:
    rank = kernel.ndim - 2
    if rank not in (1, 2, 3):
        raise ValueError(
            f"kernel has shape {format_shape(kernel.shape)}; it must be (*kernel, channels // groups, features) "
            "with 1, 2 or 3 space dimensions"
        )
    if x.ndim != rank + 2:
        raise ValueError(
            f"x has shape {format_shape(x.shape)}, a kernel of {format_shape(kernel.shape)} asks for (batch, *space, "
            f"channels) with {rank} space dimensions; one example alone needs a batch axis, x[None]"
        )
    channels, features = x.shape[-1], kernel.shape[-1]
    groups = geometry.integer(groups, "groups")
    check_groups(channels, features, groups)
    if kernel.shape[-2] != channels // groups:
        raise ValueError(
            f"kernel {format_shape(kernel.shape)} takes {kernel.shape[-2] * groups} channels in {groups} groups, "
            f"x has {channels}: the layout is channels last, (batch, *space, channels)"
        )
    if bias is not None and bias.shape != (features,):
        raise ValueError(
            f"bias has shape {format_shape(bias.shape)}, {features} features ask for {format_shape((features,))}"
        )
    return rank
