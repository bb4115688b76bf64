"""The tests compile their programs quickly (conftest.py); the tests of numbers pass as users compile them, too."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import xla_flags
from test_contract import CASES, both_ways, compiled_both, made

#: what XLA does unless it is told to compile quickly, of the flags that the installed jaxlib knows
AS_USERS = {
    "xla_backend_optimization_level": 3,
    "xla_cpu_use_fusion_emitters": True,
    "xla_cpu_parallel_codegen_split_count": 32,
}
#: files, and which of their tests: those of numbers that XLA's optimisations could change
FILES = {
    "test_algorithms": "definition or rounding or in_rows",
    "test_noinline": "",
    "test_fused_runs": "(results_and_gradients and relu) or equal_values or nan or stay_in_one_order or turning_back",
    "test_nonfinite": "place_is_named",
}


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_numbers_are_right_as_users_compile_them(file):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["FCNN_TESTS_OPTIMISED"] = "1"
    path = Path(__file__).with_name(f"{file}.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", "-k", FILES[file], str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_case_gives_what_it_gives_compiled_quickly(name):
    case, params, state, inputs = made(name)
    given = case.net, params, state, inputs
    options = {flag: AS_USERS[flag] for flag in xla_flags.options()}
    as_users = jax.jit(both_ways, compiler_options=options)(*given)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6), as_users, compiled_both(*given))


def test_what_the_tests_start_is_compiled_as_users_do():
    assert not set(xla_flags.known().split()) & set(os.environ.get("XLA_FLAGS", "").split())


def test_every_flag_of_quick_compilation_has_what_users_have():
    assert set(AS_USERS) == {flag.split("=")[0].removeprefix("--") for flag in xla_flags.WANTED.split()}
