"""Measures search: time, memory and recall at 100,000 documents, and what it finds in real text.

    python -m benchmarks.search [speed] [relevance]

speed: the vectors are real ones, the 23,703 snippets of the sentiment data as the default embedder
has them, each four or five times with noise; the queries are first halves of editorials. SQLite
with the exact index, and PostgreSQL with pgvector, of which the recall is measured against the
exact one.
relevance: the 3,759 editorials of 12 words or more are indexed whole; 500 first halves ask.

The embedding of queries is not in the times. PostgreSQL comes from the wheel that the tests use.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.db.schema import upgrade
from app.db.session import Database
from app.engines.base import FloatArray
from app.features.documents.metrics import SearchMetrics
from app.features.documents.passages import NewPassage, PassageRepository
from app.features.documents.repository import DocumentRepository, NewDocument
from app.features.documents.vectors.base import Hit, Query, VectorIndex
from app.features.documents.vectors.exact import ExactIndex
from app.features.documents.vectors.filters import Filter, OneOf
from app.features.documents.vectors.pgvector import PgVectorIndex
from benchmarks.run import WORK
from benchmarks.snippets import embed, read_snippets
from scripts.sentiment_data import FILES

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from servers import postgres  # the line above finds it

SPACE = "minilm@benchmark"
DOCUMENTS = 100_000
QUERIES = 500
FILTERED = 50
CHUNK = 2_000
# Length of the noise that is added to a vector of length 1; then the cosine of both is 0.96.
NOISE = 0.3
SEED = 7
MIN_WORDS = 12
NEAR = 5
# A document has each of these numbers modulo: so a filter lets one in so many through.
SHARES = (2, 10, 100, 1_000, 10_000)
HNSW = "ix_passages_hnsw_384"
MAKE_HNSW = (
    f"CREATE INDEX {HNSW} ON passages USING hnsw ((vector::vector(384)) vector_ip_ops)"
    " WHERE dimensions = 384"
)
WRITE_TIMEOUT_S = 1_000
QUIET = 1.0  # load average
QUIET_WAIT_S = 180


def cached(name: str, make: Callable[[], FloatArray]) -> FloatArray:
    """Return an array that is made once."""
    file = WORK / "search" / f"{name}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, make())
    found: FloatArray = np.load(file)
    return found


def first_half(snippet: str) -> str:
    """Return the first half of a snippet's words."""
    words = snippet.split()
    return " ".join(words[: len(words) // 2])


def long_editorials() -> list[str]:
    """Return the editorials of some length."""
    return [s for s in read_snippets("editorials") if len(s.split()) >= MIN_WORDS]


def sampled_queries(snippets: Sequence[str]) -> list[int]:
    """Return the places of those that ask."""
    return sorted(random.Random(SEED).sample(range(len(snippets)), QUERIES))  # noqa: S311 -- no secret


def query_vectors() -> FloatArray:
    """Return the vectors of the halves that ask."""
    snippets = long_editorials()
    halves = [first_half(snippets[place]) for place in sampled_queries(snippets)]
    return cached("queries", lambda: embed(halves))


def many_vectors() -> tuple[list[str], FloatArray]:
    """Return 100,000 texts and vectors: real ones with noise."""
    snippets = [s for domain in FILES for s in read_snippets(domain)]
    real = cached("snippets", lambda: embed(snippets))
    random_of = np.random.default_rng(SEED)
    places = np.arange(DOCUMENTS) % len(real)
    noise = random_of.standard_normal((DOCUMENTS, real.shape[1]), np.float32)
    noise *= NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
    made = real[places] + noise
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return [snippets[place] for place in places], made


async def fill(database: Database, texts: Sequence[str], vectors: FloatArray) -> None:
    """Store a document of one passage for each text."""
    now = datetime.now(UTC)

    def store(session: Session, start: int) -> None:
        documents = [
            NewDocument(
                id=f"d{n}",
                text=texts[n],
                metadata={f"mod_{share}": n % share for share in SHARES},
            )
            for n in range(start, min(start + CHUNK, len(texts)))
        ]
        repository = DocumentRepository(session)
        keys = repository.upsert_many(0, documents, request_id="benchmark", now=now)
        sources = repository.texts(keys)
        made = [
            (sources[key], [NewPassage(start=0, end=len(texts[n]), vector=vectors[n])])
            for n, key in enumerate(keys, start)
        ]
        PassageRepository(session).replace_many(made, SPACE)

    for start in range(0, len(texts), CHUNK):
        await database.run(lambda session, start=start: store(session, start))  # type: ignore[misc]  # a default binds it


async def ask(
    index: VectorIndex,
    queries: FloatArray,
    *,
    asked: Filter = (),
    limit: int = 10,
) -> tuple[list[list[Hit]], list[float]]:
    """Search one after another; return hits and seconds of each."""
    hits, seconds = [], []
    for vector in queries:
        started = time.perf_counter()
        hits.append(
            await index.search(Query(vector=vector, space=SPACE, filter=asked, limit=limit))
        )
        seconds.append(time.perf_counter() - started)
    return hits, seconds


def told(seconds: Sequence[float]) -> dict[str, float]:
    """Return the usual percentiles, in ms."""
    cuts = statistics.quantiles(seconds, n=100)
    return {f"p{at}_ms": round(cuts[at - 1] * 1000, 1) for at in (50, 95, 99)}


def recall(found: Sequence[list[Hit]], right: Sequence[list[Hit]]) -> float:
    """Return which share of the right documents was found."""
    pairs = zip(found, right, strict=True)
    shared = sum(len({h.id for h in f} & {h.id for h in r}) for f, r in pairs)
    return round(shared / sum(map(len, right)), 4)


async def exact_speed(
    database: Database, queries: FloatArray
) -> tuple[dict[str, Any], dict[int, list[list[Hit]]]]:
    """Measure the exact index; return its figures, and what it finds by share of the filter."""
    metrics = SearchMetrics()
    index = ExactIndex(database, metrics=metrics)
    before = resident_mb()
    _, (first_s,) = await ask(index, queries[:1])
    await ask(index, queries[:20])
    after = resident_mb()
    hits, seconds = await ask(index, queries)
    right = {1: hits}
    figures: dict[str, Any] = {
        "first search, s": round(first_s, 2),
        "memory of the vectors, MB": round(size_mb(metrics)),
        "growth of the process, MB": round(after - before),
        "peak of the process, MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "one after another": told(seconds),
        "eight at once, searches/s": await rate(index, queries),
    }
    for share in SHARES:
        right[share], seconds = await ask(index, queries[:FILTERED], asked=one_in(share))
        figures[f"filter of one in {share:,}"] = told(seconds)
    await index.close()
    return figures, right


async def pgvector_speed(
    database: Database, queries: FloatArray, right: dict[int, list[list[Hit]]]
) -> dict[str, Any]:
    """Measure pgvector, against what the exact index has found."""
    index = PgVectorIndex(database)
    await ask(index, queries)
    say("measuring pgvector")
    hits, seconds = await ask(index, queries)
    figures: dict[str, Any] = {
        "recall@10": recall(hits, right[1]),
        "one after another": told(seconds),
        "eight at once, searches/s": await rate(index, queries),
    }
    for share in SHARES:
        hits, seconds = await ask(index, queries[:FILTERED], asked=one_in(share))
        figures[f"filter of one in {share:,}"] = told(seconds) | {
            "recall@10": recall(hits, right[share]),
            "least hits": min(map(len, hits)),
        }
    return figures


def one_in(share: int) -> tuple[OneOf, ...]:
    """Return a filter."""
    return (OneOf(f"mod_{share}", (1,)),)


async def rate(index: VectorIndex, queries: FloatArray) -> float:
    """Return searches a second with eight at once."""
    started = time.perf_counter()
    await asyncio.gather(*(ask(index, queries[at::8]) for at in range(8)))
    return round(len(queries) / (time.perf_counter() - started), 1)


def resident_mb() -> float:
    """Return the memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def size_mb(metrics: SearchMetrics) -> float:
    """Return what the gauge says."""
    return (metrics.registry.get_sample_value("mlapi_search_index_bytes") or 0) / 1e6


async def speed() -> dict[str, Any]:
    """Measure both indexes on the same documents, one after the other: neither works beside it."""
    queries = query_vectors()
    texts, vectors = many_vectors()
    with tempfile.TemporaryDirectory() as folder:
        small = Database(f"sqlite:///{folder}/search.db", timeout_s=WRITE_TIMEOUT_S)
        say("filling SQLite")
        await asyncio.to_thread(upgrade, small)
        await fill(small, texts, vectors)
        loads = [await until_quiet()]
        exact, right = await exact_speed(small, queries)
        await small.close()
        say(json.dumps(exact))
    options = ("-c", "shared_buffers=512MB", "-c", "maintenance_work_mem=512MB")
    with postgres(*options) as server:
        large = Database(server.url, timeout_s=WRITE_TIMEOUT_S)
        say("filling PostgreSQL")
        await asyncio.to_thread(upgrade, large)
        # A row at a time takes longer to be indexed.
        await large.run(obey(f"DROP INDEX {HNSW}"))
        await fill(large, texts, vectors)
        say("indexing")
        built_s = await make_index(large)
        loads.append(await until_quiet())
        approximate = await pgvector_speed(large, queries, right)
        await large.close()
    return {
        "index built, s": built_s,
        "load before exact, pgvector": loads,
        "exact": exact,
        "pgvector": approximate,
    }


async def make_index(database: Database) -> float:
    """Make the index of vectors, as the migration does, and return how long it took."""
    started = time.perf_counter()
    await database.run(obey(MAKE_HNSW))
    taken_s = time.perf_counter() - started
    await database.run(obey("ANALYZE"))
    return round(taken_s)


def obey(statement: str) -> Callable[[Session], None]:
    """Return work that runs a statement."""

    def work(session: Session) -> None:
        session.execute(text(statement))

    return work


async def until_quiet() -> float:
    """Wait, not for ever, until nobody else works here; return the load average then."""
    until = time.monotonic() + QUIET_WAIT_S
    while os.getloadavg()[0] > QUIET and time.monotonic() < until:  # noqa: ASYNC110 -- no event
        await asyncio.sleep(5)
    load = os.getloadavg()[0]
    say(f"measuring at a load of {load:.1f}")
    return load


def say(line: str) -> None:
    """Show progress."""
    print(f"search: {time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


async def relevance() -> dict[str, Any]:
    """Return how often a snippet is found by its first half."""
    snippets = long_editorials()
    vectors = cached("editorials", lambda: embed(snippets))
    asked = sampled_queries(snippets)
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/search.db", timeout_s=60)
        await asyncio.to_thread(upgrade, database)
        await fill(database, snippets, vectors)
        index = ExactIndex(database, metrics=SearchMetrics())
        hits, _ = await ask(index, query_vectors(), limit=NEAR)
        await index.close()
        await database.close()
    # Some snippets are there twice.
    ranks = [
        next((n for n, hit in enumerate(found, 1) if hit.text == snippets[place]), None)
        for found, place in zip(hits, asked, strict=True)
    ]
    return {
        "documents": len(snippets),
        "queries": len(asked),
        "first, %": percent([rank == 1 for rank in ranks]),
        f"among the first {NEAR}, %": percent([rank is not None for rank in ranks]),
    }


def percent(claims: Sequence[bool]) -> float:
    """Return how many of them hold."""
    return round(100 * sum(claims) / len(claims), 1)


def main() -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    measures = {"speed": speed, "relevance": relevance}
    parser.add_argument("measures", nargs="*", choices=measures, default=list(measures))
    for name in parser.parse_args().measures:
        print(json.dumps({name: asyncio.run(measures[name]())}, indent=1), flush=True)


if __name__ == "__main__":
    main()
