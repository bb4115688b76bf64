"""What one process does in place of communicating, and when a process announces that it stops; several in one test."""

import ast
import inspect
from pathlib import Path

import jax
import numpy as np
import pytest

import fcnn
from fcnn.training.packing import packed, unpacked
from fcnn.training.processes import END, FAILED, Lockstep, ManyProcesses, NoLockstep, OneProcess

FOLDER = Path(fcnn.__file__).parent / "training"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_one_file_alone_knows_how_many_processes_there_are(path):
    if path.name == "processes.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, (ast.Compare, ast.If, ast.IfExp, ast.While)):
            continue
        asked = node if isinstance(node, ast.Compare) else node.test
        names = [ast.unparse(part) for part in ast.walk(asked) if isinstance(part, ast.Attribute)]
        found = [name for name in names if name.endswith(("process_index", "process_count", "processes.count"))]
        assert not found, f"{path.name}, line {node.lineno}"


def test_the_null_form_has_every_operation():
    for many, one in ((ManyProcesses, OneProcess), (Lockstep, NoLockstep)):
        own = {name for name, value in vars(many).items() if inspect.isfunction(value) and name[0] != "_"}
        assert own - {"announce", "heard"} <= set(vars(one))  # these two are for Lockstep alone


def test_one_process_waits_for_nobody():
    one, tree = OneProcess(), {"a": np.arange(3)}
    assert one.local(tree) is tree
    assert one.add(tree) is tree
    assert one.merge(tree, None, "the metric") is tree
    assert one.gather(np.float64(0.1)).tolist() == [0.1]
    assert one.first(lambda: (4, tree, {}), None, RuntimeError) == (4, tree, {})
    assert one.agree_to_end(None, "patience") == (None, "patience")
    assert (one.signal(15, None), one.stops("enough"), one.blame("conv1", "NaN")) == (15, "enough", ("conv1", "NaN"))
    done = []
    one.salvage(lambda: done.append(1))
    assert done
    with pytest.raises(OSError, match="mine"), one.share_errors(), one.explain_loss(str):
        raise OSError("mine")
    lockstep = one.lockstep("ab", None, None, None)
    assert list(lockstep) == [("a", None), ("b", None)]
    assert (lockstep.heard(None), lockstep.conclude({}), lockstep.may_pause([])) == ({}, None, True)


class Two:
    """Two processes, of which this is the first; the other always has a batch."""

    def announce(self, code):
        return [code, 0]

    def heard(self, told):
        return {process: code for process, code in enumerate(told) if code}


def announced(batches, count=None, received=lambda: None, most=9):
    lockstep, found = Lockstep(batches, Two(), lambda: "blank", count, received), []
    for item, told in lockstep:
        found.append((item, told[0]))
        if told[0] or len(found) == most:  # all processes end after such a step
            break
    return found, lockstep


def test_a_process_without_a_batch_says_so_with_a_blank_one():
    found, lockstep = announced(["a", "b"])
    assert found == [("a", 0), ("b", 0), ("blank", END)]
    assert lockstep.conclude({0: END}) is None


def test_nothing_is_announced_where_all_know_the_number_of_batches():
    assert announced(["a", "b"], count=2)[0] == [("a", 0), ("b", 0)]


def test_a_signal_takes_the_place_of_a_batch():
    answers = iter([None, 15])
    found, lockstep = announced(["a", "b", "c"], received=lambda: next(answers))
    assert found == [("a", 0), ("b", 15)]  # the batch is there, and no process takes its step
    assert lockstep.conclude({0: 15}) == 15
    assert lockstep.conclude({0: END, 1: 2}) == 2


def test_an_error_is_raised_here_and_announced_to_the_others():
    def broken():
        yield "a"
        raise OSError("the disk is gone")

    found, lockstep = announced(broken())
    assert found == [("a", 0), ("blank", FAILED)]
    with pytest.raises(OSError, match="the disk is gone"):
        lockstep.conclude({0: FAILED})
    with pytest.raises(RuntimeError, match=r"process 1 of 1 stopped with an error in its data, which it shows"):
        announced(["a"])[1].conclude({1: FAILED})


def test_steps_in_flight_are_not_waited_for_where_one_ends_the_run():
    lockstep = announced(["a"])[1]
    assert lockstep.may_pause([(False, [0, 0])])
    assert not lockstep.may_pause([(False, [0, 0]), (True, [0, 0])])
    assert not lockstep.may_pause([(False, [0, END])])


def test_a_tree_comes_back_from_its_bytes():
    draw = np.random.default_rng(0)
    tree = {"a": draw.normal(size=(2, 3)), "b": [np.arange(4, dtype=np.int32), draw.normal(size=()).astype("float32")]}
    tree |= {"key": jax.random.key(3), "half": jax.numpy.ones(3, "bfloat16"), "empty": np.zeros((0, 2))}
    back = unpacked(packed(tree), tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True):
        if jax.dtypes.issubdtype(other.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
