"""Tests for your own layers."""

from .contract import CHECKS, Subject, check_layer

__all__ = ["CHECKS", "Subject", "check_layer"]


def __dir__() -> list[str]:
    return __all__
