"""Published networks: their parameters, multiply-adds and sizes, from shapes alone."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn import analysis, models
from fcnn.initialization import without_values

IMAGE = (224, 224, 3)


def parameters(net, *shapes):
    """How many numbers the params hold, without drawing them."""
    with without_values("structs"):
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(net.init(jax.random.key(0), *shapes)))


#: network, parameters and 10^9 multiply-adds for an image of 224 x 224 pixels as torchvision 0.28 states them in the
#: metadata of its weights, which it rounds to 10^6 multiply-adds
TORCHVISION = {
    "alexnet": (lambda: models.alexnet(variant="torchvision"), 61_100_840, 0.714),
    "vgg11": (lambda: models.vgg(11), 132_863_336, 7.609),
    "vgg13": (lambda: models.vgg(13), 133_047_848, 11.308),
    "vgg16": (lambda: models.vgg(16), 138_357_544, 15.47),
    "vgg19": (lambda: models.vgg(19), 143_667_240, 19.632),
    "vgg11_bn": (lambda: models.vgg(11, batch_norm=True), 132_868_840, 7.609),
    "vgg16_bn": (lambda: models.vgg(16, batch_norm=True), 138_365_992, 15.47),
    "vgg19_bn": (lambda: models.vgg(19, batch_norm=True), 143_678_248, 19.632),
    "googlenet": (lambda: models.googlenet(), 6_624_904, 1.498),
    "resnet18": (lambda: models.resnet(18), 11_689_512, 1.814),
    "resnet34": (lambda: models.resnet(34), 21_797_672, 3.664),
    "resnet50": (lambda: models.resnet(50), 25_557_032, 4.089),
    "resnet101": (lambda: models.resnet(101), 44_549_160, 7.801),
    "resnet152": (lambda: models.resnet(152), 60_192_808, 11.514),
    "resnext50_32x4d": (lambda: models.resnext(50), 25_028_904, 4.23),
    "resnext101_32x8d": (lambda: models.resnext(101, group_width=8), 88_791_336, 16.414),
    "wide_resnet50_2": (lambda: models.wide_resnet(50, 1000, width=2), 68_883_240, 11.398),
    "densenet121": (lambda: models.densenet(121), 7_978_856, 2.834),
    "densenet161": (lambda: models.densenet(161), 28_681_000, 7.728),
    "densenet169": (lambda: models.densenet(169), 14_149_480, 3.36),
    "densenet201": (lambda: models.densenet(201), 20_013_928, 4.291),
    "squeezenet1_0": (lambda: models.squeezenet(), 1_248_424, 0.819),
    "squeezenet1_1": (lambda: models.squeezenet(version="1.1"), 1_235_496, 0.349),
    "mobilenet_v2": (lambda: models.mobilenet_v2(), 3_504_872, 0.301),
    "efficientnet_b0": (lambda: models.efficientnet(0), 5_288_548, 0.386),
    "convnext_tiny": (lambda: models.convnext_tiny(), 28_589_128, 4.456),
    "convnext_small": (lambda: models.convnext("small"), 50_223_688, 8.684),
    "convnext_base": (lambda: models.convnext("base"), 88_591_464, 15.355),
    "convnext_large": (lambda: models.convnext("large"), 197_767_336, 34.361),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameters_and_multiply_adds_are_those_that_torchvision_states(name):
    make, count, work = TORCHVISION[name]
    net = make()
    assert parameters(net, IMAGE) == count
    assert analysis.multiply_adds(net, IMAGE) / 1e9 == pytest.approx(work, rel=5e-3, abs=5e-4)


#: network, shape, parameters; where they are stated
PAPERS = {
    "LeNet-5, modern": (models.lenet5(padding="VALID"), (32, 32, 1), 61_706),  # worked out by hand
    "LeNet-5 of 1998": (models.lenet5_1998(), (32, 32, 1), 60_000),  # section II.B
    "GoogLeNet with its auxiliary heads": (models.googlenet(auxiliary=True), IMAGE, 13_004_888),  # torchvision's module
    "GoogLeNet of the paper": (models.googlenet(variant="paper"), IMAGE, 6_998_552),  # Caffe's bvlc_googlenet
    "EfficientNet-B7": (models.efficientnet(7), (600, 600, 3), 66_347_960),  # torchvision
    "EfficientNet-Lite0": (models.efficientnet_lite0(), IMAGE, 4_652_008),  # timm
    "U-Net": (models.unet(2, batch_norm=True), (64, 64, 3), 31_037_698),  # the PyTorch U-Net of milesial
    "DCGAN's generator": (models.dcgan_generator(), (1, 1, 100), 3_576_704),  # PyTorch's example
    "DCGAN's discriminator": (models.dcgan_discriminator(), (64, 64, 3), 2_765_568),  # PyTorch's example
    "m5": (models.m5(), (32000, 1), 559_114),  # table 1 of the paper: 0.5M
}


@pytest.mark.parametrize("name", PAPERS)
def test_parameters_are_those_of_the_paper_or_of_the_reference(name):
    net, shape, count = PAPERS[name]
    assert parameters(net, shape) == count


#: of tables that give millions with so many digits
ROUNDED = {
    **{f"ResNet-{n}": (models.resnet(n, 10, cifar=True), m, 2) for n, m in
       {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85}.items()},  # He et al., table 6
    "ResNet-110": (models.resnet(110, 10, cifar=True), 1.7, 1),
    "ResNet-110, pre-activated": (models.resnet(110, 10, cifar=True, preactivation=True), 1.7, 1),
    "WRN-28-10": (models.wide_resnet(28, 10), 36.5, 1),  # Zagoruyko and Komodakis, table 4
    "WRN-16-8": (models.wide_resnet(16, 10, width=8), 11.0, 1),
    "WRN-40-4": (models.wide_resnet(40, 10, width=4), 8.9, 1),
    "All-CNN-C": (models.all_convolutional(), 1.4, 1),  # Springenberg et al., table 3: 1.3M to 1.4M
}  # fmt: skip


@pytest.mark.parametrize("name", ROUNDED)
def test_millions_of_parameters_are_those_of_the_tables(name):
    net, millions, digits = ROUNDED[name]
    assert parameters(net, (32, 32, 3)) / 1e6 == pytest.approx(millions, abs=1.2 * 10**-digits)


#: output of every stage (side, channels), from the papers' tables
STAGES = {
    "vgg": (models.vgg(16), IMAGE, [(112, 64), (56, 128), (28, 256), (14, 512), (7, 512)]),
    "resnet": (models.resnet(18), IMAGE, [(56, 64), (28, 128), (14, 256), (7, 512)]),
    "bottlenecks": (models.resnet(50), IMAGE, [(56, 256), (28, 512), (14, 1024), (7, 2048)]),
    "cifar": (models.resnet(20, cifar=True), (32, 32, 3), [(32, 16), (16, 32), (8, 64)]),
    "densenet": (models.densenet(121), IMAGE, [(28, 128), (14, 256), (7, 512), (7, 1024)]),
    "googlenet": (models.googlenet(), IMAGE, [(14, 480), (7, 832), (7, 1024)]),
    "squeezenet": (models.squeezenet(), IMAGE, [(27, 256), (13, 512), (13, 512)]),
    "mobilenet": (
        models.mobilenet_v2(),
        IMAGE,
        [(112, 16), (56, 24), (28, 32), (14, 64), (14, 96), (7, 160), (7, 320)],
    ),
    "efficientnet": (
        models.efficientnet(0),
        IMAGE,
        [(112, 16), (56, 24), (28, 40), (14, 80), (14, 112), (7, 192), (7, 320)],
    ),
    "convnext": (models.convnext_tiny(), IMAGE, [(56, 96), (28, 192), (14, 384), (7, 768)]),
}


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_the_size_that_the_paper_gives(name):
    net, shape, sizes = STAGES[name]
    found = models.features(net).out_shape(shape)
    assert [out for _, out in sorted(found.items())] == [(side, side, channels) for side, channels in sizes]


def test_what_each_map_of_c3_sees_is_table_one():
    table = """
        X   XXX  XXXX XX
        XX   XXX  XXXX X
        XXX   XXX  X XXX
         XXX  XXXX  X XX
          XXX  XXXX XX X
           XXX  XXXX XXX
    """
    rows = [list(row[8:].ljust(16)) for row in table.splitlines() if "X" in row]
    seen = np.array([[mark == "X" for mark in row] for row in rows])
    connections = importlib.import_module("fcnn.models.lenet").CONNECTIONS
    found = np.array([[below in maps for maps in connections] for below in range(6)])
    assert (seen == found).all()


SMALL = {
    "all_convolutional": (models.all_convolutional(), (32, 32, 3)),
    "autoencoder": (models.autoencoder(), (8, 12, 2)),
    "connectomics": (models.connectomics(), (75, 75, 4)),
    "dcgan_discriminator": (models.dcgan_discriminator(width=4), (64, 64, 3)),
    "dcgan_generator": (models.dcgan_generator(width=4), (1, 1, 8)),
    "lenet5_1998": (models.lenet5_1998(), (32, 32, 1)),
    "linear_svm": (models.linear_svm(), (6, 5, 1)),
    "m5": (models.m5(width=4), (4000, 1)),
    "maxout": (models.maxout(), (28, 28, 1)),
    "mlp": (models.mlp(5, 3), (6, 5, 1)),
    "network_in_network": (models.network_in_network(), (32, 32, 3)),
    "resnet, preactivated": (models.resnet(20, 10, cifar=True, preactivation=True), (32, 32, 3)),
    "unet, valid": (models.unet(2, widths=(2, 3, 4), padding="VALID"), (44, 60, 1)),
    "unet, same": (models.unet(2, widths=(2, 3, 4)), (8, 12, 1)),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_network_computes_what_it_declares_in_use_and_in_training(name):
    net, shape = SMALL[name]
    params, state = net.init(jax.random.key(0), shape), net.init_state(shape)
    x = jax.random.uniform(jax.random.key(1), (3, *shape))
    y = jax.jit(net.apply)(params, x, state=state)
    trained, _ = jax.jit(net.apply_train)(params, x, key=jax.random.key(2), state=state)
    assert y.shape == trained.shape == (3, *net.out_shape(shape))
    assert jnp.isfinite(y).all()
    assert jnp.isfinite(trained).all()


def test_features_are_those_of_the_network_by_its_own_params():
    net = models.resnet(20, 10, cifar=True)
    params, state = net.init(jax.random.key(0), (16, 16, 3)), net.init_state((16, 16, 3))
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    trunk = models.features(net, "stage1", "stage2")
    found = trunk.apply(trunk.own(params), x, state=trunk.own(state))
    seen = fcnn.capture(net, params, x, state=state)
    assert sorted(found) == ["stage1", "stage2"]
    for name, value in found.items():
        np.testing.assert_allclose(value, seen[name], rtol=1e-5, atol=1e-5)


def test_a_new_head_is_put_on_the_trunk_of_another():
    old = models.resnet(8, 10, cifar=True)
    params = old.init(jax.random.key(0), (32, 32, 3))
    trunk = old[:-1]
    net = fcnn.serial(trunk=trunk, head=fcnn.serial(fcnn.GlobalAvgPool(), fcnn.Dense(3)))
    new = net.init(jax.random.key(1), (32, 32, 3)) | {"trunk": trunk.own(params)}
    y = net.apply(new, jnp.ones((2, 32, 32, 3)), state=net.init_state((32, 32, 3)))
    assert y.shape == (2, 3)


def test_the_kernels_of_the_autoencoder_are_used_twice():
    net = models.autoencoder(2, 3)
    x = jax.random.normal(jax.random.key(1), (1, 8, 8, 2))
    params = net.init(jax.random.key(0), (8, 8, 2))
    assert sorted(params["first"]) == ["bias", "kernel"]
    kernel = params["first"]["kernel"]
    y = jax.random.normal(jax.random.key(2), (1, 4, 4, 2))
    # the transpose of a linear map: <A x, y> = <x, A^T y>
    forth = (fcnn.ops.conv(x, kernel, stride=2, padding=1) * y).sum()
    back = (x * importlib.import_module("fcnn.models.autoencoder").transposed(y, kernel)).sum()
    np.testing.assert_allclose(forth, back, rtol=1e-5)


def test_the_distance_of_equal_images_is_zero_and_so_is_its_gradient():
    net = models.siamese(fcnn.serial(fcnn.Flatten(), fcnn.Dense(3)))
    a, b = jnp.ones((2, 4, 4, 1)), jnp.ones((2, 4, 4, 1)).at[1].set(0)
    params = net.init(jax.random.key(0), (4, 4, 1), (4, 4, 1))
    y = net.apply(params, a, b)
    gradient = jax.grad(lambda p: net.apply(p, a, b).sum())(params)
    assert y[0] == 0 < y[1]
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


MISTAKES = {
    "alexnet": (lambda: models.alexnet(variant="caffe"), "alexnet: variant 'caffe' is unknown"),
    "convnext": (lambda: models.convnext("huge"), "convnext: size 'huge' is unknown"),
    "densenet": (lambda: models.densenet(100), "densenet: depth 100 is not one of 121, 161, 169, 201"),
    "efficientnet": (lambda: models.efficientnet(8), "efficientnet: scale 8 is not one of 0 to 7"),
    "features": (lambda: models.features(models.lenet5(), "conv9"), "features: the network has no part 'conv9'"),
    "features of none": (lambda: models.features(models.lenet5()), "features: the network has no stages; name some"),
    "googlenet": (lambda: models.googlenet(variant="v2"), "googlenet: variant 'v2' is unknown"),
    "lenet5_1998": (lambda: models.lenet5_1998(output="softmax"), "lenet5_1998: output 'softmax' is unknown"),
    "mlp": (lambda: models.mlp(), "mlp: there are no layers"),
    "mobilenet": (lambda: models.mobilenet_v2(width=0), "mobilenet_v2: width is 0, it must be above 0"),
    "resnet": (lambda: models.resnet(20), r"resnet: depth 20 is not one of 18, .*; or give cifar=True"),
    "resnet for cifar": (lambda: models.resnet(18, cifar=True), "resnet: depth 18 is not 6 n \\+ 2"),
    "groups": (lambda: models.resnet(18, groups=2), "resnet: groups are for bottlenecks"),
    "squeezenet": (lambda: models.squeezenet(version="2"), "squeezenet: version '2' is unknown"),
    "unet": (lambda: models.unet(2, widths=(4,)), "make 1 levels, but a U-Net has two or more"),
    "unet's padding": (lambda: models.unet(2, padding="FULL"), "unet: padding 'FULL' is neither"),
    "vgg": (lambda: models.vgg(12), "vgg: depth 12 is not one of 11, 13, 16, 19"),
    "wide_resnet": (lambda: models.wide_resnet(20), "wide_resnet: depth 20 is neither 6 n \\+ 4 nor 50 or 101"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(name):
    make, words = MISTAKES[name]
    with pytest.raises((ValueError, TypeError), match=words):
        make()
