"""Data: from a source to the batches that a model reads."""

from nlp_transfer.data.columns import prepare_inference_table
from nlp_transfer.data.labels.contract import map_labels
from nlp_transfer.data.load import load_splits
from nlp_transfer.data.tables import read_table

__all__ = ["load_splits", "map_labels", "prepare_inference_table", "read_table"]
