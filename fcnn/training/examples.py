"""Inputs, targets and weights, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import format_shape
from ..geometry import Shape
from ..labels import check_labels
from ..layer import Layer
from ..native import native
from .losses import cross_entropy
from .mapped import lazy, pieces, read
from .measures import LossTerm, Measures, Weighted


def check_net(net: Any) -> None:
    """Raise unless net is a layer.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(net, Layer):
        raise TypeError(f"net must be a layer, not {net!r}; fcnn.serial(function) makes one of a function")


def count_of(inputs: tuple[Any, ...]) -> int:
    """The number of examples."""
    return inputs[0].shape[0]


def array_types(batch: Any) -> str:
    """Shapes and dtypes of a batch's arrays, as text for messages."""
    return ", ".join(f"{a.dtype}{format_shape(a.shape)}" for a in jax.tree.leaves(batch))


def taken(tree: Any, chosen: Any) -> Any:
    """Some examples of every array, by a slice or by indices."""
    return jax.tree.map(lambda a: read(a, chosen), tree)


def check_data(net: Layer, data: Any, what: str, measures: Measures) -> tuple[tuple[Any, ...], Any]:
    """Check that data are (x, y) or (x, y, w) that suit the network and the losses.

    Returns:
        x as a tuple, and y; with weights, y is Weighted.

    Raises:
        TypeError: no such arrays, or labels that are not integers for a loss that needs them.
        ValueError: different numbers of examples, no examples, inputs that do not suit the network, labels outside the
            classes, weights whose shape suits no targets.
    """
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        said = f" of {len(data)}" if isinstance(data, (tuple, list)) else ""
        raise TypeError(
            f"{what} must be a pair (x, y) of arrays, or with weights (x, y, w), not a {type(data).__name__}{said}"
        )
    inputs = input_arrays(data[0], what)
    targets = _targets(data[1], what, len(inputs[0]) if hasattr(inputs[0], "__len__") else 0)
    weights = None if len(data) == 2 else _weights(data[2], what)
    arrays = {f"x[{i}]" if len(inputs) > 1 else "x": a for i, a in enumerate(inputs)}
    arrays |= _named("y", targets) | ({} if weights is None else _named("w", weights))
    for name, array in arrays.items():
        _check_array(name, array, what)
    counts = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = [f"{count} in {name}" for name, count in counts.items()]
        listed = [*listed[:3], "...", listed[-1]] if len(listed) > 6 else listed
        raise ValueError(f"{what}: different numbers of examples ({', '.join(listed)}); every array has one for each")
    if not count_of(inputs):
        raise ValueError(f"{what}: there are no examples")
    out = out_shape(net, tuple(tuple(a.shape[1:]) for a in inputs))
    for term in measures.terms:
        _check_term(term, measures, targets, out, what)
    if weights is None:
        return inputs, targets
    _check_weights(weights, targets, measures, what)
    return inputs, Weighted(targets, weights)


def input_arrays(x: Any, what: str) -> tuple[Any, ...]:
    """The inputs as a tuple of arrays.

    Raises:
        TypeError: a dict, or a list of pictures.
    """
    if isinstance(x, Mapping):
        names = ", ".join(map(repr, x))
        raise TypeError(
            f"{what}: x is a dict with {names}; several inputs are a tuple, in the order in which the network takes "
            "them: (d['a'], d['b'])"
        )
    if not isinstance(x, (tuple, list)):
        return (plain_array(x),)
    inputs = tuple(map(plain_array, x))
    if not inputs:
        raise ValueError(f"{what}: x is empty; give an array (examples, *space, channels)")
    if isinstance(x, list):
        _check_list("x", inputs, what, "(examples, *space, channels)")
    return inputs


def _check_list(name: str, arrays: tuple[Any, ...], what: str, form: str) -> None:
    """Raise if a list has one array for each example, instead of several arrays of all examples."""
    shapes = [tuple(a.shape) for a in arrays if hasattr(a, "shape")]
    if len(shapes) > 8 or (len(shapes) == len(arrays) and len({shape[:1] for shape in shapes}) > 1):
        sizes = ", ".join(dict.fromkeys(map(format_shape, shapes[:3])))
        raise TypeError(
            f"{what}: {name} is a list of {len(arrays)} arrays ({sizes}, ...), but it must be one array {form}; "
            "use numpy.stack, after cropping, resizing or padding arrays of different shapes"
        )


def _targets(y: Any, what: str, examples: int) -> Any:
    if isinstance(y, list):
        if not y or not all(hasattr(plain_array(a), "shape") for a in y):
            return y  # refused later, as it is no array
        _check_list("y", tuple(plain_array(a, "y") for a in y), what, "with one entry for each example")
        y = tuple(y)
    return jax.tree.map(lambda a: plain_array(a, "y"), y, is_leaf=lambda a: isinstance(a, list))


def _weights(w: Any, what: str) -> Any:
    if w is None:
        raise TypeError(f"{what}: w is None; leave it out: (x, y)")
    return jax.tree.map(lambda a: plain_array(a, "w"), w, is_leaf=lambda a: isinstance(a, list))


def _named(name: str, tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their paths."""
    if isinstance(tree, list) or not jax.tree.leaves(tree):
        return {name: tree}
    return {
        name + jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=lambda a: isinstance(a, list))
    }


def _check_array(name: str, array: Any, what: str) -> None:
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise TypeError(f"{what}: {name} must be an array, not a {type(array).__name__}; use numpy.asarray")
    if not array.shape:
        raise ValueError(f"{what}: {name} is a single number; its first axis must count the examples")
    if np.dtype(array.dtype).kind in "OSUMm":
        way_out = ": classes, labels = numpy.unique(y, return_inverse=True)" if name[0] == "y" else ""
        raise TypeError(f"{what}: {name} has dtype {array.dtype}; make numbers of it{way_out}")


def plain_array(array: Any, name: str = "x") -> Any:
    """An array of another library as NumPy's, in native byte order; other objects are left to the checks."""
    if isinstance(array, np.ndarray):
        return native(array, name) if not array.dtype.isnative or isinstance(array, np.ma.MaskedArray) else array
    if isinstance(array, jax.Array) or not hasattr(array, "__array__") or lazy(array):
        return array
    return np.asarray(array)


@lru_cache(maxsize=64)
def out_shape(net: Layer, shapes: tuple[Shape, ...]) -> Any:
    """``net.out_shape``, cached, because every batch of a loader needs it."""
    return net.out_shape(*shapes)


# weights


def _check_weights(weights: Any, targets: Any, measures: Measures, what: str) -> None:
    if hasattr(weights, "dtype"):
        pairs = [("w", weights, targets)]
    else:
        places = [term.place for term in measures.terms]
        if places == [None] or not isinstance(weights, (Mapping, tuple)):
            raise TypeError(f"{what}: w must be an array of weights, one for each example")
        given = list(weights) if isinstance(weights, Mapping) else list(range(len(weights)))
        if given and set(given) != set(places):
            raise ValueError(f"{what}: w has {given}, but the losses are {places}; give weights for each of them")
        pairs = [(f"w[{place!r}]", weights[place], targets[place]) for place in places]
    for name, array, wanted in pairs:
        if array.dtype != bool and not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(
                f"{what}: {name}, the third of (x, y, w), has dtype {array.dtype}; weights are of floating point, "
                "w.astype('float32'), or bool"
            )
        labels = [tuple(a.shape) for a in jax.tree.leaves(wanted)]
        if array.ndim > 1 and not any(tuple(array.shape) == shape[: array.ndim] for shape in labels):
            raise ValueError(
                f"{what}: {name} has shape {format_shape(tuple(array.shape))}, but y has "
                f"{' and '.join(map(format_shape, labels))}; give one number for each example, or one for each of its "
                "labels"
            )
        host = np.asarray(array)
        if host.dtype != bool and not (np.isfinite(host).all() and (host >= 0).all()):
            raise ValueError(
                f"{what}: {name} has weights that are negative or not finite; they must be finite and at least 0"
            )
        if what != "batch" and not host.any():
            raise ValueError(f"{what}: all weights in {name} are 0, so no example counts; give some a weight above 0")


# labels


def _check_term(term: LossTerm, measures: Measures, targets: Any, out: Any, what: str) -> None:
    """Raise unless the targets of a loss exist, and are labels of classes if the loss needs labels."""
    name = "y"
    if term.place is not None:
        for kind, tree, word in (("y", targets, "targets"), ("the network", out, "outputs")):
            if hasattr(tree, "dtype") or _is_shape(tree) or not _has(tree, term.place):
                has = list(tree) if isinstance(tree, Mapping) else f"{len(tree)} of them" if _several(tree) else "one"
                raise ValueError(
                    f"{what}: loss has {term.place!r}, but {kind} has no such {word} ({has}); use the same names in all"
                )
        targets, out, name = targets[term.place], out[term.place], f"y[{term.place!r}]"
    default = term.loss is cross_entropy
    if not default and not getattr(term.loss, "scores_classes", False):
        return
    if not hasattr(targets, "dtype") or not _is_shape(out):
        several = "network gives several outputs" if not _is_shape(out) else "data have several targets"
        raise (TypeError if _is_shape(out) else ValueError)(
            f"{what}: the {several}, but the loss takes one; give a loss for each by name, "
            "loss={'class': training.cross_entropy(), 'box': optax.losses.huber_loss}, or one function (outputs, "
            "targets) of all of them"
        )
    if not default and jnp.issubdtype(targets.dtype, jnp.floating):
        return
    if default and jnp.issubdtype(targets.dtype, jnp.floating) and measures.probabilities:
        return
    rest = check_labels(targets, out, f"{what}: ", name, ignore=measures.ignore_label, parts=pieces(targets))
    if not rest and what != "batch":
        raise ValueError(
            f"{what}: every label in {name} is {measures.ignore_label}, so ignore_label leaves none; change one of them"
        )


def _is_shape(out: Any) -> bool:
    return isinstance(out, tuple) and all(isinstance(n, (int, np.integer)) for n in out)


def _several(tree: Any) -> bool:
    return isinstance(tree, (Mapping, tuple)) and not _is_shape(tree)


def _has(tree: Any, place: Any) -> bool:
    if isinstance(tree, Mapping):
        return place in tree
    return isinstance(tree, tuple) and isinstance(place, int) and place < len(tree)
