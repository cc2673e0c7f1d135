"""Reads an embedder's prompts, dimensions and similarity: of its folder, and of its entry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.engines.base import EmbeddingOptions
from app.engines.folder.fields import REMOVE, unsupported
from app.engines.folder.transformer_settings import has_modules
from app.engines.tokenizer import read_json
from app.engines.vector_rules import DOCUMENT, QUERY, Similarity, VectorRules
from app.errors import EngineError

SETTINGS = "config_sentence_transformers.json"
FIELDS = {
    "__version__",
    "model_type",
    "prompts",
    "default_prompt_name",
    "truncate_dim",
    "similarity_fn_name",
}
# Fields that this service ignores, with the reason. docs/models.md shows the list.
IGNORED = {
    f"{SETTINGS}: __version__": "the versions that the model was made with",
    f"{SETTINGS}: model_type": "that it is a SentenceTransformer; another is refused",
    f"{SETTINGS} without a modules.json": "sentence-transformers doesn't read it then either",
}


def read_vector_rules(folder: Path, options: EmbeddingOptions, *, is_unit: bool) -> VectorRules:
    """Return what holds for an embedder's texts and vectors.

    Args:
        folder: the model's.
        options: the catalogue's; its prompts come before the folder's.
        is_unit: the model's modules end in a scaling to length 1.

    Raises:
        EngineError: something isn't supported here, or folder and catalogue contradict each other.

    """
    file = folder / SETTINGS
    settings = read_json(file) if has_modules(folder) else {}
    _check(file, settings)
    prompts = {QUERY: "", DOCUMENT: ""} | _prompts(file, settings) | dict(options.prompts)
    cut = settings.get("truncate_dim")
    if cut and options.dimensions and options.dimensions != cut:
        raise EngineError(
            f"{file}: truncate_dim: is {cut}, and the catalogue's dimensions are"
            f" {options.dimensions}; remove one of the two"
        )
    return VectorRules(
        prompts=prompts,
        default_prompt=_default_prompt(file, settings.get("default_prompt_name"), prompts),
        similarity=Similarity(settings.get("similarity_fn_name") or Similarity.COSINE),
        is_unit=is_unit,
        dimensions=cut or options.dimensions,
        # The catalogue's setting, as the library's `normalize_embeddings`: cut first, scaled then.
        scales_again=cut is None or options.dimensions is not None or options.normalize is True,
    )


def _check(file: Path, settings: Mapping[str, Any]) -> None:
    for field in set(settings) - FIELDS:
        if settings[field] not in ({}, None):
            raise unsupported(file, field, settings[field], REMOVE)
    if settings.get("model_type") not in (None, "SentenceTransformer"):
        raise unsupported(file, "model_type", settings["model_type"], "use a SentenceTransformer")
    similarity = settings.get("similarity_fn_name")
    if similarity is not None and similarity not in list(Similarity):
        names = ", ".join(Similarity)
        raise unsupported(file, "similarity_fn_name", similarity, f"known are {names}")
    cut = settings.get("truncate_dim")
    if cut is not None and (type(cut) is not int or cut <= 0):
        raise unsupported(file, "truncate_dim", cut, "say how many dimensions to keep, or null")


def _prompts(file: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    prompts = settings.get("prompts", {})
    is_table = isinstance(prompts, dict)
    if not is_table or not all(isinstance(p, str | None) for p in prompts.values()):
        raise unsupported(file, "prompts", prompts, "say a text for each name")
    return {name: prompt or "" for name, prompt in prompts.items()}


def _default_prompt(file: Path, name: object, prompts: Mapping[str, str]) -> str:
    if name is None:
        return ""
    if not isinstance(name, str) or name not in prompts:
        names = ", ".join(sorted(prompts))
        raise unsupported(
            file, "default_prompt_name", name, f"there are {names}; or set it to null"
        )
    return prompts[name]
