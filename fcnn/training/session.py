"""A run from its first step to its last: the core, and around it checkpoints, signals, callbacks and progress bars."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import layer_path
from ..types import Params, State
from .batches import Batches, check_sizes, checked
from .callbacks import Every, answers, due, until_next
from .checkpoint import CheckpointError
from .config import FitConfig
from .core import Chunk, Progress, run_epoch
from .evaluate import batches_of, measured
from .examples import count_of, taken
from .history import History
from .interrupt import Interrupt
from .mapped import in_file
from .monitor import Monitor, check_monitor, reported
from .nonfinite import NonFiniteError, failure_message, search
from .optimizers import averaged_params
from .progress_bar import EpochBar
from .rates import learning_rate
from .resume import identity, latest, sums_of, written
from .run import EpochInfo, Run
from .saving import Saving
from .sharding import Sharding
from .step import TrainState, check_begin, start
from .training_data import TrainingData


class Session:
    """One run of ``fit``.

    Args:
        config: the settings.
        source: the data, as ``check_source`` returns them.

    Attributes:
        progress: how far the run is.
    """

    def __init__(self, config: FitConfig, source: Any) -> None:
        self.config, self.sharding, self.processes = config, config.sharding, config.sharding.processes
        with self.processes.explain_loss(lambda: "Nothing has been trained yet; start all of them again."):
            self.data = TrainingData.of(config, source)
        first = self._begin()
        self._check_before_training(first)
        # the step takes over the memory of its train state, so every array in it has to be its own: not the caller's,
        # not an initialiser's, and not one that the optimizer keeps a second time
        self.progress = Progress(self.sharding.replicate(first))
        self.history = History()
        self.monitor = Monitor(config, self._in_use)
        self.saving = Saving(config.checkpoint, self.processes)
        self.identity = identity(config, self.data.count, self.data.batch_size)
        self.stopped: str | None = None
        self.interrupt = Interrupt(watch=config.checkpoint is not None)
        self.bar = EpochBar(1, config.epochs, None, False)
        self.steps = self.data.steps_for(config, lambda: self.interrupt.received)
        self._called_after = 0  # steps when callbacks by steps were called last

    # before the first step

    def _begin(self) -> TrainState:
        """The train state before the first step."""
        config, shapes = self.config, self.data.shapes

        def begin(key: jax.Array) -> TrainState:
            own = {"params": config.params, "state": config.state, "trainable": config.trainable}
            return start(config.net, config.optimizer, key, *shapes, **own)

        with layer_path("fit"):
            check_begin(config.net, config.params, config.state, shapes)
        if config.members is None:
            return begin(config.key)
        return jax.vmap(begin)(jax.random.split(config.key, config.members))

    def _check_before_training(self, first: TrainState) -> None:
        """Raise for what shapes alone show to be wrong."""
        config, source = self.config, self.data.source
        if isinstance(source, Batches):
            with self.processes.share_errors():
                check_sizes(config.step, first, self.data.first, source.sizes(), self.sharding)
        with self.processes.share_errors():
            validation = self._first_validation()
            if config.patience is not None or config.keep_best:
                check_monitor(config.monitor, reported(config, first, self.data.first, validation))

    def _first_validation(self) -> Any:
        """The first batch to validate on, or all of the arrays; None without validation data."""
        given = self.config.validation
        if isinstance(given, Batches):
            return checked(self.config.net, given.peek(), self.config.measures, Sharding(), "fit: validation")
        return taken(given, slice(2)) if any(map(in_file, jax.tree.leaves(given))) else given

    # the run

    def run(self) -> Run:
        """Train, and return the result."""
        if self.config.checkpoint is None:
            with self.processes.explain_loss(lambda: "Nothing is kept of the run, which has no checkpoint=."):
                return self._train()
        try:
            with self.processes.explain_loss(self.saving.newest):
                return self._run_with_checkpoints()
        finally:
            self.saving.close()

    def _run_with_checkpoints(self) -> Run:
        self.saving.open()
        self.resume()
        self.saving.prepare(self._tree())
        with self.interrupt:
            try:
                run = self._train()
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                if self.interrupt.received is None:  # else it was saved, or is to end at once
                    self._rescue(error)
                raise
            self._save()
            self.saving.wait("What was trained is in the run that fit returns; save its params elsewhere")
            if self.interrupt.received is not None:
                self._leave()
            return run

    def _rescue(self, error: BaseException) -> None:
        """Save what was reached before a callback, a loader or the device failed, if possible."""

        def save() -> None:
            self._save()
            error.add_note(self.saving.newest())

        if not isinstance(error, NonFiniteError):
            with contextlib.suppress(Exception):  # such as a state whose memory the step that failed had taken over
                self.processes.salvage(save)

    def _train(self) -> Run:
        config = self.config
        while self.progress.epoch < config.epochs and self.stopped is None:
            before = self._start_epoch()
            try:
                with self.steps.epoch(before, self.bar.restart) as advance:
                    end = run_epoch(before, advance, self._limit, self.between)
                self.progress = end.progress
                if end.failure is not None:
                    raise end.failure
                if end.bad is not None:
                    raise self._non_finite(*end.bad)
                self._check_not_empty(before)
                self.stopped = end.stopped
                if self.stopped is None:  # else a resumed run completes the epoch
                    self._end_epoch()
            finally:
                self.bar.abandon()
            self._agree_to_end()
        return self._result()

    def _start_epoch(self) -> Progress:
        """Start the clock, the bar and the accumulators of an epoch, or of the rest of one."""
        config, progress = self.config, self.progress
        self.history.start(self.history.seconds if progress.done else 0.0)
        shows = config.progress and self.processes.leads
        self.bar = EpochBar(progress.epoch + 1, config.epochs, self.data.steps, shows, progress.done)
        if not self.steps.compile_seconds:
            self.bar.say("compiling")
        known = progress.sums.accumulators if progress.done else None
        known = self.sharding.replicate(known or config.measures.accumulators(config.members))
        self.progress = replace(progress, sums=replace(progress.sums, accumulators=known))
        return self.progress

    def _check_not_empty(self, before: Progress) -> None:
        sums = self.progress.sums
        if self.progress.done == before.done and not sums.sums and not sums.skipped:
            raise ValueError(f"fit: data: epoch {self.progress.epoch + 1} has no batches")

    def _limit(self, taken: int) -> int:
        """The most steps until a callback or a checkpoint is due."""
        return until_next(self.config.callbacks, taken, self.saving.until(taken))

    def between(self, progress: Progress, chunk: Chunk) -> str | None:
        """Show progress, call callbacks and write a checkpoint if they are due, and leave after a signal.

        Returns:
            Why training ends here; None if it goes on.
        """
        self.progress = progress
        self.bar.count(chunk.examples)
        if self.bar.due():
            self.bar.update(progress.done, self._latest())
        stopped, called = None, due(self.config.callbacks, progress.taken)
        if called and self._called_after != progress.taken:
            self._called_after = progress.taken
            stopped = self.processes.stops(answers(called, self._info(progress.epoch + 1, self._latest())))
        if self.saving.due(progress.taken):
            self._save()
        signal = self.processes.signal(self.interrupt.received, chunk.signal)
        if signal is not None:
            self.interrupt.received = signal
            self._leave()
        return stopped

    def _leave(self) -> NoReturn:
        """Save, say where, and end the program with the status of its signal."""
        self._save()
        progress, epochs = self.progress, self.config.epochs
        path = self.saving.wait("The same call with resume=True goes on from that one")
        message = f"stopped after step {progress.taken:,}, in epoch {min(progress.epoch + 1, epochs)} of {epochs}"
        if path is not None:
            message += f". Everything is in {path}; the same call with resume=True goes on from there."
            print(f"\n{self.interrupt.name}: {message}", file=sys.stderr, flush=True)
        self.interrupt.end(message)

    # the end of an epoch

    def _end_epoch(self) -> None:
        config, sums = self.config, self.progress.sums
        values = self._values(sums.sums, self.processes.local(sums.accumulators) if sums.sums else None)
        if "loss" not in values:
            self.progress = self.progress.restart_epoch()  # a resumed run begins this epoch anew
            raise self._failure(
                f"every step of epoch {self.progress.epoch + 1} came out with values that are not finite and was left "
                "out; without non_finite='skip' the first is named",
                "every step",
            )
        if config.validation is not None:
            values |= {f"validation_{name}": value for name, value in self._validate().items()}
        if self.monitor.matters:
            check_monitor(config.monitor, values)  # later batches may be of another kind than the first
        if config.skips:
            values["skipped"] = self.progress.sums.skipped
        self.bar.close(self.progress.done, values)
        rate = learning_rate(config.optimizer, self.processes.local(self.progress.train.optimizer_state))
        if rate is not None:
            values["learning_rate"] = rate
        self.history.close(values)
        self.progress = self.progress.next_epoch()
        epoch = self.progress.epoch
        self.monitor.update(self.history, epoch - 1)
        by_epoch = [callback for callback in config.callbacks if not isinstance(callback, Every)]
        self.stopped = answers(by_epoch, self._info(epoch, values))
        self.stopped = self.stopped or self.monitor.out_of_patience(self.history, epoch)

    def _validate(self) -> dict[str, Any]:
        config, data = self.config, self.config.validation
        if isinstance(data, Batches):
            data = batches_of(config.net, data, config.measures, "fit: validation", self.progress.epoch)
        found = measured(
            config.net,
            *self._in_use(),
            data,
            config.measures,
            batch_size=min(512, 4 * count_of(self.data.first[0]) * self.processes.count),
            sharding=self.sharding,
            members=config.members,
            precision=config.precision,
        )
        return {name: np.asarray(value).tolist() for name, value in found.items()}

    def _agree_to_end(self) -> None:
        """End the run after an epoch if any process has a reason to."""
        signal, self.stopped = self.processes.agree_to_end(self.interrupt.received, self.stopped)
        if signal is not None:
            self.interrupt.received = signal
            self._leave()

    # what others are told

    def _latest(self) -> dict[str, Any]:
        """The values of the last step that was not left out, without arrays."""
        return {name: value for name, value in self._values(self.progress.sums.last).items() if np.ndim(value) < 2}

    def _values(self, sums: Any, accumulators: Any = None) -> dict[str, Any]:
        """Loss and metrics from sums; for an ensemble, a list of each."""
        found = self.config.measures.numbers(sums, accumulators, self.config.members)
        return {name: np.asarray(value).tolist() for name, value in found.items()}

    def _info(self, epoch: int, metrics: dict[str, Any]) -> EpochInfo:
        history = self.history.epochs
        return EpochInfo(epoch, self.config.epochs, metrics, history, *self._in_use(), self.progress.taken)

    def _in_use(self) -> tuple[Params, State]:
        """Parameters and state as they would be used now."""
        train = self.progress.train
        params = train.params
        if self.config.averages:
            average, chosen = averaged_params(train.optimizer_state), self.config.trainable
            params = average if chosen is None else chosen.merged(average, params)
        return params, train.state

    def _result(self, best: bool = True) -> Run:
        epoch = self.monitor.best(self.history)
        kept = self.monitor.kept if best and epoch is not None else None
        params, state, train = self.processes.local((*(kept or self._in_use()), self.progress.train))
        return Run(
            params=params,
            state=state,
            history=self.history.arrays(),
            train=train,
            stopped=self.stopped,
            best_epoch=None if epoch is None else epoch + 1,
            compile_seconds=self.steps.compile_seconds,
        )

    # values that are not finite

    def _non_finite(self, batch: Any, examples: Any) -> NonFiniteError:
        """The error for a step that came out with a value that is not finite."""
        progress = self.progress
        train = jax.tree.map(jnp.array, self.processes.local(progress.train))
        batch = jax.tree.map(jnp.asarray, jax.device_get(batch))
        where, found = self.processes.blame(*search(self.config, train, batch, examples, np.int32(progress.epoch)))
        what = f"step {progress.taken + 1:,}, epoch {progress.epoch + 1}, came out with values that are not finite"
        return self._failure(f"{what}: {found}", where)

    def _failure(self, what: str, where: str) -> NonFiniteError:
        self._save()
        path = self.saving.wait("What was trained is in the error's .run")
        return NonFiniteError(failure_message(what, where, path, self.config.skips), self._result(best=False), where)

    # checkpoints

    def _save(self) -> None:
        """Write a checkpoint, unless there is one of this progress."""
        self.saving.save(self.progress.taken, self.progress.epoch, lambda: (self._tree(), self._about()))

    def _about(self) -> dict[str, Any]:
        accumulators = self.processes.local(self.progress.sums.accumulators)
        return {"run": self.identity, **written(self.progress, accumulators, self.history)}

    def _tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = {"train": self.progress.train}
        if self.monitor.kept is not None:
            tree["best"] = dict(zip(("params", "state"), self.monitor.kept, strict=True))
        return tree

    def resume(self) -> None:
        """Continue from the newest checkpoint, or see that there is none to be overwritten."""
        like = self._tree()
        found = self.processes.first(
            lambda: latest(self.saving.store, like, self.config.resume, self.identity), like, CheckpointError
        )
        if found is None:
            return
        taken, tree, about = found
        tree = self.sharding.replicate(tree)
        sums, self.history = sums_of(about, self.config.measures)
        self.progress = Progress(tree["train"], about["epoch"], about["done"], taken, sums)
        if self.monitor.kept is not None:
            self.monitor.kept = (tree["best"]["params"], tree["best"]["state"])
        self.saving.written = (taken, self.progress.epoch)
        # a run that a callback ended goes on, one that is out of patience is over
        self.stopped = self.monitor.out_of_patience(self.history, self.progress.epoch)
