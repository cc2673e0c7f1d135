"""Check the rules of Prometheus, Grafana's dashboard and the runbook: each against the others.

promtool reads and tests the rules; what it can't know is checked here: that everything named in
them exists.
"""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from app.core.metrics import PREFIX
from app.main import installed
from scripts.skips import skip

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus" / "prometheus.yml"
RULES = PROMETHEUS.parent / "rules"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "ml-api.json"
DATASOURCE = GRAFANA / "provisioning" / "datasources" / "prometheus.yml"
RUNBOOK = ROOT / "docs" / "runbook.md"
SEVERITIES = {"critical", "warning"}
# What Prometheus itself makes.
OF_PROMETHEUS = {"up", "ALERTS"}
SUFFIXES = {
    "counter": ("",),
    "gauge": ("",),
    # Prose names it without an ending. A query that does finds nothing: tests/system tells.
    "histogram": ("", "_bucket", "_sum", "_count"),
    "summary": ("", "_sum", "_count"),
}
SERIES = re.compile(r"\b(?:mlapi|http|process|python)_\w+|\b\w+:\w+:\w+")
# A line of the tables in docs/metrics.md.
DOCUMENTED = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| (\w+) \|", re.MULTILINE)
ANCHOR = re.compile(r"^### (\w+)$", re.MULTILINE)
PROMTOOL = (
    ("check", "config", str(PROMETHEUS)),
    ("test", "rules", str(RULES / "tests.yml")),
)


def read_rules(name: str) -> list[Json]:
    """Read the rules of one file, of all its groups."""
    read = yaml.safe_load((RULES / name).read_text(encoding="utf-8"))
    return [rule for group in read["groups"] for rule in group["rules"]]


def read_dashboard() -> Json:
    """Read the dashboard."""
    read: Json = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def dashboard_queries(dashboard: Json) -> dict[str, str]:
    """Return each query, by its panel and letter."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    }


def runbook_blocks(runbook: str, language: str) -> list[str]:
    """Return the runbook's blocks in a language, such as promql."""
    return re.findall(rf"^```{language}\n(.*?)^```$", runbook, re.MULTILINE | re.DOTALL)


def known_series() -> set[str]:
    """Return the name of every series that a scrape or a recording rule makes."""
    documented = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    kinds = [
        (name.strip("`"), kind)
        for names, kind in DOCUMENTED.findall(documented)
        for name in names.split(", ")
    ]
    for family in installed().metrics()[0].registry.collect():
        if not family.name.startswith(PREFIX):
            name = family.name + "_total" * (family.type == "counter")
            kinds.append((name, family.type))
    scraped = {name + suffix for name, kind in kinds for suffix in SUFFIXES[kind]}
    return scraped | {rule["record"] for rule in read_rules("recording.yml")} | OF_PROMETHEUS


def find_unknown(where: str, text: str) -> Iterator[str]:
    """Name the series in a text that nothing makes."""
    for name in sorted(set(SERIES.findall(text)) - known_series()):
        yield f"{where}: there is no {name}"


def find_in_alerts(alerts: list[Json], runbook: str, tests: str) -> Iterator[str]:
    """See that each alert says what a person needs, and is tested; and that no section is left."""
    sections = set(ANCHOR.findall(runbook))
    for rule in alerts:
        name, said = rule["alert"], rule.get("annotations", {})
        if rule.get("labels", {}).get("severity") not in SEVERITIES:
            yield f"{name}: severity is one of {', '.join(sorted(SEVERITIES))}"
        if not said.get("summary"):
            yield f"{name} has no summary"
        if said.get("runbook_url") != f"docs/runbook.md#{name.lower()}":
            yield f"{name}: its runbook_url isn't its section"
        if name not in sections:
            yield f"{name} has no section in the runbook"
        if f'alertname="{name}"' not in tests:
            yield f"{name} is never seen to fire in tests.yml"
    for name in sorted(sections - {rule["alert"] for rule in alerts}):
        yield f"the runbook has a section {name}, which is no alert"


def find_in_dashboard(dashboard: Json) -> Iterator[str]:
    """Hold the dashboard against its data source, the metrics, and the plane."""
    source = yaml.safe_load(DATASOURCE.read_text(encoding="utf-8"))["datasources"][0]["uid"]
    panels = dashboard["panels"]
    used = json.dumps(dashboard)
    if set(re.findall(r'"type": "prometheus", "uid": "(.*?)"', used)) != {source}:
        yield "a panel asks another data source than the one that is provisioned"
    for number, count in Counter(panel["id"] for panel in panels).items():
        if count > 1:
            yield f"{count} panels have the id {number}"
    places = Counter(place for panel in panels for place in _places(panel["gridPos"]))
    if any(count > 1 for count in places.values()):
        yield "panels overlap"
    yield from find_unknown("dashboard", used)
    recorded = json.dumps([r["expr"] for r in read_rules("recording.yml") if r["record"] in used])
    shown = set(SERIES.findall(used + recorded))
    for family in installed().metrics()[0].registry.collect():
        ours = family.name.startswith(PREFIX)
        if ours and not any(name.startswith(family.name) for name in shown):
            yield f"the dashboard doesn't show {family.name}"


def _places(box: dict[str, int]) -> Iterator[tuple[int, int]]:
    yield from product(range(box["x"], box["x"] + box["w"]), range(box["y"], box["y"] + box["h"]))


def find_everything() -> Iterator[str]:
    """Make all checks but promtool's."""
    alerts = read_rules("alerts.yml")
    runbook = RUNBOOK.read_text(encoding="utf-8")
    yield from find_in_alerts(alerts, runbook, (RULES / "tests.yml").read_text(encoding="utf-8"))
    for path in (*sorted(RULES.glob("*.yml")), RUNBOOK):
        yield from find_unknown(path.name, path.read_text(encoding="utf-8"))
    yield from find_in_dashboard(read_dashboard())


def find_with_promtool(promtool: str) -> Iterator[str]:
    """Have promtool read the configuration and run the tests of the rules."""
    for command in PROMTOOL:
        done = subprocess.run([promtool, *command], check=False, capture_output=True, text=True)
        if done.returncode:
            yield f"promtool {' '.join(command[:2])}:\n{done.stdout}{done.stderr}"


def main() -> None:
    """Check everything."""
    said = list(find_everything())
    if promtool := shutil.which("promtool"):
        said += find_with_promtool(promtool)
    else:
        skip("the tests of the alerts; there is no promtool (Debian: prometheus)")
    if said:
        sys.exit("monitoring is wrong:\n" + "\n".join(said))
    print("monitoring: rules, dashboard and runbook are right")


if __name__ == "__main__":
    main()
