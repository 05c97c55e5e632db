"""Zero-shot: labels in words, or the head of an earlier classifier; nothing is trained."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data.encode import resolve_max_length
from nlp_transfer.errors import ArtifactError, EncoderError, RecipeError
from nlp_transfer.evaluation.calibration import fit_temperature
from nlp_transfer.models.artifacts import LoadedArtifact, load_artifact
from nlp_transfer.models.custom import CustomClassifier
from nlp_transfer.models.encoder import LoadedEncoder, load_tokenizer
from nlp_transfer.models.entailment import EntailmentClassifier, find_entailment
from nlp_transfer.models.merge import is_adapter, merge_adapter
from nlp_transfer.models.reuse import ReuseClassifier
from nlp_transfer.models.vector_classifier import VectorClassifier, find_layers
from nlp_transfer.recipe.schema import ZeroShotConfig
from nlp_transfer.strategies.base import Adapted, Material, Stage, Strategy

__all__ = ["STRATEGY", "adapt_zero_shot", "describe_labels"]

SLOT = "{}"


def adapt_zero_shot(loaded: LoadedEncoder, config: ZeroShotConfig) -> Adapted:
    """Make a classifier that needs no labelled rows.

    Args:
        loaded: The encoder; the head that was put on it is not used.
        config: The method, words for the labels, and whether validation sets a temperature.

    Returns:
        A classifier of which nothing moves.

    Raises:
        RecipeError: The method does not suit the task, the encoder or the labels.

    Source:
        Yin et al. 2019, https://arxiv.org/abs/1909.00161 (entailment); Chang et al. 2008, "Importance of semantic
        representation: dataless classification", AAAI (texts and label names in one space), with vectors as in Reimers
        and Gurevych 2019, https://arxiv.org/abs/1908.10084; Guo et al. 2017, section 4.2,
        https://arxiv.org/abs/1706.04599 (temperature).
    """
    if loaded.labels.kind == "regression":
        raise RecipeError(
            "strategy.kind: zero_shot names labels and gives no numbers: task.kind regression needs rows."
        )
    model = BUILDERS[config.method](loaded, config)
    model.requires_grad_(False)
    model.eval()

    def plan_stage(material: Material) -> Stage:
        """Check what the model will read; fit the temperature where one is wanted."""
        _check_described(material, config)
        if isinstance(model, EntailmentClassifier):
            _check_room(model, loaded, material)
        if config.calibrate == "temperature":
            model.set_temperature(_fit_temperature(model, material))
        return Stage()

    return Adapted(model, "nlp_transfer", plan_stage=plan_stage)


def describe_labels(labels: LabelSpace, descriptions: Mapping[str, str], template: str) -> list[str]:
    """Write one sentence a label.

    Names are compared without case and punctuation. Descriptions of which none names a label were written for other
    data and are left alone; where some do, the others are mistakes.

    Args:
        labels: The label contract.
        descriptions: Words by label name.
        template: Sentence with ``{}`` in the place of the words.

    Returns:
        Sentences in the order of the labels.

    Raises:
        RecipeError: A description names no label, or two name the same.

    Example:
        >>> space = LabelSpace("classification", ("World", "sci_tech"))
        >>> describe_labels(space, {"Sci/Tech": "science, computers"}, "News about {}.")
        ['News about World.', 'News about science, computers.']
    """
    by_key = {_simplify(name): name for name in labels.names}
    found: dict[str, str] = {}
    unknown = []
    for name, words in descriptions.items():
        # Two labels may differ in nothing but punctuation: the exact name comes first.
        label = name if name in labels.names else by_key.get(_simplify(name))
        if label is None:
            unknown.append(name)
        elif label in found:
            raise RecipeError(f'strategy.descriptions: two of them describe the label "{label}". Remove one.')
        else:
            found[label] = words
    if unknown and found:
        raise RecipeError(
            f'strategy.descriptions: "{unknown[0]}" is no label of the data. Its labels: {_list_names(labels.names)}.'
        )
    return [template.replace(SLOT, found.get(name, name.replace("_", " "))) for name in labels.names]


def _simplify(name: str) -> str:
    """A name without case and punctuation."""
    return " ".join("".join(letter if letter.isalnum() else " " for letter in name.casefold()).split()) or name


def _list_names(names: Sequence[str]) -> str:
    """The first names of a list."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _check_described(material: Material, config: ZeroShotConfig) -> None:
    """Note where descriptions were written for other labels."""
    labels = material.splits.labels
    known = {_simplify(name) for name in labels.names}
    if config.descriptions and known.isdisjoint(_simplify(name) for name in config.descriptions):
        material.splits.facts.warn_once(
            "strategy.descriptions: none of them names a label of this data; the labels' own names were used."
        )


def _embed_labels(loaded: LoadedEncoder, config: ZeroShotConfig) -> CustomClassifier:
    """A linear head whose rows are the vectors of the labels' words."""
    labels = loaded.labels
    if labels.kind == "multi_label":
        raise RecipeError(
            "strategy.method: label_embedding says which label is nearest, not which of several hold. "
            "Use method=entailment with a classifier of natural language inference for task.kind multi_label."
        )
    encoder: PreTrainedModel = getattr(loaded.model, loaded.model.base_model_prefix)
    model = VectorClassifier(encoder, labels, layers=find_layers(encoder, [-1]), pooling="mean", normalize=True)
    model.eval()
    tokenizer = load_tokenizer(loaded.source, trust_remote_code=loaded.trust_remote_code)
    sentences = describe_labels(labels, config.descriptions, config.template)
    most = resolve_max_length(tokenizer, encoder.config, tokenizer.model_max_length)
    rows = []
    for sentence in sentences:
        # One at a time: a label's vector must not depend on how long the others are.
        inputs = tokenizer(sentence, truncation=True, max_length=most, return_tensors="pt")
        with torch.no_grad():
            rows.append(model.embed(inputs)[0])
    weight_CD = config.scale * torch.stack(rows)
    model.set_head({"kind": "linear"}, {"weight": weight_CD, "bias": torch.zeros(len(rows))})
    return model


def _load_classifier(loaded: LoadedEncoder, method: str) -> LoadedArtifact:
    """Load what ``encoder.name`` names anew with its own head, an adapter folded in."""
    source = loaded.source
    try:
        found = load_artifact(source.location, revision=source.revision, trust_remote_code=loaded.trust_remote_code)
    except ArtifactError as error:
        raise RecipeError(
            f"strategy.method: {method} needs a classifier at encoder.name, came none: {error}"
        ) from error
    if is_adapter(found.model):
        found.model = merge_adapter(found.model)
    if not isinstance(found.model, PreTrainedModel):
        raise RecipeError(f"strategy.method: {method} needs a plain classifier at encoder.name, came {found.folder}.")
    return found


def _build_entailment(loaded: LoadedEncoder, config: ZeroShotConfig) -> CustomClassifier:
    """Ask a classifier of natural language inference about each label."""
    found = _load_classifier(loaded, "entailment")
    if not found.labels.is_categorical or found.metadata.get("reading", {}).get("is_pair") is False:
        raise RecipeError(
            "strategy.method: entailment needs an encoder.name that reads pairs and gives one class, "
            f"came {loaded.source.name}, which does not. Name a classifier of natural language inference."
        )
    positive, negative = find_entailment(found.labels.names)
    tokenizer = found.tokenizer
    sentences = describe_labels(loaded.labels, config.descriptions, config.hypothesis_template)
    hypotheses, types = read_hypotheses(tokenizer, sentences)
    return EntailmentClassifier(
        found.model,
        loaded.labels,
        hypotheses=hypotheses,
        types=types,
        positive=positive,
        negative=negative,
    )


def read_hypotheses(tokenizer: Any, sentences: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
    """Learn from the tokenizer what stands behind a single text's row in the row of a pair.

    Args:
        tokenizer: A `transformers` tokenizer.
        sentences: Second texts.

    Returns:
        Ids and type ids for each sentence.

    Raises:
        EncoderError: The row of a pair does not begin with that of its first text.
    """
    settings: dict[str, Any] = {"padding": False, "truncation": False, "return_token_type_ids": True, "verbose": False}
    single = tokenizer("a", **settings)
    num_first = len(single["input_ids"])
    hypotheses, types = [], []
    for sentence in sentences:
        pair = tokenizer("a", sentence, **settings)
        for key in ("input_ids", "token_type_ids"):
            if list(pair[key][:num_first]) != list(single[key]):
                raise EncoderError(
                    f"encoder.name: expected a tokenizer that puts the second text of a pair behind the first, got "
                    f"{type(tokenizer).__name__}. Name a BERT-like encoder, or use strategy.method=label_embedding."
                )
        hypotheses.append([int(token) for token in pair["input_ids"][num_first:]])
        types.append([int(token) for token in pair["token_type_ids"][num_first:]])
    return hypotheses, types


def _check_room(model: EntailmentClassifier, loaded: LoadedEncoder, material: Material) -> None:
    """Refuse pairs, and texts that would leave no room for a hypothesis."""
    if material.splits.is_pair:
        raise RecipeError(
            "strategy.method: entailment puts a hypothesis in the place of the second text, and this data has pairs. "
            "Name one column with data.text, or train a classifier."
        )
    longest = max(len(tokens) for tokens in model.hypotheses)
    tokenizer = load_tokenizer(loaded.source, trust_remote_code=loaded.trust_remote_code)
    wanted = material.recipe.data.max_length
    most = resolve_max_length(tokenizer, model.encoder.config, wanted + longest)
    if most < wanted + longest:
        advice = f"Set data.max_length={most - longest}." if most - longest >= 4 else "Shorten the hypotheses."
        raise RecipeError(
            f"data.max_length: the encoder reads {most} tokens and the longest hypothesis takes {longest}: expected at "
            f"most {most - longest}, got {wanted}. {advice}"
        )


def _build_reuse(loaded: LoadedEncoder, config: ZeroShotConfig) -> CustomClassifier:
    """Keep a classifier and its head, and say its labels in ours."""
    found = _load_classifier(loaded, "reuse")
    theirs, ours = found.labels, loaded.labels
    if theirs.kind == "regression":
        raise RecipeError("strategy.method: reuse needs a classifier at encoder.name, came a regression.")
    if not theirs.is_categorical and ours.is_categorical:
        raise RecipeError(
            f"strategy.method: the labels of {loaded.source.name} do not exclude each other, those of task.kind "
            f"{ours.kind} do. Use task.kind=multi_label, or train a classifier."
        )
    mapping = config.mapping or {name: name for name in theirs.names if name in ours.names}
    for side, names, wanted in (("encoder.name", theirs.names, mapping), ("the data", ours.names, mapping.values())):
        if unknown := [name for name in wanted if name not in names]:
            raise RecipeError(
                f'strategy.mapping: "{unknown[0]}" is no label of {side}. Its labels: {_list_names(names)}.'
            )
    groups = [[theirs.label2id[name] for name, label in mapping.items() if label == own] for own in ours.names]
    if missing := [own for own, group in zip(ours.names, groups, strict=True) if not group]:
        raise RecipeError(
            f'strategy.mapping: no label of encoder.name stands for "{missing[0]}". '
            f"Map one of its labels to it: {_list_names(theirs.names)}."
        )
    if theirs.is_categorical and not ours.is_categorical:
        for own, group in zip(ours.names, groups, strict=True):
            if len(group) == theirs.num_outputs:
                raise RecipeError(f'strategy.mapping: every label of encoder.name means "{own}". Leave some out.')
    return ReuseClassifier(found.model, ours, groups=groups, is_exclusive=theirs.is_categorical)


def _fit_temperature(model: CustomClassifier, material: Material) -> float:
    """Fit the temperature to the labels of validation."""
    encoded = material.prepared.splits.get("validation")
    if encoded is None or encoded.labels is None:
        raise RecipeError("strategy.calibrate: temperature needs a validation split with labels. Use calibrate=none.")
    logits_NC = material.predict(model, material.prepared, "validation", "temperature on validation")
    return fit_temperature(logits_NC, encoded.labels, material.prepared.labels)


BUILDERS: dict[str, Callable[[LoadedEncoder, ZeroShotConfig], CustomClassifier]] = {
    "label_embedding": _embed_labels,
    "entailment": _build_entailment,
    "reuse": _build_reuse,
}
"""What makes the classifier, by ``strategy.method``."""

STRATEGY = Strategy(kind="zero_shot", adapt=adapt_zero_shot)
