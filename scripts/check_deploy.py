"""Check deploy/ without an account: each file alone, against the others, and against the service.

cfn-lint reads the template, botocore's models the task definitions and the parameters; what neither
can know is checked here.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.server.serve import KEEP_ALIVE_S
from scripts.deploy_commands import find_in_commands
from scripts.deploy_tasks import (
    PLACEHOLDER,
    WRITABLE,
    Json,
    Task,
    find_in_shape,
    find_in_task,
    read_task,
    service_model,
    template_task,
)

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
ECS = DEPLOY / "ecs"
TEMPLATE = DEPLOY / "cloudformation" / "ml-api.yaml"
PARAMETERS = DEPLOY / "cloudformation" / "parameters.json"
README = DEPLOY / "README.md"
SHELL = DEPLOY / "aws.sh"
RUNBOOK = DEPLOY.parent / "docs" / "runbook.md"
DOCKERFILE = DEPLOY.parent / "Dockerfile"
REGION = "eu-central-1"
# File in deploy/ecs/ -> the same in the template.
TWINS = {
    "api": "ApiTaskDefinition",
    "worker": "WorkerTaskDefinition",
    "migrate": "MigrateTaskDefinition",
}
# The one action that AWS lets nobody narrow.
BROAD_ACTION = "ecr:GetAuthorizationToken"


def read_template(path: Path = TEMPLATE) -> Json:
    """Read a template, its short forms (!Ref) as long ones; exit if that can't be done."""
    from cfnlint.decode import decode  # noqa: PLC0415  # a second; all workers collect all tests

    template, failures = decode(str(path))
    if failures or template is None:
        sys.exit("\n".join(f"{path.name}:{m.linenumber}: {m.message}" for m in failures))
    plain: Json = json.loads(json.dumps(template))
    return plain


def find_with_cfn_lint(text: str) -> list[str]:
    """Return cfn-lint's findings, warnings included."""
    from cfnlint.api import ManualArgs, lint  # noqa: PLC0415  # as above

    matches = lint(text, config=ManualArgs(regions=[REGION]))
    return [f"{TEMPLATE.name}:{m.linenumber}: {m.rule.id} {m.message}" for m in matches]


def find_in_parameters(template: Json, parameters: list[Json]) -> Iterator[str]:
    """Hold the example of parameters against the API and the template."""
    shape = service_model("cloudformation").operation_model("CreateStack").input_shape
    yield from find_in_shape(shape, {"StackName": "ml-api", "Parameters": parameters})
    declared = template["Parameters"]
    given = {entry.get("ParameterKey"): entry.get("ParameterValue") for entry in parameters}
    yield from (f"{name} is not a parameter" for name in given.keys() - declared.keys())
    needed = {name for name, parameter in declared.items() if "Default" not in parameter}
    yield from (f"the parameter {name} is missing" for name in needed - given.keys())


def find_in_twins(template: Json, tasks: dict[str, Task]) -> Iterator[str]:
    """Find where deploy/ecs/ and the template differ."""
    for name, resource in TWINS.items():
        yield from find_differences(
            f"{name}.json and {resource}",
            tasks[name].definition,
            template_task(template, resource).definition,
        )


def find_differences(where: str, one: Any, other: Any) -> Iterator[str]:  # noqa: ANN401  # any JSON
    """Name the places where two values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from find_differences(f"{where}, {key}", one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for mine, yours in zip(one, other, strict=True):
            yield from find_differences(where, mine, yours)
    elif one != other:
        yield f"{where}: {one} and {other}"


def find_in_drain(template: Json, api: Task) -> Iterator[str]:
    """Hold the load balancer's times against the service's."""
    resources = template["Resources"]
    group = resources["TargetGroup"]["Properties"]
    attributes = _attributes(group["TargetGroupAttributes"])
    balancer = _attributes(resources["LoadBalancer"]["Properties"]["LoadBalancerAttributes"])
    delay_s = int(attributes["deregistration_delay.timeout_seconds"])
    if delay_s < api.drain_s:
        yield f"a deregistration delay of {delay_s} s cuts a drain of {api.drain_s:g} s"
    notice_s = group["HealthCheckIntervalSeconds"] * group["UnhealthyThresholdCount"]
    if notice_s >= api.settings.drain_delay_s:
        yield f"the target group needs {notice_s} s to notice, DRAIN_DELAY_S is over before"
    if group["HealthCheckPath"] != "/ready":
        yield "the target group must ask for /ready"
    idle_s = int(balancer["idle_timeout.timeout_seconds"])
    if idle_s >= KEEP_ALIVE_S:
        yield f"connections that idle {idle_s} s are closed by the service first: sporadic 502"
    deadline_ms = max(api.settings.request_timeout_ms, api.settings.chat_timeout_ms)
    if deadline_ms >= idle_s * 1000:
        yield f"an answer may take {deadline_ms} ms, and the load balancer gives up before"


def _attributes(pairs: list[Json]) -> Json:
    return {pair["Key"]: pair["Value"] for pair in pairs}


def find_in_roles(template: Json) -> Iterator[str]:
    """See that each task may read its secrets, and that nobody may do anything to everything."""
    resources = template["Resources"]
    for name in TWINS.values():
        properties = resources[name]["Properties"]
        role = properties["ExecutionRoleArn"]["Fn::GetAtt"][0]
        readable = [
            resource
            for statement in _statements(resources[role])
            if statement["Action"] == "secretsmanager:GetSecretValue"
            for resource in statement["Resource"]
        ]
        for secret in properties["ContainerDefinitions"][0]["Secrets"]:
            if secret["ValueFrom"] not in readable:
                yield f"{role} may not read {secret['Name']}"
    for name, resource in resources.items():
        for statement in _statements(resource):
            if statement["Resource"] == "*" and statement["Action"] != BROAD_ACTION:
                yield f"{name} allows {statement['Action']} on everything"


def _statements(resource: Json) -> Iterator[Json]:
    """Walk the statements of a role's or a policy's documents, those below conditions too."""
    if not resource["Type"].startswith("AWS::IAM::"):
        return
    properties = resource["Properties"]
    waiting = [properties.get("PolicyDocument"), properties.get("Policies")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and "Statement" in value:
            yield from value["Statement"]
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def find_in_readme(texts: list[str], readme: str) -> Iterator[str]:
    """See that the README sets every placeholder of deploy/ecs/."""
    names = {name for text in texts for name in PLACEHOLDER.findall(text)}
    yield from (f"README.md doesn't set {n}" for n in sorted(names) if f"export {n}=" not in readme)


def find_in_image(dockerfile: str) -> Iterator[str]:
    """See that the image declares what tasks mount over it."""
    declared = re.search(r"^VOLUME (\[.*\])$", dockerfile, re.MULTILINE)
    missing = WRITABLE - set(json.loads(declared[1]) if declared else [])
    yield from (f"the Dockerfile doesn't declare {path} as a volume" for path in sorted(missing))


def read_tasks() -> dict[str, Task]:
    """Read deploy/ecs/: a file's name without its ending -> its task definition."""
    return {path.stem: read_task(path) for path in sorted(ECS.glob("*.json"))}


def find_everything(template: Json) -> Iterator[str]:
    """Make all checks but cfn-lint's."""
    tasks = read_tasks()
    for task in tasks.values():
        yield from find_in_task(task)
    for name in TWINS.values():
        for with_options in (False, True):
            yield from find_in_task(template_task(template, name, with_options=with_options))
    yield from find_in_twins(template, tasks)
    for name in ("api", "gpu"):
        yield from find_in_drain(template, tasks[name])
    yield from find_in_roles(template)
    yield from find_in_parameters(template, json.loads(PARAMETERS.read_text(encoding="utf-8")))
    yield from find_in_image(DOCKERFILE.read_text(encoding="utf-8"))
    readme = README.read_text(encoding="utf-8")
    yield from find_in_readme([path.read_text(encoding="utf-8") for path in ECS.iterdir()], readme)
    for path in (README, RUNBOOK, SHELL):
        yield from find_in_commands(path.name, path.read_text(encoding="utf-8"), template)


def report(said: list[str]) -> None:
    """Exit with the findings, if there are any."""
    if said:
        sys.exit("deploy/ is wrong:\n" + "\n".join(said))
    print("deploy: the template, the task definitions and the documents' commands are right")


def main() -> None:
    """Check everything."""
    template = read_template()
    said = find_with_cfn_lint(TEMPLATE.read_text(encoding="utf-8"))
    report([*said, *find_everything(template)])


if __name__ == "__main__":
    main()
