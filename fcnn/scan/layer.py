"""One network at every position of a larger input."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import geometry
from ..checks import checked_shapes
from ..compose.cutting import inside
from ..compose.parts import lift
from ..errors import format_shape, outermost_path
from ..geometry import Shape, is_shape
from ..layer import Context, Layer
from ..layers.conv import Conv
from ..layers.hyperparameters import check_flag
from ..layers.norm import BatchNorm
from ..layers.pool import MaxPool
from ..ops.convolution.choice import FOURIER_KERNEL
from ..ops.dtypes import wide
from ..symbolic_sizes import assumed, symbolic
from ..tracing.work import multiply_adds
from ..types import Params, State
from .activation_layout import FLAT, POINT, ActivationLayout, RewriteOptions, Rewritten
from .chunked import layers, run_chunked
from .compositions import inlined
from .fields import Between, cropped, gathered, whole_field
from .report import ScanReport
from .rewrite import rewrite
from .rules import RULES
from .sample_grid import SampleGrid

METHODS = ("layers", "patches")
#: samples of the windows that are computed at once
_CHUNK = 2**21
#: from this number of positions on, chunks of fragments are faster on CPUs than dilation
_MANY = 200_000


@dataclass(frozen=True, repr=False)
class Scan(Layer):
    r"""One network at every position: its output for each window of a larger input.

    .. math:: y_{n, p} = f(x_{n,\, s p} \dots x_{n,\, s p + w - 1})

    for position p, scan stride s and window w. There is one set of parameters, the network's: all positions share it,
    and its gradient is the sum over the positions. Two methods compute the same values:

    - ``method="patches"``, the definition: every window is cut out and computed separately, several at once.
    - ``method="layers"``: work that neighbouring windows share is done once. Convolutions and poolings run over the
      whole input; a dense layer after ``Flatten`` becomes a convolution with the window as kernel; later dense layers
      are unchanged (1x1 convolutions). A stride inside the window would skip positions, so the layers after it run on
      interleaved fragments, or with dilation, and the result is exact at every position.

    The network may contain convolutions and poolings without padding, dense layers, pointwise functions, dropout,
    layers that work along the channels (``BatchNorm``, ``LayerNorm``, ``LocalResponseNorm``, ``PReLU``,
    ``ScaleChannels``, ``ChannelShuffle``), ``serial``, ``residual``, ``branches``, ``repeat``. Where positions cannot
    share work exactly (padding inside the window, statistics over the window, kernels that differ between positions),
    the error names the layer and the reason, and ``method="patches"`` still works.

    In training, ``BatchNorm`` computes its statistics over all windows as one batch, with either method: a value counts
    once for every window that holds it. At inference this applies to a ``BatchNorm`` without running statistics.
    ``Dropout`` draws separately for every window with "patches". With "layers" it draws once for every value, and
    overlapping windows share the draw: each value is dropped with the same probability, but not independently in
    neighbouring windows. ``StochasticDepth`` behaves likewise.

    Args:
        net: the network (or function) for one window (*window, channels).
        window: samples along each axis; an integer applies to every axis.
        stride: samples between neighbouring windows.
        method: "layers" or "patches".
        fragments: for "layers", whether strides inside the window produce fragments (True) or dilate the layers that
            follow (False). None: dilation, except on CPUs, where fragments are used for many positions and where a
            large kernel would be dilated, which has no fast algorithm; always dilation where batch statistics are
            taken.
        chunk: for "patches", windows computed at once; None: as many as have two million samples together.

    Shapes:
        x (batch, *space, channels) to (batch, *positions, *out), where ``out`` is the network's output shape for one
        window, and positions = (space - window) // stride + 1. The params, state and initial values are the network's
        own.

    Raises:
        ValueError: if the window is larger than the input, the stride is below 1, the channels do not match the params,
            or, with "layers", positions cannot share the network's work.
        TypeError: if ``net`` is neither a layer nor a function.

    Source:
        Waibel et al., "Phoneme recognition using time-delay neural networks", 1989, for scanning;
        Giusti et al., "Fast image scanning with deep max-pooling convolutional neural networks", 2013, for fragments;
        Li, Zhao and Wang 2014 for dilation; Sermanet et al., "OverFeat", 2014, for dense layers as convolutions.

    Example:
        >>> import fcnn
        >>> mlp = fcnn.serial(fcnn.Flatten(), fcnn.Dense(8), jax.nn.relu, fcnn.Dense(4))
        >>> net = Scan(mlp, 8, stride=4)
        >>> params = net.init(jax.random.key(0), (128, 24))          # 128 time steps of 24 features
        >>> params["dense1"]["kernel"].shape, net.out_shape((128, 24))
        ((192, 8), (31, 4))
    """

    net: Layer
    window: int | tuple[int, ...]
    _: KW_ONLY
    stride: int | tuple[int, ...] = 1
    method: str = "layers"
    fragments: bool | None = None
    chunk: int | None = None

    def check(self) -> dict[str, Any]:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is unknown; use one of {', '.join(map(repr, METHODS))}")
        if self.fragments is not None:
            check_flag(self.fragments, "fragments")
        return {
            "net": lift(self.net),
            "window": geometry.check_sizes(self.window, "window"),
            "stride": geometry.check_sizes(self.stride, "stride"),
            "chunk": None if self.chunk is None else geometry.integer(self.chunk, "chunk"),
        }

    def __getitem__(self, place: Any) -> Any:
        """A part of the network for one window; its params are its own entry, as in the network."""
        if isinstance(place, slice):
            raise TypeError("scan cannot be cut by a slice; cut its network, scan.net[...], and scan that")
        return inside(self.net, place)

    def infer_shape(self, *shapes: Shape) -> Any:
        grid, window = self.placed(shapes[0])
        out = self.net.infer_shape(*self.net.accept_shapes((window,)))
        if self.method == "layers":
            self.rewritten(shapes[0])
        return jax.tree.map(lambda shape: (*grid.positions, *shape), out, is_leaf=is_shape)

    def multiply_adds(self, shape: Shape) -> int:
        if self.method == "layers":
            return multiply_adds(self.rewritten(shape).net, shape)
        grid, window = self.placed(shape)
        return prod(grid.positions) * multiply_adds(self.net, window)

    def init_part(self, key: jax.Array, shapes: tuple[Shape, ...]) -> Params:
        self.infer_shape(*shapes)
        return self.net.init_part(key, (self.placed(shapes[0])[1],))

    def state_part(self, shapes: tuple[Shape, ...]) -> State:
        self.infer_shape(*shapes)
        return self.net.state_part((self.placed(shapes[0])[1],))

    def run(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        (shape,) = checked_shapes(inputs, self.inputs, self.floating)
        self.infer_shape(shape)
        _, window = self.placed(shape)
        # check one window, shapes only: wrong params or state raise the network's own error messages
        one = jax.ShapeDtypeStruct((1, *window), inputs[0].dtype)
        try:
            jax.eval_shape(lambda x: self.net.run(Context(train=False, plan=False), params, state, (x,))[0], one)
        except (ValueError, TypeError) as error:
            error.add_note(
                f"x of shape {format_shape(one.shape)} is one window of the input, {format_shape(inputs[0].shape)}"
            )
            raise
        if context.record is not None:
            positions = self.placed(shape)[0].positions
            own = self if type(self).run is Scan.run else self._plain()
            return context.record.scan(own, self.net, context, params, state, inputs[0], window, positions)
        context = replace(context, plan=None)  # the plan is for the original network, not the rewritten one
        compute = self._by_patches if self.method == "patches" else self._by_layers
        if context.observer is None or context.constant:
            return compute(context, params, state, inputs[0])
        # For the observer all positions are computed at once, which may round differently. Unless the observer replaced
        # something, the result is therefore computed again without it.
        seen = replace(context, observer=_watched(context.observer, replaced := []))
        y, new_state = compute(seen, params, state, inputs[0])
        return (y, new_state) if replaced else compute(replace(context, observer=None), params, state, inputs[0])

    def _plain(self) -> Scan:
        """The plain scan that a subclass with its own ``run`` calls."""
        options = {name: getattr(self, name) for name in ("stride", "method", "fragments", "chunk")}
        return Scan(self.net, self.window, **options)

    def rewritten(self, shape: Shape, *, fragments: bool = False, train: bool = False) -> Rewritten:
        """The network that computes all positions of an input (*space, channels)."""
        grid, window = self.placed(shape)
        made = rewrite(self.net, window, grid, grid.count, RewriteOptions(fragments, train=train))
        if grid.pitch == (1,) * grid.rank:
            return made
        # drop the samples that no window holds: max pooling with window 1
        return replace(made, net=Between(made.net, MaxPool(1, stride=grid.pitch), None))

    def report(self, shape: Shape) -> ScanReport:
        """Count the work of both methods.

        Args:
            shape: shape of one example, (*space, channels).

        Returns:
            Positions, fragments, multiply-adds by patches and by layers, and their ratio; prints as a table.

        Raises:
            ValueError: as for ``out_shape``.

        Example:
            >>> import fcnn
            >>> net = fcnn.serial(fcnn.Conv(4, 3), jax.nn.relu, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(2))
            >>> report = Scan(net, 8).report((64, 64, 1))
            >>> report.positions, report.fragments, round(report.ratio, 1)
            ((57, 57), (2, 2), 11.9)
        """
        with outermost_path(self.label):
            (shape,) = self.check_shapes((shape,))
            grid, window = self.placed(shape)
            self.net.infer_shape(*self.net.accept_shapes((window,)))
            shared = replace(self, method="layers").rewritten(shape)
            fragments = replace(self, method="layers").rewritten(shape, fragments=True).layout.grid.fragments
        return ScanReport(
            positions=grid.positions,
            fragments=fragments,
            by_patches=multiply_adds(self.net, window) * prod(grid.positions),
            by_layers=multiply_adds(shared.net, (*grid.extent, shape[-1])),
        )

    def placed(self, shape: Shape) -> tuple[SampleGrid, Shape]:
        """The grid of the windows, and the shape of one window."""
        space, channels = shape[:-1], shape[-1]
        if len(space) not in (1, 2, 3):
            raise ValueError(
                f"takes 1, 2 or 3 space dimensions, an input of {format_shape(shape)} has {len(space)}; "
                "shapes are (*space, channels), such as (512, 512, 3), without the batch"
            )
        sizes = geometry.per_axis(self.window, len(space), "window")
        if any(map(symbolic, space)):
            raise ValueError(
                f"the space of an input of {format_shape(shape)} is symbolic, but where the windows of a Scan lie "
                "follows from its size; make only the batch symbolic, or export the network that "
                "fcnn.fully_convolutional returns"
            )
        if any(w > n for w, n in zip(sizes, space, strict=True)):
            raise ValueError(
                f"a window of {format_shape(sizes)} does not fit an input of {format_shape(shape)}; give a larger "
                "input, or a smaller window and a network for it"
            )
        windows = geometry.slide(space, self.window, stride=self.stride, what="window", channels=channels)
        # windows of one sample see nothing in between
        step = tuple(s if w == 1 else 1 for w, s in zip(windows.kernel, windows.stride, strict=True))
        return SampleGrid(windows.out, windows.stride, windows.kernel, step), (*windows.kernel, channels)

    def _by_layers(self, context: Context, params: Params, state: State, x: jax.Array) -> tuple[Any, State]:
        shape = tuple(x.shape[1:])
        grid, _ = self.placed(shape)
        fragments = self.fragments
        # fragments may be padded beyond what the windows hold, which would distort the statistics
        plain = context.observer is not None or self._joins_windows(context, state)
        on_cpu, large = jax.default_backend() == "cpu", self._large_kernels(shape)
        if plain or fragments is None:
            many = not context.train and assumed(x.shape[0]) * prod(grid.positions) >= _MANY
            fragments = not plain and on_cpu and (large or many)
        made = self.rewritten(shape, fragments=fragments, train=context.train)
        params, x = made.convert(params), cropped(x, grid.extent)
        # large kernels are more efficient on many examples at once
        if fragments and on_cpu and not (context.train or large) and jax.device_count() == 1:
            y = run_chunked(made.net, context, params, state, x)
        else:
            y, state = made.net.run(context, params, state, (x,))
        return jax.tree.map(lambda leaf: finished(leaf, made), y), state

    def _joins_windows(self, context: Context, state: State) -> bool:
        """Whether statistics are computed over all windows as one batch."""
        return (context.train and bool(state)) or any(not norm.running for norm in layers(self.net, BatchNorm))

    def _large_kernels(self, shape: Shape) -> bool:
        """Whether a convolution would be dilated whose kernel is large enough for Fourier transforms to be faster."""
        rank = len(shape) - 1
        for conv in layers(self.rewritten(shape).net, Conv):
            kernel, dilation = (geometry.per_axis(n, rank, "kernel") for n in (conv.kernel, conv.dilation))
            if prod(kernel) >= FOURIER_KERNEL and prod(dilation) > 1:
                return True
        return False

    def _by_patches(self, context: Context, params: Params, state: State, x: jax.Array) -> tuple[Any, State]:
        grid, window = self.placed(tuple(x.shape[1:]))
        counts = (x.shape[0], *grid.positions)
        total = prod(counts)

        # gradients are summed over the windows of a sample, and over chunks for params: halves in a wider dtype
        samples, sums = jax.tree.map(lambda a: a.astype(wide(a.dtype)), (x, params))

        def cut(index: jax.Array) -> jax.Array:
            batch, *places = jnp.unravel_index(index, counts)
            starts = [p * s for p, s in zip(places, grid.stride, strict=True)]
            return lax.dynamic_slice(samples, (batch, *starts, jnp.zeros_like(batch)), (1, *window))[0]

        def windows(indices: jax.Array) -> jax.Array:
            return jax.vmap(cut)(indices).astype(x.dtype)

        # with a symbolic batch the number of chunks is unknown: all windows are computed together
        chunk = total if symbolic(total) else min(self.chunk or max(1, _CHUNK // prod(window)), total)
        if chunk == total or context.observer is not None or self._joins_windows(context, state):
            y, state = self.net.run(context, params, state, (windows(jnp.arange(total)),))
            return jax.tree.map(lambda leaf: leaf.reshape(*counts, *leaf.shape[1:]), y), state

        @jax.checkpoint  # the backward pass holds the activations of one chunk at a time
        def step(group: tuple[jax.Array, jax.Array]) -> Any:
            number, indices = group
            own = jax.tree.map(lambda a, p: a.astype(p.dtype), sums, params)
            inner = replace(context, folds=(*context.folds, number))
            return self.net.run(inner, own, state, (windows(indices),))[0]

        rows = -(-total // chunk)
        indices = np.minimum(np.arange(rows * chunk), total - 1).reshape(rows, chunk)
        y = lax.map(step, (jnp.arange(rows), jnp.asarray(indices)))
        return jax.tree.map(
            lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:total].reshape(*counts, *leaf.shape[2:]), y
        ), state


def _watched(observer: Any, replaced: list[Any]) -> Any:
    """An observer that notes whether it replaces an output."""

    def watch(seen: Any) -> Any:
        answer = observer(seen)
        if answer is not None and answer.output is not None:
            replaced.append(seen.path)
        return answer

    return watch


def finished(y: jax.Array, made: Rewritten) -> jax.Array:
    """The output field rearranged by position: (batch, *positions, *out)."""
    layout, grid = made.layout, made.layout.grid
    y = whole_field(y, made.fragments)
    if grid.single:
        y = cropped(y, grid.positions)
        return y if layout.kind == POINT else y.reshape(*y.shape[: 1 + grid.rank], *layout.shape)
    y = gathered(y, grid)
    return y.reshape(*y.shape[: 1 + grid.rank], -1) if layout.kind == FLAT else y


def _inside(scan: Scan, layout: ActivationLayout, options: RewriteOptions) -> Any:
    made = replace(scan, method="layers").rewritten(layout.shape, train=options.train)
    positions = scan.placed(layout.shape)[0].positions
    return inlined(made, positions, scan, layout, options)


RULES[Scan] = _inside
