"""What a process does before it forks children that run: each of them would have to do it anew."""

import gc

# What a run imports late.
import evaluate  # noqa: F401
import matplotlib.figure  # noqa: F401
import peft  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.linear_model  # noqa: F401
from markupsafe import Markup
from transformers import BertForSequenceClassification  # noqa: F401

from nlp_transfer.publishing.report import page


def prepare_to_fork() -> None:
    """Leave pictures out of pages, and what is in memory to every child as it is.

    A child that collected garbage among all that was imported would copy the pages that it shares: with the imports
    that was three quarters of a tiny run's time.
    """
    page._draw_pictures = lambda *_: dict.fromkeys(page.PICTURES, Markup(""))
    gc.collect()
    gc.freeze()
