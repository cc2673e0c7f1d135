"""How a class in a process of its own calls other models: it asks the service by its channel.

A call of the class is a question of the service; until that is answered, the process may ask in
turn, and goes on when it has the answer.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from app.engines.python.frames import Channel, ChannelClosedError, Message, NoRoomError
from app.engines.python.models import NOT_HERE, Answers, CallModel, ModelCallError
from app.errors import InternalError, ServiceError, all_service_errors

MODEL: Final = "model"  # in a head: which model is asked
VECTORS, LIST, ERROR, REFUSED = "vectors", "list", "error", "refused"
REPLIES: Final = frozenset({VECTORS, LIST, ERROR, REFUSED})
NO_ROOM: Final = "self.models: there is no memory for the items, or for their answers"
KINDS: Final = {kind.code: kind for kind in reversed(all_service_errors())}
FIELDS: Final = ("detail", "retry_after_s", "extensions")


class AskService:
    """Carries calls of models to the service; in the process of a class."""

    def __init__(self) -> None:
        self._asked = threading.local()

    @contextmanager
    def over(self, channel: Channel) -> Iterator[None]:
        """Take calls of this thread meanwhile, while it answers the channel's last question."""
        self._asked.channel = channel
        try:
            yield
        finally:
            self._asked.channel = None

    def __call__(self, name: str, items: bytes) -> Answers:
        """Ask, and wait for the answer; raises as `CallModel`."""
        channel: Channel | None = getattr(self._asked, "channel", None)
        if channel is None:
            raise ModelCallError(NOT_HERE)
        try:
            channel.send({MODEL: name}, [items])
            message = channel.receive()
        except NoRoomError as failure:
            raise ModelCallError(NO_ROOM) from failure
        if REPLIES.isdisjoint(message.head):
            # The service has given up this call and begins another: its answers would be taken
            # for those of the other. It replaces a process that closes the channel.
            channel.end()
            raise ChannelClosedError("the service asks instead of answering")
        return read_answers(message)


def is_question(message: Message) -> bool:
    """Say whether a process asks for a model, instead of answering."""
    return MODEL in message.head


def answer_question(message: Message, call: CallModel) -> tuple[Mapping[str, Any], Sequence[bytes]]:
    """Call the model that a process asks for; return what it is answered."""
    try:
        answers = call(str(message.head[MODEL]), message.blobs[0])
    except ServiceError as error:
        return {ERROR: error_head(error)}, ()
    except ModelCallError as refused:
        return {REFUSED: str(refused)}, ()
    if isinstance(answers, np.ndarray):
        return {VECTORS: answers.shape}, [answers.astype(np.float32, copy=False).tobytes()]
    return {LIST: True}, [answers]


def no_room() -> tuple[Mapping[str, Any], Sequence[bytes]]:
    """Return what a process is answered where an answer can't be sent."""
    return {REFUSED: NO_ROOM}, ()


def read_answers(message: Message) -> Answers:
    """Return what `answer_question` wrote, or raise what it says."""
    if ERROR in message.head:
        raise read_error(message.head[ERROR])
    if REFUSED in message.head:
        raise ModelCallError(message.head[REFUSED])
    if VECTORS in message.head:
        vectors = np.frombuffer(message.blobs[0], dtype=np.float32)
        return vectors.reshape(message.head[VECTORS]).copy()  # a class may write into it
    return message.blobs[0]


def error_head(error: ServiceError) -> dict[str, Any]:
    """Return an error of the service as JSON."""
    return {"code": error.code, **{name: getattr(error, name) for name in FIELDS}}


def read_error(head: Mapping[str, Any]) -> ServiceError:
    """Return the error that `error_head` wrote."""
    kind = KINDS.get(head["code"], InternalError)
    error = kind.__new__(kind)
    # Of all kinds: some make their details themselves.
    ServiceError.__init__(error, **{name: head[name] for name in FIELDS})
    return error
