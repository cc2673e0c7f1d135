"""All settings, read once from the environment or `.env`; the only reader of either."""

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.cores import core_count
from app.core.setting_errors import setting_error
from app.errors import SettingsError

DEFAULT_LIMIT = "100/minute"
MIN_SECRET_CHARS = 16
Positive = Annotated[int, Field(gt=0)]
Days = Annotated[int, Field(ge=0, le=36_500)]
ENV_FILE = ".env"
PACKAGED_MODELS_FILE = Path(__file__).parent / "models" / "models.toml"


class Settings(BaseSettings):
    """What can be set; the description of each field is its documentation."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, extra="ignore", frozen=True, env_ignore_empty=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data_dir: Path = Field(
        Path("data"), description="Folder under which everything that the service writes lies."
    )
    model_cache_dir: Path | None = Field(
        None, description="Folder for downloaded and converted models; default `DATA_DIR/models`."
    )
    models_file: Path = Field(
        PACKAGED_MODELS_FILE, description="The catalogue of models; default: the packaged one."
    )
    hf_endpoint: str | None = Field(
        None, description="Address of a mirror of the Hugging Face hub; default: the hub."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where torch runs; `auto` takes CUDA when there is a GPU."
    )
    engine_threads: Positive | None = Field(
        None,
        description="Processor cores that OpenVINO computes on; default: those that the process "
        "may use, by its affinity and its container's quota.",
    )
    engine_streams: Positive | None = Field(
        None,
        description="Batches of one model that OpenVINO computes side by side; default: one "
        "for each core where the processor has bfloat16, else one for each four cores.",
    )
    inference_threads: Positive | None = Field(
        None, description="Threads that run engines; default: one for each core, at most 8."
    )
    queue_tokens: Positive = Field(
        262_144, description="Tokens that may wait for one model; more get 503 `overloaded`."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`json`, `console`, or `auto`: console on a terminal, else json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe level that is logged."
    )
    log_inputs: bool = Field(
        default=False, description="Log input texts and messages of errors that may contain them."
    )
    max_body_bytes: Positive = Field(
        1_048_576, description="Largest request body, in bytes; a larger one gets 413."
    )
    request_timeout_ms: Positive = Field(
        30_000,
        description="Deadline of a request in milliseconds, then 504; "
        "a client can ask for less with `X-Request-Timeout-Ms`.",
    )
    chat_timeout_ms: Positive = Field(
        120_000,
        description="Deadline of a chat answer in milliseconds, its last token included; a client "
        "can ask for less with `X-Request-Timeout-Ms`.",
    )
    stream_buffer_tokens: Positive = Field(
        1_024,
        description="Tokens that may wait for a client that reads its stream slowly; with more "
        "the stream ends with `reader_too_slow`.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL (`postgresql://…`) or `sqlite:///path`; default: a SQLite file in "
        "DATA_DIR. SQLite is migrated at start, PostgreSQL by `app db upgrade`.",
    )
    database_pool_size: Positive = Field(5, description="SQL transactions at once.")
    database_timeout_ms: Positive = Field(
        2_000, description="Bound of one SQL transaction in milliseconds, its wait included."
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis or Valkey: the broker of jobs, and where replicas share their limits; "
        "default: the service starts a Valkey and a worker of its own, and counts in memory.",
    )
    jobs: Literal["on", "off"] = Field(
        "on", description="Whether jobs are taken; `off` starts no Valkey and no worker either."
    )
    max_documents_bytes: Positive = Field(
        16_777_216,
        description="Largest body of `/documents` and `/embed-batch`, in bytes; larger gets 413.",
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
        description="What webhooks are signed with; default: made once and kept in SQL, "
        "`app jobs secret` prints it.",
    )
    webhook_allow_hosts: str = Field(
        "",
        description="Hosts that webhooks may reach on any address, with commas between them; "
        "others must have a public one.",
    )
    worker_metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of the worker's `/metrics` on HOST; default: none."
    )
    prediction_log: Literal["on", "off"] = Field("on", description="Whether answers are logged.")
    prediction_input: Literal["none", "hash", "text"] = Field(
        "hash", description="What the log keeps of inputs: nothing, their SHA-256, or the text too."
    )
    prediction_log_bound: Positive = Field(
        20_000, description="Rows that may wait for the database; newer ones are dropped, counted."
    )
    prediction_retention_days: Days = Field(
        90, description="Days after which logged answers are deleted; 0: never."
    )
    prediction_retention_rows: int = Field(
        1_000_000, ge=0, description="Logged answers that are kept at most; the oldest go. 0: all."
    )
    auth: Literal["auto", "off", "required"] = Field(
        "auto",
        description="Whether callers need a key; `auto`: unless HOST is a loopback address.",
    )
    auth_off_anywhere: bool = Field(
        default=False, description="Allow `AUTH=off` on an address that others can reach."
    )
    admin_key: SecretStr | None = Field(
        None,
        min_length=MIN_SECRET_CHARS,
        description="A secret that always is an admin's key: the first key of a fleet.",
    )
    auth_cache_s: Positive = Field(
        5, description="Seconds after which a revoked key is refused everywhere."
    )
    auth_stale_s: Positive = Field(
        300, description="Seconds for which a known key is believed while SQL doesn't answer."
    )
    limits: Literal["on", "off"] = Field("on", description="Whether callers are limited at all.")
    default_limit: str | None = Field(
        None,
        description="Limit of callers without one of their own, such as `100/minute` or "
        "`10/second; 600/hour`; default: `100/minute` where a key is needed, else none.",
    )
    limiter_budget_ms: Positive = Field(
        50, description="Milliseconds that Redis may be silent before a request passes uncounted."
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses and networks of proxies whose `X-Forwarded-For` is believed, with "
        "commas between them.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may call the service from a browser, with commas between "
        "them; default: none.",
    )
    metrics_need_key: bool = Field(
        default=False, description="Whether `/metrics` needs a key with the scope `metrics`."
    )
    drain_delay_s: int = Field(
        0,
        ge=0,
        description="Seconds after SIGTERM for which requests are still accepted, while `/ready` "
        "says 503: until the load balancer sends none any more.",
    )
    shutdown_budget_s: Positive = Field(
        20, description="Seconds that requests in flight have then to finish; see docs/deploys.md."
    )
    health_max_lag_ms: Positive = Field(
        1_000, description="Event-loop lag in milliseconds above which `/health` answers 503."
    )
    health_max_call_s: Positive = Field(
        120, description="Seconds that one engine call may take before `/health` answers 503."
    )

    @field_validator("data_dir", "model_cache_dir", "models_file")
    @classmethod
    def home_is_understood(cls, path: Path | None) -> Path | None:
        """Understand `~`, as a shell would have."""
        return path.expanduser() if path else path

    @field_validator("webhook_allow_hosts")
    @classmethod
    def hosts_are_plain(cls, hosts: str) -> str:
        """Refuse URLs: no host would ever match them."""
        if any(character in hosts for character in "/@*"):
            raise ValueError("must be names of hosts, such as hooks.internal, 10.0.0.5:8080")
        return hosts

    @model_validator(mode="after")
    def is_safe(self) -> Self:
        """Don't serve everybody by accident."""
        if self.auth == "off" and not self.is_loopback and not self.auth_off_anywhere:
            raise ValueError(
                "AUTH=off would let everyone in who reaches HOST; set AUTH_OFF_ANYWHERE=true if"
                " that is meant"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def needs_key(self) -> bool:
        """Whether callers need a key."""
        return self.auth == "required" or (self.auth == "auto" and not self.is_loopback)

    @property
    def limit(self) -> str | None:
        """The limit of callers without one of their own; None: they have none."""
        if self.limits == "off":
            return None
        return self.default_limit or (DEFAULT_LIMIT if self.needs_key else None)

    @property
    def sql_url(self) -> str:
        """Where SQL is, with its password."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.data_dir / 'ml-api.sqlite3').absolute()}"

    @property
    def models_dir(self) -> Path:
        """Folder for downloaded and converted models."""
        return self.model_cache_dir or self.data_dir / "models"

    @property
    def thread_count(self) -> int:
        """Number of inference threads."""
        # More than 8 threads of one Python process gain nothing on one model: the GIL is held
        # between the engine's calls.
        return self.inference_threads or min(core_count(), 8)

    @property
    def core_count(self) -> int:
        """Number of processor cores that an engine may use."""
        return self.engine_threads or core_count()


def read_secret(variable: str) -> str | None:
    """Return a secret that the catalogue names by its environment variable; None without it."""
    return os.environ.get(variable) or dotenv_values(ENV_FILE).get(variable) or None


def load_settings(**overrides: object) -> Settings:
    """Read the settings.

    Raises:
        SettingsError: naming each variable with a bad value, without the value.

    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # validated by Pydantic
    except UnicodeDecodeError:
        raise SettingsError(".env: is not UTF-8") from None
    except ValidationError as invalid:
        raise SettingsError("; ".join(map(setting_error, invalid.errors()))) from None
