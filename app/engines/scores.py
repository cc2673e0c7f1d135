"""Logits to scores, in float32, the same for every engine."""

import numpy as np

from app.engines.base import Activation, FloatArray


def scores(logits: FloatArray, activation: Activation) -> FloatArray:
    """Return what a classifier answers, (batch, labels) float32."""
    if activation is Activation.SOFTMAX:
        return softmax(logits)
    return sigmoid(logits) if activation is Activation.SIGMOID else logits


def softmax(logits: FloatArray) -> FloatArray:
    """Return probabilities that sum to 1 in each row."""
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: FloatArray = exp / exp.sum(axis=1, keepdims=True)
    return probabilities


def sigmoid(logits: FloatArray) -> FloatArray:
    """Return a probability for each logit; the form with tanh can't overflow.

    In float64 on the way: in float32 all below -17 would be equal, and a ranking lose its order.
    """
    halves = logits.astype(np.float64) / 2
    probabilities: FloatArray = ((np.tanh(halves) + 1) / 2).astype(np.float32)
    return probabilities
