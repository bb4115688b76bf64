"""Flags of XLA that make it compile quickly, those of them that the installed jaxlib knows.

XLA ends a process that hands it a flag it does not know, and flags come and go between its versions. So they are
tried in a child process, once: what that found is handed on to all processes that this one starts.
"""

import functools
import itertools
import json
import os
import subprocess
import sys
from importlib.metadata import version

#: Most programs here run once, on a few numbers. XLA compiles them ten times as fast without LLVM's optimisations,
#: its own code for fused operations and a split into parts for several threads; they compute the same.
WANTED = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
#: what is found, for the processes that are started later; of a jaxlib and a wish, since those may differ there
FOUND = "FCNN_TESTS_XLA_FLAGS"


@functools.cache
def known(wanted=WANTED):
    """Those of the flags wanted that this jaxlib knows, as a string like the one given."""
    asked = [version("jaxlib"), wanted]
    *before, found = json.loads(os.environ.get(FOUND, "[null]"))
    if before != asked:
        flags = wanted.split()
        # most often all are known, which takes one child
        found = wanted if all(tried([wanted])) else " ".join(itertools.compress(flags, tried(flags)))
        os.environ[FOUND] = json.dumps([*asked, found])
    return found


def tried(settings):
    """Whether XLA starts with each of some values of XLA_FLAGS, in a process each."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    children = [subprocess.Popen(command, env={**environment, "XLA_FLAGS": flags}, **quiet) for flags in settings]
    return [child.wait() == 0 for child in children]


def options():
    """The flags as ``compiler_options`` of :func:`jax.jit`."""
    pairs = (flag.removeprefix("--").split("=") for flag in known().split())
    return {name: int(value) if value.isdigit() else value == "true" for name, value in pairs}
