"""What `app doctor` checks of jobs: whether they have a broker."""

from collections.abc import Iterator

from app.core.finding import Finding, doubtful, good
from app.features.jobs.embedded import find_valkey
from app.features.jobs.settings import JobsSettings


def findings(settings: JobsSettings) -> Iterator[Finding]:
    """Look for a Valkey; a broker in REDIS_URL is checked with the other servers."""
    if settings.redis_url is not None:
        return
    if find_valkey() is None:
        advice = "Set REDIS_URL, or JOBS=off; /embed-batch answers 503 until then."
        yield doubtful("jobs", "there is no Valkey for this platform", advice)
    else:
        yield good("jobs", "the service starts a Valkey and a worker of its own")
