"""Turns logits of entailment into likelihoods of labels, as transformers' pipeline does."""

from app.engines.base import FloatArray
from app.engines.scores import softmax


def likelihoods(logits: FloatArray, entailment: int, *, is_multi_label: bool) -> FloatArray:
    """Return how likely each label is, (labels,) float32.

    Args:
        logits: of the text with each label's hypothesis, (labels, classes) float32.
        entailment: the class that says that the hypothesis follows.
        is_multi_label: several labels may be right: each is then as likely as its entailment
            against its contradiction. Otherwise all together are as likely as 1. A single label is
            always on its own.

    """
    if is_multi_label or len(logits) == 1:
        # The pipeline takes the first class for the contradiction, or the last where the first
        # one is the entailment.
        contradiction = -1 if entailment == 0 else 0
        either: FloatArray = softmax(logits[:, [contradiction, entailment]])[:, 1]
        return either
    together: FloatArray = softmax(logits[None, :, entailment])[0]
    return together
