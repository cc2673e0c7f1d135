"""What a chat model reads: the state first, so that all questions share it, then one question."""

from collections.abc import Sequence

from app.features.decisions.questions import Kind, Option, Question

YES_OR_NO = ("Yes", "No")


def prompt_of(state: str, question: Question, labels: Sequence[str]) -> str:
    """Return the words for one question.

    Args:
        state: the text that it is about.
        question: of any kind.
        labels: one for each option; the model is to say one of them.

    """
    pairs = zip(labels, question.options, strict=True)
    if question.kind is Kind.PREDICATE:
        asked = question.instructions or question.name or ""
        meanings = [f"{label}: {o.description}" for label, o in pairs if o.description]
        lines = [f"Is this true of the text above? {asked}", *meanings, "Answer with Yes or No."]
    else:
        options = [f"{label}. {_words(option)}" for label, option in pairs]
        end = f"Answer with one of {labels[0]} to {labels[-1]}, and nothing else."
        lines = [question.instructions, *options, end]
    return "\n".join((state, "", *filter(None, lines)))


def _words(option: Option) -> str:
    return f"{option.text}: {option.description}" if option.description else option.text
