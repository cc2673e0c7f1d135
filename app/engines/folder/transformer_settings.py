"""Reads sentence-transformers' settings of the transformer itself: window and case."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.engines.folder.fields import REMOVE, unsupported
from app.engines.tokenizer import read_json

MODULES = "modules.json"
# Where the library looks for the transformer's settings; the first that isn't empty counts.
TRANSFORMER_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
TEXT_IN = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": (TEXT_IN,),
    "unpad_inputs": (False, True),  # how the library computes it, not what
}
# Fields that this service ignores, with the reason. docs/models.md shows the list.
IGNORED = {
    f"{TRANSFORMER_FILES[0]} without a modules.json, of an embedder": (
        "sentence-transformers doesn't read it then either"
    ),
    f"{TRANSFORMER_FILES[0]}: unpad_inputs": "how the library computes it, not what",
}


def has_modules(folder: Path) -> bool:
    """Say whether sentence-transformers has written a folder."""
    return (folder / MODULES).is_file()


def transformer_settings(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """Return the settings of a folder that has modules, and their file."""
    for name in TRANSFORMER_FILES:
        if settings := read_json(folder / name):
            return folder / name, settings
    return folder / TRANSFORMER_FILES[0], {}


def check_transformer(folder: Path, neutral: Mapping[str, tuple[Any, ...]] = NEUTRAL) -> None:
    """Refuse settings that aren't supported here.

    Args:
        folder: the model's.
        neutral: values that ask for nothing else than the library's own class, by field.

    Raises:
        EngineError: names file, field and remedy.

    """
    file, settings = transformer_settings(folder)
    for field, value in settings.items():
        if field == "max_seq_length" and value is not None:
            if type(value) is not int or value <= 0:
                raise unsupported(file, field, value, "say a number of tokens, or null")
        elif field != "do_lower_case" and value not in ({}, None, *neutral.get(field, ())):
            raise unsupported(file, field, value, REMOVE)


def lowers_case(folder: Path) -> bool:
    """Return whether texts are put in lower case before they are tokenised."""
    return has_modules(folder) and bool(transformer_settings(folder)[1].get("do_lower_case"))


def own_window(folder: Path) -> int | None:
    """Return the `max_seq_length` of a folder with modules: it overrules the tokeniser's."""
    return transformer_settings(folder)[1].get("max_seq_length") if has_modules(folder) else None
