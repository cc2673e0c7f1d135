"""Which modules make a vector of token embeddings, as sentence-transformers writes them.

modules.json names them in order, each with a folder of its own. What they say is done as the
library does it (version 6), or refused with a line that names file, field and remedy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.engines.base import EmbeddingOptions
from app.engines.folder.fields import REMOVE, unsupported
from app.engines.folder.module_list import read_list
from app.engines.folder.transformer_settings import MODULES, check_transformer, has_modules
from app.engines.tokenizer import read_json
from app.errors import EngineError

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
WIDTHS = {"embedding_dimension", "word_embedding_dimension"}
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
# Fields that this service ignores, with the reason. docs/models.md shows the list.
IGNORED = {
    "the Pooling's config.json: embedding_dimension, word_embedding_dimension": (
        "the width is the model's own; the library only reports these"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Makes one vector of the tokens', or several, one behind the other."""

    modes: tuple[str, ...]
    includes_prompt: bool = True

    @property
    def name(self) -> str:
        """The poolings, as an edition of vectors names them."""
        return "+".join(self.modes)


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


def read_modules(folder: Path, options: EmbeddingOptions) -> tuple[Step, ...]:
    """Return what follows the transformer; a folder without modules.json is mean-pooled and scaled.

    Args:
        folder: the model's.
        options: the catalogue's: a pooling and a scaling for a folder that doesn't say.

    Raises:
        EngineError: it asks for what this service doesn't do, or the two contradict each other.

    """
    if not has_modules(folder):
        pooling = Pooling(modes=options.pooling or ("mean",))
        return (pooling,) if options.normalize is False else (pooling, Normalize())
    steps = _read(folder)
    pooling, is_unit = pooling_of(steps), ends_in_unit_length(steps)
    if options.pooling and options.pooling != pooling.modes:
        raise _contradiction(folder, "pooling", pooling.name)
    if options.normalize is False and is_unit:
        raise _contradiction(folder, "normalize", "Normalize")
    return (*steps, Normalize()) if options.normalize and not is_unit else steps


def pooling_of(steps: Sequence[Step]) -> Pooling:
    """Return the first step."""
    first = steps[0]
    assert isinstance(first, Pooling)  # noqa: S101  # `read_modules` sees to it
    return first


def ends_in_unit_length(steps: Sequence[Step]) -> bool:
    """Say whether the last module scales to length 1."""
    return isinstance(steps[-1], Normalize)


def names_of(steps: Sequence[Step]) -> tuple[str, ...]:
    """Return the poolings and the modules behind them, but for a scaling at the end."""
    counted = steps[:-1] if ends_in_unit_length(steps) else steps
    return tuple(s.name if isinstance(s, Pooling) else type(s).__name__ for s in counted)


def _contradiction(folder: Path, field: str, module: str) -> EngineError:
    return EngineError(
        f"{folder / MODULES}: names {module}, and the catalogue's {field} says otherwise; remove"
        f" {field} from the catalogue, or change the folder"
    )


def _read(folder: Path) -> tuple[Step, ...]:
    modules = read_list(folder)
    check_transformer(folder)
    return tuple(READERS[module.kind](folder / module.path) for module in modules[1:])


def _pooling(folder: Path) -> Pooling:
    file = folder / "config.json"
    config = _required(file)
    for field in set(config) - {"pooling_mode", *FLAGS, *WIDTHS, "include_prompt"}:
        raise unsupported(file, field, config[field], REMOVE)
    flagged = [mode for flag, mode in FLAGS.items() if config.get(flag)]
    modes = config.get("pooling_mode", flagged or ["mean"])
    names = [modes] if isinstance(modes, str) else modes
    if not isinstance(names, list) or not names:
        raise unsupported(file, "pooling_mode", modes, "name one, or a list of some")
    for mode in names:
        if not isinstance(mode, str) or mode not in MODES:
            raise unsupported(file, "pooling_mode", mode, f"known are {', '.join(sorted(MODES))}")
    return Pooling(modes=tuple(names), includes_prompt=bool(config.get("include_prompt", True)))


def _dense(folder: Path) -> Dense:
    file = folder / "config.json"
    config = _required(file)
    for field in set(config) - DENSE_FIELDS:
        if config[field] not in NEUTRAL_DENSE.get(field, ()):
            raise unsupported(file, field, config[field], REMOVE)
    activation = str(config.get("activation_function", TANH))
    if activation != IDENTITY and not activation.startswith(ACTIVATIONS):
        raise unsupported(file, "activation_function", activation, f"use one of {ACTIVATIONS}*")
    return Dense(
        weights=_weights(folder),
        in_features=_size(file, config, "in_features"),
        out_features=_size(file, config, "out_features"),
        bias=bool(config.get("bias", True)),
        activation=activation.rpartition(".")[2],
    )


def _layer_norm(folder: Path) -> LayerNorm:
    file = folder / "config.json"
    config = _required(file)
    for field in set(config) - {"dimension"}:
        raise unsupported(file, field, config[field], REMOVE)
    return LayerNorm(weights=_weights(folder), dimension=_size(file, config, "dimension"))


def _normalize(folder: Path) -> Normalize:
    file = folder / "config.json"
    for field, value in read_json(file).items():
        if value not in NEUTRAL_DENSE.get(field, ()):
            raise unsupported(file, field, value, REMOVE)
    return Normalize()


def _size(file: Path, config: Mapping[str, Any], field: str) -> int:
    size = config.get(field)
    if type(size) is not int or size <= 0:
        raise unsupported(file, field, size, "say how many there are")
    return size


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
