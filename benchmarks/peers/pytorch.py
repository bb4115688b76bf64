"""PyTorch: a module, zero_grad, forward, backward, step, as its tutorials; channels first, or channels_last.

"autocast" is channels_last in bfloat16 by torch.autocast, "compile" is channels_last under torch.compile.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from workloads import LEARNING_RATE, MOMENTUM

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import torch_networks  # the networks of the literature in PyTorch's own modules, with which the tests compare

PACKAGES = ("torch",)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device():
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    return {"platform": "gpu" if DEVICE.type == "cuda" else "cpu", "device": name, "threads": torch.get_num_threads()}


def wait(value):
    """Until the device has computed; on a CPU PyTorch returns only then."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return value


def device_peak_mb():
    return torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else None


class LeNet(nn.Module):
    """LeNet-5, or the same with more maps."""

    def __init__(self, network):
        super().__init__()
        first, second = network.maps
        height, width, maps = network.flat()
        self.conv1 = nn.Conv2d(network.shape[-1], first, 5, padding=2)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.fc1 = nn.Linear(height * width * maps, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class SixConv(nn.Module):
    """Six 3x3 convolutions, with a pool after every second."""

    def __init__(self, network):
        super().__init__()
        a, b, c, d, e, f = network.maps
        height, width, maps = network.flat()
        self.features = nn.Sequential(
            nn.Conv2d(network.shape[-1], a, 3, padding=1), nn.ReLU(), nn.Conv2d(a, b, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), nn.Conv2d(e, f, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Linear(height * width * maps, 10)

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


def define(network, dtype, variant):
    """The module with the shared weights, turned to (out, in, *kernel) and to channels first before flattening."""
    model = {"lenet": LeNet, "six": SixConv}[network.kind](network)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    first_dense = True
    with torch.no_grad():
        for layer, (kernel, bias) in zip(layers, network.weights(), strict=True):
            if kernel.ndim == 4:
                kernel = kernel.transpose(3, 2, 0, 1)
            else:
                if first_dense:
                    kernel = kernel.reshape(*network.flat(), -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
                kernel, first_dense = kernel.T, False
            layer.weight.copy_(torch.from_numpy(kernel.copy()))
            layer.bias.copy_(torch.from_numpy(bias))
    model = model.to(DEVICE, parameter_dtype(dtype, variant))
    return model if variant == "default" else model.to(memory_format=torch.channels_last)


def parameter_dtype(dtype, variant):
    return torch.float32 if variant == "autocast" else getattr(torch, dtype)


def layout(array, dtype, variant):
    """An array with channels last, in PyTorch's order of axes, and in memory as the variant wants it."""
    tensor = torch.from_numpy(array).to(DEVICE, parameter_dtype(dtype, variant)).movedim(-1, 1)
    if variant == "default" or tensor.ndim not in (4, 5):
        return tensor.contiguous()
    return tensor.contiguous(memory_format=torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d)


def data(network, dtype, variant):
    images, labels = network.data()
    return layout(images, dtype, variant), torch.from_numpy(labels).long().to(DEVICE)


class Training:
    """One training step, over and over, on the same batch."""

    def __init__(self, network, dtype, variant):
        self.model = define(network, dtype, variant)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        self.batch = data(network, dtype, variant)
        self.autocast = variant == "autocast"
        if variant == "compile":
            self.model = torch.compile(self.model)

    def step(self):
        x, y = self.batch
        self.optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.autocast):
            loss = F.cross_entropy(self.model(x).float(), y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def scan(self, steps):
        return None  # a loop in Python is all there is: the step itself


NETWORKS = {
    "resnet18": lambda classes: torch_networks.resnet((2, 2, 2, 2), classes),
    "resnet50": lambda classes: torch_networks.resnet((3, 4, 6, 3), classes, True),
    "mobilenet": lambda classes: torch_networks.inverted(torch_networks.MOBILE, 32, 1280, classes, nn.ReLU6),
    "unet": lambda classes: torch_networks.UNet(3, (16, 32, 64, 128), classes, False, True),
    "vgg": lambda classes: torch_networks.vgg((1, 1, 2, 2, 2), classes, True),
    "densenet": lambda classes: torch_networks.densenet((6, 12, 24, 16), 64, 32, classes),
}


class Published(Training):
    """A training step and inference of a network of the literature; in bfloat16 by torch.autocast."""

    def __init__(self, network, dtype, variant):
        self.model = NETWORKS[network.kind](network.classes)
        with torch.no_grad():
            for layer in self.model.modules():
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                    layer.weight.copy_(weight_of(layer, network))
                    if layer.bias is not None:
                        layer.bias.zero_()
        self.model = self.model.to(DEVICE)
        if variant != "default":
            self.model = self.model.to(memory_format=torch.channels_last)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        self.batch = data(network, "float32", variant)
        self.autocast = dtype == "bfloat16"
        if variant == "compile":
            self.model = torch.compile(self.model)

    def inferences(self):
        x = self.batch[0]
        self.model.eval()

        def call():
            with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.autocast):
                return self.model(x)

        return {"inference": call}


def weight_of(layer, network):
    """The kernel of its shape, in PyTorch's order of axes."""
    if isinstance(layer, nn.Linear):
        kernel = network.kernel((layer.in_features, layer.out_features))
        if network.kind == "vgg" and layer.in_features == 512 * 49:  # flattened with the channels first
            kernel = kernel.reshape(7, 7, 512, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        return torch.from_numpy(kernel.T.copy())
    kernel = network.kernel((*layer.kernel_size, layer.in_channels // layer.groups, layer.out_channels))
    # ConvTranspose2d has (in, out, height, width), and no kernel is turned around here or there
    order = (2, 3, 0, 1) if isinstance(layer, nn.ConvTranspose2d) else (3, 2, 0, 1)
    return torch.from_numpy(kernel.transpose(order).copy())


def per_example(network, dtype, variant):
    model = define(network, dtype, variant)
    params = {name: parameter.detach() for name, parameter in model.named_parameters()}
    x, y = data(network, dtype, variant)

    def one(params, x, y):
        logits = torch.func.functional_call(model, params, (x[None],))
        return F.cross_entropy(logits.float(), y[None])

    gradients = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))
    return lambda: gradients(params, x, y)


def max_pool(pool, dtype, variant):
    x, above = (layout(a, dtype, variant) for a in pool.arrays())
    leaf = x.clone().requires_grad_()  # clone keeps the layout in memory

    def both():
        leaf.grad = None
        y = F.max_pool2d(leaf, pool.window, pool.stride)
        y.backward(above)
        return y, leaf.grad

    return {"forward": lambda: F.max_pool2d(x, pool.window, pool.stride), "forward and gradient": both}


def convolution(conv, dtype, variant):
    rank = len(conv.space)
    x, kernel, above = conv.arrays()
    x, above = (layout(a, dtype, variant) for a in (x, above))
    # (*kernel, in, out) to (out, *kernel, in), which layout turns to (out, in, *kernel)
    kernel = layout(kernel.transpose(rank + 1, *range(rank + 1)).copy(), dtype, variant)
    function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    geometry = [[conv.stride] * rank, [conv.pad] * rank, [conv.dilation] * rank]

    def forward():
        return function(x, kernel, None, *geometry, conv.groups)

    def backward(mask):
        turned = (False, [0] * rank, conv.groups)  # not transposed
        return torch.ops.aten.convolution_backward(above, x, kernel, None, *geometry, *turned, mask)

    return {
        "forward": forward,
        "kernel gradient": lambda: backward([False, True, False]),
        "input gradient": lambda: backward([True, False, False]),
        "forward and gradients": lambda: (forward(), backward([True, True, False])),
    }
