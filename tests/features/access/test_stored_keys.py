"""API keys, on SQLite and on PostgreSQL."""

import traceback
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from databases import migrated

from app.db.failures import ConflictError, StatementError
from app.db.session import Database
from app.features.access.repository import ApiKey, KeyRepository, NewApiKey

NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
KEY = NewApiKey(
    name="web",
    prefix="mk_abc",
    hash="5f3c",
    scopes=("predict", "chat"),
    limit="600/minute",
    tokens_per_day=3_000_000_000,
    created_at=NOW,
    expires_at=NOW + timedelta(days=90),
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url) as database:
        yield database


async def add(database: Database, **changed: object) -> ApiKey:
    key = replace(KEY, **changed)  # type: ignore[arg-type]  # the test knows the fields
    return await database.run(lambda session: KeyRepository(session).add(key))


async def listed(database: Database, **page: int) -> list[str]:
    found = await database.read(lambda session: KeyRepository(session).list(**page))
    return [key.prefix for key in found]


async def test_a_key_comes_back_as_it_was_stored(database: Database) -> None:
    added = await add(database)
    assert {name: getattr(added, name) for name in KEY.__slots__} == {
        name: getattr(KEY, name) for name in KEY.__slots__
    }
    assert added.revoked_at is None
    assert await database.read(lambda s: KeyRepository(s).by_prefix("mk_abc")) == added
    assert await database.read(lambda s: KeyRepository(s).by_id(added.id)) == added


async def test_what_is_optional_may_be_missing(database: Database) -> None:
    added = await add(database, scopes=(), limit=None, tokens_per_day=None, expires_at=None)
    assert (added.scopes, added.limit, added.tokens_per_day, added.expires_at) == ((), *[None] * 3)


async def test_a_time_in_another_zone_is_the_same_moment(database: Database) -> None:
    local = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert (await add(database, created_at=local)).created_at == NOW


async def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="ValueError"):
        await add(database, created_at=NOW.replace(tzinfo=None))


async def test_an_unknown_prefix_finds_nothing(database: Database) -> None:
    await add(database)
    for prefix in ("mk_ab", "mk_abcd", "MK_ABC", "%", "' OR 1=1 --"):
        assert (
            await database.read(lambda s, asked=prefix: KeyRepository(s).by_prefix(asked))  # type: ignore[misc]
            is None
        )


async def test_two_keys_cannot_have_one_prefix(database: Database) -> None:
    await add(database)
    with pytest.raises(ConflictError) as caught:
        await add(database, name="other")
    assert "mk_abc" not in "".join(traceback.format_exception(caught.value))
    assert await listed(database) == ["mk_abc"]


async def test_keys_are_listed_newest_first_in_pages(database: Database) -> None:
    keys = [await add(database, prefix=f"p{n}") for n in range(5)]
    assert await listed(database) == ["p4", "p3", "p2", "p1", "p0"]
    assert await listed(database, limit=2) == ["p4", "p3"]
    assert await listed(database, limit=2, before_id=keys[3].id) == ["p2", "p1"]


async def test_a_key_is_revoked_once_and_stays_so(database: Database) -> None:
    key = await add(database)

    async def revoke(at: datetime) -> bool:
        return await database.run(lambda s: KeyRepository(s).revoke(key.id, at))

    assert await revoke(NOW + timedelta(hours=1))
    assert await revoke(NOW + timedelta(hours=2))
    revoked = await database.read(lambda s: KeyRepository(s).by_prefix(key.prefix))
    assert revoked is not None
    assert revoked.revoked_at == NOW + timedelta(hours=1)
    assert not await database.run(lambda s: KeyRepository(s).revoke(key.id + 1, NOW))


async def test_a_key_is_valid_until_it_expires_or_is_revoked(database: Database) -> None:
    key = await add(database)
    assert key.is_valid(NOW)
    assert not key.is_valid(NOW + timedelta(days=90))
    assert not replace(key, revoked_at=NOW).is_valid(NOW)
    assert replace(key, expires_at=None).is_valid(NOW + timedelta(days=9999))


async def test_a_hash_is_not_in_a_repr(database: Database) -> None:
    assert "5f3c" not in repr(await add(database))
