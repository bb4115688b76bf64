"""What each tool refuses of the subjects, and the one sentence in which each fact behind it is said."""

import re

from subjects import SUBJECTS

#: the sentences, one for each fact
SENTENCES = {
    "no space": "no space|window is empty",
    "several inputs": r"takes 2 inputs|takes several inputs|missing 1 required positional",
    "pads": "pads the window of|pads the window, and computes values between the samples",
    "resampled": "makes values between the samples|gathers blocks that begin at the window's first sample"
    "|(pads|cuts) the window, whose border lies elsewhere",
    "steps": "has steps that depend on the size of the image",
    "adds": "adds samples past the ends to samples within",
    "ends": "joins the two ends of the space",
    "unshared": "has a kernel of its own for every position",
    "joins": "joins all positions",
    "pools": "pools over all positions",
    "cells": "has windows that depend on the size of the image|lays cells of different sizes",
    "statistics": "takes its statistics over all positions",
    "centre": "subtracts the mean of all positions",
    "makes": r"makes \(.*which is not \(\*space, channels\)",
    "state": "has a state of its own",
    "state kept": "has a state that is no running statistics",
    "wires": "wires its layers by a function, which is not analysed",
    # what is found in the operations of a layer that states nothing
    "operations": "mixes positions|concatenates pieces of the space|cuts the space|computes with the size"
    "|works for a space of|numbers of its own that differ|reorders or separates examples of the batch",
    "one size": "cannot be reached from",
    "no kernel": "has no kernel that is known to be applied at positions or windows",
    "unwritten": "has no hand-written counterpart",
    "no product": "is neither a matrix product nor a function of single numbers|which an MLP does not have",
    "no MLP": "an MLP over a window begins with|leaves no layer for a cascade|1, 2 or 3 space dimensions",
}

VECTORS = {"dense", "prelu of channels", "batch norm plain", "branches summed", "graph", "user's two inputs alone"}
RESAMPLED = {name for name in SUBJECTS if name.split()[0] in ("pad", "crop", "pixel", "resize")}
STEPS = {"resize", "resize with aligned corners", "resize antialiased", "resize as jax does"}
STATISTICS = {"layer norm of the example", "layer norm of columns", "group norm", "instance norm"}
TRANSPOSED = {"conv transpose", "conv transpose same", "conv transpose to a size"}
USERS = {name for name in SUBJECTS if name.startswith("user's")}
#: what a receptive field is refused for
FIELDS = {
    "no space": VECTORS,
    "several inputs": {"max unpool alone"},
    "adds": {"conv transpose circular"},
    "ends": {"conv circular", "avg pool with a divisor", "pad around"},
    "steps": STEPS,
    "unshared": {"locally connected"},
    "joins": {"flatten", "flatten some axes", "serial", "lenet5"},
    "pools": {"global max pool", "global avg pool"},
    "cells": {"adaptive avg pool", "adaptive max pool", "adaptive pool of one axis"},
    "statistics": {*STATISTICS, "batch norm of the batch alone"},
    "centre": {"user's whole space"},
    "operations": {
        "user's whole space unstated",
        *("doubled conv circular", "doubled conv reflect", "doubled conv edge", "doubled conv transpose to a size"),
        *("doubled conv transpose circular", "doubled locally connected", "doubled avg pool with a divisor"),
        *("doubled flatten", "doubled flatten some axes", "doubled global max pool", "doubled global avg pool"),
        *("doubled adaptive avg pool", "doubled adaptive max pool", "doubled adaptive pool of one axis"),
        *(f"doubled {name}" for name in STATISTICS),
        *("doubled batch norm of the batch alone", "max unpool", "crop to a size", "doubled crop to a size"),
        *("doubled pad by reflection", "doubled pad around", "doubled pad by the edge", "doubled resize by a factor"),
        *(f"doubled {name}" for name in STEPS),
    },
}
#: what becomes no convolution over a larger space
CONVOLUTIONS = {
    "no space": VECTORS - {"graph", "user's two inputs alone"},
    "several inputs": {"graph", "user's two inputs alone", "max unpool alone"},
    "cells": {"adaptive avg pool"},
    "makes": {
        "flatten some axes",
        *("doubled flatten", "doubled flatten some axes", "doubled global max pool", "doubled global avg pool"),
    },
    "wires": {"max unpool", "graph sharing", "user's two inputs"},
    "state": {"doubled batch norm", "doubled batch norm cumulative", "doubled instance norm running", "doubled scan"},
    "operations": {
        *("user's window unstated", "user's whole space unstated", "user's reshape"),
        *(f"doubled {name}" for name in SUBJECTS if name in STATISTICS or name.split()[0] in ("conv", "adaptive")),
        *("doubled locally connected", "doubled max pool", "doubled max pool overlapping", "doubled max pool dilated"),
        *("doubled avg pool", "doubled avg pool of sound", "doubled avg pool with a divisor", "doubled lp pool"),
        *("doubled batch norm of the batch alone", "doubled scan by patches"),
        *(f"doubled {name}" for name in RESAMPLED),
    },
}
PADS = {
    *("conv of sound", "conv of volumes", "conv grouped", "conv circular", "conv reflect", "conv pairs", "conv edge"),
    *("max pool overlapping", "avg pool", "avg pool of sound", "avg pool with a divisor", "residual"),
    *("residual projected", "branches", "repeat", "remat", "remat in a repeat", "lenet5", "user's window of sound"),
    *("user's window in a repeat", *TRANSPOSED),
}
WITH_KERNELS = (
    "conv|dense|locally|serial$|residual|branches|repeat|remat|graph|scan|lenet|max unpool$|stochastic depth$|user's"
)
REFUSED = {
    "receptive_field": FIELDS,
    "scan_tiles": FIELDS | {"one size": {"conv transpose to a size"}},
    "Scan": {
        **CONVOLUTIONS,
        "no space": VECTORS,
        "several inputs": {"max unpool alone"},
        "pads": PADS,
        "adds": {"conv transpose circular"},
        "unshared": {"locally connected"},
        "statistics": STATISTICS,
        "resampled": RESAMPLED - STEPS,
        "steps": STEPS,
        "centre": {"user's whole space"},
    },
    "fully_convolutional": CONVOLUTIONS,
    "gradient_by_use": {
        "no kernel": {
            *(name for name in SUBJECTS if name.startswith("doubled") and "scan" not in name),
            *(name for name in SUBJECTS if not re.match(WITH_KERNELS, re.sub("^(empty|doubled) ", "", name))),
            *("user's mixer unstated", "user's window unstated", "user's two inputs alone"),
        },
    },
    "to_reference": {
        "unwritten": {
            *USERS,
            *(name for name in SUBJECTS if name.startswith("doubled") and "scan" not in name),
        }
    },
}
REFUSED["fold"] = {
    "state kept": {
        *("doubled batch norm", "doubled batch norm plain", "doubled batch norm cumulative", "doubled scan"),
        *("doubled instance norm running", "user's state"),
    }
}
REFUSED["check_gradients"] = REFUSED["to_reference"]
#: tools that are about one form of network: what they refuse the others by, and which networks have that form
MLPS = {
    *("conv", "conv of sound", "conv of volumes", "conv grouped", "conv dilated", "conv circular", "conv reflect"),
    *("conv pairs", "conv edge", "locally connected", "dense", "dense at every position", "flatten", "maxout"),
    *("flatten some axes", "dropout", "avg pool", "avg pool of sound", "avg pool with a divisor", "global avg pool"),
    "serial of a function",
}
OTHERS = {"as_mlp": ("no product", MLPS), "as_cascade": ("no MLP", set())}


def fact(tool, name):
    """The fact for which a tool refuses a subject; an empty subclass is what its base class is."""
    if tool in OTHERS:
        reason, names = OTHERS[tool]
        return None if name.removeprefix("empty ") in names else reason
    said = REFUSED.get(tool, {})
    if name.startswith("doubled ") and name.removeprefix("doubled ") in VECTORS | {"max unpool alone"}:
        by = ("no space", "several inputs")  # what is said of the shapes does not depend on what is computed
        said = {
            reason: {f"doubled {one}" for one in names} if reason in by else names for reason, names in said.items()
        }
    return next((reason for reason, names in said.items() if name.removeprefix("empty ") in names), None)
