"""Rows of the page about pooling."""

from .row import Argument, Row, Section, Signature

MAX = Signature(
    ("MaxPool2d", "MaxPooling2D", "max_pool", "MaxPool", "MaxPool"),
    (
        Argument("kernel_size", "pool_size=(2, 2)", "window_shape", "kernel_shape", "window"),
        Argument("stride=None", "strides=None", "strides=None", "strides", "stride=None"),
        Argument("padding=0", "padding='valid'", "padding='VALID'", "pads", "padding='VALID'"),
        Argument("dilation=1", "", "", "dilations", "dilation=1"),
        Argument("ceil_mode=False", "", "", "ceil_mode=0", "ceil_mode=False"),
    ),
)
AVERAGE = Signature(
    ("AvgPool2d", "AveragePooling2D", "avg_pool", "AveragePool", "AvgPool"),
    (
        Argument("count_include_pad=True", "", "count_include_pad=True", "count_include_pad=0", "count_padding=False"),
        Argument("divisor_override=None", "", "", "", "divisor=None"),
    ),
)

ROWS = (
    Row(
        "pool-stride-window",
        "stride, by default",
        {"PyTorch": "MaxPool2d(3)", "Keras": "MaxPooling2D(3)"},
        "The window size, as in fcnn.",
        "MaxPool(3)",
    ),
    Row(
        "pool-stride-one",
        "stride, by default",
        {"Flax": "max_pool(x, (3, 3))", "ONNX": "MaxPool(kernel_shape=[3, 3])"},
        "1, not the window size.",
        "MaxPool(3, stride=1)",
        ("MaxPool(3)",),
    ),
    Row(
        "pool-max-same",
        "same, stride 2",
        {
            "Keras": 'MaxPooling2D(3, strides=2, padding="same")',
            "Flax": 'max_pool(x, (3, 3), strides=(2, 2), padding="SAME")',
            "ONNX": 'MaxPool(kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")',
        },
        "The odd sample of padding is at the end.",
        'MaxPool(3, stride=2, padding="SAME")',
        ("MaxPool(3, stride=2, padding=1)",),
    ),
    Row(
        "pool-max-padding",
        "value of the padding of a maximum",
        {
            "PyTorch": "MaxPool2d(3, stride=2, padding=1)",
            "Flax": "max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))",
            "ONNX": "MaxPool(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])",
        },
        "Minus infinity. The zeros of a padding layer would be larger than negative values.",
        "MaxPool(3, stride=2, padding=1)",
        ("serial(Pad(1), MaxPool(3, stride=2))", 'MaxPool(3, stride=2, padding="SAME")'),
    ),
    Row(
        "pool-max-dilation",
        "dilation",
        {
            "PyTorch": "MaxPool2d(3, stride=1, dilation=2)",
            "ONNX": "MaxPool(kernel_shape=[3, 3], strides=[1, 1], dilations=[2, 2])",
        },
        "The distance between the samples of a window. Keras and Flax have no such option.",
        "MaxPool(3, stride=1, dilation=2)",
        ("MaxPool(3, stride=2)",),
    ),
    Row(
        "pool-average-counted",
        "padding counts in the mean",
        {
            "PyTorch": "AvgPool2d(3, stride=2, padding=1)",
            "Flax": "avg_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))",
            "ONNX": "AveragePool(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)",
        },
        "At the border, too, the sum is divided by 9.",
        "AvgPool(3, stride=2, padding=1, count_padding=True)",
        ("AvgPool(3, stride=2, padding=1)",),
    ),
    Row(
        "pool-average-same-counted",
        "padding counts in the mean, same",
        {"Flax": 'avg_pool(x, (3, 3), strides=(2, 2), padding="SAME")'},
        "Flax counts the padding of SAME, too.",
        'AvgPool(3, stride=2, padding="SAME", count_padding=True)',
        ('AvgPool(3, stride=2, padding="SAME")',),
    ),
    Row(
        "pool-average-data",
        "padding does not count in the mean",
        {
            "Keras": 'AveragePooling2D(3, strides=2, padding="same")',
            "Flax": 'avg_pool(x, (3, 3), strides=(2, 2), padding="SAME", count_include_pad=False)',
            "ONNX": 'AveragePool(kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")',
        },
        "The sum is divided by the number of samples within the data.",
        'AvgPool(3, stride=2, padding="SAME")',
        ('AvgPool(3, stride=2, padding="SAME", count_padding=True)',),
    ),
    Row(
        "pool-ceil",
        "ceil_mode",
        {
            "PyTorch": "MaxPool2d(3, stride=2, ceil_mode=True)",
            "ONNX": "MaxPool(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)",
        },
        "Include a last window that starts in the data and ends past it. Keras and Flax have no such option.",
        "MaxPool(3, stride=2, ceil_mode=True)",
        ("MaxPool(3, stride=2)",),
    ),
    Row(
        "pool-ceil-average",
        "ceil_mode in the mean",
        {"PyTorch": "AvgPool2d(3, stride=2, padding=1, ceil_mode=True)"},
        "Padding counts; samples that ceil_mode adds past it do not.",
        "AvgPool(3, stride=2, padding=1, ceil_mode=True, count_padding=True)",
        ("AvgPool(3, stride=2, padding=1, ceil_mode=True)", "AvgPool(3, stride=2, padding=1, count_padding=True)"),
    ),
    Row(
        "pool-ceil-average-onnx",
        "ceil_mode in the mean",
        {"ONNX": "AveragePool(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)"},
        "Samples that ceil_mode adds do not count.",
        "AvgPool(3, stride=2, ceil_mode=True)",
        ("AvgPool(3, stride=2)", "AvgPool(3, stride=2, ceil_mode=True, divisor=9)"),
    ),
    Row(
        "pool-divisor",
        "divisor_override",
        {"PyTorch": "AvgPool2d(3, stride=2, padding=1, divisor_override=4)"},
        "One divisor for all windows.",
        "AvgPool(3, stride=2, padding=1, divisor=4)",
        ("AvgPool(3, stride=2, padding=1)",),
    ),
    Row(
        "pool-global-flat",
        "global pool without space axes",
        {"Keras": "GlobalAveragePooling2D()"},
        "Output (batch, channels).",
        "GlobalAvgPool()",
        ("AdaptiveAvgPool(1)",),
    ),
    Row(
        "pool-global-kept",
        "global pool with space axes",
        {
            "PyTorch": "AdaptiveAvgPool2d(1)",
            "Keras": "GlobalAveragePooling2D(keepdims=True)",
            "ONNX": "GlobalAveragePool()",
        },
        "Output of 1 x 1 samples.",
        "AdaptiveAvgPool(1)",
        ("GlobalAvgPool()",),
    ),
    Row(
        "pool-adaptive",
        "cells of an adaptive pool",
        {"PyTorch": "AdaptiveAvgPool2d((3, 2))", "Keras": "AdaptiveAveragePooling2D((3, 2))"},
        "Cell i of m extends from floor(i n / m) to ceil((i + 1) n / m); cells may overlap.",
        "AdaptiveAvgPool((3, 2))",
        ("AvgPool((2, 3))",),
    ),
    Row(
        "pool-adaptive-maximum",
        "cells of an adaptive pool",
        {"PyTorch": "AdaptiveMaxPool2d((3, 2))", "Keras": "AdaptiveMaxPooling2D((3, 2))"},
        "The same cells.",
        "AdaptiveMaxPool((3, 2))",
        ("MaxPool((2, 3))",),
    ),
    Row(
        "pool-lp-positive",
        "p-norm",
        {"PyTorch": "LPPool2d(3, 2)", "ONNX": "LpPool(kernel_shape=[2, 2], strides=[2, 2], p=3)"},
        "In PyTorch p is the first argument. All agree for positive values.",
        "LpPool(2, power=3)",
        ("LpPool(3, power=2)",),
        positive=True,
    ),
    Row(
        "pool-lp-negative",
        "p-norm of negative values, odd p",
        {"PyTorch": "LPPool2d(3, 2)"},
        "The power of x, not of abs(x): NaN where the sum is negative.",
        "lambda x: ops.avg_pool(x**3, 2, divisor=1) ** (1 / 3)",
        ("LpPool(2, power=3)",),
    ),
    Row(
        "pool-lp-onnx",
        "p-norm of negative values, odd p",
        {"ONNX": "LpPool(kernel_shape=[2, 2], strides=[2, 2], p=3)"},
        "The power of abs(x), as in fcnn.",
        "LpPool(2, power=3)",
        ("lambda x: ops.avg_pool(x**3, 2, divisor=1) ** (1 / 3)",),
    ),
    Row(
        "pool-lp-ceil",
        "p-norm, ceil_mode",
        {"PyTorch": "LPPool2d(2, 3, stride=2, ceil_mode=True)"},
        "Partial windows are scaled up to full ones.",
        "lambda x: (9 * ops.avg_pool(x**2, 3, stride=2, ceil_mode=True)) ** 0.5",
        ("LpPool(3, stride=2, ceil_mode=True)",),
    ),
)

POOLING = Section(
    "Pooling",
    "The layers' default stride is the window size; Flax's functions and ONNX have 1.",
    ROWS,
    (MAX, AVERAGE),
)
