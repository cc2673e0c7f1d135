"""The texts that every contestant gets, in the same order: review snippets of mixed length."""

import random

from scripts.sentiment_data import load_examples

# Snippets of film reviews: 27 tokens on average, from 4 to 78.
DOMAIN = "movie reviews"
COUNT = 512
SEED = 0


def load_texts(count: int = COUNT) -> list[str]:
    """Return texts of the test split, none of which the model was trained on."""
    found = [e.text for e in load_examples() if e.split == "test" and e.domain == DOMAIN]
    random.Random(SEED).shuffle(found)  # noqa: S311 -- an order, not a secret
    return found[:count]
