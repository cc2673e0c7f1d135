"""deploy/aws.sh: its commands do what the guide and the runbook say, in any shell."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2  # type: ignore[import-untyped]  # no type information is published
import pytest
from linters import tool

from app.db.schema import upgrade
from app.db.session import Database
from scripts.check_deploy import README, RUNBOOK, SHELL, read_template
from scripts.deploy_commands import BLOCK
from scripts.deploy_tasks import Json, find_in_shape, service_model

# Stands for the command line: tells what it was asked, and answers as AWS would.
AWS = r"""
aws() {
    printf '%q ' "$@" >> "$ASKED"; echo >> "$ASKED"
    case "$*" in
        *OutputKey*RepositoryUri*) echo 1234.dkr.ecr.eu-central-1.amazonaws.com/images;;
        *OutputKey*) echo "$*" | sed "s/.*OutputKey=='\([A-Za-z]*\)'.*/the-\1/";;
        *AssignPublicIp*) echo ENABLED;;
        *TaskSubnets*) echo subnet-1,subnet-2;;
        *run-task*) echo arn:aws:ecs:eu-central-1:1234:task/cluster/0123abcd;;
        *exitCode*) echo "$CODE";;
        *get-login-password*) echo a-token;;
    esac
}
docker() { if [ "$1" = login ]; then echo "docker $*, told $(cat)"; else echo "docker $*"; fi; }
"""
FUNCTIONS = set(re.findall(r"^(\w+)\(\)", SHELL.read_text(encoding="utf-8"), re.MULTILINE))
# What a shell of another day knows.
KNOWN = {"AWS_REGION", "STACK"}
FIRST_DAY = re.compile(r"## \d\. ")
PROGRAMS = {
    *("alias", "aws", "curl", "docker", "echo", "envsubst", "export", "for", "kubectl", "openssl"),
    *("printf", "read", "sleep"),
}


def commands(text: str) -> str:
    """Return the commands of a document."""
    return "\n".join(BLOCK.findall(text))


def sections() -> Iterator[tuple[str, str]]:
    """Walk the sections whose commands somebody runs on another day: title, commands."""
    runbook = RUNBOOK.read_text(encoding="utf-8")
    texts = re.split(r"^(?=## )", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts += re.split(r"^(?=###? )", runbook, flags=re.MULTILINE)
    for text in texts[1:]:
        if not FIRST_DAY.match(text) and commands(text):
            yield text.partition("\n")[0], commands(text)


@dataclass(frozen=True, slots=True)
class Shell:
    """A shell that has sourced the file, and knows nothing but the region and the stack's name."""

    asked_file: Path

    def run(self, line: str, *, code: str = "0") -> "subprocess.CompletedProcess[str]":
        """Run a line; `code` is the exit code that tasks end with."""
        return subprocess.run(
            ["bash", "-c", f". {shlex.quote(str(SHELL))}\n{AWS}\n{line}"],
            env={
                "PATH": os.environ["PATH"],
                "AWS_REGION": "eu-central-1",
                "STACK": "ml-api",
                "ASKED": str(self.asked_file),
                "CODE": code,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def asked(self, operation: str) -> dict[str, str]:
        """Return the options of the one call of an operation."""
        lines = self.asked_file.read_text(encoding="utf-8").splitlines()
        (words,) = (w for w in map(shlex.split, lines) if w[1] == operation)
        options = words[next(n for n, word in enumerate(words) if word.startswith("--")) :]
        return dict(zip(options[::2], options[1::2], strict=True))

    def container(self) -> Json:
        """Return what the container of the one task that was started is told."""
        given = json.loads(self.asked("run-task")["--overrides"])
        shape = service_model("ecs").operation_model("RunTask").input_shape
        assert list(find_in_shape(shape, {"taskDefinition": "any", "overrides": given})) == []
        (container,) = given["containerOverrides"]
        return dict(container)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "asked")


def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run([tool("shellcheck"), SHELL], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_any_posix_shell_reads_it() -> None:
    assert subprocess.run(["sh", "-n", SHELL], check=False).returncode == 0


def test_each_of_its_commands_is_used_and_each_that_is_used_is_there() -> None:
    text = commands(README.read_text("utf-8")) + commands(RUNBOOK.read_text("utf-8"))
    said = set(re.findall(r"(?:^\$ |\$\(|&& )([a-z_]+)", text, re.MULTILINE))
    assert said - PROGRAMS == FUNCTIONS


@pytest.mark.parametrize(("title", "text"), list(sections()))
def test_commands_of_another_day_use_only_what_they_set(title: str, text: str) -> None:
    used = set(re.findall(r"\$\{?([A-Z_]+)", text))
    made = set(re.findall(r"(?:^\$ (?:export )?|read -rs )([A-Z_]+)\b", text, re.MULTILINE))
    assert used - made - KNOWN == set(), title


def test_it_asks_the_stack_for_what_it_was_told_and_what_it_made(shell: Shell) -> None:
    assert shell.run("parameter TaskSubnets").stdout == "subnet-1,subnet-2\n"
    assert shell.run("output ClusterName").stdout == "the-ClusterName\n"


@pytest.mark.parametrize(
    ("words", "target", "tag"), [("0.2.0", "api", "0.2.0"), ("0.2.0 gpu", "gpu", "0.2.0-gpu")]
)
def test_an_image_is_built_and_pushed_under_its_tag(
    shell: Shell, words: str, target: str, tag: str
) -> None:
    image = f"1234.dkr.ecr.eu-central-1.amazonaws.com/images:{tag}"
    assert shell.run(f"publish {words}").stdout.splitlines() == [
        f"docker login --username AWS --password-stdin {image.partition('/')[0]}, told a-token",
        f"docker build --platform linux/amd64 --target {target} --tag {image} .",
        f"docker push {image}",
    ]


@pytest.mark.parametrize(("task", "group"), [("api", "Api"), ("worker", "Worker")])
def test_a_command_runs_in_a_task_with_the_network_of_the_stack(
    shell: Shell, task: str, group: str
) -> None:
    done = shell.run(f"once {task} app doctor --json 'two words'")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("exit code 0\n")
    assert shell.container() == {
        "name": task,
        "command": ["app", "doctor", "--json", "two words"],
    }
    assert shell.asked("run-task")["--task-definition"] == f"ml-api-{task}"
    assert shell.asked("run-task")["--network-configuration"] == (
        "awsvpcConfiguration={subnets=[subnet-1,subnet-2],"
        f"securityGroups=[the-{group}SecurityGroupId],assignPublicIp=ENABLED}}"
    )
    assert shell.asked("tail")["--log-stream-names"] == f"{task}/{task}/0123abcd"


def test_its_names_of_tasks_logs_and_containers_are_the_templates() -> None:
    resources = read_template()["Resources"]
    for name in ("api", "worker", "migrate"):
        task = resources[f"{name.title()}TaskDefinition"]["Properties"]
        assert task["Family"] == {"Fn::Sub": f"${{AWS::StackName}}-{name}"}
        (container,) = task["ContainerDefinitions"]
        assert container["Name"] == name
        options = container["LogConfiguration"]["Options"]
        assert options["awslogs-stream-prefix"] == name
        group = resources[options["awslogs-group"]["Ref"]]["Properties"]["LogGroupName"]
        assert group == {"Fn::Sub": f"/ml-api/${{AWS::StackName}}/{name}"}


@pytest.mark.parametrize(("code", "status"), [("0", 0), ("1", 1), ("None", 1)])
def test_a_migration_that_failed_is_followed_by_no_deployment(
    shell: Shell, code: str, status: int
) -> None:
    line = "deploy MigrationImageTag=$TAG && migrate && deploy ImageTag=$TAG"
    assert f"$ {line}\n" in README.read_text("utf-8")
    done = shell.run(line, code=code)
    assert done.returncode == status
    assert shell.container() == {"name": "migrate", "command": ["app", "db", "upgrade"]}
    asked = shell.asked_file.read_text("utf-8")
    assert asked.count("cloudformation deploy") == (1 if status else 2)


def test_the_database_is_asked_with_what_is_in_the_image_and_only_read(
    shell: Shell, postgres_url: str
) -> None:
    def ask(statement: str) -> "subprocess.CompletedProcess[str]":
        shell.asked_file.unlink(missing_ok=True)
        assert shell.run(f"sql {shlex.quote(statement)}").returncode == 0
        program, *arguments = shell.container()["command"]
        assert (program, shell.container()["name"]) == ("python", "migrate")
        return subprocess.run(
            [sys.executable, *arguments],
            env={"DATABASE_URL": postgres_url},
            capture_output=True,
            text=True,
            check=False,
        )

    assert ask("SELECT 1 AS one, 'it''s' AS said").stdout == "one | said\n1 | it's\n"
    refused = ask("CREATE TABLE mine (n int)")
    assert refused.returncode == 1
    assert "read-only transaction" in refused.stderr
    pins = (SHELL.parents[1] / "requirements-api.txt").read_text(encoding="utf-8")
    assert "\npsycopg2-binary==" in pins


def test_the_runbooks_questions_on_aws_run_on_postgresql(postgres_url: str) -> None:
    asked = re.findall(r'\$ sql "(.*?)"', RUNBOOK.read_text("utf-8"))
    assert asked
    database = Database(postgres_url)
    upgrade(database)
    with closing(psycopg2.connect(postgres_url)) as connection, connection.cursor() as cursor:
        for statement in asked:
            cursor.execute(statement)
