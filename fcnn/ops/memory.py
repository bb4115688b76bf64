"""Memory that XLA:CPU asks for at every call stays with the process.

XLA:CPU allocates its working memory and its results anew at every call. The C library of Linux gives pieces above 32
MiB back to the system each time, and the next time gets fresh pages, zeroed one by one: for a convolution of some
megabytes that takes longer than the arithmetic. Two settings keep the pages, and both are needed:

- The first time that a convolution or pooling is used on the CPU, the C library is told to keep pieces of up to a
  gibibyte.
- JAX is told, on import, to compute on the thread that calls (``jax_cpu_enable_async_dispatch`` off). For any other
  thread the C library has an arena of at most 64 MiB and gets everything larger from the system, whatever it was told.

What is kept is to be of use: after a convolution has been compiled, the compiler's own memory goes back to the system;
and free places for results are made ready, or the first results would be laid into the place of the working memory,
which would then need a second one as large.

Nothing is done where the user has set the allocator up (``MALLOC_...`` or ``GLIBC_TUNABLES`` in the environment), where
another C library runs, or with ``FCNN_KEEP_MEMORY=0``; and whoever turns asynchronous dispatch on again after the
import has it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading

import jax
import jax.monitoring

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of the settings in malloc.h
_KEPT = 1 << 30  # bytes
#: places for results: bytes and how many of them
_PLACES = ((4 << 20, 32), (32 << 20, 4))
#: what JAX says when XLA has compiled a computation
_COMPILED = "/jax/core/compile/backend_compile_duration"
_THEIRS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")


def compute_where_called() -> bool:
    """Let JAX compute on the calling thread, if the CPU has not been used yet. Returns whether it was told to."""
    if _glibc() is None:
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return True


def keep_memory() -> bool:
    """Let the process keep freed memory; to be called for every computation that is about to be compiled.

    Returns:
        Whether it does because of this.

    Source:
        The GNU C Library Reference Manual, "Malloc Tunable Parameters".
    """
    _about_to_compile.set()
    return _kept()


_about_to_compile = threading.Event()


@functools.cache
def _kept() -> bool:
    library = _glibc()
    if library is None or not library.mallopt(_MMAP_THRESHOLD, _KEPT) or not library.mallopt(_TRIM_THRESHOLD, _KEPT):
        return False
    _make_places(library)

    def give_back(event: str, duration_secs: float, **kwargs: str | int) -> None:
        del duration_secs, kwargs
        if event == _COMPILED and _about_to_compile.is_set():
            _about_to_compile.clear()
            library.malloc_trim(0)

    jax.monitoring.register_event_duration_secs_listener(give_back)
    return True


def _make_places(library: ctypes.CDLL) -> None:
    """Free places between others that stay taken. None is ever written to, so that none takes memory."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    for size, count in _PLACES:
        found = [library.malloc(size) for _ in range(2 * count)]
        for place in found[::2]:
            library.free(place)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is GNU's and may be set up."""
    environment = os.environ
    theirs = any(name in environment for name in _THEIRS)
    if theirs or environment.get("FCNN_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - only glibc has it
    except (OSError, AttributeError):
        return None
    return library
