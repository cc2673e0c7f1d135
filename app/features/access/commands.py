"""The `app keys` commands: the same as `/keys`, directly on the database."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from app.console.options import Json, show, show_json, with_database
from app.errors import SettingsError

if TYPE_CHECKING:
    from app.core.callers import Scope
    from app.features.access.keys import KeyService
    from app.features.access.repository import ApiKey

cli = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
Answer = TypeVar("Answer")

LIFETIME = re.compile(r"([1-9]\d{0,4})([hd])")
PAGE = 1_000
MAX_ID = 2**53 - 1  # as over HTTP


@cli.command("create", epilog="Example: app keys create --name web --scopes predict --expires 90d")
def create_key(
    *,
    name: Annotated[str, typer.Option(help="Whose key it is.")],
    scopes: Annotated[str, typer.Option(help="Such as predict,chat; docs/keys.md has all.")],
    limit: Annotated[str | None, typer.Option(help="Such as 600/minute.")] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option(help="Of chat; a text that is embedded is one.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Such as 90d or 12h.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, alone on standard output: it can't be had again."""
    from app.features.access.keys import KeySpec, KeySpecError
    from app.features.access.schemas import KeyInfo, NewKey

    spec = KeySpec(
        name=name,
        scopes=_read_scopes(scopes),
        limit=limit,
        tokens_per_day=tokens_per_day,
        lifetime=_read_lifetime(expires) if expires else None,
    )

    async def make(keys: "KeyService") -> "tuple[ApiKey, str]":
        try:
            return await keys.create(spec)
        except KeySpecError as bad:
            raise SettingsError(f"--{bad.field.replace('_', '-')}: {bad}") from None

    key, text = _with_keys(make, may_create=True)
    if as_json:
        show_json(NewKey(**KeyInfo.of(key).model_dump(), key=text).model_dump(mode="json"))
    else:
        print(text)


@cli.command("list", epilog="Example: app keys list --json")
def list_keys(*, as_json: Json = False) -> None:
    """List the keys, newest first, without their secrets."""
    from app.features.access.schemas import KeyInfo

    async def print_all(keys: "KeyService") -> None:
        before: int | None = None
        while page := await keys.list(before_id=before, limit=PAGE):
            for key in page:
                if as_json:
                    show_json(KeyInfo.of(key).model_dump(mode="json"))
                    continue
                state = "valid" if key.is_valid(datetime.now(UTC)) else "revoked or expired"
                limits = key.limit or "-"
                scopes = ",".join(key.scopes)
                name = key.name.replace("\n", " ")  # older versions allowed line breaks
                show(f"{key.id:>6} {key.prefix:20} {state:18} {limits:16} {scopes:24} {name}")
            before = page[-1].id

    _with_keys(print_all)


@cli.command("revoke", epilog="Example: app keys revoke 12")
def revoke_key(
    key_id: Annotated[int, typer.Argument(min=1, max=MAX_ID, help="As `app keys list` has it.")],
    *,
    as_json: Json = False,
) -> None:
    """Revoke a key; running services refuse it within AUTH_CACHE_S."""
    _with_keys(lambda keys: keys.revoke(key_id))
    if as_json:
        show_json({"revoked": key_id})
    else:
        print(f"revoked {key_id}")


def _with_keys(
    use: "Callable[[KeyService], Awaitable[Answer]]", *, may_create: bool = False
) -> Answer:
    from app.features.access.keys import KeyService

    return with_database(
        lambda db: use(KeyService(db, admin_key=None, cache_s=1, stale_s=1)), may_create=may_create
    )


def _read_scopes(text: str) -> "list[Scope]":
    from app.core.callers import Scope

    names = [part.strip() for part in text.split(",")]
    unknown = sorted(set(names) - set(Scope))
    if unknown:
        raise SettingsError(
            f"--scopes: {', '.join(map(repr, unknown))}; known are {', '.join(Scope)}"
        )
    return [Scope(name) for name in names]


def _read_lifetime(text: str) -> timedelta:
    match = LIFETIME.fullmatch(text)
    if match is None:
        raise SettingsError("--expires: write it like 90d or 12h")
    return timedelta(**{{"h": "hours", "d": "days"}[match[2]]: int(match[1])})
