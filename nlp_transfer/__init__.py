"""Transfer learning on text, with evidence.

Nothing heavy is imported until it is used.
"""

from typing import TYPE_CHECKING, Any

from nlp_transfer.terminal import quiet_imports

if TYPE_CHECKING:
    from nlp_transfer.classifier import Classifier
    from nlp_transfer.errors import TransferError
    from nlp_transfer.evidence.advise.command import advise
    from nlp_transfer.evidence.audit.command import audit
    from nlp_transfer.evidence.compare.command import compare
    from nlp_transfer.evidence.rank.command import rank
    from nlp_transfer.evidence.tune.command import tune
    from nlp_transfer.publishing.report.result import Report
    from nlp_transfer.recipe.load import load_recipe
    from nlp_transfer.recipe.schema import Recipe
    from nlp_transfer.runs.pipeline import run

__all__ = [
    "Classifier",
    "Recipe",
    "Report",
    "TransferError",
    "__version__",
    "advise",
    "audit",
    "compare",
    "load_recipe",
    "rank",
    "run",
    "tune",
]

__version__ = "0.1.0"

quiet_imports()

_HOMES = {
    "Classifier": "nlp_transfer.classifier",
    "Recipe": "nlp_transfer.recipe.schema",
    "Report": "nlp_transfer.publishing.report.result",
    "TransferError": "nlp_transfer.errors",
    "advise": "nlp_transfer.evidence.advise.command",
    "audit": "nlp_transfer.evidence.audit.command",
    "compare": "nlp_transfer.evidence.compare.command",
    "load_recipe": "nlp_transfer.recipe.load",
    "rank": "nlp_transfer.evidence.rank.command",
    "run": "nlp_transfer.runs.pipeline",
    "tune": "nlp_transfer.evidence.tune.command",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nlp_transfer' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, those not imported yet included."""
    return sorted(__all__)
