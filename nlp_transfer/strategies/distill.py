"""Distillation: a student, often with fewer layers, learns what a fine-tuned teacher says of the texts."""

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from nlp_transfer.contracts import Encoded, LabelSpace, Prepared
from nlp_transfer.data.domains import prepare_texts
from nlp_transfer.data.encode import encode_table, read_padding, resolve_max_length
from nlp_transfer.data.tables import read_table
from nlp_transfer.engine.predict.forward import Microbatch
from nlp_transfer.engine.train.objectives import Objective, build_objective, read_labels
from nlp_transfer.errors import ArtifactError, DataError, RecipeError
from nlp_transfer.models.artifacts import LoadedArtifact, load_artifact
from nlp_transfer.models.encoder import LoadedEncoder, load_tokenizer
from nlp_transfer.models.layers import keep_layers
from nlp_transfer.recipe.schema import DataConfig, DistillConfig
from nlp_transfer.strategies.base import Adapted, Material, Stage, Strategy

__all__ = ["STRATEGY", "DistillationObjective", "adapt_distill", "sum_divergence"]


def adapt_distill(loaded: LoadedEncoder, config: DistillConfig) -> Adapted:
    """Open every weight of a student, and lay the teacher's logits beside the labels.

    Args:
        loaded: The student with its new head.
        config: The teacher, its weight in the loss, further texts, and the layers that stay.

    Returns:
        The same model, all of it trainable.

    Raises:
        RecipeError: The encoder cannot do without the layers, or the teacher has other labels.

    Source:
        Hinton et al. 2015, section 2, https://arxiv.org/abs/1503.02531 (softened targets, gradients times the squared
        temperature); Sanh et al. 2019, https://arxiv.org/abs/1910.01108 (a student of the teacher's layers). Departure:
        several labels at once are softened one by one, and a regression takes the squared error to the teacher.
    """
    model = loaded.model
    if config.keep_layers is not None:
        keep_layers(model, config.keep_layers)
    model.requires_grad_(True)

    def plan_stage(material: Material) -> Stage:
        """Ask the teacher about every row of train and of the further texts, once."""
        return _plan_stage(loaded, config, material)

    return Adapted(model, "transformers", new_parameters=frozenset(loaded.new_parameters), plan_stage=plan_stage)


def sum_divergence(logits: Tensor, given: Tensor, space: LabelSpace, temperature: float) -> Tensor:
    """Sum how far a student is from its teacher over examples.

    Args:
        logits: The student's, float, shape (B, C).
        given: The teacher's, float, shape (B, C).
        space: The label contract.
        temperature: Both are divided by it.

    Returns:
        A scalar sum; lower is better. Squared temperature times the divergence of the student's distribution from the
        teacher's; the mean over labels of that where several may hold; the squared error of a regression.

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> sum_divergence(Tensor([[1.0, 3.0]]), Tensor([[0.0, 2.0]]), space, 2.0).item()
        0.0
    """
    if space.kind == "regression":
        return (logits - given).square().sum()
    student, teacher = logits / temperature, given / temperature
    if space.kind == "multi_label":
        held = teacher.sigmoid()
        crossed = functional.binary_cross_entropy_with_logits(student, held, reduction="sum")
        entropy = functional.binary_cross_entropy_with_logits(teacher, held, reduction="sum")
        return temperature**2 * (crossed - entropy) / logits.shape[-1]
    said, wanted = student.log_softmax(dim=-1), teacher.log_softmax(dim=-1)
    return temperature**2 * functional.kl_div(said, wanted, log_target=True, reduction="sum")


TEACHER, IS_LABELLED = "teacher", "is_labelled"
"""Columns of train: the teacher's logits, and whether a row has a label of its own."""


class DistillationObjective:
    """The loss of a student: how far it is from its teacher, and on labelled rows the task's own loss.

    Args:
        space: The label contract.
        task: The task's own loss.
        alpha: Weight of the teacher.
        temperature: Softens both sides.
    """

    def __init__(self, space: LabelSpace, task: Objective, *, alpha: float, temperature: float) -> None:
        self._space, self._task, self._alpha, self._temperature = space, task, alpha, temperature

    def __call__(self, logits: Tensor, batch: Microbatch) -> Tensor:
        """Sum the loss over the examples of a microbatch, which has the columns of this module."""
        loss = self._alpha * sum_divergence(logits, batch.columns[TEACHER], self._space, self._temperature)
        if self._alpha == 1:
            return loss
        known_B = batch.columns[IS_LABELLED]
        own = replace(batch, labels=read_labels(batch)[known_B], num_examples=int(known_B.sum()))
        return loss + (1 - self._alpha) * self._task(logits[known_B], own)


def _plan_stage(loaded: LoadedEncoder, config: DistillConfig, material: Material) -> Stage:
    """Put together what the student reads."""
    prepared, splits = material.prepared, material.splits
    teacher = _load_teacher(config.teacher, prepared.labels)
    order = _match_labels(config.teacher, teacher.labels, prepared.labels)
    teacher.model.to(material.device)
    tables = [splits.tables["train"]]
    train = mark(prepared.splits["train"], is_labelled=True)
    assert train.labels is not None
    if config.unlabelled is not None:
        extra = _read_unlabelled(config.unlabelled, material)
        tables.append(extra)
        more = _encode_extra(extra, loaded, material)
        nothing = np.zeros((more.num_examples, *train.labels.shape[1:]), dtype=train.labels.dtype)
        train = train.join(mark(replace(more, labels=nothing), is_labelled=False))
    # A teacher of numbers gives them in the unit of the target.
    said = [material.target.standardize(_ask(teacher, table, material)[:, order]) for table in tables]
    train = replace(train, columns={**train.columns, TEACHER: np.concatenate(said).astype(np.float32)})
    counts = splits.facts.label_counts.get("train", {})
    task = build_objective(prepared.labels, material.recipe.training, counts)
    objective = DistillationObjective(prepared.labels, task, alpha=config.alpha, temperature=config.temperature)
    return Stage(prepared=replace(prepared, splits={**prepared.splits, "train": train}), objective=objective)


def mark(encoded: Encoded, *, is_labelled: bool) -> Encoded:
    """Note in a column whether rows have labels of their own."""
    column = np.full(encoded.num_examples, is_labelled)
    return replace(encoded, columns={**encoded.columns, IS_LABELLED: column})


def _load_teacher(name: str, labels: LabelSpace) -> LoadedArtifact:
    """Load the teacher, which must answer the same kind of question."""
    try:
        teacher = load_artifact(name)
    except ArtifactError as error:
        raise RecipeError(f"strategy.teacher: {error}") from error
    is_alike = teacher.labels.kind == labels.kind or (teacher.labels.is_categorical and labels.is_categorical)
    if not is_alike:
        raise RecipeError(
            f"strategy.teacher: expected one for task.kind {labels.kind}, came one for {teacher.labels.kind}: {name}."
        )
    return teacher


def _match_labels(name: str, theirs: LabelSpace, ours: LabelSpace) -> list[int]:
    """Find the teacher's output for each label; the target of a regression may go by another name."""
    if ours.kind == "regression":
        return [0]
    if set(theirs.names) != set(ours.names):
        raise RecipeError(
            f"strategy.teacher: expected the labels of the data, {', '.join(ours.names)}; {name} has "
            f"{', '.join(theirs.names)}. Name a teacher of the same labels, or rename them in the data."
        )
    return [theirs.label2id[label] for label in ours.names]


def _read_unlabelled(place: str, material: Material) -> Any:
    """Read the table of further texts."""
    data = material.recipe.data
    table = read_table(place, encoding=data.encoding, delimiter=data.delimiter)
    try:
        return prepare_texts(table, data, is_pair=material.splits.is_pair, where=place)
    except DataError as error:
        raise DataError(f"strategy.unlabelled: {error}") from error


def _encode_extra(table: Any, loaded: LoadedEncoder, material: Material) -> Encoded:
    """Tokenize further texts as train was."""
    data = material.recipe.data
    tokenizer = load_tokenizer(loaded.source, trust_remote_code=loaded.trust_remote_code)
    return _encode(table, tokenizer, loaded.model.config, data, data.max_length, material)


def _encode(
    table: Any, tokenizer: Any, settings: Any, data: DataConfig, max_length: int, material: Material
) -> Encoded:
    """Tokenize a table for one of the two."""
    is_pair = material.splits.is_pair
    return encode_table(
        table.select_columns(["text", "text_b"] if is_pair else ["text"]),
        tokenizer,
        is_pair=is_pair,
        max_length=resolve_max_length(tokenizer, settings, max_length),
        long_text=data.long_text,
        window_overlap=data.window_overlap,
        max_windows=data.max_windows,
        where="strategy.unlabelled",
    )


def _ask(teacher: LoadedArtifact, table: Any, material: Material) -> np.ndarray:
    """Give the teacher's logits (N, C) for a table, read with its own tokenizer and as it was trained to read."""
    reading = teacher.metadata.get("reading", {})
    if reading.get("is_pair", material.splits.is_pair) != material.splits.is_pair:
        reads, has = ("pairs", "single texts") if reading["is_pair"] else ("single texts", "pairs")
        raise RecipeError(f"strategy.teacher: it reads {reads}, this data has {has}. Name another teacher.")
    known = {key: reading[key] for key in ("long_text", "window_overlap", "max_windows") if key in reading}
    data = material.recipe.data.model_copy(update=known)
    model: Any = teacher.model
    most = reading.get("max_length", data.max_length)
    encoded = _encode(table, teacher.tokenizer, model.config, data, most, material)
    pad, side = read_padding(teacher.tokenizer)
    return material.predict(model, Prepared({"texts": encoded}, teacher.labels, pad, side), "texts", "teacher")


STRATEGY = Strategy(kind="distill", adapt=adapt_distill)
