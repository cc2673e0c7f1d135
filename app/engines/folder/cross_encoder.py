"""Reads what sentence-transformers' CrossEncoder reads beside a model, such as its activation.

It is done as the library does it (version 6), or refused with a line that names file, field and
remedy. A folder without a word of all this is read as the library reads it too.
"""

from pathlib import Path
from typing import Any

from app.engines.base import Activation
from app.engines.folder.fields import REMOVE, unsupported
from app.engines.folder.module_list import LIBRARY
from app.engines.folder.transformer_settings import (
    MODULES,
    check_transformer,
    has_modules,
)
from app.engines.folder.vector_settings import SETTINGS
from app.engines.tokenizer import read_json
from app.errors import EngineError

# The ends of torch's names: torch.nn.Identity is torch.nn.modules.linear.Identity.
ACTIVATIONS = {"Identity": Activation.LOGITS, "Sigmoid": Activation.SIGMOID}
# Where config.json has named it, the newer place first.
CONFIG_FIELD, OLD_CONFIG_FIELD = "sentence_transformers", "sbert_ce_default_activation_function"
NEUTRAL = {
    "transformer_task": ("sequence-classification",),
    "module_output_name": ("scores",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "logits"}},),
    "unpad_inputs": (False, True),  # how the library computes it, not what
}
# Fields that this service ignores, with the reason. docs/models.md shows the list.
IGNORED = {
    f"{SETTINGS}: prompts, of a cross-encoder": (
        "a caller of the library names one; only a default prompt would change each score"
    ),
    f"{SETTINGS}: keep_in_fp32_modules": "the engine chooses the precision",
    "config.json: problem_type, of a model for text-ranking": "the library doesn't read it either",
}


def ranking_activation(folder: Path) -> Activation:
    """Return what the library makes of a cross-encoder's only number.

    Raises:
        EngineError: another function than a sigmoid or none, a default prompt, or more modules
            than the transformer.

    """
    settings = read_json(folder / SETTINGS) if has_modules(folder) else {}
    if has_modules(folder):
        _check_modules(folder)
        check_transformer(folder, NEUTRAL)
    if name := settings.get("default_prompt_name"):
        raise unsupported(folder / SETTINGS, "default_prompt_name", name, REMOVE)
    config = read_json(folder / "config.json")
    places = (
        (folder / SETTINGS, "activation_fn", settings.get("activation_fn")),
        (
            folder / "config.json",
            f"{CONFIG_FIELD}: activation_fn",
            (config.get(CONFIG_FIELD) or {}).get("activation_fn"),
        ),
        (folder / "config.json", OLD_CONFIG_FIELD, config.get(OLD_CONFIG_FIELD)),
    )
    for file, field, value in places:
        if value is not None:
            return _activation(file, field, value)
    return Activation.SIGMOID


def _activation(file: Path, field: str, value: object) -> Activation:
    package, _, name = str(value).rpartition(".")
    if name not in ACTIVATIONS or not package.startswith("torch."):
        names = " and ".join(ACTIVATIONS)
        raise unsupported(file, field, value, f"of torch.nn {names} are")
    return ACTIVATIONS[name]


def _check_modules(folder: Path) -> None:
    """Check that the folder is one transformer, as all that have a classifier's head are."""
    file = folder / MODULES
    content: list[Any] = read_json(file)  # type: ignore[assignment]  # a list
    types = [str(entry.get("type", "")) for entry in content]
    is_one = len(types) == 1 and types[0].startswith(LIBRARY)
    if not is_one or not types[0].endswith(".Transformer") or content[0].get("path"):
        raise EngineError(
            f"{file}: a cross-encoder here is one Transformer beside this file, and there is"
            f" {', '.join(types) or 'nothing'}"
        )
