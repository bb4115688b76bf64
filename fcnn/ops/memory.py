"""Settings that let the process reuse the memory that XLA:CPU allocates at every call.

XLA:CPU allocates its working memory and its results at every call. The GNU C library returns blocks above 32 MiB to the
system each time, and gets new, zeroed pages the next time: for a convolution of some megabytes that takes longer than
the arithmetic. Two settings keep the pages, and both are needed:

- When a convolution or pooling is first used on the CPU, the C library is set to keep blocks of up to one gibibyte.
- On import, JAX is set to compute on the calling thread (``jax_cpu_enable_async_dispatch`` off). On any other thread
  the C library uses an arena of at most 64 MiB and gets larger blocks from the system, whatever the settings.

Two measures limit the memory that is kept. After a convolution has been compiled, the compiler's own memory is returned
to the system. And free blocks for results are prepared; otherwise the first results would occupy the block of the
working memory, which would then need a second block of the same size.

Nothing is changed where the user has configured the allocator (``MALLOC_...`` or ``GLIBC_TUNABLES`` in the
environment), where another C library is used, or with ``FCNN_KEEP_MEMORY=0``. Asynchronous dispatch can be turned on
again after the import.
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
#: free blocks for results: size in bytes, and their number
_PLACES = ((4 << 20, 32), (32 << 20, 4))
#: the event that JAX records when XLA has compiled a computation
_COMPILED = "/jax/core/compile/backend_compile_duration"
_THEIRS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")


def compute_where_called() -> bool:
    """Let JAX compute on the calling thread, if the CPU has not been used yet. Returns whether this was set."""
    if _glibc() is None:
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return True


def keep_memory() -> bool:
    """Let the process keep freed memory; call this before every computation that is about to be compiled.

    Returns:
        Whether the allocator has been configured, by this or an earlier call.

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
    """Create free blocks between allocated ones. None is ever written to, so they use no physical memory."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    for size, count in _PLACES:
        found = [library.malloc(size) for _ in range(2 * count)]
        for place in found[::2]:
            library.free(place)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is GNU's and may be configured."""
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
