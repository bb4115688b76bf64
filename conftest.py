"""Set-up of every test: strict promotion, so that a dtype that changes by accident is an error."""

import signal

import jax
import jax.numpy as jnp
import pytest

import fcnn

jax.config.update("jax_numpy_dtype_promotion", "strict")
# a shell that starts the tests in the background tells them, and so their children, to ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def x64():
    """Compute in float64 where rounding could hide an error."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    """A random key."""
    return jax.random.key(0)


@pytest.fixture(autouse=True)
def _names_in_examples(doctest_namespace):
    """Examples in docstrings take these names as known."""
    doctest_namespace.update(fcnn=fcnn, jax=jax, jnp=jnp)


@pytest.fixture(autouse=True)
def _bounded_memory(request):
    """Forget compiled programs now and then: thousands of small ones would fill the memory of a small machine."""
    yield
    request.config.tests_seen = getattr(request.config, "tests_seen", 0) + 1
    if request.config.tests_seen % 300 == 0:
        jax.clear_caches()
