"""Rules for operations that move values over the space, by primitive name.

Each rule takes the reader that goes through the program, the operation, and what is known of its operands. It returns
what the axes of the result stand for, or a list of these for an operation with several results.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ..tracing.positionwise import Mixes
from .placed import BATCH, Constant, Data, Place, TooSmall, at_one_position

#: the longest period of interpolation that is recognised, in outputs
_LONGEST_PERIOD = 64


def _moved(place: Place | None, step: Any, low: Any, high: Any, size: int, made: int) -> Place | None:
    """The place of an axis whose value i sees the values low + step i to high + step i of an axis of ``size`` values.

    The fields of values beyond the ``made`` ones, before the first or after the last, must extend beyond the input,
    because padding that is added later takes their place.
    """
    if place is None or place.field is None:
        return place
    low = min(low, math.ceil(step) - 1)
    high = max(high, math.floor(size - 1 - step * made) + 1)
    return Place(place.axis, place.field.through(step, low, high))


def _whole_batch(place: Place | None, name: str) -> None:
    if place == BATCH:
        raise Mixes(f"reorders or separates examples of the batch ({name})")


def _transposed(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    return [given[0].places[n] for n in eqn.params["permutation"]]


def _broadcast(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    shape, target = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    found: list[Place | None] = [None] * len(shape)
    for place, n, size in zip(given[0].places, target, eqn.invars[0].aval.shape, strict=True):
        if place is not None and size != shape[n]:
            raise Mixes("repeats a single position (broadcast_in_dim)")
        found[n] = place
    return found


def _reshaped(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    """Split and merged axes: a factor that follows an axis of the space subdivides its samples."""
    old, new, places = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape, list(given[0].places)
    found: list[Place | None] = []
    i = j = 0
    while i < len(old) or j < len(new):
        first, then = [i], [j]
        i, j = i + 1, j + 1
        while math.prod(old[n] for n in first if n < len(old)) != math.prod(new[n] for n in then if n < len(new)):
            small = math.prod(old[n] for n in first if n < len(old)) < math.prod(new[n] for n in then if n < len(new))
            if small:
                first.append(i)
                i += 1
            else:
                then.append(j)
                j += 1
        sizes = [old[n] for n in first if n < len(old)], [new[n] for n in then if n < len(new)]
        found += _group([places[n] for n in first if n < len(old)], *sizes)
    return found


def _group(places: list[Place | None], old: list[int], new: list[int]) -> list[Place | None]:
    """The places of the axes of sizes ``new`` that replace axes of sizes ``old``."""
    result: list[Place | None] = [None] * len(new)
    marked = [n for n, place in enumerate(places) if place is not None]
    if not marked:
        return result
    if len(marked) > 1 or any(size > 1 for size in old[: marked[0]]):
        raise Mixes("mixes positions (reshape)")
    place, size = places[marked[0]], old[marked[0]]
    where = next((n for n, count in enumerate(new) if count > 1), 0)
    within, apart = math.prod(old[marked[0] + 1 :]), math.prod(new[where + 1 :])
    if place == BATCH and within != apart:
        raise Mixes("reorders or separates examples of the batch (reshape)")
    common = math.gcd(within, apart)
    within, apart = within // common, apart // common
    if within != apart:  # one sample is split into ``within`` values, and a position holds ``apart`` of them
        place = _moved(place, Fraction(1, within), Fraction(1 - within, within), 0, size, size * within)
        place = _moved(place, apart, 0, apart - 1, size * within, new[where])
    result[where] = place
    return result


def _sliced(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    p = eqn.params
    steps = p["strides"] or (1,) * len(p["start_indices"])
    return _cut(eqn, given[0], p["start_indices"], steps)


def _cut(eqn: Any, value: Data, starts: Any, steps: Any) -> list[Place | None]:
    found = []
    sizes = zip(eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape, strict=True)
    for place, start, step, (size, made) in zip(value.places, starts, steps, sizes, strict=True):
        if made != size:
            _whole_batch(place, eqn.primitive.name)
        found.append(_moved(place, step, start, start, size, made))
    return found


def _dynamically_sliced(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    value, *starts = given
    shape, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
    if not isinstance(value, Data) or any(isinstance(start, Data) or start.value is None for start in starts):
        raise Mixes("reads values at computed positions (dynamic_slice)")
    begins = [int(np.clip(s.value, 0, n - size)) for s, n, size in zip(starts, shape, sizes, strict=True)]
    return _cut(eqn, value, begins, (1,) * len(begins))


def _split(reader: Any, eqn: Any, given: list[Any]) -> Any:
    axis, places = eqn.params["axis"], given[0].places
    if places[axis] is not None and len(eqn.outvars) > 1:
        raise Mixes("cuts the space into pieces (split)")
    found = [list(places) for _ in eqn.outvars]
    return found if len(found) > 1 else found[0]


def _padded(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    value, filling = given
    if not isinstance(value, Data) or not isinstance(filling, Constant):
        raise Mixes("pads with values that are computed (pad)")
    reader.said.append(at_one_position(filling, [], reader.space))
    found = []
    sizes = zip(eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape, strict=True)
    for place, (before, _, between), (size, made) in zip(
        value.places, eqn.params["padding_config"], sizes, strict=True
    ):
        if made != size:
            _whole_batch(place, "pad")
        step = Fraction(1, 1 + between)
        found.append(_moved(place, step, -before * step, -before * step, size, made))
    return found


def _concatenated(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    """Concatenation along the channels, or along the space with constants before and after, which is padding."""
    axis, data = eqn.params["dimension"], [value for value in given if isinstance(value, Data)]
    if all(value.places[axis] is None for value in data):
        return reader.joined(eqn, given)
    if len(data) > 1:
        raise Mixes("concatenates pieces of the space (concatenate)")
    _whole_batch(data[0].places[axis], "concatenate")
    sizes = [atom.aval.shape[axis] for atom in eqn.invars]
    where = next(n for n, value in enumerate(given) if isinstance(value, Data))
    before = sum(sizes[:where])
    places = list(data[0].places)
    places[axis] = _moved(places[axis], 1, -before, -before, sizes[where], sum(sizes))
    return reader.joined(eqn, [Data(tuple(places)) if isinstance(value, Data) else value for value in given])


def _stacked(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    places = reader.joined(eqn, given)
    places.insert(eqn.params["axis"], None)  # the new axis enumerates the operands
    return places


def _unstacked(reader: Any, eqn: Any, given: list[Any]) -> Any:
    axis, places = eqn.params["axis"], list(given[0].places)
    if places.pop(axis) is not None:
        raise Mixes("separates positions (unstack)")
    return [places] * len(eqn.outvars) if len(eqn.outvars) > 1 else places


def _gathered(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    """Samples taken along one axis at known indices, as in nearest-neighbour resizing."""
    value, indices = given
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    shape, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if not isinstance(value, Data) or not isinstance(indices, Constant) or indices.value is None:
        raise Mixes("reads values at computed positions (gather)")
    taken = tuple(numbers.start_index_map)
    whole = all(size == n for axis, (size, n) in enumerate(zip(sizes, shape, strict=True)) if axis not in taken)
    if len(taken) != 1 or taken != tuple(numbers.collapsed_slice_dims) or not whole or numbers.operand_batching_dims:
        raise Mixes("mixes positions, or cannot be proved not to (gather)")
    kept = [place for axis, place in enumerate(value.places) if axis != taken[0]]
    found: list[Place | None] = [None] * len(out)
    for n, place in zip(numbers.offset_dims, kept, strict=True):
        found[n] = place
    place, rest = value.places[taken[0]], [n for n in range(len(out)) if n not in numbers.offset_dims]
    if place is None:
        return found
    _whole_batch(place, "gather")
    where, size = indices.value.reshape(-1).astype(np.int64), shape[taken[0]]
    if len(rest) != 1 or where.min() < 0 or where.max() >= size:
        raise Mixes("mixes positions, or reads outside the space (gather)")
    reads = np.zeros((len(where), size))
    reads[np.arange(len(where)), where] = 1
    found[rest[0]] = _interpolated(reader, place, reads)
    return found


def _interpolated(reader: Any, place: Place, matrix: np.ndarray) -> Place | None:
    """The place of an axis where output i is the sum over n of matrix[i, n] times value n.

    Raises:
        Mixes: if the rows away from the borders do not repeat, shifted, with some period.
    """
    outs, size = matrix.shape
    scale = np.abs(matrix).max()
    used = np.abs(matrix) > 1e-6 * scale  # zero weights may appear as rounding errors
    if not used.any(1).all():
        raise Mixes("has outputs that see nothing of the space")
    low, high = used.argmax(1), size - 1 - used[:, ::-1].argmax(1)
    inner = _longest_run((low > 0) & (high < size - 1))
    every, samples = _repeats(low, inner)
    step = Fraction(samples, every)
    first = min(int(low[i]) - step * int(i) for i in inner)
    last = max(int(high[i]) - step * int(i) for i in inner)
    model = {int(i) % every: int(i) for i in inner[::-1]}
    for i in range(outs):
        begin, end = first + step * i, last + step * i
        if low[i] < math.floor(begin) or high[i] > math.ceil(end):
            raise Mixes("sees more at the borders of the space than elsewhere")
        if begin >= 0 and end <= size - 1:  # at the borders the weights may differ
            alike = np.roll(matrix[model[i % every]], int((i - model[i % every]) * step))
            if not np.allclose(alike, matrix[i], rtol=0, atol=1e-5 * scale):
                raise Mixes("does not weight samples equally at all positions")
    for phase in range(every):
        i = model[phase]
        # the offset moves the rounding boundaries away from common weights such as 0.25 or 0.5
        reader.said.append(np.floor(matrix[i, low[i] : high[i] + 1] * 1e4 + 0.371).tolist())
    field = place.field.repeating(samples) if place.field is not None else None
    return _moved(Place(place.axis, field), step, first, last, size, outs)


def _longest_run(true: np.ndarray) -> np.ndarray:
    """The places of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], true, [0]])))
    if not len(edges):
        return edges
    begins, ends = edges[::2], edges[1::2]
    longest = (ends - begins).argmax()
    return np.arange(begins[longest], ends[longest])


def _repeats(low: np.ndarray, inner: np.ndarray) -> tuple[int, int]:
    """The period of the first sample seen, in outputs and in samples."""
    if len(inner) < 4:
        raise TooSmall("works for a larger space only")
    for every in range(1, min(_LONGEST_PERIOD, len(inner) // 2) + 1):
        ahead = set((low[inner[every:]] - low[inner[:-every]]).tolist())
        if len(ahead) == 1 and min(ahead) >= 1:
            return every, int(ahead.pop())
    if len(inner) < 2 * _LONGEST_PERIOD:
        raise TooSmall("does not weight samples equally at all positions")
    raise Mixes("does not weight samples equally at all positions")


def _product(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    """A product with a constant matrix, over the channels or over an axis of the space, as in linear resizing."""
    contract, batch = eqn.params["dimension_numbers"]
    if any(batch):
        raise Mixes("mixes positions, or cannot be proved not to (dot_general)")
    first = isinstance(given[0], Data)
    if first and isinstance(given[1], Data):
        raise Mixes("multiplies values of different positions (dot_general)")
    data, matrix = given if first else given[::-1]
    over, of = contract if first else contract[::-1]
    free = [place for axis, place in enumerate(data.places) if axis not in over]
    shape = eqn.invars[1 if first else 0].aval.shape
    made: list[Place | None] = [None] * (len(shape) - len(of))
    spaces = [axis for axis in over if data.places[axis] is not None]
    if spaces:
        if len(over) > 1 or len(shape) != 2 or matrix.value is None or data.places[spaces[0]] == BATCH:
            raise Mixes("mixes positions (dot_general along the space)")
        rows = np.asarray(matrix.value, float)
        made = [_interpolated(reader, data.places[spaces[0]], rows.T if of[0] == 0 else rows)]
    elif matrix.value is not None:
        reader.said.append(matrix.value.tobytes())
    return [*free, *made] if first else [*made, *free]


def _windowed(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    """Sums and maxima over windows."""
    p, found = eqn.params, []
    for n, place in enumerate(given[0].places):
        window = p["window_dimensions"][n], p["window_strides"][n], p["padding"][n][0]
        if window != (1, 1, 0):
            _whole_batch(place, eqn.primitive.name)
        sizes = eqn.invars[0].aval.shape[n], eqn.outvars[0].aval.shape[n]
        found.append(_slid(place, *window, p["base_dilation"][n], p["window_dilation"][n], *sizes))
    return found


def _slid(
    place: Place | None, kernel: int, stride: int, before: int, spread: int, dilation: int, size: int, made: int
) -> Place | None:
    """The place of an axis after a window, with ``spread - 1`` zeros between the input's samples."""
    low, high = Fraction(-before, spread), Fraction(dilation * (kernel - 1) - before, spread)
    return _moved(place, Fraction(stride, spread), low, high, size, made)


def _convolved(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    """A convolution with a kernel that does not depend on the input."""
    if not isinstance(given[0], Data) or isinstance(given[1], Data):
        raise Mixes("convolves with a kernel that is computed (conv_general_dilated)")
    p = eqn.params
    lhs, rhs, out = p["dimension_numbers"]
    places, kernel = given[0].places, eqn.invars[1].aval.shape
    if places[lhs[1]] is not None or p["batch_group_count"] != 1:
        raise Mixes("mixes positions (conv_general_dilated)")
    found: list[Place | None] = [None] * len(places)
    found[out[0]] = places[lhs[0]]
    for n in range(len(places) - 2):
        place, sizes = places[lhs[2 + n]], (eqn.invars[0].aval.shape[lhs[2 + n]], eqn.outvars[0].aval.shape[out[2 + n]])
        _whole_batch(place, "conv_general_dilated")
        window = kernel[rhs[2 + n]], p["window_strides"][n], p["padding"][n][0]
        found[out[2 + n]] = _slid(place, *window, p["lhs_dilation"][n], p["rhs_dilation"][n], *sizes)
    return found


def _fcnn_convolved(reader: Any, eqn: Any, given: list[Any]) -> list[Place | None]:
    """The library's own convolution primitive, whose input has an ensemble axis: (1, batch, *space, channels)."""
    geometry = eqn.params["geometry"]
    if not isinstance(given[0], Data) or isinstance(given[1], Data) or geometry.polyphase or geometry.hwnc:
        raise Mixes("convolves with a kernel that is computed")
    places, sizes = list(given[0].places), zip(eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape, strict=True)
    for n, (size, made) in enumerate(list(sizes)[2:-1]):
        window = eqn.params["kernel"][n], geometry.stride[n], geometry.pads[n][0]
        spread, dilation = geometry.input_dilation[n], geometry.dilation[n]
        places[2 + n] = _slid(places[2 + n], *window, spread, dilation, size, made)
    return places


MOVES: dict[str, Callable[[Any, Any, list[Any]], Any]] = {
    "transpose": _transposed,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshaped,
    "slice": _sliced,
    "dynamic_slice": _dynamically_sliced,
    "split": _split,
    "pad": _padded,
    "concatenate": _concatenated,
    "stack": _stacked,
    "unstack": _unstacked,
    "gather": _gathered,
    "dot_general": _product,
    "conv_general_dilated": _convolved,
    "fcnn_convolution_forward": _fcnn_convolved,
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), _windowed),
}
