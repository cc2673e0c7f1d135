"""What must hold for every pod of deploy/kubernetes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from app.main import settings_type
from app.server.drain import Drain
from scripts.deploy_tasks import (
    NEEDED_SECRETS,
    OTHER_SECRET,
    SECRETS,
    SETTINGS,
    TRACING,
    WRITABLE,
)
from scripts.kubernetes_build import Json, named

WORKLOADS = ("Deployment", "Job")
OURS = ("api", "worker", "migrate")
DEFAULT_GRACE_S = 30  # Kubernetes'
# Container -> probe -> path. A migration ends by itself, and nothing connects to a worker.
PROBES = {
    "api": {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"},
    "worker": {"startupProbe": "/metrics", "livenessProbe": "/metrics"},
    "migrate": {},
}
IMAGE = {"HOST": "0.0.0.0", "PORT": "8000", "DATA_DIR": "/data"}  # noqa: S104  # the Dockerfile's


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The pod of a workload, with the settings that its references lead to."""

    workload: Json
    environment: Mapping[str, str]
    secrets: frozenset[str]

    @property
    def name(self) -> str:
        """Its workload's."""
        return f"{self.workload['kind']} {self.workload['metadata']['name']}"

    @property
    def spec(self) -> Json:
        """What the workload makes."""
        spec: Json = self.workload["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Json:
        """Its one container."""
        (container,) = self.spec["containers"]
        made: Json = container
        return made

    @property
    def settings(self) -> Any:  # noqa: ANN401  # those of all features
        """What the service makes of the environment.

        Raises:
            ValidationError: it refuses a value.

        """
        values = {name.lower(): value for name, value in (IMAGE | {**self.environment}).items()}
        return settings_type()(_env_file=None, **values)  # type: ignore[arg-type]  # Pydantic validates


def read_pods(objects: Sequence[Json]) -> Iterator[Pod]:
    """Give the pods whose container is the service's image."""
    maps = named(objects, "ConfigMap")
    for workload in (each for each in objects if each["kind"] in WORKLOADS):
        for container in workload["spec"]["template"]["spec"]["containers"]:
            if container["name"] in OURS:
                yield _read_pod(workload, container, maps)


def _read_pod(workload: Json, container: Json, maps: Mapping[str, Json]) -> Pod:
    environment: dict[str, str] = {}
    secrets: set[str] = set()
    for source in container.get("envFrom", []):
        environment |= maps[source["configMapRef"]["name"]]["data"]
    for entry in container.get("env", []):
        if "value" in entry:
            environment[entry["name"]] = entry["value"]
        else:
            secrets.add(entry["name"])
    return Pod(workload=workload, environment=environment, secrets=frozenset(secrets))


def find_in_pod(pod: Pod) -> list[str]:
    """Return everything that is wrong with a pod, a sentence each."""
    said = list(_find_in_settings(pod))
    if not said:  # what follows relies on them
        said = [each for check in CHECKS for each in check(pod)]
    return [f"{pod.name}: {each}" for each in said]


def _find_in_settings(pod: Pod) -> Iterator[str]:
    for name in sorted(pod.environment.keys() - SETTINGS.keys() - TRACING):
        yield f"{name} is not a setting"
    try:
        _ = pod.settings
    except ValidationError as invalid:
        yield from (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in invalid.errors())


def _find_in_secrets(pod: Pod) -> Iterator[str]:
    for name in sorted(NEEDED_SECRETS[pod.container["name"]] - pod.secrets):
        yield f"the secret {name} is missing"
    for name in sorted(pod.secrets - SECRETS):
        if name in SETTINGS or not OTHER_SECRET.fullmatch(name):
            yield f"{name} is not a secret setting"
    for name in sorted(pod.environment.keys() & SECRETS):
        yield f"{name} is a secret, and stands in a ConfigMap"


def _find_in_probes(pod: Pod) -> Iterator[str]:
    settings, name = pod.settings, pod.container["name"]
    ports = {port["name"]: port["containerPort"] for port in pod.container.get("ports", [])}
    asked = settings.worker_metrics_port if name == "worker" else settings.probe_port
    found = {key: value for key, value in pod.container.items() if key.endswith("Probe")}
    if found.keys() != PROBES[name].keys():
        yield f"its probes are {', '.join(sorted(found)) or 'none'}"
    for kind, path in PROBES[name].items():
        get = found.get(kind, {}).get("httpGet", {})
        port = ports.get(get.get("port"), get.get("port"))
        if (get.get("path"), port) != (path, asked):
            yield f"{kind} asks for {get.get('path')} on {port}, not for {path} on {asked}"
    if name == "api" and ports.get("http") != settings.port:
        yield f"the service's port is {settings.port}, not {ports.get('http')}"


def _find_in_drain(pod: Pod) -> Iterator[str]:
    name = pod.container["name"]
    if name not in PROBES or not PROBES[name]:
        return
    settings = pod.settings
    longest = Drain(delay_s=settings.drain_delay_s, budget_s=settings.shutdown_budget_s).longest_s
    grace_s = pod.spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_S)
    if grace_s <= longest:
        yield f"terminationGracePeriodSeconds of {grace_s} cuts a drain of {longest:g} s"
    if "preStop" in pod.container.get("lifecycle", {}):
        yield "a preStop hook: DRAIN_DELAY_S does what it would"
    readiness = pod.container.get("readinessProbe")
    if readiness is None:
        return
    notice_s = readiness["periodSeconds"] * readiness["failureThreshold"]
    if notice_s >= settings.drain_delay_s:
        yield f"readiness needs {notice_s} s to fail, DRAIN_DELAY_S is over before"
    deadline_ms = max(settings.request_timeout_ms, settings.chat_timeout_ms)
    if deadline_ms > settings.shutdown_budget_s * 1000:
        yield f"an answer may take {deadline_ms} ms, more than SHUTDOWN_BUDGET_S"


def _find_in_confinement(pod: Pod) -> Iterator[str]:
    spec, container = pod.spec, pod.container
    of_pod, own = spec.get("securityContext", {}), container.get("securityContext", {})
    wanted = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}
    is_user = all(of_pod.get(key) == value for key, value in wanted.items())
    if not is_user or of_pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "runs as another user than the image's, or without a seccomp profile"
    if not own.get("readOnlyRootFilesystem") or own.get("allowPrivilegeEscalation") is not False:
        yield "may write its root, or get more rights"
    if own.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if spec.get("automountServiceAccountToken") is not False or spec.get("enableServiceLinks", 1):
        yield "gets a token of the cluster, or variables of its Services"
    volumes = {v["name"] for v in spec.get("volumes", [])}
    mounts = {m["mountPath"]: m["name"] for m in container.get("volumeMounts", [])}
    if not mounts.keys() >= WRITABLE or not set(mounts.values()) <= volumes:
        yield f"mounts {', '.join(sorted(mounts))}: all that is written is to be a volume"


def _find_in_resources(pod: Pod) -> Iterator[str]:
    resources = pod.container.get("resources", {})
    for kind in ("requests", "limits"):
        if missing := sorted({"cpu", "memory"} - resources.get(kind, {}).keys()):
            yield f"{kind} nothing of {', '.join(missing)}: engines count cores by the limit"


CHECKS: list[Callable[[Pod], Iterator[str]]] = [
    _find_in_secrets,
    _find_in_probes,
    _find_in_drain,
    _find_in_confinement,
    _find_in_resources,
]
