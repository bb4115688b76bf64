"""Networks as ONNX files."""

from .write import to_onnx

__all__ = ["to_onnx"]


def __dir__() -> list[str]:
    return __all__
