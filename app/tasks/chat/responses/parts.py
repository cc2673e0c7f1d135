"""What parts of a response's request share."""

from typing import Annotated, Any

from app.http.openai_schemas import AsSent, Only


class SentPart(AsSent):
    """A part that is kept as the client wrote it; a field that isn't known may only be null.

    Remote servers are asked for chat completions, so none gets fields of responses.
    """

    __pydantic_extra__: dict[str, Annotated[Any, Only(None)]]
