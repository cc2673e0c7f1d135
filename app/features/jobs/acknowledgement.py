"""How a worker notices that its broker went away during a task; Celery alone would hang for ever.

While a worker has as many messages as its prefetch allows, one here, it doesn't read from the
broker. The first failure is then that of the acknowledgement, which Celery only logs, and goes on
with the dead connection. An error that `ack_log_error` raises makes Celery connect again.
"""

from typing import Any

from kombu.transport.redis import Channel


class RaisingMessage(Channel.Message):  # type: ignore[misc]  # kombu is untyped
    """A message that raises when it can't be acknowledged."""

    def ack_log_error(
        self,
        logger: Any,  # noqa: ANN401, ARG002  # kombu's signature
        errors: Any,  # noqa: ANN401, ARG002  # as above
        multiple: bool = False,  # noqa: FBT001, FBT002  # as above
    ) -> None:
        """Acknowledge; what it raises tells Celery that the connection is lost."""
        self.ack(multiple=multiple)


def raise_failed_acknowledgements() -> None:
    """Use `RaisingMessage` in this process: kombu takes its messages' class from the channel."""
    Channel.Message = RaisingMessage
