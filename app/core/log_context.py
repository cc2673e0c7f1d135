"""What log lines take from where they are made."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.core.spans import Trace

# Set by the request middleware; "" outside a request.
request_id: ContextVar[str] = ContextVar("request_id", default="")

# Set in threads that run users' texts.
is_private: ContextVar[bool] = ContextVar("is_private", default=False)

# The span that is open, sampled or not; None where tracing is off. `app.core.tracing` sets it.
trace: ContextVar["Trace | None"] = ContextVar("trace", default=None)
