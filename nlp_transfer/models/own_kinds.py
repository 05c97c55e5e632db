"""The table of classifiers in a form of their own."""

from nlp_transfer.models.cloze import ClozeClassifier
from nlp_transfer.models.bottleneck import AdapterClassifier
from nlp_transfer.models.own import OwnClassifier
from nlp_transfer.models.vectors import VectorClassifier

__all__ = ["OWN_KINDS"]

OWN_KINDS: dict[str, type[OwnClassifier]] = {
    each.kind: each for each in (VectorClassifier, ClozeClassifier, AdapterClassifier)
}
"""Class by its name in ``nlp_transfer.json``."""
