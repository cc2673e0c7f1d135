"""Keeps which version of each model serves: over restarts, and in step with other replicas."""

import asyncio
import hashlib
import json
import logging
import time
from contextlib import suppress
from functools import partial

from sqlalchemy.orm import Session

from app.db.failures import ConflictError, StatementError
from app.db.session import Database
from app.errors import DatabaseUnavailableError, ServiceError, SwapInProgressError, SwapLostError
from app.features.versions.repository import StateRepository, StoredState
from app.models.catalog import ModelSpec
from app.models.registry import ModelRegistry
from app.models.swaps import Swap, Swaps
from app.models.versions import Model, Traffic

log = logging.getLogger(__name__)

# After which a version that a replica can't load is tried again.
RETRY_S = 60.0
NOT_STORED = "versions:not_stored"


def hash_of(spec: ModelSpec) -> str:
    """Return what changes with an entry of the catalogue: a decision about another one is void."""
    fields = spec.model_dump(mode="json", exclude_defaults=True, exclude={"rollback"})
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class StateKeeper:
    """Stores what is decided here, and follows what is decided elsewhere.

    Args:
        database: where states are.
        registry: has the models.
        swaps: changes them.

    """

    def __init__(self, database: Database, *, registry: ModelRegistry, swaps: Swaps) -> None:
        self._database = database
        self._registry = registry
        self._swaps = swaps
        self._revisions: dict[str, int] = {}  # those that this replica has, or knows to be void
        self._failed: dict[str, tuple[int, float]] = {}  # revision, and when it is tried again
        self._unstored: set[str] = set()
        self._is_due = asyncio.Event()
        self._following = asyncio.Lock()

    def problem(self) -> str | None:
        """Return what `/ready` says is degraded."""
        return NOT_STORED if self._unstored else None

    async def restore(self) -> None:
        """Let the versions be loaded that served before the restart; call it before any is."""
        try:
            states = await self._read()
        except (DatabaseUnavailableError, StatementError) as failure:
            # Tables that aren't there yet have none; a database that is down is followed later.
            log.info("model_states_unread", extra={"reason": type(failure).__name__})
            return
        for model, state in self._known(states):
            model.take(_traffic(state))
            model.plan()
            self._registry.show(model)
            self._revisions[state.model] = state.revision
            fields = {"model": state.model, "serving": state.serving, "weights": state.weights}
            log.info("model_state_restored", extra=fields)

    async def note_swap(self, model: Model, _: Swap) -> None:
        """Store what was decided here; raises as `store`."""
        await self.store(model)

    async def store(self, model: Model) -> None:
        """Store what was decided of a model.

        Raises:
            SwapLostError: another replica decided before; what it decided is followed.

        """
        name, traffic = model.spec.name, model.traffic
        state = StoredState(
            model=name,
            entry_hash=hash_of(model.spec),
            serving=traffic.serving,
            previous=traffic.previous,
            weights=traffic.weights,
            revision=self._revisions.get(name, 0) + 1,
        )
        try:
            is_stored = await self._database.run(partial(_put, state=state))
        except ConflictError:
            is_stored = False
        except DatabaseUnavailableError as failure:
            self._unstored.add(name)
            log.warning("model_state_not_stored", extra={"model": name, "reason": failure.reason})
            return
        self._unstored.discard(name)
        if not is_stored:
            self._is_due.set()
            raise SwapLostError
        self._revisions[name] = state.revision

    async def watch(self, *, every_s: float) -> None:
        """Follow what other replicas decide, forever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._is_due.wait()
            self._is_due.clear()
            await self.follow()

    async def follow(self) -> None:
        """Do what other replicas have decided, and store what couldn't be before.

        It has been done when this returns, whoever else asked for it meanwhile.
        """
        async with self._following:
            await self._follow()

    async def _follow(self) -> None:
        try:
            states = await self._read()
        except (DatabaseUnavailableError, StatementError):
            return  # the watch of the database says so
        for name in tuple(self._unstored):
            model = self._registry.find(name)
            if model is None:  # another catalogue has it no more
                self._unstored.discard(name)
                continue
            with suppress(ServiceError):
                await self.store(model)
        for model, state in self._known(states):
            if state.revision > self._revisions.get(state.model, 0):
                await self._do(model, state)

    async def _do(self, model: Model, state: StoredState) -> None:
        name = state.model
        revision, again_s = self._failed.get(name, (0, 0.0))
        if revision == state.revision and time.monotonic() < again_s:
            return
        try:
            await self._swaps.begin(Swap(action="follow", model=name, traffic=_traffic(state)))
        except SwapInProgressError:
            return
        except ServiceError:  # `Swaps` has logged and counted it
            self._failed[name] = state.revision, time.monotonic() + RETRY_S
            return
        self._revisions[name] = state.revision
        log.info("model_state_followed", extra={"model": name, "serving": model.serving})

    def _known(self, states: dict[str, StoredState]) -> list[tuple[Model, StoredState]]:
        """Return the states that are of entries of this catalogue."""
        known = []
        for name, state in states.items():
            model = self._registry.find(name)
            if model is None or not model.has_versions:
                continue
            if state.entry_hash == hash_of(model.spec):
                known.append((model, state))
            elif self._revisions.get(name, 0) < state.revision:
                self._revisions[name] = state.revision
                log.warning("model_state_outdated", extra={"model": name, "was": state.serving})
        return known

    async def _read(self) -> dict[str, StoredState]:
        return await self._database.read(lambda session: StateRepository(session).all())


def _put(session: Session, *, state: StoredState) -> bool:
    return StateRepository(session).put(state)


def _traffic(state: StoredState) -> Traffic:
    return Traffic(serving=state.serving, weights=state.weights, previous=state.previous)
