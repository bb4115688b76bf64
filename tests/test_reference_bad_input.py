"""Bad input to the reference is refused with a message that says what is wrong."""

import numpy as np
import pytest

from fcnn import reference as ref

EYE = np.eye(2)
BAD = {
    "integer parameters": (lambda: ref.Dense(kernel=np.eye(2, dtype=int)), TypeError, "floating-point"),
    "integer input": (lambda: ref.MaxPool(2).forward(np.ones((1, 4, 1), int)), TypeError, "floating-point"),
    "bias": (lambda: ref.Dense(kernel=EYE, bias=np.ones(3)), ValueError, "bias"),
    "channels": (lambda: ref.Dense(kernel=EYE).forward(np.ones((1, 3))), ValueError, "does not take"),
    "conv layout": (lambda: ref.Conv(kernel=np.ones((3, 1, 1))).forward(np.ones((3, 1))), ValueError, "batch"),
    "conv channels": (lambda: ref.Conv(kernel=np.ones((3, 2, 1))).forward(np.ones((1, 5, 1))), ValueError, "channels"),
    "conv groups": (
        lambda: ref.Conv(kernel=np.ones((3, 1, 3)), groups=2).forward(np.ones((1, 5, 2))),
        ValueError,
        "groups",
    ),
    "conv size": (lambda: ref.Conv(kernel=np.ones((3, 1, 1))).forward(np.ones((1, 2, 1))), ValueError, "fit"),
    "conv bias": (lambda: ref.Conv(kernel=np.ones((3, 1, 1)), bias=np.ones(2)), ValueError, "bias"),
    "definition size": (lambda: ref.conv_by_definition(np.ones((1, 2, 1)), np.ones((3, 1, 1))), ValueError, "fit"),
    "definition gradient": (
        lambda: ref.conv_gradients_by_definition(np.ones((1, 3, 1)), np.ones((2, 1, 1)), np.ones((1, 3, 1))),
        ValueError,
        "gradient has shape",
    ),
    "padding name": (
        lambda: ref.Conv(kernel=np.ones((3, 1, 1)), padding="FULL").forward(np.ones((1, 3, 1))),
        ValueError,
        "unknown",
    ),
    "padding pair": (lambda: ref.MaxPool(2, padding=(0, 1)).forward(np.ones((1, 3, 3, 1))), ValueError, "not clear"),
    "padding pairs": (lambda: ref.MaxPool(2, padding=((0, 1),)).forward(np.ones((1, 3, 3, 1))), ValueError, "each"),
    "negative padding": (lambda: ref.MaxPool(2, padding=-1).forward(np.ones((1, 3, 1))), ValueError, "at least 0"),
    "fraction": (lambda: ref.MaxPool(2, stride=1.5).forward(np.ones((1, 3, 1))), TypeError, "whole"),
    "mirror": (
        lambda: ref.Conv(kernel=np.ones((5, 1, 1)), padding="REFLECT").forward(np.ones((1, 2, 1))),
        ValueError,
        "copy",
    ),
    "no transpose": (
        lambda: ref.ConvTranspose(kernel=np.ones((3, 1, 1)), padding="CAUSAL").forward(np.ones((1, 3, 1))),
        ValueError,
        "transposed",
    ),
    "all cropped": (
        lambda: ref.ConvTranspose(kernel=np.ones((1, 1, 1)), padding=2).forward(np.ones((1, 3, 1))),
        ValueError,
        "crops all",
    ),
    "local kernel": (
        lambda: ref.LocallyConnected(kernel=np.ones((3, 2, 1, 1))).forward(np.ones((1, 3, 1))),
        ValueError,
        "asks for",
    ),
    "local bias": (
        lambda: ref.LocallyConnected(kernel=np.ones((2, 2, 1, 1)), bias=np.ones(1)).forward(np.ones((1, 3, 1))),
        ValueError,
        "bias",
    ),
    "nothing but padding": (lambda: ref.AvgPool(1, padding=1).forward(np.ones((1, 3, 1))), ValueError, "nothing but"),
    "no space": (lambda: ref.MaxPool(2).forward(np.ones((1, 3))), ValueError, "space"),
    "no space for cells": (lambda: ref.AdaptiveAvgPool(2).forward(np.ones((1, 3))), ValueError, "space"),
    "no whole space": (lambda: ref.GlobalMaxPool().forward(np.ones((1, 3))), ValueError, "space"),
    "power": (lambda: ref.LpPool(2, power=0.5), ValueError, "power"),
    "slopes": (lambda: ref.PReLU(np.ones(2)).forward(np.ones((1, 3))), ValueError, "each channel"),
    "factors": (lambda: ref.ScaleChannels(np.ones(2)).forward(np.ones((1, 3))), ValueError, "each channel"),
    "shuffled channels": (lambda: ref.PixelShuffle(2).forward(np.ones((1, 3, 3))), ValueError, "divide"),
    "unshuffled space": (lambda: ref.PixelUnshuffle(2).forward(np.ones((1, 3, 3))), ValueError, "divide"),
    "nothing to shuffle": (lambda: ref.PixelShuffle(2).forward(np.ones((1, 4))), ValueError, "space"),
    "order": (lambda: ref.PixelShuffle(2, order="RCD"), ValueError, "order"),
    "shuffled groups": (lambda: ref.ChannelShuffle(2).forward(np.ones((1, 3))), ValueError, "divide"),
    "no shuffled groups": (lambda: ref.ChannelShuffle(0), ValueError, "at least 1"),
    "too many copies": (lambda: ref.Pad(("REFLECT", 3)).forward(np.ones((1, 3, 1))), ValueError, "copy"),
    "nothing to pad": (lambda: ref.Pad(1).forward(np.ones((1, 3))), ValueError, "space"),
    "nothing left": (lambda: ref.Crop(2).forward(np.ones((1, 3, 1))), ValueError, "leaves nothing"),
    "too large a crop": (lambda: ref.Crop(size=4).forward(np.ones((1, 3, 1))), ValueError, "exceeds it"),
    "two crops": (lambda: ref.Crop(1, 2), ValueError, "give one"),
    "two sizes": (lambda: ref.Resize(2, scale=2), ValueError, "give one"),
    "method": (lambda: ref.Resize(2, method="area"), ValueError, "method"),
    "nothing to resize": (lambda: ref.Resize(2).forward(np.ones((1, 3))), ValueError, "space"),
    "pieces": (lambda: ref.Maxout(2).forward(np.ones((1, 3))), ValueError, "divide"),
    "no pieces": (lambda: ref.Maxout(0), ValueError, "pieces"),
    "rate": (lambda: ref.Dropout(np.ones(2), 1.0), ValueError, "rate"),
    "mask values": (lambda: ref.Dropout(np.array([0.5]), 0.5), ValueError, "zeros and ones"),
    "mask shape": (lambda: ref.Dropout(np.ones((2, 3)), 0.5).forward(np.ones((1, 3))), ValueError, "mask"),
    "flat": (lambda: ref.Flatten().forward(np.ones(3)), ValueError, "batch"),
    "scale": (lambda: ref.LayerNorm(scale=np.ones(2)).forward(np.ones((1, 3))), ValueError, "scale"),
    "epsilon": (lambda: ref.LayerNorm(epsilon=-1.0), ValueError, "epsilon"),
    "single": (lambda: ref.BatchNorm(train=True).forward(np.ones((1, 3))), ValueError, "no variance"),
    "statistics": (lambda: ref.BatchNorm(mean=np.ones(2)).forward(np.ones((2, 3))), ValueError, "statistics"),
    "batch axis": (lambda: ref.LayerNorm(axes=(0, 1)).forward(np.ones((2, 3))), ValueError, "batch"),
    "one sample": (lambda: ref.InstanceNorm().forward(np.ones((2, 1, 3))), ValueError, "no variance"),
    "norm groups": (lambda: ref.GroupNorm(2).forward(np.ones((2, 3))), ValueError, "divide"),
    "no groups": (lambda: ref.GroupNorm(0), ValueError, "groups"),
    "size": (lambda: ref.LocalResponseNorm(size=0), ValueError, "size"),
    "no input": (lambda: ref.Add().forward(), ValueError, "at least one"),
    "one to compare": (lambda: ref.Max().forward(np.ones(2)), ValueError, "two or more"),
    "no copies": (lambda: ref.Copy(0), ValueError, "at least 1"),
    "no matrix": (lambda: ref.MatMul().forward(np.ones(2), EYE), ValueError, "matrices"),
    "labels": (lambda: ref.Hinge().forward(EYE, np.array([0.0, 1.0])), TypeError, "integer"),
    "label range": (lambda: ref.SoftmaxCrossEntropy().forward(EYE, np.array([0, 2])), ValueError, "classes"),
    "label shape": (lambda: ref.SoftmaxCrossEntropy().forward(EYE, np.array([0])), ValueError, "shape"),
    "targets": (lambda: ref.SquaredError().forward(EYE, np.ones(2)), ValueError, "shape"),
    "loss backward": (lambda: ref.SquaredError().backward(), ValueError, "forward"),
    "update names": (lambda: ref.SGD(0.1).step({"a": EYE}, {"b": EYE}), ValueError, "gradients of"),
    "update shapes": (lambda: ref.Adam(0.1).step({"a": EYE}, {"a": np.ones(2)}), ValueError, "shape"),
    "other names": (lambda: ref.Dense(kernel=EYE).replace({"bias": EYE}), ValueError, "parameters"),
    "other shapes": (lambda: ref.Dense(kernel=EYE).replace({"kernel": np.ones(2)}), ValueError, "shape"),
    "no node": (lambda: ref.Chain([np.tanh]), TypeError, "not a node"),
    "shortcut": (lambda: ref.Residual(ref.Dense(kernel=np.ones((2, 1)))).forward(EYE), ValueError, "added"),
    "join": (lambda: ref.Branches([ref.Square()], join="max"), ValueError, "join"),
    "sum": (
        lambda: ref.Branches([ref.Square(), ref.Dense(kernel=np.ones((2, 1)))], join="sum").forward(EYE),
        ValueError,
        "agree",
    ),
    "no value": (lambda: ref.apply(ref.Square(), EYE), TypeError, "values on a tape"),
    "two tapes": (lambda: ref.Tape().value(EYE) + ref.Tape().value(EYE), ValueError, "same tape"),
    "tape gradient": (lambda: ref.backward(ref.Tape().value(EYE), 1.0), ValueError, "gradient has shape"),
    "sets": (lambda: ref.SharedLinear(np.ones(2), np.zeros((2, 2))), TypeError, "integers"),
    "set shapes": (lambda: ref.SharedLinear(EYE, np.zeros((2, 2), int)), ValueError, "n_sets"),
    "set labels": (lambda: ref.SharedLinear(np.ones(2), np.full((2, 2), 2)), ValueError, "values"),
    "set input": (
        lambda: ref.SharedLinear(np.ones(1), np.zeros((2, 2), int)).forward(np.ones((1, 3))),
        ValueError,
        "batch",
    ),
    "two weights on an edge": (lambda: ref.scanning_sets((2,), 4, padding="CIRCULAR"), ValueError, "two weights"),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_base_class_does_nothing():
    with pytest.raises(NotImplementedError):
        ref.Node().forward()
    with pytest.raises(NotImplementedError):
        ref.Node().backward()
