"""Writes `ModelSpec`s as a catalogue."""

import json
from collections.abc import Sequence
from pathlib import Path

from app.models.catalog import OWN_TYPES, ModelSpec


def write_catalog(specs: Sequence[ModelSpec], path: Path) -> None:
    """Write a catalogue that `read_catalog` reads as the same entries."""
    path.write_text(catalog_text(specs), encoding="utf-8")


def catalog_text(specs: Sequence[ModelSpec]) -> str:
    """Return entries as `write_catalog` writes them."""
    tables = []
    for spec in specs:
        fields = spec.model_dump(mode="json", exclude_defaults=True)
        # A limit that an entry names counts even if it is what others have without a word.
        fields["limits"] = spec.limits.model_dump(mode="json", exclude_unset=True)
        fields = {name: value for name, value in fields.items() if value != {}}
        if spec.engine in OWN_TYPES:
            fields.pop("task", None)  # it has no other
        lines = [f"{name} = {_toml(value)}\n" for name, value in fields.items()]
        tables.append("[[models]]\n" + "".join(lines))
    return "\n".join(tables)


def _toml(value: object) -> str:
    """Return a value as TOML, which is as JSON but for tables and one control character."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_toml(content)}" for key, content in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
