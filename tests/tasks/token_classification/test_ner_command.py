"""`app ner`, against a running service."""

import json
from collections.abc import Iterator
from subprocess import CompletedProcess

import commands
import pytest
from process import Service, service

from app.console.client import EXIT_INPUT

ENTRY = """
[[models]]
name = "names"
task = "token-classification"
engine = "fake"
fake = { fail_on = "poison" }
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("ner"), ENTRY, auth="off", features="none") as running:
        running.wait_ready()
        yield running


def app(served: Service, *arguments: str, stdin: str = "") -> CompletedProcess[str]:
    return commands.run(served.log_file.parent, *arguments, stdin=stdin, app_url=served.url)


def test_each_entity_has_a_line_with_its_place(served: Service) -> None:
    done = app(served, "ner", "Ada Lovelace met Bob")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(label, place, text) for label, _, place, text in lines] == [
        ("PER", "0-12", "Ada Lovelace"),
        ("PER", "17-20", "Bob"),
    ]


def test_json_is_the_service_s_answer(served: Service) -> None:
    done = app(served, "ner", "Ada Lovelace", "--aggregation", "none", "--json")
    assert [e["label"] for e in json.loads(done.stdout)["entities"]] == ["B-PER", "I-PER"]


def test_each_line_of_the_input_is_read_and_told_if_it_fails(served: Service) -> None:
    done = app(served, "ner", "-", "--json", stdin="Ada\n\npoison\nnobody\n")
    assert done.returncode == EXIT_INPUT
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in told] == ["Ada", "", "poison", "nobody"]
    assert [line.get("error", {}).get("code") for line in told] == [
        None,
        "text_empty",
        "inference_failed",
        None,
    ]
    plain = app(served, "ner", "-", stdin="Ada\n\n")
    assert plain.returncode == 0
    assert plain.stdout.splitlines()[1] == "error\ttext_empty\t"
