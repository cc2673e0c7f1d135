"""Prometheus' rules as prometheus-operator takes them: made of those of deploy/prometheus."""

from pathlib import Path

import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "rules"
MANIFEST = DEPLOY / "kubernetes" / "components" / "monitoring" / "rules.yaml"
HEAD = "# Made by `make docs` from deploy/prometheus/rules; edit those instead.\n"


def rules_manifest() -> str:
    """Return the object with all groups, recording rules first; in one object each needs a name."""
    groups = [
        group | {"name": f"{name}-{group['name']}"}
        for name in ("recording", "alerts")
        for group in yaml.safe_load((RULES / f"{name}.yml").read_text(encoding="utf-8"))["groups"]
    ]
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "ml-api",
            "labels": {"app.kubernetes.io/name": "ml-api", "release": "prometheus"},
        },
        "spec": {"groups": groups},
    }
    written: str = yaml.safe_dump(manifest, sort_keys=False, width=100)
    return HEAD + written
