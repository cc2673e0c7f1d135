"""What log lines take from where they are made."""

from contextvars import ContextVar

# Set by the request middleware; "" outside a request.
request_id: ContextVar[str] = ContextVar("request_id", default="")

# Set in threads that run users' texts.
is_private: ContextVar[bool] = ContextVar("is_private", default=False)
