"""`app models check` and `app models new`: a model before it is served."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import commands
import gguf_files
import graphs
import pytest
from onnx import TensorProto
from serving import serving
from test_openvino import tiny

from app.doctor.guessing import alternative, guess
from app.errors import SourceError, StartupError, UnsafeModelError
from app.models.catalog import ModelSpec

CLASSES = """
import other_library_that_is_not_run_by_a_guess

class Helper:
    def help(self): ...

class Prices:
    def predict(self, items: list[float]) -> list[float]:
        return items

class Names:
    def predict_one(self, item: str) -> str:
        return item
"""
PICKY = """
class Picky:
    def predict_one(self, item: int) -> str:
        if item < 100:
            raise ValueError(f"{item} is too small")
        return "large"
"""


def run(folder: Path, *arguments: str) -> CompletedProcess[str]:
    return commands.run(folder, "models", *arguments)


def reports(folder: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    done = run(folder, "check", *arguments, "--json")
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def classifier(labels: dict[str, str], **more: str) -> str:
    architectures = ["BertForSequenceClassification"]
    return json.dumps({"architectures": architectures, "id2label": labels, **more})


def guessed(path: Path) -> list[ModelSpec]:
    return list(guess(path).specs)


def test_a_graph_is_loaded_and_called_and_its_entry_shown(tmp_path: Path) -> None:
    graphs.save(graphs.linear(), tmp_path / "my tariff.onnx")
    done = run(tmp_path, "check", "my tariff.onnx")
    assert done.returncode == 0, done.stdout + done.stderr
    first, took, called, answered, *entry = [line.strip() for line in done.stdout.splitlines()]
    assert first.startswith("✓ my-tariff: python, onnx on cpu, version ")
    assert "MiB of memory" in took
    assert called == 'called with  {"x": [1.0, 1.0, 1.0, 1.0]}'
    assert answered.startswith('its answer   {"y": [0.0, 2.5]}, after ')
    assert entry == [
        "its entry:",
        "[[models]]",
        'name = "my-tariff"',
        'source = "file:my tariff.onnx"',
        'engine = "onnx"',
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["my tariff.onnx"], "nothing is written"


def test_a_graph_that_is_refused_says_why_and_ends_with_1(tmp_path: Path) -> None:
    graphs.save(graphs.identity(TensorProto.BFLOAT16, [None]), tmp_path / "waves.onnx")
    status, (report,) = reports(tmp_path, "waves.onnx")
    assert status == 1
    assert "the input x is tensor(bfloat16)" in report["refused"]
    done = run(tmp_path, "check", "waves.onnx")
    assert done.returncode == 1
    assert done.stdout.startswith("✗ waves: python on onnx is refused\n")


def test_a_folder_of_transformers_is_loaded_for_its_head(tmp_path: Path) -> None:
    status, (report,) = reports(tmp_path, str(tiny(tmp_path / "model")))
    assert status == 0
    assert (report["task"], report["engine"]) == ("text-classification", "torch")
    assert report["note"] == "the first start will convert it"
    assert list(report["answer"]) == report["labels"]


def test_a_class_is_called_with_a_made_up_item_or_a_given_one(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(PICKY, encoding="utf-8")
    status, (report,) = reports(tmp_path, "model.py")
    assert (status, report["item"]) == (1, 1)
    assert report["failure"].endswith("ValueError: 1 is too small")
    status, (report,) = reports(tmp_path, "model.py:Picky", "--item", "200")
    assert (status, report["answer"]) == (0, "large")
    status, (report,) = reports(tmp_path, "model.py", "--item", '"x"')
    assert (status, report["failure"]) == (1, "it: Input should be a valid integer")
    assert "it failed" in run(tmp_path, "check", "model.py").stdout


def test_entries_of_a_catalogue_are_checked_each(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(
        "".join(
            f'[[models]]\nname = "{name}"\ntask = "{task}"\nengine = "fake"\n{more}\n'
            for name, task, more in (
                ("labels", "text-classification", ""),
                ("vectors", "embedding", ""),
                ("words", "chat", ""),
                ("ranks", "text-ranking", ""),
                ("broken", "embedding", "fake = { fail_load = true }"),
            )
        ),
        encoding="utf-8",
    )
    status, (labels, vectors, words, ranks, broken) = reports(tmp_path, ".")
    assert status == 1
    assert set(labels["answer"]) == set(labels["labels"])
    assert vectors["answer"]["dimensions"] == 384
    assert (len(ranks["item"]), list(ranks["answer"])) == (2, ["relevance"])
    assert isinstance(words["answer"], str)
    assert broken["refused"] == "the fake engine was told not to load"


def test_a_class_is_found_by_its_methods_without_being_run(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(CLASSES, encoding="utf-8")
    for path in (tmp_path, tmp_path / "model.py"):
        assert [(s.name, s.engine, s.source) for s in guessed(path)] == [
            ("prices", "python", "file:model.py:Prices"),
            ("names", "python", "file:model.py:Names"),
        ]
    (only,) = guessed(Path(f"{tmp_path / 'model.py'}:Names"))
    assert only.source == "file:model.py:Names"


def test_folders_are_for_what_is_in_them(tmp_path: Path) -> None:
    for name, files in {
        "embedder": {"config.json": '{"architectures": ["BertModel"]}', "modules.json": "[]"},
        "bare": {"config.json": '{"architectures": ["BertModel"]}'},
        "ranker": {
            "config.json": '{"sentence_transformers": {}, "id2label": {"0": "LABEL_0"}}',
            "modules.json": "[]",
        },
        "unmarked": {"config.json": classifier({"0": "LABEL_0"})},
        "rater": {"config.json": classifier({"0": "LABEL_0"}, problem_type="regression")},
        "nli": {"config.json": classifier({"0": "contradiction", "1": "ENTAILMENT"})},
        "moods": {"config.json": classifier({"0": "bad", "1": "good"})},
        "pictures": {"config.json": '{"architectures": ["ViTForImageClassification"]}'},
        "seen": {
            "config.json": '{"architectures": ["Dinov2Model"]}',
            "preprocessor_config.json": "{}",
        },
        "writer": {"config.json": '{"architectures": ["LlamaForCausalLM"]}'},
        "odd": {"config.json": "[]"},
        "graph": {"model.onnx": "", "config.json": "{}"},
        "chat": {},
    }.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content, encoding="utf-8")
    gguf_files.write(tmp_path / "chat" / "model.gguf", {"general.architecture": "llama"}, {})
    tasks, unsure = {}, set()
    for folder in tmp_path.iterdir():
        (spec,) = guessed(folder)
        tasks[folder.name] = (spec.task, spec.engine, spec.source)
        if alternative(folder, spec):
            unsure.add(folder.name)
    assert unsure == {"unmarked", "nli"}
    assert tasks == {
        "embedder": ("embedding", "auto", "file:embedder"),
        "bare": ("embedding", "auto", "file:bare"),
        "ranker": ("text-ranking", "auto", "file:ranker"),
        "unmarked": ("text-ranking", "auto", "file:unmarked"),
        "rater": ("text-classification", "auto", "file:rater"),
        "nli": ("zero-shot-classification", "auto", "file:nli"),
        "moods": ("text-classification", "auto", "file:moods"),
        "pictures": ("image-classification", "auto", "file:pictures"),
        "seen": ("image-embedding", "auto", "file:seen"),
        "writer": ("chat", "auto", "file:writer"),
        "odd": ("text-classification", "auto", "file:odd"),
        "graph": ("python", "onnx", "file:graph"),
        "chat": ("chat", "auto", "file:model.gguf"),
    }


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("model.pkl", UnsafeModelError, "is a pickle, which can run code"),
        ("folder/model.joblib", UnsafeModelError, "is a pickle, which can run code"),
        ("model.skops", SourceError, "its own library opens it, in a Python class"),
        ("model.safetensors", SourceError, "name their folder"),
        ("notes.txt", SourceError, "of no kind that is served"),
        ("models.toml", SourceError, "names no model"),
        ("empty.py", SourceError, "no class in it has predict"),
        ("wrong.py", SourceError, "can't be read as Python: line 1: "),
    ],
)
def test_what_cannot_be_served_is_told_with_a_way(
    tmp_path: Path, name: str, kind: type[StartupError], said: str
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("class (" if name == "wrong.py" else "", encoding="utf-8")
    with pytest.raises(kind, match=said):
        guess(file.parent if file.parent != tmp_path else file)


def test_a_path_that_is_not_there_ends_with_a_line(tmp_path: Path) -> None:
    done = run(tmp_path, "check", "none.onnx")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "ml-api: error: there is no none.onnx\n"
    assert run(tmp_path, "check", "none.py:Class").returncode == 1


def needs(kind: str) -> None:
    if kind == "sklearn":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed; the starter needs it")


@pytest.mark.parametrize("kind", ["sklearn", "torch", "onnx"])
async def test_a_new_model_runs_as_it_is(tmp_path: Path, kind: str) -> None:
    needs(kind)
    done = run(tmp_path, "new", "mine", "--kind", kind)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "mine"
    written = done.stdout.split("\n\n", maxsplit=1)[0].splitlines()
    assert sorted(written) == sorted(str(f.relative_to(tmp_path)) for f in folder.iterdir())
    status, (report,) = reports(tmp_path, "mine")
    assert status == 0, report
    models = (folder / "models.toml").read_text(encoding="utf-8")
    async with serving(folder, models, features="none") as client:
        answer = await client.post("/predict/mine", json=report["item"])
        assert (answer.status_code, answer.json()) == (200, report["answer"])


def test_a_new_model_needs_a_name_and_a_folder_of_its_own(tmp_path: Path) -> None:
    run(tmp_path, "new", "mine", "--kind", "torch")
    done = run(tmp_path, "new", "mine", "--kind", "torch")
    assert (done.returncode, done.stderr) == (
        1,
        "ml-api: error: mine: is not empty; name a folder that is, or a new one\n",
    )
    done = run(tmp_path, "new", "mine", "--kind", "onnx", "--folder", "other/place", "--json")
    assert json.loads(done.stdout)["folder"] == "other/place"
    assert "no name of a model" in run(tmp_path, "new", "a b", "--kind", "onnx").stderr
