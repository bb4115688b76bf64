"""The loop of a training: epochs, calls of the compiled step, checkpoints, and what ends it."""

from __future__ import annotations

import collections
import contextlib
import functools
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import at
from ..given import Params, State
from ..layer import Layer
from . import compiled_loop
from .batches import (
    Batches,
    Prefetcher,
    check_augmented,
    check_sizes,
    check_steps,
    checked,
    from_arrays,
    order_of,
    orders,
    placed,
    shapes_of,
)
from .callbacks import Every, answers, due, until_next
from .evaluate import batches_of, measured
from .examples import count_of, taken
from .history import History, check_monitor, reported
from .interrupt import Interrupt
from .mapped import in_file
from .nonfinite import NonFiniteError, search
from .optimizers import averaged_params
from .progress_bar import EpochBar
from .rates import learning_rate
from .resume import identity, latest
from .run import EpochInfo, Options, Run
from .saving import Saving
from .sharding import Lockstep, Sharding
from .step import TrainState, check_begin, start

#: seconds that one call should take: short enough for progress, checkpoints and Ctrl-C
CALL = 0.25


class Loop:
    """One training.

    Args:
        net: the network.
        data: ((x, ...), y), or Batches.
        key: random key.
        params: parameters to begin with, or None.
        state: state to begin with, or None.
        options: everything else.
    """

    def __init__(
        self, net: Layer, data: Any, key: jax.Array, params: Params | None, state: State | None, options: Options
    ) -> None:
        self.net, self.data, self.key, self.options = net, data, key, options
        self.sharding = options.sharding
        self.arrays = None if isinstance(data, Batches) else data
        with self.sharding.connected(lambda: "Nothing has been trained yet; start all of them again."):
            if self.arrays is None:
                with self.sharding.together():
                    inputs, targets = self.first = checked(
                        net, data.peek(), options.objective, self.sharding, "fit: data"
                    )
                self.sharding.check_same(self.first)
                self.count = self.batch_size = 0
                self.steps: int | None = data.steps()
            else:
                inputs, targets = self.arrays
                # every process has as many steps as the one with the fewest examples
                self.count = int(np.min(self.sharding.agree(np.int32(count_of(inputs)))))
                self.batch_size = min(options.batch_size // self.sharding.processes, self.count)
                self.sharding.check_batch(self.batch_size * self.sharding.processes)
                self.first = taken((inputs, targets), slice(self.batch_size))
                self.steps = check_steps(options.steps, self.count // self.batch_size)
            check_augmented(options.augment, inputs)
        keys = key if options.members is None else jax.random.split(key, options.members)

        def begin(key: jax.Array) -> TrainState:
            own = {"params": params, "state": state, "trainable": options.trainable}
            return start(net, options.optimizer, key, *shapes_of(inputs), **own)

        with at("fit"):
            check_begin(net, params, state, shapes_of(inputs))
        first = begin(keys) if options.members is None else jax.vmap(begin)(keys)
        if isinstance(data, Batches):
            with self.sharding.together():
                check_sizes(options.step, first, self.first, data.sizes(), self.sharding)
        with self.sharding.together():
            validation = self._first_validation()
            if options.patience is not None or options.keep_best:  # no ensemble gets here
                check_monitor(options.monitor, reported(net, options, first, self.first, validation))
        # the step takes over the memory of its train state, so every array in it has to be its own: not the caller's,
        # not an initialiser's, and not one that the optimizer keeps a second time
        self.train = self.sharding.everywhere(first)
        self.best = jax.tree.map(jnp.copy, self._in_use()) if options.keep_best else None
        self.history = History(options.objective, options.members)
        self.folds: Any = {}  # accumulators of the running epoch, on the devices
        self.epoch, self.done = 0, 0  # epochs finished, steps taken in the running one
        self.taken = 0  # steps in all
        self.told = 0  # steps when callbacks by steps were called last
        self.stopped: str | None = None
        self.compile_seconds = 0.0
        self.identity = identity(net, key, self.count, self.batch_size, options)
        self.saving = Saving(options.checkpoint, self.sharding)

    # the whole

    def run(self) -> Run:
        """Train, and give back what came of it."""
        options = self.options
        if options.checkpoint is None:
            with self.sharding.connected(lambda: "Nothing is kept of the run, which has no checkpoint=."):
                return self._train(Interrupt(watch=False))
        try:
            with self.sharding.connected(self.saving.newest):
                return self._run_with_store()
        finally:
            self.saving.close()

    def _run_with_store(self) -> Run:
        self.saving.open()
        self._take_up()
        if self.saving.store is not None:
            self.saving.store.prepare(self._tree())
        with Interrupt(watch=True) as interrupt:
            try:
                run = self._train(interrupt)
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                if interrupt.received is None:  # else it was saved, or is to end at once
                    self._rescue(error)
                raise
            self._save()
            self.saving.wait("What was trained is in the run that fit returns; save its params elsewhere")
            if interrupt.received is not None:
                self._leave(interrupt)
            return run

    def _rescue(self, error: BaseException) -> None:
        """Save what was reached before a callback, a loader or the device failed, where that can be done."""
        if self.sharding.processes > 1 or isinstance(error, NonFiniteError):
            return
        with contextlib.suppress(Exception):  # such as a state whose memory the step that failed had taken over
            self._save()
            error.add_note(self.saving.newest())

    def _train(self, interrupt: Interrupt) -> Run:
        resident = None
        if self.arrays is not None and self.sharding.processes == 1:
            resident = placed(self.arrays, self.sharding, self.options.members)
        while self.epoch < self.options.epochs and self.stopped is None:
            self.history.begin(self.history.seconds if self.done else 0.0)
            self.folds = self._accumulators()
            bar = EpochBar(self.epoch + 1, self.options.epochs, self.steps, self._shows(), self.done)
            try:
                if resident is not None:
                    self._resident_epoch(resident, bar, interrupt)
                else:
                    self._fed_epoch(bar, interrupt)
                if self.stopped is not None:  # within the epoch, which a resumed run completes
                    bar.abandon()
                    break
                self._end_epoch(bar)
            except BaseException:
                bar.abandon()
                raise
            self._end_together(interrupt)
        return self._result()

    def _end_together(self, interrupt: Interrupt) -> None:
        """End the run after an epoch where that is wished in any process."""
        received = interrupt.received or 0
        if self.sharding.processes > 1:
            told = self.sharding.agree(np.array([received, self.stopped is not None], np.int32))
            received = int(told[:, 0].max())
            if told[:, 1].any():
                self.stopped = self.stopped or f"process {told[:, 1].argmax()}"
        if received:
            interrupt.received = received
            self._leave(interrupt)

    def _shows(self) -> bool:
        return self.options.progress and (self.sharding.processes == 1 or jax.process_index() == 0)

    def _accumulators(self) -> Any:
        """What metrics accumulate in, as it was left or as it is before the first step."""
        known, members = self.history.folds if self.done else {}, self.options.members
        return self.sharding.everywhere(known or self.options.objective.folds(members))

    def _first_validation(self) -> Any:
        """The first batch to validate on, of loaders a checked one; None where there is none."""
        given, objective = self.options.validation, self.options.objective
        if not isinstance(given, Batches):
            return taken(given, slice(2)) if any(map(in_file, jax.tree.leaves(given))) else given
        return checked(self.net, given.peek(), objective, Sharding(), "fit: validation")

    # an epoch on data that are on the device

    def _resident_epoch(self, data: Any, bar: EpochBar, interrupt: Interrupt) -> None:
        options, steps = self.options, self.steps or 0
        take = compiled_loop.resident(
            options.step, self.batch_size, self.sharding, options.skip, options.members is not None
        )
        order = orders(self.key, self.epoch, self.count, self.options.members, self.sharding)
        epoch = np.int32(self.epoch)
        if not self.compile_seconds:
            bar.say("compiling")
            begun = time.perf_counter()
            # no step is taken, so that what follows is the time of steps alone
            self.train = take(self.train, *data, order, epoch, np.int32(0), np.int32(0), self.folds).train
            jax.block_until_ready(self.train.step)
            self.compile_seconds = time.perf_counter() - begun
            bar.restart()
        seconds = CALL  # of a step; the first call takes one
        while self.done < steps and self.stopped is None:
            most = until_next(options.callbacks, self.taken, self.saving.until(self.taken))
            wanted = max(1, min(int(CALL / seconds), compiled_loop.SLOTS, steps - self.done, most))
            begun = time.perf_counter()
            answer = take(self.train, *data, order, epoch, np.int32(self.done), np.int32(wanted), self.folds)
            self.train, self.folds, done = answer.train, answer.folds, int(answer.done)
            seconds = max((time.perf_counter() - begun) / max(done, 1), 1e-6)
            self.history.add(
                jax.tree.map(lambda a, done=done: np.asarray(a)[:done], answer.sums), np.asarray(answer.good)[:done]
            )
            self.history.folds = self.folds
            self.done, self.taken = self.done + done, self.taken + done
            if answer.stopped:
                chosen = np.asarray(order)[..., self.done * self.batch_size :][..., : self.batch_size]
                self._not_finite(taken(data, chosen), chosen)
            bar.count(done * self.batch_size * (options.members or 1))
            if bar.due():
                bar.update(self.done, self.history.latest())
            self._between(interrupt)

    # an epoch on batches that are handed in

    def _fed_epoch(self, bar: EpochBar, interrupt: Interrupt) -> None:
        take = compiled_loop.fed(self.options.step, self.sharding, self.options.skip)
        epoch, stopped = np.int32(self.epoch), self.sharding.everywhere(np.zeros((), bool))
        first = not self.compile_seconds
        waiting: collections.deque[Any] = collections.deque()
        ahead = Prefetcher(self._batches(), lambda given: (given, self.sharding.batch(given)))
        abreast = self._abreast(ahead, interrupt) if self.sharding.processes > 1 else None
        heard: dict[int, int] = {}
        begun, since = time.perf_counter(), self.done
        if first:
            bar.say("compiling")
        try:
            for number, ((host, (batch, places)), code) in enumerate(abreast or ((item, 0) for item in ahead)):
                told = self.sharding.tell(code)
                self.train, stopped, good, sums, told, self.folds = take(
                    self.train, stopped, batch, places, epoch, told, self.folds
                )
                waiting.append((host, stopped, good, sums, told, self.folds))
                if first and not number:
                    jax.block_until_ready(stopped)
                    self.compile_seconds = time.perf_counter() - begun
                    bar.restart()
                if len(waiting) > 1:  # read one step behind, so that the device has something to do meanwhile
                    heard = self._read(waiting.popleft(), bar)
                if heard:  # by all processes after the same step
                    break
                if self._must_look(waiting, interrupt):
                    while waiting:
                        self._read(waiting.popleft(), bar)
                    self._between(interrupt)
                    if self.stopped is not None:
                        break
            while waiting and not heard:
                heard = self._read(waiting.popleft(), bar)
            if abreast is not None and (signal := abreast.check(heard)) is not None:
                interrupt.received = signal
                self._leave(interrupt)
        except NonFiniteError:
            raise
        except Exception:
            if abreast is None:  # steps taken before a loader failed count
                while waiting:
                    self._read(waiting.popleft(), bar)
            raise
        finally:
            ahead.close()
        if self.done == since and not self.history.sums and not self.history.skipped:
            raise ValueError(f"fit: data: epoch {self.epoch + 1} has no batches")

    def _batches(self) -> Iterator[Any]:
        """Pairs of a batch and the places of its examples in the data, None where nobody knows them."""
        if self.arrays is None:
            for number, batch in enumerate(self.data.epoch(self.epoch, self.done), start=self.done + 1):
                what = f"fit: epoch {self.epoch + 1}, batch {number}"
                batch = checked(self.net, batch, self.options.objective, self.sharding, what)
                self.sharding.check_like(batch, self.first, what)
                yield batch, None
        else:
            order = np.asarray(order_of(self.key, self.epoch, self.count))
            order = order[: (self.steps or 0) * self.batch_size]
            inputs, targets = jax.tree.map(lambda a: a if in_file(a) else np.asarray(a), self.arrays)
            yield from from_arrays(inputs, targets, order, self.batch_size, self.done)

    def _abreast(self, ahead: Prefetcher, interrupt: Interrupt) -> Lockstep:
        """Batches in step with the other processes; a blank one is the first, which every process has."""
        places = None if self.arrays is None else np.arange(self.batch_size, dtype="int32")
        blank = functools.cache(lambda: ((self.first, places), self.sharding.batch((self.first, places))))
        known = self.steps is not None and (self.arrays is not None or self.options.steps is not None)
        count = (self.steps or 0) - self.done if known else None
        return Lockstep(iter(ahead), blank, count, lambda: interrupt.received)

    def _read(self, item: Any, bar: EpochBar) -> dict[int, int]:
        """Note down one step, unless a process told that it is none; the numbers are waited for here."""
        (host, places), stopped, good, sums, told, folds = item
        if heard := self.sharding.heard(told):
            return heard
        if stopped:
            self._not_finite(host, places)
        self.history.add(jax.tree.map(lambda a: np.asarray(a)[None], sums), np.asarray(good)[None])
        self.history.folds = self.sharding.local(folds)
        self.done, self.taken = self.done + 1, self.taken + 1
        bar.count(count_of(host[0]) * self.sharding.processes)
        if bar.due():
            bar.update(self.done, self.history.latest())
        return {}

    def _must_look(self, waiting: collections.deque[Any], interrupt: Interrupt) -> bool:
        """Whether to see if a checkpoint is due or the run is to end."""
        ahead = self.taken + len(waiting)
        looks = self.saving.due(ahead) or bool(due(self.options.callbacks, ahead))
        if self.sharding.processes == 1:
            return interrupt.received is not None or looks
        # what ends the run is acted on where the other processes do, a step later
        return looks and not any(stopped or self.sharding.heard(told) for _, stopped, _, _, told, _ in waiting)

    # between calls

    def _between(self, interrupt: Interrupt) -> None:
        """Call callbacks and write a checkpoint where they are due, and end where that is wished."""
        called = due(self.options.callbacks, self.taken)
        if called and self.told != self.taken:
            self.told = self.taken
            stopped = answers(called, self._moment(self.epoch + 1, self.history.latest()))
            if self.sharding.processes == 1:
                self.stopped = stopped
        if self.saving.due(self.taken):
            self._save()
        if interrupt.received is not None and self.sharding.processes == 1:
            self._leave(interrupt)

    def _leave(self, interrupt: Interrupt) -> NoReturn:
        """Save, say where, and end the program with the status of its signal."""
        self._save()
        path, epochs = self.saving.wait("The same call with resume=True goes on from that one"), self.options.epochs
        message = f"stopped after step {self.taken:,}, in epoch {min(self.epoch + 1, epochs)} of {epochs}"
        if path is not None:
            message += f". Everything is in {path}; the same call with resume=True goes on from there."
            print(f"\n{interrupt.name}: {message}", file=sys.stderr, flush=True)
        interrupt.end(message)

    # the end of an epoch

    def _end_epoch(self, bar: EpochBar) -> None:
        options, means = self.options, self.history.means()
        if "loss" not in means:
            # the epoch begins anew where the run is taken up
            self.done = 0
            self.history.restart()
            raise self._failure(
                f"every step of epoch {self.epoch + 1} came out with values that are not finite and was left out; "
                "without non_finite='skip' the first is named",
                "every step",
            )
        if options.validation is not None:
            given = options.validation
            if isinstance(given, Batches):
                given = batches_of(self.net, given, options.objective, "fit: validation", self.epoch)
            found = measured(
                self.net,
                *self._in_use(),
                given,
                options.objective,
                sharding=self.sharding,
                members=options.members,
                batch_size=min(512, 4 * count_of(self.first[0]) * self.sharding.processes),
                precision=options.precision,
            )
            means |= {f"validation_{name}": np.asarray(value).tolist() for name, value in found.items()}
        if options.patience is not None or options.keep_best:
            check_monitor(options.monitor, means)  # later batches may be of another kind than the first
        if options.skip:
            means["skipped"] = self.history.skipped
        bar.close(self.done, means)
        rate = learning_rate(options.optimizer, self.sharding.local(self.train.optimizer_state))
        if rate is not None:
            means["learning_rate"] = rate
        self.history.close(means)
        self.epoch, self.done = self.epoch + 1, 0
        if self.best is not None and self.history.best(options.monitor, options.mode) == self.epoch - 1:
            self.best = jax.tree.map(jnp.copy, self._in_use())
        by_epoch = [callback for callback in options.callbacks if not isinstance(callback, Every)]
        self.stopped = answers(by_epoch, self._moment(self.epoch, means)) or self.stopped
        self._check_patience()

    def _moment(self, epoch: int, metrics: dict[str, Any]) -> EpochInfo:
        return EpochInfo(epoch, self.options.epochs, metrics, self.history.epochs, *self._in_use(), self.taken)

    def _check_patience(self) -> None:
        best = self.history.best(self.options.monitor, self.options.mode)
        if best is not None and self.options.patience is not None and self.epoch - 1 - best >= self.options.patience:
            self.stopped = self.stopped or f"patience: {self.options.monitor} was best in epoch {best + 1}"

    def _in_use(self) -> tuple[Params, State]:
        """Parameters and state as they would be used now."""
        params = self.train.params
        if self.options.averaging:
            average = averaged_params(self.train.optimizer_state)
            chosen = self.options.trainable
            params = average if chosen is None else chosen.merged(average, params)
        return params, self.train.state

    def _result(self, best: bool = True) -> Run:
        found = best and self.history.best(self.options.monitor, self.options.mode) is not None
        params, state = self.best if self.best is not None and found else self._in_use()
        params, state, train = self.sharding.local((params, state, self.train))
        epoch = self.history.best(self.options.monitor, self.options.mode)
        return Run(
            params=params,
            state=state,
            history=self.history.arrays(),
            train=train,
            stopped=self.stopped,
            best_epoch=None if epoch is None else epoch + 1,
            compile_seconds=self.compile_seconds,
        )

    # values that are not finite

    def _not_finite(self, batch: Any, examples: Any) -> None:
        """Raise the error for a step that came out with a value that is not finite."""
        options = self.options
        train = jax.tree.map(jnp.array, self.sharding.local(self.train))
        batch = jax.tree.map(jnp.asarray, jax.device_get(batch))
        where, found = search(self.net, train, batch, options, examples, np.int32(self.epoch))
        if where == "optimizer" and self.sharding.processes > 1:
            where, found = "another process", "nothing of it is in this process's part of the batch"
        what = f"step {self.taken + 1:,}, epoch {self.epoch + 1}, came out with values that are not finite: {found}"
        raise self._failure(what, where)

    def _failure(self, what: str, where: str) -> NonFiniteError:
        self._save()
        path = self.saving.wait("What was trained is in the error's .run")
        kept = "the state before it is in this error's .run" + (f" and in {path}" if path else "")
        advice = "lower the learning rate, clip gradients (optax.clip_by_global_norm)"
        if "batch" in where:
            advice = "look at the data"
        if not self.options.skip:
            advice += ", or leave such steps out: non_finite='skip'"
        return NonFiniteError(f"fit: {what}; {kept}. To go on, {advice}", self._result(best=False), where)

    # checkpoints

    def _save(self) -> None:
        """Write a checkpoint of this moment, unless there is one."""
        self.saving.save(self.taken, self.epoch, lambda: (self._tree(), self._about()))

    def _about(self) -> dict[str, Any]:
        return {"run": self.identity, "epoch": self.epoch, "done": self.done, "history": self.history.written()}

    def _tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = {"train": self.train}
        if self.best is not None:
            tree["best"] = {"params": self.best[0], "state": self.best[1]}
        return tree

    def _take_up(self) -> None:
        """Go on from the newest checkpoint, or see that there is none to be overwritten."""
        found = latest(self.saving.store, self._tree(), self.options, self.identity, self.sharding)
        if found is None:
            return
        self.taken, tree, about = found
        self.train = self.sharding.everywhere(tree["train"])
        if self.best is not None:
            self.best = (
                self.sharding.everywhere(tree["best"]["params"]),
                self.sharding.everywhere(tree["best"]["state"]),
            )
        self.epoch, self.done = about["epoch"], about["done"]
        self.history = History.read(about["history"], self.options.objective, self.options.members)
        self.saving.written = (self.taken, self.epoch)
        self._check_patience()  # what a callback ended goes on, what patience ended is over
