"""Lets the service ask Ray's replicas of models as it asks the process of shared models.

The service asks shared models over a Unix socket (`app/sharing`). Here that socket is of the same
process, and what it is asked goes on to the deployment of the model, bytes as they are.
"""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from app.errors import ModelNotReadyError, OverloadedError, ServiceError
from app.models.entries import ModelState
from app.sharing.connection import Connection
from app.sharing.frames import CANCEL, NUMBER, REQUEST, Kind, LinkError, frame, pack_json
from app.sharing.served_front import refusal

log = logging.getLogger(__name__)

ENDED = "The replica of the model ended before it answered."
STATE = {"state": ModelState.READY, "is_shared": True, "reason": None, "detail": "", "step": None}


@asynccontextmanager
async def bridge(handles: Mapping[str, DeploymentHandle]) -> AsyncIterator[str]:
    """Answer the service's link during the block; gives the address to connect to.

    Args:
        handles: of each model's deployment, by the model's name.

    """
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="ml-api-ray-") as folder:
        address = str(Path(folder) / "link.sock")
        server = await loop.create_unix_server(lambda: _Link(handles).protocol(), address)
        try:
            yield address
        finally:
            server.close()


class _Link:
    """One connection of the service."""

    def __init__(self, handles: Mapping[str, DeploymentHandle]) -> None:
        self._names = list(handles)
        self._handles = list(handles.values())
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._introducing: list[asyncio.Task[None]] = []
        self._transport: asyncio.Transport | None = None

    def protocol(self) -> asyncio.Protocol:
        """Return what reads its frames."""
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        return Connection(ended, opened=self._opened, lost=self._lost, take=self._take)

    def _opened(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._tell(frame(Kind.STATE, pack_json(dict.fromkeys(self._names, STATE))))
        self._introducing = [
            asyncio.create_task(self._introduce(index)) for index in range(len(self._names))
        ]

    def _lost(self) -> None:
        self._transport = None
        for task in (*self._introducing, *self._asked.values()):
            task.cancel()

    def _tell(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def _introduce(self, index: int) -> None:
        """Wait for a replica that has loaded the model, and say what it is."""
        while True:
            try:
                facts: bytes = await self._handles[index].facts.remote(index)
            except Exception as failure:  # noqa: BLE001  # whatever Ray has: it starts another
                log.warning("model_not_told", extra={"error": type(failure).__name__})
                await asyncio.sleep(1)
            else:
                self._tell(frame(Kind.MODEL, facts))
                return

    def _take(self, kind: Kind, payload: bytearray) -> None:
        if kind is Kind.REQUEST:
            number, *_ = REQUEST.unpack_from(payload)
            task = asyncio.create_task(self._ask(payload))
            self._asked[number] = task
            task.add_done_callback(lambda _: self._asked.pop(number, None))
        elif kind is Kind.CANCEL:
            number, _ = CANCEL.unpack(payload)
            if task := self._asked.get(number):
                task.cancel()
        else:
            raise LinkError(f"a frame of the kind {kind.name}")

    async def _ask(self, payload: bytearray) -> None:
        number, index, count, at_s = REQUEST.unpack_from(payload)
        tokens = bytes(payload[REQUEST.size :])
        # Clocks of other machines differ: what is left, not until when.
        response = self._handles[index].run.remote(tokens, count, at_s - monotonic())
        try:
            rows, failure = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BackPressureError:
            self._tell(refusal(number, OverloadedError(retry_after_s=1)))
        except Exception as lost:  # noqa: BLE001  # Ray's, of whatever became of the replica
            log.warning("replica_lost", extra={"error": type(lost).__name__})
            away: ServiceError = ModelNotReadyError(ENDED, retry_after_s=1)
            self._tell(refusal(number, away))
        else:
            if failure is None:
                self._tell(frame(Kind.ROWS, NUMBER.pack(number), rows))
            else:
                self._tell(frame(Kind.REFUSED, NUMBER.pack(number), pack_json(failure)))
