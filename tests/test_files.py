"""Files of a model that can't be read: refused by name, and never waited for."""

import hashlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.errors import SourceError, StartupError, UnsafeModelError
from app.models.files import check_format, find_files
from app.models.sources import Sources
from app.models.verify import verify

HEADER = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
SAFETENSORS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(8)
# What is opened by one library or another, in any folder of a model.
READ = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "vocab.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "1_Pooling/config.json",
    "adapter_config.json",
    "adapter_model.safetensors",
)


def model_at(folder: Path) -> Path:
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling" / "config.json").write_bytes(b"{}")
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(SAFETENSORS)
    return folder


def socket_at(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has a hundred bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "FIFO": (os.mkfifo, "is a FIFO, not a file"),
    "socket": (socket_at, "is a socket, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
    "link to nothing": (
        lambda path: path.symlink_to("nowhere"),
        "is a link to nowhere, where nothing is",
    ),
    "link to itself": (lambda path: path.symlink_to(path.name), "where nothing is"),
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_by_name(tmp_path: Path, kind: str, name: str) -> None:
    make, said = NO_FILES[kind]
    place = model_at(tmp_path / "model") / name
    place.unlink(missing_ok=True)
    make(place)
    line = f"{place}: .*{said}: put the file in its place, or remove it$"
    with pytest.raises(SourceError, match=line):
        verify(tmp_path / "model", {})
    if name.endswith(".safetensors"):
        with pytest.raises(SourceError, match=line):
            verify(place, {})


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_folder_with_the_name_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    place = model_at(tmp_path / "model") / name
    place.unlink(missing_ok=True)
    place.mkdir()
    with pytest.raises(SourceError, match=rf"{name}: is a folder, not a file: put the file"):
        verify(tmp_path / "model", {})


def test_links_to_files_and_folders_are_followed_once(tmp_path: Path) -> None:
    model = model_at(tmp_path / "model")
    (model / "vocab.txt").symlink_to(model / "config.json")
    (model / "around").symlink_to(model)
    (model / "2_Dense").symlink_to(model_at(tmp_path / "other"))
    verify(model, {})
    os.mkfifo(tmp_path / "other" / "tokenizer.json")
    with pytest.raises(SourceError, match=r"2_Dense/tokenizer\.json: is a FIFO"):
        verify(model, {})


@pytest.mark.parametrize(
    ("name", "content", "kind", "said"),
    [
        ("config.json", b"", SourceError, "can't be read as JSON (Expecting value"),
        ("config.json", b'{"a": ', SourceError, "can't be read as JSON"),
        ("config.json", b"\x00\xff", SourceError, "can't be read as JSON (not UTF-8)"),
        ("config.json", b"[" * 100_000, SourceError, "can't be read as JSON"),
        ("config.json", b"[1]", SourceError, "is not an object in JSON"),
        ("tokenizer.json", b"1", SourceError, "is not an object in JSON"),
        ("sentence_bert_config.json", b"[]", SourceError, "is not an object in JSON"),
        ("modules.json", b"{}", SourceError, "is not a list of objects in JSON"),
        ("modules.json", b"[1]", SourceError, "is not a list of objects in JSON"),
        ("model.safetensors", SAFETENSORS[:-1], SourceError, "is cut off, 1 bytes are missing"),
        ("model.safetensors", SAFETENSORS[:20], SourceError, "is cut off in its header"),
        ("model.safetensors", b"", SourceError, "is cut off, it has 0 bytes: get the file again"),
        ("model.safetensors", SAFETENSORS[:5], SourceError, "is cut off, it has 5 bytes"),
        (
            "model.safetensors",
            (3).to_bytes(8, "little") + b'{"a',
            SourceError,
            "can't be read as JSON",
        ),
        (
            "model.safetensors",
            (8).to_bytes(8, "little") + b'{"a":{}}',
            SourceError,
            "has a tensor without its place",
        ),
        ("model.safetensors", b"GGUF" + bytes(50), UnsafeModelError, "not in the safetensors"),
        ("model.gguf", b"", UnsafeModelError, "is not in the GGUF format"),
        ("model.gguf", SAFETENSORS, UnsafeModelError, "is not in the GGUF format"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes, kind: type[StartupError], said: str
) -> None:
    place = model_at(tmp_path / "model") / name
    place.write_bytes(content)
    with pytest.raises(kind, match=re.escape(said)) as refused:
        verify(tmp_path / "model", {})
    assert str(refused.value).startswith(f"{place}: ")
    assert "\n" not in refused.value.line


def test_json_of_any_size_is_not_read_into_memory(tmp_path: Path) -> None:
    place = model_at(tmp_path / "model") / "config.json"
    os.truncate(place, 50_000_000_000)  # sparse
    with pytest.raises(SourceError, match=r"config\.json: is larger than 100000000 bytes: get"):
        verify(tmp_path / "model", {})


def test_a_link_beside_its_folder_is_a_folder_of_its_own(tmp_path: Path) -> None:
    model = model_at(tmp_path / "model")
    (model / "second").symlink_to("1_Pooling")
    assert {"1_Pooling/config.json", "second/config.json"} <= find_files(model).keys()
    pin = hashlib.sha256(b"{}").hexdigest()
    verify(model, {"1_Pooling/config.json": pin, "second/config.json": pin})


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that every user can look into, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def without_rights(path: Path) -> Iterator[None]:
    """Take the rights to a path away, and root's power to do without them."""
    is_root = os.geteuid() == 0
    path.chmod(0)
    if is_root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        path.chmod(0o700)


@pytest.mark.parametrize("name", ["1_Pooling", "config.json", ""])
def test_what_there_are_no_rights_to_is_refused_by_name(open_folder: Path, name: str) -> None:
    model = model_at(open_folder / "model")
    line = f"{model / name}: can't be read: Permission denied; see its rights"
    sources = Sources(open_folder / "cache")
    with without_rights(model / name):
        for pins in ({}, {"config.json": "0" * 64}):
            with pytest.raises(SourceError) as refused:
                verify(model, pins)
            assert str(refused.value) == line
        with pytest.raises(SourceError) as refused:
            sources.resolve("file:model", base=open_folder, pins={})
        assert str(refused.value) == line


def test_a_source_in_a_folder_without_rights_is_refused_by_name(open_folder: Path) -> None:
    model_at(open_folder / "models" / "model")
    sources = Sources(open_folder / "cache")
    with (
        without_rights(open_folder / "models"),
        pytest.raises(SourceError, match=r"models/model: can't be read: Permission denied"),
    ):
        sources.resolve("file:models/model", base=open_folder, pins={})


def test_files_that_nobody_opens_may_hold_anything(tmp_path: Path) -> None:
    model = model_at(tmp_path / "model")
    (model / "data_config.json").write_bytes(b"nothing")
    (model / "README.md").write_bytes(b"\xff")
    verify(model, {})


def test_a_file_that_cant_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    place = tmp_path / "config.json"
    place.mkdir()  # for root every file has the rights
    with pytest.raises(SourceError, match=r"config\.json: can't be read: Is a directory; see its"):
        check_format(place)


def test_a_source_that_is_gone_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="model: can't be looked at: No such file"):
        verify(tmp_path / "model", {})
