"""The `app bench` command: how fast a running service is, and what a storm does to it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import urljoin

import typer

from app.console.options import Json, Key, show_json
from app.errors import StartupError

if TYPE_CHECKING:
    from app.loadtest.bare_connection import Address
    from app.loadtest.connection import Target

Load = TypeVar("Load")
Figures = TypeVar("Figures")

MAX_CONNECTIONS = 1024  # of a closed loop; the usual limit of open files of a process
LOOP_S = 5.0
STORM_S = 10.0
ROUNDS = 3
PATIENCE_S = 1.0

Url = Annotated[str, typer.Argument(help="Such as http://127.0.0.1:8000/predict.")]
Connections = Annotated[str, typer.Option(help="Numbers of connections; storms take the largest.")]
Seconds = Annotated[
    float | None,
    typer.Option(min=0.1, max=600, help="Of each loop (default: 5), or of each storm (10)."),
]
Rounds = Annotated[
    int | None, typer.Option(min=1, max=100, help="Medians are over these (3); not of storms.")
]
Texts = Annotated[Path | None, typer.Option(help="A file, a text a line.")]
IsStorm = Annotated[
    bool,
    typer.Option("--storm", help="Ask 2, 4 and 8 times the capacity."),
]
Patience = Annotated[
    float, typer.Option(min=0.05, max=60, help="Seconds that a storm's clients wait.")
]
Health = Annotated[str, typer.Option(help="Polled in a storm: a path, or a URL.")]
Anywhere = Annotated[bool, typer.Option("--anywhere", help="Let storms leave this machine.")]


def bench(  # noqa: PLR0913  # each is an option
    url: Url,
    connections: Connections = "1,8,64",
    seconds: Seconds = None,
    rounds: Rounds = None,
    texts: Texts = None,
    *,
    storm: IsStorm = False,
    patience: Patience = PATIENCE_S,
    health: Health = "/health",
    anywhere: Anywhere = False,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Measure a running service: closed loops, then twice as much as it can do; or storms."""
    from app.loadtest import storm_table
    from app.loadtest.bench import DEADLINE_S, as_dict, measure, rows
    from app.loadtest.storm import Storm, measure_storms

    counts = _read_counts(connections)
    if not storm:
        target = _target(url, texts, key, deadline_s=DEADLINE_S)
        loops = measure(
            target, connections=counts, seconds=seconds or LOOP_S, rounds=rounds or ROUNDS
        )
        _print(loops, rows, as_dict, as_json=as_json)
        return
    if rounds is not None:
        raise StartupError("--rounds: a storm has none")
    address, health_address, health_request = _places(url, health, may_leave=anywhere)
    planned = Storm(
        target=_target(url, texts, key, deadline_s=patience),
        address=address,
        health=health_address,
        health_request=health_request,
        connections=max(counts),
        seconds=seconds or STORM_S,
        patience_s=patience,
    )
    _print(measure_storms(planned), storm_table.rows, storm_table.as_dict, as_json=as_json)


def _target(url: str, texts: Path | None, key: str | None, *, deadline_s: float) -> "Target":
    """Prepare the requests, which announce how long their client waits."""
    from app.console.client import ClientError, key_headers
    from app.loadtest.bench import DEADLINE_HEADER
    from app.loadtest.connection import make_target
    from app.loadtest.texts import read_texts

    deadline = {DEADLINE_HEADER: str(int(deadline_s * 1000))}
    try:
        headers = deadline | key_headers(key)
        return make_target(url, read_texts(texts), headers=headers)
    except (ClientError, ValueError) as failure:
        raise StartupError(str(failure)) from None


def _places(url: str, health: str, *, may_leave: bool) -> "tuple[Address, Address, bytes]":
    """Return where a storm's requests go, where its polls go, and the bytes of a poll."""
    from app.loadtest.addresses import find_address, get_request

    polled = urljoin(url, health)
    address = find_address(url, may_leave=may_leave)
    return address, find_address(polled, may_leave=may_leave), get_request(polled)


def _print(
    measured: Iterator[tuple[Load, Figures]],
    rows: Callable[[Iterator[tuple[Load, Figures]]], Iterator[str]],
    as_dict: Callable[[Load, Figures], dict[str, object]],
    *,
    as_json: bool,
) -> None:
    """Print each line when it has been measured."""
    if as_json:
        for load, figures in measured:
            show_json(as_dict(load, figures))
        return
    for row in rows(measured):
        print(row, flush=True)


def _read_counts(text: str) -> list[int]:
    """Read numbers that are separated by commas."""
    counts = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not all(0 < count <= MAX_CONNECTIONS for count in counts):
        raise StartupError(f"--connections: numbers from 1 to {MAX_CONNECTIONS}, such as 1,8,64")
    return counts
