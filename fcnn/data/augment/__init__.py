"""Augmentation on the device: functions (key, batch) to batch that become part of the compiled training step.

An augmentation is a value, such as ``compose(Crop(4), Flip())``. The deterministic operations behind the augmentations
are also plain functions of one image: ``shift``, ``affine``, ``displace``, ``erase``, ``brightness`` and others.
"""

from .augmentation import Augmentation, PerExample
from .colour import ColourJitter, brightness, contrast, grey, hue, saturation
from .compose import compose, on_input, sometimes
from .erasing import Cutout, RandomErasing, box, erase
from .mixing import CutMix, Mixup
from .moving import AlternatingFlip, Crop, Flip, Shift
from .noise import Noise
from .resampling import affine, affine_matrix, displace, sample, shift, smooth
from .sound import Gain, MaskFrequencies, MaskTime, TimeShift
from .together import together
from .warping import Affine, Elastic, Rotate, Scale, Shear, Translate

__all__ = [
    "Affine",
    "AlternatingFlip",
    "Augmentation",
    "ColourJitter",
    "Crop",
    "CutMix",
    "Cutout",
    "Elastic",
    "Flip",
    "Gain",
    "MaskFrequencies",
    "MaskTime",
    "Mixup",
    "Noise",
    "PerExample",
    "RandomErasing",
    "Rotate",
    "Scale",
    "Shear",
    "Shift",
    "TimeShift",
    "Translate",
    "affine",
    "affine_matrix",
    "box",
    "brightness",
    "compose",
    "contrast",
    "displace",
    "erase",
    "grey",
    "hue",
    "on_input",
    "sample",
    "saturation",
    "shift",
    "smooth",
    "sometimes",
    "together",
]


def __dir__() -> list[str]:
    return __all__
