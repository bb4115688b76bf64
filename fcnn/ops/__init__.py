"""The operations of the layers on plain arrays, channels last and batch first.

Each function is pure, takes its parameters as arrays, and supports all of JAX's derivatives.
"""

from typing import TYPE_CHECKING, Any

from .cells import adaptive_avg_pool, adaptive_max_pool, global_avg_pool, global_max_pool, maxout
from .channels import channel_shuffle, prelu, scale_channels
from .conv import conv, conv_transpose
from .dense import dense, dropout, flatten, stochastic_depth
from .forced import forced as forced
from .local import locally_connected
from .memory import compute_where_called
from .moments import moments, normalize, standardize
from .norm import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
)
from .pad import crop, pad
from .pool import avg_pool, lp_pool, max_pool
from .resize import resize
from .shuffle import pixel_shuffle, pixel_unshuffle
from .unpool import max_pool_with_indices, max_unpool

if TYPE_CHECKING:
    from .convolution import use_algorithm

# before the first computation
compute_where_called()

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "batch_norm",
    "channel_shuffle",
    "conv",
    "conv_transpose",
    "crop",
    "dense",
    "dropout",
    "flatten",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "locally_connected",
    "lp_pool",
    "max_pool",
    "max_pool_with_indices",
    "max_unpool",
    "maxout",
    "moments",
    "normalize",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "prelu",
    "resize",
    "scale_channels",
    "standardize",
    "stochastic_depth",
    "use_algorithm",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import ``use_algorithm`` on first access."""
    if name != "use_algorithm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .convolution import use_algorithm

    return use_algorithm
