"""The Celery app: its queue, its only task, and how workers take messages.

A message has no content: it says that there may be work, and the `jobs` table says which. So a
message may be lost, late, or delivered twice.
"""

import ssl
from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery import Celery

QUEUE = "mlapi-jobs"
TASK = "mlapi.work"
# A slice of a job takes JobRunner's `slice_s`, a batch that may take LoadedEmbedder's
# BATCH_TIMEOUT_S, and at first the model's download and loading. A child that takes longer hangs so
# that it can't even notice that itself.
TASK_LIMIT_S = 900
BROKER_TIMEOUT_S = 2.0
# After that Redis delivers an unacknowledged message again; by then its job has been given away.
VISIBILITY_TIMEOUT_S = 3600


def make_celery(redis_url: str) -> Celery:
    """Return the Celery app for a broker; nothing is connected yet.

    Args:
        redis_url: `redis://`, `rediss://`, or `unix:///path/to/socket`.

    """
    celery = Celery("ml-api", broker=broker_url(redis_url), set_as_current=False)
    celery.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=QUEUE,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_time_limit=TASK_LIMIT_S,
        task_publish_retry=False,  # the sender doesn't wait; JobSupervisor sends again
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=BROKER_TIMEOUT_S,
        broker_transport_options={
            "socket_connect_timeout": BROKER_TIMEOUT_S,
            "socket_timeout": BROKER_TIMEOUT_S * 5,  # longer than the one second of BRPOP
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
        },
        **_tls(redis_url),
    )
    return celery


def broker_url(redis_url: str) -> str:
    """Return the address as Celery spells it."""
    if redis_url.startswith("unix://"):
        return f"redis+socket://{redis_url.removeprefix('unix://')}"
    return redis_url


def _tls(redis_url: str) -> dict[str, Any]:
    """Check the certificate of a `rediss://` server, unless the URL itself says how."""
    url = urlsplit(redis_url)
    if url.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(url.query):
        return {}
    return {"broker_use_ssl": {"ssl_cert_reqs": ssl.CERT_REQUIRED}}
