"""What columns are usually called."""

__all__ = ["ID_NAMES", "LABEL_NAMES", "PAIR_NAMES", "TEXT_NAMES", "USUAL_NAMES"]

TEXT_NAMES = (
    "sentence", "review", "content", "tweet", "comment", "comment_text", "question", "utterance", "headline", "body",
    "document", "query", "message", "title", "abstract", "post", "article", "description", "phrase", "texts",
)  # fmt: skip
PAIR_NAMES = (
    ("text", "text_b"), ("text_a", "text_b"), ("text1", "text2"), ("text_1", "text_2"), ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "sentence"),
)  # fmt: skip
LABEL_NAMES = (
    "target", "class", "category", "sentiment", "intent", "emotion", "stars", "rating", "score", "topic", "y", "tag",
    "tags", "classes", "categories", "emotions", "gold_label", "coarse_label", "airline_sentiment", "polarity",
)  # fmt: skip
ID_NAMES = ("id", "idx", "index", "uid", "guid", "unnamed_0", "unnamed: 0", "__index_level_0__")
USUAL_NAMES = frozenset(
    {
        "text",
        "label",
        "labels",
        "label_text",
        *TEXT_NAMES,
        *LABEL_NAMES,
        *ID_NAMES,
        *(n for pair in PAIR_NAMES for n in pair),
    }
)
"""All of them, in lower case."""
