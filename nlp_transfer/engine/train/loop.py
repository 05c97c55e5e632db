"""The one training loop: windows of examples, split into microbatches, exact however they are split."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from nlp_transfer.contracts import Evaluation, Guide, Hook, RunLog
from nlp_transfer.data.batches import plan_epoch, split_window
from nlp_transfer.engine.machine import measure_peak_memory
from nlp_transfer.engine.predict.forward import Feeder, Microbatch
from nlp_transfer.engine.train.average import find_decay
from nlp_transfer.engine.train.checkpoint import (
    CheckpointStore,
    RandomState,
    Snapshot,
    capture_random,
    collect_optimizer,
    restore_optimizer,
    restore_random,
    take_random,
)
from nlp_transfer.engine.train.masters import HalfAdamW
from nlp_transfer.engine.train.objectives import Objective
from nlp_transfer.engine.train.optimizer import build_optimizer, build_schedule
from nlp_transfer.engine.train.prefetch import Prefetcher
from nlp_transfer.engine.train.state import LoopState
from nlp_transfer.engine.train.streams import Stream
from nlp_transfer.engine.train.weights import TrainedWeights
from nlp_transfer.engine.train.window import Rows, Window, WindowStep, run_window_by_parts
from nlp_transfer.errors import OutputError, StorageError, name_cause
from nlp_transfer.recipe.schema import LOWER_IS_BETTER, TrainingConfig
from nlp_transfer.stopping import Stopped, find_request, hold_signals, is_watched, raise_request

__all__ = ["OTHER_ROWS", "LoopSetup", "count_steps", "run_loop"]

OTHER_ROWS = (
    "{place}: the run was broken off on other rows than these. Give it the same data, or name another folder: "
    "report.output_dir=runs/NAME."
)
"""Said where a broken-off run would go on with other rows."""

AGREE_STEPS = 10
"""Most steps between two moments at which several processes agree on stopping and saving; chosen. One small exchange
then, beside those of every step."""

COUNTS = "counts"
"""Names the counts of tokens beside the random state of a process."""

Plan = Callable[[int], Sequence[np.ndarray]]


@dataclass
class LoopSetup:
    """Everything the loop is given.

    Attributes:
        model: The adapted model, on the CPU or its device.
        feeder: The training split.
        objective: Sums the loss of a microbatch.
        training: The recipe's training section.
        accelerator: Places, wraps and steps.
        new_parameters: Names that take the head's learning rate.
        rates: Factor on the peak rate by parameter name; 1 where absent.
        eval_modules: Modules that stay in evaluation mode.
        guides: Steer weights and gradients.
        evaluate: Scores the model on validation; None where there is no validation split.
        hooks: Watchers.
        store: Where checkpoints go; None for no checkpoints.
        rows: Names the rows of the run; checkpoints of other rows are refused.
        plan: Gives the windows of an epoch, in place of the recipe's own order.
        window: Turns the examples of an update into gradients.
        streams: Further rows of every update.
        half: Whether the model computes in bf16, its weights kept in float32 beside it; no guide holds weights then.
    """

    model: nn.Module
    feeder: Feeder
    objective: Objective
    training: TrainingConfig
    accelerator: Accelerator
    new_parameters: frozenset[str] = frozenset()
    rates: Mapping[str, float] = field(default_factory=dict)
    eval_modules: tuple[str, ...] = ()
    guides: Sequence[Guide] = ()
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    hooks: Sequence[Hook] = ()
    store: CheckpointStore | None = None
    rows: str = ""
    plan: Plan | None = None
    window: Window = run_window_by_parts
    streams: Sequence[Stream] = ()
    half: bool = False

    def windows(self, epoch: int) -> Sequence[np.ndarray]:
        """Plan one epoch: every example once, in windows of one update each."""
        if self.plan is not None:
            return self.plan(epoch)
        return plan_epoch(
            self.feeder.lengths,
            batch_size=self.training.batch_size,
            seed=self.training.seed,
            epoch=epoch,
            group_by_length=self.training.group_by_length,
        )


def count_steps(num_examples: int, training: TrainingConfig) -> int:
    """Count the updates of a run.

    Args:
        num_examples: Examples in train.
        training: Epochs, batch size, and the limit on steps.

    Returns:
        At least 1.

    Example:
        >>> count_steps(100, TrainingConfig(epochs=1.5, batch_size=32))
        6
    """
    if training.max_steps is not None:
        return training.max_steps
    return max(1, round(training.epochs * -(-num_examples // training.batch_size)))


def run_loop(setup: LoopSetup) -> RunLog:
    """Train; end with the best weights in place where the recipe says so.

    Args:
        setup: Model, data, loss and everything that watches.

    Returns:
        What happened.

    Raises:
        StorageError: A checkpoint could not be written.
        OutputError: The checkpoints are of a run on other rows.
        KeyboardInterrupt: Someone broke it off; a checkpoint was saved first, unless an update was half done.
        Stopped: A signal did, on the command line; the update at hand was finished and a checkpoint saved.
    """
    loop = _Loop(setup)
    try:
        with loop.holding_all():
            loop.resume()
            loop.is_whole = True
            # What a run still owes that was broken off between an update and the evaluation behind it.
            loop.look_and_save()
            while not loop.is_done:
                loop.take_step(loop.next_window())
                loop.look_and_save()
            return loop.finish()
    except KeyboardInterrupt as stop:
        loop.save_broken(stop)
        raise
    finally:
        loop.prefetcher.close()
        for hook in setup.hooks:
            hook.close()


class _Loop:
    """The loop's small named steps."""

    def __init__(self, setup: LoopSetup) -> None:
        self.setup, self.training, self.accelerator = setup, setup.training, setup.accelerator
        self.num_steps = count_steps(setup.feeder.encoded.num_examples, self.training)
        self.lengths = setup.feeder.lengths
        feeders = [setup.feeder, *(stream.feeder for stream in setup.streams)]
        decay = find_decay(self.training.ema_share, self.num_steps)
        holds = any(guide.holds_weights for guide in setup.guides)
        self.weights = TrainedWeights(setup.model, feeders, decay=decay, half=setup.half, holds_weights=holds)
        masters = self.weights.masters
        optimizer = build_optimizer(setup.model, self.training, setup.new_parameters, setup.rates, masters)
        self.schedule: LambdaLR = build_schedule(optimizer, self.training, self.num_steps)
        self.plain_optimizer = optimizer
        # It takes gradients from the model, and clips them, in its own pass over memory.
        self.is_one_pass = isinstance(optimizer, HalfAdamW)
        self.model, self.optimizer = self.accelerator.prepare(setup.model, optimizer)
        self.state = LoopState(rows=setup.rows)
        self.state.log.device = self.accelerator.device.type
        self.state.log.num_processes = self.accelerator.num_processes
        self.best_weights: dict[str, Tensor] | None = None
        self.unread: list[Tensor] = []
        self.is_split = False
        # Whether what stands now can be gone on from: not while an update is half applied.
        self.is_whole = False
        # What there was before something that may be broken off and done again: random state, and counts of tokens.
        self.begun: tuple[RandomState, int, int] | None = None
        self.saved_step, self.saved_at = 0, time.monotonic()
        self.prefetcher = Prefetcher(setup.feeder, is_on=self.accelerator.device.type == "cuda")
        self.windows = setup.windows(0)
        for guide in setup.guides:
            guide.start(self.num_steps)
        self.set_modes()

    @property
    def is_done(self) -> bool:
        """Whether the last update is behind."""
        return self.state.log.steps >= self.num_steps or self.state.log.stopped_early

    def set_modes(self) -> None:
        """Training mode, except for what is frozen."""
        self.setup.model.train()
        for name in self.setup.eval_modules:
            self.setup.model.get_submodule(name).eval()

    def next_window(self) -> np.ndarray:
        """The next examples; plans the next epoch where this one is through."""
        if self.state.position == len(self.windows):
            with self.changing():
                self.state.epoch += 1
                self.state.position = 0
                self.windows = self.setup.windows(self.state.epoch)
        return self.windows[self.state.position]

    def split(self, window: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """This process's microbatches of a window of rows that have these lengths."""
        return split_window(
            window,
            lengths,
            num_processes=self.accelerator.num_processes,
            rank=self.accelerator.process_index,
            microbatch_size=self.training.microbatch_size,
            max_tokens=self.training.max_tokens,
        )

    def foresee(self) -> list[np.ndarray]:
        """The microbatches of the step after this one; none behind the end of an epoch, which is not planned yet."""
        following = self.state.position + 1
        return self.split(self.windows[following], self.lengths) if following < len(self.windows) else []

    def holding_all(self) -> contextlib.AbstractContextManager[None]:
        """Several processes hold signals throughout, so that none leaves while another waits for it."""
        is_alone = self.accelerator.num_processes == 1
        return contextlib.nullcontext() if is_alone or self.setup.store is None else hold_signals()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Mark a block that leaves nothing to go on from where it is broken off; signals wait for its end."""
        with hold_signals():
            self.is_whole = False
            yield
            self.is_whole = True

    def begin(self) -> None:
        """Mark the start of what can be broken off and done again."""
        log = self.state.log
        self.begun = None if self.setup.store is None else (take_random(), log.tokens, log.padded_tokens)

    def take_step(self, window: np.ndarray) -> None:
        """One update; a signal waits for its end, where a checkpoint can follow."""
        with contextlib.nullcontext() if self.setup.store is None else hold_signals():
            started = time.perf_counter()
            if not is_watched():
                self.begin()
            # What a guide does before the forward passes is not undone.
            with self.changing() if self.setup.guides else contextlib.nullcontext():
                total = self.add_gradients(window)
                with self.changing():
                    rate = self.update_weights(window, total)
                    self.begun = None
            log = self.state.log
            log.seconds += time.perf_counter() - started
            for hook in self.setup.hooks:
                hook.after_step(log, None if self.unread else log.losses[-1], rate)

    def add_gradients(self, window: np.ndarray) -> Tensor:
        """Add the gradients of a window: its summed loss, divided by what it holds; gives that loss."""
        step = self.state.log.steps
        for guide in self.setup.guides:
            guide.before_step(self.state.epoch, step)
        rows = self.make_rows(window, self.lengths, self.prefetcher.feed)
        streams = {
            stream.name: self.make_rows(stream.pick(step), stream.lengths, stream.feeder.feed)
            for stream in self.setup.streams
        }
        self.is_split = rows.num_batches > 1 or bool(streams)
        return self.setup.window(
            WindowStep(
                self.model, rows, self.setup.objective, self.accelerator, self.count, step, self.num_steps, streams
            )
        )

    def make_rows(self, window: np.ndarray, lengths: np.ndarray, feed: Callable[[np.ndarray], Microbatch]) -> Rows:
        """Split a window of rows for this process; a part is fed when it is needed."""
        parts = self.split(window, lengths)
        # Wrapped models average gradients over processes, and each must take part in every update: a process that
        # got no example runs one with weight 0.
        scale = self.accelerator.num_processes / len(window) if parts else 0.0
        parts = parts or [window[:1]]
        return Rows((feed(part) for part in parts), len(parts), scale)

    def update_weights(self, window: np.ndarray, total: Tensor) -> float:
        """Apply the gradients of a window, and count it; gives the rate that was used."""
        self.prefetcher.expect(self.foresee)
        log = self.state.log
        rate = self.update()
        log.steps += 1
        for guide in self.setup.guides:
            guide.after_step(log.steps)
        self.weights.take_mean(self.state, log.steps)
        log.examples += len(window)
        self.state.position += 1
        log.epochs = self.state.epoch + self.state.position / len(self.windows)
        self.unread.append(total)
        if log.steps % self.training.log_every == 0 or log.steps == self.num_steps:
            self.read_losses()
        return rate

    def count(self, batch: Microbatch, scale: float) -> None:
        """Count what went through the model, and take the gradients that it left."""
        if self.is_split or self.setup.guides or not self.is_one_pass:
            self.weights.take_gradients()
        self.state.log.tokens += batch.num_tokens if scale else 0
        self.state.log.padded_tokens += batch.num_padded if scale else 0

    def update(self) -> float:
        """Apply the gradients of one window; gives the rate that was used."""
        if self.setup.guides and self.accelerator.scaler is not None:
            self.accelerator.unscale_gradients(self.optimizer)
        for guide in self.setup.guides:
            guide.after_backward(self.weights.tensors)
        if self.training.max_grad_norm is not None and not self.is_one_pass:
            self.accelerator.clip_grad_norm_(self.weights.tensors.values(), self.training.max_grad_norm)
        rate = float(self.schedule.get_last_lr()[0])
        self.optimizer.step()
        was_skipped = self.accelerator.optimizer_step_was_skipped
        self.weights.take_step(self.state, self.plain_optimizer, was_skipped=was_skipped)
        self.schedule.step()
        self.optimizer.zero_grad()
        return rate

    def read_losses(self) -> None:
        """Fetch the losses that are still on the device; the only place that waits for it."""
        if self.unread:
            losses = self.accelerator.reduce(torch.stack(self.unread), reduction="mean")
            self.state.log.losses += losses.cpu().double().tolist()
            self.unread = []

    def look_and_save(self) -> None:
        """Between two updates: end where a signal asked for it, score validation and write a checkpoint when due."""
        log = self.state.log
        if not log.steps:
            return
        is_late = self.agree()
        # A run that goes on may have looked at these very weights, or not.
        has_looked = bool(log.evaluations) and log.evaluations[-1].step == log.steps
        if self.setup.evaluate is not None and not has_looked and self.is_due(self.training.evaluate_every):
            self.look()
            self.saved_step = 0
        is_due = is_late or self.is_due(self.training.checkpoint_every)
        if self.setup.store is not None and is_due and self.saved_step != log.steps:
            self.save()

    def is_due(self, every: int | None) -> bool:
        """Whether a number of steps, or an epoch where there is none, or the run ends with the last update."""
        is_border = self.state.log.steps % every == 0 if every else self.state.position == len(self.windows)
        return is_border or self.is_done

    def agree(self) -> bool:
        """End where any process was asked to; gives whether so much time has passed that a checkpoint is due.

        Several processes agree on both now and then, so that all stop and save behind the same update; the clock is
        that of the first.
        """
        minutes = self.training.checkpoint_minutes
        is_late = bool(minutes) and time.monotonic() - self.saved_at >= 60 * float(minutes or 0)
        if self.accelerator.num_processes == 1:
            raise_request()
            return is_late
        is_border = self.state.position == len(self.windows) or self.is_done
        if self.setup.store is None or (
            self.state.log.steps % min(self.training.log_every, AGREE_STEPS) and not is_border
        ):
            return False
        own = torch.tensor([[find_request() or 0, int(is_late)]], device=self.accelerator.device)
        told = self.accelerator.gather(own).tolist()
        raise_request(max(each[0] for each in told))
        return bool(told[0][1])

    def look(self) -> None:
        """Score validation; keep the weights if they are the best so far."""
        assert self.setup.evaluate is not None
        scored = contextlib.ExitStack()
        with self.changing():
            self.read_losses()
            scored.enter_context(self.weights.complete(self.state))
            self.begin()
        try:
            # Not the wrapped model: that one talks to the other processes in every forward pass, and here one process
            # may have a batch more than another.
            metrics = self.setup.evaluate(self.setup.model)
        finally:
            with self.changing():
                scored.close()
        with self.changing():
            look = self.take_look(metrics)
            self.begun = None
        for hook in self.setup.hooks:
            hook.after_evaluation(self.state.log, look)

    def take_look(self, metrics: dict[str, float]) -> Evaluation:
        """Note what validation says, and what follows from it."""
        self.set_modes()
        log, metric = self.state.log, str(self.training.select_by)
        look = Evaluation(log.steps, log.epochs, metrics)
        log.evaluations.append(look)
        value = -metrics[metric] if metric in LOWER_IS_BETTER else metrics[metric]
        if self.state.best_value is None or value > self.state.best_value:
            self.state.best_value, self.state.looks_without_gain, log.best_step = value, 0, log.steps
            if self.training.restore_best and not self.state.log.steps >= self.num_steps:
                self.best_weights = self.weights.collect_scored()
                self.state.best_kept = self.state.mean_kept
        else:
            self.state.looks_without_gain += 1
            patience = self.training.early_stopping
            is_out = patience is not None and self.state.looks_without_gain >= patience
            log.stopped_early = is_out and log.steps < self.num_steps
        return look

    def save(self) -> None:
        """Write a checkpoint; every process adds its own random state."""
        store, step = self.setup.store, self.state.log.steps
        assert store is not None
        with hold_signals():
            self.read_losses()
            counts = torch.tensor([self.state.log.tokens, self.state.log.padded_tokens])
            store.write_random(step, {**capture_random(self.begun[0] if self.begun else None), COUNTS: counts})
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                store.commit(step, self.take_snapshot())
            self.accelerator.wait_for_everyone()
            self.saved_step, self.saved_at = step, time.monotonic()

    def take_snapshot(self) -> Snapshot:
        """Copy where the run stands, the random state of the processes left out."""
        is_best = self.state.log.best_step == self.state.log.steps
        return Snapshot(
            weights=self.weights.collect(),
            optimizer=collect_optimizer(self.plain_optimizer),
            random={},
            state=self.state.to_json() | {"scaler": self.read_scaler()},
            guides={f"{n}/{k}": t for n, guide in enumerate(self.setup.guides) for k, t in guide.collect().items()},
            best=None if is_best else self.best_weights,
            average=self.weights.collect_mean(),
        )

    def save_broken(self, stop: KeyboardInterrupt) -> None:
        """Save where the run was broken off, if something stands there that can be gone on from.

        Args:
            stop: What broke it off; one of the command line is told the step that was saved.
        """
        log, is_told = self.state.log, isinstance(stop, Stopped)
        # Ctrl-C in a script of several processes reaches them at different updates.
        is_alone = is_told or self.accelerator.num_processes == 1
        if self.setup.store is None or not (self.is_whole and log.steps and is_alone):
            return
        if self.begun is not None:
            log.tokens, log.padded_tokens = self.begun[1:]
        if self.saved_step != log.steps:
            self.save()
        if isinstance(stop, Stopped):
            stop.step = log.steps

    def read_scaler(self) -> dict[str, Any] | None:
        """Where the loss scale of fp16 stands; None without one."""
        scaler = self.accelerator.scaler
        return None if scaler is None else scaler.state_dict()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        store = self.setup.store
        if store is None:
            return
        if self.accelerator.is_main_process:
            store.clear_stages()
        snapshot = store.load_newest()
        self.state.log.damaged_checkpoints += store.skipped
        if snapshot is None:
            return
        if snapshot.state.get("rows") != self.setup.rows:
            raise OutputError(OTHER_ROWS.format(place="checkpoints"))
        try:
            scale = snapshot.state.pop("scaler", None)
            self.state = LoopState.from_json(snapshot.state)
            if scale and self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(scale)
            self.weights.restore(snapshot.weights, snapshot.average)
        except (KeyError, TypeError, RuntimeError) as error:
            raise StorageError(
                f"checkpoints: written by another version or for another model ({name_cause(error)})."
            ) from error
        restore_optimizer(self.plain_optimizer, snapshot.optimizer)
        for number, guide in enumerate(self.setup.guides):
            own = f"{number}/"
            guide.restore({k.removeprefix(own): t for k, t in snapshot.guides.items() if k.startswith(own)})
        self.best_weights = snapshot.best
        if self.best_weights is None and self.state.log.best_step == self.state.log.steps:
            self.best_weights = snapshot.weights | snapshot.average
        # The schedule is a function of the step alone; counting to it keeps one source of truth.
        for group, peak in zip(self.plain_optimizer.param_groups, self.schedule.base_lrs, strict=True):
            group["lr"] = peak * self.schedule.lr_lambdas[0](self.state.log.steps)
        self.schedule.last_epoch = self.state.log.steps
        self.schedule._last_lr = [group["lr"] for group in self.plain_optimizer.param_groups]
        self.windows = self.setup.windows(self.state.epoch)
        self.state.log.resumed_at.append(self.state.log.steps)
        self.state.log.damaged_checkpoints += store.skipped
        self.saved_step = self.state.log.steps
        # Each process has seen tokens of its own; the state is that of the first.
        if (counts := snapshot.random.pop(COUNTS, None)) is not None:
            self.state.log.tokens, self.state.log.padded_tokens = counts.tolist()
        restore_random(snapshot.random)

    def finish(self) -> RunLog:
        """Put the best weights in place and close the log."""
        self.is_whole = False
        self.read_losses()
        log, kept = self.state.log, self.state.mean_kept
        best = self.best_weights if self.training.restore_best and log.evaluations else None
        if best is not None and log.best_step != log.steps:
            self.weights.restore(best)
            kept = self.state.best_kept
        else:
            self.weights.settle()
            log.best_step = log.steps
        self.weights.put_back(kept)
        counts = torch.tensor([log.tokens, log.padded_tokens], device=self.accelerator.device)
        log.tokens, log.padded_tokens = self.accelerator.reduce(counts, reduction="sum").tolist()
        log.peak_memory_bytes = measure_peak_memory(self.accelerator.device)
        return log
