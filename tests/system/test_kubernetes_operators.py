"""Operators' objects of deploy/kubernetes, by their own schemas, which take seconds to read."""

import copy

import pytest
from linters import missing

from scripts.check_kubernetes import find_everything
from scripts.kubernetes_build import build_all, kustomize, named
from scripts.kubernetes_schemas import find_in_schema

pytestmark = pytest.mark.system


def test_keda_and_prometheus_operator_take_them_and_would_refuse_what_they_do_not_know() -> None:
    command = kustomize()
    if command is None:
        missing("kubectl")
    built = build_all(command)
    assert list(find_everything(built, with_custom=True)) == []
    objects = [*built["all with keda"]]
    for kind, name in (
        ("ScaledObject", "ml-api"),
        ("ServiceMonitor", "ml-api"),
        ("PrometheusRule", "ml-api"),
    ):
        changed = copy.deepcopy(named(objects, kind)[name])
        changed["spec"]["unheardOf"] = 1
        (finding,) = find_in_schema(changed, with_custom=True)
        assert "unheardOf" in finding
        del changed["spec"]
        assert find_in_schema(changed, with_custom=True)
