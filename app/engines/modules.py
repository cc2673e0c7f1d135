"""Which modules make a vector of token embeddings, as sentence-transformers writes them.

modules.json names them in order, each with a folder of its own. What they say is done as the
library does it (version 6), or refused with a line that names file, field and cure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.engines.tokenizer import read_json
from app.errors import EngineError

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
# Flags of older versions, in the order in which the library puts the pooled vectors together.
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
MODES = frozenset(FLAGS.values())
# Without a prompt nothing is left out of the pooling, whatever this says.
POOLING_FIELDS = {"embedding_dimension", "word_embedding_dimension", "include_prompt"}
DENSE_FIELDS = {"in_features", "out_features", "bias", "activation_function"}
ACTIVATIONS = "torch.nn.modules.activation."
IDENTITY = "torch.nn.modules.linear.Identity"
TANH = f"{ACTIVATIONS}Tanh"  # what the library takes where none is named
# Fields whose one value means that nothing else is asked for.
NEUTRAL_DENSE = {
    "use_residual": (False,),
    "module_input_name": ("sentence_embedding",),
    "module_output_name": ("sentence_embedding", None),
}
# Where the library looks for the transformer's settings; the first that is there counts.
TRANSFORMER_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
REMOVE = "remove it if the model is right without"
TEXT_IN = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
NEUTRAL_TRANSFORMER = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": (TEXT_IN,),
    "unpad_inputs": (None,),  # how the library computes it, not what
}
# What the files say and this service leaves aside, with the reason. docs/models.md shows the list.
IGNORED = {
    f"{SETTINGS}: prompts": "a text is embedded without one unless the model's default names it",
    f"{SETTINGS}: __version__": "the versions that the model was made with",
    f"{SETTINGS}: model_type": "that it is a SentenceTransformer; another is refused",
    "1_Pooling/config.json: include_prompt": "without a prompt there is nothing to leave out",
    f"{MODULES}: idx, name": "only the order counts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Makes one vector of the tokens', or several, one behind the other."""

    modes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A linear layer and an activation function of torch."""

    weights: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str  # the name of a class of torch.nn


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNorm:
    """Layer normalisation with weights of its own."""

    weights: Path
    dimension: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalize:
    """Scales to length 1."""


Step = Pooling | Dense | LayerNorm | Normalize
# Of a folder that transformers alone has written.
PLAIN: tuple[Step, ...] = (Pooling(modes=("mean",)), Normalize())


def read_modules(folder: Path) -> tuple[Step, ...]:
    """Return what follows the transformer; a folder without modules.json is mean-pooled and scaled.

    Raises:
        EngineError: it asks for what this service doesn't do.

    """
    if not (folder / MODULES).is_file():
        return PLAIN
    listed: list[Mapping[str, Any]] = read_json(folder / MODULES)  # type: ignore[assignment]  # a list
    kinds = [_kind(folder, module) for module in listed]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise EngineError(
            f"{folder / MODULES}: begins with {', '.join(kinds[:2]) or 'nothing'}; an embedder here"
            " begins with Transformer, Pooling"
        )
    if listed[0].get("path"):
        raise EngineError(
            f"{folder / MODULES}: path: the transformer lies in {listed[0]['path']!r}; save the"
            " model anew with a current sentence-transformers, which puts it beside modules.json"
        )
    _check_settings(folder)
    _check_transformer(folder)
    return tuple(
        READERS[kind](folder / str(module["path"]))
        for kind, module in zip(kinds[1:], listed[1:], strict=True)
    )


def lowers_case(folder: Path) -> bool:
    """Return whether texts are put in lower case before they are tokenised."""
    if not (folder / MODULES).is_file():
        return False
    return bool(_transformer_settings(folder)[1].get("do_lower_case"))


def module_files(folder: Path) -> list[Path]:
    """Return the files of the modules behind the transformer, in a fixed order."""
    if not (folder / MODULES).is_file():
        return []
    listed: list[Mapping[str, Any]] = read_json(folder / MODULES)  # type: ignore[assignment]  # a list
    inside = [folder / str(module.get("path") or ".") for module in listed]
    return sorted(
        file
        for path in inside
        if path != folder and path.is_dir()
        for file in path.iterdir()
        if file.suffix in {".json", ".safetensors"}
    )


def _kind(folder: Path, module: Mapping[str, Any]) -> str:
    """Return a module's class, where it is one of the library's that is done here."""
    path = str(module.get("type", ""))
    package, _, kind = path.rpartition(".")
    if not package.startswith("sentence_transformers.") or kind not in {"Transformer", *READERS}:
        raise EngineError(
            f"{folder / MODULES}: type: {path!r} is not done here; of sentence-transformers"
            f" Transformer, {', '.join(READERS)} are"
        )
    return kind


def _check_settings(folder: Path) -> None:
    file = folder / SETTINGS
    settings = read_json(file)
    name = settings.get("default_prompt_name")
    if name and (settings.get("prompts") or {}).get(name):
        raise _unsupported(
            file,
            "default_prompt_name",
            name,
            "set it to null, and put the prompt before the texts that need it",
        )
    if settings.get("truncate_dim"):
        raise _unsupported(file, "truncate_dim", settings["truncate_dim"], "set it to null")
    if settings.get("similarity_fn_name") not in {None, "cosine"}:
        raise _unsupported(
            file,
            "similarity_fn_name",
            settings["similarity_fn_name"],
            "the index here compares by cosine: set it to cosine if that is right for the model",
        )
    if settings.get("model_type") not in {None, "SentenceTransformer"}:
        raise _unsupported(file, "model_type", settings["model_type"], "use a SentenceTransformer")


def _transformer_settings(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    for name in TRANSFORMER_FILES:
        if (folder / name).is_file():
            return folder / name, read_json(folder / name)
    return folder / TRANSFORMER_FILES[0], {}


def _check_transformer(folder: Path) -> None:
    file, settings = _transformer_settings(folder)
    for field, value in settings.items():
        if field in {"max_seq_length", "do_lower_case"} or value in ({}, None):
            continue
        if value not in NEUTRAL_TRANSFORMER.get(field, ()):
            raise _unsupported(file, field, value, REMOVE)


def _unsupported(file: Path, field: str, value: object, cure: str) -> EngineError:
    return EngineError(f"{file}: {field}: {value!r} is not done here; {cure}")


def _pooling(folder: Path) -> Pooling:
    file = folder / "config.json"
    config = _required(file)
    for field in set(config) - {"pooling_mode", *FLAGS, *POOLING_FIELDS}:
        raise _unsupported(file, field, config[field], REMOVE)
    modes = config.get("pooling_mode") or [m for flag, m in FLAGS.items() if config.get(flag)]
    named = (modes,) if isinstance(modes, str) else tuple(modes) or ("mean",)
    for mode in named:
        if mode not in MODES:
            raise _unsupported(file, "pooling_mode", mode, f"known are {', '.join(sorted(MODES))}")
    return Pooling(modes=named)


def _dense(folder: Path) -> Dense:
    file = folder / "config.json"
    config = _required(file)
    for field in set(config) - DENSE_FIELDS:
        if config[field] not in NEUTRAL_DENSE.get(field, ()):
            raise _unsupported(file, field, config[field], REMOVE)
    activation = str(config.get("activation_function", TANH))
    if activation != IDENTITY and not activation.startswith(ACTIVATIONS):
        raise _unsupported(file, "activation_function", activation, f"use one of {ACTIVATIONS}*")
    return Dense(
        weights=_weights(folder),
        in_features=int(config["in_features"]),
        out_features=int(config["out_features"]),
        bias=bool(config.get("bias", True)),
        activation=activation.rpartition(".")[2],
    )


def _layer_norm(folder: Path) -> LayerNorm:
    dimension = int(_required(folder / "config.json")["dimension"])
    return LayerNorm(weights=_weights(folder), dimension=dimension)


def _normalize(folder: Path) -> Normalize:
    file = folder / "config.json"
    for field, value in read_json(file).items():
        if value not in NEUTRAL_DENSE.get(field, ()):
            raise _unsupported(file, field, value, REMOVE)
    return Normalize()


def _required(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise EngineError(f"{file}: is missing, and {MODULES} names its module")
    return read_json(file)


def _weights(folder: Path) -> Path:
    file = folder / "model.safetensors"
    if not file.is_file():
        raise EngineError(
            f"{file}: is missing: save the module's weights as safetensors, pickles are not read"
        )
    return file


READERS: Mapping[str, Callable[[Path], Step]] = {
    "Pooling": _pooling,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
}
