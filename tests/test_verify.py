"""Which files of a model may be loaded: never a pickle, never other bytes than the pinned ones."""

import hashlib
from pathlib import Path

import pytest

from app.errors import SourceError, UnsafeModelError
from app.models.files import EXTERNAL_WEIGHTS, WEIGHTS
from app.models.verify import PICKLES, choose_files, verify

SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
PICKLE = b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}."
GGUF = b"GGUF" + bytes(20)
ONNX = b"\x08\x0a" + bytes(20)
TORCH_ZIP = b"PK\x03\x04\x00\x00\x08\x08\x00\x00\x00\x00"
DIGEST = hashlib.sha256(SAFETENSORS).hexdigest()
OTHER_DIGEST = hashlib.sha256(b"").hexdigest()


def folder_of(tmp_path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def test_safetensors_and_descriptions_are_accepted(tmp_path: Path) -> None:
    verify(folder_of(tmp_path, {"model.safetensors": SAFETENSORS, "config.json": b"{}"}), {})


@pytest.mark.parametrize("name", ["model.gguf", "model.onnx", "model.safetensors"])
def test_a_single_file_of_weights_is_accepted(tmp_path: Path, name: str) -> None:
    content = {".gguf": GGUF, ".onnx": ONNX, ".safetensors": SAFETENSORS}[Path(name).suffix]
    (tmp_path / name).write_bytes(content)
    verify(tmp_path / name, {})


@pytest.mark.parametrize("suffix", PICKLES)
def test_a_pickle_alone_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"weights{suffix}").write_bytes(PICKLE)
    (tmp_path / "config.json").write_bytes(b"{}")
    with pytest.raises(UnsafeModelError, match=rf"weights\{suffix} is a pickle.*safetensors"):
        verify(tmp_path, {})
    with pytest.raises(UnsafeModelError, match=rf"weights\{suffix} is a pickle"):
        verify(tmp_path / f"weights{suffix}", {})


def test_a_pickle_in_a_subfolder_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError, match=r"0/model\.bin is a pickle"):
        verify(folder_of(tmp_path, {"0/model.bin": PICKLE}), {})


def test_safetensors_beside_a_pickle_are_accepted(tmp_path: Path) -> None:
    verify(folder_of(tmp_path, {"model.safetensors": SAFETENSORS, "pytorch_model.bin": PICKLE}), {})


@pytest.mark.parametrize("content", [PICKLE, TORCH_ZIP, b"\x02" + bytes(8) + b"{}"])
def test_what_only_calls_itself_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = folder_of(tmp_path, {"good.safetensors": SAFETENSORS, "model.safetensors": content})
    with pytest.raises(UnsafeModelError, match=r"model\.safetensors: is not in the safetensors"):
        verify(folder, {})
    with pytest.raises(UnsafeModelError, match=r"model\.safetensors: is not in the safetensors"):
        verify(folder / "model.safetensors", {})


def test_a_header_length_with_any_bytes_in_it_is_a_header(tmp_path: Path) -> None:
    # The length may hold a newline, which a careless pattern would stop at.
    verify(folder_of(tmp_path, {"model.safetensors": b"\n\r" + bytes(6) + b"{}".ljust(0x0D0A)}), {})


def test_a_digest_as_pinned_is_accepted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"model.safetensors": SAFETENSORS, "sub/vocab.txt": b""})
    verify(folder, {"model.safetensors": DIGEST, "sub/vocab.txt": OTHER_DIGEST})


def test_another_digest_is_refused_with_the_file_and_both_digests(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"model.safetensors": SAFETENSORS, "vocab.txt": b""})
    with pytest.raises(UnsafeModelError) as refused:
        verify(folder, {"vocab.txt": OTHER_DIGEST, "model.safetensors": OTHER_DIGEST})
    assert str(folder / "model.safetensors") in str(refused.value)
    assert DIGEST in str(refused.value)
    assert OTHER_DIGEST in str(refused.value)


def test_a_pinned_file_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"model.safetensors": SAFETENSORS})
    with pytest.raises(SourceError, match=r"tokenizer\.json: pinned in the catalogue"):
        verify(folder, {"tokenizer.json": DIGEST})


def test_one_digest_cannot_stand_for_a_folder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"model.safetensors": SAFETENSORS})
    with pytest.raises(SourceError, match="there is no such file"):
        verify(folder, {"": DIGEST})


def test_a_single_file_is_pinned_by_its_digest_or_by_its_name(tmp_path: Path) -> None:
    file = folder_of(tmp_path, {"model.safetensors": SAFETENSORS}) / "model.safetensors"
    verify(file, {"": DIGEST})
    verify(file, {"model.safetensors": DIGEST})
    for name in ("", "model.safetensors"):
        with pytest.raises(UnsafeModelError, match="the catalogue says"):
            verify(file, {name: OTHER_DIGEST})
    with pytest.raises(SourceError, match=r"other\.safetensors: pinned"):
        verify(file, {"other.safetensors": DIGEST})


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no weights there"):
        verify(tmp_path, {})
    with pytest.raises(SourceError, match="no weights there"):
        verify(folder_of(tmp_path, {"config.json": b"{}"}), {})


def test_of_all_files_only_weights_and_descriptions_are_chosen() -> None:
    weights = [f"model{suffix}" for suffix in (*WEIGHTS, *EXTERNAL_WEIGHTS)]
    needed = [*weights, "config.json", "a/vocab.txt", "x.model"]
    others = ["README.md", "modeling.py", "pytorch_model.bin", "model.h5", ".gitattributes"]
    assert choose_files([*others, *needed], "here") == needed


def test_of_several_pickles_the_first_by_name_is_told() -> None:
    with pytest.raises(UnsafeModelError, match=r"^here: a\.pt is a pickle"):
        choose_files(["b.bin", "a.pt", "config.json"], "here")
