"""What routes with images share: the field of a body, the form that it can be sent as."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from app.engines.images.items import ImageItem
from app.errors import MalformedFormError
from app.http.form_route import FormRequest, FormRoute
from app.http.forms import FORM
from app.http.problems import WITH_BODY
from app.services.model_calls import ModelCall, texts_of

MAX_IMAGES = 32
# A PNG of one grey pixel.
EXAMPLE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
FORM_ERRORS = (*WITH_BODY, MalformedFormError)


def _any_content(value: object) -> bytes | str:
    """Return a file of a form, or the text of a field of JSON; it may be empty."""
    if not isinstance(value, bytes | str):
        raise PydanticCustomError("string_type", "Input should be a valid string")
    return value


def _content(value: object) -> bytes | str:
    """Return a file of a form, or the text of a field of JSON."""
    value = _any_content(value)
    if not value:
        raise PydanticCustomError("string_too_short", "The image should not be empty")
    return value


DESCRIPTION = (
    "The file in base64, alone or as a `data:` URL: JPEG, PNG, WebP, GIF (its first frame) or BMP."
    " Addresses are not fetched."
)
ImageContent = Annotated[
    bytes | str,
    PlainValidator(_content),
    WithJsonSchema({"type": "string", "minLength": 1, "description": DESCRIPTION}),
]
# Of a batch in which each image has its own answer or error: also an empty one.
AnyImageContent = Annotated[
    bytes | str,
    PlainValidator(_any_content),
    WithJsonSchema({"type": "string", "description": DESCRIPTION}),
]
Images = Annotated[list[ImageContent], Field(min_length=1, max_length=MAX_IMAGES)]
AnyImages = Annotated[list[AnyImageContent], Field(min_length=1, max_length=MAX_IMAGES)]


class ImagesRequest(FormRequest):
    """A request with images; a form can have several files named `images`."""

    lists: ClassVar[frozenset[str]] = frozenset({"images"})
    numbers: ClassVar[frozenset[str]] = frozenset({"top_k", "dimensions"})


class ImagesRoute(FormRoute):
    """A route whose body has images."""

    request_type = ImagesRequest


def items_of(contents: Sequence[bytes | str]) -> list[ImageItem]:
    """Return the images of a body as an engine takes them."""
    return [ImageItem(content) for content in contents]


def called_images(call: ModelCall) -> list[ImageItem]:
    """Return the images that a Python class sends, in base64.

    Raises:
        InvalidRequestError: an item is no text.

    """
    return items_of(texts_of(call))


def form_of(field: str, *, may_be_empty: bool = False, **others: dict[str, Any]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a route's body besides: that it can be a form.

    Args:
        field: of the image, or of all of them.
        may_be_empty: whether an empty file has an error of its own, and fails no other.
        others: schemas of the other fields.

    """
    file: Final[dict[str, Any]] = {"type": "string", "format": "binary"}
    if not may_be_empty:
        file["minLength"] = 1
    images = {"type": "array", "items": file, "minItems": 1, "maxItems": MAX_IMAGES}
    schema = {
        "type": "object",
        "properties": {field: images if field in ImagesRequest.lists else file, **others},
        "required": [field],
        "additionalProperties": False,
    }
    return {"requestBody": {"content": {FORM: {"schema": schema}}}}
