"""The wire contract of `/drift`."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from app.features.drift.comparing import Kind
from app.models.schemas import Response, example


class KindDistance(Response):
    """How far one kind of a window is from its reference."""

    kind: Annotated[
        Kind,
        Field(
            description="Labels of answers, their scores, tokens of inputs, or the share of tokens"
            " that the model's tokeniser doesn't know."
        ),
    ]
    psi: Annotated[
        float,
        Field(description="The population stability index, less what chance alone makes of it."),
    ]
    ks: Annotated[
        float | None,
        Field(description="The Kolmogorov-Smirnov statistic; null of labels, which have no order."),
    ]
    is_drift: Annotated[bool, Field(description="Whether `psi` is above the limit.")]


class FullWindow(Response):
    """The last window that is full."""

    closed_at: Annotated[datetime, Field(description="When its last row was answered.")]
    rows: int
    distances: Annotated[
        list[KindDistance],
        Field(description="Of each kind that reference and window have enough rows of."),
    ]


class DriftReference(Response):
    """What windows are compared with."""

    taken_at: datetime
    rows: int


class VersionDrift(Response):
    """The windows of one version of a model."""

    model: str
    version: str
    reference: Annotated[
        DriftReference | None,
        Field(description="Null: its rows are being counted."),
    ]
    rows: Annotated[int, Field(description="Counted for the reference, else the next window.")]
    wanted: Annotated[int, Field(description="Rows with which that is full.")]
    seen_at: Annotated[datetime, Field(description="When its last counted row was answered.")]
    last: Annotated[FullWindow | None, Field(description="Null: none was full yet.")]


class Drift(Response):
    """What was counted by the process that answers, since it started."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "psi_limit": 0.1,
                "versions": [
                    {
                        "model": "sentiment",
                        "version": "3f1c2a9b",
                        "reference": {"taken_at": "2026-11-22T12:00:00.5Z", "rows": 2000},
                        "rows": 310,
                        "wanted": 1000,
                        "seen_at": "2026-11-22T14:01:00.1Z",
                        "last": {
                            "closed_at": "2026-11-22T14:00:00.1Z",
                            "rows": 1000,
                            "distances": [
                                {"kind": "label", "psi": 0.004, "ks": None, "is_drift": False},
                                {"kind": "length", "psi": 1.31, "ks": 0.402, "is_drift": True},
                            ],
                        },
                    }
                ],
            }
        )
    )

    psi_limit: Annotated[float, Field(description="Above it a distance is called a drift.")]
    versions: list[VersionDrift]
