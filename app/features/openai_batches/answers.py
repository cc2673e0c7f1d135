"""The lines of output and error files, as OpenAI writes them."""

import json
import secrets

from pydantic_core import to_json

from app.errors import ServiceError, UnsupportedFieldError
from app.features.openai_batches.values import Line, LineAnswer
from app.http.error_bodies import openai_error, openai_status
from app.services.own_requests import OwnAnswer

OK = 200
UNRUN = {
    "batch_expired": "This request could not be run before the completion window expired.",
    "batch_cancelled": "The batch was cancelled before this request was run.",
    "batch_output_full": "The batch's answers have as many bytes as they may; see BATCH_OUTPUT_MB.",
    "batch_failed": "The batch failed before this request was run.",
}
NO_STREAM = "'stream' is not supported: answers of a batch can't be streamed"


def new_request_id() -> str:
    """Return the id of one line's request."""
    return f"batch_req_{secrets.token_hex(16)}"


def answered(line: Line, answer: OwnAnswer, *, request_id: str) -> LineAnswer:
    """Return what is written of a line that was run."""
    text = b"".join(
        (
            b'{"id":"',
            request_id.encode(),
            b'","custom_id":',
            to_json(line.custom_id),
            b',"response":{"status_code":',
            str(answer.status).encode(),
            b',"request_id":"',
            request_id.encode(),
            b'","body":',
            answer.body,
            b'},"error":null}\n',
        )
    )
    return LineAnswer(end=line.end, text=text, is_good=answer.status == OK)


def unrun(line: Line, code: str) -> LineAnswer:
    """Return what is written of a line that isn't run, and why."""
    written = {
        "id": new_request_id(),
        "custom_id": line.custom_id,
        "response": None,
        "error": {"code": code, "message": UNRUN[code]},
    }
    return LineAnswer(end=line.end, text=to_json(written) + b"\n", is_good=False)


def error_answer(error: ServiceError) -> OwnAnswer:
    """Return the answer that a route under `/v1` has for an error."""
    return OwnAnswer(status=openai_status(error), body=json.dumps(openai_error(error)).encode())


def no_stream() -> OwnAnswer:
    """Return the answer to a line that asks for a stream."""
    return error_answer(UnsupportedFieldError("stream", detail=NO_STREAM))
