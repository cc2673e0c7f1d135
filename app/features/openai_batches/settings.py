"""Settings of files and batches."""

from pydantic import Field

from app.features.jobs.settings import JobsSettings
from app.settings import Days, Positive


class OpenAiBatchesSettings(JobsSettings):
    """What can be set of `/v1/files` and `/v1/batches`."""

    batch_file_bytes: Positive = Field(
        104_857_600, description="Largest file of `/v1/files`, in bytes; a larger one gets 413."
    )
    batch_files_per_key: Positive = Field(
        1_000,
        description="Files that one key may have, or all callers without one, answers of batches "
        "among them; more uploads get 413 `file_quota_exceeded`.",
    )
    batch_files_mb: Positive = Field(
        1_024,
        description="Megabytes of those files; with more, uploads and new batches get 413 "
        "`file_quota_exceeded`.",
    )
    batch_file_days: Days = Field(
        30,
        description="Days after which files are deleted that don't say it themselves; 0: never.",
    )
    batch_uploads: Positive = Field(
        8, description="Files that a process takes at once; more get 503 `overloaded`."
    )
    batch_upload_s: Positive = Field(
        600, description="Seconds that an upload may take; each piece has REQUEST_TIMEOUT_MS."
    )
    batch_lines: Positive = Field(50_000, description="Lines that one batch may have.")
    batches_per_key: Positive = Field(
        100,
        description="Batches of one key that may be unfinished, or of all callers without one; "
        "more get 429 `too_many_batches`.",
    )
    batch_lines_at_once: Positive = Field(
        4, description="Lines of batches that a process runs at once, while no client waits."
    )
    batch_yield_ms: int = Field(
        250,
        ge=0,
        description="Milliseconds that running lines may go on for after clients' requests have "
        "come; then they are stopped, and run again later. Higher where they shall get done "
        "beside requests that always come.",
    )
    batch_output_mb: Positive = Field(
        1_024, description="Megabytes of answers after which a batch runs no more lines."
    )
    batch_retention_days: Days = Field(
        30, description="Days after which finished batches are deleted; 0: never."
    )
