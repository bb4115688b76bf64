"""`make test` compiles its programs quickly (conftest.py); the tests of numbers pass as users compile them, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import xla_flags

#: files, and which of their tests: those of numbers that XLA's optimisations could change
FILES = {
    "test_algorithms": "definition or rounding or in_rows",
    "test_alone": "",
    "test_contract": "compiled_equals_eager",
    "test_neighbours": "results_and_gradients or equal_values or nan or in_one_order or phases",
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


def test_what_the_tests_start_is_compiled_as_users_do():
    assert not set(xla_flags.known().split()) & set(os.environ.get("XLA_FLAGS", "").split())
