"""What a report says of two sides: counts, words, and how far apart they lie."""

import numpy as np
import pandas as pd

import nlp_transfer as nt
from nlp_transfer.runs.transfer import compare_words
from tests.tiny import make_texts


def test_words_are_counted_once_whatever_their_case():
    found = compare_words(["Good, good BOOK", "the end"], ["a Book", "a pan"])
    assert found == {"words": {"source": 4, "target": 3}, "new_words": 2 / 3}
    assert compare_words(["x"], []) == {"words": {"source": 1, "target": 0}, "new_words": 0.0}


def run_two_sides(encoder, folder, target):
    texts = make_texts(60, seed=3)
    source = pd.DataFrame({"text": texts, "label": ["bad", "good"] * 30, "shop": "a"})
    other = pd.DataFrame({"text": target, "label": ["good", "good", "bad"] * (len(target) // 3), "shop": "b"})
    settings = {
        "encoder": {"name": str(encoder)},
        "data": {"domain": "shop", "target": "b", "max_length": 48},
        "training": {"max_steps": 1, "device": "cpu"},
        "evaluation": {"tfidf": False, "resamples": 100},
    }
    data = pd.concat([source, other], ignore_index=True)
    return nt.run(settings, data=data, output_dir=folder, progress=False).record["data"]


def test_the_report_tells_the_two_sides_apart_and_says_by_how_much(tiny_encoder, tmp_path):
    encoder = tiny_encoder("bert")
    far = run_two_sides(encoder, tmp_path / "far", [f"!!! {number} ???" for number in range(60)])
    near = run_two_sides(encoder, tmp_path / "near", make_texts(60, seed=4))
    for record in (far, near):
        assert record["rows"]["test"] == 12
        assert record["transfer"]["rows"] == {"source": record["rows"]["train"], "target": 48}
        assert record["transfer"]["labels"]["source"] == record["label_counts"]["train"]
        assert sum(record["transfer"]["labels"]["target"].values()) == 12
    assert far["transfer"]["new_words"] > near["transfer"]["new_words"]
    assert 0 <= near["transfer"]["proxy_a_distance"] < far["transfer"]["proxy_a_distance"] <= 2
    assert np.isclose(far["transfer"]["proxy_a_distance"], 2, atol=0.3)


def test_a_run_without_such_texts_says_nothing(tiny_encoder, tmp_path):
    data = pd.DataFrame({"text": make_texts(40, seed=3), "label": ["bad", "good"] * 20})
    settings = {
        "encoder": {"name": str(tiny_encoder("bert"))},
        "training": {"max_steps": 1, "device": "cpu"},
        "evaluation": {"tfidf": False, "resamples": 100},
    }
    report = nt.run(settings, data=data, output_dir=tmp_path / "run", progress=False)
    assert report.record["data"]["transfer"] == {}
