"""The sentences with names that the model of entities is trained and judged on."""

import random

from scripts.ner_data import LABELS, TEMPLATES, TEST_TEMPLATE_SHARE, Names, fill, gold, split_of

NAMES = Names(first=["Zoë"], last=["O'Neil"], organisations=["3M"], places=["São Paulo"])


def test_names_are_put_into_a_template_and_noted_where_they_stand() -> None:
    for seed in range(20):  # people and organisations are called in several ways
        draw = random.Random(seed)  # noqa: S311  # no secret
        made = fill("😀 {first} of {org} met {per} in {loc}, {loc}!", NAMES, draw)
        names = [(made.text[m.start : m.end], m.label) for m in made.mentions]
        assert [label for _, label in names] == ["PER", "ORG", "PER", "LOC", "LOC"]
        assert names[0] == ("Zoë", "PER")
        assert names[1][0] in {"3M", "University of São Paulo"}
        assert names[2][0] in {"Zoë O'Neil", "Zoë Z. O'Neil", "Z. O'Neil", "O'Neil"}
        assert made.text.startswith("😀 Zoë of ")
        assert made.text.endswith("in São Paulo, São Paulo!")


def test_each_template_is_in_one_split_and_has_known_slots_only() -> None:
    lines = TEMPLATES.read_text(encoding="utf-8").splitlines()
    assert len(set(lines)) == len(lines)
    splits = {split_of(line, TEST_TEMPLATE_SHARE) for line in lines}
    assert splits == {"train", "test"}
    for line in lines:
        assert "{" not in line.format_map(dict.fromkeys(LABELS, "x"))


def test_sentences_written_by_hand_have_their_names_marked() -> None:
    found = gold()
    first = found[0]
    assert first.text == "Angela Merkel met Barack Obama in Berlin in June."
    assert [first.text[m.start : m.end] for m in first.mentions] == [
        *("Angela Merkel", "Barack Obama", "Berlin")
    ]
    assert not any("[" in one.text for one in found)
    assert not found[-1].mentions
