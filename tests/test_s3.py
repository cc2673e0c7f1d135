"""`s3:` sources, against moto over HTTP: what is fetched, what is cached, what is said."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from boto3.session import Session
from moto.server import ThreadedMotoServer

from app.errors import SourceError, UnsafeModelError
from app.models import s3
from app.models.sources import Sources

SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
MODEL = {
    "model.safetensors": SAFETENSORS,
    "config.json": b"{}",
    "1_Pooling/config.json": b"{}",
    "tokenizer/deep/vocab.txt": b"a\nb\n",
}
EXTRAS = {"README.md": b"# A model", "pytorch_model.bin": b"\x80\x04.", "modeling.py": b"0"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module", autouse=True)
def environment(endpoint: str) -> Iterator[None]:
    """Point boto3 to moto, and away from this user's own configuration."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield


@pytest.fixture(scope="module")
def owner(environment: None) -> Any:
    """Return what puts objects there; made once, because boto3 takes its time for it."""
    return Session().resource("s3")


@pytest.fixture
def bucket(owner: Any) -> Iterator[Any]:
    """Yield an empty bucket, the only one of the server."""
    made = owner.create_bucket(Bucket="models")
    yield made
    made.objects.delete()
    made.delete()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def put(bucket: Any, prefix: str, files: dict[str, bytes], **options: str) -> None:
    for name, content in files.items():
        bucket.put_object(Key=prefix + name, Body=content, **options)


def content_of(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_weights_and_descriptions_below_the_prefix_are_fetched_and_nothing_else(
    bucket: Any, cache: Path
) -> None:
    put(bucket, "nlp/a/", MODEL | EXTRAS)
    put(bucket, "nlp/ab/", {"other.safetensors": SAFETENSORS})
    put(bucket, "nlp/", {"config.json": b"not mine"})
    folder = s3.fetch("//models/nlp/a", cache=cache)
    assert content_of(folder) == MODEL
    assert folder.is_relative_to(cache)


def test_a_prefix_means_the_same_with_a_slash_at_its_end(bucket: Any, cache: Path) -> None:
    put(bucket, "a/", MODEL)
    assert s3.fetch("//models/a", cache=cache) == s3.fetch("//models/a/", cache=cache)


@pytest.mark.parametrize("name", ["//models", "//models/"])
def test_a_whole_bucket_may_be_one_model(bucket: Any, cache: Path, name: str) -> None:
    put(bucket, "", MODEL)
    assert content_of(s3.fetch(name, cache=cache)) == MODEL


def test_a_console_folder_is_no_file(bucket: Any, cache: Path) -> None:
    # The web console makes an empty object of this name for each folder.
    put(bucket, "a/", {"": b"", "1_Pooling/": b""})
    put(bucket, "a/", MODEL)
    assert content_of(s3.fetch("//models/a", cache=cache)) == MODEL


def test_unchanged_objects_are_not_fetched_twice(bucket: Any, cache: Path) -> None:
    put(bucket, "a/", MODEL)
    folder = s3.fetch("//models/a", cache=cache)
    (folder / "config.json").write_bytes(b"as left here")
    put(bucket, "a/", EXTRAS)
    assert s3.fetch("//models/a", cache=cache) == folder
    assert (folder / "config.json").read_bytes() == b"as left here"


def test_a_changed_object_gives_another_folder_and_leaves_the_old_one(
    bucket: Any, cache: Path
) -> None:
    put(bucket, "a/", MODEL)
    old = s3.fetch("//models/a", cache=cache)
    put(bucket, "a/", {"config.json": b'{"new": 1}'})
    new = s3.fetch("//models/a", cache=cache)
    assert content_of(new) == MODEL | {"config.json": b'{"new": 1}'}
    assert content_of(old) == MODEL


def test_a_bucket_that_is_missing_is_named(cache: Path) -> None:
    with pytest.raises(SourceError, match=r"s3://absent/a/: .*NoSuchBucket"):
        s3.fetch("//absent/a", cache=cache)


@pytest.mark.parametrize("name", ["", "//", "///a", "//no bucket/a"])
def test_a_bucket_name_that_is_none_is_refused(cache: Path, name: str) -> None:
    with pytest.raises(SourceError, match="s3://"):
        s3.fetch(name, cache=cache)


def test_a_prefix_with_nothing_below_it_is_refused(bucket: Any, cache: Path) -> None:
    put(bucket, "ab/", MODEL)
    with pytest.raises(SourceError, match="s3://models/a/: no weights there"):
        s3.fetch("//models/a", cache=cache)


def test_a_pickle_alone_is_refused_before_anything_is_fetched(bucket: Any, cache: Path) -> None:
    put(bucket, "a/", EXTRAS | {"config.json": b"{}"})
    with pytest.raises(UnsafeModelError, match=r"s3://models/a/: pytorch_model\.bin is a pickle"):
        s3.fetch("//models/a", cache=cache)
    assert not cache.exists()


@pytest.mark.parametrize("key", ["../evil.json", "b/../../evil.json", "/etc/evil.json"])
def test_a_key_that_leaves_its_folder_is_refused(bucket: Any, cache: Path, key: str) -> None:
    put(bucket, "a/", MODEL)
    put(bucket, "a/", {key: b"{}"})
    with pytest.raises(UnsafeModelError, match=f"s3://models/a/{key}: the key leaves its folder"):
        s3.fetch("//models/a", cache=cache)
    assert not cache.exists()


def test_missing_credentials_are_told(
    bucket: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, "a/", MODEL)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceError, match="s3://models/a/: Unable to locate credentials"):
        s3.fetch("//models/a", cache=cache)


def test_an_endpoint_that_is_gone_is_told_in_bounded_time(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(SourceError, match=r"s3://models/a/: Could not connect.*127\.0\.0\.1"):
            s3.fetch("//models/a", cache=cache)


def test_a_download_that_fails_in_the_middle_leaves_nothing_behind(
    bucket: Any, cache: Path
) -> None:
    put(bucket, "a/", MODEL)
    # Listed as the others are, but can't be read.
    put(bucket, "a/", {"tokenizer.json": b"{}"}, StorageClass="GLACIER")
    with pytest.raises(SourceError, match=r"s3://models/a/: .*InvalidObjectState"):
        s3.fetch("//models/a", cache=cache)
    assert content_of(cache) == {}
    put(bucket, "a/", {"tokenizer.json": b"{}"})
    assert content_of(s3.fetch("//models/a", cache=cache)) == MODEL | {"tokenizer.json": b"{}"}


def test_a_cache_that_cannot_be_written_is_told(bucket: Any, cache: Path) -> None:
    put(bucket, "a/", MODEL)
    cache.write_text("a file where a folder has to be")
    with pytest.raises(SourceError, match=r"s3://models/a/: .*Not a directory"):
        s3.fetch("//models/a", cache=cache)


def test_two_fetches_of_one_model_at_the_same_time_give_one_folder(
    bucket: Any, cache: Path
) -> None:
    put(bucket, "a/", MODEL)
    start = Barrier(4, timeout=30)

    def fetch(_: int) -> Path:
        start.wait()
        return s3.fetch("//models/a", cache=cache)

    with ThreadPoolExecutor(4) as threads:
        folders = list(threads.map(fetch, range(4)))
    assert len(set(folders)) == 1
    assert content_of(folders[0]) == MODEL
    assert [entry.name for entry in folders[0].parent.iterdir()] == [folders[0].name]


def test_the_slower_of_two_fills_takes_the_folder_of_the_quicker(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "edition"
    both_began = Barrier(2, timeout=30)

    def fill(into: Path) -> None:
        both_began.wait()
        (into / "config.json").write_bytes(b"{}")

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: s3._fill_atomically(folder, fill), range(2)))
    assert content_of(tmp_path) == {"made/edition/config.json": b"{}"}


def test_a_folder_that_cannot_be_put_in_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "edition").write_text("a file where a folder has to be")
    with pytest.raises(OSError, match="Not a directory"):
        s3._fill_atomically(tmp_path / "edition", lambda _: None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["edition"]


def test_the_version_of_a_model_tells_its_objects(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "a/", MODEL)
    sources = Sources(tmp_path / "cache")
    found = sources.resolve("s3://models/a", base=tmp_path, pins={})
    assert found.version == found.path.name
    put(bucket, "a/", {"config.json": b'{"new": 1}'})
    assert sources.resolve("s3://models/a", base=tmp_path, pins={}).version != found.version


def test_what_was_fetched_is_verified(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "a/", MODEL | {"model.safetensors": b"\x80\x04 a pickle."})
    sources = Sources(tmp_path / "cache")
    with pytest.raises(UnsafeModelError, match="is not in the safetensors format"):
        sources.resolve("s3://models/a", base=tmp_path, pins={})
    put(bucket, "a/", MODEL)
    with pytest.raises(UnsafeModelError, match="sha256"):
        sources.resolve("s3://models/a", base=tmp_path, pins={"config.json": "0" * 64})
