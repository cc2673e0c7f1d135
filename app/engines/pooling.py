"""Makes vectors of token embeddings, as sentence-transformers' modules do; torch alone.

The torch engine runs it, and OpenVINO's graph is traced from it.
"""

from collections.abc import Sequence
from typing import Any

from app.engines.folder.modules import (
    Dense,
    LayerNorm,
    Normalize,
    Step,
    ends_in_unit_length,
    pooling_of,
)
from app.errors import EngineError

LEAST = 1e-9  # keeps a text without tokens from dividing by 0; the library's own


def make_head(torch: Any, steps: Sequence[Step], *, width: int) -> Any:
    """Return a torch module: `(hidden, mask, pooled) -> vectors`, without a Normalize at the end.

    `mask` is 1 where a token is no padding, `pooled` where it isn't left out of the pooling either.

    Scaling to length 1 at the end is left to float32 outside: in bfloat16 the length would be off.

    Args:
        torch: the library.
        steps: of `read_modules`.
        width: of a token's embedding.

    Raises:
        EngineError: widths or weights don't fit.

    """
    inner_steps = steps[1:-1] if ends_in_unit_length(steps) else steps[1:]
    modules, modes = [], pooling_of(steps).modes
    width *= len(modes)
    for step in inner_steps:
        module, width = _module(torch, step, width)
        modules.append(module)

    class Head(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.steps = torch.nn.ModuleList(modules)

        def forward(self, hidden: Any, mask: Any, pooled: Any) -> Any:
            vectors = torch.cat([_pool(mode, hidden, mask, pooled) for mode in modes], -1)
            for step in self.steps:
                vectors = step(vectors)
            return vectors

    head = Head().eval().requires_grad_(requires_grad=False)
    head.dimensions = width
    return head


def _pool(mode: str, hidden: Any, mask: Any, pooled: Any) -> Any:
    """Return (batch, width); padding may be on either side."""
    weights = pooled.unsqueeze(-1).to(hidden.dtype)
    if mode == "max":
        return hidden.masked_fill(weights == 0, float("-inf")).max(dim=1).values
    # How many of the pooled tokens there are up to each, itself included.
    place = pooled.cumsum(1)
    if mode == "cls":
        return (hidden * _chosen(place == 1, weights)).sum(1)
    if mode == "lasttoken":
        return (hidden * _chosen(place == pooled.sum(1, keepdim=True), weights)).sum(1)
    if mode == "weightedmean":
        # By their places in the text, those that are left out counted.
        weights = weights * mask.cumsum(1).unsqueeze(-1).to(hidden.dtype)
    total, count = (hidden * weights).sum(1), weights.sum(1).clamp(min=LEAST)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)


def _chosen(is_place: Any, weights: Any) -> Any:
    return is_place.unsqueeze(-1).to(weights.dtype) * weights


def _module(torch: Any, step: Step, width: int) -> tuple[Any, int]:
    """Return a module with its weights, and the width of what it gives."""
    nn = torch.nn
    if isinstance(step, Dense):
        _fits(step.in_features, width, step)
        linear = nn.Linear(step.in_features, step.out_features, bias=step.bias)
        _fill(linear, step.weights, prefix="linear.")
        return nn.Sequential(linear, _activation(nn, step.activation)), step.out_features
    if isinstance(step, LayerNorm):
        _fits(step.dimension, width, step)
        norm = nn.LayerNorm(step.dimension)
        _fill(norm, step.weights, prefix="norm.")
        return norm, width
    assert isinstance(step, Normalize)  # noqa: S101  # there is no fourth kind

    return _unit(torch), width


def _unit(torch: Any) -> Any:
    class Unit(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def forward(self, vectors: Any) -> Any:
            return torch.nn.functional.normalize(vectors, dim=-1)

    return Unit()


def _activation(nn: Any, name: str) -> Any:
    try:
        return getattr(nn, name)()
    except (AttributeError, TypeError) as failure:
        raise EngineError(
            f"activation_function: {name!r} can't be made without arguments"
        ) from failure


def _fits(expected: int, width: int, step: Dense | LayerNorm) -> None:
    if expected != width:
        raise EngineError(
            f"{step.weights.parent}: takes {expected} dimensions, and is given {width}"
        )


def _fill(module: Any, file: Any, *, prefix: str) -> None:
    from safetensors.torch import load_file

    tensors = {name.removeprefix(prefix): tensor for name, tensor in load_file(file).items()}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as failure:
        reason = " ".join(str(failure).split())
        raise EngineError(f"{file}: the weights don't fit: {reason}") from failure
