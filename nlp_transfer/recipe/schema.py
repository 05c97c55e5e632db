"""The recipe as typed models: the only home of a default.

Every section refuses unknown keys and wrong types. Values that depend on other values (a learning rate on the
strategy, metrics on the task) are filled in when the recipe is loaded, so that the recipe that a run saves contains
every value it used.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from nlp_transfer.recipe.formats import read_delimiter
from nlp_transfer.recipe.methods.table import METHODS as METHODS_TABLE
from nlp_transfer.recipe.metrics import DEFAULT_METRICS, LOWER_IS_BETTER, METRICS, SELECTION_METRICS
from nlp_transfer.recipe.section import PositiveInt, Section, TechniqueSection, join_sections
from nlp_transfer.recipe.strategies.adapters import AdaptersConfig
from nlp_transfer.recipe.strategies.distill import DistillConfig
from nlp_transfer.recipe.strategies.features import FeaturesConfig
from nlp_transfer.recipe.strategies.few_shot import FewShotConfig
from nlp_transfer.recipe.strategies.frozen import FrozenConfig
from nlp_transfer.recipe.strategies.full import FullConfig
from nlp_transfer.recipe.strategies.layerwise import LayerwiseConfig
from nlp_transfer.recipe.strategies.lora import LoraConfig
from nlp_transfer.recipe.strategies.prompts import PromptsConfig
from nlp_transfer.recipe.strategies.table import LEARNING_RATES, STRATEGY_CONFIGS, find_learning_rate
from nlp_transfer.recipe.strategies.zero_shot import ZeroShotConfig

__all__ = [
    "BY_TERMS",
    "DEFAULT_METRICS",
    "LEARNING_RATES",
    "LOWER_IS_BETTER",
    "METRICS",
    "SELECTION_METRICS",
    "STRATEGY_CONFIGS",
    "AdaptersConfig",
    "DataConfig",
    "DistillConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "FeaturesConfig",
    "FewShotConfig",
    "FrozenConfig",
    "FullConfig",
    "LayerwiseConfig",
    "LoraConfig",
    "PromptsConfig",
    "Recipe",
    "ReportConfig",
    "TaskConfig",
    "TrainingConfig",
    "ZeroShotConfig",
]

if TYPE_CHECKING:
    MethodConfig = TechniqueSection
    StrategyConfig = TechniqueSection
else:
    MethodConfig = join_sections(facts.section for facts in METHODS_TABLE.values())
    StrategyConfig = join_sections(STRATEGY_CONFIGS.values())

BY_TERMS = "shipped_terms"
"""Value of `data.balance` that groups rows by the shipped list of terms instead of a column."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
OpenShare = Annotated[float, Field(ge=0.0, lt=1.0)]
Delimiter = Annotated[str, AfterValidator(read_delimiter)]


class TaskConfig(Section):
    """What is predicted."""

    kind: Literal["classification", "multi_label", "regression", "ordinal"] = Field(
        "classification", description="One class of several, any number of classes, a number, or an ordered class."
    )
    labels: list[str] | None = Field(
        None, description="Label names in their order; read from the data where absent. Ordinal classes go low to high."
    )


class EncoderConfig(Section):
    """Which pretrained encoder is adapted."""

    name: str = Field("minilm-l6", min_length=1, description="Alias, folder, earlier artefact, or Hub id.")
    revision: str | None = Field(None, description="Branch, tag or commit of a Hub id.")
    init: Literal["pretrained", "random"] = Field(
        "pretrained", description="random: the same architecture with random weights, without any transfer."
    )
    dropout: OpenShare | None = Field(None, description="Overrides every dropout rate of the encoder and its head.")
    trust_remote_code: bool = Field(False, description="Run code from the encoder's repository. Leave it off.")


class DataConfig(Section):
    """Which rows are read and how they become tokens."""

    path: str = Field("reviews", min_length=1, description="Bundled name, file, folder of splits, or Hub id.")
    name: str | None = Field(None, description="Configuration of a Hub data set, such as mrpc of nyu-mll/glue.")
    revision: str | None = Field(None, description="Branch, tag or commit of a Hub data set.")
    text: str | None = Field(None, description="Column of the text; found by the usual names where absent.")
    text_b: str | None = Field(None, description="Column of the second text of a pair.")
    label: str | list[str] | None = Field(None, description="Label column, or several 0/1 columns for multi_label.")
    id: str | None = Field(None, description="Column that names each row; row numbers where absent.")
    splits: dict[Literal["train", "validation", "test"], str] | None = Field(
        None, description="Split names of the source, such as validation: validation_matched."
    )
    encoding: str = Field("utf-8", description="Character encoding of csv, tsv, txt and jsonl files.")
    delimiter: Delimiter | None = Field(
        None,
        description="Character between the cells of csv, tsv and txt files, or tab; detected from the rows if absent.",
    )
    sheet: str | None = Field(None, min_length=1, description="Sheet of an Excel workbook; the first one where absent.")
    label_separator: str = Field(",", min_length=1, description="Splits a text cell that holds several labels.")
    permute_labels: bool = Field(
        False,
        description="Permute the labels of train with data.seed, only to make an encoder that a guard must refuse.",
    )
    invalid: Literal["error", "drop"] = Field(
        "error", description="What happens to rows with an empty text or a missing label; drops are counted."
    )
    leaks: Literal["warn", "drop"] = Field(
        "warn", description="What happens to train rows whose text also stands in validation or test."
    )
    unlabelled: str | None = Field(
        None,
        min_length=1,
        description="Unlabelled texts for the methods that need them: bundled name, file, folder, or Hub id.",
    )
    domain: str | None = Field(
        None,
        min_length=1,
        description="Column of domains: train and validation keep the rows of data.source, test keeps the rows of "
        "data.target, and the train rows of data.target become unlabelled texts.",
    )
    source: list[str] | str | None = Field(
        None, min_length=1, description="Domains with labels; all domains except the target where absent."
    )
    target: list[str] | str | None = Field(None, min_length=1, description="Domain, or several, to transfer to.")
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="Share of train drawn where the source has no validation split."
    )
    test_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.2, description="Share of train drawn where the source has no test split."
    )
    seed: int = Field(0, ge=0, description="Seed of the drawn splits; the same for all training seeds.")
    limit: PositiveInt | None = Field(None, description="First N rows of train.shuffle(seed=0).")
    shots: PositiveInt | None = Field(None, description="K rows of every class, drawn with training.seed.")
    augment: Literal["none", "identity_swap", "identity_mix"] = Field(
        "none",
        description="identity_swap: adds copies of train rows with identity terms replaced by others of their kind, "
        "from the shipped list. identity_mix: by terms of any kind, such as a nationality by a religion.",
    )
    swap_copies: PositiveInt = Field(2, description="Most copies that data.augment makes of a row. Chosen.")
    swap_sentences: str | None = Field(
        None,
        min_length=1,
        description="A label that is true of every part of its texts, such as nontoxic: for it data.augment also "
        "copies single sentences that name people.",
    )
    balance: str | None = Field(
        None,
        min_length=1,
        description="A column of groups, or shipped_terms: train rows are repeated until the group does not predict "
        "the label.",
    )
    max_length: Annotated[int, Field(ge=4)] = Field(128, description="Tokens the encoder reads, special ones included.")
    long_text: Literal["truncate", "head_tail", "windows"] = Field(
        "truncate", description="Keep the start, keep both ends, or read overlapping windows and pool their logits."
    )
    window_overlap: OpenShare = Field(0.25, description="Share of a window that repeats the previous window; chosen.")
    max_windows: PositiveInt = Field(
        64, description="Most windows of one text; the rest of the text is cut, and the cut is counted. Chosen."
    )

    @property
    def source_domains(self) -> list[str]:
        """The domains of ``source``; empty where no domain is named."""
        return [self.source] if isinstance(self.source, str) else self.source or []

    @property
    def target_domains(self) -> list[str]:
        """The domains of ``target`` as a list; empty where no domain is named."""
        return [self.target] if isinstance(self.target, str) else self.target or []


class TrainingConfig(Section):
    """How the weights are trained."""

    epochs: Annotated[float, Field(gt=0)] = Field(3.0, description="Passes over train; a fraction is allowed.")
    max_steps: PositiveInt | None = Field(None, description="Stop after this many updates; overrides epochs.")
    batch_size: PositiveInt = Field(32, description="Examples per update, over all processes together.")
    microbatch_size: PositiveInt | None = Field(
        None, description="Most examples in one forward pass of one process; the whole batch where absent."
    )
    max_tokens: PositiveInt = Field(
        16_384, description="Most tokens in one forward pass of one process, padding included; chosen."
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(None, description="Peak rate; by strategy if absent.")
    head_learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Peak rate of the newly initialised weights; learning_rate where absent."
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd is plain, without momentum.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="Decoupled; not on biases and norms.")
    beta_1: OpenShare = Field(0.9, description="AdamW's decay of the gradient mean.")
    beta_2: OpenShare = Field(0.999, description="AdamW's decay of the squared gradient mean.")
    epsilon: Annotated[float, Field(gt=0)] = Field(1e-8, description="AdamW's denominator term.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="After the warm-up, towards zero.")
    warmup_share: OpenShare = Field(0.06, description="Share of the steps that warm up; RoBERTa's choice.")
    max_grad_norm: Annotated[float, Field(gt=0)] | None = Field(1.0, description="Clip gradients; null for never.")
    ema_share: OpenShare = Field(
        0.0, description="Score and keep a running mean of the weights over about this share of the run; 0 is off."
    )
    label_smoothing: OpenShare = Field(0.0, description="Share of each target spread over all classes.")
    class_weights: Literal["balanced"] | dict[str, float] | None = Field(
        None, description="Weight of each class in the loss. balanced: inverse to the frequency of the class in train."
    )
    focal_gamma: Annotated[float, Field(ge=0)] = Field(0.0, description="Focal loss (Lin et al. 2017); 0 is off.")
    group_by_length: bool = Field(True, description="Batches of texts of similar length, for less padding.")
    packing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Concatenate rows without padding. auto: on GPUs, where the results stay the same. on: always, on "
        "CPUs too, and without attention dropout.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "off", description="Compile the encoder's layers with torch. auto: on GPUs. The first steps take longer."
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, more time.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="Number format of training.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to train.")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="Seed of head, order and dropout.")
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] | None = Field(
        None, min_length=1, description="Run with each of these seeds and report mean and spread; overrides seed."
    )
    evaluate_every: PositiveInt | None = Field(
        None, description="Steps between evaluations on validation; one each epoch if absent."
    )
    select_by: str | None = Field(None, description="Validation metric that chooses the best weights.")
    restore_best: bool = Field(True, description="Keep the weights that did best on validation instead of the last.")
    early_stopping: PositiveInt | None = Field(
        None, description="Evaluations without improvement before training stops."
    )
    checkpoint_every: PositiveInt | None = Field(
        None, description="Steps between checkpoints; one each epoch where absent."
    )
    checkpoint_minutes: Annotated[float, Field(ge=0)] | None = Field(
        10.0,
        description="Minutes after which an additional checkpoint is written, so that little of a long epoch can be "
        "lost; null or 0 for never.",
    )
    keep_checkpoints: PositiveInt = Field(2, description="How many checkpoints stay on disk besides the best.")
    log_every: PositiveInt = Field(10, description="Steps between two displays of the loss.")
    trackers: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = Field(
        default_factory=list, description="Experiment trackers that get losses and metrics, through accelerate."
    )


class EvaluationConfig(Section):
    """What is measured."""

    metrics: list[str] | None = Field(None, min_length=1, description="Report keys; by task where absent.")
    batch_size: PositiveInt = Field(64, description="Examples in one forward pass without gradients.")
    max_tokens: PositiveInt = Field(
        16_384, description="Most tokens in one forward pass without gradients, padding included; chosen."
    )
    resamples: Annotated[int, Field(ge=100)] = Field(1000, description="Bootstrap resamples of every interval.")
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(0.95, description="Coverage of the intervals.")
    tfidf: bool = Field(True, description="Score TF-IDF with logistic regression on the same splits.")
    control: bool = Field(
        False,
        description="Train the no-transfer control: the same encoder with random weights. If encoder.name is an "
        "earlier artefact, also repeat the run from the encoder that the artefact started from.",
    )
    guard: bool = Field(
        False, description="Keep the control where it is better than the transferred model; sets control."
    )
    control_learning_rates: list[Annotated[float, Field(gt=0)]] = Field(
        default_factory=lambda: [1e-4, 3e-4, 1e-3],
        min_length=1,
        description="Learning rates to try for the control; validation selects one. Chosen: random encoders need them.",
    )
    calibration: Literal["none", "temperature", "isotonic"] = Field(
        "none",
        description="Calibrate the probabilities on validation; the map is saved with the model and changes no "
        "prediction.",
    )
    threshold_goal: Literal["none", "f1", "precision_at_recall", "recall_at_precision"] = Field(
        "none", description="Choose the decision threshold of a label on validation, for this goal."
    )
    threshold_at: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.9, description="The recall, or precision, that threshold_goal must reach. Chosen."
    )
    threshold_label: str | None = Field(
        None, description="The class that gets the threshold; every label of multi_label where absent."
    )
    coverages: list[Annotated[float, Field(gt=0.0, le=1.0)]] = Field(
        default_factory=lambda: [0.5, 0.7, 0.8, 0.9, 0.95, 1.0],
        description="Shares of the most confident rows whose accuracy the report shows; [] for none. Chosen.",
    )
    slices: list[str] = Field(
        default_factory=list,
        description="Columns whose groups are scored separately; length (in words) and label need no column.",
    )
    worst_errors: Annotated[int, Field(ge=0)] = Field(20, description="Most confident mistakes shown in the report.")


class ReportConfig(Section):
    """What a run writes, and where."""

    output_dir: str = Field("runs/run", min_length=1, description="Folder of the run.")
    title: str | None = Field(None, description="Heading of the report and the model card.")
    license: str | None = Field(None, description="Licence identifier for the model card, such as apache-2.0.")
    language: str | None = Field(None, description="Language code for the model card, such as en.")


def _name_kinds(entries: Any) -> Any:
    """Turn the bare name of a method into its section with default settings."""
    if not isinstance(entries, list):
        return entries
    return [{"kind": entry} if isinstance(entry, str) else entry for entry in entries]


class Recipe(Section):
    """One run, described completely.

    Example:
        >>> recipe = Recipe.model_validate({"strategy": {"kind": "lora", "rank": 4}})
        >>> recipe.strategy.rank, recipe.training.learning_rate, recipe.evaluation.metrics[:2]
        (4, 0.001, ['accuracy', 'f1_macro'])
    """

    description: str = Field("", description="One line for `nlp-transfer list`.")
    task: TaskConfig = Field(default_factory=TaskConfig)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    strategy: StrategyConfig = Field(default_factory=lambda: FullConfig(kind="full"))
    methods: Annotated[list[MethodConfig], BeforeValidator(_name_kinds)] = Field(
        default_factory=list,
        description="Methods around the strategy: other data, another loss, or several fits. Their order is ignored.",
    )
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        """Fill in the values that depend on other sections."""
        kind = self.task.kind
        training: dict[str, Any] = {}
        if self.training.learning_rate is None:
            training["learning_rate"] = find_learning_rate(self.strategy)
        if self.training.select_by is None:
            training["select_by"] = SELECTION_METRICS[kind]
        if training:
            object.__setattr__(self, "training", self.training.model_copy(update=training))
        evaluation: dict[str, Any] = {}
        if self.evaluation.metrics is None:
            evaluation["metrics"] = list(DEFAULT_METRICS[kind])
        if self.evaluation.guard and not self.evaluation.control:
            # The guard falls back on the control.
            evaluation["control"] = True
        if evaluation:
            object.__setattr__(self, "evaluation", self.evaluation.model_copy(update=evaluation))
        return self
