"""Names that other libraries use, and what to write here instead."""

from __future__ import annotations

from typing import Any

_MODE = "there is no mode to set: net.apply_train(params, x, key=key, state=state) trains, net.apply(params, x) infers"
_PARAMS = "a network holds no arrays: net.init(key, shape) returns params, a dict that you print, change and save"
_LOSS = "losses are functions of optax.losses: fcnn.fit(..., loss=optax.losses.squared_error); the default is softmax "
_LOSS += "cross-entropy with integer labels"
_FUNCTION = "any function of one array is a layer, without parentheses:"
_OPTIMIZER = "optimizers are those of optax: optax.adam(1e-3)"
_PAD = 'write fcnn.Pad(1), fcnn.Pad(("REFLECT", 1)), or the padding of the layer that follows'


def _spread(table: dict[str, str]) -> dict[str, str]:
    return {name: text for names, text in table.items() for name in names.split()}


def _with_ranks(stem: str) -> str:
    return " ".join(f"{stem}{rank}{letter}" for rank in "123" for letter in "dD")


#: names of classes, functions and modules
_NAMES = _spread(
    {
        _with_ranks("Conv")
        + " "
        + _with_ranks("LazyConv")
        + " Convolution2D": "write fcnn.Conv(features, kernel); the "
        "input channels and the number of dimensions come from the shape given to init",
        _with_ranks("ConvTranspose") + " Conv1DTranspose Conv2DTranspose Conv3DTranspose Deconv": "write "
        "fcnn.ConvTranspose(features, kernel)",
        _with_ranks("LocallyConnected") + " ConvLocal": "write fcnn.LocallyConnected(features, kernel)",
        "DepthwiseConv1D DepthwiseConv2D": "write fcnn.Conv(channels, kernel, groups=channels)",
        "SeparableConv1D SeparableConv2D": "write fcnn.serial(fcnn.Conv(channels, kernel, groups=channels), "
        "fcnn.Conv(features, 1))",
        "Linear LazyLinear DenseGeneral FullyConnected": "write fcnn.Dense(features); the number of inputs comes from "
        "the shape given to init",
        _with_ranks("MaxPool") + " MaxPooling1D MaxPooling2D MaxPooling3D max_pool": "write fcnn.MaxPool(window), or "
        "fcnn.ops.max_pool(x, window) for an array",
        _with_ranks("AvgPool") + " AveragePooling1D AveragePooling2D AveragePooling3D avg_pool": "write "
        "fcnn.AvgPool(window); PyTorch counts the padding, count_padding=True",
        _with_ranks("LPPool"): "write fcnn.LpPool(window, power=p)",
        _with_ranks("AdaptiveAvgPool") + " AdaptiveAveragePooling2D": "write fcnn.AdaptiveAvgPool(out)",
        _with_ranks("AdaptiveMaxPool"): "write fcnn.AdaptiveMaxPool(out)",
        " ".join(f"GlobalMax{pool}{n}D" for pool in ("Pool", "Pooling") for n in "123"): "write fcnn.GlobalMaxPool()",
        " ".join(f"Global{pool}{n}D" for pool in ("AvgPool", "AveragePooling") for n in "123"): "write "
        "fcnn.GlobalAvgPool()",
        _with_ranks("MaxUnpool"): "write fcnn.MaxUnpool(window) in a graph, or ops.max_unpool(y, indices, space)",
        _with_ranks("BatchNorm") + " SyncBatchNorm LazyBatchNorm2d": "write fcnn.BatchNorm(); its momentum is the "
        "share of the old value that is kept, 0.9 for PyTorch's 0.1",
        "BatchNormalization": "write fcnn.BatchNorm(); Keras's defaults are fcnn.BatchNorm(momentum=0.99, "
        "epsilon=1e-3, unbiased=False)",
        "LayerNormalization": "write fcnn.LayerNorm(); Keras's default is epsilon=1e-3",
        "LayerNorm2d": "write fcnn.LayerNorm(), which normalises over the channels",
        "GroupNormalization": "write fcnn.GroupNorm(groups); Keras's default is epsilon=1e-3",
        "RMSNorm RMSNormalization": "there is no such layer: write fcnn.serial(lambda x: x * "
        "jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6), fcnn.ScaleChannels(1.0))",
        _with_ranks("InstanceNorm") + " InstanceNormalization": "write fcnn.InstanceNorm()",
        "Dropout1d Dropout2d Dropout3d SpatialDropout1D SpatialDropout2D SpatialDropout3D": "write fcnn.Dropout(rate, "
        "whole_channels=True)",
        "Sequential Serial Chain Stack": "write fcnn.serial(layer, layer, name=layer)",
        "Module Model Net Block": "subclass fcnn.Layer as @dataclass(frozen=True), or wire layers by fcnn.graph",
        "FanOut FanInSum FanInConcat parallel Parallel Concatenate": "write fcnn.branches(layer, layer) or fcnn.graph",
        "Add Residual SkipConnection": "write fcnn.residual(body, shortcut)",
        "Embedding Embed": "there is no such layer yet: write one whose parameters are a table, fcnn.Parameter((count, "
        "features), jax.nn.initializers.normal()), and whose forward indexes it",
        "LSTM LSTMCell GRU GRUCell RNN SimpleRNN": "there is no recurrent layer yet: write a layer of your own around "
        "jax.lax.scan",
        "MultiheadAttention MultiHeadAttention MultiHeadDotProductAttention": "there is no such layer yet: write one "
        "of your own around jax.nn.dot_product_attention",
        "Reshape Permute Lambda": f"{_FUNCTION} lambda x: x.reshape(...)",
        "Identity identity": f"{_FUNCTION} lambda x: x",
        " ".join(_with_ranks(f"{kind}Pad") for kind in ("Zero", "Constant", "Reflection", "Replication", "Circular"))
        + " ZeroPadding1D ZeroPadding2D ZeroPadding3D pad": _PAD,
        "CenterCrop Cropping1D Cropping2D Cropping3D": "write fcnn.Crop(amount) or fcnn.Crop(size=size)",
        "Upsample UpsamplingNearest2d UpsamplingBilinear2d UpSampling1D UpSampling2D UpSampling3D Resizing interpolate "
        "resize": 'write fcnn.Resize(size) or fcnn.Resize(scale=2), with method="nearest" (the default of Upsample), '
        '"linear" or "cubic"',
        "CrossEntropyLoss MSELoss BCELoss BCEWithLogitsLoss L1Loss NLLLoss losses": _LOSS,
        "Adam AdamW SGD RMSprop Adagrad optim optimizers Optimizer": _OPTIMIZER,
        "Trainer train": "write fcnn.fit(net, (x, y), optimizer=optax.adam(1e-3), epochs=10, key=jax.random.key(0))",
        "DataLoader Dataset": "fcnn.fit takes arrays, and loaders of PyTorch and Grain as they are",
        "Tensor tensor": "arrays are those of JAX and NumPy: jax.numpy.asarray(x)",
        "no_grad": "nothing is recorded: gradients are computed where jax.grad asks for them",
        "save load save_weights load_weights": "write fcnn.interop.save_weights(path, params) and load_weights(path)",
        "jit grad vmap value_and_grad": "transformations are those of JAX: jax.jit, jax.grad, jax.vmap",
        "functional F": "the operations on plain arrays are in fcnn.ops",
        "nn layers_": "layers are at the top level: fcnn.Conv, fcnn.Dense",
        "Input InputLayer": "there is no input layer: give the shape of one example to net.init(key, shape)",
        "checkpoint": "write fcnn.remat(layer)",
        "param Variable variable": "a layer declares its arrays in parameters(self, shape), as "
        "fcnn.Parameter(shape, init)",
        "transform": "fcnn.serial and fcnn.graph give networks that are pure functions already",
        "init apply": "init and apply are methods of a network: net.init(key, shape), net.apply(params, x)",
        "LayerScale layer_scale": "write fcnn.ScaleChannels(initial)",
        "PixelShuffle3d DepthToSpace depth_to_space": 'write fcnn.PixelShuffle(factor), with order="DCR" for '
        "TensorFlow's depth_to_space",
        "SpaceToDepth space_to_depth": 'write fcnn.PixelUnshuffle(factor), with order="DCR" for TensorFlow\'s',
        "DropPath drop_path stochastic_depth": "write fcnn.StochasticDepth(rate), last in the body of a residual",
        "LRN": "write fcnn.LocalResponseNorm(size=n, alpha=a / n, k=1) for the alpha a of ONNX and PyTorch",
        "GELU Gelu": "write lambda x: jax.nn.gelu(x, approximate=False); without it jax.nn.gelu is the approximation "
        "with tanh",
        "LeakyReLU LeakyRelu": "write jax.nn.leaky_relu, with slope 0.01, or for Keras's default "
        "lambda x: jax.nn.leaky_relu(x, 0.3)",
    }
)
#: names of activations, and the function in jax.nn
_ACTIVATIONS = {
    **_spread(
        {
            "ReLU Relu": "relu", "ReLU6 Relu6": "relu6", "SiLU Swish Silu": "silu",
            "Sigmoid": "sigmoid", "Tanh": "tanh", "Softmax": "softmax", "LogSoftmax": "log_softmax", "ELU Elu": "elu",
            "SELU Selu": "selu", "CELU": "celu", "Softplus": "softplus",
            "Hardtanh HardTanh": "hard_tanh", "Hardswish": "hard_swish", "Hardsigmoid": "hard_sigmoid", "Mish": "mish",
            "Softsign": "soft_sign", "GLU": "glu", "LogSigmoid": "log_sigmoid",
        }
    ),
    **_spread({"relu": "relu", "gelu": "gelu", "silu": "silu", "sigmoid": "sigmoid", "tanh": "tanh", "elu": "elu"}),
}  # fmt: skip
#: methods and attributes of a network
_METHODS = _spread(
    {
        "train eval training": _MODE,
        "predict predict_on_batch call": "write net.apply(params, x, state=state)",
        "fit compile train_on_batch": "write fcnn.fit(net, (x, y), optimizer=optax.adam(1e-3), epochs=10, "
        "key=jax.random.key(0))",
        "evaluate": "write fcnn.evaluate(net, params, (x, y), state=state)",
        "summary tabulate": "write fcnn.summary(net, shape)",
        "state_dict get_weights weights trainable_variables variables named_parameters params kernel bias": _PARAMS,
        "load_state_dict set_weights": "a network holds no arrays: hand your params to net.apply(params, x)",
        "save save_weights load_weights": "write fcnn.interop.save_weights(path, params) and load_weights(path)",
        "to cuda cpu": "a network holds no arrays: jax.device_put(params, device)",
        "half double float bfloat16": "a network holds no arrays: jax.tree.map(lambda a: a.astype('bfloat16'), params)",
        "zero_grad backward grad": "write jax.grad(lambda params: loss(net.apply(params, x), y))(params)",
        "requires_grad_ requires_grad trainable freeze": "parameters that the optimizer does not get do not change; "
        "optax.masked and optax.multi_transform choose",
        "children modules layers named_children named_modules": "write net.parts, pairs of a name and a layer",
        "add append add_module": "networks are values: make a new one, fcnn.serial(*net, layer)",
        "get_layer": 'write net["name"]',
        "output_shape": "write net.out_shape(shape)",
        "count_params": "write fcnn.summary(net, shape), or sum(a.size for a in jax.tree.leaves(params))",
        "register_buffer buffers": "arrays that training data change are declared in statistics(self, shape)",
        "build": "write net.init(key, shape)",
        "clone": "networks are values and never change: use the same one again, or dataclasses.replace",
    }
)
#: hyperparameters, and the name of the field here; a text with a space is a complete piece of advice
_OPTIONS = {
    **_spread(
        {
            "kernel_size": "kernel", "out_channels filters units out_features output_channels": "features",
            "output_size": "out", "strides window_strides": "stride", "use_bias with_bias": "bias",
            "dilation_rate kernel_dilation rhs_dilation": "dilation", "feature_group_count num_groups": "groups",
            "pool_size window_shape": "window", "kernel_initializer w_init": "kernel_init",
            "bias_initializer b_init": "bias_init", "eps": "epsilon", "p drop_rate prob drop_prob": "rate",
            "norm_type": "power",
            "count_include_pad": "count_padding", "cropping": "amount", "scale_factor": "scale",
            "mode interpolation": "method",
            "upscale_factor downscale_factor block_size blocksize": "factor",
            "init_value init_values layer_scale_init_value": "initial", "decay decay_rate": "momentum",
        }
    ),
    **_spread(
        {
            "in_channels in_features num_features num_channels input_shape input_dim normalized_shape": "the number of "
            "inputs comes from the shape given to init",
            "activation act": "an activation is a layer of its own: fcnn.serial(layer, jax.nn.relu)",
            "padding_mode": 'write padding="CIRCULAR" or "REFLECT"',
            "num_parameters": "write per_channel=True for a slope of every channel",
            "data_format": "the layout is (batch, *space, channels)",
            "inplace": "nothing is changed in place",
            "return_indices": "jax.vjp of the pooling takes values back to where they came from",
            "affine use_scale elementwise_affine": "write scale=False and bias=False to have no parameters",
            "training train deterministic use_running_average": "the mode is the method: net.apply_train or net.apply",
            "dtype param_dtype device": "the dtype is that of params: jax.tree.map(lambda a: a.astype(dtype), params)",
            "name": "serial names its parts: fcnn.serial(name=layer)",
            "rngs key rng": "keys are given to init and apply_train",
        }
    ),
}  # fmt: skip


def name(asked: str) -> str | None:
    """What to write here instead of a name from another library; None where the name is unknown.

    Example:
        >>> name("ReLU")
        'any function of one array is a layer, without parentheses: jax.nn.relu'
    """
    if asked in _ACTIVATIONS:
        return f"{_FUNCTION} jax.nn.{_ACTIVATIONS[asked]}"
    return _NAMES.get(asked)


def method(asked: str) -> str | None:
    """What to write here instead of a method or attribute of another library's networks.

    Example:
        >>> method("summary")
        'write fcnn.summary(net, shape)'
    """
    return _METHODS.get(asked)


def option(asked: str, value: Any, known: tuple[str, ...]) -> str:
    """What to write here instead of a hyperparameter of another library; ``known`` are those of the layer.

    Example:
        >>> option("kernel_size", 3, ("features", "kernel"))
        'write kernel=3'
    """
    meant = _OPTIONS.get(asked, "")
    if asked == "rate" and "dilation" in known:
        meant = "dilation"
    if asked == "padding_mode" and "padding" not in known:
        meant = ""
    if " " in meant:
        return meant
    if meant in known:
        return f"write {meant}={value!r}"
    return f"it takes {', '.join(known)}" if known else "it takes none"


def by_position(layer: str, values: tuple[Any, ...], known: tuple[str, ...]) -> str:
    """What to write here instead of values that another library takes by position.

    Args:
        layer: name of the class.
        values: the given values.
        known: the names of the hyperparameters; those that are taken by position come first.

    Example:
        >>> by_position("MaxPool", (2, 2), ("window", "stride"))
        'write MaxPool(2, stride=2)'
    """
    written = [repr(value) for value in values]
    if known[:2] == ("features", "kernel") and len(values) >= 3:
        first, second, third = written[:3]
        return (
            f"the input channels come from the shape given to init: for PyTorch's Conv2d({first}, {second}, {third}) "
            f"write {layer}({second}, {third}), and for a stride of {third} {layer}({first}, {second}, stride={third})"
        )
    if layer == "LpPool" and len(values) >= 2:
        return f"for PyTorch's LPPool2d({written[0]}, {written[1]}) write LpPool({written[1]}, power={written[0]})"
    if known[:2] == ("window", "stride"):
        return f"write {layer}({written[0]}, stride={written[1]})"
    if known[:1] == ("features",):
        return f"the number of inputs comes from the shape given to init: write {layer}({written[1]})"
    if layer.endswith("Norm"):
        taken = f"{layer}({written[0]})" if known[:1] == ("groups",) else f"{layer}()"
        return f"the channels come from the shape given to init: write {taken}"
    return f"give options by keyword: {', '.join(known)}" if known else f"write {layer}()"
