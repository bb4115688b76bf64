"""Mistakes in a network itself. Each is refused when it is made or given a shape, by a ValueError or TypeError that
names the layer by its path, shows the value, states the rule and offers a way out."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import relu
from mistakes import (
    NAN,
    NET,
    SHAPE,
    any_key,
    averages_over_the_batch,
    blank,
    drawn_nan,
    filled,
    images,
    integers,
    kernel_init,
    loses_the_batch,
    mistake,
    pair,
    raw_keys,
    refused,
    turned_around,
    wired,
)

import fcnn
from fcnn.compose.parallel import Branches, Residual
from fcnn.compose.serial import Serial

MAKING = [
    mistake("stride 0", lambda: fcnn.Conv(6, 5, stride=0), ValueError, "conv", "stride is 0", "at least 1"),
    mistake("a negative stride", lambda: fcnn.MaxPool(2, stride=-2), ValueError, "max_pool", "stride is -2", "least 1"),
    mistake("dilation 0", lambda: fcnn.Conv(6, 5, dilation=0), ValueError, "conv", "dilation is 0", "at least 1"),
    mistake("kernel 0", lambda: fcnn.Conv(6, 0), ValueError, "conv", "kernel is 0", "at least 1"),
    mistake("a kernel with a 0", lambda: fcnn.Conv(6, (3, 0)), ValueError, "conv", "kernel is 0", "at least 1"),
    mistake("kernel 2.5", lambda: fcnn.Conv(6, 2.5), TypeError, "conv", "kernel", "2.5", "whole number"),
    mistake("kernel True", lambda: fcnn.Conv(6, True), TypeError, "conv", "kernel", "True", "whole number"),
    mistake("kernel as text", lambda: fcnn.Conv(6, "5"), TypeError, "conv", "kernel", "'5'", "whole number"),
    mistake("an empty kernel", lambda: fcnn.Conv(6, ()), ValueError, "conv", "kernel is empty", "each space axis"),
    mistake("window 0", lambda: fcnn.AvgPool(0), ValueError, "avg_pool", "window is 0", "at least 1"),
    mistake("no features", lambda: fcnn.Dense(0), ValueError, "dense", "features is 0", "at least 1"),
    mistake("half a feature", lambda: fcnn.Dense(2.5), TypeError, "dense", "features", "2.5", "whole number"),
    mistake("bias 1", lambda: fcnn.Conv(6, 5, bias=1), TypeError, "conv", "bias", "True or False", "1"),
    mistake(
        "groups that do not divide the features",
        lambda: fcnn.Conv(16, 3, groups=3),
        *(ValueError, "conv", "groups 3", "16 features", "choose a number of groups that divides"),
    ),
    mistake(
        "an unknown padding",
        lambda: fcnn.Conv(6, 5, padding="same"),
        *(ValueError, "conv", "'same'", "VALID, SAME, SAME_LOWER, CAUSAL, CIRCULAR, REFLECT, EDGE"),
    ),
    mistake(
        "a padding of three numbers",
        lambda: fcnn.Conv(6, 5, padding=(1, 2, 3)),
        *(ValueError, "conv", "(1, 2, 3)", "(before, after)", "write ((1, 1)"),
    ),
    mistake("a negative padding", lambda: fcnn.Conv(6, 5, padding=-1), ValueError, "conv", "padding is -1", "least 0"),
    mistake(
        "a pair with a negative padding",
        lambda: fcnn.MaxPool(2, padding=((0, -1), (0, 0))),
        *(ValueError, "max_pool", "padding is -1", "at least 0"),
    ),
    mistake("padding 1.5", lambda: fcnn.Conv(6, 5, padding=1.5), TypeError, "conv", "padding", "1.5", "whole number"),
    mistake("an empty padding", lambda: fcnn.Conv(6, 5, padding=()), ValueError, "conv", "empty", "(before, after)"),
    mistake("rate 1", lambda: fcnn.Dropout(1), ValueError, "dropout", "rate is 1", "[0, 1)", "use rate=0.1"),
    mistake("rate -0.1", lambda: fcnn.Dropout(-0.1), ValueError, "dropout", "rate is -0.1", "[0, 1)"),
    mistake("rate NaN", lambda: fcnn.Dropout(NAN), ValueError, "dropout", "rate is nan", "[0, 1)"),
    mistake("rate as text", lambda: fcnn.Dropout("0.5"), TypeError, "dropout", "rate", "'0.5'", "[0, 1)"),
    mistake("depth 1", lambda: fcnn.StochasticDepth(1), ValueError, "stochastic_depth", "rate is 1", "[0, 1)"),
    mistake("depth as text", lambda: fcnn.StochasticDepth("0.1"), TypeError, "stochastic_depth", "rate", "'0.1'"),
    mistake("rate True", lambda: fcnn.Dropout(True), TypeError, "dropout", "rate", "True", "[0, 1)"),
    mistake(
        "a scale that is not a number",
        lambda: fcnn.Conv(6, 5, kernel_init=("normal", NAN)),
        *(ValueError, "conv", "kernel_init", "nan", "finite and not negative"),
    ),
    mistake(
        "a NumPy scale that is not a number",
        lambda: fcnn.Conv(6, 5, kernel_init=("normal", np.float32("nan"))),
        *(ValueError, "conv", "kernel_init", "nan", "finite and not negative"),
    ),
    mistake(
        "a negative variance",
        lambda: fcnn.Conv(6, 5, kernel_init=("variance_scaling", -1.0, "fan_in", "normal")),
        *(ValueError, "conv", "kernel_init", "-1.0", "finite and not negative"),
    ),
    mistake(
        "an unknown initialiser",
        lambda: fcnn.Dense(3, kernel_init="he"),
        *(ValueError, "dense", "kernel_init", "'he'", "he_normal"),
    ),
    mistake(
        "a number as initialiser",
        lambda: fcnn.Dense(3, kernel_init=0.01),
        *(TypeError, "dense", "kernel_init", "0.01", '("normal", 0.01)'),
    ),
    mistake("per_channel as a number", lambda: fcnn.PReLU(per_channel=3), TypeError, "prelu", "per_channel", "not 3"),
    mistake(
        "an unknown first slope",
        lambda: fcnn.PReLU(slope_init=0.25),
        *(TypeError, "prelu", "slope_init", "0.25", "a name with arguments"),
    ),
    mistake("a factor NaN", lambda: fcnn.ScaleChannels(NAN), ValueError, "scale_channels", "initial is nan", "finite"),
    mistake("a factor as text", lambda: fcnn.ScaleChannels("1e-6"), TypeError, "scale_channels", "initial", "'1e-6'"),
    mistake("a shuffle by 0", lambda: fcnn.PixelShuffle(0), ValueError, "pixel_shuffle", "factor is 0", "at least 1"),
    mistake(
        "a shuffle by a half", lambda: fcnn.PixelUnshuffle(0.5), TypeError, "pixel_unshuffle", "factor", "0.5", "whole"
    ),
    mistake(
        "an unknown order of channels",
        lambda: fcnn.PixelShuffle(2, order="NHWC"),
        *(ValueError, "pixel_shuffle", "'NHWC'", '"CRD"', "depth_to_space"),
    ),
    mistake("a shuffle of no groups", lambda: fcnn.ChannelShuffle(0), ValueError, "channel_shuffle", "groups is 0"),
    mistake("a pad below 0", lambda: fcnn.Pad(-1), ValueError, "pad", "padding -1", "below 0", "fcnn.Crop"),
    mistake("a pair below 0", lambda: fcnn.Pad(((1, 1), (0, -2))), ValueError, "pad", "below 0", "fcnn.Crop"),
    mistake("a pad by half a sample", lambda: fcnn.Pad(0.5), TypeError, "pad", "padding", "0.5", "whole number"),
    mistake("a pad by name", lambda: fcnn.Pad("SAME"), ValueError, "pad", "'SAME'", "a window", "('EDGE', 1)"),
    mistake("a mode alone", lambda: fcnn.Pad("REFLECT"), ValueError, "pad", "'REFLECT'", "('REFLECT', 1)"),
    mistake("an unknown mode", lambda: fcnn.Pad(("WRAP", 1)), ValueError, "pad", "('WRAP', 1)", "CIRCULAR, REFLECT"),
    mistake("an empty pad", lambda: fcnn.Pad(()), ValueError, "pad", "padding is empty", "(before, after)"),
    mistake("a constant NaN", lambda: fcnn.Pad(1, value=NAN), ValueError, "pad", "value is nan", "use 0"),
    mistake("a constant as text", lambda: fcnn.Pad(1, value="0"), TypeError, "pad", "value", "'0'", "number"),
    mistake("a constant and a mode", lambda: fcnn.Pad(("EDGE", 1), value=1), ValueError, "pad", "value 1", "'EDGE'"),
    mistake("no crop", fcnn.Crop, TypeError, "crop", "amount is None", "size is None", "give one"),
    mistake("two crops", lambda: fcnn.Crop(1, size=2), TypeError, "crop", "amount is 1", "size is 2", "give one"),
    mistake("a crop below 0", lambda: fcnn.Crop(-1), ValueError, "crop", "amount is -1", "at least 0"),
    mistake("an empty crop", lambda: fcnn.Crop(()), ValueError, "crop", "amount is empty", "(before, after)"),
    mistake("a crop to nothing", lambda: fcnn.Crop(size=0), ValueError, "crop", "size is 0", "at least 1"),
    mistake("no size", fcnn.Resize, TypeError, "resize", "size is None", "scale is None", "give one", "scale=2"),
    mistake("two sizes", lambda: fcnn.Resize(8, scale=2), TypeError, "resize", "size is 8", "scale is 2", "give one"),
    mistake("size 0", lambda: fcnn.Resize(0), ValueError, "resize", "size is 0", "at least 1"),
    mistake("size 2.5", lambda: fcnn.Resize(2.5), TypeError, "resize", "size", "2.5", "whole number"),
    mistake("scale 0", lambda: fcnn.Resize(scale=0), ValueError, "resize", "scale is 0", "above 0", "0.5 halves"),
    mistake("scale NaN", lambda: fcnn.Resize(scale=NAN), ValueError, "resize", "scale is nan", "finite"),
    mistake("scale as text", lambda: fcnn.Resize(scale="2"), TypeError, "resize", "scale", "'2'", "number"),
    mistake("no scales", lambda: fcnn.Resize(scale=()), ValueError, "resize", "scale is empty", "each space axis"),
    mistake(
        "an unknown method",
        lambda: fcnn.Resize(8, method="area"),
        *(ValueError, "resize", "'area'", "nearest, nearest_exact, linear", "AdaptiveAvgPool"),
    ),
    mistake(
        "an unknown convention",
        lambda: fcnn.Resize(8, convention="tf"),
        *(ValueError, "resize", "'tf'", '"torch" or "jax"'),
    ),
    mistake(
        "nearest with aligned corners",
        lambda: fcnn.Resize(8, method="nearest", align_corners=True),
        *(ValueError, "resize", "align_corners", '"nearest"', '"linear" or "cubic"'),
    ),
    mistake(
        "nearest with antialiasing",
        lambda: fcnn.Resize(8, method="nearest_exact", antialias=True),
        *(ValueError, "resize", "antialias", '"nearest_exact"', '"linear" or "cubic"'),
    ),
    mistake(
        "aligned corners as jax.image has none",
        lambda: fcnn.Resize(8, align_corners=True, convention="jax"),
        *(ValueError, "resize", "align_corners", "PyTorch", 'convention="torch"'),
    ),
    mistake(
        "antialias as a number", lambda: fcnn.Resize(8, antialias=1), TypeError, "resize", "antialias", "True or False"
    ),
    mistake("Maxout of no pieces", lambda: fcnn.Maxout(0), ValueError, "maxout", "pieces is 0", "at least 1"),
    mistake(
        "LP pooling by 0.5", lambda: fcnn.LpPool(2, power=0.5), ValueError, "lp_pool", "power is 0.5", "at least 1"
    ),
    mistake(
        "LP pooling by infinity",
        lambda: fcnn.LpPool(2, power=float("inf")),
        *(ValueError, "lp_pool", "power is inf", "finite", "use max pooling"),
    ),
    mistake("no groups", lambda: fcnn.GroupNorm(0), ValueError, "group_norm", "groups is 0", "at least 1"),
    mistake(
        "momentum 1.5",
        lambda: fcnn.BatchNorm(momentum=1.5),
        *(ValueError, "batch_norm", "momentum is 1.5", "[0, 1]", "share of the old"),
    ),
    mistake(
        "momentum as text",
        lambda: fcnn.BatchNorm(momentum="0.9"),
        *(TypeError, "batch_norm", "momentum", "'0.9'", "number"),
    ),
    mistake(
        "momentum below 0",
        lambda: fcnn.InstanceNorm(running=True, momentum=-0.1),
        *(ValueError, "instance_norm", "momentum is -0.1", "[0, 1]", "share of the old"),
    ),
    mistake(
        "running as a number", lambda: fcnn.BatchNorm(running=1), TypeError, "batch_norm", "running", "True or False"
    ),
    mistake("unbiased as text", lambda: fcnn.BatchNorm(unbiased="no"), TypeError, "batch_norm", "unbiased", "'no'"),
    mistake(
        "a norm over the batch",
        lambda: fcnn.LayerNorm(axes=(0, 3)),
        *(ValueError, "layer_norm", "(0, 3)", "the batch", "BatchNorm"),
    ),
    mistake("axes as text", lambda: fcnn.LayerNorm(axes="all"), TypeError, "layer_norm", "'all'", "(-3, -2, -1)"),
    mistake(
        "axes that are not there",
        lambda: fcnn.LayerNorm(axes=(-3, -1)).out_shape((5, 4)),
        *(ValueError, "layer_norm", "axes (-3, -1)", "3 axes", "from -2 to -1"),
    ),
    mistake(
        "one axis twice",
        lambda: fcnn.LayerNorm(axes=(-1, 2)).out_shape((5, 4)),
        *(ValueError, "layer_norm", "axes (-1, 2)", "different"),
    ),
    mistake(
        "axes of one value",
        lambda: fcnn.LayerNorm(axes=(1, 2)).out_shape((1, 1, 4)),
        *(ValueError, "layer_norm", "over the axes (1, 2)", "no variance", "more axes"),
    ),
    mistake("epsilon below 0", lambda: fcnn.GroupNorm(2, epsilon=-1e-5), ValueError, "group_norm", "epsilon is -1e-05"),
    mistake("epsilon 0", lambda: fcnn.BatchNorm(epsilon=0), ValueError, "batch_norm", "epsilon is 0", "above 0"),
    mistake("epsilon NaN", lambda: fcnn.LayerNorm(epsilon=NAN), ValueError, "layer_norm", "epsilon is nan", "finite"),
    mistake("an empty serial", fcnn.serial, ValueError, "serial", "no layers", "give at least one"),
    mistake("no branches", fcnn.branches, ValueError, "branches", "no branches", "give at least one"),
    mistake("an empty graph", fcnn.graph, ValueError, "graph", "no layers", "name at least one"),
    mistake(
        "an unknown join",
        lambda: fcnn.branches(relu, join="mean"),
        *(ValueError, "branches", "'mean'", "'concat', 'sum'"),
    ),
    mistake("repeat 0 times", lambda: fcnn.repeat(fcnn.Dense(3), 0), ValueError, "repeat", "n is 0", "at least 1"),
    mistake("repeat 2.5 times", lambda: fcnn.repeat(fcnn.Dense(3), 2.5), TypeError, "repeat", "2.5", "whole number"),
    mistake(
        "two layers of one name",
        lambda: fcnn.serial(fcnn.Conv(6, 5), conv1=fcnn.Conv(16, 5)),
        *(ValueError, "serial", "'conv1'", "another name"),
    ),
    mistake("a name with a slash", lambda: fcnn.serial(**{"a/b": relu}), ValueError, "serial", "'a/b'", "identifier"),
    mistake(
        "a class instead of a layer",
        lambda: fcnn.serial(fcnn.Conv(6, 5), fcnn.Flatten),
        *(TypeError, "serial", "Flatten is a class", "write Flatten(...)"),
    ),
    mistake(
        "a class in residual", lambda: fcnn.residual(fcnn.Flatten), TypeError, "residual", "class", "write Flatten(...)"
    ),
    mistake("a class in repeat", lambda: fcnn.repeat(fcnn.Dense, 2), TypeError, "repeat", "class", "write Dense(...)"),
    mistake(
        "a list instead of layers",
        lambda: fcnn.serial([fcnn.Conv(6, 5), relu]),
        *(TypeError, "serial", "a list is not a layer", "unpack it with *"),
    ),
    mistake(
        "a tuple of branches",
        lambda: fcnn.branches((fcnn.Conv(6, 5), relu)),
        *(TypeError, "branches", "a tuple is not a layer", "unpack it with *"),
    ),
    mistake("a number as layer", lambda: fcnn.serial(3), TypeError, "serial", "3", "a function of one array"),
    mistake("a name as layer", lambda: fcnn.serial("relu"), TypeError, "serial", "'relu'", "a function of one array"),
    mistake("None as branch", lambda: fcnn.branches(None), TypeError, "branches", "None", "function"),
    mistake(
        "a partial function that holds an array",
        lambda: fcnn.serial(functools.partial(jnp.multiply, np.ones(3))),
        *(TypeError, "serial/multiply", "cannot be hashed", "put arrays into params by a layer of your own"),
    ),
    mistake(
        "a partial function that holds a list",
        lambda: fcnn.serial(functools.partial(jnp.sum, axis=[1, 2])),
        *(TypeError, "serial/sum", "axis=[1, 2]", "bind plain numbers or strings only"),
    ),
    mistake(
        "a graph layer named params",
        lambda: fcnn.graph(params=fcnn.Dense(3)),
        *(ValueError, "graph", "'params'", "the dict of all parameters"),
    ),
    mistake("a wiring that is no function", lambda: wired(3), TypeError, "graph", "3", "a function (layer, *inputs)"),
]


@pytest.mark.parametrize("case", MAKING, ids=lambda case: case.name)
def test_a_wrong_hyperparameter_is_refused_when_the_layer_is_made(case):
    with refused(case.kind, case.where, *case.says):
        case.call()


class Misfit(NamedTuple):
    name: str
    net: fcnn.Layer
    shape: object
    kind: type
    where: str
    says: tuple


def misfit(name, layers, shape, kind, where, *says):
    layers = layers if isinstance(layers, tuple) else (layers,)
    return Misfit(name, fcnn.serial(*layers), shape, kind, where, says)


FITTING = [
    misfit(
        "a kernel larger than its input",
        (fcnn.Conv(16, 5), fcnn.Conv(16, 5)),
        (8, 8, 1),
        *(ValueError, "conv2", "kernel (5, 5)", "(4, 4, 16)", 'use padding="SAME" or a smaller kernel'),
    ),
    misfit(
        "a dilation too large",
        (relu, fcnn.Conv(6, 3, dilation=8)),
        SHAPE,
        *(ValueError, "conv1", "kernel (3, 3)", "dilation (8, 8)", "(12, 12", "smaller kernel"),
    ),
    misfit(
        "a window larger than its input",
        fcnn.MaxPool(13),
        SHAPE,
        *(ValueError, "max_pool1", "window (13, 13)", "(12, 12", "a smaller window"),
    ),
    misfit(
        "groups that do not divide the channels",
        fcnn.Conv(6, 3, groups=3),
        (12, 12, 4),
        *(ValueError, "conv1", "groups 3", "4 input channels", "choose a number of groups that divides"),
    ),
    misfit(
        "a padding with another number of axes",
        fcnn.Conv(6, 5, padding=((1, 1), (1, 1), (1, 1))),
        SHAPE,
        *(ValueError, "conv1", "((1, 1), (1, 1), (1, 1))", "2 space axes", "write ((1, 1), (1, 1))"),
    ),
    misfit(
        "an ambiguous pair of paddings",
        fcnn.Conv(6, 5, padding=(0, 1)),
        SHAPE,
        *(ValueError, "conv1", "padding (0, 1)", "could mean", "((0, 0), (1, 1))"),
    ),
    misfit(
        "a kernel with another number of axes",
        fcnn.Conv(6, (3, 3, 3)),
        SHAPE,
        *(ValueError, "conv1", "kernel (3, 3, 3)", "the input has 2", "give 2 numbers, or one"),
    ),
    misfit(
        "a stride with another number of axes",
        fcnn.MaxPool(2, stride=(1, 1, 1)),
        SHAPE,
        *(ValueError, "max_pool1", "stride (1, 1, 1)", "the input has 2", "give 2 numbers, or one"),
    ),
    misfit(
        "a convolution after Flatten",
        (fcnn.Flatten(), fcnn.Conv(6, 5)),
        SHAPE,
        *(ValueError, "conv1", "(144,)", "1, 2 or 3 space dimensions", "(*space, channels)"),
    ),
    misfit(
        "pooling after Flatten",
        (fcnn.Flatten(), fcnn.MaxPool(2)),
        SHAPE,
        *(ValueError, "max_pool1", "(144,)", "no space to pool over", "pool before Flatten"),
    ),
    misfit(
        "four space dimensions",
        fcnn.Conv(6, 3),
        (5, 5, 5, 5, 1),
        *(ValueError, "conv1", "(5, 5, 5, 5, 1)", "1, 2 or 3 space dimensions", "without the batch"),
    ),
    misfit(
        "a pooling window that sees only padding",
        fcnn.MaxPool(2, padding=3),
        SHAPE,
        *(ValueError, "max_pool1", "((3, 3), (3, 3))", "nothing but padding", "pad by less than the window"),
    ),
    misfit(
        "REFLECT larger than the input",
        fcnn.Conv(6, 9, padding="REFLECT"),
        (4, 4, 1),
        *(ValueError, "conv1", '"REFLECT"', "an axis of 4", "a smaller kernel"),
    ),
    misfit(
        "CIRCULAR larger than the input",
        fcnn.Conv(6, 19, padding="CIRCULAR"),
        (4, 4, 1),
        *(ValueError, "conv1", '"CIRCULAR"', "an axis of 4", "a smaller kernel"),
    ),
    misfit(
        "a transposed convolution with CAUSAL",
        fcnn.ConvTranspose(6, 3, padding="CAUSAL"),
        SHAPE,
        *(ValueError, "conv_transpose1", '"CAUSAL"', "no transposed convolution", 'use "VALID", "SAME"'),
    ),
    misfit(
        "a transposed convolution that crops everything",
        fcnn.ConvTranspose(6, 3, padding=9),
        SHAPE,
        *(ValueError, "conv_transpose1", "padding 9", "(12, 12)", "use a smaller padding"),
    ),
    misfit(
        "a body whose shape differs from the input",
        fcnn.residual(fcnn.Conv(3, 3)),
        SHAPE,
        *(ValueError, "residual1", "(10, 10, 3)", "(12, 12, 1)", "give a shortcut"),
    ),
    misfit(
        "a body whose shape differs from the shortcut",
        fcnn.residual(fcnn.Conv(3, 3, padding="SAME"), fcnn.Conv(4, 1)),
        SHAPE,
        *(ValueError, "residual1", "body gives (12, 12, 3)", "shortcut gives (12, 12, 4)", "give a shortcut"),
    ),
    misfit(
        "a misfit deep inside",
        fcnn.residual(fcnn.serial(fcnn.Conv(4, 3), relu, fcnn.Conv(4, 15))),
        SHAPE,
        *(ValueError, "residual1/body/conv2", "kernel (15, 15)", "(10, 10", "a smaller kernel"),
    ),
    misfit(
        "branches of different spaces",
        fcnn.branches(fcnn.Conv(3, 3), fcnn.Conv(4, 1)),
        SHAPE,
        *(ValueError, "branches1", "conv1 gives (10, 10)", "conv2 gives (12, 12)", 'use padding="SAME"'),
    ),
    misfit(
        "branches of different channels to be summed",
        fcnn.branches(fcnn.Conv(3, 3), fcnn.Conv(4, 3), join="sum"),
        SHAPE,
        *(ValueError, "branches1", "(10, 10, 3)", "(10, 10, 4)", 'use join="concat"'),
    ),
    misfit(
        "a repeated layer that changes the shape",
        fcnn.repeat(fcnn.Conv(3, 3), 2),
        SHAPE,
        *(ValueError, "repeat1", "(12, 12, 1) into (10, 10, 3)", "keep the shape", 'use padding="SAME"'),
    ),
    misfit(
        "a misfit in a repeated layer",
        fcnn.repeat(fcnn.serial(relu, fcnn.Conv(1, 15)), 2),
        SHAPE,
        *(ValueError, "repeat1/conv1", "kernel (15, 15)", "(12, 12", "a smaller kernel"),
    ),
    misfit(
        "pieces that do not divide the channels",
        fcnn.Maxout(2),
        (4, 3),
        *(ValueError, "maxout1", "pieces 2", "3 channels", "of equal size"),
    ),
    misfit(
        "a shuffle that does not divide the channels",
        fcnn.PixelShuffle(2),
        (4, 4, 6),
        *(ValueError, "pixel_shuffle1", "factor 2", "4 channels", "(4, 4, 6)", "fcnn.Conv(4 * features, 1)"),
    ),
    misfit(
        "a shuffle that does not divide the space",
        fcnn.PixelUnshuffle((1, 3)),
        (4, 4, 6),
        *(ValueError, "pixel_unshuffle1", "factor (1, 3)", "(4, 4, 6)", "fcnn.Crop or fcnn.Pad"),
    ),
    misfit(
        "a shuffle after Flatten",
        (fcnn.Flatten(), fcnn.PixelShuffle(2)),
        SHAPE,
        *(ValueError, "pixel_shuffle1", "(144,)", "no space", "before Flatten"),
    ),
    misfit(
        "a shuffle by factors of another rank",
        fcnn.PixelShuffle((2, 2)),
        (4, 4),
        *(ValueError, "pixel_shuffle1", "factor (2, 2)", "2 space axes", "the input has 1"),
    ),
    misfit(
        "shuffled groups that do not divide",
        fcnn.ChannelShuffle(3),
        (4, 4),
        *(ValueError, "channel_shuffle1", "groups 3", "4 channels", "a divisor of 4"),
    ),
    misfit(
        "more copies than samples",
        fcnn.Pad(("REFLECT", 4)),
        (4, 4),
        *(ValueError, "pad1", '"REFLECT"', "4 samples", "an axis of 4", "add fewer, or zeros"),
    ),
    misfit(
        "a pad after Flatten",
        (fcnn.Flatten(), fcnn.Pad(1)),
        SHAPE,
        *(ValueError, "pad1", "(144,)", "no space", "pad before Flatten"),
    ),
    misfit(
        "an ambiguous pair to pad by",
        fcnn.Pad((1, 2)),
        (4, 4, 1),
        *(ValueError, "pad1", "padding (1, 2)", "could mean", "((1, 1), (2, 2))"),
    ),
    misfit(
        "pairs for another number of axes",
        fcnn.Crop(((1, 1), (0, 0))),
        (4, 1),
        *(ValueError, "crop1", "amount ((1, 1), (0, 0))", "(before, after)", "1 space axes"),
    ),
    misfit(
        "a crop of everything",
        fcnn.Crop(2),
        (5, 4, 1),
        *(ValueError, "crop1", "amount 2", "leaves nothing", "(5, 4, 1)", "remove less"),
    ),
    misfit(
        "a crop to more than there is",
        fcnn.Crop(size=(3, 6)),
        (5, 4, 1),
        *(ValueError, "crop1", "size (3, 6)", "larger than", "(5, 4, 1)", "fcnn.Pad"),
    ),
    misfit(
        "a crop after Flatten",
        (fcnn.Flatten(), fcnn.Crop(1)),
        SHAPE,
        *(ValueError, "crop1", "(144,)", "no space", "crop before Flatten"),
    ),
    misfit(
        "a scale that leaves nothing",
        fcnn.Resize(scale=0.2),
        (4, 9, 1),
        *(ValueError, "resize1", "scale 0.2", "leaves nothing", "(4, 9, 1)", "a larger one"),
    ),
    misfit(
        "a resizing after Flatten",
        (fcnn.Flatten(), fcnn.Resize(4)),
        SHAPE,
        *(ValueError, "resize1", "(144,)", "no space", "before Flatten"),
    ),
    misfit(
        "scales for another number of axes",
        fcnn.Resize(scale=(2, 2)),
        (4, 1),
        *(ValueError, "resize1", "scale (2, 2)", "2 space axes", "the input has 1"),
    ),
    misfit(
        "group normalisation that does not divide",
        fcnn.GroupNorm(3),
        (4, 4),
        *(ValueError, "group_norm1", "groups 3", "4 channels", "of equal size"),
    ),
    misfit(
        "instance normalisation after Flatten",
        (fcnn.Flatten(), fcnn.InstanceNorm()),
        SHAPE,
        *(ValueError, "instance_norm1", "(144,)", "no variance", "before Flatten"),
    ),
    misfit(
        "a function that loses the batch axis",
        (fcnn.Flatten(), loses_the_batch),
        SHAPE,
        *(ValueError, "loses_the_batch1", "returned an output of ()", "keeps the batch as its first axis"),
    ),
    misfit(
        "a function that returns a tuple",
        (fcnn.Flatten(), pair),
        SHAPE,
        *(TypeError, "pair1", "returned a tuple", "expected one array"),
    ),
    misfit(
        "a function of two arrays",
        jnp.add,
        SHAPE,
        *(TypeError, "add1", "was given 1 array", "missing", "'y'", "join several by fcnn.graph"),
    ),
    misfit("a shape with the batch as None", relu, (None, 28, 28, 1), TypeError, "serial", "None", "no batch axis"),
    misfit(
        "an array instead of its shape",
        relu,
        images(2, 28, 28, 1),
        *(TypeError, "serial", "an array of (2, 28, 28, 1) was given", "x.shape[1:]", "(28, 28, 1)"),
    ),
    misfit("a shape as an array", relu, np.array([28, 28, 1]), TypeError, "serial", "array", "28", "tuple"),
    misfit("a number as shape", relu, 784, TypeError, "serial", "784", "such as (28, 28, 1)"),
    misfit("no shape", relu, None, TypeError, "serial", "None", "such as (28, 28, 1)"),
    misfit("an empty shape", relu, (), ValueError, "serial", "empty", "such as (28, 28, 1)"),
    misfit("a size of 0", relu, (28, 0, 1), ValueError, "serial", "(28, 0, 1)", "at least 1"),
    misfit("half a pixel", relu, (28.5, 1), TypeError, "serial", "28.5", "whole number"),
]


@pytest.mark.parametrize("case", FITTING, ids=lambda case: case.name)
@pytest.mark.parametrize("method", ["out_shape", "init", "init_state"])
def test_a_shape_that_does_not_suit_the_network_is_refused(method, case):
    arguments = (any_key(), case.shape) if method == "init" else (case.shape,)
    with refused(case.kind, case.where, *case.says):
        getattr(case.net, method)(*arguments)


def test_the_message_of_a_kernel_that_does_not_fit_is_the_documented_one():
    net = fcnn.serial(fcnn.Conv(16, 5), fcnn.Conv(16, 5))
    with pytest.raises(ValueError) as caught:
        net.init(any_key(), (8, 8, 1))
    assert str(caught.value) == (
        'conv2: kernel (5, 5) does not fit an input of (4, 4, 16); use padding="SAME" or a smaller kernel'
    )


@pytest.mark.parametrize("size", range(1, 9))
def test_a_function_that_averages_over_the_batch_is_refused_whatever_the_size_of_the_space(size):
    with refused(ValueError, "averages_over_the_batch1", "keeps the batch as its first axis"):
        fcnn.serial(averages_over_the_batch).out_shape((size, 3))
    with refused(ValueError, "graph", "keep the batch as their first axis"):
        wired(lambda layer, x: layer.dense(x).mean(0)).out_shape((size, 3))


# Parts that give several arrays where one is asked for

#: a part that gives a tuple, and one that gives a dict
TWO = wired(lambda layer, x: (layer.dense(x), jnp.tanh(layer.dense(x))))
HEADS = wired(lambda layer, x: {"box": layer.dense(x), "kind": jnp.tanh(layer.dense(x))})


@dataclass(frozen=True)
class TwoShapes(fcnn.Layer):
    """A layer of two outputs that is no graph; they have no parameters."""

    def infer_shape(self, shape):
        return [shape, shape]

    def forward(self, params, x):
        return [x, x]


def total(made):
    """The sum of the arrays of a tuple; one array stays as it is."""
    return sum(jax.tree.leaves(made))


class Several(NamedTuple):
    name: str
    make: object
    part: fcnn.Layer
    where: str
    says: tuple


def several(name, make, part, where, *says):
    return Several(name, make, part, where, says)


ONE_EACH = [
    several("summed", lambda p: fcnn.branches(p, p, join="sum"), TWO, "branches1/graph1", "every part of branches"),
    several("a dict summed", lambda p: fcnn.branches(p, p, join="sum"), HEADS, "branches1/graph1", "of branches"),
    several("concatenated", lambda p: fcnn.branches(jnp.tanh, two=p), TWO, "branches1/two", "every part of branches"),
    several("a dict concatenated", lambda p: fcnn.branches(p, p), HEADS, "branches1/graph1", "every part of branches"),
    several("a body", fcnn.residual, TWO, "residual1/body", "every part of residual"),
    several("a body that gives a dict", fcnn.residual, HEADS, "residual1/body", "every part of residual"),
    several("a body and a shortcut", lambda p: fcnn.residual(p, p), TWO, "residual1/body", "every part of residual"),
    several("a shortcut", lambda p: fcnn.residual(jnp.tanh, p), HEADS, "residual1/shortcut", "every part of residual"),
    several(
        "the end of a body",
        lambda p: fcnn.residual(fcnn.serial(jnp.tanh, p)),
        TWO,
        *("residual1/body", "every part of residual"),
    ),
    several("a layer of two outputs", lambda p: fcnn.branches(p), TwoShapes(), "branches1/two_shapes1", "of branches"),
    several("before a layer", lambda p: fcnn.serial(p, fcnn.Dense(3)), TWO, "serial1/dense1", "the part before it"),
    several("before a function", lambda p: fcnn.serial(p, jnp.tanh), HEADS, "serial1/tanh1", "the part before it"),
    several(
        "before a function that could join them",
        lambda p: fcnn.serial(p, total),
        TWO,
        *("serial1/total1", "the part before it"),
    ),
    several(
        "before a residual block",
        lambda p: fcnn.serial(p, fcnn.residual(jnp.tanh)),
        HEADS,
        *("serial1/residual1", "the part before it"),
    ),
    several(
        "a list before a layer",
        lambda p: fcnn.serial(p, fcnn.Dense(3)),
        TwoShapes(),
        *("serial1/dense1", "the part before it"),
    ),
]
SHAPES_OF = {
    TWO: "several arrays of the shapes ((3,), (3,))",
    HEADS: "several arrays of the shapes {'box': (3,), 'kind': (3,)}",
    TwoShapes(): "several arrays of the shapes [(3,), (3,)]",
}
CHOICE = {TWO: "layer.part(x)[0])", HEADS: "layer.part(x)['box'])", TwoShapes(): "layer.part(x)[0])"}


def params_of_its_parts(layer):
    """Parameters of a network that init refuses, for inputs of three numbers."""
    if not isinstance(layer, (Serial, Residual, Branches)):
        return blank(layer, (3,))
    made = {name: params_of_its_parts(part) for name, part in layer.named_parts()}
    return {name: entry for name, entry in made.items() if entry}


@pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.name)
def test_a_part_that_gives_several_arrays_where_one_is_asked_for_is_refused_before_any_computing(case):
    ran = []

    def watch(x):
        jax.debug.callback(lambda: ran.append("ran"))
        return x

    net = fcnn.serial(watch, case.make(case.part))
    params, x = params_of_its_parts(net), images(2, 3)
    for call in (
        lambda: net.out_shape((3,)),
        lambda: net.init(any_key(), (3,)),
        lambda: net.init_state((3,)),
        lambda: net.apply(params, x),
        lambda: net.apply_train(params, x),
        lambda: jax.jit(net.apply)(params, x),
    ):
        with refused(TypeError, case.where, SHAPES_OF[case.part], *case.says, "in a graph", CHOICE[case.part]):
            call()
    jax.effects_barrier()
    assert not ran


@pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.name)
def test_the_way_out_of_several_arrays_works_as_it_is_written(case):
    with pytest.raises(TypeError) as caught:
        case.make(case.part).out_shape((3,))
    code = str(caught.value).rpartition("such as ")[2]
    chosen = eval(code.replace("...", "part"), {"fcnn": fcnn, "part": case.part})
    net = case.make(chosen)
    shape = net.out_shape((3,))
    assert net.apply(net.init(any_key(), (3,)), images(2, 3)).shape == (2, *shape)


@dataclass(frozen=True)
class Forgetful(fcnn.Layer):
    """A layer whose author forgot to return what it computed."""

    def forward(self, params, x):
        x + 1


@dataclass(frozen=True)
class Shapeless(Forgetful):
    """The same for its shape."""

    def infer_shape(self, shape):
        return None


@pytest.mark.parametrize(
    ("make", "where", "asked"),
    [
        (fcnn.residual, "residual1/body", "residual1/body"),
        (lambda part: fcnn.branches(one=part), "branches1/one", "branches1/one"),
        (lambda part: fcnn.serial(part, jnp.tanh), "serial1/forgetful1", "serial1/tanh1"),
    ],
    ids=["residual", "branches", "serial"],
)
def test_a_part_that_returns_nothing_is_refused(make, where, asked):
    with refused(TypeError, where, "a NoneType", "forward must return an array"):
        fcnn.serial(make(Forgetful())).apply({}, images(2, 3))
    with refused(TypeError, asked, "the shape None", "infer_shape must return a tuple of whole numbers"):
        fcnn.serial(make(Shapeless())).out_shape((3,))


INITIAL = [
    mistake("no key", lambda: NET.init(None, SHAPE), TypeError, "serial", "None", "jax.random.key(0)"),
    mistake("an int as key", lambda: NET.init(0, SHAPE), TypeError, "serial", "not 0", "jax.random.key(0)"),
    mistake(
        "several keys",
        lambda: NET.init(jax.random.split(any_key(), 3), SHAPE),
        *(TypeError, "serial", "(3,)", "give one key", "jax.vmap"),
    ),
    mistake(
        "several raw keys",
        lambda: NET.init(raw_keys(3, 2), SHAPE),
        *(TypeError, "serial", "(3, 2)", "give one key", "jax.vmap"),
    ),
    mistake(
        "key and shape the other way round",
        lambda: NET.init(SHAPE, any_key()),
        *(TypeError, "serial", "(12, 12, 1)", "jax.random.key(0)"),
    ),
    mistake(
        "an initialiser that makes NaN",
        lambda: kernel_init(filled(NAN)),
        *(ValueError, "dense1", "initialiser of kernel", "not finite", "check its scale"),
    ),
    mistake(
        "an initialiser that draws NaN for repeated layers",
        lambda: fcnn.serial(fcnn.repeat(fcnn.Dense(4, kernel_init=drawn_nan), 2)).init(any_key(), (4,)),
        *(ValueError, "repeat1", "initialiser of kernel", "not finite", "check its scale"),
    ),
    mistake(
        "an initialiser that makes infinity",
        lambda: fcnn.serial(fcnn.Dense(3, bias_init=filled(np.inf))).init(any_key(), (4,)),
        *(ValueError, "dense1", "initialiser of bias", "not finite", "check its scale"),
    ),
    mistake(
        "an initialiser that makes another shape",
        lambda: kernel_init(turned_around),
        *(ValueError, "dense1", "initialiser of kernel", "(3, 4)", "(4, 3)", "(key, shape, dtype)"),
    ),
    mistake(
        "an initialiser that makes another shape for a locally connected layer",
        lambda: fcnn.serial(fcnn.LocallyConnected(3, 2, kernel_init=turned_around)).init(any_key(), (4, 1)),
        *(ValueError, "locally_connected1", "initialiser of kernel", "(key, shape, dtype)"),
    ),
    mistake(
        "an initialiser that makes integers",
        lambda: kernel_init(integers),
        *(TypeError, "dense1", "initialiser of kernel", "int32"),
    ),
    mistake(
        "a maker of initialisers that is not called",
        lambda: kernel_init(jax.nn.initializers.he_normal),
        *(ValueError, "dense1", "initialiser of kernel", "a function", "(key, shape, dtype)"),
    ),
    mistake(
        "a scale as text",
        lambda: kernel_init(("normal", "0.01")),
        *(TypeError, "dense", "kernel_init", "'0.01'", "without quotes"),
    ),
    mistake(
        "an initialiser for matrices used for a bias",
        lambda: fcnn.serial(fcnn.Dense(3, bias_init="he_normal")).init(any_key(), (4,)),
        *(ValueError, "dense1", "bias"),
    ),
]


@pytest.mark.parametrize("case", INITIAL, ids=lambda case: case.name)
def test_first_parameters_that_cannot_be_made_well_are_refused(case):
    with refused(case.kind, case.where, *case.says):
        case.call()


@pytest.mark.parametrize(
    "make",
    [
        lambda: fcnn.Conv(np.int64(6), np.int32(5), stride=np.uint8(2)),
        lambda: fcnn.Conv(6, [5, 5], padding=[[1, 1], [2, 2]]),
        lambda: fcnn.Dropout(np.float32(0.5)),
        lambda: fcnn.BatchNorm(momentum=np.float32(0.5), epsilon=np.float64(1e-3)),
        lambda: fcnn.LpPool(2, power=np.float32(2)),
        lambda: fcnn.Dense(3, kernel_init=("normal", np.float32(0.5))),
    ],
    ids=["whole numbers", "lists", "rate", "momentum", "power", "scale"],
)
def test_numbers_of_numpy_and_lists_are_no_mistakes(make):
    assert make() == make()


def test_no_parameter_is_drawn_where_the_last_layer_does_not_fit():
    drawn = []

    def counting(key, shape, dtype):
        drawn.append(shape)
        return jnp.zeros(shape, dtype)

    first = fcnn.Conv(6, 3, kernel_init=counting)
    with refused(ValueError, "conv2", "(15, 15)"):
        fcnn.serial(first, fcnn.Conv(6, 15)).init(any_key(), SHAPE)
    assert not drawn
    fcnn.serial(first, fcnn.Conv(6, 3)).init(any_key(), SHAPE)
    assert drawn == [(3, 3, 1, 6)]


# The helper of mistakes.py can fail


def raises(error):
    def call():
        with refused(ValueError, "conv1", "kernel", "smaller"):
            if error is not None:
                raise error

    return call


def test_the_helper_accepts_what_it_should():
    raises(ValueError("conv1: kernel too large; use a smaller one"))()


@pytest.mark.parametrize(
    "error",
    [
        TypeError("conv1: kernel too large; use a smaller one"),
        KeyError("conv1: kernel too large; use a smaller one"),
        UnicodeError("conv1: kernel too large; use a smaller one"),  # a subclass of ValueError
        ValueError("conv2: kernel too large; use a smaller one"),
        ValueError("body/conv1: kernel too large; use a smaller one"),
        ValueError("kernel too large; use a smaller one"),
        ValueError("conv1: window too large; use a smaller one"),
        ValueError("conv1: kernel too large"),
        ValueError("conv1: kernel Tracer too large; use a smaller one"),
    ],
    ids=str,
)
def test_the_helper_fails_on_another_kind_path_value_or_way_out(error):
    with pytest.raises(AssertionError):
        raises(error)()


def test_the_helper_fails_where_nothing_is_raised():
    with pytest.raises(pytest.fail.Exception):
        raises(None)()
