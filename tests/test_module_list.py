"""modules.json: modules that are done, inside the model's folder, or a refusal by field."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.engines.folder.module_list import Listed, module_files, read_list
from app.errors import EngineError

FIRST = ("Transformer", "Pooling")


def write(folder: Path, *kinds: str, **fields: Any) -> Path:
    """Write modules; `fields` are the last one's."""
    modules: list[dict[str, Any]] = [
        {"path": f"{place}_{kind}" if place else "", "type": f"sentence_transformers.models.{kind}"}
        for place, kind in enumerate(kinds)
    ]
    modules[-1] |= fields
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    return folder


def test_modules_are_listed_in_their_order_and_with_their_files(tmp_path: Path) -> None:
    kinds = (*FIRST, "Dense", "LayerNorm", "Normalize")
    folder = write(tmp_path, *kinds, kwargs=["task"], idx=4, name="4")
    for name in ("1_Pooling/config.json", "2_Dense/model.safetensors", "2_Dense/README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    places = ["", "1_Pooling", "2_Dense", "3_LayerNorm", "4_Normalize"]
    expected = [Listed(kind=kind, path=path) for kind, path in zip(kinds, places, strict=True)]
    assert read_list(folder) == expected
    files = [folder / "1_Pooling" / "config.json", folder / "2_Dense" / "model.safetensors"]
    assert module_files(folder) == files


def test_a_folder_without_modules_has_none(tmp_path: Path) -> None:
    assert (list(read_list(tmp_path)), module_files(tmp_path)) == ([], [])


OUTSIDE: list[Any] = [
    "../other/2_Dense",
    "/other/2_Dense",
    "a/../../b",
    "c:\\b",
    "..\\b",
    None,
    1,
    "a\0b",
    [],
]


@pytest.mark.parametrize("path", OUTSIDE, ids=repr)
def test_a_module_outside_of_the_folder_is_refused(tmp_path: Path, path: Any) -> None:
    for kinds in (FIRST, (*FIRST, "Dense")):
        folder = write(tmp_path, *kinds, path=path)
        for read in (read_list, module_files):
            with pytest.raises(EngineError) as refused:
                read(folder)
            assert f"modules.json: path: {path!r} is not done here; name a" in str(refused.value)


@pytest.mark.parametrize(
    ("kinds", "fields", "message"),
    [
        ((*FIRST, "Pooling"), {}, "type: a second Pooling is not done here; behind the Pooling D"),
        ((*FIRST, "Transformer"), {}, "type: a second Transformer is not done here"),
        ((*FIRST, "Dense", "Pooling"), {}, "type: a second Pooling is not done here"),
        (("Pooling",), {}, "begins with Pooling; an embedder here begins with Transformer, Pool"),
        (FIRST, {"type": {"a": 1}}, "type: \"{'a': 1}\" is not done here"),
        (FIRST, {"mystery": 1}, "mystery: 1 is not done here; remove it"),
        (FIRST, {"path": ""}, "path: '' is not done here; name the folder of the Pooling, inside"),
        (FIRST, {"path": "."}, "path: '.' is not done here; name the folder of the Pooling,"),
    ],
)
def test_what_is_not_done_is_refused_by_field(
    tmp_path: Path, kinds: tuple[str, ...], fields: dict[str, Any], message: str
) -> None:
    folder = write(tmp_path, *kinds, **fields)
    with pytest.raises(EngineError) as refused:
        read_list(folder)
    assert f"{folder}/modules.json: {message}" in str(refused.value)


def test_two_modules_with_one_name_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, *FIRST)
    modules = json.loads((folder / "modules.json").read_text())
    named = [module | {"name": "a"} for module in modules]
    (folder / "modules.json").write_text(json.dumps(named), encoding="utf-8")
    with pytest.raises(EngineError, match=r"name: \['a', 'a'\] has one twice; number them"):
        read_list(folder)
