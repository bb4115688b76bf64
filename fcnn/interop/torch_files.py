"""Tensors in PyTorch's files and objects as NumPy arrays, by name; the package torch is not needed."""

from __future__ import annotations

import io
import math
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from ..errors import described
from ..paths import path_of

#: entries under which training programs store the weights beside other things
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params", "weights")

_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


#: how files in the format before PyTorch 1.6 begin: a pickle of PyTorch's magic number
_BEGINNING = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_PROTOCOL = 1001


def read_tensors(source: Any) -> dict[str, np.ndarray]:
    """The tensors of a state dict, a module or a file.

    Args:
        source: a mapping from names to tensors or arrays; an object with ``state_dict()``; or the path of a file,
            .safetensors or what ``torch.save`` writes, or wrote before PyTorch 1.6. A dict that holds the state dict
            under "state_dict", "model" or a similar name is unwrapped.

    Returns:
        The arrays by name, in the order of the source.

    Raises:
        ValueError: a file that is damaged, or that names anything but tensors; no code in a file is run.
        TypeError: another source, or an entry that is no tensor.
        ImportError: a .safetensors file, and safetensors is not installed.
    """
    if isinstance(source, (str, os.PathLike)):
        source = _read_file(path_of(source))
    elif not isinstance(source, Mapping) and callable(getattr(source, "state_dict", None)):
        source = source.state_dict()
    if not isinstance(source, Mapping):
        raise TypeError(
            f"source is {described(source)}; give a state dict, a module, or the path of a .pth or .safetensors file"
        )
    for name in _WRAPPERS:
        if isinstance(source.get(name), Mapping):
            source = source[name]
    found = {}
    for name, tensor in source.items():
        array = _array(tensor)
        if array is None:
            raise TypeError(
                f"the entry {name!r} is {described(tensor)}, not a tensor; give the state dict alone, such as "
                "module.state_dict()"
            )
        found[str(name)] = array
    return found


def _array(tensor: Any) -> np.ndarray | None:
    """A tensor as a NumPy array; None: it is none."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":  # NumPy has no such dtype, and float32 holds every value of it
            return tensor.float().numpy().astype(jnp.bfloat16)
        return tensor.numpy()
    if isinstance(tensor, (np.ndarray, np.generic)) or hasattr(tensor, "__array__"):
        return np.asarray(tensor)
    return None


def _read_file(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            from safetensors.numpy import load_file
        except ImportError:
            raise ImportError(
                f"{path.name} is read with safetensors, which is not installed: pip install 'fcnn[interop]'"
            ) from None
        return load_file(path)
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _from_zip(archive)
        data = path.read_bytes()
        if data.startswith(_BEGINNING):
            return _from_sequence(data)
    except Exception as error:  # a damaged archive or pickle fails in any way there is
        raise ValueError(f"{path} cannot be read as tensors alone ({error}); nothing in it was run") from None
    raise ValueError(
        f"{path} is none of the files that torch.save writes; with PyTorch, load it by "
        "torch.load(path, weights_only=True) and give its state dict"
    )


def _from_zip(archive: zipfile.ZipFile) -> Any:
    """What torch.save writes since PyTorch 1.6: a zip file with the pickle and each storage."""
    names = archive.namelist()
    pickles = [name for name in names if name.endswith("data.pkl") and name.count("/") <= 1]
    if not pickles:
        raise ValueError("it holds no data.pkl, so torch.save did not write it")
    folder = pickles[0][: -len("data.pkl")]
    order = archive.read(f"{folder}byteorder").decode() if f"{folder}byteorder" in names else "little"

    def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        data = archive.read(f"{folder}data/{key}")
        if len(data) < count * dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key} has {len(data)} bytes, its {count} numbers need more")
        return _in_own_order(np.frombuffer(data, dtype, count), order)

    return _Unpickler(io.BytesIO(archive.read(pickles[0])), storage).load()


def _from_sequence(data: bytes) -> Any:
    """What torch.save wrote before: pickles one after another, then the storages, each after its count.

    The tensors are in a pickle that is in front of what it needs, so it is read twice: first for the storages' dtypes.
    """
    file = io.BytesIO(data)
    dtypes: dict[str, np.dtype] = {}
    storages: dict[str, np.ndarray] = {}

    def note(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        if dtypes.setdefault(key, dtype) != dtype:
            raise pickle.UnpicklingError(f"storage {key} has two dtypes, {dtypes[key]} and {dtype}")
        return np.zeros(0, dtype)

    def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        if len(storages[key]) < count:
            raise pickle.UnpicklingError(f"storage {key} has {len(storages[key])} numbers, {count} are needed")
        return storages[key]

    _, version, machine = (_Unpickler(file, note).load() for _ in range(3))
    if version != _PROTOCOL:
        raise pickle.UnpicklingError(f"it has version {version!r} of the format, {_PROTOCOL} is known")
    begin = file.tell()
    _Unpickler(file, note, rebuild=lambda storage, *_: storage).load()
    keys = _Unpickler(file, note).load()
    order: Literal["little", "big"] = "little" if machine["little_endian"] else "big"
    for key in keys:
        count = int.from_bytes(file.read(8), order)
        data_of_it = file.read(count * dtypes[key].itemsize)
        storages[key] = _in_own_order(np.frombuffer(data_of_it, dtypes[key], count), order)
    file.seek(begin)
    return _Unpickler(file, storage).load()


def _in_own_order(array: np.ndarray, order: str) -> np.ndarray:
    return array if order == sys.byteorder else array.byteswap()


class _Unpickler(pickle.Unpickler):
    """Builds arrays, dicts, lists and numbers; refuses every other name that a pickle may hold.

    Args:
        file: the pickle.
        storage: gives the storage of a name, dtype and count of numbers.
        rebuild: makes a tensor from its storage.
    """

    def __init__(
        self,
        file: io.BytesIO,
        storage: Callable[[str, np.dtype, int], np.ndarray],
        rebuild: Callable[..., np.ndarray] | None = None,
    ) -> None:
        super().__init__(file)
        self._storage, self._rebuild = storage, rebuild or _rebuilt

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild,
            ("torch._utils", "_rebuild_parameter"): lambda array, *_: array,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _, count, *view = pid  # in the older format also the view, which nothing has written for long
        if kind != "storage" or not isinstance(dtype, np.dtype) or any(part is not None for part in view):
            raise pickle.UnpicklingError(f"it holds a storage of the kind {dtype!r}")
        return self._storage(key, dtype, count)


def _rebuilt(storage: np.ndarray, offset: int, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """A tensor as a view of its storage, with strides in numbers."""
    size, stride = tuple(size), tuple(stride)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if math.prod(size) else offset
    if offset < 0 or min(stride, default=0) < 0 or min(size, default=0) < 0 or last >= max(len(storage), 1):
        raise pickle.UnpicklingError(f"a tensor of {size} does not lie within its storage of {len(storage)} numbers")
    steps = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).copy()
