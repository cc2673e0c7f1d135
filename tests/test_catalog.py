"""The catalogue: what models.toml may say, and what is said about one that is wrong."""

from pathlib import Path

import pytest

from app.engines.base import Task
from app.errors import CatalogError
from app.models.catalog import Catalog, Limits, ModelSpec, read_catalog
from app.models.catalog_writing import write_catalog
from app.settings import PACKAGED_MODELS_FILE

pytestmark = pytest.mark.core

DIGEST = "0123456789abcdef" * 4
ENTRY = '[[models]]\nname = "a"\nsource = "file:a"\n'


def read(tmp_path: Path, text: str) -> Catalog:
    path = tmp_path / "models.toml"
    path.write_text(text, encoding="utf-8")
    return read_catalog(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(CatalogError) as refused:
        read(tmp_path, text)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'models.toml'}: ")
    assert "\n" not in message
    return message


def test_three_lines_make_a_model(tmp_path: Path) -> None:
    (spec,) = read(tmp_path, ENTRY).specs
    assert spec == ModelSpec(name="a", source="file:a")
    assert (spec.task, spec.engine) == (Task.CLASSIFICATION, "auto")
    assert (spec.required, spec.labels, spec.adapter, dict(spec.pins)) == (None, (), None, {})
    assert spec.limits == Limits()
    assert (spec.limits.max_tokens, spec.limits.max_batch) == (None, None)


def test_every_field_can_be_set(tmp_path: Path) -> None:
    (spec,) = read(
        tmp_path,
        f"""
        [[models]]
        name = "all-Fields_1.0"
        task = "embedding"
        source = "hf:org/name@main"
        adapter = "adapters/a"
        engine = "torch"
        default = true
        required = true
        labels = ["x", "y"]
        sha256 = "{DIGEST}"
        [models.limits]
        max_tokens = 128
        max_batch = 2
        max_batch_tokens = 256
        [models.fake]
        delay_ms = 1
        """,
    ).specs
    assert (spec.name, spec.task, spec.engine) == ("all-Fields_1.0", Task.EMBEDDING, "torch")
    assert (spec.source, spec.adapter) == ("hf:org/name@main", "adapters/a")
    assert (spec.default, spec.required, spec.labels) == (True, True, ("x", "y"))
    assert spec.limits == Limits(max_tokens=128, max_batch=2, max_batch_tokens=256)
    assert (dict(spec.pins), dict(spec.fake)) == ({"": DIGEST}, {"delay_ms": 1})


def test_the_packaged_catalogue_waits_for_all_but_the_model_of_entities() -> None:
    catalog = read_catalog(PACKAGED_MODELS_FILE)
    assert catalog.default(Task.CLASSIFICATION) == "sentiment"
    assert catalog.default(Task.EMBEDDING) == "minilm"
    assert catalog.default(Task.NER) == "ner"
    assert [spec.name for spec in catalog.specs if not spec.required] == ["ner"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", True),
        ("default = true", True),
        ("required = false", False),
        ("required = true", True),
        ('task = "chat"\nengine = "remote"', False),
        ('task = "chat"\nengine = "remote"\nrequired = true', True),
    ],
)
def test_the_default_of_a_task_is_required_unless_its_entry_says_otherwise_or_it_is_remote(
    tmp_path: Path, fields: str, expected: object
) -> None:
    catalog = read(tmp_path, ENTRY + fields + "\n" + ENTRY.replace('"a"', '"b"'))
    first, second = catalog.specs
    assert catalog.is_required(first) is expected
    # Of another task, `b` is the default of its own.
    assert catalog.is_required(second) is (first.task == Task.CHAT)


def test_models_keep_the_order_of_the_file_and_are_found_by_name(tmp_path: Path) -> None:
    catalog = read(tmp_path, ENTRY.replace('"a"', '"z"') + ENTRY + ENTRY.replace('"a"', '"m"'))
    assert [spec.name for spec in catalog.specs] == ["z", "a", "m"]
    assert catalog.get("m") is catalog.specs[2]
    assert catalog.get("M") is None


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, ENTRY).folder == tmp_path


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "models = []\n"])
def test_a_catalogue_may_be_empty(tmp_path: Path, text: str) -> None:
    catalog = read(tmp_path, text)
    assert catalog.specs == ()
    assert not any(catalog.default(task) for task in Task)


def test_the_first_model_of_a_task_is_its_default() -> None:
    catalog = Catalog(
        [
            ModelSpec(name="vectors", task=Task.EMBEDDING),
            ModelSpec(name="first"),
            ModelSpec(name="second"),
        ]
    )
    assert catalog.default(Task.CLASSIFICATION) == "first"
    assert catalog.default(Task.EMBEDDING) == "vectors"
    assert catalog.default(Task.CHAT) is None


def test_a_model_that_says_default_comes_before_the_first() -> None:
    catalog = Catalog(
        [
            ModelSpec(name="first"),
            ModelSpec(name="second", default=True),
            ModelSpec(name="vectors", task=Task.EMBEDDING, default=True),
        ]
    )
    assert catalog.default(Task.CLASSIFICATION) == "second"
    assert catalog.default(Task.EMBEDDING) == "vectors"


def test_two_defaults_of_one_task_are_refused_by_name(tmp_path: Path) -> None:
    text = ENTRY + "default = true\n" + ENTRY.replace('"a"', '"b"') + "default = true\n"
    assert "two default models for text-classification: a, b" in refusal(tmp_path, text)


def test_a_name_can_be_taken_once(tmp_path: Path) -> None:
    assert "two models have the same name" in refusal(tmp_path, ENTRY + ENTRY)


def test_texts_of_a_token_classifier_may_be_longer_unless_its_entry_says_otherwise(
    tmp_path: Path,
) -> None:
    task = 'task = "token-classification"\n'
    limits = ("", "limits = { max_tokens = 9 }\n", "limits = { max_chars = 2000 }\n")
    found = [read(tmp_path, ENTRY + task + line).specs[0] for line in limits]
    assert [spec.limits.max_chars for spec in found] == [20_000, 20_000, 2_000]
    assert found[1].limits.max_tokens == 9
    for spec in found:
        write_catalog([spec], tmp_path / "written.toml")
        assert read_catalog(tmp_path / "written.toml").specs == (spec,)


def test_pins_name_files_or_stand_for_a_single_file(tmp_path: Path) -> None:
    single = f'{ENTRY}sha256 = "{DIGEST}"\n'
    assert dict(read(tmp_path, single).specs[0].pins) == {"": DIGEST}
    files = f'{ENTRY}[models.sha256]\n"model.safetensors" = "{DIGEST}"\n'
    assert dict(read(tmp_path, files).specs[0].pins) == {"model.safetensors": DIGEST}


@pytest.mark.parametrize(
    ("pooling", "expected"), [('"cls"', ("cls",)), ('["cls", "max"]', ("cls", "max")), ("[]", ())]
)
def test_a_pooling_is_one_or_several(
    tmp_path: Path, pooling: str, expected: tuple[str, ...]
) -> None:
    (spec,) = read(tmp_path, f'{ENTRY}task = "embedding"\npooling = {pooling}\n').specs
    assert spec.pooling == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('task = "Translation"', "model 'a': task: String should match pattern"),
        ('colour = "red"', "model 'a': colour: Extra inputs are not permitted"),
        ("limits = { max_tokens = 0 }", "model 'a': limits.max_tokens: Input should be greater"),
        ("limits = { max_batch = 0 }", "model 'a': limits.max_batch: Input should be greater"),
        ("limits = { max_batch_tokens = 0 }", "model 'a': limits.max_batch_tokens: Input should"),
        ("limits = { max_words = 9 }", "model 'a': limits.max_words: Extra inputs"),
        ('labels = ["x", "x"]', "model 'a': labels: Value error, labels must differ"),
        ("labels = [1, 2]", "model 'a': labels.0: Input should be a valid string"),
        ('required = "perhaps"', "model 'a': required: Input should be a valid boolean"),
        ('sha256 = "abc"', "model 'a': sha256"),
        (f'sha256 = "{DIGEST.upper()}"', "model 'a': sha256"),
        ('sha256 = { "model.safetensors" = "abc" }', "model 'a': sha256"),
        ("engine = 3", "model 'a': engine: Input should be a valid string"),
        ('pooling = "cls"', "model 'a': entry: Value error, pooling is for models of the task emb"),
        ("prompts = {}", "model 'a': entry: Value error, prompts is for models of the task embed"),
        (
            'task = "embedding"\npooling = "attention"',
            "model 'a': pooling.0: Input should be 'cls'",
        ),
        ('task = "embedding"\ndimensions = 0', "model 'a': dimensions: Input should be greater"),
    ],
)
def test_a_wrong_entry_is_refused_by_model_and_field(
    tmp_path: Path, line: str, message: str
) -> None:
    assert message in refusal(tmp_path, f"{ENTRY}{line}\n")


def test_every_wrong_field_of_an_entry_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, ENTRY + "engine = 3\ncolour = 4\n")
    assert "engine: " in message
    assert "colour: " in message


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "_a", "a b", "a/b", "ä", "a\\n", "a" * 65, "a\u0000"]
)
def test_a_name_that_has_no_place_in_an_address_is_refused(tmp_path: Path, name: str) -> None:
    quoted = name.replace("\u0000", "\\u0000")
    text = f'[[models]]\nname = "{quoted}"\nsource = "file:a"\n'
    assert "name: String should match pattern" in refusal(tmp_path, text)


def test_an_entry_without_a_name_is_told_by_its_number(tmp_path: Path) -> None:
    message = refusal(tmp_path, ENTRY + '[[models]]\nsource = "file:b"\n')
    assert "model 2: name: Field required" in message


def test_an_entry_that_is_no_table_is_told_by_its_number(tmp_path: Path) -> None:
    message = refusal(tmp_path, 'models = [{ name = "a" }, "b"]\n')
    assert "model 2: entry: Input should be a valid dictionary" in message


@pytest.mark.parametrize(
    "text",
    [
        f"title = 'mine'\n{ENTRY}",
        f"{ENTRY}[settings]\nport = 80\n",
        '[models]\nname = "a"\n',
        'models = "a"\n',
        '[[model]]\nname = "a"\n',
    ],
)
def test_anything_but_models_tables_is_refused(tmp_path: Path, text: str) -> None:
    assert "holds tables [[models]] and nothing else" in refusal(tmp_path, text)


@pytest.mark.parametrize("text", ["[[models]\n", "name = \n", 'name = "a"\nname = "a"\n'])
def test_bad_toml_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text)
    assert "not valid TOML" in message
    assert "line" in message


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_bytes('[[models]]\nname = "é"\n'.encode("latin-1"))
    with pytest.raises(CatalogError, match="not valid TOML: 'utf-8' codec"):
        read_catalog(tmp_path / "models.toml")


def test_a_missing_file_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"absent\.toml: can't be read: No such file"):
        read_catalog(tmp_path / "absent.toml")
    with pytest.raises(CatalogError, match="can't be read: Is a directory"):
        read_catalog(tmp_path)


def test_a_task_that_nobody_has_is_refused_by_name(tmp_path: Path) -> None:
    catalog = read(tmp_path, ENTRY.replace("\n", '\ntask = "translation"\n', 1))
    catalog.check_tasks(["translation"])
    with pytest.raises(CatalogError, match="model 'a': task: there is no 'translation'; there are"):
        catalog.check_tasks(["embedding"])


@pytest.mark.parametrize(
    ("hub", "task"),
    [
        ("text-classification", "text-classification"),
        ("feature-extraction", "embedding"),
        ("sentence-similarity", "embedding"),
        ("text-generation", "chat"),
        ("embedding", "embedding"),
        ("chat", "chat"),
    ],
)
def test_a_task_may_be_called_as_the_hub_calls_it(hub: str, task: str) -> None:
    assert ModelSpec.model_validate({"name": "a", "source": "file:a", "task": hub}).task == task
