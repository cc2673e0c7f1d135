"""The prompts of the chat table: distinct from the first words on, and such that answers go on."""

from math import lcm

SYSTEM = "You are a helpful assistant."
# The lengths of the lists share no factor, so that no combination comes twice in their product.
NAMES = (
    *("Anna", "Bruno", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene"),
    *("Jonas", "Karla", "Liam", "Maria", "Nils", "Olga", "Pavel", "Rosa"),
)
TRADES = (
    *("baker", "sailor", "teacher", "farmer", "painter", "doctor", "gardener", "carpenter"),
    *("singer", "soldier", "tailor", "writer", "miner"),
)
PLACES = (
    *("a village by the sea", "the mountains", "a large city", "an old castle", "a dark forest"),
    *("a small island", "the desert", "a train", "a lighthouse", "a quiet valley", "a harbour"),
)
DEEDS = (
    "finds a map that nobody can read",
    "repairs a clock that was broken for a hundred years",
    "meets a stranger",
    "learns to cook the soup that only one woman in the country still knows how to make",
    "builds a boat",
    "loses a letter on the way to the market and looks for it until the evening",
    "keeps bees",
)
ENDS = (
    "",
    " Begin with the weather on that morning.",
    " Let the people speak, and describe what each of them wears, eats and hopes for.",
)
COUNT = lcm(*map(len, (NAMES, TRADES, PLACES, DEEDS, ENDS)))


def prompt(number: int) -> str:
    """Return a prompt of 19 to 57 tokens; numbers below `COUNT` give different ones."""
    name, trade, place, deed, end = (
        choices[number % len(choices)] for choices in (NAMES, TRADES, PLACES, DEEDS, ENDS)
    )
    return f"{name}, a {trade} in {place}, {deed}. Tell this as a very long story.{end}"


def messages(text: str) -> list[dict[str, str]]:
    """Return a conversation with one prompt, the same for every contestant."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
