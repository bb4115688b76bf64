"""Set-up of every test: strict promotion, so that a dtype that changes by accident is an error."""

import gc
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import xla_flags

import fcnn

jax.config.update("jax_numpy_dtype_promotion", "strict")
# a shell that starts the tests in the background tells them, and so their children, to ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("FCNN_COMPILATION_CACHE", "0")  # examples that are run here leave the home folder alone


#: bytes of compiled programs from which on they are thrown away before a run
KEPT = 1 << 30


def keep_programs(folder):
    """Keep what is compiled in this process, for all workers and the next runs: a third of the time goes into it."""
    if sum(path.stat().st_size for path in folder.glob("*")) > KEPT:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_configure(config):
    """Compile quickly in this process, and keep what is compiled.

    The examples, the README's code and most else that the tests start is compiled as users have it, and
    test_compiled_as_users_do.py compiles the tests of numbers so; FCNN_TESTS_OPTIMISED=1 asks for that in all of them.
    """
    gc.set_threshold(50_000, 20, 100)  # what JAX keeps of thousands of programs takes long to look through
    optimised = os.environ.get("FCNN_TESTS_OPTIMISED") == "1"
    # apart, since JAX does not see how XLA was told to compile
    keep_programs(config.rootpath / ".pytest_cache" / ("optimised" if optimised else "quick"))
    if optimised:
        return
    quickly = xla_flags.known()  # before any worker starts, so that none has to find out again
    if getattr(config.option, "dist", "no") != "no":  # with workers, it is they who compile
        return
    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = f"{before or ''} {quickly}"
    jax.devices()  # XLA reads its flags now and never again, so that children need not have them
    if before is None:
        del os.environ["XLA_FLAGS"]
    else:
        os.environ["XLA_FLAGS"] = before


#: how long each test took that took longer than this many seconds, on two cores; ``make times`` records it
RECORD, LONG = Path(__file__).parent / "tests" / "durations.json", 0.3


def pytest_addoption(parser):
    """An option that records how long the tests take."""
    parser.addoption("--record-times", action="store_true", help="write tests/durations.json; run all tests with it")


def pytest_collection_modifyitems(items):
    """Mark what takes long, by the record; a test that is not in it is run by ``make test``."""
    times = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for item in items:
        if item.nodeid in times:
            item.add_marker(pytest.mark.long)


_taken: dict[str, float] = {}


def pytest_runtest_logreport(report):
    """Add up what preparing, running and cleaning up took."""
    _taken[report.nodeid] = _taken.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish(session):
    """Write the record; what was not run keeps its entry."""
    config = session.config
    if not config.getoption("record_times") or hasattr(config, "workerinput"):
        return
    times = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    times = {name: seconds for name, seconds in times.items() if name not in _taken}
    times |= {name: round(seconds, 1) for name, seconds in _taken.items() if seconds > LONG}
    RECORD.write_text(json.dumps(dict(sorted(times.items())), indent=0) + "\n")


@pytest.fixture
def x64():
    """Compute in float64 where rounding could hide an error."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def without_onednn(monkeypatch):
    """Convolutions by the algorithms of machines that have no oneDNN."""
    monkeypatch.setattr("fcnn.ops.convolution.onednn_use.unusable", lambda: "the test is about other algorithms")


@pytest.fixture
def key():
    """A random key."""
    return jax.random.key(0)


@pytest.fixture(autouse=True)
def _names_in_examples(doctest_namespace):
    """Examples in docstrings take these names as known."""
    doctest_namespace.update(fcnn=fcnn, jax=jax, jnp=jnp)


def most():
    """Bytes in use from which on compiled programs are forgotten: a fifth of the machine's memory, for every worker."""
    if not sys.platform.startswith("linux"):
        return 0
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    return max(2.5e9, min(whole / 5, whole / 2 / workers))


def bytes_in_use():
    """Memory of this process; 0 where the system does not say."""
    status = Path("/proc/self/status")
    found = re.search(r"VmRSS:\s*(\d+) kB", status.read_text()) if sys.platform.startswith("linux") else None
    return 1024 * int(found.group(1)) if found else 0


MOST = most()


@pytest.fixture(autouse=True)
def _bounded_memory(request):
    """Forget compiled programs when they fill the memory: thousands of small ones would, on a small machine."""
    yield
    config = request.config
    config.tests_seen = getattr(config, "tests_seen", 0) + 1
    # memory that was given back may still count, so not at every test
    if config.tests_seen >= 100 and bytes_in_use() >= MOST:
        config.tests_seen = 0
        jax.clear_caches()
