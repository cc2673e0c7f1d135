"""The CloudFormation template and cfn-lint, which takes seconds."""

import json

import pytest

from scripts.check_deploy import TEMPLATE, find_with_cfn_lint, read_template

pytestmark = pytest.mark.system


def test_the_template_passes_without_a_warning() -> None:
    assert find_with_cfn_lint(TEMPLATE.read_text(encoding="utf-8")) == []


def test_a_wrong_size_an_unknown_key_and_a_missing_secret_are_found() -> None:
    template = read_template()
    resources = template["Resources"]
    resources["ApiTaskDefinition"]["Properties"]["Memory"] = "2048"
    resources["WorkerTaskDefinition"]["Properties"]["Memroy"] = "2048"
    del resources["AdminKey"]
    said = find_with_cfn_lint(json.dumps(template))
    for rule, name in (("E3047", "2048"), ("E3002", "Memroy"), ("E1020", "AdminKey")):
        assert any(rule in each and name in each for each in said), said
