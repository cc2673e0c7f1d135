"""Mends a worker that would fall asleep for ever when its broker goes away under a task.

While a worker has as many messages as its prefetch allows, one here, nothing listens to the broker.
That it went away shows only when the message is acknowledged; Celery logs that, and goes on with a
connection that is no more. Where the error leaves `ack_log_error`, as it does for broken pipes,
Celery connects again.
"""

from typing import Any

from kombu.transport.redis import Channel


class LoudMessage(Channel.Message):  # type: ignore[misc]  # kombu is untyped
    """A message whose acknowledgement fails aloud."""

    def ack_log_error(
        self,
        logger: Any,  # noqa: ANN401, ARG002  # kombu's signature
        errors: Any,  # noqa: ANN401, ARG002  # as above
        multiple: bool = False,  # noqa: FBT001, FBT002  # as above
    ) -> None:
        """Acknowledge, or raise what tells Celery that the connection is lost."""
        self.ack(multiple=multiple)


def acknowledge_aloud() -> None:
    """Use such messages in this process; kombu takes the class from its channel's."""
    Channel.Message = LoudMessage
