"""Readable names of the parts of a network, from the names of an ONNX file."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

#: names that serial and graph do not take
_TAKEN = {"params", "join", "layers"}


class Labels:
    """Gives every step a name that no other one has.

    Example:
        >>> labels = Labels()
        >>> labels.of("conv", ("layer1", "0", "conv1")), labels.of("conv", ()), labels.of("relu", ())
        ('layer1_0_conv1', 'conv1', 'relu1')
    """

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()
        self._names: set[str] = set()

    def of(self, kind: str, path: tuple[str, ...]) -> str:
        """The name of a step.

        Args:
            kind: the name of its layer's class, or of its function, in snake case.
            path: the modules that it is in.
        """
        base = "_".join(path)
        if base and base not in self._names and usable(base):
            self._names.add(base)
            return base
        kind = f"{base}_{kind}" if base and usable(base) else kind
        while True:
            self._used[kind] += 1
            label = f"{kind}{self._used[kind]}"
            if label not in self._names:
                self._names.add(label)
                return label


def labels_of(names: Iterable[str]) -> tuple[str, ...]:
    """Names of outputs without signs that are not letters; two that become equal get numbers.

    Example:
        >>> labels_of(["y", "a.b", "a/b", "/"])
        ('y', 'a_b', 'a_b_2', 'output4')
    """
    found: list[str] = []
    for place, name in enumerate(names, 1):
        base = re.sub(r"\W+", "_", name).strip("_") or f"output{place}"
        label, number = base, 2
        while label in found:
            label, number = f"{base}_{number}", number + 1
        found.append(label)
    return tuple(found)


def usable(name: str) -> bool:
    """Whether ``serial`` and ``graph`` take a name.

    Example:
        >>> usable("conv1"), usable("0"), usable("join")
        (True, False, False)
    """
    # Python reads an identifier in this normal form, so that another one would not come back from its repr
    same = unicodedata.normalize("NFKC", name) == name
    return same and name.isidentifier() and not keyword.iskeyword(name) and name[0] != "_" and name not in _TAKEN


def modules(path: str) -> tuple[str, ...]:
    """The modules that a node's name tells: what exporters write before the kind.

    Example:
        >>> modules("/layer1/layer1.0/conv1/Conv"), modules("stage1/body[2]/conv1/Conv"), modules("Conv_3")
        (('layer1', '0', 'conv1'), ('stage1', 'body_2', 'conv1'), ())
    """
    found: list[str] = []
    before = ""
    for part in filter(None, path.split("/")[:-1]):
        if before and part.startswith(before + "."):  # PyTorch repeats the path of the module above
            found += part[len(before) + 1 :].split(".")
        else:
            found += part.split(".")
        before = part
    cleaned = (re.sub(r"\W+", "_", part).strip("_") for part in found)
    return tuple(part for part in cleaned if part)
