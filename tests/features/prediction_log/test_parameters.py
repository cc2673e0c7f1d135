"""What is sent to the database for an entry."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.engines.base import Task
from app.features.prediction_log.parameters import for_postgresql, for_sqlite
from app.features.prediction_log.tables import COLUMNS
from app.services.prediction_log import PredictionLogEntry

ONE = PredictionLogEntry(
    time=datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC),
    id=1,
    request_id="r",
    task=Task.CHAT,
    model="m",
    latency_ms=1.5,
)


def of_sqlite(entry: PredictionLogEntry) -> dict[str, object]:
    (row,) = for_sqlite([entry])
    return dict(zip(COLUMNS, row, strict=True))


def test_sqlite_gets_the_driver_s_own_types_only() -> None:
    assert {type(value) for value in of_sqlite(ONE).values()} <= {str, int, float, type(None)}


def test_times_are_utc_to_the_microsecond_as_sqlalchemy_reads_them() -> None:
    assert of_sqlite(ONE)["time"] == "2026-05-04 03:02:01.000000"
    elsewhere = ONE.time.astimezone(timezone(timedelta(hours=-8)))
    assert of_sqlite(replace(ONE, time=elsewhere))["time"] == "2026-05-04 03:02:01.000000"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        for_sqlite([replace(ONE, time=ONE.time.replace(tzinfo=None))])


def test_what_no_database_stores_is_replaced_and_the_rest_of_the_row_stays() -> None:
    odd = replace(ONE, label="a\0b\ud800\nc", score=math.nan, ttft_ms=math.inf)
    row = of_sqlite(odd)
    assert (row["label"], row["score"], row["ttft_ms"]) == ("a\ufffdb?\nc", None, None)
    assert (row["request_id"], row["latency_ms"]) == ("r", 1.5)
    (in_json,) = json.loads(for_postgresql([odd]))
    assert (in_json["label"], in_json["score"]) == ("a\ufffdb?\nc", None)
