"""Whether Kubernetes and its operators take an object, by the schemas that packages carry."""

import json
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its types are a package of their own
import kubernetes_validate

Json = dict[str, Any]

# The oldest that anybody still maintains, and the newest: kubernetes-validate has all between.
VERSIONS = ("1.33", "1.37")
# Of operators: (group, kind) -> the module whose class of that name is generated from its CRD.
MODELS = {
    ("keda.sh/v1alpha1", "ScaledObject"): "cloudcoil.models.keda.v1alpha1",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "cloudcoil.models.prometheus_operator.v1",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "cloudcoil.models.prometheus_operator.v1",
}


def kind_of(document: Json) -> tuple[str, str]:
    """Return an object's API version and kind."""
    return document["apiVersion"], document["kind"]


def find_in_schema(document: Json, *, with_custom: bool) -> tuple[str, ...]:
    """Hold an object against its schemas; operators' only if asked: reading those takes seconds."""
    if kind_of(document) in MODELS and not with_custom:
        return ()
    return _find(json.dumps(document, sort_keys=True))


@cache  # the same objects come in many combinations
def _find(text: str) -> tuple[str, ...]:
    document = json.loads(text)
    find = find_in_custom if kind_of(document) in MODELS else find_in_builtin
    return tuple(find(document))


def find_in_builtin(document: Json) -> Iterator[str]:
    """Hold an object against the schemas of each version, unknown fields included."""
    where = f"{document['kind']} {document['metadata']['name']}"
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as invalid:
            place = ".".join(map(str, invalid.absolute_path))
            yield f"{where}, Kubernetes {version}: {place}: {invalid.message}"
        except kubernetes_validate.SchemaNotFoundError:
            yield f"{where}: Kubernetes {version} has no such kind in {document['apiVersion']}"


def find_in_custom(document: Json) -> Iterator[str]:
    """Hold an operator's object against its schema, unknown fields included."""
    where = f"{document['kind']} {document['metadata']['name']}"
    for error in jsonschema.Draft202012Validator(_schema(kind_of(document))).iter_errors(document):
        yield f"{where}: {'.'.join(map(str, error.absolute_path))}: {error.message}"


@cache  # reading these modules takes seconds
def _schema(kind: tuple[str, str]) -> Json:
    model = getattr(import_module(MODELS[kind]), kind[1])
    schema: Json = model.model_json_schema(by_alias=True)
    # Kubernetes' own part, which has a schema of its own.
    for part in (schema, *schema["$defs"].values()):
        if "properties" in part:
            part["additionalProperties"] = False
    return schema
