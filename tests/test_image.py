"""The image, compose and CI as files: what can be held against the code without a builder.

`make image-check` builds and runs them.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from linters import missing, tool
from serving import AllSettings

from app.main import load_settings
from app.models.catalog import read_catalog

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY")
# Secrets that somebody may do without.
OPTIONAL = {
    *("GRAFANA_PASSWORD", "HF_TOKEN", "METRICS_NEED_KEY", "OPENAI_API_KEY", "WEBHOOK_SECRET"),
}
SETTINGS = {name.upper() for name in AllSettings.model_fields}
OURS = ("api", "worker", "migrate")
IMAGE_GUIDE = (ROOT / "docs/image.md").read_text(encoding="utf-8")


def said(pattern: str) -> list[str]:
    """Return what the lines of the Dockerfile say."""
    return re.findall(pattern, DOCKERFILE, re.MULTILINE)


def stage(name: str) -> str:
    """Return a stage of the Dockerfile: from its FROM to the next one."""
    (found,) = said(rf"(?s)^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)")
    return found


def compose_command() -> list[str]:
    """Find Compose: the command of its own, or the plugin of docker's."""
    if alone := shutil.which("docker-compose"):
        return [alone]
    plugin = [tool("docker"), "compose"]
    if subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode:
        missing("docker compose")
    return plugin


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return content


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


# The Dockerfile


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [tool("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_it_runs_as_a_number_that_is_not_root_s() -> None:
    assert said(r"^USER (.*)$") == ["10001:10001"]
    assert "USER 10001:10001" in stage("runtime"), "all images are made of it"


def test_any_builder_reads_it() -> None:
    assert not DOCKERFILE.startswith("# syntax"), "a front end would have to be fetched"
    assert "--link" not in DOCKERFILE
    assert said(r"^ARG BASE_IMAGE=(.*)$") == ["python:3.11-slim-bookworm"]
    foreign = said(r"^FROM (\S+)")[1:]
    stages = set(said(r" AS (\S+)$"))
    assert set(foreign) <= stages, "it needs one image"


def test_commands_and_health_checks_are_programs_not_shell_lines() -> None:
    serve, worker = '["app", "serve"]', '["app", "worker"]'
    assert said(r"^CMD (.*)$") == [serve, worker, worker]
    checks = said(r"^HEALTHCHECK .*? CMD (.*)$")
    assert len(checks) == 3
    assert all(check.startswith('["python", "-c"') for check in checks)
    assert "curl" not in DOCKERFILE.replace("No curl", "")


def test_a_worker_is_asked_for_its_metrics_whatever_it_is_made_of() -> None:
    cpu, gpu = (stage(name).partition("\n\n")[0] for name in ("worker", "gpu-worker"))
    assert gpu == cpu
    assert "ENV WORKER_METRICS_PORT=9100\nEXPOSE 9100\n" in gpu
    assert '{os.environ[\\"WORKER_METRICS_PORT\\"]}/metrics' in gpu


def test_every_target_is_in_the_guide() -> None:
    targets = {"api", "worker", "gpu", "gpu-worker"}
    assert targets <= set(said(r"^FROM \S+ AS (\S+)$"))
    assert set(re.findall(r"^#   (\S+) ", DOCKERFILE, re.MULTILINE)) == targets
    assert targets == set(re.findall(r"(?m)^\| `([a-z-]+)` \|.*\|.*\|$", IMAGE_GUIDE))


def test_the_last_stage_is_the_api() -> None:
    assert said(r"^FROM \S+ AS (\S+)")[-1] == "api"


def test_its_settings_are_settings_of_the_service() -> None:
    blocks = re.findall(r"^ENV ((?:.*\\\n)*.*)$", stage("runtime") + stage("cpu"), re.MULTILINE)
    names = {name for block in blocks for name in re.findall(r"(\w+)=", block)}
    assert names - SETTINGS == {"HOME", "LD_LIBRARY_PATH"}


def test_its_version_is_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"ARG VERSION={project['version']}\n" in DOCKERFILE


def test_nothing_but_what_it_copies_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert "**/.env*" in rules
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {file for line in said(r"^COPY (?!--from)(.*) \S+$") for file in line.split()}
    pins = {file for file in copied if file.startswith("requirements")}
    assert all((ROOT / file).is_file() for file in pins)
    assert copied - pins == sent - {"models", "requirements*.txt"}


def test_what_the_api_installs_is_pinned_and_without_torch() -> None:
    def pins(name: str) -> set[str]:
        return {line for line in (ROOT / name).read_text("utf-8").splitlines() if "==" in line}

    assert pins("requirements-api.txt") < pins("requirements.txt")
    left_out = {
        line.split("==")[0] for line in pins("requirements.txt") - pins("requirements-api.txt")
    }
    assert {"torch", "transformers", "peft"} <= left_out


# docker-compose.yml


@pytest.mark.parametrize("profiles", [(), ("monitoring", "gpu")])
def test_docker_compose_accepts_it(tmp_path: Path, profiles: tuple[str, ...]) -> None:
    command = [*compose_command(), "--file", str(ROOT / "docker-compose.yml")]
    (tmp_path / "empty").write_text("")  # instead of somebody's .env
    command += ["--project-directory", str(ROOT), "--env-file", str(tmp_path / "empty")]
    command += [f"--profile={name}" for name in profiles]
    secrets = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "ADMIN_KEY")
    given = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for left_out in (None, *secrets):
        values = {name: "given" for name in secrets if name != left_out}
        done = subprocess.run(
            [*command, "config", "--quiet"],
            env=given | values,
            capture_output=True,
            text=True,
            check=False,
        )
        if left_out is None:
            assert done.returncode == 0, done.stderr
        else:
            assert done.returncode != 0
            assert left_out in done.stderr


def test_compose_holds_no_secret_and_no_default_of_one(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text):
        if name in OPTIONAL:
            assert rest == ":-", f"{name} has no default"
        elif SECRET.search(name):
            assert rest.startswith(":?"), f"{name} has to be given"
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name):
                assert re.fullmatch(r"\$\{.*\}", str(value)), name


def test_what_compose_sets_are_settings(services: dict[str, Any]) -> None:
    for name in OURS:
        assert set(services[name]["environment"]) - SETTINGS <= {"OPENAI_API_KEY"}


def test_what_compose_reads_is_documented() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    (section,) = re.findall(r"(?s)^## All on one machine\n(.*?)^## ", IMAGE_GUIDE, re.MULTILINE)
    assert set(re.findall(r"\$\{(\w+)", text)) - set(re.findall(r"\b[A-Z_]+\b", section)) == set()


def test_the_example_of_settings_names_every_secret_that_compose_wants() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    wanted = set(re.findall(r"\$\{(\w+):\?", text)) | {"GRAFANA_PASSWORD"}
    assert wanted == {"ADMIN_KEY", "GRAFANA_PASSWORD", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert wanted <= set(re.findall(r"^#(\w+)=$", example, re.MULTILINE))


@pytest.mark.parametrize("password", ["", "given"])
def test_grafana_starts_with_a_password_only(services: dict[str, Any], password: str) -> None:
    shell, flag, line = services["grafana"]["entrypoint"]
    done = subprocess.run(
        # `echo` stands for what starts Grafana.
        [shell, flag, line.replace("$$", "$").replace("/run.sh", "echo started")],
        env={"PATH": os.environ["PATH"], "GF_SECURITY_ADMIN_PASSWORD": password},
        capture_output=True,
        text=True,
        check=False,
    )
    if password:
        assert (done.returncode, done.stdout) == (0, "started\n")
    else:
        assert (done.returncode, done.stdout) == (1, "")
        assert "GRAFANA_PASSWORD is empty" in done.stderr


def test_no_two_services_build_the_same_image(services: dict[str, Any]) -> None:
    builders = {name: service["image"] for name, service in services.items() if "build" in service}
    assert sorted(builders.values()) == ["ml-api-worker:${TAG:-latest}", "ml-api:${TAG:-latest}"]
    for name in set(OURS) - builders.keys():
        (builder,) = (b for b, image in builders.items() if image == services[name]["image"])
        assert services[name]["pull_policy"] == "never", "it is in no registry"
        # docker-compose 1 looks for images in the order of the starts, before it has built all.
        assert builder in services[name]["depends_on"]


def test_what_changes_its_user_can_still_be_told_to_end(services: dict[str, Any]) -> None:
    added = {name: set(service.get("cap_add", [])) for name, service in services.items()}
    changing = {name for name, capabilities in added.items() if "SETUID" in capabilities}
    assert changing == {"postgres"}
    for name in changing:
        # An init stays root: without KILL it may not signal a child of another user.
        assert services[name]["init"] is False or "KILL" in added[name]


def test_a_setting_that_compose_passes_empty_is_not_set(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # no .env
    empty = {
        name for name, value in services["api"]["environment"].items() if str(value).endswith(":-}")
    }
    assert {"TRUSTED_PROXIES", "DRAIN_DELAY_S", "WEBHOOK_SECRET"} <= empty
    usual = load_settings()
    for name in empty:
        monkeypatch.setenv(name, "")
    assert load_settings() == usual


def test_nobody_starts_before_the_tables_are_there(services: dict[str, Any]) -> None:
    assert services["migrate"]["command"] == ["app", "db", "upgrade"]
    assert services["migrate"]["restart"] == "no"
    for name in ("api", "worker"):
        after = services[name]["depends_on"]
        assert after["migrate"]["condition"] == "service_completed_successfully"
        assert after["postgres"]["condition"] == after["redis"]["condition"] == "service_healthy"


def test_every_service_is_confined(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "memory" in service["deploy"]["resources"]["limits"], name
        assert service.get("read_only") or name == "vllm", name
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name
        assert service["image"].rpartition(":")[2] not in {"", "latest"}, name


def test_every_service_says_when_it_is_healthy(services: dict[str, Any]) -> None:
    unsaid = {name for name, service in services.items() if "healthcheck" not in service}
    assert unsaid == {"worker"}, "its image says so"
    assert "/ready" in services["api"]["healthcheck"]["test"][-1]


def test_no_health_check_asks_a_proxy(services: dict[str, Any]) -> None:
    probes = [service["healthcheck"]["test"][-1] for service in (services["api"], services["vllm"])]
    probes += re.findall(r"import [\w, .]*urllib.*", DOCKERFILE)
    assert len(probes) == 5  # two of compose, three of the images
    assert all("r.build_opener(r.ProxyHandler({})).open(" in probe for probe in probes)


def test_nobody_is_killed_before_the_end_of_the_drain(services: dict[str, Any]) -> None:
    fields = AllSettings.model_fields
    drain_s = fields["drain_delay_s"].default + fields["shutdown_budget_s"].default + 15
    for name in OURS:
        assert int(services[name]["stop_grace_period"].removesuffix("s")) >= drain_s
    (timeout_s,) = re.findall(r"(?s)\$ docker run .*?--stop-timeout (\d+)", IMAGE_GUIDE)
    assert int(timeout_s) >= drain_s


def test_ports_are_open_to_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not any(services[name].get("ports") for name in ("postgres", "redis", "vllm"))


def test_the_servers_of_data_reach_nothing_outside(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    assert compose["networks"]["data"]["internal"]
    assert services["postgres"]["networks"] == services["redis"]["networks"] == ["data"]


def test_the_broker_loses_no_job(services: dict[str, Any]) -> None:
    command = services["redis"]["command"][-1]
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_what_is_not_always_wanted_has_a_profile(services: dict[str, Any]) -> None:
    profiles = {
        name: service["profiles"] for name, service in services.items() if "profiles" in service
    }
    assert profiles == {
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
        "vllm": ["gpu"],
    }


def test_what_compose_mounts_is_there(services: dict[str, Any]) -> None:
    mounted = {
        volume.split(":")[0]
        for service in services.values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    }
    assert {path for path in mounted if not (ROOT / path).is_dir()} == set()


def test_the_catalogue_of_the_gpu_profile_asks_vllm_by_its_name(services: dict[str, Any]) -> None:
    specs = {spec.name: spec for spec in read_catalog(ROOT / "deploy/compose/vllm.toml").specs}
    command = services["vllm"]["command"]
    name = command[command.index("--served-model-name") + 1]
    assert specs["vllm"].source == f"openai:{name}"
    assert specs["vllm"].base_url == "http://vllm:8000/v1"
    packaged = read_catalog(ROOT / "app/models/models.toml")
    for spec in packaged.specs[:2]:
        baked = specs[spec.name]
        assert (baked.source, baked.engine) == (f"file:/opt/models/{spec.name}", "openvino")
        assert (baked.task, baked.labels, baked.default) == (spec.task, spec.labels, spec.default)


# CI for those who clone it


def test_the_workflow_runs_what_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    steps = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    ]
    ours = re.findall(r"^\s*(make [\w-]+)", (ROOT / ".ci/run").read_text("utf-8"), re.MULTILINE)
    assert ours
    assert [step for step in ours if step not in steps] == []
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    called = {target for step in steps for target in re.findall(r"make ([\w-]+)", step)}
    assert called <= targets
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_in_the_workflow_no_check_is_skipped_for_want_of_a_tool() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    assert workflow["env"]["REQUIRE_TOOLS"] == "1"
    tools = {
        "make test": (r"go install github\.com/rhysd/actionlint/cmd/actionlint@v[\d.]+\n",),
        "make deploy-check": ("apt-get install --yes prometheus",),
        "make image-check": ("apt-get install --yes buildah mmdebstrap",),
    }
    for job in workflow["jobs"].values():
        steps = "\n".join(step["run"] for step in job["steps"] if "run" in step)
        for check, installs in tools.items():
            before, found, _ = steps.partition(check)
            for install in installs:
                assert not found or re.search(install, before), check
        assert not re.search(r"sudo (?!.*REQUIRE_TOOLS).*make", steps), "sudo hides the variable"


@pytest.mark.parametrize(
    ("script", "reason"),
    [("check_monitoring.py", "there is no promtool"), ("image_check.py", "image-check: ")],
)
def test_a_missing_tool_is_a_skip_and_where_tools_are_required_a_failure(
    tmp_path: Path, script: str, reason: str
) -> None:
    for required, status in (("", 0), ("1", 1)):
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / script],
            env={
                "PATH": str(tmp_path),
                "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                "REQUIRE_TOOLS": required,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert reason in (done.stderr if status else done.stdout)
        assert ("SKIPPED" in done.stdout) == (not status)


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip), ("1", pytest.fail)])
def test_a_missing_linter_is_a_skip_and_where_tools_are_required_a_failure(
    monkeypatch: pytest.MonkeyPatch, required: str, outcome: Any
) -> None:
    monkeypatch.setenv("REQUIRE_TOOLS", required)
    with pytest.raises(outcome.Exception, match="nolint is not installed"):
        tool("nolint")


def test_actionlint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [tool("actionlint"), ROOT / ".github/workflows/ci.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
