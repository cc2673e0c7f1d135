"""Rows of answers, as drift counts them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from app.features.drift.windows import Sizes
from app.services.prediction_log import AnsweredEntry

START = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
ROW = AnsweredEntry(
    time=START, task="t", model="m", version="v", latency_ms=1, label="a", score=0.5, input_tokens=8
)
SIZES = Sizes(reference=1000, window=500)


def rows(count: int, seed: int = 0, **changed: Any) -> list[AnsweredEntry]:
    """Return rows of the same kind; `changed` moves the mean length and the share of a label."""
    chance = np.random.default_rng(seed)
    mean, share = changed.get("mean", 30), changed.get("share", 0.5)
    return [
        replace(
            ROW,
            time=START + timedelta(seconds=n),
            label="a" if chance.random() < share else "b",
            score=float(chance.beta(5, 1)),
            input_tokens=int(chance.poisson(mean)) + 2,
            unknown_tokens=int(chance.random() < changed.get("unknown", 0.01)),
        )
        for n in range(count)
    ]
