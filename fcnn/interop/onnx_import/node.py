"""One node of an ONNX graph, with its attributes as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .values import Constant, Merged, Unreadable, Value

Operand = Value | Merged | Constant | None
Made = Value | Merged | Constant | list[Value | Merged | Constant | None]


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        kind: its operator, such as "Conv".
        name: its name in the file; "": it has none.
        path: the modules that it is in, as far as the file tells.
        inputs: the names of its inputs; "" for one that is left out.
        outputs: the names of its outputs.
        attributes: its attributes.
        version: the version of the operators that the file uses.
        used: its outputs that something reads.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    path: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    version: int = 20
    used: frozenset[str] = frozenset()

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; a float as the shortest decimal that it was rounded from."""
        value = self.attributes.get(name, default)
        return shortest(value) if isinstance(value, float) else value

    def one_output(self) -> None:
        """Raise where a second output is used."""
        for name in self.outputs[1:]:
            if name in self.used:
                raise Unreadable("has a second output that is used, and only the first one is read")


def shortest(value: float) -> float:
    """A number of 32 bits as the shortest decimal that rounds to it.

    Example:
        >>> shortest(float(np.float32(0.1)))
        0.1
    """
    return float(str(np.float32(value)))


def value_of(operand: Operand, what: str = "input") -> Value:
    """An operand that depends on the input."""
    if isinstance(operand, Merged):
        raise Unreadable(
            f"uses a value that was reshaped from {operand.value.shape} to {operand.shape}, which does not keep the "
            "examples apart"
        )
    if not isinstance(operand, Value):
        raise Unreadable(f"does not take its {what} from the network's input")
    return operand


def constant_of(operand: Operand, what: str) -> Constant:
    """An operand that does not depend on the input."""
    if isinstance(operand, Merged):
        value_of(operand)  # says why not
    if isinstance(operand, Value | Merged):
        raise Unreadable(f"computes its {what} from the input, where a layer has a parameter")
    if operand is None:
        raise Unreadable(f"has no {what}")
    return operand


def array_of(operand: Operand, what: str) -> np.ndarray:
    """The numbers of a constant operand; half precision becomes float32."""
    array = constant_of(operand, what).array
    return array.astype(np.float32) if array.dtype.itemsize < 4 and array.dtype.kind not in "iub" else array


def integers_of(operand: Operand, what: str) -> list[int]:
    """The integers of a constant operand."""
    return [int(n) for n in np.ravel(constant_of(operand, what).array)]


def operand(operands: list[Operand], index: int) -> Operand:
    """An operand that may be left out."""
    return operands[index] if index < len(operands) else None


def same_or_all(sizes: list[int]) -> Any:
    """One integer where all are equal.

    Example:
        >>> same_or_all([3, 3]), same_or_all([3, 1])
        (3, (3, 1))
    """
    return sizes[0] if sizes and len(set(sizes)) == 1 else tuple(sizes)


def nested(value: Any) -> Any:
    """Lists as tuples, which a function may hold, since they can be hashed.

    Example:
        >>> nested([1, [2, 3]])
        (1, (2, 3))
    """
    return tuple(map(nested, value)) if isinstance(value, list) else value


def padding_of(node: Node, rank: int) -> Any:
    """The padding of a node that slides a window, as layers take it."""
    mode = node.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return "SAME" if mode == "SAME_UPPER" else "SAME_LOWER"
    pads = [0] * 2 * rank if mode == "VALID" else list(node.get("pads", [0] * 2 * rank))
    if not any(pads):
        return "VALID"
    if len(set(pads)) == 1:
        return pads[0]
    return tuple(zip(pads[:rank], pads[rank:], strict=True))
