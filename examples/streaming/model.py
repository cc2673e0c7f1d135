import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

TALE = """
The old king had a daughter. The daughter had a golden ball. The ball fell into the well.
The well was deep. The king had a garden. The garden had an old well. The frog lived in the well.
The frog had a golden voice. The voice was deep. The daughter was old. The king was a frog.
"""


@dataclass
class Prompt:
    begin: str = "The"
    words: int = 12
    seed: int = 0


@dataclass
class Word:
    text: str


class Storyteller:
    def load(self):
        self.followers = defaultdict(list)
        for word, follower in pairwise(TALE.split()):
            self.followers[word].append(follower)

    def stream(self, item: Prompt) -> Iterator[Word]:
        chance, word = random.Random(item.seed), item.begin
        for _ in range(item.words):
            yield Word(word)
            word = chance.choice(self.followers.get(word) or ["The"])

    def predict_one(self, item: Prompt) -> str:
        return " ".join(word.text for word in self.stream(item))
