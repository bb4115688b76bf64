"""Networks as StableHLO programs, which run without fcnn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..checks import check_mapping
from ..compose.parts import lift
from ..errors import layer_path
from ..geometry import Shape, check_shape
from ..paths import path_of
from ..types import Params, State
from .atomic import write_bytes

#: the platforms that a program is made for unless others are asked for
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export(
    net: Any,
    params: Params,
    state: State | None,
    *shapes: Shape,
    path: str | os.PathLike[str] | None = None,
    batch: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> Any:
    r"""Turn a network with its weights into one program for several platforms, for any number of examples.

    The program is StableHLO with the weights as constants. Another process runs it with JAX alone:

        program = jax.export.deserialize(bytearray(open("net.stablehlo", "rb").read()))
        y = program.call(x)

    Algorithms are chosen for the platform where the program runs. It can be run by later versions of JAX for at least
    six months, as ``jax.export`` promises.

    Args:
        net: the network.
        params: its parameters.
        state: its state; None or {} where it has none.
        shapes: shape of one example of every input, (\*space, channels).
        path: a file for the program, which is written whole or not at all; it needs the package flatbuffers.
        batch: number of examples; None: any, chosen with every call.
        platforms: what the program can run on.

    Returns:
        The ``jax.export.Exported``: ``.call(x)``, ``.serialize()``, ``.mlir_module()``.

    Raises:
        ValueError: a platform that JAX does not know, shapes that do not suit the network, or a network that needs to
            know the number of examples, where ``batch`` is None.
        ImportError: a path, and flatbuffers is not installed.

    Example:
        >>> net = fcnn.models.lenet5()
        >>> params = net.init(jax.random.key(0), (28, 28, 1))
        >>> program = export(net, params, None, (28, 28, 1))
        >>> program.call(jnp.ones((3, 28, 28, 1))).shape, program.platforms
        ((3, 10), ('cpu', 'cuda', 'rocm', 'tpu'))
    """
    with layer_path("export"):
        net = lift(net)
        params, state = check_mapping("params", params), check_mapping("state", state or {})
        if not shapes:
            raise ValueError("there is no shape; give the shape of one example of every input, (*space, channels)")
        for platform in platforms:
            if platform not in PLATFORMS:
                raise ValueError(f"platform {platform!r} is unknown; use some of {', '.join(map(repr, PLATFORMS))}")
        count: Any = batch
        if batch is None:
            (count,) = jax.export.symbolic_shape("batch")
        checked = [check_shape(shape) for shape in shapes]
        inputs = [jax.ShapeDtypeStruct((count, *shape), jnp.zeros(()).dtype) for shape in checked]
    net.out_shape(*checked)
    function = jax.jit(lambda *xs: net.apply(params, *xs, state=state))
    program = jax.export.export(function, platforms=list(platforms))(*inputs)
    if path is not None:
        write_bytes(path_of(path), _serialized(program))
    return program


def _serialized(program: Any) -> bytes:
    try:
        return bytes(program.serialize())
    except ImportError as error:
        raise ImportError(
            "export: programs are written with flatbuffers, which is not installed: pip install 'fcnn[interop]'"
        ) from error
