"""The one training loop: windows of examples, split into microbatches, exact however they are split."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from nlp_transfer.contracts import Evaluation, Guide, Hook, Objective, RunLog
from nlp_transfer.data.batches import plan_epoch, split_window
from nlp_transfer.engine.ahead import Ahead
from nlp_transfer.engine.average import find_decay
from nlp_transfer.engine.checkpoint import (
    CheckpointStore,
    Snapshot,
    capture_random,
    collect_optimizer,
    restore_optimizer,
    restore_random,
)
from nlp_transfer.engine.forward import Feeder, Microbatch
from nlp_transfer.engine.half_adamw import HalfAdamW
from nlp_transfer.engine.memory import measure_peak_memory
from nlp_transfer.engine.optimizer import build_optimizer, build_schedule
from nlp_transfer.engine.state import LoopState
from nlp_transfer.engine.weights import TrainedWeights
from nlp_transfer.engine.window import run_joint_window, run_window_by_parts
from nlp_transfer.errors import OutputError, StorageError, name_cause
from nlp_transfer.recipe.schema import LOWER_IS_BETTER, TrainingConfig

__all__ = ["OTHER_ROWS", "LoopSetup", "count_steps", "run_loop"]

OTHER_ROWS = (
    "{place}: the run was broken off on other rows than these. Give it the same data, or name another folder: "
    "report.output_dir=runs/NAME."
)
"""Said where a broken-off run would go on with other rows."""

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
        still: Modules that stay in evaluation mode.
        guides: Steer weights and gradients.
        evaluate: Scores the model on validation; None where there is no validation split.
        hooks: Watchers.
        store: Where checkpoints go; None for no checkpoints.
        rows: Names the rows of the run; checkpoints of other rows are refused.
        plan: Gives the windows of an epoch, in place of the recipe's own order.
        is_joint: Whether the loss relates the examples of a window to each other.
        half: Whether the model computes in bf16, its weights kept in float32 beside it; without guides.
    """

    model: nn.Module
    feeder: Feeder
    objective: Objective
    training: TrainingConfig
    accelerator: Accelerator
    new_parameters: frozenset[str] = frozenset()
    rates: Mapping[str, float] = field(default_factory=dict)
    still: tuple[str, ...] = ()
    guides: Sequence[Guide] = ()
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    hooks: Sequence[Hook] = ()
    store: CheckpointStore | None = None
    rows: str = ""
    plan: Plan | None = None
    is_joint: bool = False
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
    """
    loop = _Loop(setup)
    try:
        loop.resume()
        while not loop.is_done:
            loop.take_step(loop.next_window())
            loop.look_and_save()
        return loop.finish()
    finally:
        loop.ahead.close()
        for hook in setup.hooks:
            hook.close()


class _Loop:
    """The loop's small named steps."""

    def __init__(self, setup: LoopSetup) -> None:
        self.setup, self.training, self.accelerator = setup, setup.training, setup.accelerator
        self.num_steps = count_steps(setup.feeder.encoded.num_examples, self.training)
        self.lengths = setup.feeder.lengths
        decay, is_guided = find_decay(self.training.ema_share, self.num_steps), bool(setup.guides)
        self.weights = TrainedWeights(setup.model, setup.feeder, decay=decay, half=setup.half, is_guided=is_guided)
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
        self.ahead = Ahead(setup.feeder, is_on=self.accelerator.device.type == "cuda")
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
        for name in self.setup.still:
            self.setup.model.get_submodule(name).eval()

    def next_window(self) -> np.ndarray:
        """The next examples; plans the next epoch where this one is through."""
        if self.state.position == len(self.windows):
            self.state.epoch += 1
            self.state.position = 0
            self.windows = self.setup.windows(self.state.epoch)
        return self.windows[self.state.position]

    def split(self, window: np.ndarray) -> list[np.ndarray]:
        """This process's microbatches of a window."""
        return split_window(
            window,
            self.lengths,
            num_processes=self.accelerator.num_processes,
            rank=self.accelerator.process_index,
            microbatch_size=self.training.microbatch_size,
            max_tokens=self.training.max_tokens,
        )

    def foresee(self) -> list[np.ndarray]:
        """The microbatches of the step after this one; none behind the end of an epoch, which is not planned yet."""
        following = self.state.position + 1
        return self.split(self.windows[following]) if following < len(self.windows) else []

    def take_step(self, window: np.ndarray) -> None:
        """One update: the summed loss of the window, divided by what the window holds."""
        started = time.perf_counter()
        parts = self.split(window)
        # Wrapped models average gradients over processes, and each must take part in every update: a process that
        # got no example runs one with weight 0.
        scale = self.accelerator.num_processes / len(window) if parts else 0.0
        parts = parts or [window[:1]]
        self.is_split = len(parts) > 1
        for guide in self.setup.guides:
            guide.before_step(self.state.epoch, self.state.log.steps)
        run_window = run_joint_window if self.setup.is_joint else run_window_by_parts
        batches = (self.ahead.feed(part) for part in parts)
        total = run_window(self.model, batches, len(parts), self.setup.objective, self.accelerator, scale, self.count)
        self.ahead.expect(self.foresee)
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
        log.seconds += time.perf_counter() - started
        for hook in self.setup.hooks:
            hook.after_step(log, None if self.unread else log.losses[-1], rate)

    def count(self, batch: Microbatch, scale: float) -> None:
        """Count what went through the model, and take the gradients that it left."""
        if self.is_split or not self.is_one_pass:
            self.weights.take_gradients()
        self.state.log.tokens += batch.num_tokens if scale else 0
        self.state.log.padded_tokens += batch.num_padded if scale else 0

    def update(self) -> float:
        """Apply the gradients of one window; gives the rate that was used."""
        if self.setup.guides and self.accelerator.scaler is not None:
            self.accelerator.unscale_gradients(self.optimizer)
        for guide in self.setup.guides:
            guide.after_backward()
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
        """Score validation and write a checkpoint when it is time."""
        steps, at_end = self.state.log.steps, self.state.position == len(self.windows) or self.is_done
        every = self.training.evaluate_every
        if self.setup.evaluate is not None and ((steps % every == 0 or self.is_done) if every else at_end):
            self.look()
        every = self.training.checkpoint_every
        if self.setup.store is not None and ((steps % every == 0 or self.is_done) if every else at_end):
            self.save()

    def look(self) -> None:
        """Score validation; keep the weights if they are the best so far."""
        assert self.setup.evaluate is not None
        self.read_losses()
        # Not the wrapped model: that one talks to the other processes in every forward pass, and here one process may
        # have a batch more than another.
        with self.weights.complete(self.state):
            metrics = self.setup.evaluate(self.setup.model)
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
        for hook in self.setup.hooks:
            hook.after_evaluation(log, look)

    def save(self) -> None:
        """Write a checkpoint; every process adds its own random state."""
        store, step = self.setup.store, self.state.log.steps
        assert store is not None
        self.read_losses()
        store.write_random(step, capture_random())
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            is_best = self.state.log.best_step == step
            snapshot = Snapshot(
                weights=self.weights.collect(),
                optimizer=collect_optimizer(self.plain_optimizer),
                random={},
                state=self.state.to_json() | {"scaler": self.read_scaler()},
                guides={f"{n}/{k}": t for n, guide in enumerate(self.setup.guides) for k, t in guide.collect().items()},
                best=None if is_best else self.best_weights,
                average=self.weights.collect_mean(),
            )
            store.commit(step, snapshot)
        self.accelerator.wait_for_everyone()

    def read_scaler(self) -> dict[str, Any] | None:
        """Where the loss scale of fp16 stands; None without one."""
        scaler = self.accelerator.scaler
        return None if scaler is None else scaler.state_dict()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        store = self.setup.store
        if store is None:
            return
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
        restore_random(snapshot.random)

    def finish(self) -> RunLog:
        """Put the best weights in place and close the log."""
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
