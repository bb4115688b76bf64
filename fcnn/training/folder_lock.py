"""A lock on a folder, which one run at a time holds."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

from .checkpoint import CheckpointError

try:
    import fcntl
except ImportError:  # not on Windows, where folders are not locked
    fcntl = None

_LOCK = ".fcnn-lock"


def locked(folder: Path) -> int:
    """Lock a folder until the handle that is returned is closed or the process ends."""
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    if fcntl is None:
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        who = os.read(handle, 200).decode(errors="replace").strip()
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(handle)
            raise CheckpointError(
                f"{folder} is in use by another run ({who or 'it did not say which'}); "
                "wait until it ends, or give another folder"
            ) from None
        return handle  # the file system has no locks
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n".encode())
    return handle
