"""Checks that span keys and sections: values that are valid alone and contradict each other together."""

from collections.abc import Iterator, Mapping, Sequence

from nlp_transfer.recipe.fields import join_choices, suggest_nearest
from nlp_transfer.recipe.methods.self_training import SelfTrainingConfig
from nlp_transfer.recipe.methods.table import METHODS, list_active
from nlp_transfer.recipe.schema import (
    METRICS,
    SELECTION_METRICS,
    DistillConfig,
    FullConfig,
    LoraConfig,
    PromptsConfig,
    Recipe,
    TrainingConfig,
    ZeroShotConfig,
)
from nlp_transfer.recipe.section import Section
from nlp_transfer.recipe.strategies.table import STRATEGIES, find_facts

__all__ = ["find_conflicts"]

_MIN_SPLIT_LENGTH = 16  # chosen: a shorter split is hardly more than its special tokens

_LORA = ("lora", "dora", "adalora", "vera")

LORA_READERS = {
    "rank": (*_LORA, "oft", "loha", "lokr", "miss"),
    "alpha": (*_LORA, "loha", "lokr"),
    "dropout": (*_LORA, "miss"),
    # vera does not read rate_ratio either; _list_clashes refuses it with the reason.
    "rate_ratio": _LORA,
    "frequencies": ("fourierft",),
    "rank_stabilized": ("lora", "dora"),
    "init": ("lora", "dora"),
    "quantize": ("lora",),
}
PROMPT_READERS = {"init": ("prompt",), "project": ("prefix",)}
ZERO_SHOT_READERS = {
    "template": ("label_embedding",),
    "scale": ("label_embedding",),
    "hypothesis_template": ("entailment",),
    "descriptions": ("label_embedding", "entailment"),
    "mapping": ("reuse",),
}
"""For each key of a strategy, the variants or methods that read it."""


def find_conflicts(recipe: Recipe) -> list[str]:
    """Find contradictions between the values of a recipe, each of which is valid alone.

    Every sentence names all keys that it depends on, so that a caller can leave out the sentences about invalid keys.

    Args:
        recipe: A recipe that pydantic accepted.

    Returns:
        One sentence for each problem, in the order of the recipe; empty where there is none.

    Example:
        >>> find_conflicts(Recipe.model_validate({"training": {"batch_size": 8, "microbatch_size": 16}}))
        ['training.microbatch_size: expected at most training.batch_size = 8, got 16.']
    """
    checks = (_check_labels, _check_encoder, _check_columns, _check_rows)
    strategies = (_check_strategy, _check_prompts, _check_zero_shot, _check_distill)
    wrapping = (_check_domains, _check_methods)
    later = (*wrapping, _check_loss, _check_class_weights, _check_batches, _check_metrics, _check_trust)
    return [problem for check in (*checks, *strategies, *later) for problem in check(recipe)]


def _find_repeated(values: Sequence[object]) -> list[object]:
    """List the values that a list repeats, each once."""
    return list(dict.fromkeys(value for index, value in enumerate(values) if value in values[:index]))


def _check_labels(recipe: Recipe) -> Iterator[str]:
    """Label names must suit the task and be unique."""
    names, kind = recipe.task.labels, recipe.task.kind
    if names is None:
        return
    if kind in ("classification", "ordinal") and len(names) < 2:
        yield f"task.labels: expected at least two names for task.kind {kind}, got {len(names)}."
    if kind == "multi_label" and not names:
        yield "task.labels: expected names for task.kind multi_label, got an empty list. Remove the line."
    if kind == "regression" and len(names) != 1:
        yield f"task.labels: expected one name for task.kind regression, the name of the target, got {len(names)}."
    if repeated := _find_repeated(names):
        yield f"task.labels: {join_choices(repeated)} is listed more than once. Keep one."
    if not all(name.strip() for name in names):
        yield "task.labels: expected names, got an empty text."


def _check_encoder(recipe: Recipe) -> Iterator[str]:
    """A strategy that freezes weights needs pretrained ones."""
    kind = recipe.strategy.kind
    if recipe.encoder.init == "random" and find_facts(recipe.strategy).needs_pretraining:
        yield (
            f'encoder.init: strategy.kind "{kind}" freezes weights, and random ones carry no information. '
            "Use strategy.kind=full for a control without transfer."
        )


def _check_columns(recipe: Recipe) -> Iterator[str]:
    """Every column has one role."""
    data = recipe.data
    labels = [data.label] if isinstance(data.label, str) else data.label or []
    if isinstance(data.label, list):
        if recipe.task.kind != "multi_label":
            yield (
                f"data.label: a list of columns needs task.kind multi_label, got {recipe.task.kind}. Name one column."
            )
        if not labels:
            yield "data.label: expected at least one column, got an empty list. Remove it to find the column by name."
        if repeated := _find_repeated(labels):
            yield f"data.label: {join_choices(repeated)} is listed more than once. Keep one."
    if data.text is not None and data.text == data.text_b:
        yield f'data.text_b: expected another column than data.text, got "{data.text}" for both.'
    for key, column in (("text", data.text), ("text_b", data.text_b)):
        if column is not None and column in labels:
            yield f'data.label: expected another column than data.{key}, got "{column}" for both.'


def _check_rows(recipe: Recipe) -> Iterator[str]:
    """Options that select or add rows must suit the task and each other."""
    data = recipe.data
    if data.splits and (repeated := _find_repeated(list(data.splits.values()))):
        yield f"data.splits: {join_choices(repeated)} is named for more than one split."
    if data.validation_share + data.test_share >= 1:
        total = data.validation_share + data.test_share
        yield f"data.test_share: expected a sum below 1 with data.validation_share, got {total:g}. Lower one."
    if data.shots is not None and recipe.task.kind in ("multi_label", "regression"):
        kind = recipe.task.kind
        yield f"data.shots: rows of every class cannot be drawn for task.kind {kind}. Use data.limit instead."
    if data.balance is not None and recipe.task.kind in ("multi_label", "regression"):
        yield f"data.balance: needs one class per row, which task.kind {recipe.task.kind} does not have. Remove it."
    if data.balance is not None and data.balance in (data.text, data.text_b, data.label, data.id):
        yield f'data.balance: expected a column of groups, got "{data.balance}", which has another role. Name another.'
    if data.augment == "none" and data.swap_copies != type(data).model_fields["swap_copies"].default:
        yield "data.swap_copies: has no effect with data.augment none. Remove it."
    if data.swap_sentences is not None and data.augment == "none":
        yield "data.swap_sentences: has no effect with data.augment none. Remove it."
    if data.swap_sentences is not None and recipe.task.kind in ("multi_label", "regression"):
        kind = recipe.task.kind
        yield f"data.swap_sentences: needs one class per row, which task.kind {kind} does not have. Remove it."
    if data.long_text != "truncate" and data.max_length < _MIN_SPLIT_LENGTH:
        yield (
            f"data.max_length: expected at least {_MIN_SPLIT_LENGTH} with data.long_text {data.long_text}, "
            f"got {data.max_length}."
        )


def _check_strategy(recipe: Recipe) -> Iterator[str]:
    """Pull towards pretrained weights needs pretrained weights; LoRA needs targets and options of its variant."""
    strategy = recipe.strategy
    if isinstance(strategy, FullConfig) and recipe.encoder.init == "random":
        for key, is_off in (("l2_sp", strategy.l2_sp == 0), ("mixout", strategy.mixout == 0)):
            if not is_off:
                yield f"strategy.{key}: would keep weights near the random ones of encoder.init random. Use 0."
        if strategy.head_init == "probe":
            yield "strategy.head_init: a probe learns nothing from encoder.init random. Use head_init=random."
    if not isinstance(strategy, LoraConfig):
        return
    if strategy.targets == []:
        yield "strategy.targets: expected names of layers, got an empty list. Remove it to use the variant's default."
    yield from _list_unread(strategy, "variant", LORA_READERS)
    yield from _list_clashes(strategy, recipe.training)


def _list_clashes(strategy: LoraConfig, training: TrainingConfig) -> Iterator[str]:
    """Options of LoRA that exclude each other."""
    if strategy.init == "pissa":
        with_init = {
            "strategy.rank_stabilized": strategy.variant in LORA_READERS["init"] and strategy.rank_stabilized,
            "strategy.quantize": strategy.quantize != "none",
            "strategy.variant dora": strategy.variant == "dora",
        }
        for key, clashes in with_init.items():
            if clashes:
                yield f"strategy.init: pissa does not go with {key}. Remove one of them."
    if strategy.quantize != "none" and training.device not in ("auto", "cuda"):
        yield f"strategy.quantize: does not go with training.device {training.device}. Use cuda."
    if strategy.variant == "vera" and strategy.rate_ratio != 1:
        yield "strategy.rate_ratio: does not apply to strategy.variant vera, which trains no matrices. Remove it."
    if strategy.variant == "adalora" and training.ema_share:
        yield "training.ema_share: does not go with strategy.variant adalora, which drops ranks during training. Use 0."


def _list_unread(strategy: Section, selector: str, readers: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A key that the chosen variant or method does not read must stay at its default."""
    chosen = getattr(strategy, selector)
    for key, values in readers.items():
        usual = type(strategy).model_fields[key].get_default(call_default_factory=True)
        if chosen not in values and getattr(strategy, key) != usual:
            yield f"strategy.{key}: does not apply to strategy.{selector} {chosen}. Remove it."


def _check_prompts(recipe: Recipe) -> Iterator[str]:
    """Options of prompts must belong to their variant; checkpointing cannot recompute the prefix's keys and values."""
    strategy = recipe.strategy
    if not isinstance(strategy, PromptsConfig):
        return
    yield from _list_unread(strategy, "variant", PROMPT_READERS)
    if strategy.variant == "prefix" and recipe.training.gradient_checkpointing:
        yield "training.gradient_checkpointing: does not go with strategy.variant prefix. Remove one of them."


def _check_zero_shot(recipe: Recipe) -> Iterator[str]:
    """Options must belong to their method, and a template needs one placeholder."""
    strategy = recipe.strategy
    if not isinstance(strategy, ZeroShotConfig):
        return
    yield from _list_unread(strategy, "method", ZERO_SHOT_READERS)
    for key, template in (("template", strategy.template), ("hypothesis_template", strategy.hypothesis_template)):
        if strategy.method in ZERO_SHOT_READERS[key] and template.count("{}") != 1:
            yield f"strategy.{key}: expected {{}} once, in the place of a label's words, got {template!r}."
    for name, words in strategy.descriptions.items():
        if not words.strip():
            yield f"strategy.descriptions.{name}: expected words, got an empty text. Remove it to use the label's name."


def _check_distill(recipe: Recipe) -> Iterator[str]:
    """Layers must be listed once each, from the bottom up."""
    strategy = recipe.strategy
    if not isinstance(strategy, DistillConfig) or not isinstance(strategy.keep_layers, list):
        return
    if strategy.keep_layers != sorted(set(strategy.keep_layers)):
        yield f"strategy.keep_layers: expected each layer once, from the bottom up, got {strategy.keep_layers}."


def _check_domains(recipe: Recipe) -> Iterator[str]:
    """Source and target domains need a column and must differ."""
    data = recipe.data
    source, target = data.source_domains, data.target_domains
    if data.domain is None:
        for key, named in (("source", source), ("target", target)):
            if named:
                yield f"data.{key}: names domains, but data.domain names no column of domains. Add data.domain."
        return
    if not target:
        yield "data.target: missing. Name the domain to transfer to, a value of the column data.domain."
    if both := [each for each in source if each in target]:
        yield f"data.source: {join_choices(both)} is also in data.target. Keep it in one of the two."
    if data.domain in (data.text, data.text_b, data.label, data.id):
        yield f'data.domain: expected a column of domains, got "{data.domain}", which has another role. Name another.'
    if data.unlabelled is not None:
        yield "data.unlabelled: does not go with data.target, whose training rows are the unlabelled texts. Remove one."


def _check_methods(recipe: Recipe) -> Iterator[str]:
    """Methods suit the strategy, the task, the data, and each other."""
    kinds = [method.kind for method in recipe.methods]
    if repeated := _find_repeated(kinds):
        yield f"methods: {join_choices(repeated)} is listed more than once. Keep one."
    active = list_active(recipe.methods)
    strategy = find_facts(recipe.strategy)
    for method in active:
        facts, where = METHODS[method.kind], f"methods: {method.kind}"
        if strategy.trains not in facts.trains:
            fitting = [kind for kind, each in STRATEGIES.items() if each.trains in facts.trains]
            yield (
                f"{where} does not go with strategy.kind {recipe.strategy.kind}, which {TRAINED[strategy.trains]}. "
                f"Choose one of {join_choices(fitting)}."
            )
        elif facts.phase != "around" and strategy.learning_rate is None:
            kind = strategy.kind
            yield f"{where} changes a training by gradients, which strategy.kind {kind} does not do. Leave it out."
        if isinstance(method, SelfTrainingConfig) and (method.targets == "soft" or method.weight != 1):
            yield from _check_soft(where, recipe)
        if recipe.task.kind not in facts.tasks:
            yield f"{where} does not go with task.kind {recipe.task.kind}, only with {join_choices(facts.tasks)}."
        if facts.find_conflicts is not None:
            yield from facts.find_conflicts(method, recipe.task.kind)
        if facts.needs_texts and recipe.data.unlabelled is None and recipe.data.domain is None:
            yield (
                f"{where} reads texts without labels, and there are none. Name some with data.unlabelled, or the "
                "domains with data.domain, data.source and data.target."
            )
    for what, chosen in (
        ("decide how examples become gradients", [m.kind for m in active if METHODS[m.kind].replaces_window]),
        ("go around the fits of a run", [m.kind for m in active if METHODS[m.kind].phase == "around"]),
    ):
        if len(chosen) > 1:
            yield f"methods: {join_choices(chosen)} all {what}, so only one of them can. Keep one."


def _check_soft(where: str, recipe: Recipe) -> Iterator[str]:
    """Soft targets and row weights need a training loss; a head that is fitted separately has none."""
    facts = find_facts(recipe.strategy)
    if facts.learning_rate is None or facts.trains == "pairs":
        yield (
            f"{where}: targets soft, or a weight, need a training loss; strategy.kind {facts.kind} fits its head "
            "without one."
        )
    if recipe.training.focal_gamma:
        yield f"{where}: targets soft, or a weight, do not go with training.focal_gamma. Remove one."
    if recipe.task.kind == "ordinal":
        yield f"{where}: targets soft, or a weight, need task.kind classification, got ordinal."


TRAINED = {
    "all": "trains every weight",
    "upper": "trains the upper layers",
    "inside": "trains something small inside the layers",
    "head": "trains the head alone",
    "pairs": "trains on pairs of texts",
    "student": "trains a student of another classifier",
    "nothing": "trains nothing",
}
"""What a strategy does, in words."""


def _check_loss(recipe: Recipe) -> Iterator[str]:
    """Options of the loss must suit the task and each other."""
    training, kind = recipe.training, recipe.task.kind
    if kind == "regression":
        for key in ("label_smoothing", "focal_gamma"):
            if getattr(training, key) > 0:
                yield f"training.{key}: does not apply to task.kind regression. Remove it."
    elif training.focal_gamma > 0 and training.label_smoothing > 0:
        yield "training.focal_gamma: does not go with training.label_smoothing. Set one of them to 0."


def _check_class_weights(recipe: Recipe) -> Iterator[str]:
    """Class weights must be positive and name every class of task.labels."""
    weights, kind, names = recipe.training.class_weights, recipe.task.kind, recipe.task.labels
    if weights is None:
        return
    if kind in ("regression", "multi_label"):
        yield f"training.class_weights: does not apply to task.kind {kind}. Remove it."
        return
    if isinstance(weights, str):
        return
    if not weights:
        yield "training.class_weights: expected a weight for every class, got an empty mapping."
    for name, weight in weights.items():
        if weight <= 0:
            yield f"training.class_weights.{name}: expected a number above 0, got {weight:g}."
        if names is not None and name not in names:
            yield f"training.class_weights.{name}: no name of task.labels.{suggest_nearest(name, names)}"
    if names is not None and (missing := [name for name in names if name not in weights]):
        yield f"training.class_weights: expected every name of task.labels, {join_choices(missing)} missing. Add it."


def _check_batches(recipe: Recipe) -> Iterator[str]:
    """Batches, seeds and number formats must fit each other and the device."""
    training = recipe.training
    if training.microbatch_size is not None and training.microbatch_size > training.batch_size:
        yield (
            f"training.microbatch_size: expected at most training.batch_size = {training.batch_size}, "
            f"got {training.microbatch_size}."
        )
    if training.precision == "fp16" and training.device == "cpu":
        yield "training.precision: fp16 does not train on training.device cpu. Use auto, bf16 or fp32."
    if repeated := _find_repeated(training.seeds or []):
        yield f"training.seeds: {join_choices(repeated)} is listed more than once. Keep one."
    if repeated := _find_repeated(training.trackers):
        yield f"training.trackers: {join_choices(repeated)} is listed more than once. Keep one."


def _check_metrics(recipe: Recipe) -> Iterator[str]:
    """Metrics must suit the task; selection needs a single figure."""
    kind, chosen = recipe.task.kind, recipe.training.select_by
    known = METRICS[kind]
    single = [name for name in known if not name.endswith("_per_class")]
    if chosen is not None and chosen not in single:
        why = "has one value per class and cannot select" if chosen in known else f"is not a metric of task.kind {kind}"
        nearest = suggest_nearest(chosen, single) or f" Choose one such as {SELECTION_METRICS[kind]}."
        yield f'training.select_by: "{chosen}" {why}.{nearest}'
    metrics = recipe.evaluation.metrics or []
    for name in dict.fromkeys(metrics):
        if name not in known:
            nearest = suggest_nearest(name, known) or f" Known: {', '.join(known)}."
            yield f'evaluation.metrics: "{name}" is not a metric of task.kind {kind}.{nearest}'
    if repeated := _find_repeated(metrics):
        yield f"evaluation.metrics: {join_choices(repeated)} is listed more than once. Keep one."


def _check_trust(recipe: Recipe) -> Iterator[str]:
    """Calibration needs exclusive classes, a threshold needs a label, and slices must be unique."""
    evaluation, kind = recipe.evaluation, recipe.task.kind
    if evaluation.calibration != "none" and kind not in ("classification", "ordinal"):
        yield (
            f"evaluation.calibration: {evaluation.calibration} does not apply to task.kind {kind}, whose classes are "
            "not exclusive. Use none."
        )
    if evaluation.threshold_goal != "none" and kind == "regression":
        yield "evaluation.threshold_goal: does not apply to task.kind regression. Use none."
    elif evaluation.threshold_goal != "none" and kind != "multi_label" and evaluation.threshold_label is None:
        yield (
            f"evaluation.threshold_goal: task.kind {kind} needs the class that gets the threshold. "
            "Name it in evaluation.threshold_label."
        )
    if evaluation.threshold_goal == "none" and evaluation.threshold_label is not None:
        yield "evaluation.threshold_label: has no effect with evaluation.threshold_goal none. Set a goal or remove it."
    if repeated := _find_repeated(evaluation.slices):
        yield f"evaluation.slices: {join_choices(repeated)} is listed more than once. Keep one."
