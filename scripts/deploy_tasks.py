"""What must hold for every task definition, of deploy/ecs/ and of the CloudFormation template."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from botocore.validate import ParamValidator
from pydantic import ValidationError

from app.main import settings_type
from app.server.drain import Drain

Json = dict[str, Any]

# Stands for whatever only a deployment knows: an intrinsic function, or ${NAME} in a JSON file.
UNKNOWN = "${}"
NO_VALUE = {"Ref": "AWS::NoValue"}
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
DEFAULT_STOP_S, MAX_STOP_S = 30, 120  # Fargate's
# Fargate's sizes: CPU units -> MiB; docs.aws.amazon.com, "Fargate task definition considerations".
FARGATE_SIZES: dict[str, range] = {
    "256": range(512, 2_048 + 1, 512),
    "512": range(1_024, 4_096 + 1, 1_024),
    "1024": range(2_048, 8_192 + 1, 1_024),
    "2048": range(4_096, 16_384 + 1, 1_024),
    "4096": range(8_192, 30_720 + 1, 1_024),
    "8192": range(16_384, 61_440 + 1, 4_096),
    "16384": range(32_768, 122_880 + 1, 8_192),
}
NOT_A_SIZE = ("256", "1536")
NEEDED_SECRETS = {
    "api": {"ADMIN_KEY", "DATABASE_URL", "REDIS_URL"},
    "gpu": {"ADMIN_KEY", "DATABASE_URL", "REDIS_URL"},
    "worker": {"DATABASE_URL", "REDIS_URL"},
    "migrate": {"DATABASE_URL"},
}
# What is asked of those that run on; a migration ends by itself.
PROBES = {"api": "/health", "gpu": "/health", "worker": "/metrics"}
# The Dockerfile declares them as volumes: Fargate makes others root's.
WRITABLE = {"/data", "/tmp"}  # noqa: S108  # the container's
SETTINGS = {name.upper(): field.annotation for name, field in settings_type().model_fields.items()}
SECRETS = {name for name, annotation in SETTINGS.items() if "SecretStr" in str(annotation)}
# What a catalogue's `api_key_env` may name, and what the hub reads.
OTHER_SECRET = re.compile(r"[A-Z0-9_]+_(KEY|TOKEN)")
# OpenTelemetry's, which its SDK reads: opentelemetry.io, "Environment Variable Specification".
TRACING = {
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task definition in the shape of RegisterTaskDefinition's input, and where it was found."""

    source: str
    definition: Json

    @property
    def container(self) -> Json:
        """Its one container."""
        container: Json = self.definition["containerDefinitions"][0]
        return container

    @property
    def environment(self) -> dict[str, str]:
        """Name -> value of what isn't secret."""
        return {entry["name"]: entry["value"] for entry in self.container.get("environment", [])}

    @property
    def settings(self) -> Any:  # noqa: ANN401  # those of all features
        """What the service makes of the environment.

        Raises:
            ValidationError: it refuses a value.

        """
        known = {k.lower(): v for k, v in self.environment.items() if v != UNKNOWN}
        return settings_type()(_env_file=None, **known)  # type: ignore[arg-type]  # Pydantic validates

    @property
    def drain_s(self) -> float:
        """Seconds from the signal to the end, at most."""
        delay_s, budget_s = self.settings.drain_delay_s, self.settings.shutdown_budget_s
        return Drain(delay_s=delay_s, budget_s=budget_s).longest_s


def read_task(path: Path) -> Task:
    """Read a file of deploy/ecs/."""
    definition = hide_placeholders(json.loads(path.read_text(encoding="utf-8")))
    return Task(source=path.name, definition=definition)


def hide_placeholders(value: Any) -> Any:  # noqa: ANN401  # any JSON
    """Put UNKNOWN in the place of every text with a placeholder."""
    if isinstance(value, dict):
        return {key: hide_placeholders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hide_placeholders(item) for item in value]
    return UNKNOWN if isinstance(value, str) and PLACEHOLDER.search(value) else value


def template_task(template: Json, name: str, *, with_options: bool = False) -> Task:
    """Read a resource of the template, with or without what only a parameter adds."""
    properties = template["Resources"][name]["Properties"]
    if with_options:
        name += " with all options"
    chosen = _with_options(properties, are_on=with_options)
    return Task(source=name, definition=_from_template(chosen))


def _with_options(value: Any, *, are_on: bool) -> Any:  # noqa: ANN401  # any JSON
    """Put what a condition adds to a list into it, or leave it out."""
    if isinstance(value, dict):
        return {key: _with_options(item, are_on=are_on) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    made = []
    for item in value:
        branches = item.get("Fn::If") if isinstance(item, dict) else None
        if branches is None or branches[2] != NO_VALUE:
            made.append(_with_options(item, are_on=are_on))
        elif are_on:
            made.append(branches[1])
    return made


def _from_template(value: Any, *, are_keys_names: bool = False) -> Any:  # noqa: ANN401  # any JSON
    """Turn CloudFormation's spelling into the API's."""
    if isinstance(value, list):
        return [_from_template(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)).startswith(("Fn::", "Ref")):  # an intrinsic function
        return UNKNOWN
    return {
        # The options of a log driver are names of its own.
        key if are_keys_names else key[0].lower() + key[1:]: _from_template(
            item, are_keys_names=key == "Options"
        )
        for key, item in value.items()
    }


@cache  # ec2's alone takes a second
def service_model(service: str) -> ServiceModel:
    """Return botocore's description of an AWS service."""
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def find_in_shape(shape: Shape, value: Any) -> Iterator[str]:  # noqa: ANN401  # any JSON
    """Hold a value against an input shape of botocore's."""
    yield from ParamValidator().validate(value, shape).generate_report().splitlines()
    yield from _find_in_enums(shape, value)


def _find_in_enums(shape: Shape, value: Any) -> Iterator[str]:  # noqa: ANN401  # any JSON
    """Find texts that an enumeration lacks: botocore's validation doesn't look."""
    known = getattr(shape, "enum", [])
    if shape.type_name == "structure" and isinstance(value, dict):
        for key in value.keys() & shape.members.keys():
            yield from _find_in_enums(shape.members[key], value[key])
    elif shape.type_name == "list" and isinstance(value, list):
        for item in value:
            yield from _find_in_enums(shape.member, item)
    elif known and isinstance(value, str) and value not in {*known, UNKNOWN}:
        yield f"{value} is none of {', '.join(known)}"


def find_in_task(task: Task) -> list[str]:
    """Return everything that is wrong with a task definition, a sentence each."""
    shape = service_model("ecs").operation_model("RegisterTaskDefinition").input_shape
    said = list(find_in_shape(shape, task.definition)) or list(_find_in_settings(task))
    if not said:  # what follows relies on both
        said = [each for check in CHECKS for each in check(task)]
    return [f"{task.source}: {each}" for each in said]


def _find_in_settings(task: Task) -> Iterator[str]:
    for name in task.environment.keys() - SETTINGS.keys() - TRACING:
        yield f"{name} is not a setting"
    try:
        _ = task.settings
    except ValidationError as invalid:
        yield from (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in invalid.errors())


def _find_in_secrets(task: Task) -> Iterator[str]:
    given = {entry["name"] for entry in task.container.get("secrets", [])}
    for name in NEEDED_SECRETS[task.container["name"]] - given:
        yield f"the secret {name} is missing"
    for name in given - SECRETS:
        if name in SETTINGS or not OTHER_SECRET.fullmatch(name):
            yield f"{name} is not a secret setting"
    for name in task.environment.keys() & SECRETS:
        yield f"{name} is a secret, and stands in the environment"


def _find_in_size(task: Task) -> Iterator[str]:
    if "FARGATE" not in task.definition.get("requiresCompatibilities", []):
        return
    cpu, memory = task.definition.get("cpu", "none"), task.definition.get("memory", "0")
    if int(memory) not in FARGATE_SIZES.get(cpu, ()) or (cpu, memory) == NOT_A_SIZE:
        yield f"Fargate has no size of {cpu} CPU units and {memory} MiB"


def _find_in_confinement(task: Task) -> Iterator[str]:
    container = task.container
    for key in ("executionRoleArn", "taskRoleArn"):
        if key not in task.definition:
            yield f"{key} is missing"
    if container.get("user") != "10001:10001" or not container.get("readonlyRootFilesystem"):
        yield "runs as another user than the image's, or on a root that can be written"
    volumes = {volume["name"] for volume in task.definition.get("volumes", [])}
    mounts = {m["containerPath"]: m["sourceVolume"] for m in container.get("mountPoints", [])}
    if mounts.keys() != WRITABLE or task.environment.get("DATA_DIR") not in WRITABLE:
        yield f"mounts {', '.join(mounts)}: DATA_DIR and what else is written are to be mounts"
    if not set(mounts.values()) <= volumes:
        yield "mounts a volume that the task lacks"


def _find_in_stop(task: Task) -> Iterator[str]:
    if task.container["name"] not in PROBES:
        return
    stop_s = task.container.get("stopTimeout", DEFAULT_STOP_S)
    if not task.drain_s < stop_s <= MAX_STOP_S:
        yield f"stopTimeout of {stop_s} s: the drain takes {task.drain_s:g} s, ECS gives 120"


def _find_in_health(task: Task) -> Iterator[str]:
    if (path := PROBES.get(task.container["name"])) is None:
        return
    command = " ".join(task.container.get("healthCheck", {}).get("command", []))
    if "curl" in command or "wget" in command:
        yield "the image has no curl and no wget for the health check"
    settings = task.settings
    asked = settings.worker_metrics_port
    if path == "/health":
        yield from _find_in_ports(task)
        asked = settings.probe_port
    if f"//127.0.0.1:{asked}{path}'" not in command:
        yield f"the health check doesn't ask for {path} on port {asked}"


def _find_in_ports(task: Task) -> Iterator[str]:
    port, probe_port = task.settings.port, task.settings.probe_port
    mapped = [mapping["containerPort"] for mapping in task.container.get("portMappings", [])]
    if mapped != [port]:
        yield f"the service's port is {port}; mapped: {mapped}"
    if probe_port in (None, port):
        yield "without a PROBE_PORT of their own health checks wait behind the storm's connections"


CHECKS: list[Callable[[Task], Iterator[str]]] = [
    _find_in_secrets,
    _find_in_size,
    _find_in_confinement,
    _find_in_stop,
    _find_in_health,
]
