"""`hf:` sources, against a hub on loopback: what is fetched, what is cached, what is said."""

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import HubServer
from huggingface_hub import close_session, constants

from app.errors import SourceError, UnsafeModelError
from app.models import hub
from app.models.sources import Sources

REPO = "org/name"
SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
MODEL = {
    "model.safetensors": SAFETENSORS,
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "1_Pooling/config.json": b'{"b": 1}',
}
# As good as every repository on the hub has some of these.
EXTRAS = {
    ".gitattributes": b"*.safetensors filter=lfs",
    "README.md": b"# A model",
    "pytorch_model.bin": b"\x80\x04.",
    "modeling.py": b"raise SystemExit",
}
# One that huggingface_hub does not try again after, as it does for half a minute after a 500.
BROKEN = HTTPStatus.INSUFFICIENT_STORAGE


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep this user's own cache, token, proxies and offline mode out of the tests."""
    folder = tmp_path / "user" / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "user" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", value=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()
    yield folder
    close_session()


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fetch(server: HubServer, cache: Path, revision: str = "main", repo: str = REPO) -> Path:
    return hub.fetch(f"{repo}@{revision}", cache=cache, endpoint=server.url)


def content_of(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_weights_and_descriptions_are_fetched_and_nothing_else(
    server: HubServer, cache: Path
) -> None:
    commit = server.publish(REPO, MODEL | EXTRAS)
    folder = fetch(server, cache)
    assert content_of(folder) == MODEL
    assert folder.name == commit
    assert folder.is_relative_to(cache)
    assert server.fetched() == sorted(MODEL)


def test_a_commit_in_the_cache_is_never_asked_for_again(server: HubServer, cache: Path) -> None:
    commit = server.publish(REPO, MODEL | EXTRAS)
    folder = fetch(server, cache, commit)
    server.requests.clear()
    assert fetch(server, cache, commit) == folder
    assert server.requests == []
    server.stop()
    assert fetch(server, cache, commit) == folder


def test_a_branch_is_asked_for_again_but_the_same_files_are_not_sent_twice(
    server: HubServer, cache: Path
) -> None:
    server.publish(REPO, MODEL | EXTRAS)
    folder = fetch(server, cache)
    server.requests.clear()
    assert fetch(server, cache) == folder
    assert f"GET /api/models/{REPO}/revision/main" in server.requests
    assert server.fetched() == []


def test_a_branch_that_moved_gives_the_new_commit(server: HubServer, cache: Path) -> None:
    server.publish(REPO, MODEL)
    old = fetch(server, cache)
    commit = server.publish(REPO, MODEL | {"config.json": b'{"new": 1}'})
    new = fetch(server, cache)
    assert new.name == commit
    assert (new / "config.json").read_bytes() == b'{"new": 1}'
    assert content_of(old) == MODEL


def test_a_branch_may_have_a_slash_in_its_name(server: HubServer, cache: Path) -> None:
    commit = server.publish(REPO, MODEL, branch="refs/pr/1")
    assert fetch(server, cache, "refs/pr/1").name == commit


def test_a_branch_is_served_from_the_cache_when_the_hub_is_gone(
    server: HubServer, cache: Path
) -> None:
    server.publish(REPO, MODEL | EXTRAS)
    folder = fetch(server, cache)
    server.stop()
    assert fetch(server, cache) == folder


def test_a_branch_is_served_from_the_cache_when_the_hub_is_down(
    server: HubServer, cache: Path
) -> None:
    server.publish(REPO, MODEL | EXTRAS)
    folder = fetch(server, cache)
    server.refused["/api/"] = HTTPStatus.SERVICE_UNAVAILABLE
    assert fetch(server, cache) == folder


def test_a_branch_is_served_from_the_cache_in_offline_mode(
    server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.publish(REPO, MODEL | EXTRAS)
    folder = fetch(server, cache)
    server.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", value=True)
    assert fetch(server, cache) == folder
    assert server.requests == []


@pytest.mark.parametrize("revision", ["main", "0" * 40])
def test_a_model_in_no_cache_says_that_the_hub_cannot_be_reached(
    server: HubServer, cache: Path, revision: str
) -> None:
    server.stop()
    with pytest.raises(SourceError, match=r"hf:org/name@.*can't be reached \(ConnectError\)"):
        fetch(server, cache, revision)


def test_a_hub_that_is_down_is_told_apart_from_a_wrong_name(server: HubServer, cache: Path) -> None:
    server.refused["/api/"] = HTTPStatus.BAD_GATEWAY
    with pytest.raises(SourceError, match=r"hf:org/name@main: the hub is down \(502\)"):
        fetch(server, cache)


@pytest.mark.parametrize("part", ["/tree/", "/resolve/"])
def test_a_hub_that_goes_down_between_two_answers_is_told(
    server: HubServer, cache: Path, part: str
) -> None:
    server.publish(REPO, MODEL)
    server.refused[part] = BROKEN
    with pytest.raises(SourceError, match="hf:org/name@main: the hub"):
        fetch(server, cache)


def test_a_download_that_broke_off_is_completed_the_next_time(
    server: HubServer, cache: Path
) -> None:
    commit = server.publish(REPO, MODEL | EXTRAS)
    server.refused["/tokenizer.json"] = BROKEN
    with pytest.raises(SourceError, match="the hub"):
        fetch(server, cache, commit)
    server.refused.clear()
    assert content_of(fetch(server, cache, commit)) == MODEL


def test_a_snapshot_that_lacks_a_file_is_not_taken_for_a_whole_one(
    server: HubServer, cache: Path
) -> None:
    commit = server.publish(REPO, MODEL | EXTRAS)
    (fetch(server, cache, commit) / "config.json").unlink()
    assert content_of(fetch(server, cache, commit)) == MODEL


@pytest.mark.parametrize("revision", ["main", "no-such-branch", "f" * 40])
def test_a_name_that_the_hub_does_not_know_is_told_with_the_status(
    server: HubServer, cache: Path, revision: str
) -> None:
    server.publish("org/other", MODEL)
    with pytest.raises(SourceError, match="the hub answered 404; is the name right"):
        fetch(server, cache, revision)


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
def test_a_gated_model_points_to_the_token(
    server: HubServer, cache: Path, status: HTTPStatus
) -> None:
    server.publish(REPO, MODEL)
    server.refused[f"/{REPO}"] = status
    with pytest.raises(SourceError, match=f"the hub answered {status}; .* HF_TOKEN"):
        fetch(server, cache)


def test_a_model_that_became_gated_is_not_served_from_the_cache(
    server: HubServer, cache: Path
) -> None:
    server.publish(REPO, MODEL)
    fetch(server, cache)
    server.refused["/api/"] = HTTPStatus.UNAUTHORIZED
    with pytest.raises(SourceError, match="answered 401"):
        fetch(server, cache)


def test_a_repository_with_only_a_pickle_is_refused_before_anything_is_fetched(
    server: HubServer, cache: Path
) -> None:
    server.publish(REPO, {"pytorch_model.bin": b"\x80\x04.", "config.json": b"{}"})
    with pytest.raises(UnsafeModelError, match=r"hf:org/name@main: pytorch_model\.bin is a pickle"):
        fetch(server, cache)
    assert server.fetched() == []
    assert not cache.exists()


def test_a_repository_without_weights_is_refused(server: HubServer, cache: Path) -> None:
    server.publish(REPO, {"README.md": b"soon"})
    with pytest.raises(SourceError, match="hf:org/name@main: no weights there"):
        fetch(server, cache)


def test_a_revision_has_to_be_named(server: HubServer, cache: Path) -> None:
    server.publish(REPO, MODEL)
    for name in (REPO, f"{REPO}@"):
        with pytest.raises(SourceError, match="name a revision: hf:org/name@"):
            hub.fetch(name, cache=cache, endpoint=server.url)
    assert server.requests == []


@pytest.mark.parametrize("repo", ["", "a/b/c", "-org/name", "org/na me", "org/..", "org/name.git"])
def test_a_name_that_is_none_is_refused_without_asking(
    server: HubServer, cache: Path, repo: str
) -> None:
    with pytest.raises(SourceError, match=f"hf:{repo}@main: "):
        fetch(server, cache, repo=repo)
    assert server.requests == []


def test_what_another_program_fetched_is_used_and_not_written_to(
    server: HubServer, cache: Path, user_cache: Path
) -> None:
    commit = server.publish(REPO, MODEL)
    huggingface_hub.snapshot_download(
        REPO, revision=commit, endpoint=server.url, cache_dir=user_cache
    )
    server.requests.clear()
    folder = fetch(server, cache, commit)
    assert folder.is_relative_to(user_cache)
    assert content_of(folder) == MODEL
    assert server.requests == []
    assert not cache.exists()


def test_a_tokenizer_that_another_program_fetched_is_no_model(
    server: HubServer, cache: Path, user_cache: Path
) -> None:
    commit = server.publish(REPO, MODEL)
    huggingface_hub.hf_hub_download(
        REPO, "tokenizer.json", revision=commit, endpoint=server.url, cache_dir=user_cache
    )
    folder = fetch(server, cache, commit)
    assert folder.is_relative_to(cache)
    assert content_of(folder) == MODEL


def test_the_cache_of_other_programs_is_left_alone(
    server: HubServer, cache: Path, user_cache: Path
) -> None:
    server.publish(REPO, MODEL)
    fetch(server, cache)
    assert not user_cache.parent.exists()


def test_a_cache_that_cannot_be_written_is_told(server: HubServer, cache: Path) -> None:
    server.publish(REPO, MODEL)
    cache.write_text("a file where a folder has to be")
    with pytest.raises(SourceError, match=f"hf:org/name@main: can't be stored in {cache}"):
        fetch(server, cache)


def test_the_version_of_a_model_is_the_beginning_of_its_commit(
    server: HubServer, tmp_path: Path
) -> None:
    commit = server.publish(REPO, MODEL)
    sources = Sources(tmp_path / "cache", hub_endpoint=server.url)
    found = sources.resolve(f"hf:{REPO}@main", base=tmp_path, pins={})
    assert found.version == commit[:12]
    assert found.path.is_relative_to(tmp_path / "cache" / "hub")


def test_what_was_fetched_is_verified(server: HubServer, tmp_path: Path) -> None:
    server.publish(REPO, MODEL | {"model.safetensors": b"\x80\x04 a pickle."})
    sources = Sources(tmp_path / "cache", hub_endpoint=server.url)
    with pytest.raises(UnsafeModelError, match="is not in the safetensors format"):
        sources.resolve(f"hf:{REPO}@main", base=tmp_path, pins={})
    server.publish(REPO, MODEL)
    with pytest.raises(UnsafeModelError, match="sha256"):
        sources.resolve(f"hf:{REPO}@main", base=tmp_path, pins={"config.json": "0" * 64})
