"""A folded network has no batch norm and gives what apply gave, in float64 to 1e-12."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn import interop, models


def drawn(net, *shapes, seed=0):
    """Parameters and statistics that leave no term out."""
    random = np.random.default_rng(seed)
    params, state = net.init(jax.random.key(seed), *shapes), net.init_state(*shapes)
    params = jax.tree.map(lambda a: a + 0.1 * random.normal(size=a.shape), params)
    return params, jax.tree.map(lambda a: a * random.uniform(0.5, 2, a.shape) + 0.1, state)


def classes(net, *shapes):
    """The classes of all layers of a network."""
    found = []

    def walk(traced):
        for node in traced.nodes:
            found.append(type(node.layer).__name__)
            for inside in node.inside:
                walk(inside)

    walk(fcnn.trace(net, *shapes))
    return found


def check(net, *shapes, left=0):
    """Fold a network and compare; ``left``: how many factors and offsets stay parts of their own."""
    params, state = drawn(net, *shapes)
    folded, weights = fcnn.fold(net, params, state)
    inputs = [jnp.asarray(np.random.default_rng(1).normal(size=(2, *shape))) for shape in shapes]
    wanted = jax.tree.leaves(jax.jit(net.apply)(params, *inputs, state=state))
    for found, want in zip(jax.tree.leaves(jax.jit(folded.apply)(weights, *inputs)), wanted, strict=True):
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-12 * np.abs(want).max())
    kinds = classes(folded, *shapes)
    assert "BatchNorm" not in kinds
    assert kinds.count("ScaleChannels") == left
    shapes_of = jax.tree.map(jnp.shape, folded.init(jax.random.key(0), *shapes))
    assert jax.tree.map(jnp.shape, weights) == shapes_of
    assert folded.init_state(*shapes) == {}
    return folded, weights


NORM, RELU = fcnn.BatchNorm(), jax.nn.relu
CHAINS = {
    "after a convolution": (fcnn.serial(fcnn.Conv(4, 3, bias=False), NORM, RELU), 0),
    "with a bias, padded, in groups": (fcnn.serial(fcnn.Conv(6, 3, groups=3, padding="SAME"), NORM), 0),
    "strided and dilated": (fcnn.serial(fcnn.Conv(4, 2, stride=2, dilation=2), NORM), 0),
    "after a transposed convolution": (fcnn.serial(fcnn.ConvTranspose(6, 3, stride=2, groups=3), NORM), 0),
    "after kernels for every position": (fcnn.serial(fcnn.LocallyConnected(4, 3), NORM), 0),
    "after those without a bias": (fcnn.serial(fcnn.LocallyConnected(4, 3, bias=False), NORM), 0),
    "after a dense layer": (fcnn.serial(fcnn.Flatten(), fcnn.Dense(5), NORM), 0),
    "before a convolution": (fcnn.serial(NORM, fcnn.Conv(4, 3)), 0),
    "before a convolution in groups": (fcnn.serial(NORM, fcnn.Conv(6, 3, groups=3, bias=False)), 0),
    "before a padded one": (fcnn.serial(NORM, fcnn.Conv(4, 3, padding=1)), 1),
    "before one that pads with copies": (fcnn.serial(NORM, fcnn.Conv(4, 3, padding=("REFLECT", 1))), 0),
    "before a dense layer": (fcnn.serial(NORM, fcnn.Dense(5)), 0),
    "between functions": (fcnn.serial(RELU, NORM, RELU), 1),
    "dropout between": (fcnn.serial(fcnn.Conv(4, 3), fcnn.Dropout(0.5), NORM), 0),
    "two in a row": (fcnn.serial(fcnn.Conv(4, 3), NORM, NORM), 0),
    "two alone": (fcnn.serial(RELU, NORM, NORM), 1),
    "alone in a chain": (fcnn.serial(fcnn.Conv(4, 3), fcnn.serial(NORM), RELU), 1),
    "without scale and bias": (fcnn.serial(fcnn.Conv(4, 3), fcnn.BatchNorm(scale=False, bias=False)), 0),
    "at the end of a chain": (fcnn.serial(fcnn.serial(RELU, fcnn.Conv(4, 3)), NORM), 0),
    "at the beginning of the next": (fcnn.serial(NORM, fcnn.serial(fcnn.Conv(4, 1), RELU)), 0),
    "instances with statistics": (fcnn.serial(fcnn.Conv(4, 3), fcnn.InstanceNorm(running=True)), 0),
    "residual": (fcnn.residual(fcnn.serial(fcnn.Conv(3, 1), NORM), NORM), 1),
    "after a sum": (fcnn.serial(fcnn.residual(fcnn.Conv(3, 1)), NORM), 1),
    "branches": (fcnn.branches(fcnn.serial(fcnn.Conv(3, 1), NORM), NORM, jax.nn.relu), 1),
    "repeat": (fcnn.repeat(fcnn.serial(fcnn.Conv(3, 3, padding=1), NORM, RELU), 3), 0),
    "repeat, before": (fcnn.repeat(fcnn.serial(NORM, fcnn.Conv(3, 1, groups=3), RELU), 3), 0),
    "repeat of repeat": (fcnn.repeat(fcnn.repeat(fcnn.serial(fcnn.Conv(3, 1), NORM), 2), 2), 0),
    "remat": (fcnn.serial(fcnn.remat(fcnn.serial(fcnn.Conv(3, 1), NORM)), NORM), 0),
    "scan": (fcnn.Scan(fcnn.serial(fcnn.Conv(4, 3), NORM, RELU, fcnn.Flatten(), fcnn.Dense(2), NORM), (5, 5)), 0),
    "nothing to do": (fcnn.serial(fcnn.Conv(4, 3), RELU), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_values_stay(name, x64):
    net, left = CHAINS[name]
    check(net, (8, 7, 3), left=left)


def test_a_convolution_of_ones_own_takes_it_too(x64):
    class Mine(fcnn.Conv):
        pass

    folded, _ = check(fcnn.serial(Mine(4, 3), fcnn.BatchNorm()), (6, 6, 3))
    assert type(folded[0]) is Mine


def plain(layer, x):
    return layer.norm(layer.conv(x))


def twice(layer, x):
    y = layer.conv(x)
    return layer.norm(y), y


def shared(layer, x):
    return layer.norm(layer.conv(layer.norm(x)))


def computed(layer, x):
    return layer.norm(layer.conv(x) + x)


@pytest.mark.parametrize(("wiring", "left"), [(plain, 0), (twice, 1), (shared, 2), (computed, 1)])
def test_graphs(wiring, left, x64):
    check(fcnn.graph(conv=fcnn.Conv(3, 1), norm=fcnn.BatchNorm())(wiring), (6, 5, 3), left=left)


NETWORKS = {
    "resnet": (lambda: models.resnet(18, 5), (32, 32, 3), 0),
    "resnet, preactivated": (lambda: models.resnet(20, 5, cifar=True, preactivation=True), (16, 16, 3), 10),
    "mobilenet": (lambda: models.mobilenet_v2(5), (32, 32, 3), 0),
    "densenet": (lambda: models.densenet(121, 5), (32, 32, 3), 62),
    "googlenet": (lambda: models.googlenet(5), (64, 64, 3), 0),
    "generator": (lambda: models.dcgan_generator(width=8), (1, 1, 10), 0),
}


@pytest.mark.parametrize(
    "name", [n if "preactivated" in n else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_networks_of_models(name, x64):
    build, shape, left = NETWORKS[name]
    check(build(), shape, left=left)


def test_what_comes_from_a_file_is_folded(x64):
    pytest.importorskip("onnx", reason="files are read with onnx: pip install 'fcnn[interop]'")
    net = models.resnet(20, 5, cifar=True)
    params, state = drawn(net, (32, 32, 3))
    net, params, state = interop.from_onnx(interop.to_onnx(net, params, state, (32, 32, 3)))
    folded, weights = fcnn.fold(net, params, state)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 32, 32, 3)))
    wanted = net.apply(params, x, state=state)
    np.testing.assert_allclose(folded.apply(weights, x), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    assert "BatchNorm" not in repr(folded)


def test_folding_can_be_compiled():
    net = fcnn.serial(fcnn.Conv(4, 3), fcnn.BatchNorm())
    params, state = net.init(jax.random.key(0), (6, 6, 1)), net.init_state((6, 6, 1))
    weights = jax.jit(lambda p, s: fcnn.fold(net, p, s)[1])(params, state)
    np.testing.assert_allclose(
        weights["conv1"]["kernel"], fcnn.fold(net, params, state)[1]["conv1"]["kernel"], rtol=1e-6
    )


def test_pytorch_folds_to_the_same_weights():
    torch = pytest.importorskip("torch", reason="PyTorch is the truth here: pip install torch==2.13.0")
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    conv, norm = torch.nn.Conv2d(3, 6, 3, groups=3), torch.nn.BatchNorm2d(6)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    theirs = fuse_conv_bn_eval(conv.eval(), norm.eval())
    net = fcnn.serial(fcnn.Conv(6, 3, groups=3), fcnn.BatchNorm())
    params, state = interop.from_torch(net, torch.nn.Sequential(conv, norm), shape=(6, 6, 3))
    _, weights = fcnn.fold(net, params, state)
    wanted = np.moveaxis(theirs.weight.detach().numpy(), (0, 1), (-1, -2))
    np.testing.assert_allclose(weights["conv1"]["kernel"], wanted, atol=1e-6)
    np.testing.assert_allclose(weights["conv1"]["bias"], theirs.bias.detach().numpy(), atol=1e-6)


def test_what_cannot_be_folded_says_why():
    net = fcnn.serial(fcnn.Conv(4, 3), fcnn.BatchNorm())
    params = net.init(jax.random.key(0), (6, 6, 1))
    with pytest.raises(ValueError, match=r"batch_norm1: fcnn.BatchNorm\(\) has no running statistics in the state"):
        fcnn.fold(net, params)
    with pytest.raises(ValueError, match="has no kernel in params"):
        fcnn.fold(net, {}, net.init_state((6, 6, 1)))
    with pytest.raises(TypeError, match="params"):
        fcnn.fold(net, 3)

    @dataclasses.dataclass(frozen=True, repr=False)
    class Counting(fcnn.Layer):
        def statistics(self, *shapes):
            return {"count": fcnn.types.Parameter((), jax.nn.initializers.zeros)}

        def infer_shape(self, *shapes):
            return shapes[0]

        def forward_eval(self, params, state, *inputs):
            return inputs[0]

    with pytest.raises(ValueError, match=r"counting1: .*has a state that is no running statistics"):
        fcnn.fold(fcnn.serial(Counting()), {}, {"counting1": {"count": jnp.zeros(())}})
