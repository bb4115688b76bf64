"""Pillow, which reads pictures, where it is needed and only there."""

from __future__ import annotations

from types import ModuleType


def image_module(purpose: str) -> ModuleType:
    """``PIL.Image``, or an error that says how to get it.

    Args:
        purpose: what needs it, for the message.

    Raises:
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(f"{purpose} need Pillow: pip install 'fcnn[data]'") from None
    return Image
