"""Errors with the path of the layer in front of the message.

Every check in fcnn raises a plain ``ValueError`` or ``TypeError``. On the way out of a network each level
adds its name, so that the user reads ``residual1/body/conv2: kernel (5, 5) does not fit ...``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def layer_path(name: str) -> Iterator[None]:
    """Put ``name`` in front of the path of any error raised inside.

    A plain ``ValueError`` or ``TypeError`` is changed in place, which preserves its type and its traceback.
    Errors of other types may build their text in their own way; they get a note instead.

    Example:
        >>> try:
        ...     with layer_path("body"), layer_path("conv1"):
        ...         raise ValueError("groups 3 do not divide 4 channels")
        ... except ValueError as error:
        ...     print(error)
        body/conv1: groups 3 do not divide 4 channels
    """
    try:
        yield
    except Exception as error:
        _locate(error, name)
        raise


@contextmanager
def outermost_path(name: str) -> Iterator[None]:
    """Name the outermost layer, but only where the error has no path yet."""
    try:
        yield
    except RecursionError as error:
        limit, path = sys.getrecursionlimit(), "/".join((name, *getattr(error, "fcnn_path", ())[:2]))
        raise RecursionError(
            f"{path}/...: the network is nested too deeply for Python's limit of {limit} calls; put blocks that follow "
            "one another side by side in one serial, equal ones into fcnn.repeat(block, n), or raise the limit by "
            f"sys.setrecursionlimit({10 * limit})"
        ) from None
    except Exception as error:
        if getattr(error, "fcnn_path", None) is None:
            _locate(error, name)
        raise


def _locate(error: Exception, name: str) -> None:
    path: tuple[str, ...] = getattr(error, "fcnn_path", ())
    if type(error) in (ValueError, TypeError):
        message = getattr(error, "fcnn_message", None) or str(error)
        error.fcnn_message = message  # type: ignore[attr-defined]
        error.args = (f"{'/'.join((name, *path))}: {message}",)
    elif not path:
        error.add_note(f"raised in the layer {name}")
    error.fcnn_path = (name, *path)  # type: ignore[attr-defined]


def format_shape(shape: tuple[int, ...]) -> str:
    """A shape in the usual notation: ``(28, 28, 1)``.

    Example:
        >>> format_shape((28, 28, 1))
        '(28, 28, 1)'
    """
    return "(" + ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def described(value: Any) -> str:
    """Describe a value in words, for error messages."""
    if hasattr(value, "shape"):
        return f"an array of {format_shape(tuple(value.shape))}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return f"{value!r} of type {type(value).__name__}"
    return f"a {type(value).__name__}"


def refuse_traced(value: Any, name: str) -> None:
    """Raise if a hyperparameter, or an element of a tuple or list, is a traced value.

    Raises:
        TypeError: the value is traced.
    """
    if isinstance(value, (tuple, list)):
        for part in value:
            refuse_traced(part, name)
    elif hasattr(value, "aval"):
        from jax.core import Tracer

        if isinstance(value, Tracer):
            raise TypeError(
                f"{name} is traced ({value!r}), but it must be a number that is known before anything is computed; "
                "do not pass it through jax.jit, jax.eval_shape, jax.vmap or jax.grad: close over it, such as "
                "jax.eval_shape(lambda key: net.init(key, shape), key), or bind it, functools.partial(net.init, "
                "shape=shape)"
            )
