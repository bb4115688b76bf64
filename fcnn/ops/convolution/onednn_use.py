"""Whether oneDNN, which jaxlib's wheels for x86 Linux carry, may be called on this machine.

The call is neither documented nor stable: an unsuitable setting ends the process. So it is used only with versions of
jaxlib that have passed this project's tests, and only on a machine where a child process has computed known answers
with it. The result is remembered in a file for the machine's later processes. ``FCNN_ONEDNN=0`` in the environment
switches it off, ``FCNN_ONEDNN=1`` leaves the child process out.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

#: versions of jaxlib with which the tests have passed
TESTED = ("0.10.2", "0.11.2", "0.12.0.1")
#: seconds for the child process, which imports JAX and compiles three programs
PATIENCE = 120


@functools.cache
def unusable() -> str | None:
    """Why oneDNN is not called in this process; None if it is."""
    return _unusable(os.environ)


def _unusable(environment: Mapping[str, str]) -> str | None:
    asked = environment.get("FCNN_ONEDNN", "")
    if asked == "0":
        return "the environment variable FCNN_ONEDNN is 0"
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        return f"jaxlib has it for x86 Linux alone, and this is {platform.machine()} {platform.system()}"
    version = _version()
    if version not in TESTED:
        return f"it has not been tried with jaxlib {version}, only with {', '.join(TESTED)}"
    if asked == "1":
        return None
    processor = _processor()
    if "avx2" not in processor:
        return "it is slow on a processor without AVX2"
    record = _folder(environment) / "onednn.json"
    key = hashlib.sha256(f"{version} {processor} {_source()}".encode()).hexdigest()[:16]
    known = _read(record)
    if key not in known:
        known[key] = _tried(environment) or "right"
        _write(record, known)
    return None if known[key] == "right" else str(known[key])


def _version() -> str:
    return importlib.metadata.version("jaxlib")


def _processor() -> str:
    """Name and features of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    kept = dict(line.split(":", 1) for line in lines if ":" in line)
    return " ".join(value.strip() for name, value in kept.items() if name.strip() in ("model name", "flags"))


def _source() -> str:
    """The code whose answers are remembered."""
    return "".join(path.read_text() for path in (Path(__file__), Path(__file__).with_name("onednn.py")))


def _folder(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fcnn"


def _read(record: Path) -> dict[str, Any]:
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(record: Path, known: dict[str, Any]) -> None:
    """Remember; where nothing can be written, the next process tries again."""
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        part = record.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(known) + "\n")
        part.replace(record)
    except OSError:
        pass


def _tried(environment: Mapping[str, str]) -> str | None:
    """Compute known answers in a child process; why they are not trusted, or None."""
    if not sys.executable:
        return "there is no Python to try it in"
    kept = {name: value for name, value in environment.items() if not name.startswith(("XLA_", "JAX_"))}
    kept |= {"JAX_PLATFORMS": "cpu", "FCNN_ONEDNN": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    code = "from fcnn.ops.convolution.onednn_use import known_answers; known_answers()"
    try:
        done = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        return f"the process that tried it failed: {error}"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"the process that tried it ended with status {done.returncode}: {last}"
    return None


def known_answers() -> None:
    """Compare convolutions with sums of whole numbers, which float32 holds exactly.

    Raises:
        AssertionError: a wrong answer.
    """
    import jax

    from . import onednn
    from .conv_geometry import Geometry

    draw = np.random.default_rng(0)
    cases = (
        ((2, 7, 6, 3), (3, 3, 3, 5), Geometry((2, 1), ((1, 0), (2, 1)), (1, 2), 1, (1, 1), (1, 1))),
        ((2, 6, 6, 8), (3, 3, 1, 16), Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 8, (1, 1), (1, 1))),
        ((1, 9, 4), (4, 4, 32), Geometry((3,), ((0, 1),), (1,), 1, (1,), (1,))),
    )
    for shape, sizes, placed in cases:
        x, kernel = (draw.integers(-4, 5, s).astype("float32") for s in (shape, sizes))
        y = np.asarray(jax.jit(lambda x, kernel, placed=placed: onednn.forward(x, kernel, placed))(x, kernel))
        if not np.array_equal(y, _by_definition(x, kernel, placed)):
            raise AssertionError(f"wrong for x {shape} and a kernel {sizes}")


def _by_definition(x: np.ndarray, kernel: np.ndarray, placed: Any) -> np.ndarray:
    """The sum over the samples of every window, position by position."""
    rank, groups = placed.rank, placed.groups
    sizes = kernel.shape[:rank]
    out = placed.out(x.shape[1:-1], sizes)
    x = np.pad(x, ((0, 0), *placed.pads, (0, 0)))
    y = np.zeros((len(x), *out, kernel.shape[-1]), x.dtype)
    inputs, features = x.shape[-1] // groups, kernel.shape[-1] // groups
    for place in np.ndindex(*out):
        for j in np.ndindex(*sizes):
            at = [place[a] * placed.stride[a] + j[a] * placed.dilation[a] for a in range(rank)]
            sample = x[(slice(None), *at)]
            for g in range(groups):
                into = slice(g * features, (g + 1) * features)
                y[(slice(None), *place, into)] += sample[:, g * inputs : (g + 1) * inputs] @ kernel[j][:, into]
    return y
