"""Fetches `s3://bucket/prefix` through boto3; an unchanged set of objects isn't fetched twice."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from app.errors import SourceError, UnsafeModelError
from app.models.verify import choose_files

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
ATTEMPTS = 3


def fetch(name: str, *, cache: Path) -> Path:
    """Return a folder with the objects below the prefix; its name is their version.

    Region, credentials and endpoint come from the usual `AWS_` variables or the task's role.

    Args:
        name: `//bucket/prefix`.
        cache: folder for downloads.

    Raises:
        SourceError: bucket, objects or permission are missing, S3 can't be reached, or the cache
            can't be written.
        UnsafeModelError: the only weights are a pickle, or a key would leave the folder.

    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = name.removeprefix("//").partition("/")
    below = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
    where = f"s3://{bucket}/{below}"
    try:
        client = _client()
        etags = _list(client, bucket, below)
        chosen = {path: etags[path] for path in choose_files(list(etags), where)}
        _refuse_escapes(chosen, where)
        folder = cache / bucket / below.replace("/", "_") / _edition(chosen)

        def download(into: Path) -> None:
            for path in chosen:
                target = into / path
                target.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, below + path, str(target))

        _fill_atomically(folder, download)
    except (Boto3Error, BotoCoreError, ClientError, OSError) as failure:
        raise SourceError(f"{where}: {failure}") from failure
    return folder


def _client() -> Any:
    """Return a client with timeouts, for one thread: models load in several at once."""
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
    )
    # boto3.client() would share one session between threads, which isn't safe.
    return Session().client("s3", config=config)


def _list(client: Any, bucket: str, below: str) -> dict[str, str]:
    """Return path below the prefix → ETag of every object."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=below)
    objects = [item for page in pages for item in page.get("Contents", [])]
    return {item["Key"].removeprefix(below): item["ETag"] for item in objects}


def _refuse_escapes(paths: Mapping[str, str], where: str) -> None:
    """Refuse keys that would be written outside their folder."""
    for path in paths:
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise UnsafeModelError(f"{where}{path}: the key leaves its folder")


def _edition(etags: Mapping[str, str]) -> str:
    """Return a short name for exactly this set of objects."""
    return hashlib.sha256(json.dumps(sorted(etags.items())).encode()).hexdigest()[:16]


def _fill_atomically(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary folder and rename it, so that a crash leaves no incomplete model."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        filled = Path(scratch) / "filled"
        filled.mkdir()
        fill(filled)
        try:
            filled.rename(folder)
        except OSError:
            # Another process was quicker; its folder has the same content.
            if not folder.is_dir():
                raise
