"""Networks of the literature in Flax NNX, as its own examples write them: modules in a loop, channels last."""

import jax
from flax import nnx


class Make:
    """Layers with the settings that all of a network have."""

    def __init__(self, dtype):
        self.kind = {"dtype": dtype, "rngs": nnx.Rngs(0)}  # parameters in float32

    def conv(self, into, out, kernel, stride=1, groups=1, bias=False):
        pad = [(kernel // 2, kernel // 2)] * 2
        return nnx.Conv(
            into, out, (kernel, kernel), stride, padding=pad, feature_group_count=groups, use_bias=bias, **self.kind
        )

    def norm(self, channels):
        return nnx.BatchNorm(channels, momentum=0.9, **self.kind)

    def dense(self, into, out):
        return nnx.Linear(into, out, **self.kind)

    def unit(self, into, out, kernel, stride=1, act=nnx.relu, groups=1, bias=False):
        """A convolution, its norm, and what follows."""
        parts = [self.conv(into, out, kernel, stride, groups, bias), self.norm(out)]
        return nnx.Sequential(*parts, *([act] if act else []))


def halved(x):
    return nnx.max_pool(x, (2, 2), (2, 2))


def stem_pool(x):
    return nnx.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])


def averaged(x):
    return x.mean((1, 2))


class Residual(nnx.Module):
    """x, or a shortcut of it, plus a body of it, and what comes after the sum."""

    def __init__(self, body, shortcut=None, after=None):
        self.body, self.shortcut, self.after = body, shortcut, after

    def __call__(self, x):
        y = self.body(x) + (x if self.shortcut is None else self.shortcut(x))
        return y if self.after is None else self.after(y)


def resnet(make, counts, bottleneck, classes):
    parts, into = [make.unit(3, 64, 7, 2), stem_pool], 64
    for stage, count in enumerate(counts):
        features = 64 * 2**stage
        out = 4 * features if bottleneck else features
        for i in range(count):
            stride = 2 if stage and i == 0 else 1
            if bottleneck:
                body = [
                    make.unit(into, features, 1),
                    make.unit(features, features, 3, stride),
                    make.unit(features, out, 1, act=None),
                ]
            else:
                body = [make.unit(into, out, 3, stride), make.unit(out, out, 3, act=None)]
            shortcut = make.unit(into, out, 1, stride, act=None) if stride > 1 or into != out else None
            parts.append(Residual(nnx.Sequential(*body), shortcut, nnx.relu))
            into = out
    return nnx.Sequential(*parts, averaged, make.dense(into, classes))


#: expansion, features, blocks, stride: Sandler et al. 2018, table 2
MOBILE = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def mobilenet(make, classes):
    act, parts, into = jax.nn.relu6, [make.unit(3, 32, 3, 2, jax.nn.relu6)], 32
    for expansion, out, count, stride in MOBILE:
        for i in range(count):
            step, inner = stride if i == 0 else 1, into * expansion
            body = [make.unit(into, inner, 1, act=act)] if expansion > 1 else []
            body += [make.unit(inner, inner, 3, step, act, groups=inner), make.unit(inner, out, 1, act=None)]
            block = nnx.Sequential(*body)
            parts.append(Residual(block) if step == 1 and into == out else block)
            into = out
    return nnx.Sequential(*parts, make.unit(into, 1280, 1, act=act), averaged, make.dense(1280, classes))


class Level(nnx.Module):
    """A level of a U-Net and those below it."""

    def __init__(self, make, into, widths):
        a, *lower = widths
        self.down = nnx.Sequential(make.unit(into, a, 3), make.unit(a, a, 3))
        self.below = None
        if lower:
            self.below = Level(make, a, lower)
            self.back = nnx.ConvTranspose(lower[0], a, (2, 2), (2, 2), padding="VALID", **make.kind)
            self.up = nnx.Sequential(make.unit(2 * a, a, 3), make.unit(a, a, 3))

    def __call__(self, x):
        x = self.down(x)
        if self.below is None:
            return x
        below = self.back(self.below(halved(x)))
        return self.up(jax.numpy.concatenate([x, below], -1))


def unet(make, widths, classes):
    return nnx.Sequential(Level(make, 3, widths), make.conv(widths[0], classes, 1, bias=True))


def vgg(make, counts, classes, side):
    parts, into = [], 3
    for count, out in zip(counts, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            parts.append(make.unit(into, out, 3, bias=True))
            into = out
        parts.append(halved)

    def flat(x):
        x = jax.image.resize(x, (x.shape[0], 7, 7, x.shape[-1]), "nearest") if side != 7 else x
        return x.reshape(x.shape[0], -1)

    drop = nnx.Dropout(0.5, rngs=make.kind["rngs"])
    dense = [make.dense(512 * 49, 4096), nnx.relu, drop, make.dense(4096, 4096), nnx.relu, drop]
    return nnx.Sequential(*parts, flat, *dense, make.dense(4096, classes))


class Beside(nnx.Module):
    """A layer of a DenseNet: its output stands beside its input."""

    def __init__(self, make, into, growth):
        self.norm1, self.conv1 = make.norm(into), make.conv(into, 4 * growth, 1)
        self.norm2, self.conv2 = make.norm(4 * growth), make.conv(4 * growth, growth, 3)

    def __call__(self, x):
        y = self.conv1(nnx.relu(self.norm1(x)))
        return jax.numpy.concatenate([x, self.conv2(nnx.relu(self.norm2(y)))], -1)


def densenet(make, counts, into, growth, classes):
    parts = [make.unit(3, into, 7, 2), stem_pool]
    for stage, count in enumerate(counts):
        for _ in range(count):
            parts.append(Beside(make, into, growth))
            into += growth
        parts += [make.norm(into), nnx.relu]
        if stage < len(counts) - 1:
            parts += [make.conv(into, into // 2, 1), lambda x: nnx.avg_pool(x, (2, 2), (2, 2))]
            into //= 2
    return nnx.Sequential(*parts, averaged, make.dense(into, classes))


def define(network, dtype):
    """The network with the shared kernels."""
    make, classes = Make(dtype), network.classes
    model = {
        "resnet18": lambda: resnet(make, (2, 2, 2, 2), False, classes),
        "resnet50": lambda: resnet(make, (3, 4, 6, 3), True, classes),
        "mobilenet": lambda: mobilenet(make, classes),
        "unet": lambda: unet(make, (16, 32, 64, 128), classes),
        "vgg": lambda: vgg(make, (1, 1, 2, 2, 2), classes, network.shape[0] // 32),
        "densenet": lambda: densenet(make, (6, 12, 24, 16), 64, 32, classes),
    }[network.kind]()
    for _, layer in nnx.iter_graph(model):
        if isinstance(layer, nnx.Conv | nnx.ConvTranspose | nnx.Linear):
            layer.kernel[...] = jax.numpy.asarray(network.kernel(layer.kernel.shape))
    return model
