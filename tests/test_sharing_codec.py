"""What front ends and the engine's process send each other: all of it comes back, else an error."""

import contextlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import word_tokenizer

from app.engines.base import Encoded
from app.engines.fake_tokens import ByteEncoder, WordEncoder
from app.engines.rows import RowsRefusedError
from app.engines.token_windows import TokenEncoder, TokenRow, TokenText
from app.engines.tokenizer import TextEncoder, TextRules
from app.errors import (
    ContextLengthExceededError,
    DatabaseUnavailableError,
    InferenceFailedError,
    InvalidRequestError,
    OverloadedError,
    ServiceError,
    all_service_errors,
)
from app.sharing.encoders import read_encoder, write_encoder
from app.sharing.failures import EngineProcessError, read_failure, write_failure
from app.sharing.frames import (
    MAX_PAYLOAD_BYTES,
    PREFIX,
    FrameReader,
    Kind,
    LinkError,
    TooLargeError,
    frame,
    pack_json,
    unpack_json,
)
from app.sharing.items import pack_items, unpack_items
from app.sharing.rows import pack_rows, unpack_rows

pytestmark = pytest.mark.core

TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=20)
PLAIN = st.builds(
    Encoded,
    token_ids=TOKENS,
    is_truncated=st.booleans(),
    type_ids=TOKENS,
    left_out=st.integers(0, 9),
)


@st.composite
def windowed(draw: st.DrawFn) -> TokenText:
    windows = draw(st.lists(PLAIN, min_size=1, max_size=3))
    windows = [
        Encoded(token_ids=w.token_ids, is_truncated=False, type_ids=w.type_ids) for w in windows
    ]
    tokens = draw(st.integers(0, 5))
    return TokenText(
        token_ids=[index for window in windows for index in window.token_ids],
        is_truncated=False,
        windows=tuple(windows),
        starts=tuple(draw(st.integers(0, 9)) for _ in windows),
        before=draw(st.integers(0, 2)),
        offsets=np.zeros((tokens, 2), dtype=np.int64),
        is_subword=np.zeros(tokens, dtype=np.bool_),
    )


ITEMS = st.lists(PLAIN | windowed(), min_size=1, max_size=4)


def said(item: Encoded) -> Any:
    plain = (list(item.token_ids), item.is_truncated, list(item.type_ids), item.left_out)
    if not isinstance(item, TokenText):
        return plain
    windows = [said(window) for window in item.windows]
    return plain, windows, item.starts, item.before, len(item.offsets)


@given(ITEMS)
def test_texts_come_back_with_all_that_engines_are_given(items: Sequence[Encoded]) -> None:
    back = unpack_items(pack_items(items), len(items))
    assert [said(item) for item in back] == [said(item) for item in items]


def test_tokens_that_are_bytes_come_back_as_numbers() -> None:
    (back,) = unpack_items(pack_items(ByteEncoder(9).encode(["aé"])), 1)
    assert back.token_ids == list("aé".encode())


@given(ITEMS, st.data())
def test_texts_that_are_cut_off_are_an_error(items: Sequence[Encoded], data: st.DataObject) -> None:
    packed = pack_items(items)
    with pytest.raises(LinkError):
        unpack_items(packed[: data.draw(st.integers(0, len(packed) - 1))], len(items))
    with pytest.raises(LinkError):
        unpack_items(packed + b"\0\0\0\0", len(items))


@given(st.binary(max_size=64), st.integers(0, 3))
def test_any_bytes_are_texts_or_an_error(data: bytes, count: int) -> None:
    with contextlib.suppress(LinkError):
        assert len(unpack_items(data, count)) == count
    with contextlib.suppress(LinkError):
        unpack_rows(bytearray(data))


def test_rows_come_back_with_errors_in_their_places() -> None:
    logits = np.arange(6, dtype=np.float32).reshape(3, 2)
    places = np.zeros((3, 2), dtype=np.int64)
    rows: list[Any] = [
        np.array([0.25, 0.75], dtype=np.float32),
        OverloadedError(retry_after_s=3),
        TokenRow(logits, places, np.zeros(3, dtype=np.bool_)),
        ValueError("no such token"),
        np.array([], dtype=np.float32),
        RowsRefusedError("NaN"),
    ]
    packed = bytearray(pack_rows(rows))
    vector, overloaded, tokens, failed, empty, refused = unpack_rows(packed)
    assert not isinstance(vector, Exception)
    vector += 1  # as rows of an engine, it may be written to
    assert vector.tolist() == [1.25, 1.75]
    assert not isinstance(tokens, Exception)
    assert tokens.tolist() == [0, 1, 2, 3, 4, 5]
    assert not isinstance(empty, Exception)
    assert empty.tolist() == []
    assert isinstance(overloaded, OverloadedError)
    assert isinstance(failed, EngineProcessError)
    assert (type(failed).__name__, str(failed)) == ("ValueError", "no such token")
    assert isinstance(refused, RowsRefusedError)
    for end in range(len(packed)):
        with pytest.raises(LinkError):
            unpack_rows(packed[:end])
    with pytest.raises(LinkError):
        unpack_rows(bytearray(pack_rows(rows[:1])) + b"more")


@pytest.mark.parametrize("kind", all_service_errors())
def test_every_error_crosses_as_itself(kind: type[ServiceError]) -> None:
    failure = kind.__new__(kind)
    ServiceError.__init__(failure, "why", retry_after_s=7, extensions={"field": [1]})
    back = read_failure(unpack_json(pack_json(write_failure(failure)))[0])
    assert isinstance(back, ServiceError)
    assert type(back).code == kind.code
    assert (back.detail, back.retry_after_s, back.extensions) == ("why", 7, {"field": [1]})
    assert back.headers["Retry-After"] == "7"


def test_errors_with_fields_of_their_own_keep_what_they_say() -> None:
    for failure in (
        ContextLengthExceededError(prompt_tokens=9, context_tokens=8),
        InvalidRequestError([{"loc": ["body"], "msg": "m", "type": "t"}]),
        DatabaseUnavailableError(),
        InferenceFailedError(),
    ):
        back = read_failure(write_failure(failure))
        assert isinstance(back, type(failure))
        assert (str(back), back.extensions) == (str(failure), failure.extensions)


@given(st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=9))), st.integers(1, 7))
def test_frames_come_back_however_the_bytes_arrive(
    frames: list[tuple[Kind, bytes]], size: int
) -> None:
    data = b"".join(frame(kind, payload[:4], payload[4:]) for kind, payload in frames)
    reader, found = FrameReader(), []
    for start in range(0, len(data), size):
        found += reader.feed(data[start : start + size])
    assert found == [(kind, bytearray(payload)) for kind, payload in frames]


@pytest.mark.parametrize("prefix", [PREFIX.pack(MAX_PAYLOAD_BYTES + 1, 1), PREFIX.pack(0, 99)])
def test_what_is_no_frame_is_an_error_before_it_is_read(prefix: bytes) -> None:
    with pytest.raises(LinkError):
        FrameReader().feed(prefix)


def test_a_frame_that_is_too_large_isnt_made() -> None:
    with pytest.raises(TooLargeError):
        frame(Kind.ROWS, bytes(MAX_PAYLOAD_BYTES), b"x")


@pytest.mark.parametrize("payload", [b"", b"\1\0\0", struct.pack("<I", 9) + b"{}", b"\2\0\0\0{]"])
def test_what_is_no_json_is_an_error(payload: bytes) -> None:
    with pytest.raises(LinkError):
        unpack_json(payload)


@pytest.mark.parametrize("kind", [TextEncoder, TokenEncoder])
def test_a_tokeniser_crosses_with_its_window_and_rules(kind: type[TextEncoder]) -> None:
    rules = TextRules(window=10, pad_id=3, has_types=True, special_ids=(2, 3), unknown_id=1)
    encoder = kind(word_tokenizer().backend_tokenizer, rules, limit=8)
    written = write_encoder(encoder)
    assert written is not None
    head, _ = unpack_json(pack_json(written[0]))
    back = read_encoder(head, written[1])
    assert isinstance(back, kind)
    assert (back.rules, back.max_tokens) == (rules, 8)
    texts = ["the cat was good", "the " * 20, "", "unknown words"]
    assert [said(e) for e in back.encode(texts)] == [said(e) for e in encoder.encode(texts)]
    assert back.offsets("the cat") == encoder.offsets("the cat")


def test_tokenisers_without_a_vocabulary_cross_and_others_dont() -> None:
    for encoder in (ByteEncoder(5), WordEncoder(5)):
        written = write_encoder(encoder)
        assert written is not None
        back = read_encoder(*written)
        assert type(back) is type(encoder)
        assert [list(e.token_ids) for e in back.encode(["Ann ate"])] == [
            list(e.token_ids) for e in encoder.encode(["Ann ate"])
        ]

    class Other(ByteEncoder):
        pass

    assert write_encoder(Other(5)) is None
