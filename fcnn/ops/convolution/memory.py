"""Memory that XLA:CPU asks for at every call stays with the process.

XLA:CPU allocates its working memory and its results anew at every call. The C library of Linux gives pieces above 32
MiB back to the system each time, and the next time gets fresh pages, zeroed one by one: for a convolution of some
megabytes that takes longer than the arithmetic. So the first time that a convolution is compiled for the CPU, the C
library is told to keep pieces of up to a gibibyte.

Nothing is done where the user has set the allocator up (``MALLOC_...`` or ``GLIBC_TUNABLES`` in the environment), where
another C library runs, or with ``FCNN_KEEP_MEMORY=0``.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of the settings in malloc.h
_KEPT = 1 << 30  # bytes


@functools.cache
def keep_memory() -> bool:
    """Let the process keep freed memory, once. Returns whether it does because of this.

    Source:
        The GNU C Library Reference Manual, "Malloc Tunable Parameters".
    """
    environment = os.environ
    theirs = any(name in environment for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"))
    if theirs or environment.get("FCNN_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - only glibc has it
        return bool(library.mallopt(_MMAP_THRESHOLD, _KEPT)) and bool(library.mallopt(_TRIM_THRESHOLD, _KEPT))
    return False
