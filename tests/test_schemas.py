"""The wire contracts: what is accepted, what is refused, and with which status."""

from typing import Any

import pytest
from httpx2 import AsyncClient
from pydantic import ValidationError

from app.models.schemas import PredictBatchRequest, PredictRequest

pytestmark = pytest.mark.core

JSON = {"Content-Type": "application/json"}
PROBLEM_MEMBERS = {
    "type",
    "title",
    "status",
    "detail",
    "code",
    "instance",
    "request_id",
    "timestamp",
}


def plane_samples() -> list[str]:
    """One assigned character of every plane that has any, and the edges of the others."""
    return [chr(plane * 0x10000 + 0x41) for plane in range(17)] + ["\U0010fffd", "\x00", "\x7f"]


def nested(opening: bytes, closing: bytes, depth: int) -> bytes:
    return b'{"text":' + opening * depth + closing * depth + b"}"


MALFORMED: list[bytes] = [
    b"{",
    b"[",
    b'{"text"',
    b'{"text":}',
    b'{"text":"x"',
    b'{"text":"x",}',
    b'{"text":"x"} {"text":"y"}',
    b'{"text":"x"}garbage',
    b"{'text':'x'}",
    b'{text:"x"}',
    b'{"text":x}',
    b'{"text":"\n"}',
    b'{"text":"\t"}',
    b'{"text":"\x00"}',
    b'{"text":"\\x41"}',
    b'{"text":"\\u12"}',
    b'{"text":"\\ud800"}',
    b'{"text":"\\udfff"}',
    b'{"text":"\\ud800\\ud800"}',
    b'{"text":"a\\udc00b"}',
    b'{"\\ud800":"x"}',
    b'{"text":"\xff"}',
    b'{"text":"\xc3\x28"}',
    b'{"text":"\xed\xa0\x80"}',
    b'{"text":"\xf8\x88\x80\x80\x80"}',
    b'{"text":"\xc0\xaf"}',
    b"\xff\xfe{}",
    '{"text":"x"}'.encode("utf-16"),
    '{"text":"x"}'.encode("utf-32"),
    b"\xef\xbb\xbf{}",
    b'{"text":NaN}',
    b'{"text":"x","top_k":NaN}',
    b'{"text":"x","top_k":Infinity}',
    b'{"text":"x","top_k":-Infinity}',
    b'{"text":"x","top_k":01}',
    b'{"text":"x","top_k":+1}',
    b'{"text":"x","top_k":1.}',
    b'{"text":"x","top_k":.5}',
    b'{"text":"x","top_k":0x1}',
    b'{"text":"x","top_k":1e}',
    b'{"text":"x","top_k":' + b"9" * 5000 + b"}",
    nested(b"[", b"]", 300),
    nested(b'{"a":', b"", 300),
    nested(b"[", b"]", 100_000),
    b"[" * 500_000,
    b'{"a":' * 100_000,
    b'"' * 1001,
    b"\\" * 1000,
    b"\x00" * 100,
    b" ",
    b"\n\n\n",
    b"// comment\n{}",
    b"tru",
    b"nul",
]

INVALID: list[bytes] = [
    b"null",
    b"true",
    b"0",
    b'"text"',
    b"[]",
    b'["text"]',
    b"{}",
    b'{"text":null}',
    b'{"text":1}',
    b'{"text":1.5}',
    b'{"text":true}',
    b'{"text":[]}',
    b'{"text":["x"]}',
    b'{"text":{}}',
    b'{"text":{"text":"x"}}',
    b'{"text":""}',
    b'{"text":"' + b"x" * 2001 + b'"}',
    b'{"text":"' + "é".encode() * 2001 + b'"}',
    b'{"Text":"x"}',
    b'{"text":"x","extra":1}',
    b'{"text":"x","__proto__":{}}',
    b'{"text":"x","":1}',
    b'{"text":"x","' + b"k" * 100_000 + b'":1}',
    '{"text":"x","\U0001f600":1}'.encode(),
    b'{"text":"x","top_k":"1"}',
    b'{"text":"x","top_k":0}',
    b'{"text":"x","top_k":-1}',
    b'{"text":"x","top_k":1.5}',
    b'{"text":"x","top_k":1e999}',
    b'{"text":"x","top_k":1001}',
    b'{"text":"x","top_k":99999999999999999999999}',
    b'{"text":"x","top_k":true}',
    b'{"text":"x","top_k":[]}',
    b'{"text":"x","model_name":1}',
    b'{"text":"x","model_name":[]}',
    b'{"text":"x","model_name":"' + b"m" * 65 + b'"}',
    nested(b"[", b"]", 150),
]

VALID: list[str] = [
    *plane_samples(),
    " ",
    "\u200b",
    "\ufeff",
    "\u202e reversed",
    "e\u0301" * 1000,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 100,
    "x" * 2000,
    "\U0010fffd" * 2000,
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "../../etc/passwd",
    "%s%n{}$(ls)",
    "line\nbreak\r\n\ttab",
]

CONTENT_TYPES: list[str | None] = [
    None,
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "json",
    "application/jsonp",
    "text/json",
    "\xff\xfe",
]


def check_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text[:300]
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert set(body) >= PROBLEM_MEMBERS
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["type"].endswith(code)
    return body


async def send(client: AsyncClient, body: bytes, path: str = "/predict") -> Any:
    return await client.post(path, content=body, headers=JSON)


def test_there_are_over_a_hundred_awkward_bodies() -> None:
    assert len(MALFORMED) + len(INVALID) + len(VALID) + len(CONTENT_TYPES) > 100


async def test_every_malformed_body_is_400_and_says_where_not_what(client: AsyncClient) -> None:
    for body in MALFORMED:
        for path in ("/predict", "/predict/dummy", "/predict-batch"):
            problem = check_problem(await send(client, body, path), 400, "malformed_json")
            assert len(problem["detail"]) < 150, body[:50]


async def test_every_body_of_the_wrong_type_is_422_and_names_the_field(client: AsyncClient) -> None:
    for body in INVALID:
        problem = check_problem(await send(client, body), 422, "invalid_request")
        for error in problem["errors"]:
            assert set(error) == {"loc", "msg", "type"}
            assert error["loc"][0] == "body"
            assert len(str(error)) < 400, "the input is not repeated"


async def test_text_of_every_plane_is_classified_and_comes_back_unchanged(
    client: AsyncClient,
) -> None:
    for text in VALID:
        answer = await client.post("/predict", json={"text": text})
        assert answer.status_code == 200, repr(text[:20])
        assert answer.json()["text"] == text


async def test_every_other_content_type_is_415(client: AsyncClient) -> None:
    for kind in CONTENT_TYPES:
        headers = {} if kind is None else {"Content-Type": kind.encode("latin-1")}
        answer = await client.post("/predict", content=b'{"text":"x"}', headers=headers)  # type: ignore[arg-type]  # bytes are sent as they are
        check_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "APPLICATION/vnd.x+JSON"]
)
async def test_every_spelling_of_json_is_accepted(client: AsyncClient, kind: str) -> None:
    answer = await client.post("/predict", content=b'{"text":"x"}', headers={"Content-Type": kind})
    assert answer.status_code == 200


async def test_no_body_at_all_is_422_and_names_the_body(client: AsyncClient) -> None:
    problem = check_problem(await client.post("/predict"), 422, "invalid_request")
    assert problem["errors"] == [{"loc": ["body"], "msg": "Field required", "type": "missing"}]


@pytest.mark.parametrize("request_type", [PredictRequest, PredictBatchRequest])
def test_requests_are_strict_and_frozen(request_type: Any) -> None:
    example = request_type.model_config["json_schema_extra"]["examples"][0]
    made = request_type.model_validate(example)
    with pytest.raises(ValidationError):
        made.model_name = "other"
    with pytest.raises(ValidationError):
        request_type.model_validate({**example, "unknown": 1})
