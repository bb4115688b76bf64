"""ONNX files as networks."""

from .read import from_onnx

__all__ = ["from_onnx"]
