"""Whether an object is what its schema says: Kubernetes' own, and the definitions (CRDs) of those who extend it."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.chart.rendering import ROOT, Object

KUBERNETES = ("1.30", "1.36", "1.37")
"""The oldest that the chart takes, and the two newest."""
CRDS = (ROOT / ".chart/crds", Path(__file__).parent / "crds")
WITHOUT_SCHEMA = frozenset({"networking.gke.io/v1/GCPBackendPolicy", "networking.gke.io/v1/HealthCheckPolicy"})
"""Google publishes these with its clusters alone; what they say is in test_edges.py."""


class Wrong(Exception):
    """An object that its schema does not allow."""


@functools.cache
def definitions() -> dict[str, Any]:
    """Schemas of custom resources by `apiVersion/kind`."""
    found = {}
    for path in (p for folder in CRDS for p in sorted(folder.glob("*.yaml"))):
        crd = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec = crd["spec"]
        for version in spec["versions"]:
            name = f"{spec['group']}/{version['name']}/{spec['names']['kind']}"
            found[name] = _strict(copy.deepcopy(version["schema"]["openAPIV3Schema"]), top=True)
    return found


def check(found: Object, version: str) -> None:
    """Raises Wrong. An object of a kind that nobody describes is wrong, too."""
    name = f"{found['apiVersion']}/{found['kind']}"
    if name in WITHOUT_SCHEMA:
        return
    try:
        if name in definitions():
            jsonschema.validate(found, definitions()[name], cls=jsonschema.Draft202012Validator)
        else:
            kubernetes_validate.validate(found, version, strict=True)
    except jsonschema.ValidationError as error:
        where = ".".join(str(part) for part in error.path)
        raise Wrong(f"{name} {found['metadata']['name']}: {where}: {error.message}") from None
    except kubernetes_validate.SchemaNotFoundError:
        raise Wrong(f"{name}: Kubernetes {version} knows no such kind") from None


def _strict(schema: Any, *, top: bool = False) -> Any:
    """As the API server does with `fieldValidation: Strict`: a field that is not described is wrong."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("anyOf", None)
        schema["type"] = ["integer", "string"]
    if schema.pop("nullable", False) and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    if "pattern" in schema:
        # Go takes flags in the middle.
        schema["pattern"] = schema["pattern"].replace("^(?i)", "(?i)^")
    properties = schema.get("properties")
    if properties and not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    if top:
        properties["metadata"] = {"type": "object"}
    return {key: _strict_value(key, value) for key, value in schema.items()}


def _strict_value(key: str, value: Any) -> Any:
    if key == "properties":
        return {name: _strict(part) for name, part in value.items()}
    # Alternatives only say which of the properties beside them must be there.
    return value if key in ("default", "enum", "required", "anyOf", "oneOf", "allOf", "not") else _strict(value)
