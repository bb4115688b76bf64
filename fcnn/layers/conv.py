"""Layers that apply kernels over a space: with shared weights (convolutions) or without (locally connected)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax

from .. import geometry, ops
from ..errors import format_shape
from ..facts import Locality, SlidingWindow, SpreadWindow, WholeSpace
from ..geometry import Padding, Shape
from ..initialization import draw_initial
from ..layer import Layer
from ..ops.conv import check_groups
from ..transposed import transposed
from ..types import Parameter, Params
from .hyperparameters import check_flag
from .initial import Fans, Initial, check, resolve


@dataclass(frozen=True, repr=False)
class _Sliding(Layer):
    """Base class of the layers in this file: their hyperparameters and the checks of them."""

    features: int
    kernel: int | tuple[int, ...]
    _: KW_ONLY
    stride: int | tuple[int, ...] = 1
    padding: Padding = "VALID"
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    bias: bool = True
    kernel_init: Initial = "he_normal"
    bias_init: Initial = "zeros"

    def check(self) -> dict[str, Any]:
        features, groups = geometry.integer(self.features, "features"), geometry.integer(self.groups, "groups")
        check_groups(groups, features, groups)
        return {
            "features": features,
            "groups": groups,
            "kernel": geometry.check_sizes(self.kernel, "kernel"),
            "stride": geometry.check_sizes(self.stride, "stride"),
            "dilation": geometry.check_sizes(self.dilation, "dilation"),
            "padding": geometry.check_padding(self.padding),
            "bias": check_flag(self.bias, "bias"),
            "kernel_init": check(self.kernel_init, "kernel_init"),
            "bias_init": check(self.bias_init, "bias_init"),
        }

    def infer_shape(self, *shapes: Shape) -> Shape:
        space, channels = self._split(shapes[0])
        return (*geometry.slide(space, self.kernel, channels=channels, **self._geometry()).out, self.features)

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        kernel, axes = self._kernel_shape(shapes[0]), (*["space"] * (len(shapes[0]) - 1), "in", "out")
        found = {"kernel": Parameter(kernel, self._kernel_initial(shapes[0]), axes)}
        if self.bias:
            found["bias"] = Parameter((self.features,), resolve(self.bias_init), ("out",))
        return found

    def locality(self, shape: Shape) -> Locality | None:
        return SlidingWindow(geometry.slide(shape[:-1], self.kernel, **self._geometry()))

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(self.infer_shape(shape)[:-1]) * math.prod(self._kernel_shape(shape))

    def slides(self, shapes: tuple[Shape, ...]) -> bool:
        return True

    def _geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def _split(self, shape: Shape) -> tuple[Shape, int]:
        space, channels = shape[:-1], shape[-1]
        if len(space) not in (1, 2, 3):
            raise ValueError(
                f"takes 1, 2 or 3 space dimensions, an input of {format_shape(shape)} has {len(space)}; "
                "shapes are (*space, channels), such as (28, 28, 1), without the batch"
            )
        check_groups(channels, self.features, self.groups)
        return space, channels

    def _kernel_shape(self, shape: Shape) -> Shape:
        space, channels = self._split(shape)
        sizes = geometry.per_axis(self.kernel, len(space), "kernel")
        return (*sizes, channels // self.groups, self.features)

    def _kernel_initial(self, shape: Shape, *, transposed: bool = False) -> Callable[..., jax.Array]:
        *sizes, depth, features = self._kernel_shape(shape)
        stride = geometry.per_axis(self.stride, len(sizes), "stride")
        fans = Fans.of_kernel(tuple(sizes), depth, features // self.groups, stride, transposed=transposed)
        return resolve(self.kernel_init, fans, self.groups)

    def check_given(self, params: Params, inputs: tuple[Any, ...]) -> None:
        x: list[int] = list(inputs[0].shape)
        kernel: list[int] = list(getattr(params.get("kernel"), "shape", ()))
        made_for = len(kernel) - 2
        if made_for < 1:
            return
        given = f"kernel has shape {format_shape(tuple(kernel))}, x has shape {format_shape(tuple(x))}"
        if made_for != len(x) - 2:
            batch = ""
            if made_for == len(x) - 1:  # x with its batch has as many axes as the shape given to init
                example = format_shape(tuple(x[1:]))
                batch = f"; was the batch in the shape given to init? then make new params by init(key, {example})"
            raise ValueError(
                f"{given}: the kernel is made for {made_for} space dimensions; x must be (batch, *space, channels), "
                f"and one example alone needs a batch axis, x[None]{batch}"
            )
        if kernel[-2] * self.groups != x[-1]:
            raise ValueError(
                f"{given}: the kernel takes {kernel[-2] * self.groups} channels; x must be channels last, "
                "(batch, *space, channels), and if it is, these params belong to another network: make new ones by init"
            )


@dataclass(frozen=True, repr=False)
class Conv(_Sliding):
    r"""Convolution: the same kernel at every position.

    .. math:: y_{n, i, o} = b_o + \sum_{j, c} x_{n,\, s i + d j - p,\, c} \; w_{j, c, o}

    The number of space dimensions, 1, 2 or 3, comes from the shape given to ``init``.

    Args:
        features: number of kernels, and so of feature maps in the output.
        kernel: size in samples; an integer applies to every axis.
        stride: step between windows, in samples.
        padding: the amount: "VALID" (none), "SAME", "SAME_LOWER" (the odd sample before), "CAUSAL" (all before), an
            integer, or one pair (before, after) for each axis. For copies instead of zeros, (mode, amount): the mode
            is "CIRCULAR" (from the other end), "REFLECT" (mirrored) or "EDGE" (the last sample repeated), such as
            ("REFLECT", 1). A mode alone, such as "CIRCULAR", adds half of the kernel at either end whatever the
            stride, as Flax does. PyTorch's ``padding=p`` is ``padding=p``, its ``padding_mode="replicate"`` is
            ``("EDGE", p)``; Keras's "same" is "SAME". :func:`fcnn.geometry.slide` documents the exact amounts.
        dilation: distance between neighbouring kernel samples.
        groups: features of group g depend on channels of group g only; ``groups=channels`` is depthwise.
        bias: whether a learned offset is added to each feature.
        kernel_init: "he_normal", any other name of ``jax.nn.initializers``, a name with arguments such as
            ("normal", 0.01), or a function (key, shape, dtype). If a named initialiser divides by a fan, fan_in is
            prod(kernel) channels / groups, and fan_out prod(kernel / stride) features / groups.
        bias_init: likewise.

    Shapes:
        x (batch, *space, channels) to (batch, *out, features);
        params["kernel"] (*kernel, channels // groups, features), params["bias"] (features,).

    Raises:
        ValueError: a kernel that does not fit, or groups that do not divide.

    Source:
        LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II;
        initial values: He et al., "Delving deep into rectifiers", 2015, equation 10.

    Example:
        >>> net = Conv(6, 5, padding="SAME")
        >>> net.out_shape((28, 28, 1))
        (28, 28, 6)
        >>> net.init(jax.random.key(0), (28, 28, 1))["kernel"].shape
        (5, 5, 1, 6)
    """

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.conv(inputs[0], params["kernel"], params.get("bias"), groups=self.groups, **self._geometry())


@dataclass(frozen=True, repr=False)
class ConvTranspose(_Sliding):
    r"""Transposed convolution: every input sample adds a scaled copy of the kernel to the output.

    .. math:: y_{n,\, s i + d j - p,\, o} \mathrel{+}= \sum_c x_{n, i, c} \; w_{j, c, o}

    Arguments that reproduce other libraries' results, for M samples, kernel P and stride s:

    - PyTorch ``padding=p, output_padding=q``: the same here. Output (M - 1) s - 2 p + d (P - 1) + q + 1.
      The ``output_size`` of its call is ``out``.
    - Keras "same": ``padding="SAME"``. Output s M.
    - Keras "valid": ``padding="VALID", output_padding=max(s - P, 0)``. Output s M + max(P - s, 0).

    :func:`fcnn.ops.conv_transpose` documents the layout of their kernels.

    Args:
        features: number of feature maps in the output.
        kernel: size in samples; an integer applies to every axis.
        stride: distance between neighbouring input samples in the output.
        padding: samples to crop from the full result: "VALID" none, "SAME" down to s M samples, the odd one after
            ("SAME_LOWER": before), an integer, or one pair (before, after) for each axis. "CIRCULAR", "REFLECT" and
            "EDGE", alone or with an amount as for ``Conv``, add the cropped samples to those that ``Conv`` would have
            copied.
        dilation: distance between neighbouring kernel samples.
        groups: features of group g depend on channels of group g only.
        bias: whether a learned offset is added to each feature.
        kernel_init: as for ``Conv``; fan_in is prod(kernel / stride) channels / groups, the number of terms in an
            output, and fan_out prod(kernel) features / groups.
        bias_init: as for ``Conv``.
        output_padding: samples added after, one number or one for each axis; less than the stride or the dilation.
        out: size of the output, one number or one for each axis. A strided convolution maps inputs of several sizes to
            the same output size; this chooses one of them, instead of output_padding. With "SAME" the result is cropped
            to it. None: the size that follows from the other arguments.

    Shapes:
        x (batch, *space, channels) to (batch, *out, features);
        params["kernel"] (*kernel, channels // groups, features), params["bias"] (features,).

    Raises:
        ValueError: a padding that has no transpose or crops everything, an output_padding that is too large, a size
            that cannot be reached, or groups that do not divide.

    Source:
        Zeiler et al., "Deconvolutional networks", 2010; Dumoulin and Visin, "A guide to convolution
        arithmetic", 2016, section 4.

    Example:
        >>> ConvTranspose(8, 4, stride=2, padding=1).out_shape((14, 14, 16))
        (28, 28, 8)
        >>> ConvTranspose(8, 3, stride=2, padding=1, out=(27, 28)).out_shape((14, 14, 16))
        (27, 28, 8)
    """

    _: KW_ONLY
    output_padding: int | tuple[int, ...] = 0
    out: int | tuple[int, ...] | None = None

    def check(self) -> dict[str, Any]:
        return {
            **super().check(),
            "output_padding": geometry.check_sizes(self.output_padding, "output_padding", 0),
            "out": None if self.out is None else geometry.check_sizes(self.out, "out"),
        }

    def _geometry(self) -> dict[str, Any]:
        return {**super()._geometry(), "output_padding": self.output_padding, "out": self.out}

    def _kernel_initial(self, shape: Shape, *, transposed: bool = True) -> Callable[..., jax.Array]:
        return super()._kernel_initial(shape, transposed=transposed)

    def infer_shape(self, *shapes: Shape) -> Shape:
        space, _ = self._split(shapes[0])
        return (*transposed(space, self.kernel, **self._geometry())[0], self.features)

    def locality(self, shape: Shape) -> Locality:
        rank, mode = len(shape) - 1, geometry.split(self.padding)[0]
        if mode is not None:
            return WholeSpace(
                f'with padding "{mode}" adds samples past the ends to samples within', 'use padding="SAME"'
            )
        crops = transposed(shape[:-1], self.kernel, **self._geometry())[1]
        kernel, stride, dilation = (geometry.per_axis(n, rank, "") for n in (self.kernel, self.stride, self.dilation))
        return SpreadWindow(kernel, stride, dilation, tuple(crops))

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(shape[:-1]) * math.prod(self._kernel_shape(shape))

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.conv_transpose(
            inputs[0], params["kernel"], params.get("bias"), groups=self.groups, **self._geometry()
        )


@dataclass(frozen=True, repr=False)
class LocallyConnected(_Sliding):
    r"""A convolution without weight sharing: every position has its own kernel.

    .. math:: y_{n, i, o} = b_{i, o} + \sum_{j, c} x_{n,\, s i + d j - p,\, c} \; w_{i, j, c, o}

    Args:
        features: number of feature maps in the output.
        kernel: size in samples; an integer applies to every axis.
        stride: as for ``Conv``.
        padding: as for ``Conv``.
        dilation: as for ``Conv``.
        groups: as for ``Conv``.
        bias: whether a learned offset is added to each feature at each position.
        kernel_init: as for ``Conv``; drawn separately for each position.
        bias_init: as for ``Conv``.

    Shapes:
        x (batch, *space, channels) to (batch, *out, features);
        params["kernel"] (*out, *kernel, channels // groups, features), params["bias"] (*out, features).

    Raises:
        ValueError: a kernel that does not fit, or groups that do not divide.

    Source:
        LeCun, "Generalization and network design strategies", 1989, Net-3.

    Example:
        >>> params = LocallyConnected(1, 2, bias=False).init(jax.random.key(0), (3, 3, 1))
        >>> params["kernel"].size    # four positions, four weights each
        16
    """

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        out, kernel = self.infer_shape(*shapes), self._kernel_shape(shapes[0])
        draw = _everywhere(self._kernel_initial(shapes[0]), len(out) - 1)
        places, samples = ["place"] * (len(out) - 1), ["space"] * (len(kernel) - 2)
        found = {"kernel": Parameter((*out[:-1], *kernel), draw, (*places, *samples, "in", "out"))}
        if self.bias:
            found["bias"] = Parameter(out, resolve(self.bias_init), (*places, "out"))
        return found

    def locality(self, shape: Shape) -> Locality:
        return WholeSpace("has a kernel of its own for every position", "use Conv, which shares one")

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(self.parameters(shape)["kernel"].shape)

    def check_given(self, params: Params, inputs: tuple[Any, ...]) -> None:
        """No check here: the kernel's shape depends on the whole input, so the comparison of shapes explains more."""

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.locally_connected(
            inputs[0], params["kernel"], params.get("bias"), groups=self.groups, **self._geometry()
        )


def _everywhere(init: Callable[..., jax.Array], axes: int) -> Callable[..., jax.Array]:
    """Draw separately for each position, so that the scale uses one position's fan-in."""

    def draw(key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
        keys = jax.random.split(key, math.prod(shape[:axes]))
        each = Parameter(shape[axes:], init)
        values = jax.vmap(lambda k: draw_initial("kernel", each, k, dtype))(keys)
        return values.reshape(shape)

    return draw
