"""Every node of the reference with its inputs, and the same in PyTorch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from reference_oracle import F, draw, first, last, normal, one_by_one

from fcnn import reference as ref


def ties(*shape):
    """Few different values, so that most windows hold their maximum several times."""
    return np.random.default_rng(5).integers(-1, 2, shape).astype(float)


def unfolded(x, window, stride):
    """Every window of x (batch, rows, columns, channels) as a vector, by PyTorch's own unfold."""
    down, right = stride if isinstance(stride, tuple) else (stride, stride)
    windows = x.unfold(1, window, down).unfold(2, window, right)  # (batch, *positions, channels, rows, columns)
    return windows.movedim(3, -1).flatten(3)


@dataclass(frozen=True)
class Case:
    """A node, its inputs, and the same in PyTorch: ``theirs(torch, params, *inputs)``."""

    name: str
    make: Callable[[], ref.Node]
    inputs: tuple[np.ndarray, ...]
    theirs: Callable[..., Any]
    smooth: bool = True  # central differences mean something at the inputs


def padded(torch, x, pairs, mode="constant", value=0.0):
    """Pad the space of x (batch, channels, *space) by pairs (before, after)."""
    amounts = [amount for pair in reversed(pairs) for amount in pair]
    return F(torch).pad(x, amounts, mode, value) if mode == "constant" else F(torch).pad(x, amounts, mode)


def conv_case(name, x, kernel, pairs, mode="constant", bias=True, **options):
    """The pairs are written out by hand: that is what the name of the padding must come to."""
    weights = {"kernel": draw(*kernel)} | ({"bias": draw(kernel[-1])} if bias else {})
    plain = {key: value for key, value in options.items() if key != "padding"}

    def theirs(torch, p, x):
        conv = getattr(F(torch), f"conv{x.ndim - 2}d")
        weight = p["kernel"].movedim((-1, -2), (0, 1))
        return last(conv(padded(torch, first(x), pairs, mode), weight, p.get("bias"), **plain))

    return Case(f"conv {name}", lambda: ref.Conv(**weights, **options), (draw(*x),), theirs)


def transposed_case(name, x, kernel, groups=1, ours=None, **options):
    weights = {"kernel": draw(*kernel), "bias": draw(kernel[-1])}

    def theirs(torch, p, x):
        split = p["kernel"].unflatten(-1, (groups, -1))  # (*kernel, channels // groups, groups, features // groups)
        weight = split.movedim((-2, -3, -1), (0, 1, 2)).flatten(0, 1)
        conv = getattr(F(torch), f"conv_transpose{x.ndim - 2}d")
        return last(conv(first(x), weight, p["bias"], groups=groups, **options))

    more = options if ours is None else {**ours, **{k: v for k, v in options.items() if k != "output_padding"}}
    ours = more | ({"padding": [(p, p) for p in options["padding"]]} if "padding" in options else {})
    return Case(f"transposed {name}", lambda: ref.ConvTranspose(**weights, groups=groups, **ours), (draw(*x),), theirs)


def local_case(name, x, kernel, pairs, stride, dilation, groups, padding):
    rank = len(stride)
    weights = {"kernel": draw(*kernel), "bias": draw(*kernel[:rank], kernel[-1])}
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding}

    def theirs(torch, p, x):
        seen = padded(torch, first(x), pairs)  # (batch, channels, *padded)
        for axis in range(rank):
            span = (kernel[rank + axis] - 1) * dilation[axis] + 1
            seen = seen.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
        out = "xyz"[:rank]
        parts = zip(seen.chunk(groups, 1), p["kernel"].chunk(groups, -1), strict=True)
        return torch.cat([torch.einsum(f"nc{out}...,{out}...cf->n{out}f", *part) for part in parts], -1) + p["bias"]

    return Case(f"local {name}", lambda: ref.LocallyConnected(**weights, **options), (draw(*x),), theirs)


def pool_case(name, kind, x, pairs=None, mode="constant", theirs=None, **options):
    """With pairs, PyTorch pads beforehand; without, its own arguments are those given."""
    node = {"max": ref.MaxPool, "avg": ref.AvgPool, "lp": ref.LpPool}[kind]
    smooth = not (x == x.round()).all()
    given = theirs or {key: value for key, value in options.items() if key != "padding" or pairs is None}

    def run(torch, p, x):
        x = first(x)
        if pairs:
            x = padded(torch, x, pairs, mode, -math.inf if kind == "max" else 0.0)
        if kind == "lp":
            x = x.abs()  # for odd powers; PyTorch takes the power of the number itself
        arguments = {"norm_type" if key == "power" else key: value for key, value in given.items()}
        window = arguments.pop("window")
        function = getattr(F(torch), f"{kind}_pool{x.ndim - 2}d")
        return last(function(x, kernel_size=window, **arguments))

    return Case(f"{kind} pool {name}", lambda: node(**options), (x,), run, smooth)


def unpool_case(name, y, x, **options):
    """Windows that do not overlap: elsewhere PyTorch's gradient is not the derivative of its values."""
    smooth = not (x == x.round()).all()

    def theirs(torch, p, y, x):
        window = options["window"]
        given = {key: value for key, value in options.items() if key != "window"}
        _, indices = getattr(F(torch), f"max_pool{x.ndim - 2}d")(first(x), window, return_indices=True, **given)
        z = getattr(F(torch), f"max_unpool{x.ndim - 2}d")(first(y), indices, window, output_size=x.shape[1:-1], **given)
        return last(z) + 0 * x  # torch asks every input for a gradient

    return Case(f"max unpool {name}", lambda: ref.MaxUnpool(**options), (y, x), theirs, smooth)


def cells_case(kind, x, out):
    node = {"max": ref.AdaptiveMaxPool, "avg": ref.AdaptiveAvgPool}[kind]
    smooth = not (x == x.round()).all()

    def theirs(torch, p, x):
        return last(getattr(F(torch), f"adaptive_{kind}_pool{x.ndim - 2}d")(first(x), out))

    return Case(f"adaptive {kind} pool {out} of {x.shape}", lambda: node(out), (x,), theirs, smooth)


def global_case(kind, x):
    node = {"max": ref.GlobalMaxPool, "avg": ref.GlobalAvgPool}[kind]
    smooth = not (x == x.round()).all()

    def theirs(torch, p, x):
        cell = getattr(F(torch), f"adaptive_{kind}_pool{x.ndim - 2}d")(first(x), 1)
        return cell.flatten(1)

    return Case(f"global {kind} pool of {x.shape}", node, (x,), theirs, smooth)


def gate(node, function, *inputs, name=""):
    """A gate and its function of torch and the inputs."""
    label = f"{type(node()).__name__} {name}".strip()
    return Case(label, node, inputs or (draw(3, 4),), lambda torch, p, *x: function(torch, *x))


def norm_case(node, function, x, name="", **options):
    weights = {"scale": draw(x.shape[-1]), "bias": draw(x.shape[-1])}
    label = f"{node.__name__} {name}".strip()
    return [
        Case(label, lambda: node(**weights, **options), (x,), function),
        Case(f"{label}, plain", lambda: node(**options), (x,), function),
    ]


def batch_norm(train):
    def theirs(torch, p, x):
        mean, variance = torch.tensor(draw(3), dtype=x.dtype), torch.tensor(draw(3) ** 2, dtype=x.dtype)
        return last(F(torch).batch_norm(first(x), mean, variance, p.get("scale"), p.get("bias"), train, 0.2, 1e-3))

    return theirs


def group_norm(torch, p, x):
    return last(F(torch).group_norm(first(x), 2, p.get("scale"), p.get("bias"), 1e-3))


def layer_norm(torch, p, x):
    return F(torch).layer_norm(x, x.shape[-1:], p.get("scale"), p.get("bias"), 1e-3)


def instance_norm(torch, p, x):
    return last(F(torch).instance_norm(first(x), weight=p.get("scale"), bias=p.get("bias"), eps=1e-3))


def response_norm(torch, p, x):  # PyTorch divides alpha by the size
    return last(F(torch).local_response_norm(first(x), 4, alpha=4 * 0.3, beta=0.6, k=1.5))


def dense(torch, x, p, prefix=""):
    return F(torch).linear(x, p[f"{prefix}kernel"].T, p.get(f"{prefix}bias"))


MASK = (np.arange(12).reshape(3, 4) % 3 > 0).astype(float)
SETS = np.array([[0, -1, 2], [1, 0, -1], [-1, 1, 0], [2, 2, 1]])
STATISTICS = {"mean": draw(3), "variance": draw(3) ** 2, "momentum": 0.8, "epsilon": 1e-3}

CASES = [
    gate(ref.Add, lambda t, a, b, c: a + b + c, draw(3, 4), draw(4), draw(3, 1)),
    gate(ref.Multiply, lambda t, a, b: a * b, draw(3, 4), draw(4)),
    gate(ref.Multiply, lambda t, a, b: a * b, draw(2, 1, 3), draw(4, 1), name="stretched"),
    gate(ref.Max, lambda t, *x: t.stack(x).amax(0), draw(3, 4), normal(1, 3, 4), normal(2, 3, 4)),
    gate(ref.MatMul, lambda t, a, b: a @ b, draw(3, 4), draw(4, 2)),
    gate(ref.MatMul, lambda t, a, b: a @ b, draw(5, 3, 4), draw(4, 2), name="stacked"),
    gate(ref.Transpose, lambda t, x: x.T),
    gate(ref.Concatenate, lambda t, *x: t.cat(x, -1), draw(2, 3, 1), draw(2, 3, 4), draw(2, 3, 2)),
    gate(ref.Identity, lambda t, x: x * 1),
    gate(ref.Square, lambda t, x: x**2),
    gate(ref.Abs, lambda t, x: x.abs()),
    gate(ref.Exp, lambda t, x: x.exp()),
    gate(ref.Sigmoid, lambda t, x: t.sigmoid(x)),
    gate(ref.Tanh, lambda t, x: t.tanh(x)),
    gate(ref.ReLU, lambda t, x: t.relu(x)),
    gate(ref.LeakyReLU, lambda t, x: F(t).leaky_relu(x, 0.01)),
    gate(lambda: ref.LeakyReLU(0.3), lambda t, x: F(t).leaky_relu(x, 0.3), name="0.3"),
    gate(ref.ELU, lambda t, x: F(t).elu(x)),
    gate(lambda: ref.ELU(0.5), lambda t, x: F(t).elu(x, 0.5), name="0.5"),
    gate(ref.GELU, lambda t, x: F(t).gelu(x, approximate="tanh")),
    gate(lambda: ref.GELU(approximate=False), lambda t, x: F(t).gelu(x), name="exact"),
    gate(ref.SiLU, lambda t, x: F(t).silu(x)),
    gate(ref.Softplus, lambda t, x: F(t).softplus(x)),
    gate(ref.Softmax, lambda t, x: t.softmax(x, -1), draw(2, 3, 4)),
    gate(ref.LogSoftmax, lambda t, x: t.log_softmax(x, -1), draw(2, 3, 4)),
    gate(ref.Flatten, lambda t, x: x.flatten(1), draw(2, 3, 4, 2)),
    gate(lambda: ref.Dropout(MASK, 0.2), lambda t, x: x * t.tensor(MASK) / 0.8),
    gate(lambda: ref.Dropout(None, 0.2), lambda t, x: x * 1, name="in use"),
    gate(lambda: ref.Maxout(3), lambda t, x: x.unflatten(-1, (2, 3)).amax(-1), draw(2, 5, 6)),
    Case(
        "PReLU",
        lambda: ref.PReLU(np.array(0.3)),
        (draw(2, 5, 3),),
        lambda t, p, x: last(F(t).prelu(first(x), p["slope"].reshape(1))),
    ),
    Case(
        "PReLU of channels",
        lambda: ref.PReLU(draw(3)),
        (draw(2, 2, 4, 3),),
        lambda t, p, x: last(F(t).prelu(first(x), p["slope"])),
    ),
    gate(lambda: ref.ChannelShuffle(3), lambda t, x: last(F(t).channel_shuffle(first(x), 3)), draw(2, 4, 3, 6)),
    gate(lambda: ref.PixelShuffle(2), lambda t, x: last(F(t).pixel_shuffle(first(x), 2)), draw(2, 3, 2, 8)),
    gate(lambda: ref.PixelUnshuffle(2), lambda t, x: last(F(t).pixel_unshuffle(first(x), 2)), draw(2, 4, 6, 3)),
    gate(
        lambda: ref.PixelShuffle((1, 3), order="DCR"),
        lambda t, x: x.unflatten(-1, (3, 2)).flatten(2, 3),
        draw(2, 3, 2, 6),
        name="DCR",
    ),
    gate(
        lambda: ref.PixelUnshuffle(3, order="DCR"),
        lambda t, x: x.unflatten(1, (-1, 3)).flatten(2),
        draw(2, 6, 2),
        name="DCR",
    ),
    gate(lambda: ref.Pad(1, -0.5), lambda t, x: last(padded(t, first(x), [(1, 1)] * 2, value=-0.5)), draw(2, 3, 4, 2)),
    *(
        gate(
            lambda mode=mode: ref.Pad((mode, ((2, 1), (0, 2)))),
            lambda t, x, theirs=theirs: last(padded(t, first(x), [(2, 1), (0, 2)], theirs)),
            draw(2, 3, 4, 2),
            name=mode,
        )
        for mode, theirs in {"CIRCULAR": "circular", "REFLECT": "reflect", "EDGE": "replicate"}.items()
    ),
    gate(lambda: ref.Crop(((1, 0), (2, 1))), lambda t, x: x[:, 1:, 2:-1], draw(2, 3, 5, 2)),
    gate(lambda: ref.Crop(size=(None, 2)), lambda t, x: x[:, :, 1:3], draw(2, 3, 5, 2), name="to a size"),
    *(
        gate(
            lambda options=options: ref.Resize(**options),
            lambda t, x, theirs=theirs: last(F(t).interpolate(first(x), **theirs)),
            draw(2, 4, 5, 2),
            name=f"{theirs}",
        )
        for options, theirs in (
            ({"scale": 2, "method": "nearest"}, {"scale_factor": 2, "mode": "nearest"}),
            ({"size": (3, 7), "method": "nearest_exact"}, {"size": (3, 7), "mode": "nearest-exact"}),
            ({"scale": 1.5}, {"scale_factor": 1.5, "mode": "bilinear"}),
            ({"size": (7, 3), "method": "cubic"}, {"size": (7, 3), "mode": "bicubic"}),
            ({"size": 7, "align_corners": True}, {"size": (7, 7), "mode": "bilinear", "align_corners": True}),
            (
                {"size": 2, "method": "cubic", "antialias": True},
                {"size": (2, 2), "mode": "bicubic", "antialias": True},
            ),
        )
    ),
    Case("ScaleChannels", lambda: ref.ScaleChannels(draw(3)), (draw(2, 5, 3),), lambda t, p, x: x * p["scale"]),
    Case(
        "ScaleChannels with a bias",
        lambda: ref.ScaleChannels(draw(3), draw(3)),
        (draw(2, 5, 3),),
        lambda t, p, x: x * p["scale"] + p["bias"],
    ),
    Case("Dense", lambda: one_by_one(3, 4, 2), (draw(3, 4),), lambda t, p, x: dense(t, x, p)),
    Case("Dense over space", lambda: one_by_one(3, 4, 2), (draw(2, 5, 3, 4),), lambda t, p, x: dense(t, x, p)),
    Case(
        "SharedLinear",
        lambda: ref.SharedLinear(values=draw(3), sets=SETS),
        (draw(2, 4),),
        lambda t, p, x: x @ (p["values"][t.tensor(SETS)] * t.tensor(SETS >= 0)),
    ),
    conv_case("1 stride", (2, 9, 4), (3, 4, 3), [(0, 0)], stride=2),
    conv_case("1 causal", (2, 9, 4), (3, 2, 6), [(4, 0)], padding="CAUSAL", dilation=2, groups=2),
    conv_case("1 same, one after", (2, 8, 2), (3, 2, 3), [(0, 1)], padding="SAME", stride=2, bias=False),
    conv_case("1 pair", (2, 5, 2), (3, 2, 3), [(2, 1)], padding=(2, 1)),
    conv_case("2 same", (2, 5, 6, 2), (3, 2, 2, 3), [(1, 1), (0, 1)], padding="SAME"),
    conv_case(
        "2 circular", (2, 5, 6, 2), (3, 3, 2, 3), [(1, 1), (1, 1)], "circular", padding="CIRCULAR", stride=(2, 1)
    ),
    conv_case("2 circular to the rim", (1, 3, 2, 1), (6, 4, 1, 2), [(2, 3), (1, 2)], "circular", padding="CIRCULAR"),
    conv_case("1 circular, a stride", (2, 7, 2), (4, 2, 3), [(1, 2)], "circular", padding="CIRCULAR", stride=3),
    conv_case("1 same, one before", (2, 8, 2), (3, 2, 3), [(1, 0)], padding="SAME_LOWER", stride=2),
    conv_case(
        "2 edge",
        (2, 3, 4, 2),
        (3, 2, 2, 3),
        [(4, 0), (1, 2)],
        "replicate",
        padding=("EDGE", ((4, 0), (1, 2))),
        stride=2,
    ),
    conv_case("2 reflect", (2, 6, 3, 1), (5, 5, 1, 2), [(2, 2), (2, 2)], "reflect", padding="REFLECT"),
    conv_case("2 pairs", (2, 4, 5, 2), (2, 3, 2, 3), [(2, 0), (1, 3)], padding=((2, 0), (1, 3)), dilation=(1, 2)),
    conv_case("2 depthwise", (2, 4, 4, 3), (2, 2, 1, 6), [(1, 1), (1, 1)], padding=1, groups=3),
    conv_case("3", (2, 3, 4, 3, 2), (2, 2, 2, 1, 4), [(1, 1)] * 3, padding=1, stride=(1, 2, 1), groups=2),
    conv_case("3 reflect", (1, 3, 4, 2, 1), (3, 3, 2, 1, 2), [(1, 1), (1, 1), (0, 1)], "reflect", padding="REFLECT"),
    transposed_case("1", (2, 4, 3), (3, 3, 2), stride=2, padding=(1,), output_padding=1),
    transposed_case("2", (2, 3, 4, 4), (3, 2, 2, 6), groups=2, stride=(2, 1), dilation=(1, 2), padding=(1, 0)),
    transposed_case("3", (1, 2, 3, 2, 2), (2, 3, 2, 2, 2), stride=(1, 2, 3), output_padding=(0, 1, 2)),
    transposed_case("1 to a size", (2, 4, 3), (3, 3, 2), stride=3, padding=(1,), ours={"out": 12}, output_padding=2),
    local_case("1", (2, 6, 4), (3, 2, 2, 6), [(1, 0)], (2,), (2,), 2, ((1, 0),)),
    local_case("2", (2, 4, 3, 2), (4, 2, 3, 2, 2, 3), [(1, 1), (0, 0)], (1, 1), (1, 1), 1, ((1, 1), (0, 0))),
    local_case("3", (1, 3, 3, 2, 1), (2, 2, 2, 2, 2, 1, 1, 2), [(0, 0)] * 3, (1,) * 3, (1,) * 3, 1, "VALID"),
    pool_case("2", "max", draw(2, 5, 6, 3), window=2),
    pool_case("1 ceil", "max", draw(2, 8, 3), window=3, stride=2, padding=1, ceil_mode=True),
    pool_case("1 ceil, one window that is too long", "max", draw(2, 2, 3), window=4, ceil_mode=True),
    pool_case("1 ceil, none past the data", "max", draw(2, 5, 3), window=2, stride=2, padding=1, ceil_mode=True),
    pool_case("2 ties", "max", ties(2, 7, 6, 3), window=3, stride=2, padding=1, ceil_mode=True),
    pool_case("2 dilated ties", "max", ties(2, 7, 6, 3), window=2, stride=1, dilation=2),
    pool_case("3 ties", "max", ties(1, 4, 5, 3, 2), window=(2, 3, 2), stride=(1, 2, 1)),
    pool_case(
        "2 same",
        "max",
        draw(2, 5, 4, 2),
        [(1, 1), (0, 1)],
        theirs={"window": 3, "stride": 2},
        window=3,
        stride=2,
        padding="SAME",
    ),
    pool_case("2", "avg", draw(2, 5, 6, 3), window=(2, 3)),
    pool_case(
        "2 ceil",
        "avg",
        draw(2, 6, 7, 2),
        theirs={"window": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
        window=3,
        stride=2,
        padding=1,
        ceil_mode=True,
    ),
    pool_case(
        "2 ceil, padding counted",
        "avg",
        draw(2, 6, 7, 2),
        theirs={"window": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": True},
        window=3,
        stride=2,
        padding=1,
        ceil_mode=True,
        count_padding=True,
    ),
    pool_case(
        "3 circular",
        "avg",
        draw(1, 3, 4, 3, 2),
        [(0, 1), (1, 1), (0, 1)],
        "circular",
        theirs={"window": (2, 3, 2), "stride": 1},
        window=(2, 3, 2),
        stride=1,
        padding="CIRCULAR",
    ),
    pool_case("1", "lp", draw(2, 7, 3), window=2, power=3.0, stride=2),
    pool_case("2 norm", "lp", draw(2, 5, 5, 3), window=3, power=2.0, stride=2),
    pool_case("2 sum", "lp", draw(2, 4, 4, 3), window=2, power=1.0, stride=1),
    pool_case(
        "2 by a divisor", "avg", draw(2, 5, 4, 2), theirs={"window": 2, "divisor_override": 3}, window=2, divisor=3
    ),
    unpool_case("1", draw(2, 3, 2), draw(2, 7, 2), window=2),
    unpool_case("2 ties", draw(2, 3, 4, 2), ties(2, 5, 6, 2), window=2, stride=2, padding=1),
    cells_case("avg", draw(2, 5, 2), 2),
    cells_case("avg", draw(2, 5, 7, 2), (None, 4)),
    cells_case("max", draw(2, 5, 7, 2), (3, None)),
    cells_case("avg", draw(2, 5, 7, 2), (3, 4)),
    cells_case("avg", draw(1, 3, 4, 2, 2), (2, 3, 4)),
    cells_case("max", draw(2, 5, 7, 2), (3, 4)),
    cells_case("max", ties(2, 5, 7, 2), (2, 3)),
    cells_case("max", ties(1, 3, 4, 5, 2), 2),
    global_case("avg", draw(2, 4, 3, 2)),
    global_case("max", draw(2, 4, 3, 2)),
    global_case("max", ties(2, 3, 2, 3, 2)),
    *norm_case(ref.BatchNorm, batch_norm(True), draw(4, 2, 3), "in training", train=True, **STATISTICS),
    *norm_case(ref.BatchNorm, batch_norm(False), draw(4, 2, 2, 3), "in use", train=False, **STATISTICS),
    *norm_case(ref.GroupNorm, group_norm, draw(2, 3, 2, 6), groups=2, epsilon=1e-3),
    *norm_case(ref.LayerNorm, layer_norm, draw(2, 3, 5), epsilon=1e-3),
    *norm_case(ref.InstanceNorm, instance_norm, draw(2, 3, 2, 3), epsilon=1e-3),
    Case(
        "LayerNorm over axes",
        lambda: ref.LayerNorm(scale=draw(3, 5), bias=draw(3, 5), epsilon=1e-3, axes=(-1, 2)),
        (draw(2, 2, 3, 5),),
        lambda torch, p, x: F(torch).layer_norm(x, (3, 5), p["scale"], p["bias"], 1e-3),
    ),
    *norm_case(ref.InstanceNorm, batch_norm(False), draw(4, 2, 2, 3), "running, in use", running=True, **STATISTICS),
    *norm_case(
        ref.InstanceNorm,
        instance_norm,
        draw(2, 3, 2, 3),
        "running, in training",
        running=True,
        train=True,
        epsilon=1e-3,
    ),
    Case(
        "LocalResponseNorm",
        lambda: ref.LocalResponseNorm(size=4, alpha=0.3, beta=0.6, k=1.5),
        (draw(2, 3, 7),),
        response_norm,
    ),
    Case(
        "Chain",
        lambda: ref.Chain([one_by_one(3, 4, 5), ref.Tanh(), one_by_one(5, 5, 2)]),
        (draw(3, 4),),
        lambda t, p, x: dense(t, t.tanh(dense(t, x, p, "0.")), p, "2."),
    ),
    Case(
        "Residual",
        lambda: ref.Residual(ref.Chain([one_by_one(3, 4, 4), ref.Tanh()])),
        (draw(3, 4),),
        lambda t, p, x: t.tanh(dense(t, x, p, "body.0.")) + x,
    ),
    Case(
        "Residual with shortcut",
        lambda: ref.Residual(one_by_one(3, 4, 2), one_by_one(5, 4, 2)),
        (draw(3, 4),),
        lambda t, p, x: dense(t, x, p, "body.") + dense(t, x, p, "shortcut."),
    ),
    Case(
        "Branches",
        lambda: ref.Branches([one_by_one(3, 4, 2), ref.Square(), one_by_one(5, 4, 1)]),
        (draw(3, 4),),
        lambda t, p, x: t.cat([dense(t, x, p, "0."), x**2, dense(t, x, p, "2.")], -1),
    ),
    Case(
        "Branches summed",
        lambda: ref.Branches([one_by_one(3, 4, 4), ref.Square()], join="sum"),
        (draw(3, 4),),
        lambda t, p, x: dense(t, x, p, "0.") + x**2,
    ),
    Case(
        "Scan",
        lambda: ref.Scan(ref.Chain([ref.Flatten(), ref.Dense(kernel=draw(18, 4), bias=draw(4)), ref.Tanh()]), 3),
        (draw(2, 5, 4, 2),),
        lambda t, p, x: t.tanh(dense(t, unfolded(x, 3, 1), p, "1.")),
    ),
    Case(
        "Scan with a stride",
        lambda: ref.Scan(ref.Chain([ref.Flatten(), ref.Dense(kernel=draw(8, 3), bias=draw(3))]), 2, stride=(2, 3)),
        (draw(2, 7, 6, 2),),
        lambda t, p, x: dense(t, unfolded(x, 2, (2, 3)), p, "1."),
    ),
]
COMPOSED = (ref.Chain, ref.Residual, ref.Branches, ref.Scan)


def over(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


every_case = over(CASES)
