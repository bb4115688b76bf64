"""What a result has to say about where it came from."""

import datetime
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def provenance(*packages):
    """Versions, machine, date, and the hash of the library's source."""
    return {
        "versions": versions("jax", "jaxlib", "optax", *packages),
        "python": platform.python_version(),
        **machine(),
        **source(),
    }


def versions(*packages):
    """The installed version of each package; of none that is missing can a result be reproduced, so that raises."""
    return {name: importlib.metadata.version(name) for name in packages}


def machine():
    """Processor, cores and date."""
    return {"machine": f"{cpu()}, {os.cpu_count()} cores", "date": datetime.date.today().isoformat()}


def source():
    """The commit, and the hash of the library as it lies there, which may be ahead of the commit."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "fcnn").rglob("*.py")):
        digest.update(path.read_bytes())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {"commit": commit, "source_sha256": digest.hexdigest()}


def cpu():
    """The processor, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
