"""deploy/: right as it is, and what would be wrong is found; tests/system has cfn-lint's part."""

import asyncio
import copy
import json
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import ConnectionPool, SSLConnection

from app.core.log_formats import JsonLines
from app.db.engine import parse_url
from app.db.schema import upgrade
from app.db.session import Database
from app.features.jobs.celery import make_celery
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.supervisor import JobSupervisor, SupervisorPolicy
from scripts.check_deploy import (
    PARAMETERS,
    README,
    RUNBOOK,
    find_everything,
    find_in_drain,
    find_in_image,
    find_in_parameters,
    find_in_readme,
    find_in_roles,
    find_in_twins,
    read_tasks,
    read_template,
    report,
)
from scripts.deploy_commands import find_in_commands
from scripts.deploy_tasks import Json, Task, find_in_task, hide_placeholders, template_task

Change = Callable[[Json], Any]
SECURITY_GROUP = "AWS::EC2::SecurityGroup"
# docs.aws.amazon.com, AWS::EC2::SecurityGroup, GroupDescription and Egress.
TAKEN_BY_EC2 = re.compile(r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}")


@pytest.fixture(scope="module")
def read() -> Json:
    """The template, read once; tests change a copy."""
    return read_template()


@pytest.fixture
def template(read: Json) -> Json:
    return copy.deepcopy(read)


def changed(name: str, change: Change) -> Task:
    """A task definition of deploy/ecs/ after a change."""
    task = read_tasks()[name]
    definition = copy.deepcopy(task.definition)
    change(definition)
    return Task(source=task.source, definition=definition)


def container(definition: Json) -> Json:
    first: Json = definition["containerDefinitions"][0]
    return first


def container_of(resource: Json) -> Json:
    """Return the one container of a task definition in the template."""
    first: Json = resource["Properties"]["ContainerDefinitions"][0]
    return first


def without_secret(definition: Json, name: str) -> None:
    secrets = container(definition)["secrets"]
    secrets[:] = [secret for secret in secrets if secret["name"] != name]


def with_environment(definition: Json, **values: str) -> None:
    environment = container(definition)["environment"]
    environment[:] = [entry for entry in environment if entry["name"] not in values]
    environment.extend({"name": name, "value": value} for name, value in values.items())


def probed(definition: Json, *command: str) -> None:
    container(definition)["healthCheck"]["command"] = list(command)


def test_all_of_it_is_right(read: Json) -> None:
    assert list(find_everything(read)) == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda d: d.update(memory="2048"), "Fargate has no size of 2048 CPU units and 2048 MiB"),
        (lambda d: d.update(cpu="2000"), "Fargate has no size of 2000 CPU units"),
        (lambda d: d.pop("memory"), "Fargate has no size of 2048 CPU units and 0 MiB"),
        (lambda d: d.update(memroy="4096"), 'Unknown parameter in input: "memroy"'),
        (lambda d: container(d).update(stopTimeOut=90), "Unknown parameter in containerDef"),
        (lambda d: container(d).update(stopTimeout="90"), "Invalid type for parameter"),
        (lambda d: d.pop("family"), 'Missing required parameter in input: "family"'),
        (lambda d: d.update(requiresCompatibilities=["FARGAET"]), "FARGAET is none of"),
        (lambda d: without_secret(d, "ADMIN_KEY"), "the secret ADMIN_KEY is missing"),
        (lambda d: without_secret(d, "DATABASE_URL"), "the secret DATABASE_URL is missing"),
        (
            lambda d: with_environment(d, ADMIN_KEY="correct horse battery"),
            "ADMIN_KEY is a secret, and stands in the environment",
        ),
        (
            lambda d: container(d)["secrets"].append({"name": "PORT", "valueFrom": "arn"}),
            "PORT is not a secret setting",
        ),
        (
            lambda d: container(d)["secrets"].append({"name": "WEBHOOK_SECRT", "valueFrom": "arn"}),
            "WEBHOOK_SECRT is not a secret setting",
        ),
        (lambda d: with_environment(d, OPENAI_API_KEY="sk-1"), "OPENAI_API_KEY is not a setting"),
        (lambda d: with_environment(d, LOG_FROMAT="json"), "LOG_FROMAT is not a setting"),
        (lambda d: with_environment(d, LOG_FORMAT="xml"), "log_format: Input should be"),
        (lambda d: container(d).update(stopTimeout=75), "stopTimeout of 75 s"),
        (lambda d: container(d).update(stopTimeout=121), "stopTimeout of 121 s"),
        (lambda d: container(d).pop("stopTimeout"), "stopTimeout of 30 s"),
        (
            lambda d: probed(d, "CMD-SHELL", "curl -f http://127.0.0.1:8000/health"),
            "no curl and no wget",
        ),
        (lambda d: container(d).pop("healthCheck"), "doesn't ask for /health on port 8001"),
        (lambda d: with_environment(d, PROBE_PORT="9000"), "doesn't ask for /health on port 9000"),
        (lambda d: with_environment(d, PORT="9000"), "the service's port is 9000; mapped: [8000]"),
        (lambda d: with_environment(d, PROBE_PORT="8000"), "without a PROBE_PORT of their own"),
        (lambda d: container(d).pop("portMappings"), "the service's port is 8000; mapped: []"),
        (lambda d: d.pop("executionRoleArn"), "executionRoleArn is missing"),
        (lambda d: container(d).update(user="root"), "runs as another user than the image's"),
        (lambda d: container(d).pop("readonlyRootFilesystem"), "a root that can be written"),
        (lambda d: container(d).pop("mountPoints"), "are to be mounts"),
        (lambda d: d.pop("volumes"), "mounts a volume that the task lacks"),
    ],
)
def test_a_wrong_task_definition_is_told_by_name(change: Change, finding: str) -> None:
    said = find_in_task(changed("api", change))
    assert any(finding in each for each in said), said
    assert all(each.startswith("api.json: ") for each in said)


def test_the_templates_task_definitions_are_held_to_the_same(template: Json) -> None:
    properties = template["Resources"]["WorkerTaskDefinition"]["Properties"]
    properties["ContainerDefinitions"][0]["Secrets"].pop()
    assert find_in_task(template_task(template, "WorkerTaskDefinition")) == [
        "WorkerTaskDefinition: the secret REDIS_URL is missing"
    ]


def test_what_a_parameter_adds_is_held_to_the_same(template: Json) -> None:
    environment = container_of(template["Resources"]["ApiTaskDefinition"])["Environment"]
    without, with_all = (
        template_task(template, "ApiTaskDefinition", with_options=on) for on in (False, True)
    )
    assert with_all.environment.keys() - without.environment.keys() == {
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
    }
    environment[-1]["Fn::If"][1]["Name"] = "OTEL_TRACES_SAMPLER_ARGS"
    assert find_in_task(template_task(template, "ApiTaskDefinition", with_options=True)) == [
        "ApiTaskDefinition with all options: OTEL_TRACES_SAMPLER_ARGS is not a setting"
    ]


def test_a_gpu_is_not_held_to_fargates_sizes() -> None:
    assert find_in_task(changed("gpu", lambda d: d.update(cpu="3000", memory="10000"))) == []


def test_a_difference_between_file_and_template_is_found(template: Json) -> None:
    tasks = read_tasks() | {"worker": changed("worker", lambda d: d.update(cpu="512"))}
    assert list(find_in_twins(template, tasks)) == [
        "worker.json and WorkerTaskDefinition, cpu: 512 and 1024"
    ]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (
            lambda r: r["TargetGroup"]["Properties"]["TargetGroupAttributes"][0].update(Value="60"),
            "a deregistration delay of 60 s cuts a drain of 88 s",
        ),
        (
            lambda r: r["TargetGroup"]["Properties"].update(UnhealthyThresholdCount=3),
            "needs 15 s to notice",
        ),
        (
            lambda r: r["TargetGroup"]["Properties"].update(HealthCheckPath="/health"),
            "must ask for /ready",
        ),
        (
            lambda r: r["LoadBalancer"]["Properties"]["LoadBalancerAttributes"][0].update(
                Value="75"
            ),
            "sporadic 502",
        ),
        (
            lambda r: r["LoadBalancer"]["Properties"]["LoadBalancerAttributes"][0].update(
                Value="50"
            ),
            "an answer may take 55000 ms",
        ),
    ],
)
def test_times_that_do_not_fit_are_found(template: Json, change: Change, finding: str) -> None:
    change(template["Resources"])
    (said,) = find_in_drain(template, read_tasks()["api"])
    assert finding in said


def test_a_role_that_can_not_read_its_secret_is_found(template: Json) -> None:
    role = template["Resources"]["WorkerExecutionRole"]["Properties"]
    role["Policies"][0]["PolicyDocument"]["Statement"][0]["Resource"].pop()
    assert list(find_in_roles(template)) == ["WorkerExecutionRole may not read REDIS_URL"]


def test_a_secret_of_ones_own_is_right_where_its_role_may_read_it(template: Json) -> None:
    resources = template["Resources"]
    arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ml-api/OPENAI_API_KEY-a1b2c3"
    secrets = container_of(resources["ApiTaskDefinition"])["Secrets"]
    secrets.append({"Name": "OPENAI_API_KEY", "ValueFrom": arn})
    assert find_in_task(template_task(template, "ApiTaskDefinition")) == []
    assert list(find_in_roles(template)) == ["ApiExecutionRole may not read OPENAI_API_KEY"]
    policy = resources["ApiExecutionRole"]["Properties"]["Policies"][0]
    assert policy["PolicyName"] == "read-secrets"
    policy["PolicyDocument"]["Statement"][0]["Resource"].append(arn)
    assert list(find_in_roles(template)) == []


def test_the_service_alone_reaches_out_and_models_in_the_vpc_only_by_a_parameter(
    read: Json,
) -> None:
    def ways_out(name: str) -> list[Json]:
        found: list[Json] = read["Resources"][name]["Properties"]["SecurityGroupEgress"]
        return found

    (model, traces) = (rule["Fn::If"] for rule in ways_out("ApiSecurityGroup") if "Fn::If" in rule)
    assert model[0] == "HasRemoteModel"
    assert (traces[0], traces[1]["CidrIp"]) == ("HasTraces", {"Ref": "VpcCidr"})
    assert model[1]["CidrIp"] == {"Ref": "VpcCidr"}
    assert model[1]["FromPort"] == model[1]["ToPort"] == {"Ref": "RemoteModelPort"}
    assert read["Parameters"]["RemoteModelPort"]["Default"] == 0
    assert "webhooks" in ways_out("ApiSecurityGroup")[0]["Description"], "it sends them"
    assert ways_out("WorkerSecurityGroup")[0]["Description"] == "AWS"


def test_descriptions_of_rules_have_only_signs_that_ec2_takes(read: Json) -> None:
    groups = [r["Properties"] for r in read["Resources"].values() if r["Type"] == SECURITY_GROUP]
    found = re.findall(r'Description": "(.*?)"', json.dumps(groups))
    assert len(found) > 10
    assert [each for each in found if not TAKEN_BY_EC2.fullmatch(each)] == []


def test_a_policy_on_everything_is_found(template: Json) -> None:
    policy = template["Resources"]["StartPolicy"]["Properties"]["PolicyDocument"]
    policy["Statement"][1]["Resource"] = "*"
    (said,) = find_in_roles(template)
    assert said.startswith("StartPolicy allows ")


def test_parameters_are_the_templates(read: Json) -> None:
    parameters = json.loads(PARAMETERS.read_text(encoding="utf-8"))
    first, *others = parameters
    assert list(find_in_parameters(read, others)) == ["the parameter VpcId is missing"]
    extra = {"ParameterKey": "Vpc", "ParameterValue": "vpc-1"}
    assert list(find_in_parameters(read, [*parameters, extra])) == ["Vpc is not a parameter"]
    misspelt = {"ParameterKey": "VpcId", "Value": first["ParameterValue"]}
    (said,) = find_in_parameters(read, [misspelt, *others])
    assert 'Unknown parameter in Parameters[0]: "Value"' in said


def test_the_image_declares_what_is_mounted() -> None:
    assert list(find_in_image('VOLUME ["/data"]\n')) == [
        "the Dockerfile doesn't declare /tmp as a volume"
    ]
    assert len(list(find_in_image("FROM scratch\n"))) == 2


def test_the_readme_sets_every_placeholder() -> None:
    assert hide_placeholders({"image": "${IMAGE}"}) == {"image": "${}"}
    assert list(find_in_readme(['"${IMAGE}" "${STACK}"'], "$ export STACK=ml-api")) == [
        "README.md doesn't set IMAGE"
    ]


@pytest.mark.parametrize(
    ("command", "finding"),
    [
        ("aws ecs list-servces", "aws ecs list-servces doesn't exist"),
        ("aws esc list-services", "aws esc list-services doesn't exist"),
        ("aws ecs list-services --clutser x", "aws ecs list-services has no option --clutser"),
        (
            "aws ecs create-service --load-balancers x",
            (
                "aws ecs create-service has --load-balancers without"
                " --health-check-grace-period-seconds"
            ),
        ),
        (
            "aws ecs describe-tasks --query 'tasks[].{why:stopReason,exit:containers[0].exitCode}'",
            "aws ecs describe-tasks answers nothing that is called stopReason",
        ),
        ("aws ecs wait service-stable", "aws ecs wait service-stable doesn't exist"),
        ("echo $(output Repository)", "Repository is not an output of the stack"),
        ("deploy ImageTag=1 ApiTasks=2", "ApiTasks is not a parameter of the stack"),
        ("echo $(parameter Tag)", "Tag is not a parameter of the stack"),
    ],
)
def test_commands_that_do_not_exist_are_found(read: Json, command: str, finding: str) -> None:
    text = f"```console\n$ {command}\n```\n"
    assert list(find_in_commands("a.md", text, read)) == [f"a.md: {finding}"]
    assert list(find_in_commands("a.sh", f"$ {command}\n", read)) == [f"a.sh: {finding}"]


def test_what_aws_takes_a_moment_for_is_waited_for() -> None:
    readme = README.read_text("utf-8") + RUNBOOK.read_text("utf-8")

    def in_order(*said: str) -> bool:
        return re.search("(?s)" + ".*".join(map(re.escape, said)), readme) is not None

    assert in_order(
        *("add-role-to-instance-profile", "iam wait instance-profile-exists", "$ sleep"),
        "ec2 run-instances",
    )
    assert in_order(
        *("modify-db-instance", "$ sleep", "rds wait db-instance-available"),
        *("put-secret-value", "force-new-deployment", "ecs wait services-stable"),
    )


def test_a_template_that_can_not_be_read_is_told_by_its_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("Resources:\n  One: [\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"broken\.yaml:3: "):
        read_template(broken)


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target


def resolved(template: Json, secret: str) -> str:
    """A URL of the template with a password and addresses in it."""
    url: str = template["Resources"][secret]["Properties"]["SecretString"]["Fn::Sub"]
    password = url[url.index("{{") : url.index("}}") + 2]
    for name, value in (
        (password, "pass"),
        ("${Database.Endpoint.Address}", "db.example.com"),
        ("${Database.Endpoint.Port}", "5432"),
        ("${Cache.PrimaryEndPoint.Address}", "cache.example.com"),
        ("${Cache.PrimaryEndPoint.Port}", "6379"),
    ):
        url = url.replace(name, value)
    return url


def test_the_databases_url_is_one_that_the_service_understands(read: Json) -> None:
    url = parse_url(resolved(read, "DatabaseUrl"))
    assert (url.username, url.password, url.host, url.port) == (
        *("mlapi", "pass", "db.example.com", 5432),
    )
    assert (url.database, url.query) == ("mlapi", {"sslmode": "require"})


def test_the_caches_url_means_tls_to_the_limits_and_to_the_broker(read: Json) -> None:
    url = resolved(read, "RedisUrl")
    limits = ConnectionPool.from_url(url)
    assert limits.connection_class is SSLConnection
    assert limits.connection_kwargs["password"] == "pass"
    broker = make_celery(url).connection_for_write()
    assert (broker.hostname, broker.password) == ("cache.example.com", "pass")
    assert broker.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


@pytest.mark.anyio
async def test_workers_are_scaled_by_a_line_that_the_service_writes(
    read: Json, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    await asyncio.to_thread(upgrade, database)
    policy = SupervisorPolicy(log_interval_s=0)
    supervisor = JobSupervisor(database, notifier=None, metrics=JobMetrics(), policy=policy)
    with caplog.at_level("INFO"):
        await supervisor.check()
    await database.close()
    line = json.loads(JsonLines(log_inputs=False).format(caplog.records[-1]))
    scaling = read["Resources"]["OldestJob"]["Properties"]
    assert scaling["FilterPattern"] == f'{{ $.event = "{line["event"]}" }}'
    (metric,) = scaling["MetricTransformations"]
    assert line[metric["MetricValue"].removeprefix("$.")] == 0


def test_findings_end_the_check_with_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="deploy/ is wrong:\ntoo small"):
        report(["too small"])
    report([])
    assert "are right" in capsys.readouterr().out
