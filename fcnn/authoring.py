"""Checks of the code that the author of a layer writes, with errors in the author's own terms."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from . import elsewhere
from .errors import format_shape
from .geometry import Shape
from .types import Parameter

#: the arguments that a layer's methods are called with, besides self
_ARGUMENTS = {
    "infer_shape": "shape",
    "parameters": "shape",
    "statistics": "shape",
    "forward": "params, x",
    "forward_train": "params, state, key, x",
    "forward_eval": "params, state, x",
}


def guard(cls: Any, base: Any) -> None:
    """Wrap the methods that the author of a class wrote in checks."""
    if "__post_init__" in cls.__dict__:
        cls.__post_init__ = _with_checks(cls.__dict__["__post_init__"], base)
    for method in ("parameters", "forward"):
        if method in cls.__dict__:
            setattr(cls, method, _with_inputs(cls.__dict__[method]))


def _with_checks(own: Any, base: Any) -> Any:
    """A layer's own ``__post_init__``, followed by the checks of every layer, even without a call of super()."""

    @functools.wraps(own)
    def post_init(self: Any, *args: Any) -> None:
        own(self, *args)
        base.__post_init__(self)

    return post_init


def _with_inputs(own: Any) -> Any:
    """``parameters`` and ``forward`` of layers with several inputs: any number of inputs, but at least one."""
    code = getattr(own, "__code__", None)
    if code is None or not code.co_flags & inspect.CO_VARARGS:
        return own  # Python's own error names the missing argument
    least = 1 if own.__name__ == "parameters" else 2

    @functools.wraps(own)
    def method(self: Any, *args: Any) -> Any:
        if len(args) < least:
            refuse(own.__name__)
        return own(self, *args)

    return method


def refuse(method: str) -> NoReturn:
    """Raise with what to write instead of ``net.parameters()`` and ``net.forward(x)``."""
    if method == "parameters":
        raise TypeError("parameters takes the shape of one example; " + (elsewhere.method("params") or ""))
    raise TypeError("forward takes params and x; to compute a network write net.apply(params, x)")


def check_class(cls: type, base: type) -> None:
    """Raise unless a layer class is a frozen dataclass whose fields hide no method of the base class."""
    name, settings = cls.__name__, getattr(cls, "__dataclass_params__", None)
    if settings is None or not settings.frozen:
        raise TypeError(f"the layer {name} is not a frozen dataclass; write @dataclass(frozen=True) above its class")
    if "__dataclass_params__" not in cls.__dict__:
        annotated = [field for field, kind in _annotations(cls).items() if "ClassVar" not in str(kind)]
        if annotated:
            raise TypeError(
                f"the layer {name} is not a frozen dataclass itself, so {' and '.join(annotated)} would be no "
                "hyperparameter; write @dataclass(frozen=True) above its class"
            )
    for field in dataclasses.fields(cls):
        if field.name in vars(base):
            raise TypeError(
                f"the layer {name} has a field {field.name!r}, which is the name of an attribute of every layer; "
                f"give it another name, or, for a constant of the class, write {field.name}: ClassVar"
            )


def check_arguments(cls: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Raise where a layer is constructed with unknown arguments, and say what they are called here."""
    taken = [field for field in cls.__dataclass_fields__.values() if field.init]
    accepted, places = {field.name for field in taken}, sum(not field.kw_only for field in taken)
    if options.keys() <= accepted and len(args) <= places:
        return
    try:
        inspect.signature(cls.__init__).bind(None, *args, **options)
        return  # it has an __init__ of its own
    except TypeError:
        name = cls.__name__
        known = tuple(
            field.name for field in sorted(dataclasses.fields(cls), key=lambda f: bool(f.kw_only)) if field.init
        )
        for option, value in options.items():
            if option not in accepted:
                said = elsewhere.option(option, value, known)
                raise TypeError(f"{name} has no argument {option}; {said}") from None
        taken_by_place = f"{places} value{'s' * (places != 1)}" if places else "no values"
        said = elsewhere.by_position(name, args, known)
        raise TypeError(f"{name} takes {taken_by_place} by position, {len(args)} were given; {said}") from None


def _annotations(cls: type) -> dict[str, Any]:
    try:
        return inspect.get_annotations(cls)
    except NameError:  # an annotation uses a name that is imported only for type checkers
        return {}


def check_hyperparameter(name: str, value: Any) -> None:
    """Raise unless a value can be hashed."""
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{name} is a {type(value).__name__}, which cannot be hashed; hyperparameters are plain "
            "values: use a tuple for a list, and make arrays parameters"
        ) from None


def asked(layer: Any, method: str, *args: Any) -> Any:
    """Call one of a layer's own methods; explain the author's usual mistakes.

    Raises:
        TypeError: the method does not take the arguments that it is called with.
        ValueError: ``forward_train`` draws random numbers, but ``needs_key`` returns False, so there is no key.
    """
    try:
        return getattr(layer, method)(*args)
    except Exception as error:
        if isinstance(error, TypeError):
            _check_signature(layer, method, args)
        if method == "forward_train" and args[2] is None and not layer.needs_key() and _works_with_a_key(layer, args):
            raise ValueError(
                f"forward_train of {type(layer).__name__} draws random numbers, but needs_key does not say so, and it "
                "was given no key; add def needs_key(self): return True"
            ) from error
        raise


def _check_signature(layer: Any, method: str, args: tuple[Any, ...]) -> None:
    # forward_train and forward_eval of the base class call forward
    calls = [(method, args)]
    if method.startswith("forward_"):
        calls.append(("forward", (args[0], *args[3 if method == "forward_train" else 2 :])))
    for name, given in calls:
        signature = inspect.signature(getattr(layer, name))
        try:
            signature.bind(*given)
        except TypeError:
            inputs = ", ".join(["x", *(f"x{i}" for i in range(2, len(given)))][: len(given)])
            wanted = _ARGUMENTS[name] if layer.inputs == 1 else _ARGUMENTS[name].replace("x", inputs)
            own = ", ".join(map(str, signature.parameters.values()))
            raise TypeError(
                f"{name} of {type(layer).__name__} takes ({own}), but is called with {len(given)} arguments; "
                f"write def {name}(self, {wanted})"
            ) from None


def _works_with_a_key(layer: Any, args: tuple[Any, ...]) -> bool:
    params, state, _, *inputs = args
    try:
        jax.eval_shape(lambda *given: layer.forward_train(*given), params, state, jax.random.key(0), *inputs)
    except Exception:
        return False
    return True


def mapping(method: Callable[..., Any], name: str, *args: Any) -> Mapping[str, Any]:
    """The dict that a method returns. ``check`` may return None, which counts as an empty dict."""
    found = method(*args)
    if found is None and name == "check":
        return {}
    if not isinstance(found, Mapping):
        what = "from the names of hyperparameters to their values" if name == "check" else _DICT
        raise TypeError(f"{name} returned a {type(found).__name__}; it must return a dict {what}")
    return found


_DICT = 'from names to fcnn.Parameter(shape, init), such as {"scale": fcnn.Parameter((8,), jax.nn.initializers.ones)}'


def declared(layer: Any, method: str, shapes: tuple[Shape, ...]) -> dict[str, Parameter]:
    """The entries that ``parameters`` or ``statistics`` declares for inputs of these shapes."""
    found = dict(mapping(lambda: asked(layer, method, *shapes), method))
    for name, parameter in found.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise TypeError(f"{method} has an entry named {name!r}; a name is a string without a slash")
        if not isinstance(parameter, Parameter):
            what = f"an array of {format_shape(parameter.shape)}" if hasattr(parameter, "shape") else f"{parameter!r}"
            raise TypeError(f"{method} gives {name!r} as {what}; it must return a dict {_DICT}")
        if not _sizes(parameter.shape):
            raise TypeError(f"{method} gives {name!r} the shape {parameter.shape!r}; a shape is a tuple such as (8,)")
        if not callable(parameter.init):
            raise TypeError(
                f"{method} gives {name!r} the initialiser {parameter.init!r}; an initialiser is a function "
                "(key, shape, dtype), such as jax.nn.initializers.he_normal()"
            )
    return found


def check_output(layer: Any, method: str, y: Any, out: Any, batch: int) -> None:
    """Raise unless an output has the batch first and the shape that ``infer_shape`` gives."""
    # the base class's methods call forward
    own = method if method in _own(layer) else "forward"
    shapes = jax.tree.leaves_with_path(out, is_leaf=_sizes)
    if not shapes or not all(_sizes(shape) for _, shape in shapes):
        raise TypeError(f"infer_shape returned {out!r}; infer_shape must return a tuple of whole numbers")
    leaves = jax.tree.leaves_with_path(y)
    if not leaves or not all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for _, leaf in leaves):
        raise TypeError(f"{own} returned a {type(y).__name__}; {own} must return an array (batch, *space, channels)")
    if [jax.tree_util.keystr(path) for path, _ in leaves] != [jax.tree_util.keystr(path) for path, _ in shapes]:
        said = "an array" if hasattr(y, "shape") else f"a {type(y).__name__}"
        raise TypeError(f"{own} returned {said}, but infer_shape says {out}; correct the one that is wrong")
    for (_, leaf), (_, shape) in zip(leaves, shapes, strict=True):
        if not leaf.shape or _differ(leaf.shape[:1], (batch,)):
            raise ValueError(
                f"{own} returned an array of {format_shape(leaf.shape)} for a batch of {batch}; "
                "the first axis of the output must be the batch"
            )
        if _differ(leaf.shape[1:], shape):
            raise ValueError(
                f"infer_shape says {format_shape(tuple(shape))} for one example, "
                f"but {own} returned {format_shape(tuple(leaf.shape[1:]))}; correct the one that is wrong"
            )


def _sizes(value: Any) -> bool:
    """Whether value is one shape: a tuple or list of Python or NumPy integers, or of symbolic sizes."""
    return isinstance(value, (tuple, list)) and not any(
        size is None or isinstance(size, (tuple, list, dict, str, float, bool)) for size in value
    )


def _differ(a: Sequence[Any], b: Sequence[Any]) -> bool:
    if len(a) != len(b):
        return True
    # symbolic sizes cannot always be compared
    return any(isinstance(m, Integral) and isinstance(n, Integral) and m != n for m, n in zip(a, b, strict=True))


def _own(layer: Any) -> set[str]:
    """The methods defined by a layer's class, or by a class between it and the base class."""
    mro = type(layer).__mro__
    base = next(i for i, cls in enumerate(mro) if cls.__module__ == "fcnn.layer")
    return {name for cls in mro[:base] for name in vars(cls)}


def check_new_state(new: Any, old: Mapping[str, Any], statistics: Mapping[str, Parameter]) -> None:
    """Raise unless the state that ``forward_train`` returned has the structure of the one that it was given."""
    if not isinstance(new, Mapping):
        raise TypeError(f"forward_train returned a {type(new).__name__} as state; it must return the pair (y, state)")
    if new.keys() != statistics.keys():
        raise ValueError(
            f"forward_train returned a state of {_listed(new)}, but statistics declares {_listed(statistics)}; "
            "return a value for each"
        )
    for name, parameter in statistics.items():
        value = new[name]
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            raise TypeError(f"forward_train returned a state whose {name} is a {type(value).__name__}, not an array")
        if tuple(value.shape) != tuple(parameter.shape):
            raise ValueError(
                f"forward_train returned a state whose {name} has shape {format_shape(tuple(value.shape))}, "
                f"but statistics declares {format_shape(tuple(parameter.shape))}"
            )
        if jnp.issubdtype(value.dtype, jnp.floating) != jnp.issubdtype(old[name].dtype, jnp.floating):
            raise TypeError(
                f"forward_train returned a state whose {name} has become {value.dtype} from {old[name].dtype}; "
                "loops cannot carry it: convert it back"
            )


def _listed(entries: Mapping[str, Any]) -> str:
    return " and ".join(map(repr, entries)) or "no entries"
