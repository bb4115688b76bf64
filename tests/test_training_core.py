"""The core of training: progress, sums and epochs, without a network or a compiled step."""

import dataclasses

import numpy as np
import pytest

from fcnn.training.core import Chunk, EpochSums, Progress, run_epoch

EXAMPLES = np.random.default_rng(0).integers(1, 9, 23).astype(np.float32)
LOSSES = np.random.default_rng(1).normal(size=23).astype(np.float32)


def stepper(steps, most_at_once=99, bad=None, failing=None, left_out=()):
    """A compiled loop in Python: its train state is the list of steps that were taken."""

    def advance(progress, most):
        taken, failure, broken = [], None, None
        for step in range(progress.done, min(steps, progress.done + min(most, most_at_once))):
            if step == bad:
                broken = (f"batch {step}", [step])
                break
            if step == failing:
                failure = OSError("the disk is gone")
                break
            taken.append(step)
        at = np.array(taken, int)
        return Chunk(
            train=progress.train + taken,
            done=len(taken),
            good=np.array([step not in left_out for step in taken], bool),
            sums={"loss": {"sum": LOSSES[at], "weight": EXAMPLES[at]}, "norm": LOSSES[at] ** 2},
            accumulators={"steps": len(progress.train) + len(taken)},
            ended=progress.done + len(taken) == steps,
            bad=broken,
            failure=failure,
        )

    return advance


def run(advance, progress=None, every=99, between=lambda progress, chunk: None):
    return run_epoch(progress or Progress([]), advance, lambda taken: every - taken % every, between)


def test_an_epoch_takes_every_step_once_and_in_order():
    end = run(stepper(23))
    assert (end.progress.train, end.progress.done, end.progress.taken, end.progress.epoch) == ([*range(23)], 23, 23, 0)
    assert (end.stopped, end.bad, end.failure) == (None, None, None)
    assert end.progress.sums.accumulators == {"steps": 23}


@pytest.mark.parametrize("most", [1, 2, 5, 22, 23])
def test_the_sums_do_not_depend_on_how_many_steps_are_taken_at_once(most):
    """Not in a single bit: each is the sum in float64 of one step after another."""
    sums = run(stepper(23, most)).progress.sums.sums
    for part, values in (("sum", LOSSES), ("weight", EXAMPLES)):
        total = np.float64(0)
        for value in values:
            total += np.float64(value)
        assert sums["loss"][part].tobytes() == total.tobytes()
    assert sums["norm"]["weight"] == 23  # a plain number weighs 1


def test_an_epoch_that_is_resumed_ends_as_one_that_was_not_stopped():
    first = run(stepper(23, 4), between=lambda progress, chunk: "enough" if progress.done >= 9 else None)
    assert (first.stopped, first.progress.done) == ("enough", 12)
    second, whole = run(stepper(23, 7), first.progress).progress, run(stepper(23)).progress
    assert (second.train, second.taken) == (whole.train, whole.taken)
    for name, parts in whole.sums.sums.items():
        assert {part: value.tobytes() for part, value in parts.items()} == {
            part: value.tobytes() for part, value in second.sums.sums[name].items()
        }


def test_an_epoch_of_which_all_steps_are_taken_ends_at_once():
    done = run(stepper(5)).progress
    again = run(stepper(5), done).progress
    assert again.train == done.train
    assert again.sums.accumulators == {"steps": 5}


@pytest.mark.parametrize("every", [1, 3, 8])
def test_what_is_due_by_steps_is_called_after_exactly_those(every):
    seen = []
    run(stepper(23), every=every, between=lambda progress, chunk: seen.append(progress.taken))
    assert [taken for taken in seen if taken % every == 0] == [*range(every, 24, every)]


def test_a_bad_step_ends_the_epoch_and_does_not_count():
    called = []
    end = run(stepper(23, 4, bad=6), between=lambda progress, chunk: called.append(progress.done))
    assert end.bad == ("batch 6", [6])
    assert (end.progress.train, end.progress.taken) == ([*range(6)], 6)
    assert called == [4]  # nobody looks at a chunk that ended like this


def test_steps_before_a_failure_count():
    end = run(stepper(23, failing=10))
    assert isinstance(end.failure, OSError)
    assert end.progress.taken == 10
    assert end.progress.sums.sums["loss"]["weight"] == EXAMPLES[:10].sum()


def test_steps_that_are_left_out_count_as_steps_and_in_nothing_else():
    end = run(stepper(23, 5, left_out=(0, 7, 22)))
    kept = [step for step in range(23) if step not in (0, 7, 22)]
    assert (end.progress.taken, end.progress.sums.skipped) == (23, 3)
    assert end.progress.sums.sums["loss"]["weight"] == EXAMPLES[kept].sum()
    assert end.progress.sums.last["loss"]["sum"] == LOSSES[21]


def test_progress_is_a_value_that_cannot_change():
    before = Progress([])
    after = before.after(stepper(5)(before, 3))
    assert (before.done, before.train, before.sums.sums) == (0, [], {})
    assert after.done == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        after.done = 4
    following = after.next_epoch()
    assert (following.epoch, following.done, following.taken, following.sums.sums) == (1, 0, 3, {})
    restarted = after.restart_epoch()
    assert (restarted.epoch, restarted.done, restarted.taken, restarted.sums.sums) == (0, 0, 3, {})


def test_the_last_step_is_the_last_that_was_taken():
    sums = EpochSums()
    assert sums.last == {}
    sums = sums.add({"loss": np.array([3.0, 2.0])}, np.array([True, True]))
    assert sums.last["loss"] == {"sum": 2.0, "weight": 1.0}
    sums = sums.add({"loss": np.array([1.0, np.nan])}, np.array([True, False]))
    assert (sums.last["loss"]["sum"], sums.skipped) == (1.0, 1)
    assert sums.sums["loss"] == {"sum": 6.0, "weight": 3.0}
    members = EpochSums().add({"loss": np.array([[7.0, 8.0]])}, np.array([True]))  # of an ensemble
    assert members.last["loss"]["sum"].tolist() == [7.0, 8.0]
    nothing = EpochSums().add({"loss": np.array([np.nan])}, np.array([False]))
    assert (nothing.last, nothing.sums, nothing.skipped) == ({}, {}, 1)
