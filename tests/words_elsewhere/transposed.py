"""Rows of the page about transposed convolution."""

from .row import Argument, Row, Section, Signature

SIGNATURE = Signature(
    ("ConvTranspose2d", "Conv2DTranspose", "ConvTranspose", "ConvTranspose", "ConvTranspose"),
    (
        Argument("stride=1", "strides=(1, 1)", "strides=None", "strides", "stride=1"),
        Argument("padding=0", "padding='valid'", "padding='SAME'", "pads", "padding='VALID'"),
        Argument("output_padding=0", "output_padding=None", "", "output_padding", "output_padding=0"),
        Argument("", "", "", "output_shape", "out=None"),
        Argument("dilation=1", "dilation_rate=(1, 1)", "kernel_dilation=None", "dilations", "dilation=1"),
        Argument("groups=1", "", "", "group=1", "groups=1"),
        Argument("", "", "transpose_kernel=False", "", ""),
    ),
)

ROWS = (
    Row(
        "transposed-padding",
        "padding, output_padding",
        {
            "PyTorch": "ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1)",
            "ONNX": "ConvTranspose(W=[4, 6, 3, 3], B=[6], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])",
        },
        "padding crops both ends of the result; output_padding crops less at the end. The size is that of SAME, but "
        "the result is shifted by a sample.",
        "ConvTranspose(6, 3, stride=2, padding=1, output_padding=1)",
        ('ConvTranspose(6, 3, stride=2, padding="SAME")',),
    ),
    Row(
        "transposed-same",
        "same",
        {
            "Keras": 'Conv2DTranspose(6, 3, strides=2, padding="same")',
            "Flax": "ConvTranspose(6, (3, 3), strides=(2, 2))",
            "ONNX": 'ConvTranspose(W=[4, 6, 3, 3], B=[6], strides=[2, 2], auto_pad="SAME_UPPER")',
        },
        "n stride outputs; the odd sample is cropped at the end.",
        'ConvTranspose(6, 3, stride=2, padding="SAME")',
        ("ConvTranspose(6, 3, stride=2, padding=1, output_padding=1)",),
    ),
    Row(
        "transposed-same-lower",
        "same, the odd sample before",
        {"ONNX": 'ConvTranspose(W=[4, 6, 3, 3], B=[6], strides=[2, 2], auto_pad="SAME_LOWER")'},
        "n stride outputs; the odd sample is cropped at the beginning.",
        'ConvTranspose(6, 3, stride=2, padding="SAME_LOWER")',
        ('ConvTranspose(6, 3, stride=2, padding="SAME")',),
    ),
    Row(
        "transposed-same-kernel-4",
        "same, kernel 4",
        {
            "PyTorch": "ConvTranspose2d(4, 6, 4, stride=2, padding=1)",
            "Keras": 'Conv2DTranspose(6, 4, strides=2, padding="same")',
            "Flax": "ConvTranspose(6, (4, 4), strides=(2, 2))",
        },
        "All agree if kernel - stride is even.",
        'ConvTranspose(6, 4, stride=2, padding="SAME")',
    ),
    Row(
        "transposed-valid-small-kernel",
        "valid, stride above the kernel",
        {
            "Keras": 'Conv2DTranspose(6, 2, strides=3, padding="valid")',
            "Flax": 'ConvTranspose(6, (2, 2), strides=(3, 3), padding="VALID")',
        },
        "n stride outputs: the gap after the last kernel belongs to the result. In PyTorch and fcnn it does not.",
        "ConvTranspose(6, 2, stride=3, output_padding=1)",
        ("ConvTranspose(6, 2, stride=3)",),
    ),
    Row(
        "transposed-keras-output-padding",
        "output_padding with same",
        {"Keras": 'Conv2DTranspose(6, 3, strides=2, padding="same", output_padding=0)'},
        'With output_padding, "same" crops half of the kernel at both ends, as padding=1 does in PyTorch.',
        "ConvTranspose(6, 3, stride=2, padding=1)",
        (
            "ConvTranspose(6, 3, stride=2, padding=((0, 2), (0, 2)))",
            "ConvTranspose(6, 3, stride=2, padding=((2, 0), (2, 0)))",
        ),
    ),
    Row(
        "transposed-flax-padding",
        "padding in numbers",
        {"Flax": "ConvTranspose(6, (4, 4), strides=(2, 2), padding=1)"},
        "Zeros added around the dilated input, so kernel - 1 - padding samples of the full result are cropped.",
        "ConvTranspose(6, 4, stride=2, padding=2)",
        ("ConvTranspose(6, 4, stride=2, padding=1)",),
    ),
    Row(
        "transposed-flip",
        "axes of the kernel, reversed or not",
        {"Flax": "ConvTranspose(6, (3, 3), strides=(2, 2))"},
        "Flax correlates the dilated input with the kernel. Relative to PyTorch, Keras and fcnn it is reversed.",
        'ConvTranspose(6, 3, stride=2, padding="SAME")',
        weights={"Flax": {"kernel": "kernel[::-1, ::-1]"}},
        weights_unlike={"Flax": {"kernel": "kernel"}},
    ),
    Row(
        "transposed-kernel",
        "transpose_kernel",
        {"Flax": "ConvTranspose(6, (3, 3), strides=(2, 2), transpose_kernel=True)"},
        "The kernel of the convolution that is transposed: (height, width, features, channels), not reversed.",
        'ConvTranspose(6, 3, stride=2, padding="SAME")',
        weights={"Flax": {"kernel": "kernel.transpose(0, 1, 3, 2)"}},
        weights_unlike={"Flax": {"kernel": "kernel[::-1, ::-1].transpose(0, 1, 3, 2)"}},
    ),
    Row(
        "transposed-axes",
        "axes of the kernel",
        {"Keras": "Conv2DTranspose(6, 3, strides=2)"},
        "(height, width, features, channels), not reversed.",
        "ConvTranspose(6, 3, stride=2)",
        weights={"Keras": {"kernel": "kernel.transpose(0, 1, 3, 2)"}},
        weights_unlike={"Keras": {"kernel": "kernel[::-1, ::-1].transpose(0, 1, 3, 2)"}},
    ),
    Row(
        "transposed-groups",
        "axes of the kernel, groups",
        {"PyTorch": "ConvTranspose2d(4, 6, 3, stride=2, groups=2)"},
        "(channels, features / groups, height, width): groups are stacked along the channels, in fcnn along the "
        "features.",
        "ConvTranspose(6, 3, stride=2, groups=2)",
        weights={"PyTorch": {"kernel": "np.concatenate(np.split(weight, 2), 1).transpose(2, 3, 0, 1)"}},
        weights_unlike={"PyTorch": {"kernel": "weight.reshape(2, 6, 3, 3).transpose(2, 3, 0, 1)"}},
    ),
    Row(
        "transposed-output-shape",
        "the size of the output",
        {"ONNX": "ConvTranspose(W=[4, 6, 3, 3], B=[6], strides=[2, 2], output_shape=[16, 15])"},
        "Half of the excess is cropped at either end, the odd sample at the beginning (unless auto_pad is SAME_UPPER).",
        "ConvTranspose(6, 3, stride=2, padding=((1, 0), (0, 0)))",
        ("ConvTranspose(6, 3, stride=2, out=(17, 15))", "ConvTranspose(6, 3, stride=2, padding=((0, 1), (0, 0)))"),
    ),
    Row(
        "transposed-circular",
        "circular",
        {"Flax": 'ConvTranspose(6, (4, 4), strides=(2, 2), padding="CIRCULAR")'},
        "Samples that would be cropped are added at the other end.",
        'ConvTranspose(6, 4, stride=2, padding="CIRCULAR")',
        ('ConvTranspose(6, 4, stride=2, padding="SAME")',),
    ),
)

TRANSPOSED = Section(
    "Transposed convolution",
    "The libraries differ in how they crop the full result and in the axes of the kernel.",
    ROWS,
    (SIGNATURE,),
)
