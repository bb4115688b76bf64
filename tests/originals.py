"""The packages that trained weights come from, imported without what they would load beside their networks.

facenet-pytorch needs of torchvision one function, non-maximum suppression, which is written here by its definition;
torchcrepe needs librosa, resampy and torchaudio for what is not used here.
"""

import importlib
import importlib.util
import sys
import types
from typing import Any

import torch


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, most: float) -> torch.Tensor:
    """What ``torchvision.ops.boxes.batched_nms`` gives for boxes of one group."""
    assert not groups.any()
    kept: list[int] = []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        if all(float(of_union(boxes[i], boxes[k])) <= most for k in kept):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long)


def of_union(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The common part of two boxes, as a part of their union."""
    common = (torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])).clamp(min=0).prod()
    return common / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common)


def facenet(monkeypatch: Any) -> tuple[Any, Any]:
    """The modules of facenet-pytorch with the networks and with the cascade; ``import facenet_pytorch`` finds MTCNN."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.ops", "torchvision.ops.boxes"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["torchvision.transforms"], "functional", None, raising=False)
    monkeypatch.setattr(sys.modules["torchvision.ops.boxes"], "batched_nms", batched_nms, raising=False)
    spec = importlib.util.find_spec("facenet_pytorch")
    assert spec is not None
    package: Any = importlib.util.module_from_spec(spec)  # its __init__ is not run: it imports requests
    monkeypatch.setitem(sys.modules, "facenet_pytorch", package)
    networks, cascade = (
        importlib.import_module(f"facenet_pytorch.models.{name}") for name in ("mtcnn", "utils.detect_face")
    )
    package.MTCNN = networks.MTCNN
    return networks, cascade


def crepe(monkeypatch: Any) -> Any:
    """The package torchcrepe."""
    for name in ("librosa", "resampy", "torchaudio"):
        if importlib.util.find_spec(name) is None:
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    return importlib.import_module("torchcrepe")
