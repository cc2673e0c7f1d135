"""The processes that the first one starts: on which sockets, with which settings."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.core.child import Child
from app.server.front import Front, Watched, engine_command, front_end_command
from app.server.front_end import Place
from app.settings import Settings, as_environment

STOP_S: Final = 2.0
MOST_THREADS: Final = 8  # as in one process, see `Settings.thread_count`


def shares(settings: Settings) -> dict[str, str]:
    """Return the settings of one front end: its share of the cores and threads."""
    count = settings.front_ends
    cores = max(1, settings.core_count // count)
    threads = min(cores, MOST_THREADS)
    if settings.inference_threads is not None:
        threads = max(1, settings.inference_threads // count)
    return {
        "FRONT_ENDS": "1",
        "ENGINE_THREADS": str(cores),
        "INFERENCE_THREADS": str(threads),
    }


@dataclass(frozen=True, slots=True)
class Listening:
    """The sockets of a service, which listen already.

    Args:
        fronts: of each front end.
        probes: of each front end; none without PROBE_PORT.
        engine: of the engine's process, and the descriptor through which one connects; None:
            there is no such process.

    """

    fronts: Sequence[Sequence[socket.socket]]
    probes: Sequence[Sequence[socket.socket]]
    engine: tuple[socket.socket, int] | None = None


def make_front(settings: Settings, number: int, listening: Listening) -> Front:
    """Return a front end, by its number from 1; it isn't started yet."""
    place = Place(
        number=number,
        sockets=tuple(sock.fileno() for sock in listening.fronts[number - 1]),
        probe_sockets=tuple(sock.fileno() for sock in listening.probes[number - 1]),
        engine=listening.engine[1] if listening.engine else None,
    )
    child = Child(
        name=f"front_end_{number}",
        command=front_end_command(place),
        environment=as_environment(settings) | shares(settings),
        stop_s=STOP_S,
    )
    engine = () if place.engine is None else (place.engine,)
    return Front(place=place, child=child, pass_fds=(*place.sockets, *place.probe_sockets, *engine))


def make_engine(settings: Settings, listening: tuple[socket.socket, int]) -> Watched:
    """Return the engine's process; it isn't started yet.

    It has all cores, and as many threads as the front ends would have together.
    """
    listener = listening[0].fileno()
    threads = settings.inference_threads
    if threads is None:
        threads = settings.front_ends * int(shares(settings)["INFERENCE_THREADS"])
    own = {"FRONT_ENDS": "1", "INFERENCE_THREADS": str(threads)}
    child = Child(
        name="engine",
        command=engine_command(listener),
        environment=as_environment(settings) | own,
        stop_s=STOP_S,
    )
    return Watched(child=child, pass_fds=(listener,))
