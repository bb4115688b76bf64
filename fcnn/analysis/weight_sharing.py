"""The gradient of a shared kernel, decomposed into the contributions of all its uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import getitem
from typing import Any

import jax
import jax.numpy as jnp

from ..checks import check_inputs, check_mapping
from ..compose.parts import lift
from ..compose.remat import Remat
from ..compose.repeat import Repeat
from ..context import Kept, LayerOutput, Observed
from ..errors import format_shape, layer_path
from ..geometry import Shape, integer
from ..layer import Context, Layer
from ..scan import Scan
from ..scan.fields import AtPositions
from ..types import Params, State
from .shares import OWN, kernel_of, share
from .targets import check_targets


def gradient_by_use(
    net: Layer,
    params: Params,
    x: Any,
    y: Any,
    layer: str,
    *,
    loss: Callable[[Any, Any], Any] | None = None,
    state: State | None = None,
    use: int | None = None,
) -> jax.Array:
    r"""The contribution of every position to the gradient of a shared kernel.

    A weight w shared by a set S of uses has the gradient

    .. math:: \frac{\partial L}{\partial w} = \sum_{e \in S} \frac{\partial L}{\partial w_e}

    and this function returns the terms. For a convolution, the share of position i is its input samples times the
    gradient of the loss with respect to its output, summed over the batch,

    .. math:: \frac{\partial L}{\partial w_{i, j, c, o}} = \sum_n x_{n,\, s i + d j - p,\, c}
        \; \frac{\partial L}{\partial y_{n, i, o}}

    which is the gradient that the kernel of that position would have if nothing were shared.

    A layer of a ``graph`` has one use for each call. If the wiring reads ``layer.params``, this is one more use, the
    last, without positions: the gradient that remains when the parameters of the calls are held constant.

    Args:
        net: the network.
        params: its parameters.
        x: input, or a tuple of inputs.
        y: targets.
        layer: path of a ``Conv``, ``ConvTranspose``, ``Dense`` or ``LocallyConnected``, or of a layer of your own that
            has a ``kernel`` and states by ``locality`` that it looks at each position or slides a window; as in params
            and ``capture``: ``"residual1/body/conv2"``.
        loss: (outputs, targets) to one number per example, or one for the batch; None: softmax cross-entropy with
            integer labels. The mean over the batch is differentiated, as in ``check_gradients``.
        state: the network's state, if it has one.
        use: for a layer with several uses, the index of one of them, from 0; None: all.

    Returns:
        An array (uses, copies, \*positions, \*kernel shape). The axis of uses is present if there are several and
        ``use`` is None, the axis of copies inside ``repeat``. Positions are those of the output for convolutions, the
        space of the input for ``Dense``, and inside ``Scan`` those that are computed once for all windows. (A ``graph``
        inside ``Scan`` has them as its batch, so their shares are summed.) A locally connected layer shares nothing;
        the result is its gradient. The sum over uses and positions equals ``jax.grad``, up to rounding. The function is
        pure: it can be jitted.

    Raises:
        ValueError: if the path is not in the network, the layer has no kernel or its geometry is unknown, the use does
            not exist, or all uses are requested and their positions differ.
        TypeError: if the path is not a string, or the use is not an integer.

    Source:
        LeCun et al., "Backpropagation applied to handwritten zip code recognition", 1989, for the sum over uses.

    Example:
        >>> import fcnn
        >>> params = {"kernel": jnp.array([0.3, 0.5]).reshape(2, 1, 1)}
        >>> x, slope = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1), jnp.array([-0.1, 0.2]).reshape(1, 2, 1)
        >>> net, loss = fcnn.Conv(1, 2, bias=False), lambda out, slope: (out * slope).sum()
        >>> shares = gradient_by_use(net, params, x, slope, "conv", loss=loss)[:, :, 0, 0]
        >>> shares.round(3).tolist(), shares.sum(0).round(3).tolist()    # positions by kernel samples
        ([[-0.10000000149011612, -0.20000000298023224], [0.4000000059604645, 0.6000000238418579]],
         [0.30000001192092896, 0.4000000059604645])
    """
    with layer_path("gradient_by_use"):
        net = lift(net)
        inputs = tuple(x) if isinstance(x, (tuple, list)) else (x,)
        check_inputs(inputs)
        params, state = check_mapping("params", params), check_mapping("state", {} if state is None else state)
        if not isinstance(layer, str):
            raise TypeError(f"layer is the path of a layer such as 'conv1', a string, not {layer!r}")
        use = None if use is None else integer(use, "use", 0)
    walk, (params, states), uses, outputs = _rehearsed(net, params, state, inputs)
    with layer_path("gradient_by_use"):
        calls = _calls(uses, layer)
        targets, measured = check_targets(y, outputs, loss)
    steps = layer.split("/")
    own = reduce(getitem, steps, params)
    own_state = reduce(lambda tree, step: tree.get(step, {}), steps, states)

    def objective(kernel: Any, perturbations: dict[str, jax.Array]) -> Any:
        out, kept = walk(_replaced(params, [*steps, "kernel"], kernel), inputs, perturbations)
        seen = {use.path: use.value[0][0] for use in kept if use.path in perturbations}
        return jnp.mean(measured(out, targets)), seen

    perturbations = {call.path: jnp.zeros(call.value[1].shape, call.value[1].dtype) for call in calls}
    reads = _reaches(lambda kernel: objective(kernel, perturbations)[0], own["kernel"])
    with layer_path("gradient_by_use"):
        wanted = _wanted(use, layer, calls, reads)
    (read, slopes), seen = jax.grad(objective, (0, 1), has_aux=True)(own["kernel"], perturbations)
    shares = []
    for i in wanted:
        if i == len(calls):
            shares.append(read)
            continue
        call, of_one = calls[i], partial(share, calls[i].layer)
        for _ in call.copies:
            of_one = jax.vmap(of_one)
        found = of_one(own, own_state, seen[call.path], slopes[call.path]).astype(read.dtype)
        copies = len(call.copies) + _repeats(call.layer)
        # a scanned dense layer runs as a convolution, whose kernel has more axes
        shares.append(found.reshape(*found.shape[:copies], *_positions(call), *read.shape[copies:]))
    return jnp.stack(shares) if len(shares) > 1 else shares[0]


# Where the uses of a layer are.


def _rehearsed(
    net: Layer, params: Params, state: State, inputs: Any
) -> tuple[Callable[..., Any], tuple[Params, State], list[Kept], Any]:
    """A forward pass that can perturb outputs; the params and state for it, the uses of layers, and the outputs."""

    def walk(alone: bool, params: Any, inputs: Any, perturbations: dict[str, jax.Array]) -> Any:
        """The outputs, and for each use of a layer its inputs and its unperturbed output."""

        def observer(seen: LayerOutput) -> Observed:
            change = perturbations.get(seen.path)
            if change is None:
                return Observed((seen.inputs, seen.output))
            for index in seen.indices:
                change = change[index]
            return Observed((seen.inputs, seen.output), seen.output + change)

        context = Context(train=False, observer=observer, constant=frozenset(perturbations))
        if not alone:
            return net.start_walk(context, params, state, inputs)[0], context.kept
        arrays = tuple(map(jnp.asarray, inputs))
        return context.part(net.label, net, params, {net.label: state}, arrays)[0], context.kept

    def shapes(alone: bool, params: Any) -> tuple[Any, list[Kept]]:
        uses: list[Kept] = []

        def values(params: Any, inputs: Any) -> Any:
            outputs, kept = walk(alone, params, inputs, {})
            uses.extend(kept)
            return outputs, [use.value for use in kept]

        outputs, found = jax.eval_shape(values, params, inputs)
        return outputs, [use._replace(value=value) for use, value in zip(uses, found, strict=True)]

    outputs, uses = shapes(False, params)
    if any(use.path for use in uses):
        return partial(walk, False), (params, state), uses, outputs
    params = {net.label: params}  # a single layer has no path; treat it as the only part of a network
    outputs, uses = shapes(True, params)
    return partial(walk, True), (params, {net.label: state}), uses, outputs


def _calls(uses: list[Kept], layer: str) -> list[Kept]:
    """The uses of a layer, in the order of computation."""
    calls = [use for use in uses if _home(use.path) == layer]
    if calls and _shared(calls[0]) is not None:
        return calls
    if calls and isinstance(calls[0].layer, Scan):
        raise ValueError(
            f"{layer} scans a single layer, whose kernel has no path of its own; make it a part, "
            f"fcnn.Scan(fcnn.serial(...), ...), and ask for it as '{layer}/...'"
        )
    known = ", ".join(dict.fromkeys(_home(use.path) for use in uses if _shared(use) is not None))
    if calls:
        way_out = f"the layers that have one are {known}" if known else "no layer of this network has one"
        raise ValueError(
            f"{layer} ({calls[0].layer!r}) has no kernel that is known to be applied at positions or windows; "
            f"{way_out}, and a layer of your own states it by locality"
        )
    if "#" in layer:
        raise ValueError(
            f"{layer!r} is a use of a layer, not a layer; write layer={_home(layer)!r}, and use=1 for the second use"
        )
    raise ValueError(f"the network has no layer {layer!r}; its layers with a kernel are {known or 'none'}")


def _home(path: str) -> str:
    """The path of a use as in params: the second use of a layer has the params of the first."""
    return "/".join(step.split("#")[0] for step in path.split("/"))


def _shared(call: Kept) -> str | None:
    """How the positions of a use share the kernel, see :func:`kernel_of`."""
    inputs = call.value[0]
    return kernel_of(call.layer, inputs[0].shape[len(call.copies) + 1 :]) if len(inputs) == 1 else None


def _repeats(layer: Layer) -> int:
    """The number of copy axes of a bare layer inside repeat."""
    count = 0
    while isinstance(layer, (Remat, Repeat)):
        count += isinstance(layer, Repeat)
        layer = layer.layer
    return count


def _wanted(use: int | None, layer: str, calls: list[Kept], reads: bool) -> Sequence[int]:
    """The indices of the requested uses."""
    uses = [(call.path, _positions(call)) for call in calls]
    uses += [(f"reading layer.params of {layer}", ())] * reads
    listed = ", ".join(
        f"use={i} ({name}, positions {format_shape(positions)})" for i, (name, positions) in enumerate(uses)
    )
    if use is not None:
        if use >= len(uses):
            raise ValueError(f"there is no use={use} of {layer}; there {'are' if len(uses) > 1 else 'is'} {listed}")
        return [use]
    if len({positions for _, positions in uses}) > 1:
        raise ValueError(
            f"the uses of {layer} have different positions and do not form one array; choose one of {listed}"
        )
    return range(len(uses))


def _positions(call: Kept) -> Shape:
    positions = tuple(call.value[1].shape[len(call.copies) + 1 : -1])
    if _shared(call) != OWN:
        return positions
    # its kernel already has the positions, except those of a surrounding scan
    return call.layer.keep if isinstance(call.layer, AtPositions) else ()


def _reaches(function: Callable[[Any], Any], argument: Any) -> bool:
    """Whether a gradient could flow from the result to the argument; nothing is computed."""
    found = []

    probe: Any = jax.custom_jvp(lambda value: value)

    def rule(primals: Any, tangents: Any) -> Any:
        found.append(True)  # JAX calls the rule only if there is a tangent
        return primals[0], tangents[0]

    probe.defjvp(rule)
    jax.eval_shape(jax.grad(lambda value: probe(function(value))), argument)
    return bool(found)


def _replaced(tree: Params, steps: list[str], value: Any) -> Any:
    """The tree with the array at a path replaced."""
    if not steps:
        return value
    return {**tree, steps[0]: _replaced(tree[steps[0]], steps[1:], value)}
