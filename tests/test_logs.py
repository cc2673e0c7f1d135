"""Log lines: one shape for all, ids everywhere, and no input texts."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import make_app, running, serving

from app.core.log_formats import JsonLines
from app.core.logs import announce, configure, request_id

pytestmark = pytest.mark.core

SECRET = "a secret that must not be logged"


@contextmanager
def captured(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[io.StringIO]:
    """Configure logging onto a buffer, and put it back as it was."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    last = logging.lastResort
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    try:
        configure(**{"log_format": "json", "level": "info", "log_inputs": False, **options})
        yield stream
    finally:
        for handler in root.handlers:
            handler.close()  # which writes what waits
        root.handlers[:] = before
        root.setLevel(level)
        logging.lastResort = last


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_request_is_one_json_line_with_id_template_status_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with captured(monkeypatch) as stream:
        async with serving(tmp_path) as client:
            await client.post(
                "/predict/dummy", json={"text": SECRET}, headers={"X-Request-ID": "my-id"}
            )
    done = next(line for line in lines(stream) if line["event"] == "request_done")
    assert done.pop("duration_ms") > 0
    assert done.pop("timestamp")
    assert done.pop("model_ms") > 0
    assert done == {
        "level": "INFO",
        "logger": "app.middleware.logging",
        "event": "request_done",
        "method": "POST",
        "route": "/predict/{model_name}",
        "status": 200,
        "request_id": "my-id",
        "model": "dummy",
        "count": 1,
    }


@pytest.mark.parametrize("log_inputs", [False, True])
async def test_inputs_are_logged_only_when_a_setting_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, log_inputs: bool
) -> None:
    app = make_app(tmp_path, log_inputs=log_inputs)

    async def crash(text: str) -> None:
        raise RuntimeError(text) from ValueError(text)

    app.get("/crash")(crash)
    with captured(monkeypatch, log_inputs=log_inputs) as stream:
        async with running(app) as client:
            await client.post("/predict", json={"text": SECRET})
            await client.post("/predict", json={"text": f"poison {SECRET}"})
            await client.post("/predict-batch", json={"texts": [SECRET, f"poison {SECRET}"]})
            await client.post("/predict", json={"text": SECRET, SECRET: 1})
            await client.get(f"/{SECRET}")
            await client.get("/crash", params={"text": SECRET})
    assert (SECRET in stream.getvalue()) is log_inputs
    crashed = next(line for line in lines(stream) if line["event"] == "unhandled_error")
    assert "RuntimeError" in crashed["exc_info"]
    assert "ValueError" in crashed["exc_info"]
    assert __file__ in crashed["exc_info"]


def test_outside_a_request_tracebacks_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with captured(monkeypatch) as stream:
        try:
            raise ValueError(SECRET)
        except ValueError:
            logging.getLogger("x").exception("load_failed")
    assert SECRET in lines(stream)[0]["exc_info"]


def test_uvicorn_s_lines_have_the_same_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    with captured(monkeypatch) as stream:
        logging.getLogger("uvicorn.error").info("Up %d", 1, extra={"color_message": "Up"})
        logging.getLogger("uvicorn.access").info("never shown")
    (line,) = lines(stream)
    assert set(line) == {"level", "logger", "event", "timestamp"}
    assert line["event"] == "Up 1"


def test_the_console_format_is_one_readable_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with captured(monkeypatch, log_format="console") as stream:
        token = request_id.set("abc")
        logging.getLogger("x").warning("model_failed", extra={"model": "m"})
        request_id.reset(token)
    line = stream.getvalue().strip()
    assert line.endswith("WARNING model_failed model=m request_id=abc")
    assert "\n" not in line


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_is_announced_is_shown_at_every_level_and_fits_the_other_lines(
    monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    with captured(monkeypatch, log_format=log_format, level="error") as stream:
        announce("ml-api: http://h:1 (docs at /docs)", "listening", url="http://h:1")
    if log_format == "console":
        assert stream.getvalue() == "ml-api: http://h:1 (docs at /docs)\n"
    else:
        (line,) = lines(stream)
        assert (line["event"], line["level"], line["url"]) == ("listening", "INFO", "http://h:1")


def test_auto_is_json_where_no_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with captured(monkeypatch, log_format="auto", level="warning") as stream:
        logging.getLogger("x").info("too quiet")
        logging.getLogger("x").warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_a_library_s_warning_is_a_line_like_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with captured(monkeypatch) as stream, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("first line\nsecond line", FutureWarning, stacklevel=1)
    (line,) = lines(stream)
    assert (line["level"], line["event"]) == ("WARNING", "library_warning")
    assert (line["category"], line["warning"]) == ("FutureWarning", "first line\nsecond line")
    assert line["place"].startswith(f"{__file__}:")


@pytest.mark.parametrize("log_inputs", [False, True])
def test_a_warning_inside_a_request_may_quote_a_text_and_is_withheld(
    monkeypatch: pytest.MonkeyPatch, *, log_inputs: bool
) -> None:
    token = request_id.set("my-id")
    try:
        with captured(monkeypatch, log_inputs=log_inputs) as stream, warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(SECRET, UserWarning, stacklevel=1)
    finally:
        request_id.reset(token)
    (line,) = lines(stream)
    assert line["category"] == "UserWarning"
    assert (SECRET in stream.getvalue()) is log_inputs


def test_a_logger_without_a_handler_warns_in_the_same_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orphan = logging.getLogger("orphan")
    monkeypatch.setattr(orphan, "propagate", False)
    with captured(monkeypatch) as stream:
        orphan.info("too quiet")
        orphan.warning("loud")
    assert [(line["logger"], line["event"]) for line in lines(stream)] == [("orphan", "loud")]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_line_that_cannot_be_made_says_where_and_not_what(
    monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    with captured(monkeypatch, log_format=log_format) as stream:
        logging.getLogger("x").info("%d", SECRET)
        logging.getLogger("x").info("after")
    failed, after = stream.getvalue().splitlines()
    assert "log_line_failed" in failed
    assert "TypeError" in failed
    assert __file__ in failed
    assert SECRET not in failed
    assert "after" in after


def test_a_line_has_the_values_of_its_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a"]
    with captured(monkeypatch) as stream:
        logging.getLogger("x").info("made", extra={"texts": texts})
        texts.append("b")
    assert lines(stream)[0]["texts"] == ["a"]


class OtherRecord(logging.LogRecord):
    """A record that is left to the library."""


NOW = 1_796_011_273.304044
FIELDS: list[dict[str, Any]] = [
    {},
    {"status": 200, "duration_ms": 1.25, "route": "/predict", "request_id": "abc"},
    {
        "no": None,
        "yes": True,
        "not_a_number": float("nan"),
        "text": 'a "quoted" \n\u2028\ud800 é 🙂',
    },
    {"texts": ["a", {"b": 1}], "path": Path("x"), "event": "mine", "timestamp": "then", "level": 1},
    {"_hidden": 1, "color_message": "x", "Capital": 2},
    {"args_like": (1, 2), "nested": {"a": None}},
]


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("created_s", [NOW, 1_796_011_273.0, 1_796_011_273.9999999])
def test_quick_lines_are_the_library_s_to_the_byte(
    fields: dict[str, Any], created_s: float
) -> None:
    made = []
    for kind in (logging.LogRecord, OtherRecord):
        record = kind("app.x", logging.WARNING, __file__, 1, 'an "event"', (), None)
        vars(record).update(fields)
        record.created = created_s
        made.append(JsonLines(log_inputs=False).format(record))
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("message", "args"),
    [("%d of %s", (1, "x")), ("%(a)s", ({"a": 1},)), ("100 %", ()), ({"event": "dict"}, ())],
)
def test_unusual_messages_are_the_library_s_too(message: Any, args: Any) -> None:
    made = []
    for kind in (logging.LogRecord, OtherRecord):
        record = kind("app.x", logging.INFO, __file__, 1, message, args, None)
        record.created = NOW
        made.append(JsonLines(log_inputs=False).format(record))
    assert made[0] == made[1]
