"""The tests hand XLA those flags alone that it knows: an unknown one ends the process."""

import json
import subprocess
import sys

import pytest
import xla_flags

UNKNOWN = "--xla_flag_of_another_version=1"


@pytest.fixture
def afresh(monkeypatch):
    """As in a process that nobody has told what was found."""
    monkeypatch.delenv(xla_flags.FOUND, raising=False)
    return xla_flags.known.__wrapped__


def test_an_unknown_flag_is_left_out_and_the_others_are_kept(afresh):
    level = "--xla_backend_optimization_level=0"
    assert xla_flags.tried([UNKNOWN, level]) == [False, True]
    assert afresh(f"{UNKNOWN} {level}") == level
    assert afresh(UNKNOWN) == ""


def test_what_is_found_is_handed_on_to_children(afresh, monkeypatch):
    known = afresh()
    monkeypatch.setattr(xla_flags, "tried", lambda settings: pytest.fail("asked again"))
    assert afresh() == known
    code = "import json, xla_flags as x; x.tried = None; print(json.dumps(x.known()))"
    told = subprocess.run([sys.executable, "-c", code], cwd=xla_flags.__file__.rsplit("/", 1)[0], capture_output=True)
    assert json.loads(told.stdout) == known


def test_what_was_found_for_another_jaxlib_is_not_believed(afresh, monkeypatch):
    monkeypatch.setenv(xla_flags.FOUND, json.dumps(["0.0.1", xla_flags.WANTED, UNKNOWN]))
    monkeypatch.setattr(xla_flags, "tried", lambda settings: [True] * len(settings))
    assert afresh() == xla_flags.WANTED
