"""Every public layer and composition in a form that the contract test can put through its paces.

A new name at the door without a case here fails the test of completeness.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

import fcnn


@dataclass(frozen=True)
class Case:
    """A network, the shape of one example, the shapes of further inputs, and the name at the door that it covers."""

    net: fcnn.Layer
    shape: tuple
    more_shapes: tuple = ()
    covers: str = ""
    tags: frozenset = field(default_factory=frozenset)

    @property
    def local(self):
        """Whether every output that sees a sample changes with it: nothing on the way is cut off, as by a ReLU."""
        return not any(cut in repr(self.net) for cut in ("relu", "lenet"))

    @property
    def shapes(self):
        return (self.shape, *self.more_shapes)


def square(x):
    """A function of one array, of the tests' own."""
    return x * x


def two_towers(layer, a, b):
    """One encoder at two places, tied weights, and two inputs."""
    h = layer.encode(a) * layer.encode(b)
    return layer.mix(h) @ layer.params["encode"]["kernel"].T


def shared_conv(layer, x):
    """One convolution applied twice."""
    return layer.conv(layer.drop(layer.conv(x)))


def puts_back(layer, x):
    """What was made of a pooled image, put back where the pooling found its values."""
    return layer.unpool(layer.conv(layer.pool(x)), x)


IMAGE, SOUND, VOLUME, VECTOR = (6, 5, 4), (9, 4), (4, 3, 5, 4), (8,)

CASES = {
    "conv": Case(fcnn.Conv(6, 3), IMAGE, covers="Conv"),
    "conv of sound": Case(fcnn.Conv(6, 4, stride=2, padding="CAUSAL"), SOUND, covers="Conv"),
    "conv of volumes": Case(fcnn.Conv(2, 2, padding="SAME"), VOLUME, covers="Conv"),
    "conv grouped": Case(fcnn.Conv(8, (3, 2), stride=(2, 1), padding="SAME", groups=4), IMAGE, covers="Conv"),
    "conv dilated": Case(fcnn.Conv(3, 2, dilation=(3, 2), bias=False), IMAGE, covers="Conv"),
    "conv circular": Case(fcnn.Conv(3, 3, padding="CIRCULAR"), IMAGE, covers="Conv"),
    "conv reflect": Case(fcnn.Conv(3, 3, padding="REFLECT", kernel_init=("normal", 0.3)), IMAGE, covers="Conv"),
    "conv pairs": Case(fcnn.Conv(3, 3, padding=((1, 0), (0, 2))), IMAGE, covers="Conv"),
    "conv edge": Case(fcnn.Conv(3, 2, stride=2, padding=("EDGE", ((2, 1), (0, 3)))), IMAGE, covers="Conv"),
    "conv transpose": Case(fcnn.ConvTranspose(3, 4, stride=2, padding=1), IMAGE, covers="ConvTranspose"),
    "conv transpose same": Case(
        fcnn.ConvTranspose(4, 3, stride=3, padding="SAME", groups=2), SOUND, covers="ConvTranspose"
    ),
    "conv transpose to a size": Case(
        fcnn.ConvTranspose(3, 3, stride=2, padding="SAME_LOWER", out=(11, 10)), IMAGE, covers="ConvTranspose"
    ),
    "conv transpose circular": Case(
        fcnn.ConvTranspose(3, 4, stride=2, padding="CIRCULAR"), IMAGE, covers="ConvTranspose"
    ),
    "locally connected": Case(fcnn.LocallyConnected(4, 3, stride=2, groups=2), IMAGE, covers="LocallyConnected"),
    "dense": Case(fcnn.Dense(3), VECTOR, covers="Dense"),
    "dense at every position": Case(fcnn.Dense(3, bias=False), IMAGE, covers="Dense"),
    "flatten": Case(fcnn.Flatten(), IMAGE, covers="Flatten"),
    "flatten some axes": Case(fcnn.Flatten(last=2), IMAGE, covers="Flatten"),
    "maxout": Case(fcnn.Maxout(2), IMAGE, covers="Maxout"),
    "prelu": Case(fcnn.serial(jnp.negative, fcnn.PReLU()), IMAGE, covers="PReLU"),
    "prelu of channels": Case(
        fcnn.serial(jnp.negative, fcnn.PReLU(per_channel=True, slope_init=("normal", 0.5))), VECTOR, covers="PReLU"
    ),
    "channel shuffle": Case(fcnn.ChannelShuffle(2), IMAGE, covers="ChannelShuffle"),
    "pixel shuffle": Case(fcnn.PixelShuffle(2), IMAGE, covers="PixelShuffle"),
    "pixel shuffle of sound": Case(fcnn.PixelShuffle(2, order="DCR"), SOUND, covers="PixelShuffle"),
    "pixel unshuffle": Case(fcnn.PixelUnshuffle((2, 1)), IMAGE, covers="PixelUnshuffle"),
    "pad": Case(fcnn.Pad(((1, 0), (2, 3)), value=0.5), IMAGE, covers="Pad"),
    "pad by reflection": Case(fcnn.Pad(("REFLECT", ((2, 1), (0, 2), (1, 1)))), VOLUME, covers="Pad"),
    "pad around": Case(fcnn.Pad(("CIRCULAR", (3, 1))), SOUND, covers="Pad"),
    "pad by the edge": Case(fcnn.Pad(("EDGE", 2)), IMAGE, covers="Pad"),
    "crop": Case(fcnn.Crop(((1, 0), (2, 1))), IMAGE, covers="Crop"),
    "crop to a size": Case(fcnn.Crop(size=(3, None)), IMAGE, covers="Crop"),
    "resize": Case(fcnn.Resize((9, 4), method="cubic"), IMAGE, covers="Resize"),
    "resize by a factor": Case(fcnn.Resize(scale=2), IMAGE, covers="Resize"),
    "resize by the nearest": Case(fcnn.Resize(scale=0.5, method="nearest"), SOUND, covers="Resize"),
    "resize with aligned corners": Case(fcnn.Resize((4, 9), align_corners=True), IMAGE, covers="Resize"),
    "resize antialiased": Case(fcnn.Resize(2, antialias=True), VOLUME, covers="Resize"),
    "resize as jax does": Case(fcnn.Resize((4, 7), method="cubic", convention="jax"), IMAGE, covers="Resize"),
    "stochastic depth": Case(
        fcnn.residual(fcnn.serial(fcnn.Conv(4, 1), fcnn.StochasticDepth(0.4))), IMAGE, covers="StochasticDepth"
    ),
    "scale channels": Case(fcnn.ScaleChannels(0.1, bias=True), IMAGE, covers="ScaleChannels"),
    "dropout": Case(fcnn.Dropout(0.4), IMAGE, covers="Dropout"),
    "dropout of channels": Case(fcnn.Dropout(0.4, whole_channels=True), IMAGE, covers="Dropout"),
    "max pool": Case(fcnn.MaxPool(2), IMAGE, covers="MaxPool"),
    "max pool overlapping": Case(fcnn.MaxPool(3, stride=2, padding="SAME", ceil_mode=True), IMAGE, covers="MaxPool"),
    "max pool dilated": Case(fcnn.MaxPool(2, stride=1, dilation=2), VOLUME, covers="MaxPool"),
    "avg pool": Case(fcnn.AvgPool(2, padding=1, count_padding=True), IMAGE, covers="AvgPool"),
    "avg pool of sound": Case(fcnn.AvgPool(3, stride=2, padding="SAME"), SOUND, covers="AvgPool"),
    "avg pool with a divisor": Case(
        fcnn.AvgPool(2, stride=1, padding=("CIRCULAR", 1), divisor=3), IMAGE, covers="AvgPool"
    ),
    "lp pool": Case(fcnn.LpPool(2, power=3), IMAGE, covers="LpPool"),
    "global max pool": Case(fcnn.GlobalMaxPool(), IMAGE, covers="GlobalMaxPool"),
    "global avg pool": Case(fcnn.GlobalAvgPool(), VOLUME, covers="GlobalAvgPool"),
    "adaptive avg pool": Case(fcnn.AdaptiveAvgPool((4, 2)), IMAGE, covers="AdaptiveAvgPool"),
    "adaptive max pool": Case(fcnn.AdaptiveMaxPool(2), IMAGE, covers="AdaptiveMaxPool"),
    "adaptive pool of one axis": Case(fcnn.AdaptiveMaxPool((2, None)), IMAGE, covers="AdaptiveMaxPool"),
    "max unpool": Case(
        fcnn.graph(
            pool=fcnn.MaxPool(3, stride=2, padding=1),
            conv=fcnn.Conv(4, 1),
            unpool=fcnn.MaxUnpool(3, stride=2, padding=1),
        )(puts_back),
        IMAGE,
        covers="MaxUnpool",
        tags=frozenset({"moves values"}),
    ),
    "batch norm": Case(fcnn.BatchNorm(), IMAGE, covers="BatchNorm"),
    "batch norm plain": Case(fcnn.BatchNorm(scale=False, bias=False), VECTOR, covers="BatchNorm"),
    "batch norm cumulative": Case(fcnn.BatchNorm(momentum=None, unbiased=False), IMAGE, covers="BatchNorm"),
    "batch norm of the batch alone": Case(
        fcnn.BatchNorm(running=False), IMAGE, covers="BatchNorm", tags=frozenset({"joins examples"})
    ),
    "layer norm": Case(fcnn.LayerNorm(), IMAGE, covers="LayerNorm"),
    "layer norm of the example": Case(fcnn.LayerNorm(axes=(-3, -2, -1)), IMAGE, covers="LayerNorm"),
    "layer norm of columns": Case(fcnn.LayerNorm(axes=1, bias=False), IMAGE, covers="LayerNorm"),
    "group norm": Case(fcnn.GroupNorm(2), IMAGE, covers="GroupNorm"),
    "instance norm": Case(fcnn.InstanceNorm(), IMAGE, covers="InstanceNorm"),
    "instance norm running": Case(fcnn.InstanceNorm(running=True, unbiased=False), IMAGE, covers="InstanceNorm"),
    "local response norm": Case(fcnn.LocalResponseNorm(size=3, alpha=0.5), IMAGE, covers="LocalResponseNorm"),
    "serial": Case(
        fcnn.serial(
            fcnn.Conv(4, 3), fcnn.BatchNorm(), jax.nn.relu, fcnn.Dropout(0.2), fcnn.Flatten(), head=fcnn.Dense(3)
        ),
        IMAGE,
        covers="serial",
    ),
    "serial of a function": Case(fcnn.serial(jnp.tanh, square), IMAGE, covers="serial"),
    "residual": Case(fcnn.residual(fcnn.serial(fcnn.Conv(4, 3, padding="SAME"), jnp.tanh)), IMAGE, covers="residual"),
    "residual projected": Case(
        fcnn.residual(fcnn.Conv(6, 3, stride=2, padding="SAME"), fcnn.Conv(6, 1, stride=2)), IMAGE, covers="residual"
    ),
    "branches": Case(
        fcnn.branches(fcnn.Conv(2, 1), fcnn.Conv(3, 3, padding="SAME"), pool=fcnn.AvgPool(3, stride=1, padding="SAME")),
        IMAGE,
        covers="branches",
    ),
    "branches summed": Case(fcnn.branches(fcnn.Dense(3), fcnn.Dense(3), join="sum"), VECTOR, covers="branches"),
    "repeat": Case(
        fcnn.repeat(fcnn.serial(fcnn.Conv(4, 3, padding="SAME"), fcnn.BatchNorm(), jnp.tanh, fcnn.Dropout(0.3)), 3),
        IMAGE,
        covers="repeat",
    ),
    "remat": Case(
        fcnn.remat(
            fcnn.serial(
                fcnn.Conv(4, 3, padding="SAME"), fcnn.BatchNorm(), jnp.tanh, fcnn.Dropout(0.3), fcnn.Conv(3, 3)
            ),
            policy=jax.checkpoint_policies.dots_saveable,
        ),
        IMAGE,
        covers="remat",
    ),
    "remat in a repeat": Case(
        fcnn.repeat(fcnn.residual(fcnn.remat(fcnn.serial(fcnn.Conv(4, 3, padding="SAME"), jnp.tanh))), 3),
        IMAGE,
        covers="remat",
    ),
    "graph": Case(fcnn.graph(encode=fcnn.Dense(3), mix=fcnn.Dense(3))(two_towers), VECTOR, (VECTOR,), covers="graph"),
    "graph sharing": Case(
        fcnn.graph(conv=fcnn.Conv(4, 3, padding="SAME"), drop=fcnn.Dropout(0.3))(shared_conv), IMAGE, covers="graph"
    ),
    "scan": Case(
        fcnn.Scan(
            fcnn.serial(fcnn.Conv(3, 2), fcnn.BatchNorm(), jnp.tanh, fcnn.MaxPool(2), fcnn.Flatten(), fcnn.Dense(2)), 4
        ),
        IMAGE,
        covers="Scan",
    ),
    "scan by patches": Case(
        fcnn.Scan(fcnn.serial(fcnn.Flatten(), fcnn.Dense(3), jnp.tanh), (3, 2), stride=2, method="patches", chunk=4),
        IMAGE,
        covers="Scan",
    ),
    "lenet5": Case(fcnn.models.lenet5(3), (28, 28, 1), covers="models", tags=frozenset({"large"})),
}

#: what the door offers that is not a layer and does not make one
NOT_LAYERS = {
    "Layer",
    "LayoutWarning",
    "Parameter",
    "capture",
    "check_gradients",
    "evaluate",
    "fit",
    "fold",
    "fully_convolutional",
    "predict",
    "scan_tiles",
    "summary",
    "trace",
    "__version__",
}


def inputs_of(case, batch=3, dtype=None, seed=7):
    """Inputs for a case, no two values closer than 1/size, so that a small step crosses no kink."""
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    made = []
    for i, shape in enumerate(case.shapes):
        count = batch
        for n in shape:
            count *= n
        places = jax.random.permutation(jax.random.key(seed + i), count)
        values = (places.astype("float32") + 0.5) * jnp.float32(2 / count) - jnp.float32(1)
        made.append(values.reshape(batch, *shape).astype(dtype))
    return tuple(made)
