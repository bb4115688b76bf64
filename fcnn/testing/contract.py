"""The contract of layers, as a list of checks that can be run on any layer."""

from __future__ import annotations

import functools
import pickle
import re
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import names
from ..errors import format_shape
from ..geometry import Shape
from ..layer import Layer
from .subject import BATCH, Subject, floating


def check_layer(
    layer: Layer,
    shape: Shape,
    *more_shapes: Shape,
    inputs: tuple[Any, ...] | None = None,
    gradients: bool = True,
    apart: bool = True,
) -> None:
    """Check that a layer or network of your own fulfils the contract of the library's layers.

    The checks: the layer is a value (comparable, hashable, rebuilt by its ``repr`` and by pickle); ``infer_shape``
    agrees with ``forward``; params and state are nested dicts of arrays and reproducible from the key; compiled and
    eager results agree; examples of a batch do not affect each other; ``vmap`` over examples and params, ``scan`` and
    ``checkpoint`` work; gradients agree with finite differences, in forward mode, in reverse mode and of second order;
    half precision stays half; training preserves the structure of the state.

    Args:
        layer: the layer.
        shape: shape of one example, (*space, channels); small shapes take less time.
        more_shapes: shapes of further inputs.
        inputs: a batch for each input, for layers that do not take numbers between -1 and 1, such as indices.
        gradients: whether to compare gradients; set it to False for layers whose gradients differ on purpose.
        apart: whether examples must not affect each other at inference; set it to False for layers that use batch
            statistics.

    Raises:
        AssertionError: a check failed; the message gives the numbers.
        ValueError: the layer contradicts itself, such as ``infer_shape`` and ``forward``.
        TypeError: the argument is not a layer, or the layer is written incorrectly.

    Example:
        >>> from dataclasses import dataclass
        >>> import fcnn
        >>> @dataclass(frozen=True)
        ... class Centred(fcnn.Layer):
        ...     def forward(self, params, x):
        ...         return x - x.mean(0)
        >>> check_layer(Centred(), (4,))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        AssertionError: centred: at inference an example depends on the others in its batch: 0.0 and ... at y[0, 0]
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"check_layer takes a layer, not {layer!r}; make one of a function by fcnn.serial")
    subject = Subject(layer, (shape, *more_shapes), inputs)
    for check in CHECKS:
        if (gradients or check not in GRADIENTS) and (apart or check is not _alone):
            check(subject)


def _value(subject: Subject) -> None:
    layer = subject.layer
    _require(jax.tree.leaves(layer) == [], subject, "the layer is not a static node of a pytree")
    try:
        layer.anything = 1  # type: ignore[attr-defined]
    except FrozenInstanceError:
        pass
    else:
        _require(False, subject, "attributes can be set; write @dataclass(frozen=True)")
    kinds = _classes(layer)
    code = re.sub(r"[\w.]+\.<locals>\.", "", repr(layer))
    for kind in kinds:
        if isinstance(kind, type) and not _importable(kind):
            code = code.replace(f"{kind.__module__}.{kind.__qualname__}(", f"{kind.__name__}(")
    if "<" not in code:  # functions without a name, such as lambdas, have no code
        try:
            again = eval(code, _names(layer))
        except Exception as error:
            raise AssertionError(f"{layer.label}: repr is not code that rebuilds the layer: {code}: {error}") from error
        _require(again == layer and hash(again) == hash(layer), subject, f"repr rebuilds a different layer: {code}")
        traces = []
        function = jax.jit(lambda net: traces.append(1))
        function(layer)
        function(again)
        _require(len(traces) == 1, subject, "two equal layers are compiled twice")
    if all(map(_importable, kinds)) and "<" not in code:
        again = pickle.loads(pickle.dumps(layer))
        _require(again == layer and hash(again) == hash(layer), subject, "pickle rebuilds a different layer")


def _shape(subject: Subject) -> None:
    out = subject.layer.out_shape(*subject.shapes)
    for what, y in (("apply", subject.used), ("apply_train", subject.trained[0])):
        found = jax.tree.map(lambda a: tuple(a.shape), y)
        wanted = jax.tree.map(lambda s: (BATCH, *s), out, is_leaf=lambda s: isinstance(s, tuple) and not _nested(s))
        if subject._given is not None:
            wanted = jax.tree.map(lambda n: n, wanted)
            found, wanted = jax.tree.map(lambda s: s[1:], (found, wanted), is_leaf=_flat)
        _require(found == wanted, subject, f"out_shape says {wanted}, {what} gives {found}")


def _initial(subject: Subject) -> None:
    again = Subject(subject.layer, subject.shapes).params
    for path, a, b in _leaves(subject.params, again):
        _require(bool((a == b).all()), subject, f"init gives other values for {path} with the same key")
    for what, tree in (("params", subject.params), ("state", subject.state)):
        _check_nested(subject, what, tree)
    for path, leaf in jax.tree.leaves_with_path(subject.params):
        _require(floating(leaf), subject, f"params{jax.tree_util.keystr(path)} is {leaf.dtype}, not floating point")


def _compiled(subject: Subject) -> None:
    def both(layer: Layer, *given: Any) -> Any:
        return Subject.use(_with(layer), *given), Subject.train(_with(layer), *given)

    made = jax.jit(both)(subject.layer, subject.params, subject.state, subject.inputs)
    _close(subject, "compiled and eager differ", made, (subject.used, subject.trained))
    again = (
        subject.use(subject.params, subject.state, subject.inputs),
        subject.train(subject.params, subject.state, subject.inputs),
    )
    _close(subject, "a second call gives different results", again, (subject.used, subject.trained), rtol=0, atol=0)


def _alone(subject: Subject) -> None:
    def one(*xs: Any) -> Any:
        return jax.tree.map(lambda a: a[0], subject.use(subject.params, subject.state, tuple(x[None] for x in xs)))

    first = tuple(x[:1] for x in subject.inputs)
    alone = subject.use(subject.params, subject.state, first)
    batch = jax.tree.map(lambda a: a[:1], subject.used)
    _close(subject, "at inference an example depends on the others in its batch", alone, batch)
    _close(subject, "vmap over examples differs from the batch", jax.jit(jax.vmap(one))(*subject.inputs), subject.used)


def _ensemble(subject: Subject) -> None:
    if not subject.params:
        return
    keys = (jax.random.key(0), jax.random.key(1))
    members = [subject.layer.init(key, *subject.shapes) for key in keys]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(lambda p: subject.use(p, subject.state, subject.inputs)))(stacked)
    apply = jax.jit(subject.use)
    for i, member in enumerate(members):
        expected = apply(member, subject.state, subject.inputs)
        _close(
            subject, "vmap over params differs from each alone", jax.tree.map(lambda a, i=i: a[i], together), expected
        )


def _state(subject: Subject) -> None:
    _require(
        jax.tree.structure(subject.trained[1]) == jax.tree.structure(subject.state),
        subject,
        f"training returns a state of {jax.tree.structure(subject.trained[1])}, it was given "
        f"{jax.tree.structure(subject.state)}",
    )
    for path, new, old in _leaves(subject.trained[1], subject.state):
        _require(
            (new.shape, new.dtype) == (old.shape, old.dtype),
            subject,
            f"training changes the state {path} from {old.dtype} {format_shape(old.shape)} to {new.dtype} "
            f"{format_shape(new.shape)}",
        )


def _halves(subject: Subject) -> None:
    for dtype in ("bfloat16", "float16"):
        low, state = subject.cast(dtype), subject.state
        used = subject.use(low[0], state, low[1])
        y, new = jax.eval_shape(lambda *given: subject.train(*given), low[0], state, low[1])
        for leaf in jax.tree.leaves((used, y)):
            if floating(leaf):
                _require(leaf.dtype == dtype, subject, f"params and x of {dtype} give y of {leaf.dtype}")
        for path, a, b in _leaves(new, state):
            _require(a.dtype == b.dtype, subject, f"with params and x of {dtype} the state {path} becomes {a.dtype}")
        if dtype == "bfloat16":
            high = jax.tree.map(lambda a: a.astype("float32") if floating(a) else a, low)
            exact = subject.use(high[0], state, high[1])
            # bfloat16 has 8 significant bits; this allows for a handful of successive roundings
            _close(subject, "bfloat16 is far from float32", used, exact, rtol=0, atol=0.03)


def _loops(subject: Subject) -> None:
    params, inputs = subject.params, subject.inputs

    def step(state: Any, _: Any) -> Any:
        y, new = jax.checkpoint(subject.train)(params, state, inputs)
        return new, y

    _, ys = jax.jit(lambda state: jax.lax.scan(step, state, None, length=2))(subject.state)
    first = jax.tree.map(lambda a: a[0], ys)
    _close(subject, "in scan and under checkpoint the results differ", first, subject.trained[0])


def _gradients(subject: Subject) -> None:
    with jax.enable_x64(True):
        wide = subject.wide()
        moving, tree, places, leaves = _moving(wide)
        if not moving:
            return

        def objective(moving: list[Any]) -> Any:
            full = list(leaves)
            for place, leaf in zip(places, moving, strict=True):
                full[place] = leaf
            params, inputs = jax.tree.unflatten(tree, full)
            y, _ = wide.train(params, wide.state, inputs)
            return sum(jnp.vdot(jnp.cos(jnp.arange(a.size)).reshape(a.shape).astype(a.dtype), a) for a in _floats(y))

        compiled = jax.jit(objective)
        _require(compiled(moving).dtype == "float64", subject, "params and x of float64 give narrower numbers")
        gradient = jax.jit(jax.grad(objective))(moving)
        for leaf in gradient:
            _require(bool(np.isfinite(leaf).all()), subject, "a gradient is not finite")
        # small steps along one random direction: the order of values does not change, so no kink is crossed
        draw = np.random.default_rng(5)
        direction = [draw.normal(size=leaf.shape) for leaf in moving]
        numeric = _slope(compiled, moving, direction)
        reverse = sum(np.vdot(g, d) for g, d in zip(gradient, direction, strict=True))
        _, forward = jax.jit(lambda at, along: jax.jvp(objective, (at,), (along,)))(moving, direction)
        scale = sum(float(np.abs(np.asarray(g) * d).sum()) for g, d in zip(gradient, direction, strict=True)) + 1e-6
        _require(
            abs(reverse - numeric) <= 1e-6 * scale,
            subject,
            f"the derivative along one direction is {reverse:.9g} by jax.grad, {numeric:.9g} by finite differences",
        )
        _require(
            abs(forward - reverse) <= 1e-10 * scale,
            subject,
            f"the derivative along one direction is {forward:.12g} by jax.jvp, {reverse:.12g} by jax.grad",
        )


def _twice(subject: Subject) -> None:
    with jax.enable_x64(True):
        wide = subject.wide()
        inputs = [np.asarray(x) for x in wide.inputs]
        if not all(map(floating, inputs)):
            return

        @jax.jit
        def slope(inputs: list[Any]) -> Any:
            def objective(inputs: list[Any]) -> Any:
                y = wide.train(wide.params, wide.state, tuple(inputs))[0]
                return sum(jnp.sum(jnp.sin(a)) for a in _floats(y))

            return jax.grad(objective)(inputs)

        direction = [np.cos(np.arange(x.size)).reshape(x.shape) for x in inputs]
        _, product = jax.jit(lambda at, along: jax.jvp(slope, (at,), (along,)))(inputs, direction)
        step = 1e-6
        up, down = (slope([x + sign * step * d for x, d in zip(inputs, direction, strict=True)]) for sign in (1, -1))
        numeric = [(a - b) / (2 * step) for a, b in zip(up, down, strict=True)]
        what = "the derivative of the gradient, forward over reverse, differs from finite differences"
        _close(subject, what, product, numeric, rtol=1e-5, atol=1e-6)


#: the checks that compare gradients
GRADIENTS: tuple[Callable[[Subject], None], ...] = (_gradients, _twice)
#: all checks, in order
CHECKS: tuple[Callable[[Subject], None], ...] = (
    _value, _shape, _initial, _compiled, _alone, _ensemble, _state, _halves, _loops, *GRADIENTS,
)  # fmt: skip


def _require(holds: bool, subject: Subject, what: str) -> None:
    if not holds:
        raise AssertionError(f"{subject.layer.label}: {what}")


def _close(subject: Subject, what: str, found: Any, wanted: Any, rtol: float = 2e-5, atol: float = 2e-6) -> None:
    """Raise unless all arrays are close; if ``rtol`` is 0, ``atol`` is relative to the largest value."""
    for path, a, b in _leaves(found, wanted):
        a, b = (np.asarray(v, "float64") if jnp.issubdtype(v.dtype, jnp.floating) else np.asarray(v) for v in (a, b))
        _require(
            a.shape == b.shape,
            subject,
            f"{what}: shapes {format_shape(a.shape)} and {format_shape(b.shape)} at {path or 'y'}",
        )
        largest = float(np.abs(b).max(initial=0, where=np.isfinite(b))) if b.dtype.kind == "f" else 0.0
        room = atol * largest + 1e-6 * bool(atol) if rtol == 0 else atol
        if not np.allclose(a, b, rtol=rtol, atol=room, equal_nan=True):
            worst = np.unravel_index(int(np.argmax(np.abs(np.nan_to_num(a) - np.nan_to_num(b)))), a.shape)
            place = list(map(int, worst))
            raise AssertionError(f"{subject.layer.label}: {what}: {a[worst]} and {b[worst]} at {path or 'y'}{place}")


def _leaves(a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    pairs = zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True)
    return [(jax.tree_util.keystr(path), x, y) for (path, x), y in pairs]


def _check_nested(subject: Subject, what: str, tree: Any) -> None:
    _require(type(tree) is dict, subject, f"{what} hold a {type(tree).__name__}; they are nested dicts of arrays")
    for name, entry in tree.items():
        if not isinstance(entry, jax.Array):
            _require(bool(entry), subject, f"{what} have an empty entry {name!r}")
            _check_nested(subject, what, entry)


def _classes(layer: Layer) -> list[Any]:
    """The classes of a layer and its parts, and the functions among its hyperparameters."""
    left: list[Any] = [layer]
    seen: list[Any] = []
    while left:
        value = left.pop()
        if isinstance(value, tuple):
            left.extend(value)
        elif isinstance(value, Layer):
            seen.append(type(value))
            left.extend(getattr(value, field.name) for field in fields(value))  # type: ignore[arg-type]
        elif isinstance(value, functools.partial):
            left.extend((value.func, *value.args, *value.keywords.values()))
        elif callable(value) and getattr(value, "__module__", None) in sys.modules:
            seen.append(value)
    return seen


def _importable(value: Any) -> bool:
    return names.public(value) is not None


def _names(layer: Layer) -> dict[str, Any]:
    """The names that a layer's code may use: the library, and the modules of its class and of those of its parts."""
    found: dict[str, Any] = {"functools": functools, "jax": jax, "numpy": np}
    kinds = _classes(layer)
    for kind in kinds:
        top = kind.__module__.split(".")[0]
        found |= {top: sys.modules[top]}
        if top not in ("fcnn", "jax"):
            found |= vars(sys.modules[kind.__module__])
    found |= {kind.__name__: kind for kind in kinds if isinstance(kind, type) and not _importable(kind)}
    return found | {"fcnn": sys.modules["fcnn"]}


def _with(layer: Layer) -> Subject:
    return Subject(layer, ())


def _floats(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if floating(leaf)]


def _flat(shape: Any) -> bool:
    return isinstance(shape, tuple) and not _nested(shape)


def _nested(shape: Any) -> bool:
    return any(isinstance(size, (tuple, list, dict)) for size in shape)


def _moving(subject: Subject) -> tuple[list[Any], Any, list[int], list[Any]]:
    """The floating-point leaves of params and inputs, and what is needed to put them back."""
    leaves, tree = jax.tree.flatten((subject.params, subject.inputs))
    places = [i for i, leaf in enumerate(leaves) if floating(leaf)]
    return [np.asarray(leaves[i]) for i in places], tree, places, leaves


def _slope(function: Callable[..., Any], at: list[Any], along: list[Any], step: float = 1e-6) -> float:
    up, down = (function([a + sign * step * d for a, d in zip(at, along, strict=True)]) for sign in (1, -1))
    return float((up - down) / (2 * step))
