"""Pages of lists, as OpenAI has them."""

from collections.abc import Sequence
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import ConfigDict

from app.models.schemas import Response, example

T = TypeVar("T")


class OpenAiList(Response, Generic[T]):
    """A page; the next one is asked for with `last_id` as `after`."""

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: Sequence[T], *, has_more: bool) -> Self:
        """Return a page of objects that have ids."""
        return cls(
            data=list(data),
            first_id=_id_of(data[0]) if data else None,
            last_id=_id_of(data[-1]) if data else None,
            has_more=has_more,
        )


def example_list(one: dict[str, Any]) -> ConfigDict:
    """Return what documents a page, by an object in it."""
    page = {
        "object": "list",
        "data": [one],
        "first_id": one["id"],
        "last_id": one["id"],
        "has_more": False,
    }
    return ConfigDict(json_schema_extra=example(page))


def _id_of(one: Any) -> str:  # noqa: ANN401  # an object of JSON, or a schema's
    return str(one["id"] if isinstance(one, dict) else one.id)
