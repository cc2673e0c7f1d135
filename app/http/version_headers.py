"""What the OpenAPI document says of versions: the header that names the one that answered.

Requests name one in a header of the same name. The document has that in words: as parameters of
every route those headers are for fuzzers schemas that could be violated, which plain text can't be.
"""

from collections.abc import Mapping
from typing import Any

OK = "200"
ANSWER_HEADERS: Mapping[str, Any] = {
    "X-Model-Version": {
        "description": "The version of the model that answered. A request may name one in a header"
        " of this name; those with the same `X-Session-ID` get the same.",
        "schema": {"type": "string"},
    },
    "X-Prediction-ID": {
        "description": "The id of the answer in the log, to give feedback on, where there is a log"
        " and the answer is one entry there.",
        "schema": {"type": "string", "format": "uuid"},
    },
}


def with_versions(operation: Mapping[str, Any]) -> dict[str, Any]:
    """Return an operation that models answer, with the header that names a version."""
    responses = dict(operation["responses"])
    if OK in responses:
        headers = {**responses[OK].get("headers", {}), **ANSWER_HEADERS}
        responses[OK] = {**responses[OK], "headers": headers}
    return {**operation, "responses": responses}
