"""Fixed features: the encoder runs once over the data, a small classifier is fitted on its vectors."""

from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.engine.predict.vectors import extract_vectors
from nlp_transfer.engine.train.objectives import compute_class_weights
from nlp_transfer.models.encoder import LoadedEncoder
from nlp_transfer.models.heads import can_fold, fold_linear
from nlp_transfer.models.vector_classifier import VectorClassifier, find_layers
from nlp_transfer.recipe.schema import FeaturesConfig
from nlp_transfer.strategies.base import Adapted, Material, Strategy
from nlp_transfer.strategies.fitted_heads import fit_head

__all__ = ["STRATEGY", "adapt_features"]


def adapt_features(loaded: LoadedEncoder, config: FeaturesConfig) -> Adapted:
    """Take the encoder from under its head and fit another on its vectors.

    Args:
        loaded: The encoder; its family's own head is not used.
        config: Layers, pooling and the head.

    Returns:
        A classifier of which nothing moves by gradients; in the end the family's own where that can hold the head.

    Raises:
        RecipeError: The encoder has no such layer.

    Source:
        Peters et al. 2019, https://arxiv.org/abs/1903.05987, "feature extraction"; Reimers and Gurevych 2019,
        https://arxiv.org/abs/1908.10084, section 6 (logistic regression on mean-pooled vectors).
    """
    encoder: PreTrainedModel = getattr(loaded.model, loaded.model.base_model_prefix)
    labels = loaded.labels
    model = VectorClassifier(
        encoder,
        labels,
        layers=find_layers(encoder, config.layers),
        combine=config.combine,
        pooling=config.pooling,
        normalize=config.normalize,
    )
    model.requires_grad_(False)

    def fit_vectors(material: Material) -> None:
        """Fit the head on train."""
        vectors_ND = extract_vectors(
            model.encoder, material.prepared, "train", **model.how, half=material.is_half, track=material.track
        )
        targets = material.prepared.splits["train"].labels
        assert targets is not None
        training = material.recipe.training
        weights_C = compute_class_weights(labels, training, material.splits.facts.label_counts.get("train", {}))
        head, tensors = fit_head(
            config.head,
            vectors_ND,
            targets,
            labels,
            seed=training.seed,
            weights_C=None if weights_C is None else weights_C.numpy(),
            penalties=config.penalties,
            folds=config.folds,
            neighbors=config.neighbors,
            hidden=config.hidden,
            track=material.track,
        )
        model.set_head(head, tensors)

    is_plain = config.pooling == "first" and config.layers == [-1] and not config.normalize
    if is_plain and config.head in ("logistic", "svm") and can_fold(loaded.model, labels.num_outputs):
        return Adapted(model, "transformers", fit_head=fit_vectors, to_artifact=lambda _: _fold(model, loaded.model))
    return Adapted(model, "nlp_transfer", fit_head=fit_vectors)


def _fold(model: VectorClassifier, plain: PreTrainedModel) -> PreTrainedModel:
    """Put the fitted head into the family's own."""
    head = model.head.cpu()
    assert isinstance(head, nn.Linear)
    fold_linear(plain.cpu(), head)
    return plain.eval()


STRATEGY = Strategy(kind="features", adapt=adapt_features)
