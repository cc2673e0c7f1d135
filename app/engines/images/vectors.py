"""Which of a model's numbers are the vector of an image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.errors import EngineError

TOKENS_DIMENSIONS = 3  # images, tokens, width


@dataclass(frozen=True, slots=True)
class Run:
    """A model, and what is answered of its output.

    Args:
        model: a torch module.
        output: returns a tensor, (images, columns), of what the model returns.
        method: of the model, where it isn't its `forward`.

    """

    model: Any
    output: Callable[[Any], Any]
    method: str = "forward"

    def __call__(self, pixels: Any) -> Any:
        """Return the tensor for pixels, (images, channels, height, width)."""
        return self.output(getattr(self.model, self.method)(pixel_values=pixels))


def vectors_of(model: Any, pooling: tuple[str, ...]) -> Run:
    """Return how vectors are made.

    Without a pooling it is what transformers calls the pooled output: of a ViT its pooler's, of
    DINOv2 the first token, of a convolutional network the mean of the places, of CLIP and SigLIP
    the vector that is compared with those of texts.

    Args:
        model: of transformers.
        pooling: by the entry: the first token ("cls"), or the mean of all of them.

    Raises:
        EngineError: it can't be had of such a model.

    """
    if not pooling:
        if hasattr(model, "get_image_features"):
            return Run(model, _features, "get_image_features")
        return Run(model, _pooled)
    if pooling == ("cls",):
        return Run(model, lambda output: _tokens(output)[:, 0])
    if pooling == ("mean",):
        return Run(model, lambda output: _tokens(output).mean(dim=1))
    raise EngineError(
        f'pooling {" and ".join(pooling)} is not done of images; "cls" and "mean" are, or none for'
        " the model's own"
    )


def _features(output: Any) -> Any:
    return getattr(output, "pooler_output", output)


def _pooled(output: Any) -> Any:
    pooled = getattr(output, "pooler_output", None)
    if pooled is None:
        raise EngineError(
            'the model has no pooled output; say pooling = "cls" or "mean" in its entry'
        )
    return pooled.flatten(1)


def _tokens(output: Any) -> Any:
    tokens = output.last_hidden_state
    if tokens.ndim != TOKENS_DIMENSIONS:
        raise EngineError("the model has no tokens to pool; leave pooling out of its entry")
    return tokens
