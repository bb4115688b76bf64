"""A network over an image of any size: computed in overlapping tiles that are joined without seams."""

from __future__ import annotations

import itertools
import math
import mmap
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ..compose.parts import lift
from ..errors import format_shape, layer_path
from ..geometry import Shape, integer, per_axis
from ..layer import Layer
from ..layers.hyperparameters import check_flag
from ..types import Params, State
from .receptive_field import ReceptiveField, receptive_field
from .tile_plan import TileLine, tile_lines


def scan_tiles(
    net: Any,
    params: Params,
    image: Any,
    *,
    state: State | None = None,
    tile: int | tuple[int, ...] | None = None,
    out: Any = None,
    batch: int | None = None,
    progress: bool = True,
    mesh: Mesh | None = None,
) -> Any:
    r"""Run a network over one image that may be larger than memory, tile by tile.

    The result is that of the network on the whole image, ``net.apply(params, image[None], state=state)[0]``:

    .. math:: y_i = f(x)_i = f\bigl(x_{a}, \dots, x_{a + t - 1}\bigr)_{i - a / D}

    for every tile of t samples that begins at a and holds the receptive field of output i. D is the step of the network
    (see :func:`~fcnn.analysis.receptive_field`). Neighbouring tiles overlap as far as the receptive field requires.
    Every output is computed from a tile that holds its whole field, and is written once. All tiles begin at multiples
    of the network's period, and their size differs from the image's by such a multiple. So strides fall on the same
    samples, padding occurs only at the border of the image, and all tiles use one compiled program.

    Outputs are equal up to rounding, because the algorithm and the order of summation may depend on the size of an
    array. In all measurements on CPUs they were equal bit for bit in float64, and in float32 within 1e-5 of the largest
    output; Winograd's algorithm deviated most.

    Tiles are read, computed and written in batches; while the devices compute, the next batch is read and the previous
    one is written. If the call is interrupted, the outputs already written remain. Of memory maps, only the tiles being
    processed are held in memory.

    Args:
        net: a network that does the same at every position: convolutions, pooling over windows, norms without
            statistics of the whole image, functions (pointwise, resizing by a factor, cropping, padding, ...), and
            compositions and graphs of these.
        params: its parameters.
        image: one image, (*space, channels): a NumPy array or memory map, or any object with ``shape`` and ``dtype``
            whose slices are arrays; it is never read as a whole.
        state: the network's state, if it has one.
        tile: the most samples of the image along each axis that are computed at once; None: half a million in all,
            and at least three receptive fields along each axis.
        out: where the result is written, an array or memory map of the result's shape and dtype; None: a new array.
        batch: tiles per call of the program; None: one per device.
        progress: whether to show a progress bar (of tqdm, if installed).
        mesh: devices that share every batch; None: the default device.

    Shapes:
        image (*space, channels) to (*out, features).

    Returns:
        The result: a NumPy array, or ``out``.

    Raises:
        ValueError: if the network mixes positions, the tile is too small (the message gives the smallest that works),
            or the image or ``out`` does not fit the network. Nothing has been computed then.
        TypeError: if an argument has the wrong type, such as an image of integers.

    Source:
        Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill, 2019, for
        the overlap.

    Example:
        >>> net = fcnn.serial(fcnn.Conv(4, 5, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2))
        >>> params = net.init(jax.random.key(0), (300, 200, 1))
        >>> image = jax.random.normal(jax.random.key(1), (300, 200, 1))
        >>> parts = scan_tiles(net, params, image, tile=64, progress=False)
        >>> parts.shape, bool(jnp.allclose(parts, net.apply(params, image[None])[0], atol=1e-5))
        ((150, 100, 4), True)
    """
    with layer_path("scan_tiles"):
        net = lift(net)
        shape = _check_image(image, params)
        tile = None if tile is None else per_axis(tile, len(shape) - 1, "tile")
        devices = _check_mesh(mesh)
        batch = len(devices) if batch is None else integer(batch, "batch")
        if batch % len(devices):
            raise ValueError(
                f"a batch of {batch} tiles cannot be shared equally by the {len(devices)} devices of the mesh; "
                f"use {max(len(devices), batch - batch % len(devices))}"
            )
        check_flag(progress, "progress")
        seen = _followed(net, shape)
        made = _rehearsed(net, params, state, image)
        lines = tile_lines(net, shape, seen, made.shape, tile)
        out = np.empty(made.shape, made.dtype) if out is None else _check_out(out, made, image)
    whole, divided = _shardings(devices)
    # NumPy arrays would be copied to the device again with every batch
    params, state = jax.tree.map(jnp.asarray, (params, {} if state is None else state))
    if whole is not None:
        params, state = jax.device_put((params, state), whole)
    _stream(partial(_computed, net, divided, params, state), image, lines, out, batch, divided, progress)
    return out


@partial(jax.jit, static_argnames=("net", "divided"))
def _computed(net: Layer, divided: NamedSharding | None, params: Params, state: State, x: jax.Array) -> jax.Array:
    y = net.apply(params, x, state=state)
    return y if divided is None else jax.lax.with_sharding_constraint(y, divided)


# Checks of the arguments.


def _check_image(image: Any, params: Any) -> Shape:
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((image, params))):
        raise TypeError(
            "reads and writes NumPy arrays, so it cannot be differentiated, compiled or mapped; use net.apply on an "
            "image that fits into memory"
        )
    if isinstance(image, (list, tuple)) or not all(hasattr(image, name) for name in ("shape", "dtype", "__getitem__")):
        raise TypeError(
            f"image must be an array or a memory map (*space, channels), not a {type(image).__name__}; "
            "use np.asarray, or np.load(path, mmap_mode='r')"
        )
    shape = tuple(map(int, image.shape))
    if len(shape) < 2:
        raise ValueError(f"image has shape {format_shape(shape)}, expected (*space, channels), such as (4096, 4096, 3)")
    if 0 in shape:
        raise ValueError(f"image has shape {format_shape(shape)}: it has no samples")
    return shape


def _followed(net: Layer, shape: Shape) -> ReceptiveField:
    try:
        return receptive_field(net, shape)
    except ValueError as error:
        if shape[0] == 1:
            error.add_note("image is one example, (*space, channels); if its first axis is a batch, give image[0]")
        raise


def _rehearsed(net: Layer, params: Params, state: State | None, image: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the result; raises what ``apply`` would raise."""
    x = jax.ShapeDtypeStruct((1, *map(int, image.shape)), _dtype(image))
    y = jax.eval_shape(lambda x: net.apply(params, x, state=state), x)
    return jax.ShapeDtypeStruct(y.shape[1:], y.dtype)


def _dtype(image: Any) -> Any:
    """The dtype of the tiles, in native byte order; files may have the other."""
    try:
        return jnp.result_type(jax.dtypes.canonicalize_dtype(np.dtype(image.dtype).newbyteorder("=")))
    except (TypeError, ValueError):
        raise TypeError(
            f"image has dtype {image.dtype}, with which nothing can be computed; convert it, image.astype('float32')"
        ) from None


def _check_out(out: Any, made: jax.ShapeDtypeStruct, image: Any) -> Any:
    if not all(hasattr(out, name) for name in ("shape", "dtype", "__setitem__")) or isinstance(out, jax.Array):
        raise TypeError(f"out must be a NumPy array or a memory map, which can be written, not a {type(out).__name__}")
    if tuple(out.shape) != made.shape or out.dtype != made.dtype:
        raise ValueError(
            f"out has shape {format_shape(tuple(out.shape))} and dtype {out.dtype}, the result has "
            f"{format_shape(made.shape)} and {made.dtype}; give it the result's shape and dtype, or leave it out"
        )
    if isinstance(out, np.ndarray):
        if not out.flags.writeable:
            raise ValueError("out cannot be written; open the memory map with mode 'r+' or 'w+'")
        if isinstance(image, np.ndarray) and np.may_share_memory(out, image):
            raise ValueError(
                "out and image share memory, so tiles would be read that have been written; use another out"
            )
    return out


def _check_mesh(mesh: Any) -> list[Any]:
    """The devices, or [None] without a mesh."""
    if mesh is None:
        return [None]
    if not isinstance(mesh, Mesh):
        raise TypeError(f'mesh must be a mesh of devices, as jax.make_mesh((8,), ("batch",)) makes it, not {mesh!r}')
    devices = list(mesh.devices.flat)
    if any(device.process_index != jax.process_index() for device in devices):
        raise ValueError(
            "mesh has devices of other processes, but the image and the result are in this one; make it of "
            "jax.local_devices(), and give each process a part of the image"
        )
    return devices


def _shardings(devices: list[Any]) -> tuple[NamedSharding | None, NamedSharding | None]:
    """The shardings of parameters and of batches."""
    if devices == [None]:
        return None, None
    # Auto: the partitioner chooses the sharding of intermediate values; meshes are Explicit by default
    mesh = Mesh(np.array(devices), ("batch",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))


# Reading, computing, writing.


def _stream(
    compute: Any, image: Any, lines: tuple[TileLine, ...], out: Any, batch: int, divided: Any, progress: bool
) -> None:
    places = itertools.product(*(range(len(along.starts)) for along in lines))
    count = math.prod(len(along.starts) for along in lines)
    batch = min(batch, count) if divided is None else batch
    computing, at_work = None, []  # the output being computed, and its place in the result
    with _Bar(count, progress) as bar:
        try:
            while True:
                following = list(itertools.islice(places, batch))
                x = _read(image, lines, following, batch, divided) if following else None
                ready = None if computing is None else np.asarray(computing)
                here, at_work = at_work, following
                computing = None if x is None else compute(x)
                if ready is not None:
                    _write(out, lines, here, ready)
                    bar.add(len(here))
                _give_back(image)
                _give_back(out)
                if computing is None:
                    break
        finally:
            if hasattr(out, "flush"):
                out.flush()


def _read(image: Any, lines: tuple[TileLine, ...], places: list[Any], batch: int, divided: Any) -> Any:
    """A batch of tiles on the devices; the last batch is filled up with copies, whose outputs are ignored."""
    sizes = tuple(along.tile for along in lines)
    x = np.empty((batch, *sizes, image.shape[-1]), _dtype(image))
    for row, place in zip(x, places, strict=False):
        corner = [along.starts[n] for along, n in zip(lines, place, strict=True)]
        row[...] = np.asarray(image[tuple(slice(a, a + size) for a, size in zip(corner, sizes, strict=True))])
    x[len(places) :] = x[:1]
    return jnp.asarray(x) if divided is None else jax.device_put(x, divided)


def _write(out: Any, lines: tuple[TileLine, ...], places: list[Any], y: np.ndarray) -> None:
    for row, place in zip(y, places, strict=False):
        kept = [along.kept[n] for along, n in zip(lines, place, strict=True)]
        taken = row[tuple(slice(begin, end) for begin, end, _ in kept)]
        out[tuple(slice(first, first + end - begin) for begin, end, first in kept)] = taken


def _give_back(array: Any) -> None:
    """Drop the pages of a memory map from this process; they remain in the file or the page cache.

    Otherwise every page read or written would count as memory of the process until the end. Maps of mode "c" are
    skipped, because their changes exist in memory only.
    """
    mapped = getattr(array, "_mmap", None) if isinstance(array, np.memmap) and array.mode != "c" else None
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


class _Bar:
    """Shows the number of tiles done: a bar if tqdm is installed, otherwise a line after every tenth of the tiles."""

    def __init__(self, count: int, show: bool) -> None:
        self._count, self._show, self._done, self._bar = count, show, 0, None

    def __enter__(self) -> _Bar:
        if self._show:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return self
            self._bar = tqdm(total=self._count, desc="scan", unit="tile", dynamic_ncols=True)
        return self

    def add(self, tiles: int) -> None:
        before, self._done = self._done, self._done + tiles
        if self._bar is not None:
            self._bar.update(tiles)
        elif self._show and before * 10 // self._count < self._done * 10 // self._count:
            print(f"scan: {self._done}/{self._count} tiles", flush=True)

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
