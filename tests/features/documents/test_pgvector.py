"""Search by pgvector: which plans PostgreSQL takes."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from databases import migrated
from passages import SPACE, store, toward
from sqlalchemy import Select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from app.db.session import Database
from app.features.documents.vectors import pgvector
from app.features.documents.vectors.base import Query
from app.features.documents.vectors.filters import OneOf

QUERY = Query(vector=toward(0), space=SPACE)
INDEX = "ix_passages_hnsw_384"


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    async with migrated(postgres_url, timeout_s=20) as database:
        yield database


async def plan(database: Database, asked: Select[Any, Any, Any]) -> str:
    """Return how PostgreSQL would answer if it had to use an index."""
    sql = asked.compile(
        dialect=postgresql.dialect(),  # type: ignore[no-untyped-call]  # the library's omission
        compile_kwargs={"literal_binds": True},
    )

    def work(session: Session) -> str:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        session.execute(text("SET LOCAL enable_sort = off"))
        lines = session.connection().exec_driver_sql(f"EXPLAIN {sql}".replace("%", "%%"))
        return "\n".join(line for (line,) in lines)

    return await database.run(work)


async def test_the_nearest_come_from_the_index_of_vectors(database: Database) -> None:
    await store(database, {f"d{n}": [n] for n in range(50)})
    filtered = replace(QUERY, collection=7, filter=(OneOf("lang", ("en",)),))
    for query in (QUERY, filtered):
        assert INDEX in await plan(database, pgvector._nearest(query).limit(20))


async def test_vectors_of_another_length_are_compared_without_it(database: Database) -> None:
    await store(database, {f"d{n}": [n] for n in range(50)}, dimensions=3)
    query = replace(QUERY, vector=toward(0, 3))
    assert INDEX not in await plan(database, pgvector._nearest(query).limit(20))


async def test_an_exact_comparison_takes_no_index_of_vectors(database: Database) -> None:
    await store(database, {f"d{n}": [n] for n in range(50)})
    assert INDEX not in await plan(database, pgvector._exact_search(QUERY))
