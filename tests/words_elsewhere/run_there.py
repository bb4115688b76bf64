"""Run the code of other libraries that the rows quote: on channels-last float64 in, channels-last NumPy out."""

from __future__ import annotations

import importlib
import os
import re
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

from .onnx_code import run_onnx

#: how far results may be apart, relative to the largest value
EXACT = 1e-10
#: the modes of rows in which the other library trains
TRAINING = ("train", "dropout", "frozen")
#: Keras computes every mean over axes in float32
KERAS_MEANS = 1e-6
RECURRING = re.compile(r"^(?:layers?_)?(\d+)[._](\w+)$")


class Result(NamedTuple):
    """What code of a library gives.

    Attributes:
        y: the output, or a list of outputs of several programs that run the same code, with a tolerance for each.
        arrays: parameters and statistics that it was given, by name; of a part of a composition "weight3".
        after: the statistics after a training step.
    """

    y: Any
    arrays: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    tolerance: float = EXACT


def first(x: np.ndarray) -> np.ndarray:
    """Channels-first of channels-last; a matrix stays as it is."""
    return np.moveaxis(x, -1, 1) if x.ndim > 2 else x


def last(y: np.ndarray) -> np.ndarray:
    return np.moveaxis(y, 1, -1) if y.ndim > 2 else y


def named(path: str) -> str:
    """A name for Python of an array's path: "0.weight" and "layers_0.kernel" are weight0 and kernel0."""
    found = RECURRING.match(path)
    return f"{found[2]}{found[1]}" if found else path.split(".")[-1]


def filled(arrays: dict[str, np.ndarray], seed: int = 3) -> dict[str, np.ndarray]:
    """Random values in place of initial ones; variances are positive."""
    random = np.random.default_rng(seed)
    found = {}
    for name in sorted(arrays):
        values = random.normal(size=arrays[name].shape)
        found[name] = 0.5 + np.abs(values) if "var" in name else values
    return found


def evaluated(code: str, names: Any, x: Any) -> tuple[Any, bool]:
    """The value of the code, and whether it is an output already, of the array ``x``."""
    of_x = "x" in compile(code, "row", "eval").co_names
    return eval(code, {**names, "x": x}), of_x


def run_torch(code: str, x: np.ndarray, mode: str) -> list[Result]:
    torch = importlib.import_module("torch")
    names = {**vars(torch.nn), "F": torch.nn.functional, "torch": torch}
    given = torch.tensor(np.ascontiguousarray(first(x)))
    torch.manual_seed(0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about memory
        value, of_x = evaluated(code, names, given)
        if of_x:
            return [Result(last(value.numpy()), {}, {})]
        if isinstance(value, torch.Tensor):  # initial values
            return [Result(None, {"weight": value.numpy()}, {})]
        if not isinstance(value, torch.nn.Module):
            return [Result(last(value(given).numpy()), {}, {})]
        module = value.double().train(mode in TRAINING)
        entries = module.state_dict()
        arrays = {k: v.numpy().copy() for k, v in entries.items()}
        if mode not in ("kernel", "bias"):
            arrays |= filled({k: v for k, v in arrays.items() if v.dtype.kind == "f"})
            for k, v in entries.items():
                v.copy_(torch.tensor(arrays[k]))
        y = None if mode in ("kernel", "bias") else last(module(given).numpy())
        after = {named(k): v.numpy() for k, v in module.state_dict().items()}
    return [Result(y, {named(k): v for k, v in arrays.items()}, after)]


def import_keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("keras")


def run_keras(code: str, x: np.ndarray, mode: str) -> list[Result]:
    keras = import_keras()
    before = keras.config.floatx()
    with jax.numpy_dtype_promotion("standard"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            keras.config.set_floatx("float64")
            keras.config.set_dtype_policy("float64")
            keras.utils.set_random_seed(0)
            return [_run_keras(keras, code, x, mode)]
        finally:
            keras.config.set_floatx(before)
            keras.config.set_dtype_policy(before)


def _run_keras(keras: Any, code: str, x: np.ndarray, mode: str) -> Result:
    names = {**vars(keras.layers), "Sequential": keras.Sequential, "ops": keras.ops}
    names |= {"activations": keras.activations, "initializers": keras.initializers}
    value, of_x = evaluated(code, names, x)
    if of_x or not isinstance(value, keras.layers.Layer):
        return Result(np.asarray(value if of_x else value(x)), {}, {})
    if not value.built:
        value.build(x.shape)
    places = {id(w): f"{i}." for i, part in enumerate(getattr(value, "layers", ())) for w in part.weights}
    entries = {places.get(id(w), "") + w.name: w for w in value.weights if "seed" not in w.path}
    arrays = {k: np.asarray(w) for k, w in entries.items()}
    if mode not in ("kernel", "bias"):
        arrays = filled(arrays)
        for k, w in entries.items():
            w.assign(arrays[k])
    given = {"training": mode in TRAINING} if value.__class__.__name__ != "Sequential" else {}
    try:
        y = None if mode in ("kernel", "bias") else np.asarray(value(x, **given))
    except TypeError:  # most layers know no modes
        y = np.asarray(value(x))
    after = {named(k): np.asarray(w) for k, w in entries.items()}
    tolerance = KERAS_MEANS if re.search("Normalization|GlobalAverage", code) else EXACT
    return Result(y, {named(k): v for k, v in arrays.items()}, after, tolerance)


def run_linen(code: str, x: np.ndarray, mode: str) -> list[Result]:
    linen = importlib.import_module("flax.linen")
    given = jax.numpy.asarray(x)
    with jax.numpy_dtype_promotion("standard"):
        value, of_x = evaluated(code, {**vars(linen), "jax": jax, "jnp": jax.numpy}, given)
        if of_x or not isinstance(value, linen.Module):
            return [Result(np.asarray(value if of_x else value(given)), {}, {})]
        training, options = mode in TRAINING, {}
        if isinstance(value, linen.BatchNorm):
            options = {"use_running_average": not training}
        if isinstance(value, linen.Dropout):
            options = {"deterministic": not training}
        variables = value.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, given, **options)
        arrays = _flat(variables)
        if mode in ("kernel", "bias"):
            return [Result(None, {named(k.partition(".")[2]): v for k, v in arrays.items()}, {})]
        arrays = filled(arrays)
        leaves = [jax.numpy.asarray(arrays[k]) for k in _flat(variables)]
        variables = jax.tree.unflatten(jax.tree.structure(variables), leaves)
        y, moved = value.apply(
            variables, given, **options, mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)}
        )
    arrays = {named(k.partition(".")[2]): v for k, v in arrays.items()}
    return [Result(np.asarray(y), arrays, {named(k.partition(".")[2]): v for k, v in _flat(moved).items()})]


def _flat(tree: Any) -> dict[str, np.ndarray]:
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(str(getattr(k, "key", k)) for k in path): np.asarray(leaf) for path, leaf in found}


#: Linen's modules by the names of NNX; its first argument, the number of inputs, is put in
NNX = {
    "Conv": "Conv", "ConvTranspose": "ConvTranspose", "Dense": "Linear", "BatchNorm": "BatchNorm",
    "LayerNorm": "LayerNorm", "GroupNorm": "GroupNorm", "InstanceNorm": "InstanceNorm", "RMSNorm": "RMSNorm",
    "Dropout": "Dropout", "PReLU": "PReLU",
}  # fmt: skip
_WITHOUT_INPUTS = ("Dropout", "PReLU")


def run_nnx(code: str, x: np.ndarray, mode: str) -> list[Result]:
    """Linen's code by the modules of NNX that take the same arguments."""
    nnx = importlib.import_module("flax.nnx")
    given = jax.numpy.asarray(x)

    def made(name: str) -> Any:
        inputs = () if name in _WITHOUT_INPUTS else (x.shape[-1],)
        keys = {} if name == "PReLU" else {"rngs": nnx.Rngs(params=0, dropout=1)}
        more = {} if name in _WITHOUT_INPUTS else {"param_dtype": jax.numpy.float64}
        return lambda *args, **options: getattr(nnx, NNX[name])(*inputs, *args, **options, **more, **keys)

    with jax.numpy_dtype_promotion("standard"):
        module = eval(code, {}, {**{name: made(name) for name in NNX}, "jax": jax, "jnp": jax.numpy})
        getattr(module, "train" if mode in TRAINING else "eval")()
        entries = {
            str(path[-1]): leaf
            for path, leaf in nnx.to_flat_state(nnx.state(module))
            if isinstance(leaf, nnx.Param | nnx.BatchStat)
        }
        arrays = {k: np.asarray(leaf[...]) for k, leaf in entries.items()}
        if mode in ("kernel", "bias"):
            return [Result(None, arrays, {})]
        arrays = filled(arrays)
        for name, value in arrays.items():
            setattr(module, name, type(getattr(module, name))(jax.numpy.asarray(value)))  # statistics were float32
        y = np.asarray(module(given))
        after = {name: np.asarray(getattr(module, name)[...]) for name in arrays}
    return [Result(y, arrays, after)]


def run_onnx_code(code: str, x: np.ndarray, mode: str) -> list[Result]:
    found = run_onnx(code, first(x))
    return [Result(last(y), arrays, after, tolerance) for y, arrays, after, tolerance in found]


PROGRAMS = {"PyTorch": run_torch, "Keras": run_keras, "Flax": run_linen, "Flax NNX": run_nnx, "ONNX": run_onnx_code}
#: the packages that they need
PACKAGES = {"PyTorch": "torch", "Keras": "keras", "Flax": "flax", "Flax NNX": "flax", "ONNX": "onnx"}


def programs(library: str, code: str) -> list[str]:
    """The programs that run code of a library: for Flax's modules both of its interfaces."""
    both = library == "Flax" and code.partition("(")[0] in NNX
    return [library, "Flax NNX"] if both else [library]
