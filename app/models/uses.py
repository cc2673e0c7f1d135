"""Which models a Python class calls, as `uses` of its entry says: checked before anything loads."""

from collections.abc import Mapping, Sequence

from app.errors import CatalogError


def check_uses(uses: Mapping[str, Sequence[str]]) -> None:
    """Refuse names of models that there aren't, and models that wait for themselves.

    Args:
        uses: the names that each model's entry has, by the model's name.

    Raises:
        CatalogError: names the model, and the way on which it comes back to itself.

    """
    for model, used in uses.items():
        for name in used:
            if name not in uses:
                there = ", ".join(other for other in uses if other != model) or "no other"
                raise CatalogError(
                    f"model {model!r}: uses: there is no model {name!r}; there are {there}"
                )
    done: set[str] = set()
    for model in uses:
        _walk(model, uses, (), done)


def _walk(
    model: str, uses: Mapping[str, Sequence[str]], way: tuple[str, ...], done: set[str]
) -> None:
    """Follow what a model uses; those that are done lead to no circle."""
    if model in way:
        circle = " → ".join((*way[way.index(model) :], model))
        raise CatalogError(
            f"model {model!r}: uses: it would wait for itself: {circle}; take one of them out"
        )
    if model in done:
        return
    for name in uses[model]:
        _walk(name, uses, (*way, model), done)
    done.add(model)
