"""deploy/kubernetes: right as it is, and what would be wrong is found; operators' part is slow."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from linters import missing

from scripts import check_kubernetes
from scripts.check_kubernetes import find_everything, find_in_objects
from scripts.kubernetes_build import FOLDER, Json, build_all, component_names, kustomize, named

Built = Mapping[str, list[Json]]
Change = Callable[[list[Json]], Any]


@pytest.fixture(scope="module")
def built() -> Built:
    """Everything that deploy/kubernetes makes; tests change a copy."""
    command = kustomize()
    if command is None:
        missing("kubectl")
    return build_all(command)


def test_all_of_it_is_right(built: Built) -> None:
    assert list(find_everything(built, with_custom=False)) == []


def workload(objects: list[Json], name: str, kind: str = "Deployment") -> Json:
    return named(objects, kind)[name]


def pod(objects: list[Json], name: str = "ml-api", kind: str = "Deployment") -> Json:
    spec: Json = workload(objects, name, kind)["spec"]["template"]["spec"]
    return spec


def container(objects: list[Json], name: str = "ml-api", kind: str = "Deployment") -> Json:
    first: Json = pod(objects, name, kind)["containers"][0]
    return first


def settings(objects: list[Json]) -> dict[str, str]:
    """The service's settings, under whatever hash."""
    maps = named(objects, "ConfigMap")
    found: dict[str, str]
    (found,) = (each["data"] for name, each in maps.items() if name.startswith("ml-api-settings"))
    return found


def monitor(objects: list[Json]) -> Json:
    spec: Json = named(objects, "ServiceMonitor")["ml-api"]["spec"]
    return spec


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda o: settings(o).update(DRAIN_DELAYS="1"), "DRAIN_DELAYS is not a setting"),
        (lambda o: settings(o).update(DRAIN_DELAY_S="soon"), "drain_delay_s: Input should be"),
        (lambda o: settings(o).update(DRAIN_DELAY_S="10"), "readiness needs 10 s to fail"),
        (lambda o: settings(o).update(SHUTDOWN_BUDGET_S="70"), "cuts a drain of 98 s"),
        (lambda o: settings(o).update(SHUTDOWN_BUDGET_S="50"), "an answer may take 55000 ms"),
        (lambda o: settings(o).update(ADMIN_KEY="a secret of sixteen"), "stands in a ConfigMap"),
        (lambda o: settings(o).update(PROBE_PORT="9000"), "asks for /health on 8001, not for"),
        (lambda o: settings(o).update(PORT="9000"), "the service's port is 9000, not 8000"),
        (lambda o: pod(o).pop("terminationGracePeriodSeconds"), "of 30 cuts a drain of 88 s"),
        (lambda o: pod(o).update(terminationGracePeriodSecond=9), "'terminationGracePeriodSecond'"),
        (lambda o: pod(o).update(enableServiceLinks=True), "variables of its Services"),
        (lambda o: pod(o)["securityContext"].update(runAsUser=0), "another user than the image's"),
        (lambda o: container(o).pop("securityContext"), "may write its root"),
        (lambda o: container(o).pop("volumeMounts"), "all that is written is to be a volume"),
        (lambda o: container(o)["resources"].pop("limits"), "limits nothing of cpu, memory"),
        (lambda o: container(o)["env"].pop(0), "the secret DATABASE_URL is missing"),
        (lambda o: container(o).pop("readinessProbe"), "its probes are livenessProbe, startup"),
        (
            lambda o: container(o)["readinessProbe"]["httpGet"].update(path="/health"),
            "readinessProbe asks for /health on 8001, not for /ready on 8001",
        ),
        (
            lambda o: container(o).update(lifecycle={"preStop": {"sleep": {"seconds": 5}}}),
            "a preStop hook",
        ),
        (
            lambda o: container(o, "ml-api-worker")["livenessProbe"]["httpGet"].update(port=9101),
            "livenessProbe asks for /metrics on 9101, not for /metrics on 9100",
        ),
        (
            lambda o: container(o, "ml-api-migrate", "Job")["env"].clear(),
            "Job ml-api-migrate: the secret DATABASE_URL is missing",
        ),
        (
            lambda o: named(o, "Service")["ml-api"]["spec"]["selector"].update(x="y"),
            "Service ml-api selects the pods of 0 workloads",
        ),
        (
            lambda o: named(o, "Service")["ml-api"]["spec"]["ports"][0].update(targetPort="web"),
            "Service ml-api: the pod has no port web",
        ),
        (
            lambda o: named(o, "PodDisruptionBudget")["ml-api"]["spec"].update(minAvailable=-1.5),
            "PodDisruptionBudget ml-api, Kubernetes 1.33: spec.minAvailable",
        ),
        (
            lambda o: workload(o, "ml-api")["spec"].update(replicas=2),
            "HorizontalPodAutoscaler ml-api scales ml-api, which isn't there or has replicas",
        ),
        (
            lambda o: named(o, "HorizontalPodAutoscaler")["ml-api"]["spec"]["metrics"][0]["pods"][
                "metric"
            ].update(name="mlapi_queue_wait_p95"),
            "adapter.yaml makes no mlapi_queue_wait_p95",
        ),
        (lambda o: monitor(o).update(jobLabel="app.kubernetes.io/name"), "ServiceMonitor ml-api"),
    ],
)
def test_what_is_wrong_is_told_by_name(built: Built, change: Change, finding: str) -> None:
    objects = copy.deepcopy(built["all with hpa"])
    change(objects)
    said = list(find_in_objects(objects, with_custom=False))
    assert any(finding in each for each in said), said


def test_a_scaler_that_asks_for_an_unknown_series_is_found(built: Built) -> None:
    objects = copy.deepcopy(built["keda"])
    trigger = named(objects, "ScaledObject")["ml-api-worker"]["spec"]["triggers"][0]["metadata"]
    trigger["query"] = "max(mlapi_jobs_waiting)"
    assert list(find_in_objects(objects, with_custom=False)) == [
        "ScaledObject ml-api-worker: there is no mlapi_jobs_waiting"
    ]


def test_a_gpu_and_vllm_are_asked_for_where_they_are_on_and_nowhere_else(built: Built) -> None:
    for what, objects in built.items():
        limits = container(objects)["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == (what == "gpu" or what.startswith("all"))
        assert (settings(objects).get("DEVICE") == "cuda") == ("nvidia.com/gpu" in limits)
        assert ("vllm" in named(objects, "Deployment")) == ("MODELS_FILE" in settings(objects))


def test_a_changed_setting_replaces_the_pods(built: Built) -> None:
    def reference(what: str) -> str:
        name: str = container(built[what])["envFrom"][0]["configMapRef"]["name"]
        return name

    assert reference("base") != reference("gpu")


def test_the_readme_names_each_component() -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert [name for name in component_names() if f"`{name}`" not in readme] == []


def test_a_missing_builder_is_a_skip(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("REQUIRE_TOOLS", raising=False)
    check_kubernetes.main()
    assert "SKIPPED: deploy/kubernetes" in capsys.readouterr().out
    monkeypatch.setenv("REQUIRE_TOOLS", "1")
    with pytest.raises(SystemExit, match="neither kubectl nor kustomize"):
        check_kubernetes.main()
