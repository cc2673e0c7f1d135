"""The service as the shows of storms start it: with its defaults, and connections enough."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from app.loadtest.bench import DEADLINE_S
from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import Target
from app.loadtest.descriptors import connections_allowed
from benchmarks.contest import WARM_UP_S, running, target_of, until_answers
from benchmarks.lineup import LINEUP
from benchmarks.process import Running
from benchmarks.run import WORK
from benchmarks.show_storage import fetch
from benchmarks.texts import load_texts

CONNECTIONS = 64
MOST_CONNECTIONS = 8_000  # that a show opens at once

Say = Callable[[str], None]  # prints a line, and keeps it for the record
Show = Callable[[float, Say], bool]  # seconds of each load → whether the promise holds


@contextmanager
def serve(name: str, **settings: str) -> Iterator[Running]:
    """Start the service with its defaults and these settings; give it when it is ready and warm."""
    connections_allowed(MOST_CONNECTIONS)  # a child inherits the limit of open files
    (auto,) = (contestant for contestant in LINEUP if contestant.name == "auto")
    changed = replace(auto, name=name, env={**auto.env, **settings})
    with running(changed, changed.sizes, WORK) as made:
        until_answers(made, partial(fetch, made.port, "/ready"))
        if settings.get("AUTH") != "required":
            closed_loop(patient_target(made.port), connections=CONNECTIONS, seconds=WARM_UP_S)
        yield made


def patient_target(port: int) -> Target:
    """Prepare the requests of clients that wait for a second, and say so."""
    (auto,) = (contestant for contestant in LINEUP if contestant.name == "auto")
    return target_of(auto, port, load_texts(), deadline_s=DEADLINE_S)
