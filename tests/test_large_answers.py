"""Large answers are made in a thread, in pieces; no route can answer lists in lists otherwise."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic_core import from_json

from app.batching.requests import Row
from app.http.large_answers import (
    QUICK_VALUES,
    LargeAnswer,
    fields_of,
    joined,
    large_answer,
    list_of,
)
from app.http.task_runner import QUICK_ROWS, _answered
from app.main import installed
from app.services.inference import QUICK_NUMBERS, _shaped

# Lists in lists that are short, and why.
BOUNDED = {
    "/v1/chat/completions": "a generation's tokens, with at most 20 others each",
    "/v1/completions": "the same",
    "/hf/{model_name}/v1/chat/completions": "the same",
}


def depth_of_lists(schema: Any, definitions: Any, seen: tuple[str, ...] = ()) -> int:
    """Return how deep lists of a schema are within each other."""
    if isinstance(schema, list):
        return max((depth_of_lists(one, definitions, seen) for one in schema), default=0)
    if not isinstance(schema, dict):
        return 0
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name:
        return 0 if name in seen else depth_of_lists(definitions[name], definitions, (*seen, name))
    inner = max((depth_of_lists(one, definitions, seen) for one in schema.values()), default=0)
    return inner + (schema.get("type") == "array")


def routes() -> Iterator[APIRoute]:
    parts = installed()
    routers = [r for task in parts.tasks for r in (*task.routers(), *task.openai_routers())]
    routers += [router for feature in parts.features for router in feature.routers(parts.tasks)]
    for router in routers:
        yield from (route for route in router.routes if isinstance(route, APIRoute))


def test_a_route_that_answers_lists_in_lists_answers_with_what_is_made_off_the_loop() -> None:
    large = set()
    for route in routes():
        if route.response_model is None or "POST" not in (route.methods or ()):
            continue  # what is read has pages, which are short
        schema = TypeAdapter(route.response_model).json_schema(mode="serialization")
        if depth_of_lists(schema, schema.get("$defs", {})) > 1:
            large.add(route.path)
            is_threaded = get_type_hints(route.endpoint)["return"] is LargeAnswer
            assert is_threaded or route.path in BOUNDED, route.path
    assert {
        "/embed",
        "/ner",
        "/classify-image-batch",
        "/v1/embeddings",
        "/zero-shot-batch",
    } <= large


@pytest.mark.parametrize("values", [QUICK_VALUES, QUICK_VALUES + 1])
async def test_a_large_answer_is_encoded_in_a_thread(values: int) -> None:
    threads = []

    def pieces() -> Iterator[bytes]:
        threads.append(threading.get_ident())
        yield from fields_of({"numbers": list_of(range(3))})

    answer = await large_answer(pieces, values=values)
    assert bytes(answer.body) == b'{"numbers":[0,1,2]}'
    assert (threads == [threading.get_ident()]) is (values <= QUICK_VALUES)


@pytest.mark.parametrize("size", [QUICK_NUMBERS, QUICK_NUMBERS + 1])
async def test_many_numbers_become_answers_in_a_thread(size: int) -> None:
    failure = ValueError()

    def shape(_row: Any) -> Row:
        return threading.get_ident()

    thread, other = await _shaped([np.zeros(size, dtype=np.float32), failure], shape)
    assert other is failure
    assert (thread == threading.get_ident()) is (size <= QUICK_NUMBERS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@given(st.lists(JSON, max_size=7), st.integers(1, 4))
def test_pieces_are_the_json_of_the_whole(values: list[Any], at_once: int) -> None:
    pieces = fields_of(
        {
            "values": list_of(values, at_once=at_once),
            "one": values,
            "lists": joined(list_of(values, at_once=at_once) for _ in values),
        }
    )
    whole = from_json(b"".join(pieces))
    assert whole == {"values": values, "one": values, "lists": [values for _ in values]}


@pytest.mark.parametrize("count", [QUICK_ROWS, QUICK_ROWS + 1])
async def test_an_answer_of_many_rows_is_made_in_a_thread(count: int) -> None:
    rows: Any = SimpleNamespace(rows=[0] * count)
    thread = await _answered(rows, lambda _: threading.get_ident())
    assert (thread == threading.get_ident()) is (count <= QUICK_ROWS)
