"""Weights from PyTorch: networks of fcnn.models compute what PyTorch's own modules compute, to rounding."""

import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn import interop, models

torch = pytest.importorskip("torch", reason="PyTorch is the truth here: pip install torch==2.13.0")

import torch_networks as theirs  # noqa: E402

#: ours, theirs, and the shape of one example: small images, where the network takes them
NETWORKS = {
    "alexnet": (lambda: models.alexnet(7), lambda: theirs.alexnet(7), (227, 227, 3)),
    "alexnet of torchvision": (
        lambda: models.alexnet(7, variant="torchvision"),
        lambda: theirs.alexnet_of_torchvision(7),
        (95, 80, 3),
    ),
    "vgg": (lambda: models.vgg(11, 5), lambda: theirs.vgg((1, 1, 2, 2, 2), 5, False), (64, 64, 3)),
    "vgg with norms": (
        lambda: models.vgg(16, 5, batch_norm=True),
        lambda: theirs.vgg((2, 2, 3, 3, 3), 5, True),
        (32, 48, 3),
    ),
    "resnet18": (lambda: models.resnet(18, 7), lambda: theirs.resnet((2, 2, 2, 2), 7), (65, 64, 3)),
    "resnet50": (lambda: models.resnet(50, 7), lambda: theirs.resnet((3, 4, 6, 3), 7, True), (40, 33, 3)),
    "resnext50": (
        lambda: models.resnext(50, 7),
        lambda: theirs.resnet((3, 4, 6, 3), 7, True, groups=32, width=4),
        (40, 33, 3),
    ),
    "wide resnet50": (
        lambda: models.wide_resnet(50, 7, width=2),
        lambda: theirs.resnet((3, 4, 6, 3), 7, True, width=128),
        (32, 32, 3),
    ),
    "resnet20 for cifar": (lambda: models.resnet(20, cifar=True), lambda: theirs.small_resnet(20, 1000), (16, 18, 3)),
    "resnet20, preactivated": (
        lambda: models.resnet(20, 7, cifar=True, preactivation=True),
        lambda: theirs.small_resnet(20, 7, True),
        (16, 18, 3),
    ),
    "wrn 10-2": (lambda: models.wide_resnet(10, 7, width=2), lambda: theirs.small_resnet(8, 7, True, 2), (16, 18, 3)),
    "densenet121": (
        lambda: models.densenet(121, 7),
        lambda: theirs.densenet((6, 12, 24, 16), 64, 32, 7),
        (40, 33, 3),
    ),
    "squeezenet": (lambda: models.squeezenet(7), lambda: theirs.squeezenet("1.0", 7), (66, 64, 3)),
    "squeezenet 1.1": (
        lambda: models.squeezenet(7, version="1.1"),
        lambda: theirs.squeezenet("1.1", 7),
        (66, 64, 3),
    ),
    "mobilenet": (
        lambda: models.mobilenet_v2(7),
        lambda: theirs.inverted(theirs.MOBILE, 32, 1280, 7, torch.nn.ReLU6),
        (40, 33, 3),
    ),
    "efficientnet": (
        lambda: models.efficientnet(0, 7),
        lambda: theirs.inverted(theirs.EFFICIENT, 32, 1280, 7, torch.nn.SiLU, True, (3, 3, 5, 3, 5, 5, 3)),
        (40, 33, 3),
    ),
    "efficientnet lite": (
        lambda: models.efficientnet_lite0(7),
        lambda: theirs.inverted(theirs.EFFICIENT, 32, 1280, 7, torch.nn.ReLU6, False, (3, 3, 5, 3, 5, 5, 3)),
        (40, 33, 3),
    ),
    "googlenet": (lambda: models.googlenet(7), lambda: theirs.googlenet(7, False), (64, 66, 3)),
    "googlenet of the paper": (
        lambda: models.googlenet(7, variant="paper"),
        lambda: theirs.googlenet(7, True),
        (64, 66, 3),
    ),
    "convnext": (
        lambda: models.convnext_tiny(7),
        lambda: theirs.convnext((3, 3, 9, 3), (96, 192, 384, 768), 7),
        (36, 65, 3),
    ),
    "unet": (
        lambda: models.unet(3, widths=(4, 6, 8), batch_norm=True),
        lambda: theirs.UNet(2, (4, 6, 8), 3, False, True),
        (16, 20, 2),
    ),
    "unet, valid": (
        lambda: models.unet(3, widths=(4, 6, 8), padding="VALID"),
        lambda: theirs.UNet(2, (4, 6, 8), 3, True, False),
        (44, 52, 2),
    ),
    "lenet5": (lambda: models.lenet5(), lambda: theirs.lenet5(10), (28, 28, 1)),
    "lenet5 of 1998": (lambda: models.lenet5_1998(output="dense"), lambda: theirs.lenet5_1998(10), (32, 32, 1)),
    "network in network": (lambda: models.network_in_network(7), lambda: theirs.network_in_network(7), (32, 32, 3)),
    "connectomics": (lambda: models.connectomics(3), lambda: theirs.connectomics(3), (75, 75, 4)),
    "generator": (lambda: models.dcgan_generator(3, width=8), lambda: theirs.generator(10, 8, 3), (1, 1, 10)),
    "discriminator": (lambda: models.dcgan_discriminator(width=8), lambda: theirs.discriminator(8, 3), (64, 64, 3)),
    "m5": (lambda: models.m5(7, width=8), lambda: theirs.m5(8, 7), (4000, 1)),
}


#: compared every time; the others take long to compile
QUICK = {
    *(
        "resnet18",
        "resnet20 for cifar",
        "resnet20, preactivated",
        "wrn 10-2",
        "squeezenet",
        "unet",
        "unet, valid",
        "m5",
    ),
    *("lenet5", "lenet5 of 1998", "network in network", "connectomics", "generator", "discriminator"),
}


#: further forms of networks that are compared with the slow tests
RARE = {
    *("alexnet", "alexnet of torchvision", "vgg", "vgg with norms", "resnext50", "wide resnet50", "efficientnet lite"),
    *("googlenet of the paper", "squeezenet 1.1"),
}


def marks(name):
    """When a network is compared."""
    if name in QUICK:
        return ()
    return (pytest.mark.slow, pytest.mark.exhaustive) if name in RARE else pytest.mark.slow


def random_module(make):
    """A module in float64, with weights and statistics that leave no term out."""
    torch.manual_seed(0)
    module = make().double().eval()
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 1.5)
        if getattr(part, "bias", None) is not None:
            part.bias.data.normal_(0, 0.1)
        if isinstance(part, theirs.Factor):
            part.gamma.data.uniform_(0.5, 1.5)
    return module


def channels_first(x):
    return torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy())


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in NETWORKS])
def test_outputs_and_gradients_are_those_of_pytorchs_own_modules(name, x64):
    make, make_theirs, shape = NETWORKS[name]
    net, module = make(), random_module(make_theirs)
    params, state = interop.from_torch(net, module, shape=shape)
    x = np.random.default_rng(0).normal(size=(2, *shape))

    def loss(params, x):
        y = net.apply(params, x, state=state)
        return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

    (_, y), (gradient, slope) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
    given = channels_first(x).requires_grad_()
    found = module(given)
    wanted = np.moveaxis(found.detach().numpy(), 1, -1) if found.ndim > 2 else found.detach().numpy()
    np.testing.assert_allclose(y, wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max())
    weights = np.cos(np.arange(wanted.size).reshape(wanted.shape))
    weights = np.moveaxis(weights, -1, 1).copy() if found.ndim > 2 else weights
    (found * torch.from_numpy(weights)).sum().backward()
    back = np.moveaxis(given.grad.numpy(), 1, -1)
    np.testing.assert_allclose(slope, back, rtol=1e-9, atol=1e-10 * np.abs(back).max())
    gradients = {name: p.grad for name, p in module.named_parameters()}
    gradients |= {name: b for name, b in module.named_buffers() if "running" in name}
    for path, leaf in jax.tree.leaves_with_path(interop.from_torch(net, gradients, shape=shape)[0]):
        mine = gradient
        for step in path:
            mine = mine[step.key]
        np.testing.assert_allclose(mine, leaf, rtol=1e-8, atol=1e-10 * max(1.0, np.abs(leaf).max()), err_msg=str(path))


@pytest.mark.parametrize("name", ["resnet18", "convnext", "unet", "lenet5", "generator", "efficientnet", "m5"])
def test_the_way_back_gives_every_tensor_bit_for_bit(name, x64):
    make, make_theirs, shape = NETWORKS[name]
    module = random_module(make_theirs)
    net = make()
    params, state = interop.from_torch(net, module, shape=shape)
    wanted = {name: t.numpy() for name, t in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    back = interop.to_torch(net, params, state, shape=shape, like=module)
    assert back.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(back[key], value)
    ours = interop.to_torch(net, params, state, shape=shape)
    again = interop.from_torch(net, ours, shape=shape)
    jax.tree.map(np.testing.assert_array_equal, again, (params, state))


MINE = {
    "a repeated block": (
        fcnn.serial(
            fcnn.repeat(fcnn.residual(fcnn.serial(fcnn.Conv(4, 3, padding=1), jax.nn.relu, fcnn.Conv(4, 1))), 3),
            fcnn.Flatten(),
            fcnn.BatchNorm(),
            fcnn.Dense(2),
        ),
        lambda: torch.nn.Sequential(
            *(
                theirs.Residual(
                    torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 1))
                )
                for _ in range(3)
            ),
            torch.nn.Flatten(),
            torch.nn.BatchNorm1d(4 * 5 * 6),
            torch.nn.Linear(4 * 5 * 6, 2),
        ),
        (5, 6, 4),
    ),
    "transposed, in groups": (
        fcnn.serial(
            fcnn.ConvTranspose(6, 4, stride=2, padding=1, groups=2), fcnn.PReLU(per_channel=True), fcnn.GroupNorm(3)
        ),
        lambda: torch.nn.Sequential(
            torch.nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2), torch.nn.PReLU(6), torch.nn.GroupNorm(3, 6)
        ),
        (5, 6, 4),
    ),
    "volumes": (
        fcnn.serial(
            fcnn.Conv(3, (1, 2, 3), groups=3), fcnn.LayerNorm(axes=(1, 2, 3, 4)), fcnn.Flatten(), fcnn.Dense(2)
        ),
        lambda: torch.nn.Sequential(
            torch.nn.Conv3d(3, 3, (1, 2, 3), groups=3),
            torch.nn.LayerNorm((3, 4, 3, 2)),
            torch.nn.Flatten(),
            torch.nn.Linear(72, 2),
        ),
        (4, 4, 4, 3),
    ),
    "as many outputs as were flattened, and kernels of one size and two shapes": (
        fcnn.serial(
            fcnn.Conv(2, (1, 3)), fcnn.Conv(2, (3, 1)), fcnn.Flatten(), fcnn.Dense(24), jnp.tanh, fcnn.Dense(3)
        ),
        lambda: torch.nn.Sequential(
            *(torch.nn.Conv2d(2, 2, (1, 3)), torch.nn.Conv2d(2, 2, (3, 1)), torch.nn.Flatten()),
            *(torch.nn.Linear(24, 24), torch.nn.Tanh(), torch.nn.Linear(24, 3)),
        ),
        (5, 6, 2),
    ),
    "a convolution over what is left, for a dense layer": (
        fcnn.serial(fcnn.Conv(3, 2), fcnn.Flatten(), fcnn.Dense(5)),
        lambda: torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.Conv2d(3, 5, (3, 4)), torch.nn.Flatten()),
        (4, 5, 2),
    ),
}


@pytest.mark.parametrize("name", MINE)
def test_networks_of_ones_own(name, x64):
    net, make, shape = MINE[name]
    module = random_module(make)
    params, state = interop.from_torch(net, module, shape=shape)
    x = np.random.default_rng(0).normal(size=(3, *shape))
    found = module(channels_first(x)).detach().numpy()
    found = np.moveaxis(found, 1, -1) if found.ndim > 2 else found
    np.testing.assert_allclose(net.apply(params, x, state=state), found, rtol=1e-10, atol=1e-12)
    back = interop.to_torch(net, params, state, like=module, shape=shape)
    for key, value in module.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[key], value)


def test_the_shape_of_an_example_is_found():
    net = models.lenet5()
    params, _ = interop.from_torch(net, theirs.lenet5(10))
    assert params["dense1"]["kernel"].shape == (120, 84)
    assert interop.to_torch(net, params)["dense1.weight"].shape == (84, 120)


def small():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    )


SMALL = fcnn.serial(fcnn.Conv(2, 3), fcnn.BatchNorm(), fcnn.Flatten(), fcnn.Dense(3))


@pytest.mark.parametrize("kind", ["pth", "wrapped", "safetensors", "arrays", "bfloat16"])
def test_every_source_gives_the_same(kind, tmp_path):
    module = small()
    module = module.bfloat16() if kind == "bfloat16" else module
    wanted = interop.from_torch(SMALL, module, shape=(4, 4, 1))
    path = tmp_path / "weights.pth"
    source = path
    if kind in ("pth", "bfloat16"):
        torch.save(module.state_dict(), path)
    elif kind == "wrapped":
        torch.save({"epoch": 3, "state_dict": module.state_dict(), "loss": 0.5}, path)
    elif kind == "safetensors":
        numpy = pytest.importorskip("safetensors.numpy", reason="pip install 'fcnn[interop]'")
        source = path.with_suffix(".safetensors")
        numpy.save_file({name: t.numpy() for name, t in module.state_dict().items()}, source)
    else:
        source = {name: t.numpy() for name, t in module.state_dict().items()}
    found = interop.from_torch(SMALL, source, shape=(4, 4, 1))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert found[0]["conv1"]["kernel"].dtype == ("bfloat16" if kind == "bfloat16" else "float32")


def test_views_and_strides_of_a_file_are_those_of_pytorch(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {"turned": base.T, "part": base[1:3, 2:5], "one": base[2, 3], "none": base[:0], "whole": base.half()}
    torch.save(tensors, tmp_path / "a.pt")
    found = interop.torch_files.read_tensors(tmp_path / "a.pt")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())
        assert found[name].dtype == tensor.numpy().dtype


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_file_that_names_a_function_is_refused_and_nothing_is_run(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Evil()}))
    with pytest.raises(
        ValueError, match=r"cannot be read as tensors alone \(it names builtins.print\); nothing in it was"
    ):
        interop.from_torch(SMALL, path, shape=(4, 4, 1))
    assert capsys.readouterr().out == ""


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(small().state_dict(), path)
    data = path.read_bytes()
    for size in range(0, len(data), 97):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"is none of the files that torch\.save writes"):
            interop.from_torch(SMALL, path, shape=(4, 4, 1))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "")
    with pytest.raises(ValueError, match=r"holds no data.pkl"):
        interop.from_torch(SMALL, path, shape=(4, 4, 1))


def test_faulty_files_are_refused_or_give_tensors(tmp_path):
    path, random = tmp_path / "weights.pth", np.random.default_rng(0)
    torch.save(small().state_dict(), path)
    raw = path.read_bytes()
    for _ in range(500):
        data = bytearray(raw)
        for place in random.integers(len(data), size=3):
            data[place] ^= 1 << random.integers(8)
        path.write_bytes(data)
        try:
            interop.torch_files.read_tensors(path)
        except (ValueError, TypeError):
            continue


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


STATE = small().state_dict()
MISTAKES = {
    "no file": ("nowhere.pth", {}, ValueError, "there is no file .*nowhere.pth"),
    "a list": ([1, 2], {}, TypeError, "source is a list; give a state dict, a module, or the path"),
    "no tensor": ({"a": "b"}, {}, TypeError, "the entry 'a' is 'b' of type str, not a tensor"),
    "missing": (
        without(STATE, "3.weight", "3.bias"),
        {},
        ValueError,
        r"dense1 with bias \(3,\), kernel .* no counterpart",
    ),
    "extra": (
        {**STATE, "aux.weight": torch.ones(5, 6)},
        {},
        ValueError,
        r"1 of 4 entries .*\n  aux with \(5, 6\) has no counterpart here",
    ),
    "no bias": (without(STATE, "0.bias"), {}, ValueError, r"0 with \(2, 1, 3, 3\) has no .* here, and conv1 with bias"),
    "another kernel": (
        {**STATE, "0.weight": torch.ones(2, 1, 5, 5)},
        {},
        ValueError,
        r"0 with \(2, 1, 5, 5\), \(2,\) has no counterpart here, and conv1 with",
    ),
    "the same size": (
        {**STATE, "0.weight": torch.ones(2, 1, 9, 1)},
        {},
        ValueError,
        r"0.weight has shape \(2, 1, 9, 1\), conv1/kernel has \(3, 3, 1, 2\) here",
    ),
    "an unknown module": (STATE, {"names": {"conv1": "stem"}}, ValueError, "names= gives 'stem' for conv1"),
    "an unknown layer": (STATE, {"names": {"conv9": "0"}}, ValueError, "names= has 'conv9', which is no layer"),
    "another shape": (STATE, {"shape": (5, 5, 1)}, ValueError, r"3 with \(3, 8\), \(3,\) has no counterpart here"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_does_not_fit_is_named(name):
    source, options, kind, words = MISTAKES[name]
    with pytest.raises(kind, match=words):
        interop.from_torch(SMALL, source, **{"shape": (4, 4, 1), **options})


def test_what_is_ignored_and_what_is_named_are_as_asked():
    state = {**STATE, "aux.fc.weight": torch.ones(5, 6), "aux.fc.bias": torch.ones(5)}
    found = interop.from_torch(SMALL, state, shape=(4, 4, 1), ignore=("aux.*",))
    jax.tree.map(np.testing.assert_array_equal, found, interop.from_torch(SMALL, STATE, shape=(4, 4, 1)))
    twins = fcnn.serial(a=fcnn.Dense(3), b=fcnn.Dense(3))
    state = {f"{name}.{kind}": np.full((3, 3) if kind == "weight" else 3, number, "float32")
             for number, name in enumerate(("second", "first")) for kind in ("weight", "bias")}  # fmt: skip
    params, _ = interop.from_torch(twins, state, shape=(3,), names={"a": "first", "b": "second"})
    assert (float(params["a"]["bias"][0]), float(params["b"]["bias"][0])) == (1, 0)


def test_kernels_of_one_size_and_two_shapes_are_told_apart():
    """Registered in another order than they are used in, they have shapes that say which is which."""
    net = fcnn.serial(fcnn.Conv(2, (1, 3), bias=False), fcnn.Conv(2, (3, 1), bias=False))
    state = {"a.weight": np.full((2, 2, 3, 1), 2.0), "b.weight": np.full((2, 2, 1, 3), 1.0)}
    params, _ = interop.from_torch(net, state, shape=(5, 5, 2))
    assert [float(params[name]["kernel"].max()) for name in ("conv1", "conv2")] == [1, 2]


def test_a_difference_would_be_seen():
    """The comparison above can fail: another epsilon, another order of the dense layer's inputs."""
    net, module = SMALL, random_module(small)
    params, state = interop.from_torch(net, module, shape=(4, 4, 1))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype("float32")
    wanted = module(channels_first(x).double()).detach().numpy()
    np.testing.assert_allclose(net.apply(params, x, state=state), wanted, rtol=1e-4, atol=1e-5)
    kernel = params["dense1"]["kernel"]
    wrong = params | {"dense1": params["dense1"] | {"kernel": kernel.reshape(4, 2, 3).swapaxes(0, 1).reshape(8, 3)}}
    assert np.abs(net.apply(wrong, x, state=state) - wanted).max() > 1e-2
