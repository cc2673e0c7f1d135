"""API keys: made once, verified from memory, revoked within seconds, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from databases import migrated
from servers import postgres
from serving import serving

from app.core.callers import Caller, Scope
from app.db.session import Database
from app.errors import DatabaseUnavailableError, KeyNotFoundError, UnauthorizedError
from app.features.access import key_cache
from app.features.access.keys import KEY_FORMAT, KeyService, KeySpec, KeySpecError
from app.features.access.ledger import Ledger
from app.features.access.limits.limit import MAX_AMOUNT
from app.features.access.limits.limiter import Limiter
from app.features.access.limits.memory import MemoryStorage
from app.features.access.metrics import AccessMetrics

ADMIN = "an-admin-key-of-the-fleet"


class Clock:
    """Seconds that pass when the test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def wanted(**changes: Any) -> KeySpec:
    fields: dict[str, Any] = {"name": "web", "scopes": [Scope.PREDICT, Scope.CHAT]}
    return KeySpec(**(fields | changes))


def make(database: Database, clock: Clock | None = None) -> KeyService:
    return KeyService(database, admin_key=ADMIN, cache_s=5, stale_s=300, clock=clock or Clock())


@asynccontextmanager
async def service(url: str, clock: Clock | None = None) -> AsyncIterator[KeyService]:
    async with migrated(url) as database:
        yield make(database, clock)


async def test_a_key_is_recognised_and_its_text_is_stored_nowhere(database_url: str) -> None:
    async with service(database_url) as keys:
        key, text = await keys.create(wanted(limit="600/minute", tokens_per_day=7))
        assert KEY_FORMAT.fullmatch(text)
        assert text.startswith(key.prefix)
        assert text not in repr(key)
        assert key.hash not in repr(key)
        caller = await keys.verify(text)
        (stored,) = await keys.list(before_id=None, limit=10)
    assert caller.key_id == key.id
    assert caller.scopes == {Scope.PREDICT, Scope.CHAT}
    assert caller.limit == "600/minute"
    assert caller.tokens_per_day == 7
    assert caller.may(Scope.CHAT)
    assert not caller.may(Scope.EMBED)
    assert stored.hash != text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "mlk_000000000000_" + "a" * 43,
        "mlk_zzzzzzzzzzzz_" + "a" * 43,
        "Bearer",
        "\ud800",
        "mlk_" * 1000,
    ],
)
async def test_what_is_no_key_is_refused(database_url: str, text: str) -> None:
    async with service(database_url) as keys:
        with pytest.raises(UnauthorizedError):
            await keys.verify(text)


async def test_the_prefix_of_a_key_with_another_secret_is_refused(database_url: str) -> None:
    async with service(database_url) as keys:
        _, text = await keys.create(wanted())
        with pytest.raises(UnauthorizedError):
            await keys.verify(text[:-1] + ("a" if text[-1] != "a" else "b"))


class Slow:
    """A database that answers when the test says so, and knows no key."""

    is_answering = True

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.reads = 0

    async def read(self, _: Any) -> None:
        self.reads += 1
        await self.may_answer.wait()


async def test_in_turn_one_key_at_a_time_is_looked_up_and_none_is_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(key_cache, "LOOKUP_TIMEOUT_S", 0.05)
    database = Slow()
    keys = make(cast("Database", database))
    made_up = [f"mlk_{number:012x}_" + "a" * 43 for number in range(5)]
    refused = await asyncio.gather(
        *(keys.verify(text, in_turn=True) for text in made_up), return_exceptions=True
    )
    assert {type(each) for each in refused} == {DatabaseUnavailableError}, (
        "nothing is known of them"
    )
    # The time of all is over within microseconds: the turn may have come to a second one by then.
    reads = database.reads
    assert reads <= 2
    database.may_answer.set()
    with pytest.raises(UnauthorizedError):
        await keys.verify(made_up[1], in_turn=True)
    assert database.reads == reads + 1


async def test_an_expired_key_is_refused(database_url: str) -> None:
    async with service(database_url) as keys:
        _, text = await keys.create(wanted(lifetime=timedelta(microseconds=1)))
        with pytest.raises(UnauthorizedError):
            await keys.verify(text)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("limit", "lots", "write it like"),
        ("name", "", "from 1 to 100 characters"),
        ("name", "x" * 101, "from 1 to 100 characters"),
        ("name", "a\n", "without control characters"),
        ("name", "a\x00b", "without control characters"),
        ("name", "a\x1b[31m", "without control characters"),
        ("name", "a\x9b31m", "without control characters"),
        ("name", "caf\udce9", "without control characters"),
        ("tokens_per_day", 0, "from 1 to"),
        ("tokens_per_day", MAX_AMOUNT + 1, "from 1 to"),
        ("tokens_per_day", 10**20, "from 1 to"),
    ],
)
async def test_what_a_key_cant_have_is_named_and_makes_none(
    database_url: str, field: str, value: Any, message: str
) -> None:
    async with service(database_url) as keys:
        with pytest.raises(KeySpecError, match=message) as refused:
            await keys.create(wanted(**{field: value}))
        assert refused.value.field == field
        assert await keys.list(before_id=None, limit=10) == []


async def test_a_key_takes_the_longest_name_and_the_largest_quota(database_url: str) -> None:
    async with service(database_url) as keys:
        name = "Büro \U0001f468\u200d\U0001f469 " + "x" * 91
        key, text = await keys.create(wanted(name=name, tokens_per_day=MAX_AMOUNT))
        caller = await keys.verify(text)
        assert (key.name, caller.tokens_per_day) == (name, MAX_AMOUNT)
        await Ledger(Limiter(MemoryStorage(), metrics=AccessMetrics())).check(caller)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 101),
        ("name", "a\x00b"),
        ("name", "a\n"),
        ("limit", "lots"),
        ("tokens_per_day", 10**12 + 1),
    ],
)
async def test_over_http_the_field_that_is_wrong_is_named(
    tmp_path: Path, field: str, value: Any
) -> None:
    async with serving(tmp_path) as client:
        body = {"name": "web", "scopes": ["chat"]} | {field: value}
        answer = await client.post("/keys", json=body)
        listed = await client.get("/keys")
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["errors"]] == [["body", field]]
    assert listed.json()["keys"] == []


async def test_the_admin_key_needs_no_database() -> None:
    database = Database("postgresql://u:p@127.0.0.1:1/none", timeout_s=0.2)
    try:
        caller = await make(database).verify(ADMIN)
    finally:
        await database.close()
    assert caller == Caller(name="admin", scopes=frozenset({Scope.ADMIN}))
    assert all(caller.may(scope) for scope in Scope)


async def test_a_revoked_key_is_refused_here_at_once_and_elsewhere_within_the_cache(
    database_url: str,
) -> None:
    clock = Clock()
    async with migrated(database_url) as database:
        here, elsewhere = make(database, clock), make(database, clock)
        key, text = await here.create(wanted())
        await here.verify(text)
        await elsewhere.verify(text)
        await here.revoke(key.id)
        with pytest.raises(UnauthorizedError):
            await here.verify(text)
        assert (await elsewhere.verify(text)).key_id == key.id
        clock.now_s += 5
        with pytest.raises(UnauthorizedError):
            await elsewhere.verify(text)
        (stored,) = await here.list(before_id=None, limit=10)
        assert stored.revoked_at is not None
        with pytest.raises(KeyNotFoundError):
            await here.revoke(key.id + 1)


class Counting:
    """Counts the trips to a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reads = 0

    @property
    def is_answering(self) -> bool:
        return self._database.is_answering

    async def read(self, work: Any) -> Any:
        self.reads += 1
        return await self._database.read(work)

    async def run(self, work: Any) -> Any:
        return await self._database.run(work)


async def test_many_at_once_ask_the_database_once(database_url: str) -> None:
    clock = Clock()
    async with migrated(database_url) as database:
        counting = Counting(database)
        keys = make(counting, clock)  # type: ignore[arg-type]  # what a key service asks of it
        _, text = await keys.create(wanted())
        await asyncio.gather(*(keys.verify(text) for _ in range(50)))
        assert counting.reads == 1
        clock.now_s += 4.9
        await keys.verify(text)
        assert counting.reads == 1
        clock.now_s += 0.1
        await keys.verify(text)
        assert counting.reads == 2


async def test_while_sql_is_away_a_known_key_holds_and_an_unknown_one_gets_503() -> None:
    clock = Clock()
    with postgres() as server, server.database() as url:
        async with migrated(url, timeout_s=0.3) as database:
            keys = make(database, clock)
            _, known = await keys.create(wanted())
            _, unseen = await keys.create(wanted())
            await keys.verify(known)
            assert server.server is not None
            with server.server.frozen():
                clock.now_s += 100
                assert (await keys.verify(known)).name == "web"
                with pytest.raises(DatabaseUnavailableError):
                    await keys.verify(unseen)
                clock.now_s += 200
                with pytest.raises(DatabaseUnavailableError):
                    await keys.verify(known)


async def test_while_sql_is_away_only_the_first_request_waits_for_it() -> None:
    clock = Clock()
    with postgres() as server, server.database() as url:
        async with migrated(url, timeout_s=0.3) as database:
            counting = Counting(database)
            keys = make(counting, clock)  # type: ignore[arg-type]  # as above
            key, known = await keys.create(wanted())
            await keys.verify(known)
            assert server.server is not None
            with server.server.frozen():
                clock.now_s += 5
                await keys.verify(known)
                for _ in range(50):
                    before = asyncio.all_tasks()
                    # It answers without a turn of the loop: nothing was waited for.
                    with pytest.raises(StopIteration):
                        keys.verify(known).send(None)
                assert len(asyncio.all_tasks() - before) <= 1
                assert counting.reads <= 2
            assert await database.check() is None
            await make(database).revoke(key.id)
            clock.now_s += 5
            with pytest.raises(UnauthorizedError):
                await keys.verify(known)


async def is_valid(keys: KeyService, text: str) -> bool:
    try:
        await keys.verify(text)
    except UnauthorizedError:
        return False
    return True


async def test_a_database_that_hangs_holds_a_known_key_up_for_a_moment_only() -> None:
    clock = Clock()
    with postgres() as server, server.database() as url:
        async with migrated(url, timeout_s=3) as database:
            keys = make(database, clock)
            key, known = await keys.create(wanted())
            await keys.verify(known)
            assert server.server is not None
            with server.server.frozen():
                clock.now_s += 5
                async with asyncio.timeout(1):
                    await asyncio.gather(*(keys.verify(known) for _ in range(50)))
                    await keys.verify(known)
                assert database.is_answering, "its own timeout hasn't come yet"
            await make(database).revoke(key.id)
            while await is_valid(keys, known):
                clock.now_s += 5
                await asyncio.sleep(0.02)  # the question of before is still open


async def test_made_up_prefixes_dont_push_known_keys_out(tmp_path: Any) -> None:
    async with service(f"sqlite:///{tmp_path / 'k.db'}") as keys:
        _, text = await keys.create(wanted())
        await keys.verify(text)
        keys._cache._entries.update(
            {f"mlk_{n:012x}": key_cache._CacheEntry(None, 0) for n in range(key_cache.MAX_ENTRIES)}
        )
        for n in range(3):
            with pytest.raises(UnauthorizedError):
                await keys.verify(f"mlk_{n + 10**9:012x}_" + "a" * 43)
        assert len(keys._cache._entries) <= key_cache.MAX_ENTRIES + 1
        assert text[:16] in keys._cache._entries
