"""All settings, read once from the environment or `.env`; the only reader of either."""

import os
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.cores import core_count
from app.core.prefix import read_prefix
from app.core.setting_errors import setting_error
from app.errors import SettingsError

MIN_SECRET_CHARS = 16
Positive = Annotated[int, Field(gt=0)]
Days = Annotated[int, Field(ge=0, le=36_500)]
ENV_FILE = ".env"
S = TypeVar("S", bound="Settings")
PACKAGED_MODELS_FILE = Path(__file__).parent / "models" / "models.toml"


class Settings(BaseSettings):
    """What can be set in every service; features add their own by inheriting from this class.

    The description of each field is its documentation.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, extra="ignore", frozen=True, env_ignore_empty=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    root_path: str = Field(
        "",
        description="Prefix under which a proxy publishes the service, such as `/ml`, whether the "
        "proxy takes it off the paths or not; see docs/deploys.md.",
    )
    probe_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="A second port, on which only `/health`, `/ready` and `/metrics` are answered: "
        "their connections then never wait behind others; default: none.",
    )
    front_ends: int = Field(
        1,
        ge=1,
        le=64,
        description="Service processes on one address, Linux only, and with several of them one "
        "more, which runs the models for texts. See docs/deploys.md for when it pays.",
    )
    share_models: bool = Field(
        default=True,
        description="Whether several front ends share one process that runs the models for texts; "
        "`false`: each has its own copy of them, and its share of the processor cores.",
    )
    ray_app: str = Field(
        "",
        description="Application on Ray Serve whose replicas run the models for texts and chat; "
        "default: none. See deploy/ray/README.md.",
    )
    ray_replicas: Positive = Field(
        4, description="The most replicas of a model on Ray, so how many are given calls at once."
    )
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
        description="Processor cores that OpenVINO computes on, in all front ends together; "
        "default: those that the process may use, by its affinity and its container's quota.",
    )
    engine_streams: Positive | None = Field(
        None,
        description="Batches of one model that OpenVINO computes side by side; default: one "
        "for each core where the processor has bfloat16, else one for each four cores.",
    )
    inference_threads: Positive | None = Field(
        None,
        description="Threads that run engines, in all front ends together; default: one for each "
        "core, at most 8 in a process.",
    )
    queue_tokens: Positive = Field(
        262_144, description="Tokens that may wait for one model; more get 503 `overloaded`."
    )
    models_memory_mb: int | None = Field(
        None,
        gt=0,
        description='Megabytes that all models of `load = "lazy"` may take together; what was used '
        "least recently is unloaded for another. Default: as much as the machine has.",
    )
    shadow_bound: Positive = Field(
        1_000,
        description="Texts, or pairs of them, that may wait for a shadow; more are dropped, and"
        " counted.",
    )
    features: str = Field(
        "all",
        description="Features that are on, with commas between them; `all`, or `none` for tasks, "
        "health, metrics and docs alone.",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`json`, `console`, or `auto`: console on a terminal, else json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe level that is logged."
    )
    log_bound: Positive = Field(
        10_000,
        description="Log lines that may wait to be written; newer ones are dropped, counted.",
    )
    log_inputs: bool = Field(
        default=False, description="Log input texts and messages of errors that may contain them."
    )
    max_body_bytes: Positive = Field(
        1_048_576, description="Largest request body, in bytes; a larger one gets 413."
    )
    max_image_body_bytes: Positive = Field(
        16_777_216, description="Largest body of a request with images, in bytes; larger gets 413."
    )
    max_image_pixels: int = Field(
        33_554_432,
        gt=0,
        le=178_956_970,  # Pillow's own bound
        description="Pixels that an image may have, by the size in its header; with more it gets "
        "422 `image_too_large`. So many of one model are decoded at once, at about 12 bytes each.",
    )
    max_body_bytes_in_flight: Positive | None = Field(
        None,
        description="Bytes that all request bodies in memory may have together; more get 503 "
        "`overloaded`. Uploads of one caller may have half of it; default: 64 MiB, or four times "
        "the largest body.",
    )
    request_timeout_ms: Positive = Field(
        30_000,
        description="Deadline of a request in milliseconds, then 504; "
        "a client can ask for less with `X-Request-Timeout-Ms`.",
    )
    max_in_flight: Positive = Field(
        1_024,
        description="Requests of one kind (inference, chat, all others) at once; more get 503 "
        "`overloaded` at once. Inference has fewer when clients leave before their answers.",
    )
    chat_timeout_ms: Positive = Field(
        120_000,
        description="Deadline of a chat answer in milliseconds, its last token included; a client "
        "can ask for less with `X-Request-Timeout-Ms`.",
    )
    chat_max_answers: Positive = Field(
        8,
        description="Answers that one request under `/v1` may ask for (`n`, times the prompts of "
        "`/v1/completions`); each takes a slot of the model.",
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
    cors_origins: str = Field(
        "",
        description="Origins whose pages may call the service from a browser, with commas between "
        "them; default: none.",
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
    reload_models: bool = Field(
        default=False,
        description="In development: load Python classes anew when their files change; "
        "`app serve --reload-models`.",
    )
    overloaded_is_ready: bool = Field(
        default=True,
        description="Whether `/ready` answers 200, with `overloaded` under `degraded`, while "
        "requests are refused because there are too many; 503 otherwise.",
    )
    health_max_lag_ms: Positive = Field(
        10_000,
        description="Event-loop lag in milliseconds above which `/health` answers 503: a loop that "
        "is stuck, not one that is busy.",
    )
    health_max_call_s: Positive = Field(
        120,
        description="Seconds that one engine call may take before `/health` answers 503. A call in"
        " a process of its own ends at its model's `timeout_s` instead, and harms no other.",
    )

    @field_validator("root_path")
    @classmethod
    def prefix_is_a_path(cls, text: str) -> str:
        """Refuse what can't stand before a path, and drop a slash at the end."""
        prefix = read_prefix(text)
        if prefix is None:
            raise ValueError("must be a path such as /ml, of letters, digits, '.', '_', '~', '-'")
        return prefix

    @field_validator("data_dir", "model_cache_dir", "models_file")
    @classmethod
    def home_is_understood(cls, path: Path | None) -> Path | None:
        """Expand `~`, as a shell does."""
        return path.expanduser() if path else path

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

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

    @cached_property
    def thread_count(self) -> int:
        """Number of inference threads."""
        # More than 8 threads of one Python process gain nothing on one model: the GIL is held
        # between the engine's calls.
        return self.inference_threads or min(core_count(), 8)

    @cached_property
    def core_count(self) -> int:
        """Number of processor cores that an engine may use."""
        return self.engine_threads or core_count()


def read_secret(variable: str) -> str | None:
    """Return a secret that the catalogue names by its environment variable; None without it."""
    return os.environ.get(variable) or dotenv_values(ENV_FILE).get(variable) or None


def otel_variables() -> dict[str, str]:
    """Return OpenTelemetry's own variables, those of the environment before those of `.env`."""
    both = {**dotenv_values(ENV_FILE), **os.environ}
    return {name: value for name, value in both.items() if name.startswith("OTEL_") and value}


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a child process that is to have the same settings."""
    own = {name.upper(): _spell(getattr(settings, name)) for name in settings.model_fields_set}
    return {**os.environ, **own}


def _spell(value: object) -> str:
    """Write a setting as its environment variable is read."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def load_settings(kind: type[S], **overrides: object) -> S:
    """Read the settings.

    Args:
        kind: the class to read; `app.main` has the one with all features.
        overrides: values that take precedence over the environment.

    Raises:
        SettingsError: naming each variable with a bad value, without the value.

    """
    try:
        return kind(**overrides)  # type: ignore[arg-type]  # validated by Pydantic
    except UnicodeDecodeError:
        raise SettingsError(".env: is not UTF-8") from None
    except ValidationError as invalid:
        raise SettingsError("; ".join(map(setting_error, invalid.errors()))) from None
