"""Rows of the page about dense layers, flattening, dropout and resizing."""

from .row import Argument, Row, Section, Signature

DENSE_SIGNATURE = Signature(
    ("Linear", "Dense", "Dense", "Gemm", "Dense"),
    (
        Argument("out_features", "units", "features", "", "features"),
        Argument("bias=True", "use_bias=True", "use_bias=True", "", "bias=True"),
    ),
)
DROPOUT = Signature(
    ("Dropout", "Dropout", "Dropout", "Dropout", "Dropout"),
    (
        Argument("p=0.5", "rate", "rate", "ratio", "rate"),
        Argument("", "noise_shape=None", "broadcast_dims=()", "", "whole_channels=False"),
    ),
)

_AFTER_FLATTEN = "weight1.reshape(5, 4, 8, 7).transpose(2, 3, 1, 0).reshape(-1, 5)"

DENSE_ROWS = (
    Row(
        "dense-axes",
        "axes of the matrix",
        {"PyTorch": "Linear(4, 4)", "ONNX": "Gemm(B=[4, 4], C=[4], transB=1)"},
        "(features, channels). Keras, Flax and fcnn have (channels, features).",
        "Dense(4)",
        shape=(3, 4),
        weights_unlike={"PyTorch": {"kernel": "weight"}, "ONNX": {"kernel": "B"}},
    ),
    Row(
        "dense-gemm",
        "transB=0",
        {"ONNX": "Gemm(B=[4, 4], C=[4])", "Keras": "Dense(4)", "Flax": "Dense(4)"},
        "(channels, features), as in fcnn.",
        "Dense(4)",
        shape=(3, 4),
        weights={"ONNX": {"kernel": "B"}},
        weights_unlike={"ONNX": {"kernel": "B.T"}},
    ),
    Row(
        "dense-on-images",
        "on images",
        {"Keras": "Dense(6)", "Flax": "Dense(6)", "PyTorch": "Conv2d(4, 6, 1)"},
        "The same matrix at every position. PyTorch's Linear acts on the last axis, the width.",
        "Dense(6)",
        weights={"PyTorch": {"kernel": "weight[:, :, 0, 0].T"}},
    ),
    Row(
        "flatten-torch",
        "order after a flatten",
        {"PyTorch": "Sequential(Flatten(), Linear(224, 5))"},
        "Channels vary slowest, in fcnn fastest. The rows of the first matrix are in another order.",
        "serial(Flatten(), Dense(5))",
        weights={"PyTorch": {"dense1/kernel": _AFTER_FLATTEN, "dense1/bias": "bias1"}},
        weights_unlike={"PyTorch": {"dense1/kernel": "weight1.T"}},
    ),
    Row(
        "flatten-onnx",
        "order after a flatten",
        {"ONNX": "Flatten()"},
        "Channels vary slowest.",
        "serial(lambda x: jnp.moveaxis(x, -1, 1), Flatten())",
        ("Flatten()",),
    ),
    Row(
        "flatten-keras",
        "order after a flatten",
        {"Keras": "Flatten()", "Flax": "x.reshape(x.shape[0], -1)"},
        "Channels vary fastest, as in fcnn.",
        "Flatten()",
        ("serial(lambda x: jnp.moveaxis(x, -1, 1), Flatten())",),
    ),
    Row(
        "dropout-rate",
        "rate",
        {"PyTorch": "Dropout(0.2)", "Keras": "Dropout(0.2)", "Flax": "Dropout(0.2)"},
        "The fraction that is dropped; the rest is divided by 0.8.",
        "Dropout(0.2)",
        ("Dropout(0.8)",),
        shape=(64, 16, 16, 8),
        mode="dropout",
    ),
    Row(
        "dropout-channels",
        "whole channels",
        {
            "PyTorch": "Dropout2d(0.2)",
            "Keras": "SpatialDropout2D(0.2)",
            "Flax": "Dropout(0.2, broadcast_dims=(1, 2))",
        },
        "A channel is dropped at all positions of an example.",
        "Dropout(0.2, whole_channels=True)",
        ("Dropout(0.2)",),
        shape=(2048, 2, 2, 16),
        mode="dropout",
    ),
    Row(
        "dropout-examples",
        "whole examples",
        {"Flax": "Dropout(0.2, broadcast_dims=(1, 2, 3))", "Keras": "Dropout(0.2, noise_shape=(None, 1, 1, 1))"},
        "An example is dropped as a whole: stochastic depth.",
        "StochasticDepth(0.2)",
        ("Dropout(0.2, whole_channels=True)",),
        shape=(32768, 2, 2, 2),
        mode="dropout",
    ),
    Row(
        "dropout-onnx",
        "in an ONNX file",
        {"ONNX": "Dropout(ratio=0.2)"},
        "Does nothing unless training_mode is true.",
        "Dropout(0.2)",
    ),
)

RESIZE_ROWS = (
    Row(
        "upsample",
        "method, by default",
        {"PyTorch": "Upsample(scale_factor=2)", "Keras": "UpSampling2D(2)"},
        "The nearest sample. fcnn's default is linear.",
        'Resize(scale=2, method="nearest")',
        ("Resize(scale=2)",),
    ),
    Row(
        "resize-linear",
        "linear",
        {
            "PyTorch": 'Upsample(scale_factor=2, mode="bilinear")',
            "Keras": 'UpSampling2D(2, interpolation="bilinear")',
            "ONNX": 'Resize(scales=[1, 1, 2, 2], mode="linear")',
            "Flax": 'jax.image.resize(x, (2, 16, 14, 4), "linear")',
        },
        "Samples are at the centres of pixels (half_pixel).",
        "Resize(scale=2)",
        ("Resize(scale=2, align_corners=True)",),
    ),
    Row(
        "resize-aligned",
        "align_corners",
        {
            "PyTorch": 'Upsample(scale_factor=2, mode="bilinear", align_corners=True)',
            "ONNX": 'Resize(scales=[1, 1, 2, 2], mode="linear", coordinate_transformation_mode="align_corners")',
        },
        "The first and last samples keep their places.",
        "Resize(scale=2, align_corners=True)",
        ("Resize(scale=2)",),
    ),
    Row(
        "resize-down",
        "smaller, linear",
        {
            "PyTorch": 'Upsample((4, 3), mode="bilinear")',
            "Keras": "Resizing(4, 3)",
            "ONNX": 'Resize(sizes=[2, 4, 4, 3], mode="linear")',
        },
        "Two samples along each axis, without a low-pass filter.",
        "Resize((4, 3))",
        ('Resize((4, 3), convention="jax")', "Resize((4, 3), antialias=True)"),
    ),
    Row(
        "resize-down-jax",
        "smaller, linear",
        {"Flax": 'jax.image.resize(x, (2, 4, 3, 4), "linear")', "Keras": "Resizing(4, 3, antialias=True)"},
        "All samples that an output covers; antialias is on by default in jax.image.",
        'Resize((4, 3), convention="jax")',
        ("Resize((4, 3))",),
    ),
    Row(
        "resize-nearest-down",
        "smaller, nearest",
        {
            "PyTorch": 'Upsample((3, 3), mode="nearest")',
            "ONNX": 'Resize(sizes=[2, 4, 3, 3], coordinate_transformation_mode="asymmetric", nearest_mode="floor")',
        },
        "Sample floor(i n / m), which is not always the nearest.",
        'Resize((3, 3), method="nearest")',
        ('Resize((3, 3), method="nearest_exact")',),
    ),
    Row(
        "resize-nearest-exact",
        "smaller, nearest",
        {
            "PyTorch": 'Upsample((3, 3), mode="nearest-exact")',
            "Flax": 'jax.image.resize(x, (2, 3, 3, 4), "nearest")',
            "ONNX": "Resize(sizes=[2, 4, 3, 3])",
        },
        "Sample floor((i + 1/2) n / m).",
        'Resize((3, 3), method="nearest_exact")',
        ('Resize((3, 3), method="nearest")',),
        shape=(2, 7, 7, 4),
    ),
    Row(
        "resize-nearest-halved",
        "half the size, nearest",
        {"ONNX": "Resize(scales=[1, 1, 0.5, 0.5])", "PyTorch": 'Upsample(scale_factor=0.5, mode="nearest")'},
        "Two samples are equally near; ONNX's default takes the first.",
        'Resize(scale=0.5, method="nearest")',
        ('Resize(scale=0.5, method="nearest_exact")',),
    ),
    Row(
        "resize-cubic",
        "cubic",
        {
            "PyTorch": 'Upsample(scale_factor=2, mode="bicubic")',
            "ONNX": 'Resize(scales=[1, 1, 2, 2], mode="cubic")',
        },
        "Keys' kernel with a = -0.75; the border samples are repeated.",
        'Resize(scale=2, method="cubic")',
        ('Resize(scale=2, method="cubic", convention="jax")',),
    ),
    Row(
        "resize-cubic-jax",
        "cubic",
        {
            "Flax": 'jax.image.resize(x, (2, 16, 14, 4), "cubic")',
            "Keras": 'Resizing(16, 14, interpolation="bicubic")',
        },
        "a = -0.5; samples past the border are left out.",
        'Resize(scale=2, method="cubic", convention="jax")',
        ('Resize(scale=2, method="cubic")',),
    ),
    Row(
        "shuffle-torch",
        "order of channels",
        {"PyTorch": "PixelShuffle(2)", "ONNX": 'DepthToSpace(blocksize=2, mode="CRD")'},
        "The output channel is the outer index.",
        "PixelShuffle(2)",
        ('PixelShuffle(2, order="DCR")',),
        shape=(2, 4, 3, 8),
    ),
    Row(
        "shuffle-onnx",
        "order of channels",
        {"ONNX": "DepthToSpace(blocksize=2)"},
        "The output channel is the inner index, as in TensorFlow.",
        'PixelShuffle(2, order="DCR")',
        ("PixelShuffle(2)",),
        shape=(2, 4, 3, 8),
    ),
)

DENSE = Section(
    "Dense layers, flattening and dropout",
    "",
    DENSE_ROWS,
    (DENSE_SIGNATURE, DROPOUT),
)
RESIZE = Section("Resizing", "Flax has no layer that resizes; jax.image.resize is the usual function.", RESIZE_ROWS)
ROWS = DENSE_ROWS + RESIZE_ROWS
