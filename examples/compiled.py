"""Compiled programs kept on disk: the second run of an example begins at once.

They are in ``~/.cache/fcnn/xla`` (``$XDG_CACHE_HOME/fcnn/xla`` where that is set), in a folder for each kind of
processor, because XLA's code for one may not run on another. FCNN_COMPILATION_CACHE=0 leaves them out; JAX's own
JAX_COMPILATION_CACHE_DIR names another folder. Several processes may share it: what one has not finished writing, or
what is damaged, is compiled again. Delete the folder whenever you like.
"""

import hashlib
import os
import platform
from pathlib import Path

import jax


def keep() -> Path | None:
    """Let JAX keep its compiled programs from now on; where, or None where that is not wished."""
    if os.environ.get("FCNN_COMPILATION_CACHE") == "0":
        return None
    if jax.config.jax_compilation_cache_dir:  # said already, by JAX_COMPILATION_CACHE_DIR
        return Path(jax.config.jax_compilation_cache_dir)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "fcnn" / "xla" / processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # such as a home folder that may not be written
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def processor() -> str:
    """A name for the instructions that this machine's processor has."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(errors="replace").splitlines() if told.is_file() else [platform.processor()]
    features = next(
        (line for line in lines if line.lower().startswith(("flags", "features"))), lines[0] if lines else ""
    )
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
