"""Whole networks, one file per paper, built only from the library's parts."""

from .alexnet import alexnet
from .all_convolutional import all_convolutional
from .autoencoder import autoencoder
from .connectomics import connectomics
from .convnext import convnext, convnext_tiny
from .dcgan import dcgan_discriminator, dcgan_generator
from .densenet import densenet
from .efficientnet import efficientnet, efficientnet_lite0
from .googlenet import googlenet
from .lenet import lenet5, lenet5_1998
from .maxout import maxout
from .mlp import linear_svm, mlp
from .mobilenet import mobilenet_v2
from .network_in_network import network_in_network
from .resnet import resnet, resnext, wide_resnet
from .siamese import siamese
from .sound import m5
from .squeezenet import squeezenet
from .stages import features
from .unet import unet
from .vgg import vgg

__all__ = [
    "alexnet",
    "all_convolutional",
    "autoencoder",
    "connectomics",
    "convnext",
    "convnext_tiny",
    "dcgan_discriminator",
    "dcgan_generator",
    "densenet",
    "efficientnet",
    "efficientnet_lite0",
    "features",
    "googlenet",
    "lenet5",
    "lenet5_1998",
    "linear_svm",
    "m5",
    "maxout",
    "mlp",
    "mobilenet_v2",
    "network_in_network",
    "resnet",
    "resnext",
    "siamese",
    "squeezenet",
    "unet",
    "vgg",
    "wide_resnet",
]


def __dir__() -> list[str]:
    return __all__
