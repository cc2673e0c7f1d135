"""Classes that can't be served, or misbehave: a clear line each, and no harm to others."""

import asyncio
import hashlib
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serving import FAKE, make_app, running, serving

from app.engines.base import EngineRequest, PythonOptions
from app.engines.loader import load_engine
from app.engines.python.engine import PythonEngine
from app.engines.python.finding import PREFIX
from app.engines.python.runner import Answer, Item
from app.engines.rows import RowsRefusedError, checked
from app.errors import CatalogError, EngineError, SourceError, StartupError, UnsafeModelError
from app.models.catalog import read_catalog
from app.runtime.runtime import Runtime

GOOD = """
class Model:
    def predict_one(self, item: int) -> int:
        return item
"""


def load(
    folder: Path,
    code: str,
    *,
    source: str = "file:model.py:Model",
    **pins: str,
) -> PythonEngine:
    (folder / "model.py").write_text(code, encoding="utf-8")
    (folder / "beside.py").touch()
    options = PythonOptions(source=source, base=folder, pins=pins)
    request = EngineRequest(
        name="mine", task="python", engine="python", device="cpu", python=options
    )
    engine = load_engine(request)
    assert isinstance(engine, PythonEngine)
    return engine


def method(signature: str, body: str = "return 1") -> str:
    return f"class Model:\n    def {signature}:\n        {body}\n"


LINES = {
    "class Model:\n    pass\n": "Model has neither predict(self, items) nor predict_one(self",
    method("predict_one(self, item)"): "predict_one has no annotation of its parameter item",
    method("predict_one(self, item: int)"): "predict_one has no annotation of its answer",
    method("predict(self, items: int) -> list[int]"): (
        "the parameter items of predict is to be a list of a type"
    ),
    method("predict(self, items: list[int]) -> int"): (
        "the answer of predict is to be a list of a type"
    ),
    method("predict_one(self) -> int"): "predict_one is called with one argument",
    method("predict_one(self, item: int, other: int) -> int"): "is called with one argument",
    method("predict_one(self, item: 'Nowhere') -> int"): (
        "the annotations of predict_one can't be resolved: NameError"
    ),
    method("predict_one(self, item: int) -> 'Model'"): "is annotated with Model, which has no form",
    "class Model:\n    async def predict_one(self, item: int) -> int:\n        return 1\n": (
        "predict_one is async"
    ),
    method("predict_one(self, item: int) -> int", "yield 1"): "predict_one yields",
    "class Model:\n    predict_one = 3\n": "predict_one is int, not a method",
    GOOD + "    def stream(self, item: int) -> list[int]:\n        return [1]\n": (
        "the answer of stream is to be pieces of a type: Iterator"
    ),
    GOOD + "    def stream(self, item: int):\n        yield 1\n": (
        "stream has no annotation of its answer"
    ),
    GOOD + "    stream = 3\n": "stream is int, not a method",
    "from collections.abc import AsyncIterator\n"
    + GOOD
    + (
        "    async def stream(self, item: int) -> AsyncIterator[int]:\n        return None\n"
    ): "stream is async and yields nothing",
    "import nowhere_at_all\n": (
        "import of model.py raises ModuleNotFoundError at line 1: No module named"
    ),
    "class Model:\n  def\n": "import of model.py raises SyntaxError at line 2",
    "import sys\nsys.exit(3)\n": "import of model.py raises SystemExit at line 2",
    GOOD + "    def __init__(self, path):\n        pass\n": (
        "Model() is called without arguments, and missing a required argument: 'path'"
    ),
    GOOD + "    def load(self, device, other):\n        pass\n": (
        "load is called with the device alone: load(self, device)"
    ),
    "import beside\n": "files beside it aren't found: install them as a package",
    "from .beside import x\n": "files beside it aren't found: install them as a package",
    GOOD + "    def load(self, device):\n        raise OSError('x')\n": (
        "load raises OSError at line 6; the log has its traceback"
    ),
    GOOD + "    labels = 'one'\n": "labels is to be a list of texts",
    GOOD + "    version = 3\n": "version is to be a text",
    "Model = 3\n": "no class is its Model",
    "Other = 3\n": "there is no Model",
}


@pytest.mark.parametrize(
    "code",
    [
        """
class Model:
    @staticmethod
    def predict_one(item: int) -> int:
        return item
""",
        """
class Model:
    @classmethod
    def predict(cls, items: list[int]) -> list[int]:
        items.clear()
        return [1]
""",
        GOOD + "    def load(self, *, device):\n        assert device == 'cpu'\n",
        GOOD + "    def load(self, **options):\n        assert options == {'device': 'cpu'}\n",
    ],
)
def test_a_class_is_called_as_its_methods_are_written(tmp_path: Path, code: str) -> None:
    engine = load(tmp_path, code)
    (answer,) = engine.run([item for item in engine.encode([1]) if isinstance(item, Item)])
    assert isinstance(answer, Answer)
    assert answer.content == b"1"


@pytest.mark.parametrize("code", LINES)
def test_a_class_that_cant_be_served_is_refused_in_a_line_that_says_why(
    tmp_path: Path, code: str
) -> None:
    with pytest.raises(StartupError) as refused:
        load(tmp_path, code)
    assert LINES[code] in refused.value.line


def test_the_line_of_a_failed_load_has_no_message_of_the_class_and_the_log_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = GOOD + "    def load(self, device):\n        raise ValueError('password hunter2')\n"
    with pytest.raises(EngineError) as refused:
        load(tmp_path, code)
    assert "hunter2" not in refused.value.line
    assert "hunter2" in caplog.text


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("file:none.py:Model", "there is no"),
        ("file:model.py", "takes"),
        ("python:Model", "takes"),
        ("hf:org/name:Model", "takes"),
        ("python:nowhere_at_all:Model", "no module 'nowhere_at_all' is installed"),
        ("python:nowhere.at.all:Model", "no module 'nowhere.at.all' is installed"),
        ("python:sys:Model", "no module 'sys' is installed"),
    ],
)
def test_a_source_without_a_class_is_refused(tmp_path: Path, source: str, line: str) -> None:
    with pytest.raises(SourceError, match=line):
        load(tmp_path, GOOD, source=source)


def test_a_ctrl_c_of_a_class_s_own_fails_its_load_alone(tmp_path: Path) -> None:
    code = GOOD + "    def load(self, device):\n        raise KeyboardInterrupt\n"
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(load, tmp_path, code)
        with pytest.raises(EngineError, match="load raises KeyboardInterrupt at line 6"):
            loading.result(30)
    with pytest.raises(KeyboardInterrupt):  # where a person's comes
        load(tmp_path, code)


def test_a_file_with_another_digest_than_the_pinned_one_doesnt_run(tmp_path: Path) -> None:
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n{GOOD}"
    digest = hashlib.sha256(code.encode()).hexdigest()
    with pytest.raises(UnsafeModelError, match="sha256"):
        load(tmp_path, code, **{"": "0" * 64})
    with pytest.raises(SourceError, match=r"other\.py: pinned"):
        load(tmp_path, code, **{"other.py": digest})
    assert not (tmp_path / "ran").exists()
    load(tmp_path, code, **{"model.py": digest})
    assert (tmp_path / "ran").exists()


def test_a_module_that_is_installed_is_pinned_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pinned_models").mkdir()
    (tmp_path / "pinned_models" / "one.py").write_text(GOOD, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "python:pinned_models.one:Model"
    with pytest.raises(UnsafeModelError, match="sha256"):
        load(tmp_path, "", source=source, **{"": "0" * 64})
    assert "pinned_models.one" not in sys.modules
    engine = load(tmp_path, "", source=source)
    assert engine.version == hashlib.sha256(GOOD.encode()).hexdigest()[:12]


NAN = "an answer of predict_one holds NaN or infinity, which JSON doesn't have"
CALLS = {
    "raise KeyError('secret')": "predict_one raised KeyError at line 3",
    "return float('nan')": NAN,
    "return 'secret'": "an answer of predict_one is str, not float",
    "return None": "an answer of predict_one is NoneType, not float",
    "raise SystemExit": "predict_one raised SystemExit at line 3",
}


@pytest.mark.parametrize("body", CALLS)
def test_an_answer_that_cant_be_sent_is_an_error_of_its_item_without_its_content(
    tmp_path: Path, body: str
) -> None:
    engine = load(tmp_path, method("predict_one(self, item: int) -> float", body))
    (row,) = checked(engine)(engine.encode([1]))
    assert isinstance(row, RowsRefusedError)
    assert str(row) == CALLS[body]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("items[1:]", "predict returned 2 answers for 3 items"),
        ("[*items, 1]", "predict returned 4 answers for 3 items"),
        ("[]", "predict returned 0 answers for 3 items"),
        ("dict.fromkeys(items)", "predict returned dict, not a list"),
        ("set(items)", "predict returned set, not a list"),
        ("iter(items)", "predict returned list_iterator, not a list"),
        ("'abc'", "predict returned str, not a list"),
        ("None", "predict returned NoneType, not a list"),
    ],
)
def test_a_wrong_number_of_answers_goes_to_no_item(tmp_path: Path, answer: str, line: str) -> None:
    code = method("predict(self, items: list[int]) -> list[int]", f"return {answer}")
    engine = load(tmp_path, code)
    with pytest.raises(RowsRefusedError, match=line):
        checked(engine)(engine.encode([1, 2, 3]))


async def test_a_class_that_loses_an_answer_gives_each_item_its_own_or_an_error(
    tmp_path: Path,
) -> None:
    body = "return [item * 10 for item in items if item != 2]"
    code = method("predict(self, items: list[int]) -> list[int]", body)
    (tmp_path / "model.py").write_text(code, encoding="utf-8")
    entry = '[[models]]\nname = "mine"\nengine = "python"\nsource = "file:model.py:Model"\n'
    async with serving(tmp_path, FAKE + entry) as client:
        answer = await client.post("/predict-batch/mine", json={"items": [1, 2, 3]})
    first, lost, last = answer.json()["results"]
    assert (first["answer"], last["answer"]) == (10, 30)
    assert lost["error"]["code"] == "inference_failed"


async def test_what_a_class_prints_is_neither_in_the_answer_nor_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    body = "print('secret', item); import sys; print(item, file=sys.stderr); return item"
    (tmp_path / "model.py").write_text(
        method("predict_one(self, item: str) -> str", body), encoding="utf-8"
    )
    entry = '[[models]]\nname = "mine"\nengine = "python"\nsource = "file:model.py:Model"\n'
    entry += 'isolation = "thread"\n'
    async with serving(tmp_path, FAKE + entry) as client:
        for _ in range(2):
            answer = await client.post("/predict/mine", json="hunter2")
    assert answer.json() == "hunter2"
    printed = capfd.readouterr()
    assert "hunter2" not in printed.out + printed.err
    records = [record for record in caplog.records if record.msg == "model_printed"]
    assert len(records) == 1
    assert "hunter2" not in str(vars(records[0]))


async def test_with_log_inputs_what_it_prints_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "model.py").write_text(
        method("predict_one(self, item: str) -> str", "print(item); return item"), encoding="utf-8"
    )
    entry = '[[models]]\nname = "mine"\nengine = "python"\nsource = "file:model.py:Model"\n'
    entry += 'isolation = "thread"\n'
    async with serving(tmp_path, FAKE + entry, log_inputs=True) as client:
        await client.post("/predict/mine", json="shown")
    (record,) = [record for record in caplog.records if record.msg == "model_printed"]
    assert vars(record)["text"] == "shown\n"


async def test_a_call_that_never_ends_is_504_and_health_says_which(tmp_path: Path) -> None:
    code = "import threading\nbegun, end = threading.Event(), threading.Event()\n" + method(
        "predict_one(self, item: int) -> int", "begun.set(); end.wait(60); return item"
    )
    (tmp_path / "model.py").write_text(code, encoding="utf-8")
    entry = '[[models]]\nname = "mine"\nengine = "python"\nsource = "file:model.py:Model"\n'
    app = make_app(tmp_path, FAKE + entry + 'isolation = "thread"\n')
    async with running(app) as client:
        runtime: Runtime = app.state.runtime
        runtime.policy = replace(runtime.policy, health_max_call_s=0.01)
        module: Any = sys.modules[PREFIX + "mine"]
        patience = {"X-Request-Timeout-Ms": "1000"}
        request = asyncio.create_task(client.post("/predict/mine", json=1, headers=patience))
        await asyncio.to_thread(module.begun.wait, 30)
        answer = await request
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        health = await client.get("/health")
        assert health.status_code == 503
        assert "mine: one engine call has been running for" in health.text
        assert (await client.post("/predict/dummy", json={"text": "x"})).status_code == 200
        module.end.set()


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ('isolation = "container"', 'there is no "container"; there are "process" and "thread"'),
        ('task = "text-classification"', "leave task out"),
        ("default = true", "default has no meaning for a Python class"),
        ("workers = 0", "workers: Input should be greater than 0"),
    ],
)
def test_the_catalogue_says_what_an_entry_of_a_class_cant_be(
    tmp_path: Path, field: str, line: str
) -> None:
    entry = f'[[models]]\nname = "mine"\nengine = "python"\nsource = "file:m.py:M"\n{field}\n'
    (tmp_path / "models.toml").write_text(entry, encoding="utf-8")
    with pytest.raises(CatalogError) as refused:
        read_catalog(tmp_path / "models.toml")
    assert line in str(refused.value)


@pytest.mark.parametrize("field", ['isolation = "thread"', "workers = 2"])
def test_fields_of_classes_are_refused_elsewhere(tmp_path: Path, field: str) -> None:
    (tmp_path / "models.toml").write_text(FAKE + field, encoding="utf-8")
    with pytest.raises(CatalogError, match='is for models of the engine "python"'):
        read_catalog(tmp_path / "models.toml")


def test_an_entry_without_a_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('[[models]]\nname = "m"\nengine = "python"\n', "utf-8")
    with pytest.raises(CatalogError, match="source is missing"):
        read_catalog(tmp_path / "models.toml")


async def test_a_class_is_required_unless_its_entry_says_otherwise(tmp_path: Path) -> None:
    entry = '[[models]]\nname = "mine"\nengine = "python"\nsource = "file:none.py:Model"\n'
    async with serving(tmp_path, FAKE + entry + "required = false\n") as client:
        models = (await client.get("/models")).json()["models"]
        answer = await client.post("/predict/mine", json=1)
    assert models[1]["state"] == "failed"
    assert "there is no" in models[1]["detail"]
    assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
