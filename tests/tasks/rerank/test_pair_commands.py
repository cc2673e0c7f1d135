"""`app rerank`, `app zero-shot` and `app predict --pair`, against a running service."""

import json
from collections.abc import Iterator
from subprocess import CompletedProcess

import commands
import pytest
from process import Service, service

from app.console.client import EXIT_NOT_FOUND

MODELS = """
[[models]]
name = "ranker"
task = "text-ranking"
engine = "fake"
limits = { max_tokens = 30 }

[[models]]
name = "nli"
task = "zero-shot-classification"
engine = "fake"

[[models]]
name = "pairs"
engine = "fake"
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("s"), MODELS, auth="off", features="none") as running:
        running.wait_ready()
        yield running


def app(served: Service, *arguments: str, stdin: str = "") -> CompletedProcess[str]:
    return commands.run(served.log_file.parent, *arguments, stdin=stdin, app_url=served.url)


def test_rerank_prints_texts_the_best_first(served: Service) -> None:
    listed = app(served, "rerank", "a planet", "Venus", "Mars", "Earth", "--json").stdout
    rows = [json.loads(line) for line in listed.splitlines()]
    assert {row["text"] for row in rows} == {"Venus", "Mars", "Earth"}
    piped = app(
        served,
        "rerank",
        "a planet",
        "-",
        stdin="Venus\n\nMars\nEarth\n",
    )
    assert [line.split()[1] for line in piped.stdout.splitlines()] == [row["text"] for row in rows]
    best = app(served, "rerank", "a planet", "Venus", "x" * 50, "--top-n", "1")
    assert len(best.stdout.splitlines()) == 1
    assert app(served, "rerank", "a", "b", "--model", "pairs").returncode == EXIT_NOT_FOUND


def test_zero_shot_prints_labels_the_best_first(served: Service) -> None:
    done = app(served, "zero-shot", "A text.", "good", "bad", "--template", "It is {}.")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert {row[0] for row in rows} == {"good", "bad"}
    assert sum(float(row[1].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.2)
    several = app(served, "zero-shot", "A text.", "good", "bad", "--multi-label", "--json")
    assert len(json.loads(several.stdout)["scores"]) == 2


def test_predict_takes_a_second_text(served: Service) -> None:
    one = json.loads(app(served, "predict", "a", "--pair", "b", "--json").stdout)
    assert (one["text"], one["text_pair"]) == ("a", "b")
    assert app(served, "predict", "-", "--pair", "b", stdin="a\n").returncode != 0
