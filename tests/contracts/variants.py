"""What the contract tests hold: every technique that a strategy section can ask for, on every family."""

from pathlib import Path

from nlp_transfer.contracts import Prepared, Splits
from nlp_transfer.data.encode import encode_splits
from nlp_transfer.models.encoder import LoadedEncoder, load_encoder, load_tokenizer
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.strategies import STRATEGIES, Adapted
from tests.tiny import FAMILIES

WORDS = {"class 0": "the", "class 1": "everyone", "class 2": "room"}
"""A word a label for cloze questions."""


TEACHER = "TEACHER"
"""Stands for the tiny classifier of the same family."""

VARIANTS: dict[str, dict[str, object]] = {
    # Each strategy as it is where nothing is said; then what its settings can ask for.
    **{kind: {"kind": kind} for kind in STRATEGIES},
    "full-l2_sp": {"kind": "full", "l2_sp": 0.1},
    "full-mixout": {"kind": "full", "mixout": 0.3},
    "full-probe": {"kind": "full", "head_init": "probe", "probe_epochs": 1},
    "layerwise-uncached": {"kind": "layerwise", "cache_prefix": False},
    "layerwise-biases": {"kind": "layerwise", "only": "biases"},
    "layerwise-norms": {"kind": "layerwise", "only": "norms"},
    "layerwise-gradual": {"kind": "layerwise", "unfreeze": "gradual", "freeze_embeddings": False},
    "layerwise-decay": {"kind": "layerwise", "layer_decay": 0.5, "freeze_layers": 0, "freeze_embeddings": False},
    "layerwise-reinit": {"kind": "layerwise", "reinit_layers": 1, "freeze_layers": 0, "freeze_embeddings": False},
    "frozen-uncached": {"kind": "frozen", "cache_prefix": False},
    "features-svm": {"kind": "features", "head": "svm", "pooling": "max"},
    "features-knn": {"kind": "features", "head": "knn", "pooling": "first", "normalize": False},
    "features-first": {"kind": "features", "pooling": "first", "normalize": False},
    "features-mlp": {"kind": "features", "head": "mlp", "layers": [0, -1], "combine": "concat"},
    "few_shot-prototypes": {"kind": "few_shot", "method": "prototypes"},
    "few_shot-cloze": {"kind": "few_shot", "method": "cloze", "verbalizers": WORDS},
    "lora-dora": {"kind": "lora", "variant": "dora"},
    "lora-adalora": {"kind": "lora", "variant": "adalora"},
    "lora-vera": {"kind": "lora", "variant": "vera", "rank": 32},
    "lora-rslora": {"kind": "lora", "rank_stabilized": True},
    "lora-plus": {"kind": "lora", "rate_ratio": 16.0},
    "lora-pissa": {"kind": "lora", "init": "pissa"},
    "lora-ia3": {"kind": "lora", "variant": "ia3"},
    "lora-oft": {"kind": "lora", "variant": "oft"},
    "lora-fourierft": {"kind": "lora", "variant": "fourierft", "frequencies": 200},
    "lora-loha": {"kind": "lora", "variant": "loha"},
    "lora-lokr": {"kind": "lora", "variant": "lokr"},
    "lora-miss": {"kind": "lora", "variant": "miss"},
    "adapters-houlsby": {"kind": "adapters", "variant": "houlsby", "reduction": 4, "activation": "gelu"},
    "adapters-norms": {"kind": "adapters", "norms": True, "reduction": 4, "activation": "gelu"},
    "adapters-input_norm": {"kind": "adapters", "input_norm": True, "reduction": 4, "activation": "gelu"},
    "adapters-parallel": {"kind": "adapters", "variant": "parallel", "scale": 4.0, "activation": "silu"},
    "prompts-p_tuning": {"kind": "prompts", "variant": "p_tuning"},
    "prompts-random": {"kind": "prompts", "variant": "prompt", "init": "random", "tokens": 3},
    "prompts-prefix": {"kind": "prompts", "variant": "prefix"},
    "prompts-project": {"kind": "prompts", "variant": "prefix", "project": True},
    "zero_shot-calibrated": {"kind": "zero_shot", "calibrate": "temperature", "scale": 5.0},
    "zero_shot-entailment": {"kind": "zero_shot", "method": "entailment"},
    "zero_shot-reuse": {"kind": "zero_shot", "method": "reuse"},
    "distill": {"kind": "distill", "teacher": TEACHER},
    "distill-shallow": {"kind": "distill", "teacher": TEACHER, "keep_layers": 1},
}
"""Every technique a strategy section can ask for."""

IMPOSSIBLE = {
    ("layerwise-reinit", "albert"): "share their weights",
    ("layerwise-biases", "modernbert"): "has no biases",
    ("distill-shallow", "albert"): "share their weights",
    **{
        (name, family): f"keys and values to read, which {family.replace('v3', 'v2')} does not take"
        for name in ("prompts-prefix", "prompts-project")
        for family in ("distilbert", "albert", "deberta-v2", "deberta-v3", "mpnet", "modernbert")
    },
}
"""Cells that cannot exist, and what the user is told."""

CHECKPOINTS = {"zero_shot-entailment": "nli", "zero_shot-reuse": "classifier"}
"""Variants that need an encoder with a head."""

CELLS = [(name, family) for name in VARIANTS for family in FAMILIES if (name, family) not in IMPOSSIBLE]


def make_recipe(
    variant: str, encoder: Path, teacher: Path | None = None, *, kind: str = "classification", **training: object
) -> Recipe:
    settings = {"max_steps": 3, "batch_size": 32, "learning_rate": 1e-2, "device": "cpu", "restore_best": False}
    return load_recipe(
        {
            "task": {"kind": kind},
            "encoder": {"name": str(encoder)},
            "strategy": {key: str(teacher) if value is TEACHER else value for key, value in VARIANTS[variant].items()},
            "training": settings | training,
            "data": {"max_length": 48},
        }
    )


def prepare(recipe: Recipe, splits: Splits) -> Prepared:
    tokenizer = load_tokenizer(resolve_encoder(recipe.encoder))
    return encode_splits(splits, tokenizer, recipe.data)


def adapt(recipe: Recipe, prepared: Prepared) -> tuple[LoadedEncoder, Adapted]:
    loaded = load_encoder(recipe.encoder, prepared.labels, seed=recipe.training.seed)
    return loaded, STRATEGIES[recipe.strategy.kind].adapt(loaded, recipe.strategy)
