"""Imports the class that an entry names, and makes an object of it, in this process.

Processes of models import this, and so nothing that only the service needs.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.engines.python.contract import Contract, arguments_of_load, read_contract
from app.engines.python.failures import UserCodeError, during_load
from app.engines.python.finding import FoundClass, find_class
from app.engines.python.json_forms import JsonForm
from app.engines.python.messages import Start
from app.engines.python.models import ATTRIBUTE, CallModel, Models
from app.engines.python.output import Output
from app.engines.python.runner import Facts, ThreadRunner


def load_class(start: Start, call_model: CallModel) -> ThreadRunner:
    """Import the class and make an object of it.

    Args:
        start: which class.
        call_model: carries its calls of other models.

    Raises:
        SourceError: there is no such class.
        UnsafeModelError: its file isn't the pinned one.
        UserCodeError: it can't be served; one line says why.

    """
    options = start.options
    with Output(start.name, shows_output=options.shows_output).caught():
        found = find_class(options.source, base=options.base, pins=options.pins, name=start.name)
        contract = read_contract(found.kind)
        instance = _instance(found, start.device, Models(options.uses, call_model))
        facts = _facts(instance, contract, found, labels=start.labels)
    return ThreadRunner(
        instance,
        contract,
        facts,
        name=start.name,
        file=found.file,
        shows_output=options.shows_output,
    )


def _instance(found: FoundClass, device: str, models: Models) -> Any:  # noqa: ANN401  # of any class
    """Make an object, give it its models, and call its `load`, with the device if it takes one."""
    instance = during_load(f"{found.kind.__name__}()", found.kind, file=found.file)
    # Without any it says so to a class that calls one; a class may have an attribute of that name.
    if models or not hasattr(instance, ATTRIBUTE):
        try:
            setattr(instance, ATTRIBUTE, models)
        except Exception as refused:
            if models:
                raise UserCodeError(
                    f"{found.kind.__name__} takes no attribute {ATTRIBUTE}, which `uses` needs"
                ) from refused
    method = getattr(instance, "load", None)
    if method is not None:
        arguments, named = arguments_of_load(method, device)
        during_load("load", lambda: method(*arguments, **named), file=found.file)
    return instance


def _facts(
    instance: Any,  # noqa: ANN401  # of any class
    contract: Contract,
    found: FoundClass,
    *,
    labels: Sequence[str],
) -> Facts:
    """Return what the object says of itself; the entry's labels come before its own.

    Raises:
        UserCodeError: its labels or its version aren't texts.

    """
    own = during_load("labels", lambda: _texts(getattr(instance, "labels", ())), file=found.file)
    version = during_load(
        "version", lambda: getattr(instance, "version", found.version), file=found.file
    )
    if own is None:
        raise UserCodeError("labels is to be a list of texts")
    if not isinstance(version, str) or not version:
        raise UserCodeError("version is to be a text")
    return Facts(
        item_schema=contract.item.schema(of_answers=False),
        answer_schema=contract.answer.schema(of_answers=True),
        labels=tuple(labels) or own,
        version=version,
        takes_batches=contract.takes_batches,
        has_check=hasattr(instance, "check"),
        has_cost=hasattr(instance, "cost"),
        stream_item_schema=_schema(contract.stream_item, of_answers=False),
        piece_schema=_schema(contract.piece, of_answers=True),
    )


def _schema(form: JsonForm | None, *, of_answers: bool) -> Mapping[str, Any] | None:
    return None if form is None else form.schema(of_answers=of_answers)


def _texts(labels: Any) -> tuple[str, ...] | None:  # noqa: ANN401  # whatever the class has there
    """Return labels as a tuple; None where they aren't texts."""
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        return None
    texts = tuple(labels)
    return texts if all(isinstance(text, str) for text in texts) else None
