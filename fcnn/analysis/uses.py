"""The gradient of a shared kernel, taken apart into the shares of all its uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import prod
from operator import getitem
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .. import geometry
from ..compose.parts import lift
from ..compose.remat import Remat
from ..compose.repeat import Repeat
from ..context import Kept, LayerOutput, Observed
from ..errors import at, shown
from ..geometry import Shape, integer
from ..given import Params, State, check_inputs, check_mapping
from ..identity import nearest
from ..layer import Context, Layer
from ..layers.conv import Conv, ConvTranspose, LocallyConnected
from ..layers.dense import Dense
from ..ops.dtypes import common, together
from ..ops.windows import patches, unpad
from ..scan import Scan
from ..scan.fields import AtPositions, Cropped, cropped
from ..transposed import folded, transposed
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
    r"""The share of every position in the gradient of a shared kernel.

    A weight w that a set S of uses shares has the gradient

    .. math:: \frac{\partial L}{\partial w} = \sum_{e \in S} \frac{\partial L}{\partial w_e}

    and this function gives the terms. For a convolution, the share of position i is what it sees there times the
    gradient of the loss at its output there, summed over the batch,

    .. math:: \frac{\partial L}{\partial w_{i, j, c, o}} = \sum_n x_{n,\, s i + d j - p,\, c}
        \; \frac{\partial L}{\partial y_{n, i, o}}

    which is the gradient that the kernel of that position would have if nothing were shared.

    A layer of a ``graph`` has a use for each call; and what the wiring reads from ``layer.params`` is one use more,
    the last, without positions: the gradient that is left when the parameters of the calls are held constant.

    Args:
        net: the network.
        params: its parameters.
        x: input, or a tuple of inputs.
        y: targets.
        layer: path of a ``Conv``, ``ConvTranspose``, ``Dense`` or ``LocallyConnected``, as in params and ``capture``:
            ``"residual1/body/conv2"``.
        loss: (outputs, targets) to one number for each example, or one for the batch; None: softmax cross-entropy
            with integer labels. The mean over the batch is differentiated, as in ``check_gradients``.
        state: the network's state, where it has one.
        use: of a layer with several uses, the one that is wanted, from 0; None: all.

    Returns:
        An array (uses, copies, \*positions, \*kernel shape). There is an axis of uses where there are several and
        ``use`` is None, and an axis of copies inside ``repeat``. Positions are those of the output for convolutions,
        the space of the input for ``Dense``, and inside ``Scan`` those that are computed once for all windows (but in a
        ``graph``, which has them as its batch: their shares are summed); a locally connected layer shares nothing, and
        has its gradient here. The sum over uses and positions is what
        ``jax.grad`` gives, up to rounding. A pure function: it can be jitted.

    Raises:
        ValueError: a path that is not in the network, a layer without a kernel or with one that moves in a way that
            is not known, a use that there is not, or all uses where they have different positions.
        TypeError: a path that is no string, or a use that is no whole number.

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
    with at("gradient_by_use"):
        net = lift(net)
        inputs = tuple(x) if isinstance(x, (tuple, list)) else (x,)
        check_inputs(inputs)
        params, state = check_mapping("params", params), check_mapping("state", {} if state is None else state)
        if not isinstance(layer, str):
            raise TypeError(f"layer is the path of a layer such as 'conv1', a string, not {layer!r}")
        use = None if use is None else integer(use, "use", 0)
    walk, params, uses, outputs = _rehearsed(net, params, state, inputs)
    with at("gradient_by_use"):
        calls = _calls(uses, layer)
        targets, measured = check_targets(y, outputs, loss)
    steps = layer.split("/")
    own = reduce(getitem, steps, params)

    def objective(kernel: Any, perturbations: dict[str, jax.Array]) -> Any:
        out, kept = walk(_replaced(params, [*steps, "kernel"], kernel), inputs, perturbations)
        seen = {use.path: use.value[0][0] for use in kept if use.path in perturbations}
        return jnp.mean(measured(out, targets)), seen

    perturbations = {call.path: jnp.zeros(call.value[1].shape, call.value[1].dtype) for call in calls}
    reads = _reaches(lambda kernel: objective(kernel, perturbations)[0], own["kernel"])
    with at("gradient_by_use"):
        wanted = _wanted(use, layer, calls, reads)
    (read, slopes), seen = jax.grad(objective, (0, 1), has_aux=True)(own["kernel"], perturbations)
    shares = []
    for i in wanted:
        if i == len(calls):
            shares.append(read)
            continue
        call, share = calls[i], partial(_share, calls[i].layer)
        for _ in call.copies:
            share = jax.vmap(share)
        found = share(own, seen[call.path], slopes[call.path]).astype(read.dtype)
        copies = len(call.copies) + _repeats(call.layer)
        # a dense layer that is scanned runs as a convolution, whose kernel has more axes
        shares.append(found.reshape(*found.shape[:copies], *_positions(call), *read.shape[copies:]))
    return jnp.stack(shares) if len(shares) > 1 else shares[0]


#: compiled as one, where each sample of a kernel would be a program of its own
_patches = jax.jit(patches, static_argnums=1)


# Where the uses of a layer are.


def _rehearsed(net: Layer, params: Params, state: State, inputs: Any) -> tuple[Callable[..., Any], Params, Any, Any]:
    """A pass through the network that perturbs outputs, params that suit it, its uses of layers, and its outputs."""

    def walk(alone: bool, params: Any, inputs: Any, perturbations: dict[str, jax.Array]) -> Any:
        """The outputs; and for each use of a layer its inputs and its output, without the perturbation."""

        def observer(seen: LayerOutput) -> Observed:
            change = perturbations.get(seen.path)
            for index in () if change is None else seen.indices:
                change = change[index]
            return Observed((seen.inputs, seen.output), None if change is None else seen.output + change)

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
        return partial(walk, False), params, uses, outputs
    params = {net.label: params}  # a layer that is a network by itself is a part of none: here it is the only one
    outputs, uses = shapes(True, params)
    return partial(walk, True), params, uses, outputs


def _calls(uses: list[Kept], layer: str) -> list[Kept]:
    """The uses of a layer, in the order of computation."""
    calls = [use for use in uses if _home(use.path) == layer]
    if calls and _kind(calls[0].layer) is not None:
        return calls
    if calls and isinstance(calls[0].layer, Scan):
        raise ValueError(
            f"{layer} scans a single layer, whose kernel has no path of its own; make it a part, "
            f"fcnn.Scan(fcnn.serial(...), ...), and ask for it as '{layer}/...'"
        )
    known = ", ".join(dict.fromkeys(_home(use.path) for use in uses if _kind(use.layer) is not None))
    if calls:
        way_out = f"those that have are {known}" if known else "no layer of this network has"
        raise ValueError(
            f"{layer} ({calls[0].layer!r}) has no kernel of which it is known how it moves, as those of Conv, "
            f"ConvTranspose, Dense and LocallyConnected; {way_out}"
        )
    if "#" in layer:
        raise ValueError(
            f"{layer!r} is a use of a layer, not a layer; write layer={_home(layer)!r}, and use=1 for the second use"
        )
    raise ValueError(f"the network has no layer {layer!r}; its layers with a kernel are {known or 'none'}")


def _home(path: str) -> str:
    """The path of a use as params have it: the second use of a layer has the params of the first."""
    return "/".join(step.split("#")[0] for step in path.split("/"))


def _kind(layer: Layer) -> type[Layer] | None:
    """The class whose arithmetic a layer has; None: one that is not known here."""
    while isinstance(layer, (Remat, Repeat, Cropped, AtPositions)):
        layer = layer.layer
    return nearest(layer, (Conv, ConvTranspose, LocallyConnected, Dense))


def _repeats(layer: Layer) -> int:
    """How many axes of copies a bare layer inside repeat has."""
    count = 0
    while isinstance(layer, (Remat, Repeat)):
        count += isinstance(layer, Repeat)
        layer = layer.layer
    return count


def _wanted(use: int | None, layer: str, calls: list[Kept], reads: bool) -> Sequence[int]:
    """The numbers of the uses that were asked for."""
    uses = [(call.path, _positions(call)) for call in calls]
    uses += [(f"reading layer.params of {layer}", ())] * reads
    listed = ", ".join(f"use={i} ({name}, positions {shown(positions)})" for i, (name, positions) in enumerate(uses))
    if use is not None:
        if use >= len(uses):
            raise ValueError(f"there is no use={use} of {layer}; there {'are' if len(uses) > 1 else 'is'} {listed}")
        return [use]
    if len({positions for _, positions in uses}) > 1:
        raise ValueError(f"the uses of {layer} have different positions and make no one array; take one of {listed}")
    return range(len(uses))


def _positions(call: Kept) -> Shape:
    positions = tuple(call.value[1].shape[len(call.copies) + 1 : -1])
    if _kind(call.layer) is not LocallyConnected:
        return positions
    # its kernel has the positions itself, but for those of a scan around it
    return call.layer.keep if isinstance(call.layer, AtPositions) else ()


def _reaches(function: Callable[[Any], Any], argument: Any) -> bool:
    """Whether the argument has any way into the result along which a gradient could flow; nothing is computed."""
    found = []

    probe: Any = jax.custom_jvp(lambda value: value)

    def rule(primals: Any, tangents: Any) -> Any:
        found.append(True)  # JAX asks for the rule only where there is a tangent
        return primals[0], tangents[0]

    probe.defjvp(rule)
    jax.eval_shape(jax.grad(lambda value: probe(function(value))), argument)
    return bool(found)


def _replaced(tree: Params, steps: list[str], value: Any) -> Any:
    """A tree with another array at a path."""
    if not steps:
        return value
    return {**tree, steps[0]: _replaced(tree[steps[0]], steps[1:], value)}


# What each layer sees at its positions.


def _share(layer: Layer, params: Params, x: jax.Array, slope: jax.Array) -> jax.Array:
    """The shares of the positions of one use, from its input and the gradient at its output."""
    if isinstance(layer, Remat):
        return _share(layer.layer, params, x, slope)
    if isinstance(layer, Repeat):
        return _share_of_copies(layer, params, x, slope)
    if isinstance(layer, Cropped):  # what is left out is not used
        widths = zip(layer.layer.infer_shape(x.shape[1:]), slope.shape[1:], strict=True)
        slope = jnp.pad(slope, [(0, 0), *((0, whole - kept) for whole, kept in widths)])
        return _share(layer.layer, params, x, slope)[tuple(slice(0, n) for n in layer.keep)]
    if isinstance(layer, AtPositions):  # at each position a layer of its own
        first, rank = prod(layer.keep), len(layer.keep)
        x = cropped(x, layer.keep).reshape(len(x), first, *layer.local)
        slope = slope.reshape(len(x), first, *slope.shape[1 + rank :])
        found = jax.vmap(partial(_share, layer.layer, params), 1)(x, slope)
        return found.reshape(*layer.keep, *found.shape[1:])
    x, slope = together(x, slope)
    if isinstance(layer, Dense):
        return jnp.einsum("n...c,n...o->...co", x, slope)
    if isinstance(layer, ConvTranspose):
        seen = _transposed_patches(layer, x)
    elif isinstance(layer, (Conv, LocallyConnected)):
        moves = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        seen = _patches(x, geometry.slide(x.shape[1:-1], layer.kernel, **moves))
    else:
        raise TypeError(f"it is not known how the kernel of {layer!r} moves")
    batch, rank, channels = x.shape[0], x.ndim - 2, x.shape[-1] // layer.groups
    out, kernel = seen.shape[1 : rank + 1], seen.shape[rank + 1 : -1]
    seen = seen.reshape(batch, prod(out), prod(kernel), layer.groups, channels)
    slope = slope.reshape(batch, prod(out), layer.groups, layer.features // layer.groups)
    shares = jnp.einsum("npsgc,npgf->pscgf", seen, slope)
    return shares.reshape(*out, *kernel, channels, layer.features)


def _transposed_patches(layer: ConvTranspose, x: jax.Array) -> jax.Array:
    """What every output of a transposed convolution sees: a convolution of x spread out, by the kernel turned round."""
    space = x.shape[1:-1]
    crops, folds = folded(transposed(space, layer.kernel, **layer._geometry())[1], layer.padding)
    sizes, strides, dilations = (
        geometry.per_axis(value, len(space), name)
        for value, name in ((layer.kernel, "kernel"), (layer.stride, "stride"), (layer.dilation, "dilation"))
    )
    reach = [geometry.extent(size, step) - 1 for size, step in zip(sizes, dilations, strict=True)]
    edges = [(r - lo, r - hi, s - 1) for r, (lo, hi), s in zip(reach, crops, strides, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    seen = _patches(x, geometry.slide(x.shape[1:-1], sizes, dilation=dilations))
    return unpad(jnp.flip(seen, tuple(range(len(space) + 1, 2 * len(space) + 1))), *folds)


def _share_of_copies(layer: Repeat, params: Params, x: jax.Array, slope: jax.Array) -> jax.Array:
    """The shares of the copies of a bare layer, which have no paths: the gradient goes through them here."""

    def one(own: Params, x: jax.Array) -> jax.Array:
        return layer.layer.run(Context(train=False), own, {}, (x,))[0]

    def back(slope: jax.Array, copy: tuple[Params, jax.Array]) -> tuple[jax.Array, jax.Array]:
        own, x = copy
        (earlier,) = jax.vjp(partial(one, own), x)[1](slope)
        return earlier, _share(layer.layer, own, x, slope)

    x = x.astype(common(x, *jax.tree.leaves(params)))  # as repeat does
    _, inputs = lax.scan(lambda x, own: (one(own, x), x), x, params)
    return lax.scan(back, slope, (params, inputs), reverse=True)[1]
