"""Rules, dashboard and runbook name only what exists; tests/system asks a real Prometheus."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from databases import migrated, says
from serving import FAKE, AllSettings, serving

from app.cli.main import cli
from scripts.check_monitoring import (
    DASHBOARD,
    GRAFANA,
    PROMETHEUS,
    ROOT,
    RULES,
    RUNBOOK,
    Json,
    find_everything,
    find_in_alerts,
    find_in_dashboard,
    find_unknown,
    read_dashboard,
    read_rules,
    runbook_blocks,
)

RUNBOOK_TEXT = RUNBOOK.read_text(encoding="utf-8")
TESTS_TEXT = (RULES / "tests.yml").read_text(encoding="utf-8")
# Without blocks of code; their insides are tried elsewhere.
PROSE = re.sub(r"^ *```.*?^ *```$", "", RUNBOOK_TEXT, flags=re.MULTILINE | re.DOTALL)
SPANS = set(re.findall(r"`([^`\n]+)`", PROSE))
WORD = re.compile(r"[a-z]+(?:_[a-z]+)+")
SETTING = re.compile(r"[A-Z]+(?:_[A-Z]+)+")
OF_THE_CLIENT = {"APP_URL", "APP_KEY"}
# Fields of the log, of models.toml and of answers.
FIELDS = {
    "base_url",
    "context_tokens",
    "is_final",
    "request_id",
    "node_exporter",
    "max_connections",
    "shared_buffers",
}


def test_everything_that_is_named_exists_and_every_alert_has_its_section_and_its_test() -> None:
    assert list(find_everything()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rule: rule["labels"].clear(), "severity is one of critical, warning"),
        (lambda rule: rule["annotations"].pop("summary"), "has no summary"),
        (lambda rule: rule["annotations"].pop("runbook_url"), "isn't its section"),
        (lambda rule: rule.update(alert="Forgotten"), "has no section in the runbook"),
        (lambda rule: rule.update(alert="Forgotten"), "is never seen to fire"),
        (lambda rule: rule.update(alert="Forgotten"), "which is no alert"),
    ],
)
def test_an_incomplete_alert_is_found(change: Callable[[Json], Any], said: str) -> None:
    alerts = read_rules("alerts.yml")
    change(alerts[0])
    found = list(find_in_alerts(alerts, RUNBOOK_TEXT, TESTS_TEXT))
    assert any(said in each for each in found), found


def test_a_series_that_nothing_makes_is_found() -> None:
    text = "rate(mlapi_refusals_total[5m]) / service:http_requests:rate1h + mlapi_queue_depth"
    assert list(find_unknown("here", text)) == [
        "here: there is no mlapi_refusals_total",
        "here: there is no service:http_requests:rate1h",
    ]


def test_a_dashboard_that_grafana_would_show_badly_is_found() -> None:
    dashboard = read_dashboard()
    first, second = dashboard["panels"][1:3]
    second["id"] = first["id"]
    second["gridPos"] = copy.deepcopy(first["gridPos"])
    first["datasource"]["uid"] = "elsewhere"
    shown = [panel for panel in dashboard["panels"] if panel["title"] != "Tasks of the event loop"]
    found = list(find_in_dashboard({**dashboard, "panels": shown}))
    assert found == [
        "a panel asks another data source than the one that is provisioned",
        f"2 panels have the id {first['id']}",
        "panels overlap",
        "the dashboard doesn't show mlapi_event_loop_tasks",
    ]


def test_each_panel_has_queries_of_its_own_letters() -> None:
    for panel in read_dashboard()["panels"]:
        if panel["type"] != "row":
            letters = [target["refId"] for target in panel["targets"]]
            assert letters, panel["title"]
            assert len(set(letters)) == len(letters), panel["title"]


def test_compose_runs_what_is_here() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    read = yaml.safe_load(PROMETHEUS.read_text("utf-8"))
    api, worker = read["scrape_configs"]
    assert (api["job_name"], worker["job_name"]) == ("api", "worker")
    assert api["static_configs"][0]["targets"] == ["api:8000"]
    (found,) = worker["dns_sd_configs"]
    assert {"api", *found["names"], "prometheus", "grafana"} <= services.keys()
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert f"WORKER_METRICS_PORT={found['port']}" in dockerfile
    mounted = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    provider = yaml.safe_load(
        (GRAFANA / "provisioning/dashboards/dashboards.yml").read_text("utf-8")
    )
    path = provider["providers"][0]["options"]["path"]
    assert mounted[f"./{DASHBOARD.parent.relative_to(ROOT)}"] == path
    source = yaml.safe_load(
        (GRAFANA / "provisioning/datasources/prometheus.yml").read_text("utf-8")
    )
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    scraped_every = read["global"]["scrape_interval"]
    assert source["datasources"][0]["jsonData"]["timeInterval"] == scraped_every


def test_each_log_event_and_error_code_in_the_runbook_is_one_of_the_code() -> None:
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "app").rglob("*.py"))
    words = {span for span in SPANS if WORD.fullmatch(span) and not span.startswith("mlapi_")}
    assert len(words) > 30
    assert {word for word in words - FIELDS if f'"{word}"' not in code} == set()


def test_each_setting_in_the_runbook_is_one() -> None:
    settings = {name.upper() for name in AllSettings.model_fields} | OF_THE_CLIENT
    named = {span for span in SPANS if SETTING.fullmatch(span)}
    assert len(named) > 15
    assert named - settings == set()


def test_each_command_in_the_runbook_is_one() -> None:
    command = typer.main.get_command(cli)
    named = [span.split()[1:] for span in SPANS if span.startswith("app ")]
    assert len(named) > 5
    for words in named:
        found: Any = command
        for word in words:
            if not hasattr(found, "commands"):
                break  # the rest are its arguments
            assert word in found.commands, words
            found = found.commands[word]


def test_each_target_of_a_link_in_the_runbook_is_there() -> None:
    headings = re.findall(r"^#+ (.+)$", PROSE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK_TEXT):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (RUNBOOK.parent / target).exists(), target


async def test_the_runbooks_statements_run_on_both_databases(database_url: str) -> None:
    statements = runbook_blocks(RUNBOOK_TEXT, "sql")
    assert statements
    async with migrated(database_url) as database:
        for statement in statements:
            await database.read(says(statement))


def test_the_runbook_looks_at_every_alert_with_a_query() -> None:
    for rule in read_rules("alerts.yml"):
        section = RUNBOOK_TEXT.split(f"### {rule['alert']}\n")[1].split("\n### ")[0]
        assert "```promql" in section, rule["alert"]
        assert rule["labels"]["severity"] in section.split(".")[0].lower(), rule["alert"]


def test_each_alarm_of_the_stack_has_its_section() -> None:
    template = Path(ROOT / "deploy/cloudformation/ml-api.yaml").read_text("utf-8")
    alarms = set(re.findall(r"^  (\w+Alarm):$", template, re.MULTILINE))
    assert alarms == {span for span in SPANS if span.endswith("Alarm")}


def test_the_dashboard_is_committed_as_grafana_reads_it() -> None:
    assert json.loads(DASHBOARD.read_text("utf-8"))["uid"] == "ml-api"


async def test_what_alerts_count_is_there_before_it_happens(tmp_path: Path) -> None:
    models = FAKE + '[[models]]\nname = "talker"\ntask = "chat"\nengine = "fake"\n'
    async with serving(tmp_path, models) as client:
        page = (await client.get("/metrics")).text
    counted = {
        name
        for rule in read_rules("alerts.yml")
        for name in re.findall(r"increase\((\w+)", rule["expr"])
    }
    counted -= {"mlapi_embedded_restarts_total"}  # of services that run a worker themselves
    counted -= {"mlapi_model_process_ends_total"}  # of Python classes; test_processes.py tells
    counted -= {"mlapi_model_rollbacks_total"}  # of models with a rule; test_trials.py tells
    assert len(counted) > 5
    for name in counted:
        assert re.search(rf"^{name}(?:{{.*}})? 0.0$", page, re.MULTILINE), name
    for reason in ("overloaded", "deadline"):
        for model in ("dummy", "talker"):
            assert f'mlapi_refused_total{{model="{model}",reason="{reason}"}} 0.0' in page
