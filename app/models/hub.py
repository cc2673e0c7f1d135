"""Fetches `hf:org/name@revision` through huggingface_hub and its cache."""

import re
from http import HTTPStatus
from pathlib import Path

from app.errors import SourceError
from app.models.files import DESCRIPTIONS, EXTERNAL_WEIGHTS, WEIGHTS
from app.models.verify import choose_files

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_TIMEOUT_S = 10
# Other files of a repository are never fetched, and a snapshot is complete without them.
PATTERNS = [f"*{suffix}" for suffix in (*WEIGHTS, *EXTERNAL_WEIGHTS, *DESCRIPTIONS)]


def fetch(name: str, *, cache: Path, endpoint: str | None) -> Path:
    """Return the folder of a snapshot; its name is the commit.

    A commit that is in a cache is taken from there. For a branch or tag the hub is asked first, and
    the cache is used when it is down or can't be reached.

    Args:
        name: `org/name@revision`.
        cache: our own cache folder; the user's usual one is read, never written.
        endpoint: address of a mirror, or None for the hub.

    Raises:
        SourceError: no revision is named, the hub refuses, it can't be reached and no cache has
            the model, or the cache can't be written.
        UnsafeModelError: the repository's only weights are a pickle.

    """
    repo, _, revision = name.partition("@")
    if not revision:
        raise SourceError(f"hf:{name}: name a revision: hf:{name}@<commit, tag or branch>")
    cached = _from_caches(repo, revision, cache)
    if cached is not None and COMMIT.fullmatch(revision):
        return cached
    try:
        return _download(repo, revision, cache=cache, endpoint=endpoint)
    except _UnreachableError:
        if cached is None:
            raise
        return cached


class _UnreachableError(SourceError):
    """The hub is down, or didn't answer."""


def _from_caches(repo: str, revision: str, cache: Path) -> Path | None:
    """Look into our cache, and into this user's, which other programs fill."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for folder in (cache, None):
        try:
            snapshot = snapshot_download(
                repo,
                revision=revision,
                cache_dir=folder,
                allow_patterns=PATTERNS,
                local_files_only=True,
            )
        except LocalEntryNotFoundError:
            continue
        except HFValidationError as failure:
            raise SourceError(f"hf:{repo}@{revision}: {failure}") from failure
        # Another program may have fetched only the tokenizer.
        if any(file.suffix in WEIGHTS for file in Path(snapshot).rglob("*")):
            return Path(snapshot)
    return None


def _download(repo: str, revision: str, *, cache: Path, endpoint: str | None) -> Path:
    """Ask the hub which commit the revision is, refuse pickles, fetch what is needed."""
    from httpx2 import HTTPError  # huggingface_hub's HTTP library
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError

    where = f"hf:{repo}@{revision}"
    try:
        api = HfApi(endpoint=endpoint)
        info = api.model_info(repo, revision=revision, timeout=HUB_TIMEOUT_S)
        choose_files([file.rfilename for file in info.siblings or []], where)
        snapshot = snapshot_download(
            repo,
            revision=revision,  # not info.sha: the cache has to remember where a branch pointed
            cache_dir=cache,
            allow_patterns=PATTERNS,
            etag_timeout=HUB_TIMEOUT_S,
            endpoint=endpoint,
        )
    except HfHubHTTPError as failure:
        status = failure.response.status_code
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _UnreachableError(
                f"{where}: the hub is down ({status}) and the model is in no cache"
            ) from failure
        raise SourceError(
            f"{where}: the hub answered {status}; is the name right, and HF_TOKEN set if the model"
            " is gated?"
        ) from failure
    except (HTTPError, LocalEntryNotFoundError, FileMetadataError, ConnectionError) as failure:
        raise _UnreachableError(
            f"{where}: the hub can't be reached ({type(failure).__name__}) and the model is in no"
            " cache; without internet, use a file: or package: source"
        ) from failure
    except OSError as failure:
        raise SourceError(f"{where}: can't be stored in {cache}: {failure}") from failure
    return Path(snapshot)
