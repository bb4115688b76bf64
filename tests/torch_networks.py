"""The networks of fcnn.models written in PyTorch's own modules, from their papers and without a look at fcnn's."""

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """x, or a shortcut of it, plus a body of it, and what comes after the sum."""

    def __init__(self, body, shortcut=None, before=None, after=None):
        super().__init__()
        self.before, self.body, self.shortcut, self.after = before, body, shortcut, after

    def forward(self, x):
        x = x if self.before is None else self.before(x)
        y = self.body(x) + (x if self.shortcut is None else self.shortcut(x))
        return y if self.after is None else self.after(y)


class Beside(nn.Module):
    """Branches whose outputs stand beside one another; with the input before them if asked."""

    def __init__(self, *branches, own=False):
        super().__init__()
        self.branches, self.own = nn.ModuleList(branches), own

    def forward(self, x):
        return torch.cat([x] * self.own + [branch(x) for branch in self.branches], 1)


class Run(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def conv(into, out, kernel, stride=1, act=nn.ReLU, groups=1, norm=True, eps=1e-5, bias=None):
    parts = [nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=not norm if bias is None else bias)]
    parts += [nn.BatchNorm2d(out, eps=eps)] if norm else []
    return nn.Sequential(*parts, *([act()] if act else []))


def head(into, classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, classes))


def vgg(counts, classes, norm):
    parts, into = [], 3
    for count, out in zip(counts, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            parts.append(conv(into, out, 3, norm=norm, bias=True))
            into = out
        parts.append(nn.MaxPool2d(2))
    parts += [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*parts, nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, classes))


def alexnet(classes):
    """Of the paper: groups, and local response normalisation, whose alpha PyTorch divides by the size."""
    local = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4), nn.ReLU(), local, nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), local, nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, classes),
    )  # fmt: skip


def alexnet_of_torchvision(classes):
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(6), nn.Flatten(),
        nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Linear(4096, classes),
    )  # fmt: skip


def resnet(counts, classes, bottleneck=False, groups=1, width=64):
    parts, into = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for stage, count in enumerate(counts):
        features = 64 * 2**stage
        out, inner = (4 * features, features * width // 64 * groups) if bottleneck else (features, features)
        for i in range(count):
            stride = 2 if stage and i == 0 else 1
            if bottleneck:
                body = [
                    conv(into, inner, 1),
                    conv(inner, inner, 3, stride, groups=groups),
                    conv(inner, out, 1, act=None),
                ]
            else:
                body = [conv(into, out, 3, stride), conv(out, out, 3, act=None)]
            shortcut = conv(into, out, 1, stride, act=None) if stride > 1 or into != out else None
            parts.append(Residual(nn.Sequential(*body), shortcut, after=nn.ReLU()))
            into = out
    return nn.Sequential(*parts, head(into, classes))


def small_resnet(depth, classes, preactivation=False, width=1):
    def before(n):
        return [nn.BatchNorm2d(n), nn.ReLU()]

    def convolution(a, b, kernel, stride=1):
        return nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False)

    def identity(out, stride):  # option A
        def run(x):
            more = out - x.shape[1]
            return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, more // 2, more - more // 2))

        return Run(run)

    parts = [convolution(3, 16, 3), *([] if preactivation else before(16))]
    into = 16
    for stage in range(3):
        out = 16 * 2**stage * width
        for i in range((depth - 2) // 6):
            stride = 2 if stage and i == 0 else 1
            changes = stride > 1 or into != out
            if not preactivation:
                body = [convolution(into, out, 3, stride), *before(out), convolution(out, out, 3), nn.BatchNorm2d(out)]
                shortcut = identity(out, stride) if changes else None
                parts.append(Residual(nn.Sequential(*body), shortcut, after=nn.ReLU()))
            else:
                body = [convolution(into, out, 3, stride), *before(out), convolution(out, out, 3)]
                if changes and width > 1:
                    across = convolution(into, out, 1, stride)
                    parts.append(Residual(nn.Sequential(*body), across, before=nn.Sequential(*before(into))))
                else:
                    across = identity(out, stride) if changes else None
                    parts.append(Residual(nn.Sequential(*before(into), *body), across))
            into = out
    return nn.Sequential(*parts, *(before(into) if preactivation else []), head(into, classes))


def densenet(counts, into, growth, classes):
    parts = [conv(3, into, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, count in enumerate(counts):
        for _ in range(count):
            new = nn.Sequential(
                nn.BatchNorm2d(into), nn.ReLU(), nn.Conv2d(into, 4 * growth, 1, bias=False),
                nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
            )  # fmt: skip
            parts.append(Beside(new, own=True))
            into += growth
        parts += [nn.BatchNorm2d(into), nn.ReLU()]
        if stage < len(counts) - 1:
            parts += [nn.Conv2d(into, into // 2, 1, bias=False), nn.AvgPool2d(2)]
            into //= 2
    return nn.Sequential(*parts, head(into, classes))


def squeezenet(version, classes):
    def fire(into, squeeze, expand):
        one, three = conv(squeeze, expand, 1, norm=False), conv(squeeze, expand, 3, norm=False)
        return nn.Sequential(conv(into, squeeze, 1, norm=False), Beside(one, three))

    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    widths = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    out, kernel, pooled = (96, 7, (2, 6)) if version == "1.0" else (64, 3, (1, 3))
    parts, into = [nn.Conv2d(3, out, kernel, 2), nn.ReLU(), pool], out
    for i, (squeeze, expand) in enumerate(widths):
        parts += [fire(into, squeeze, expand), *([pool] if i in pooled else [])]
        into = 2 * expand
    end = [nn.Dropout(), nn.Conv2d(512, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*parts, *end)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels, squeezed):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True)))))


def inverted(stages, stem, last, classes, act, gate=False, kernels=None):
    """MobileNet V2, and with the gate EfficientNet."""
    parts, into = [conv(3, stem, 3, 2, act)], stem
    for stage, (expansion, out, count, stride) in enumerate(stages):
        for i in range(count):
            step, inner = stride if i == 0 else 1, into * expansion
            body = [conv(into, inner, 1, act=act)] if expansion > 1 else []
            body.append(conv(inner, inner, kernels[stage] if kernels else 3, step, act, groups=inner))
            body += [Gate(inner, into // 4)] if gate else []
            body.append(conv(inner, out, 1, act=None))
            body = nn.Sequential(*body)
            parts.append(Residual(body) if step == 1 and into == out else body)
            into = out
    return nn.Sequential(*parts, conv(into, last, 1, act=act), head(last, classes))


MOBILE = [
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
]  # fmt: skip
EFFICIENT = [
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 40, 2, 2), (6, 80, 3, 2), (6, 112, 3, 1), (6, 192, 4, 2), (6, 320, 1, 1),
]  # fmt: skip


def googlenet(classes, paper):
    norm, five = not paper, 5 if paper else 3

    def part(a, b, kernel, stride=1):
        return conv(a, b, kernel, stride, norm=norm, eps=1e-3)

    def inception(into, a, b1, b, c1, c, d):
        pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), part(into, d, 1))
        three, larger = (
            nn.Sequential(part(into, b1, 1), part(b1, b, 3)),
            nn.Sequential(part(into, c1, 1), part(c1, c, five)),
        )
        return Beside(part(into, a, 1), three, larger, pooled)

    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    local = [nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)] if paper else []
    parts = [part(3, 64, 7, 2), pool, *local, part(64, 64, 1), part(64, 192, 3), *local, pool]
    table = [
        (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), pool, (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128), pool if paper else nn.MaxPool2d(2, 2, ceil_mode=True),
        (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
    ]  # fmt: skip
    into = 192
    for row in table:
        if isinstance(row, nn.Module):
            parts.append(row)
        else:
            parts.append(inception(into, *row))
            into = row[0] + row[2] + row[4] + row[5]
    return nn.Sequential(*parts, head(into, classes))


class Channels(nn.Module):
    """Layer normalisation over the channels, then a factor where one is given."""

    def __init__(self, n):
        super().__init__()
        self.norm = nn.LayerNorm(n, eps=1e-6)

    def forward(self, x):
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class Factor(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((n, 1, 1), 1e-6))

    def forward(self, x):
        return self.gamma * x


def convnext(counts, widths, classes):
    parts, into = [nn.Conv2d(3, widths[0], 4, 4), Channels(widths[0])], widths[0]
    for stage, (count, n) in enumerate(zip(counts, widths, strict=True)):
        parts += [Channels(into), nn.Conv2d(into, n, 2, 2)] if stage else []
        for _ in range(count):
            dense = [nn.Conv2d(n, 4 * n, 1), nn.GELU(), nn.Conv2d(4 * n, n, 1)]
            parts.append(
                Residual(nn.Sequential(nn.Conv2d(n, n, 7, padding=3, groups=n), Channels(n), *dense, Factor(n)))
            )
        into = n
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(into, eps=1e-6), nn.Linear(into, classes)]
    return nn.Sequential(*parts, *end)


class UNet(nn.Module):
    def __init__(self, into, widths, classes, valid, norm):
        super().__init__()

        def twice(a, b):
            parts = []
            for n in (a, b):
                parts += [nn.Conv2d(n, b, 3, padding=0 if valid else 1, bias=not norm)]
                parts += [nn.BatchNorm2d(b), nn.ReLU()] if norm else [nn.ReLU()]
            return nn.Sequential(*parts)

        self.down = nn.ModuleList([twice(a, b) for a, b in zip((into, *widths), widths, strict=False)])
        ends = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.ups = nn.ModuleList([nn.ModuleList([nn.ConvTranspose2d(a, b, 2, 2), twice(2 * b, b)]) for a, b in ends])
        self.end = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x):
        seen = []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if i else x)
            seen.append(x)
        for (up, block), across in zip(self.ups, seen[-2::-1], strict=True):
            x = up(x)
            cut = (across.shape[-1] - x.shape[-1]) // 2
            across = across[..., cut : across.shape[-2] - cut, cut : across.shape[-1] - cut]
            x = block(torch.cat([across, x], 1))
        return self.end(x)


def lenet5(classes):
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes),
    )  # fmt: skip


class Subset(nn.Module):
    """LeCun's third layer: every map sees some of the maps below."""

    def __init__(self, table):
        super().__init__()
        self.table = table
        self.convs = nn.ModuleList([nn.Conv2d(len(seen), 1, 5) for seen in table])

    def forward(self, x):
        return torch.cat([conv(x[:, list(seen)]) for conv, seen in zip(self.convs, self.table, strict=True)], 1)


def lenet5_1998(classes):
    three = [[i % 6, (i + 1) % 6, (i + 2) % 6] for i in range(6)]
    four = [[(i + j) % 6 for j in range(4)] for i in range(6)]
    table = [*three, *four, [0, 1, 3, 4], [1, 2, 4, 5], [0, 2, 3, 5], list(range(6))]

    def squash():
        return Run(lambda a: 1.7159 * torch.tanh(2 / 3 * a))

    def subsampling(maps):
        return [nn.AvgPool2d(2), nn.Conv2d(maps, maps, 1, groups=maps), squash()]

    return nn.Sequential(
        nn.Conv2d(1, 6, 5), squash(), *subsampling(6), Subset([sorted(seen) for seen in table[:12]] + table[12:]),
        squash(), *subsampling(16), nn.Conv2d(16, 120, 5), squash(), nn.Flatten(), nn.Linear(120, 84), squash(),
        nn.Linear(84, classes),
    )  # fmt: skip


def network_in_network(classes):
    def mlp(into, kernel, *widths):
        parts = []
        for n, size in zip(widths, (kernel, 1, 1), strict=True):
            parts.append(conv(into, n, size, norm=False))
            into = n
        return parts

    return nn.Sequential(
        *mlp(3, 5, 192, 160, 96), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(), *mlp(96, 5, 192, 192, 192),
        nn.AvgPool2d(3, 2, ceil_mode=True), nn.Dropout(), *mlp(192, 3, 192, 192, classes), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )  # fmt: skip


def connectomics(classes):
    parts, into = [], 4
    for n in (64, 48, 48, 48):
        parts += [nn.Conv2d(into, n, 3), nn.ReLU(), *([nn.MaxPool2d(2)] if len(parts) in (2, 7) else [])]
        into = n
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(48 * 15 * 15, 200), nn.ReLU(), nn.Linear(200, classes))


def generator(noise, width, channels):
    parts, into = [], noise
    for out, stride, padding in ((8 * width, 1, 0), (4 * width, 2, 1), (2 * width, 2, 1), (width, 2, 1)):
        parts += [nn.ConvTranspose2d(into, out, 4, stride, padding, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        into = out
    return nn.Sequential(*parts, nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh())


def discriminator(width, channels):
    parts, into = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)], width
    for out in (2 * width, 4 * width, 8 * width):
        parts += [nn.Conv2d(into, out, 4, 2, 1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.2)]
        into = out
    return nn.Sequential(*parts, nn.Conv2d(into, 1, 4, bias=False), nn.Flatten())


def m5(width, classes):
    parts, into = [], 1
    for out, kernel, stride in ((width, 80, 4), (width, 3, 1), (2 * width, 3, 1), (4 * width, 3, 1)):
        padding = nn.ConstantPad1d((38, 38), 0.0) if kernel == 80 else nn.ConstantPad1d((1, 1), 0.0)
        parts += [padding, nn.Conv1d(into, out, kernel, stride), nn.BatchNorm1d(out), nn.ReLU(), nn.MaxPool1d(4)]
        into = out
    return nn.Sequential(*parts, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(into, classes))
