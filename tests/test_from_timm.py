"""Weights by timm's names: fcnn.models computes what timm's networks compute, to rounding."""

import importlib
import importlib.util
import re
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
import timm_names

from fcnn import interop, models
from fcnn.interop.slots import slots

PACKAGES = "timm==1.0.31 torchvision==0.28.0 torch==2.13.0"


def imported(torch):
    """Timm; where torchvision is made for another build of PyTorch, without torchvision's own operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("timm")
        except RuntimeError:  # "operator torchvision::nms does not exist"; classifiers do not need it
            for name in [name for name in sys.modules if name.split(".")[0] in ("timm", "torchvision")]:
                del sys.modules[name]
        folder = Path(importlib.util.find_spec("torchvision").origin).parent
        text = (folder / "_meta_registrations.py").read_text()
        library = torch.library.Library("torchvision", "DEF")
        for name in sorted({*re.findall(r"torchvision::(\w+)", text), *re.findall(r'register_meta\("(\w+)"', text)}):
            library.define(f"{name}(Tensor a) -> Tensor")
        library.define("_cuda_version() -> int")
        imported.library = library  # operators live as long as their library
        return importlib.import_module("timm")


@pytest.fixture(scope="module")
def timm():
    torch = pytest.importorskip("torch", reason=f"timm is the truth here: pip install {PACKAGES}")
    try:
        return imported(torch)
    except ImportError as error:
        pytest.skip(f"timm is the truth here ({error}): pip install {PACKAGES}")


NETWORKS = {
    "resnet18": lambda: models.resnet(18, 7),
    "resnet34": lambda: models.resnet(34, 7),
    "resnet50": lambda: models.resnet(50, 7),
    "resnet101": lambda: models.resnet(101, 7),
    "resnet152": lambda: models.resnet(152, 7),
    "wide_resnet50_2": lambda: models.wide_resnet(50, 7, width=2),
    "wide_resnet101_2": lambda: models.wide_resnet(101, 7, width=2),
    "resnext50_32x4d": lambda: models.resnext(50, 7),
    "resnext101_32x8d": lambda: models.resnext(101, 7, group_width=8),
    "resnext101_64x4d": lambda: models.resnext(101, 7, groups=64),
    "vgg11": lambda: models.vgg(11, 7),
    "vgg13_bn": lambda: models.vgg(13, 7, batch_norm=True),
    "vgg16": lambda: models.vgg(16, 7),
    "vgg19_bn": lambda: models.vgg(19, 7, batch_norm=True),
    "densenet121": lambda: models.densenet(121, 7),
    "densenet161": lambda: models.densenet(161, 7),
    "densenet169": lambda: models.densenet(169, 7),
    "densenet201": lambda: models.densenet(201, 7),
    "efficientnet_b0": lambda: models.efficientnet(0, 7),
    "efficientnet_b1": lambda: models.efficientnet(1, 7),
    "efficientnet_b2": lambda: models.efficientnet(2, 7),
    "efficientnet_b3": lambda: models.efficientnet(3, 7),
    "efficientnet_b4": lambda: models.efficientnet(4, 7),
    "efficientnet_lite0": lambda: models.efficientnet_lite0(7),
    "mobilenetv2_100": lambda: models.mobilenet_v2(7),
    "mobilenetv2_050": lambda: models.mobilenet_v2(7, width=0.5),
    "mobilenetv2_140": lambda: models.mobilenet_v2(7, width=1.4),
    "convnext_tiny": lambda: models.convnext_tiny(7),
    "convnext_small": lambda: models.convnext("small", 7),
    "convnext_base": lambda: models.convnext("base", 7),
    "convnext_large": lambda: models.convnext("large", 7),
}
#: compared with the slow tests; the others take long to compile, and are compared exhaustively
SLOW = {"resnet18", "mobilenetv2_100"}


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny"])
def test_every_array_goes_where_it_is_computed(name):
    """Each array of timm holds the number of its layer in the order of computation, and so do the layers here."""
    shapes = getattr(timm_names, name)(7)
    layers = list(dict.fromkeys(one if one.endswith("gamma") else one.rpartition(".")[0] for one in shapes))
    numbers = {one: layers.index(one if one.endswith("gamma") else one.rpartition(".")[0]) for one in shapes}
    source = {
        one: np.broadcast_to(np.float32(numbers[one]), shapes[one]) for one in timm_names.as_registered(shapes)
    }  # fmt: skip
    net = NETWORKS[name]()
    params, state = interop.from_torch(net, source, shape=(224, 224, 3))
    found = slots(net, (224, 224, 3))
    assert len(found) == len(layers)
    for number, slot in enumerate(found):
        for tree, entries in ((params, slot.params), (state, slot.state)):
            for entry in entries:
                assert np.asarray(slot.get(tree, entry)).flat[0] == number, (slot.path, entry, layers[number])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny"])
def test_these_are_timms_names(name, timm):
    module = timm.create_model(name, pretrained=False, num_classes=7)
    shapes = getattr(timm_names, name)(7)
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert wanted == shapes
    assert list(wanted) == timm_names.as_registered(shapes)


def random_module(timm, name):
    """A network of timm in float64, with weights and statistics that leave no term out."""
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False, num_classes=7).double().eval()
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 1.5)
        if getattr(part, "bias", None) is not None:
            part.bias.data.normal_(0, 0.1)
        if hasattr(part, "gamma"):
            part.gamma.data.uniform_(0.5, 1.5)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SLOW else pytest.mark.exhaustive) for name in NETWORKS]
)
def test_outputs_are_those_of_timm(name, timm, x64):
    torch = importlib.import_module("torch")
    net, module = NETWORKS[name](), random_module(timm, name)
    params, state = interop.from_torch(net, module.state_dict(), shape=(224, 224, 3))
    x = np.random.default_rng(0).normal(size=(1, 40, 65, 3))
    with torch.no_grad():
        wanted = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    found = jax.jit(lambda params, state, x: net.apply(params, x, state=state))(params, state, x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())
    back = interop.to_torch(net, params, state, shape=(224, 224, 3), like=module)
    for key, value in module.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[key], value.numpy())


@pytest.mark.slow
def test_another_architecture_is_told(timm):
    """Timm's pre-activated networks have no normalisation after the first convolution, as this library's have."""
    module = timm.create_model("resnetv2_50", pretrained=False, num_classes=7)
    with pytest.raises(ValueError, match=r"with bias \(64,\), scale \(64,\), mean .* has no counterpart in the source"):
        interop.from_torch(models.resnet(50, 7, preactivation=True), module.state_dict(), shape=(224, 224, 3))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "epsilon"), [("efficientnet_b5", 1e-5), ("tf_efficientnet_b0", 1e-3)])
def test_what_weights_do_not_show(name, epsilon, timm):
    """As the documentation says: the epsilon of norms, which a state dict does not hold."""
    with importlib.import_module("torch").device("meta"):
        assert timm.create_model(name, pretrained=False).bn1.eps == epsilon
