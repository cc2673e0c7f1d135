"""Settings of jobs, their workers and their webhooks."""

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from app.features.documents.settings import DocumentsSettings
from app.features.jobs.webhooks.signature import read_secrets
from app.settings import MIN_SECRET_CHARS, Days, Positive


class JobsSettings(DocumentsSettings):
    """What can be set of jobs."""

    jobs: Literal["on", "off"] = Field(
        "on", description="Whether jobs are taken; `off` starts no Valkey and no worker either."
    )
    job_lease_s: Positive = Field(
        8, description="Seconds after which the job of a worker that fell silent is given away."
    )
    job_attempts: Positive = Field(
        5, description="Attempts in a row that may get nothing done before a job has failed."
    )
    jobs_per_key: Positive = Field(
        1_000,
        description="Jobs of one key that may be unfinished, or of all callers without one; more "
        "get 429 `too_many_jobs`.",
    )
    job_retention_days: Days = Field(
        30, description="Days after which finished jobs are deleted; 0: never."
    )
    webhook_secret: SecretStr | None = Field(
        None,
        min_length=MIN_SECRET_CHARS,
        description="What webhooks are signed with, any text or a `whsec_…` of Standard Webhooks; "
        "several, with commas between them, while it is changed: all sign, the first one first; "
        "default: made once and kept in SQL, `app jobs secret` prints it.",
    )
    webhook_allow_hosts: str = Field(
        "",
        description="Hosts that webhooks may reach on any address, with commas between them; "
        "others must have a public one.",
    )
    worker_metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of the worker's `/metrics` on HOST; default: none."
    )

    @field_validator("webhook_secret")
    @classmethod
    def secrets_can_sign(cls, secret: SecretStr | None) -> SecretStr | None:
        """Refuse a secret that no library of Standard Webhooks could read, or a short one."""
        if secret is not None:
            read_secrets(secret.get_secret_value())
        return secret

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets of the setting, the first of which counts; none without it."""
        secret = self.webhook_secret
        return read_secrets(secret.get_secret_value()) if secret else ()

    @field_validator("webhook_allow_hosts")
    @classmethod
    def hosts_are_plain(cls, hosts: str) -> str:
        """Refuse URLs: no host would ever match them."""
        if any(character in hosts for character in "/@*"):
            raise ValueError("must be names of hosts, such as hooks.internal, 10.0.0.5:8080")
        return hosts
