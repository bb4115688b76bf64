"""Every operator that is read, and why others are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import convolutions, elementwise, norms, pooling, reductions, resizing, shapes

#: by operator: a function of the builder, the node and its operands
RULES: dict[str, Callable[..., Any]] = {
    **convolutions.RULES, **pooling.RULES, **norms.RULES, **elementwise.RULES, **reductions.RULES,
    **resizing.RULES, **shapes.RULES,
}  # fmt: skip

#: what to do about a node that is not read
WAY_OUT = (
    "cut the file before it with onnx.utils.extract_model, or build the network here and take its weights by from_torch"
)

#: operators that are computed while reading, where nothing depends on the input
CONSTANT_ONLY = frozenset({
    "Constant", "ConstantOfShape", "Range", "EyeLike", "OneHot", "ScatterND", "ScatterElements", "GatherElements",
    "NonZero", "Compress", "DequantizeLinear", "ReverseSequence", "TopK", "BlackmanWindow",
    "HammingWindow", "HannWindow",
})  # fmt: skip

#: operators that are not read, and why
REASONS: dict[str, str] = {
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "a recurrent layer, which the library does not have"),
    **dict.fromkeys(("Loop", "Scan"), "a loop with a body of its own"),
    "If": "a choice while the network runs",
    **dict.fromkeys(
        ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QuantizeLinear", "DynamicQuantizeLinear"),
        "computes in integers; export the network before it is quantised",
    ),
    **dict.fromkeys(("NonMaxSuppression", "RoiAlign", "MaxRoiPool"), "part of a detector's search, not of its network"),
    "MaxUnpool": "puts values where another pooling found them, which needs its indices",
}
