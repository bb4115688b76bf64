"""The arrays in Keras's files, layer by layer; nothing in a file is run or rebuilt."""

from __future__ import annotations

import importlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .modules import Step, step

#: what a file has beside the layers
OTHERS = ("optimizer", "optimizer_weights", "metrics", "loss_tracker", "compile_metrics", "seed_generator")


@dataclass
class Stored:
    """The arrays of one Keras layer.

    Attributes:
        name: that of the layer, after those of the models around it.
        arrays: by name, or by number where the names are not stored.
        place: where it comes in the order of layers.
        kind: the layer's class, "Conv2D" or "conv2d"; "" where it is not known.
    """

    name: str
    arrays: dict[int | str, np.ndarray] = field(default_factory=dict)
    place: tuple[Step, ...] = ()
    kind: str = ""


def read_layers(path: Path) -> list[Stored]:
    """The layers of a .keras, .weights.h5 or .h5 file, in the order of the model where the file has it.

    Raises:
        ImportError: h5py is not installed.
        ValueError: no such file, one that is damaged, or one that refers to other files.
    """
    try:
        h5py: Any = importlib.import_module("h5py")  # by name: it need not be there, for type checkers either
    except ImportError:
        raise ImportError(f"{path.name} is read with h5py, which is not installed: pip install h5py") from None
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        source: Any = path
        config: Any = None  # a .weights.h5 file has none
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                source = io.BytesIO(archive.read("model.weights.h5"))
                config = json.loads(archive.read("config.json"))
        with h5py.File(source, "r") as file:
            read = _Reader(h5py)
            root = read.inside(file, "model_weights") if "model_weights" in file else file
            if any(name.startswith("layer_names") for name in root.attrs):
                return list(read.by_names(root))
            return list(read.by_numbers(root, _Level(listed=_listed(config))))
    except Exception as error:  # a damaged archive or HDF5 file fails in any way there is
        raise ValueError(
            f"{path} cannot be read as a file of Keras's weights ({error}); nothing in it was run"
        ) from None


@dataclass(frozen=True)
class _Level:
    """Where one is in a file.

    Attributes:
        names: of the models and layers around.
        place: where they come.
        kind: the class of the last.
        listed: the number, class and configuration of each layer inside by name, as the model's configuration lists
            them.
    """

    names: tuple[str, ...] = ()
    place: tuple[Step, ...] = ()
    kind: str = ""
    listed: Mapping[str, tuple[int, str, Any]] = field(default_factory=dict)

    def below(self, key: str, name: str, classes: bool) -> _Level:
        """One level down, to what is stored as ``key``; ``classes``: keys are made of the names of classes."""
        if name in self.listed:
            number, kind, config = self.listed[name]
            return _Level((*self.names, name), (*self.place, Step("", (number,))), kind, _listed(config))
        kind = re.sub(r"_\d+$", "", key) if classes else ""
        return _Level((*self.names, name), (*self.place, step(key)), kind)


def _listed(config: Any) -> dict[str, tuple[int, str, Any]]:
    """Number, class and configuration of a model's layers by name; none where the configuration has another form."""
    try:
        layers = config["config"]["layers"]
        return {one["config"]["name"]: (number, str(one["class_name"]), one) for number, one in enumerate(layers)}
    except (KeyError, TypeError):
        return {}


class _Reader:
    """Reads the groups of a file, without following links to other files."""

    def __init__(self, h5py: Any) -> None:
        self._h5py = h5py

    def by_numbers(self, group: Any, level: _Level, classes: bool = False) -> Iterator[Stored]:
        """Keras 3: every group "vars" holds the arrays of one layer, by number."""
        for key in sorted(group):
            inner = self.inside(group, key)
            if not isinstance(inner, self._h5py.Group) or key in OTHERS:
                continue
            if key == "vars":
                arrays: dict[int | str, np.ndarray] = {
                    int(number): self._array(self.inside(inner, number)) for number in sorted(inner, key=int)
                }
                if arrays:
                    yield Stored("/".join(level.names), arrays, level.place, level.kind)
            elif key == "layers":
                yield from self.by_numbers(inner, level, classes=True)
            else:
                name = key  # of an attribute, or made of the name of a class: then the layer has one of its own
                if classes and "vars" in inner:
                    name = str(self.inside(inner, "vars").attrs.get("name", key))
                yield from self.by_numbers(inner, level.below(key, name, classes))

    def by_names(self, root: Any) -> Iterator[Stored]:
        """Keras 2: the names of layers in order, and for each the names of its arrays."""
        count = 0
        for layer in _texts(root.attrs, "layer_names"):
            group = self.inside(root, layer)
            groups: dict[str, dict[int | str, np.ndarray]] = {}
            for name in _texts(group.attrs, "weight_names"):
                owner, _, last = name.rpartition("/")
                inner = group
                for part in name.split("/"):
                    inner = self.inside(inner, part)
                groups.setdefault(owner, {})[last.removesuffix(":0")] = self._array(inner)
            for owner, arrays in groups.items():
                below = owner.removeprefix(layer).strip("/")
                yield Stored(f"{layer}/{below}" if below else layer, arrays, (Step("", (count,)),))
                count += 1

    def inside(self, group: Any, key: str) -> Any:
        """One entry of a group; raises for a link."""
        if not isinstance(group.get(key, getlink=True), self._h5py.HardLink):
            raise ValueError(f"{group.name}/{key} is not in the file itself")
        return group[key]

    def _array(self, dataset: Any) -> np.ndarray:
        if not isinstance(dataset, self._h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise ValueError(f"{dataset.name} is no array in the file itself")
        array = np.asarray(dataset)
        return array.view(jnp.bfloat16) if dataset.attrs.get("dtype") == "bfloat16" else array


def _texts(attributes: Any, name: str) -> list[str]:
    """A list of names, which is in several pieces where it is long."""
    pieces = [attributes[name]] if name in attributes else []
    while f"{name}{len(pieces)}" in attributes:
        pieces.append(attributes[f"{name}{len(pieces)}"])
    return [text.decode() if isinstance(text, bytes) else str(text) for piece in pieces for text in piece]
