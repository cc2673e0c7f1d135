"""Counts, distances and windows: what is called a drift, and what isn't."""

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import yaml
from answered import ROW, SIZES, START, rows

from app.features.drift.comparing import LEAST_ROWS, PSI_LIMIT, compare
from app.features.drift.counts import EDGES, MAX_LABELS, OTHERS, Counts
from app.features.drift.distances import GROUPS, grouped, ks, psi
from app.features.drift.windows import MAX_SERIES, Reference, Version, Windows
from app.services.prediction_log import AnsweredEntry
from scripts.check_monitoring import RULES


def counted(*some: AnsweredEntry) -> Counts:
    counts = Counts()
    counts.add(some)
    return counts


# Distances, against values that were worked out by hand.


def test_psi_is_the_sum_over_groups() -> None:
    before, now = np.array([499_999_500, 499_999_500]), np.array([249_999_500, 749_999_500])
    expected = (0.25 - 0.5) * math.log(0.25 / 0.5) + (0.75 - 0.5) * math.log(0.75 / 0.5)
    assert psi(before, now) == pytest.approx(expected, abs=1e-6)
    assert psi(before, before) == 0
    assert psi(np.array([10, 0]), np.array([0, 10])) < 10  # a group that is empty isn't infinite


def test_ks_is_the_largest_difference_of_cumulative_shares() -> None:
    assert ks(np.array([1, 1, 1, 1]), np.array([0, 0, 2, 2])) == pytest.approx(0.5)
    assert ks(np.array([1, 1, 1, 1]), np.array([5, 5, 5, 5])) == 0


def test_groups_are_of_about_equal_size_and_lose_no_row() -> None:
    before, now = np.arange(1, 201), np.ones(200, dtype=np.int64)
    first, second = grouped(before, now)
    assert len(first) == len(second) <= GROUPS
    assert (first.sum(), second.sum()) == (before.sum(), now.sum())
    assert first[:-1].min() >= before.sum() / GROUPS
    only = np.zeros(200, dtype=np.int64)
    only[3] = 5
    assert [len(one) for one in grouped(only, now)] == [2, 2]


# Counts


def test_values_of_every_size_have_a_bin() -> None:
    odd = [-math.inf, -1e9, -0.5, 0.0, 0.005, 1.0, 7.0, 1e9, math.inf]
    counts = counted(*(replace(ROW, score=score, input_tokens=2**40) for score in odd))
    assert counts.bins["score"].sum() == counts.bins["length"].sum() == len(odd)
    assert counts.bins["length"][-1] == len(odd)
    assert counts.bins["score"][np.searchsorted(EDGES["score"], 0.0, side="right")] == 2
    assert counts.bins["unknown"].sum() == 0  # the tokeniser knows every word
    bare = counted(replace(ROW, label=None, score=None, input_tokens=None))
    assert (bare.rows, bare.labels.total(), bare.bins["length"].sum()) == (1, 0, 0)
    assert counted(replace(ROW, input_tokens=None, prompt_tokens=9)).bins["length"].sum() == 1


def test_labels_are_bounded_and_counts_come_back_from_json() -> None:
    counts = counted(*(replace(ROW, label=f"label {n}") for n in range(MAX_LABELS * 2)))
    assert len(counts.labels) == MAX_LABELS + 1
    assert counts.labels[OTHERS] == MAX_LABELS
    stored = counts.as_dict()
    read = Counts.read(stored)
    assert read is not None
    assert read.as_dict() == stored
    assert Counts.read({**stored, "edition": 0}) is None


# What is a drift


@pytest.mark.parametrize("seed", range(1, 21))
def test_more_of_the_same_is_no_drift_with_the_smallest_windows(seed: int) -> None:
    reference = counted(*rows(SIZES.reference, seed=1000 + seed))
    distances = compare(reference, counted(*rows(SIZES.window, seed=seed)))
    assert [one.kind for one in distances] == ["label", "score", "length", "unknown"]
    assert [one.kind for one in distances if one.is_drift] == []


@pytest.mark.parametrize(
    ("kind", "changed"),
    [("label", {"share": 0.8}), ("length", {"mean": 22}), ("unknown", {"unknown": 0.3})],
)
def test_a_shift_is_a_drift_of_its_kind_alone(kind: str, changed: dict[str, Any]) -> None:
    reference = counted(*rows(SIZES.reference))
    distances = compare(reference, counted(*rows(SIZES.window, seed=1, **changed)))
    assert [one.kind for one in distances if one.is_drift] == [kind]


def test_labels_that_were_never_seen_before_are_a_drift() -> None:
    reference = counted(*rows(SIZES.reference))
    new = [replace(row, label="new" if n % 3 else row.label) for n, row in enumerate(rows(500))]
    assert "label" in [one.kind for one in compare(reference, counted(*new)) if one.is_drift]


def test_of_few_rows_nothing_is_said() -> None:
    some = counted(*rows(LEAST_ROWS - 1))
    assert compare(some, counted(*rows(500))) == compare(counted(*rows(500)), some) == ()


# Windows


def test_the_first_rows_are_the_reference_and_windows_follow() -> None:
    windows = Windows(SIZES)
    assert windows.add(rows(999)) == {Version("m", "v"): 0}
    (series,) = windows.series.values()
    assert (series.reference, series.counts.rows, series.wanted) == (None, 999, 1000)
    assert windows.add(rows(1 + 500 * 2 + 7, seed=1)) == {Version("m", "v"): 2}
    assert series.reference is not None
    assert series.reference.counts.rows == 1000
    assert series.last is not None
    assert (series.last.rows, series.counts.rows, series.wanted) == (500, 7, 500)
    assert series.last.closed_at == START + timedelta(seconds=1000)
    series.adopt(Reference(counts=counted(*rows(1000, mean=90)), taken_at=START))
    assert series.counts.rows == 0
    assert series.last is None
    windows.add(rows(500))
    assert series.last is not None
    assert "length" in [one.kind for one in series.last.distances if one.is_drift]
    series.restart()
    assert series.wanted == 1000
    assert series.reference is None


def test_versions_are_counted_apart_and_bounded() -> None:
    windows = Windows(SIZES)
    for n in range(MAX_SERIES):
        windows.add([replace(ROW, version=f"v{n}")])
    windows.add([replace(ROW, version="v0")])  # asked again
    windows.add([replace(ROW, version=None), replace(ROW, model="other")])
    assert len(windows.series) == MAX_SERIES
    assert {Version("m", "v1"), Version("m", "v2")}.isdisjoint(windows.series)
    assert windows.series[Version("m", "v0")].counts.rows == 2
    assert Version("m", "") in windows.series


def test_the_alert_and_the_page_have_the_limit_of_the_code() -> None:
    page = (RULES.parents[2] / "app/features/page/web/drift.js").read_text("utf-8")
    assert f"const LIMIT = {PSI_LIMIT};" in page
    groups = yaml.safe_load((RULES / "alerts.yml").read_text("utf-8"))["groups"]
    (rule,) = (r for g in groups for r in g["rules"] if r["alert"] == "DriftFound")
    assert rule["expr"].endswith(f"> {PSI_LIMIT}")
