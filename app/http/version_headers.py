"""What the OpenAPI document says of versions: the headers of a request to a model, and of answers.

They are read by the layer around all routes (`middleware/front.py`), so no route declares them.
"""

from collections.abc import Mapping
from typing import Any

OK = "200"
REQUEST_HEADERS: tuple[dict[str, Any], ...] = (
    {
        "name": "X-Model-Version",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": "Which version of the model answers; without it the traffic's weights"
        " decide. GET /models lists versions.",
    },
    {
        "name": "X-Session-ID",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": "Requests with the same one get the same version of a model; without it"
        " those with the same API key do.",
    },
)
ANSWER_HEADERS: Mapping[str, Any] = {
    "X-Model-Version": {
        "description": "The version of the model that answered.",
        "schema": {"type": "string"},
    },
    "X-Prediction-ID": {
        "description": "The id of the answer in the log, to give feedback on, where there is a log"
        " and the answer is one entry there.",
        "schema": {"type": "string", "format": "uuid"},
    },
}


def with_versions(operation: Mapping[str, Any]) -> dict[str, Any]:
    """Return an operation that models answer, with the headers that choose and name a version."""
    responses = dict(operation["responses"])
    if OK in responses:
        headers = {**responses[OK].get("headers", {}), **ANSWER_HEADERS}
        responses[OK] = {**responses[OK], "headers": headers}
    parameters = [*operation.get("parameters", ()), *REQUEST_HEADERS]
    return {**operation, "parameters": parameters, "responses": responses}
