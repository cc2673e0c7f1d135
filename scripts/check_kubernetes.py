"""Check deploy/kubernetes without a cluster: schemas, settings, metrics, references."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence

import yaml

from scripts.check_monitoring import find_unknown
from scripts.kubernetes_build import COMPONENTS, FOLDER, Json, build_all, kustomize, named
from scripts.kubernetes_pods import WORKLOADS, find_in_pod, read_pods
from scripts.kubernetes_schemas import find_in_schema
from scripts.skips import skip

ADAPTER = COMPONENTS / "hpa" / "adapter.yaml"
CATALOGUES = (COMPONENTS / "vllm" / "vllm.toml", FOLDER.parent / "compose" / "vllm.toml")
MONITORED = "app.kubernetes.io/part-of"


def labels_of(workload: Json) -> Json:
    """Return the labels of a workload's pods."""
    labels: Json = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def find_in_references(objects: Sequence[Json]) -> Iterator[str]:
    """See that whatever names or selects something finds it."""
    pods = [each for each in objects if each["kind"] in WORKLOADS]
    for each in objects:
        where, spec = f"{each['kind']} {each['metadata']['name']}", each.get("spec", {})
        selector = None
        if each["kind"] in {"Service", "NetworkPolicy"}:
            selector = spec.get("selector") or spec["podSelector"]["matchLabels"]
        elif each["kind"] in {"PodDisruptionBudget", "Deployment"}:
            selector = spec["selector"]["matchLabels"]
        chosen = [p for p in pods if selector and selector.items() <= labels_of(p).items()]
        if selector is not None and len(chosen) != 1:
            yield f"{where} selects the pods of {len(chosen)} workloads"
        for pod in chosen:
            yield from (f"{where}: {said}" for said in _find_in_ports(each, pod))
        target = spec.get("scaleTargetRef")
        if target is not None:
            scaled = named(objects, "Deployment").get(target["name"])
            if scaled is None or "replicas" in scaled["spec"]:
                yield f"{where} scales {target['name']}, which isn't there or has replicas"
    yield from _find_in_monitors(objects)


def _find_in_ports(each: Json, pod: Json) -> Iterator[str]:
    """See that the named ports of a Service or a policy are the pod's."""
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    known = {port["name"] for port in container.get("ports", [])}
    asked = [port["targetPort"] for port in each["spec"].get("ports", [])]
    asked += [p["port"] for rule in each["spec"].get("ingress", []) for p in rule["ports"]]
    for port in asked:
        if port not in known:
            yield f"the pod has no port {port}"


def _find_in_monitors(objects: Sequence[Json]) -> Iterator[str]:
    """See that Prometheus finds each process, and tells it by the job that alerts name."""
    services = named(objects, "Service")
    for name, monitor in named(objects, "ServiceMonitor").items():
        spec, found = monitor["spec"], {}
        for service in services.values():
            labels = service["metadata"]["labels"]
            if spec["selector"]["matchLabels"].items() <= labels.items():
                found[labels[spec["jobLabel"]]] = {
                    port["name"] for port in service["spec"]["ports"]
                }
        ports = {endpoint["port"] for endpoint in spec["endpoints"]}
        if found.keys() != {"api", "worker"} or any(not ports <= own for own in found.values()):
            yield f"ServiceMonitor {name} finds {found}, by its port {ports}"


def find_in_metrics(objects: Sequence[Json]) -> Iterator[str]:
    """Name the series that scalers ask for and nothing makes."""
    rules = yaml.safe_load(ADAPTER.read_text(encoding="utf-8"))["rules"]["custom"]
    yield from find_unknown(ADAPTER.name, json.dumps([rule["seriesQuery"] for rule in rules]))
    made = {
        rule["seriesQuery"].partition("{")[0].replace("_bucket", "_p95")
        for rule in rules
        if rule["name"] == {"matches": "^(.*)_bucket$", "as": "${1}_p95"}
    }
    for each in objects:
        text = json.dumps(each)
        if each["kind"] == "HorizontalPodAutoscaler":
            asked = [metric["pods"]["metric"]["name"] for metric in _pod_metrics(each)]
            for name in asked:
                if name not in made:
                    yield f"{ADAPTER.name} makes no {name}"
        elif each["kind"] == "ScaledObject":
            yield from find_unknown(f"ScaledObject {each['metadata']['name']}", text)


def _pod_metrics(scaler: Json) -> list[Json]:
    return [metric for metric in scaler["spec"]["metrics"] if metric["type"] == "Pods"]


def find_in_objects(objects: Sequence[Json], *, with_custom: bool) -> Iterator[str]:
    """Make all checks of what one kustomization has made.

    Args:
        objects: of it.
        with_custom: whether operators' objects are held against their schemas, which takes seconds.

    """
    for each in objects:
        yield from find_in_schema(each, with_custom=with_custom)
    for pod in read_pods(objects):
        yield from find_in_pod(pod)
    yield from find_in_references(objects)
    yield from find_in_metrics(objects)


def find_everything(built: Mapping[str, Sequence[Json]], *, with_custom: bool) -> Iterator[str]:
    """Make all checks of everything that was built."""
    for what, objects in built.items():
        for said in find_in_objects(objects, with_custom=with_custom):
            yield f"{what}: {said}"
    ours, composes = (path.read_text(encoding="utf-8") for path in CATALOGUES)
    if ours != composes:
        yield "components/vllm/vllm.toml isn't deploy/compose/vllm.toml"


def main() -> None:
    """Check everything."""
    command = kustomize()
    if command is None:
        skip("deploy/kubernetes; there is neither kubectl nor kustomize")
        return
    try:
        said = list(find_everything(build_all(command), with_custom=True))
    except ValueError as failure:
        said = [str(failure)]
    if said:
        sys.exit("deploy/kubernetes is wrong:\n" + "\n".join(dict.fromkeys(said)))
    print("kubernetes: the base, its components and the overlays are right")


if __name__ == "__main__":
    main()
