"""Pillow, which reads pictures, imported only where it is needed."""

from __future__ import annotations

from types import ModuleType


def image_module(purpose: str) -> ModuleType:
    """``PIL.Image``, or an error that says how to install it.

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
