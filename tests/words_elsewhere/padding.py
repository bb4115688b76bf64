"""Rows of the page about layers that pad and crop."""

from .row import Row, Section

ROWS = (
    Row(
        "pad-order",
        "order of the numbers",
        {"PyTorch": "F.pad(x, (1, 2, 3, 0), value=0.5)"},
        "(left, right, top, bottom): the last axis is first.",
        "Pad(((3, 0), (1, 2)), value=0.5)",
        ("Pad(((1, 2), (3, 0)), value=0.5)",),
    ),
    Row(
        "pad-onnx",
        "order of the numbers",
        {"ONNX": "Pad(pads=[0, 0, 3, 1, 0, 0, 0, 2], constant_value=0.5)"},
        "All axes, including batch and channels: all numbers before them, then all numbers after them.",
        "Pad(((3, 0), (1, 2)), value=0.5)",
        ("Pad(((3, 1), (0, 2)), value=0.5)",),
    ),
    Row(
        "pad-keras",
        "one number for each axis",
        {"Keras": "ZeroPadding2D((1, 2))", "PyTorch": "ZeroPad2d((2, 2, 1, 1))"},
        "The same number before and after.",
        "Pad(((1, 1), (2, 2)))",
        ("Pad(((1, 2), (1, 2)))",),
    ),
    Row(
        "pad-keras-pairs",
        "pairs",
        {"Keras": "ZeroPadding2D(((3, 0), (1, 2)))"},
        "((top, bottom), (left, right)), as in fcnn.",
        "Pad(((3, 0), (1, 2)))",
    ),
    Row(
        "pad-reflect",
        "mirrored, border not repeated",
        {
            "PyTorch": "ReflectionPad2d(2)",
            "Keras": 'ops.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")',
            "ONNX": 'Pad(pads=[0, 0, 2, 2, 0, 0, 2, 2], mode="reflect")',
        },
        "3 2 | 1 2 3",
        'Pad(("REFLECT", 2))',
        ('Pad(("EDGE", 2))',),
    ),
    Row(
        "pad-symmetric",
        "mirrored, border repeated",
        {"Keras": 'ops.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="symmetric")'},
        "2 1 | 1 2 3. fcnn has no mode for this; a function is a layer.",
        'lambda x: jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="symmetric")',
        ('Pad(("REFLECT", 2))',),
    ),
    Row(
        "pad-edge",
        "replicate, edge",
        {"PyTorch": "ReplicationPad2d(2)", "ONNX": 'Pad(pads=[0, 0, 2, 2, 0, 0, 2, 2], mode="edge")'},
        "1 1 | 1 2 3",
        'Pad(("EDGE", 2))',
        ('Pad(("REFLECT", 2))',),
    ),
    Row(
        "pad-circular",
        "circular, wrap",
        {"PyTorch": "CircularPad2d(2)", "ONNX": 'Pad(pads=[0, 0, 2, 2, 0, 0, 2, 2], mode="wrap")'},
        "2 3 | 1 2 3",
        'Pad(("CIRCULAR", 2))',
        ("Pad(2)",),
    ),
    Row(
        "pad-negative",
        "negative numbers",
        {"PyTorch": "ZeroPad2d((-1, 0, 0, -2))"},
        "Negative numbers crop.",
        "Crop(((0, 2), (1, 0)))",
        ("Crop(((1, 0), (0, 2)))",),
    ),
    Row(
        "crop-keras",
        "cropping",
        {"Keras": "Cropping2D(((1, 2), (0, 1)))"},
        "((top, bottom), (left, right)), as in fcnn.",
        "Crop(((1, 2), (0, 1)))",
    ),
    Row(
        "crop-centre",
        "centre",
        {"Keras": "CenterCrop(5, 4)"},
        "The odd sample is cropped at the end: 5 of 8 samples are kept from sample 1 on.",
        "Crop(size=(5, 4))",
        ("Crop(((2, 1), (2, 1)))",),
    ),
)

PADDING = Section(
    "Padding and cropping",
    "Layers that only pad or crop; the padding of convolutions and pools is above.",
    ROWS,
)
