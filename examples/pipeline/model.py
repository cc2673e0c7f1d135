from dataclasses import dataclass

TOPICS = {
    "delivery": "The parcel came late, or not at all.",
    "quality": "It broke after a week, and the material is poor.",
    "price": "It costs too much, and I want my money back.",
    "support": "Nobody answered my calls and letters.",
}


@dataclass
class Ticket:
    topic: str
    is_unhappy: bool
    similarity: float


class Triage:
    def load(self):
        self.names = list(TOPICS)
        self.topics = self.models["minilm"](list(TOPICS.values()))

    def predict(self, items: list[str]) -> list[Ticket]:
        similarities = self.models["minilm"](items) @ self.topics.T
        feelings = self.models["sentiment"](items)
        return [
            Ticket(
                self.names[row.argmax()], feeling["label"] == "NEGATIVE", round(float(row.max()), 2)
            )
            for row, feeling in zip(similarities, feelings, strict=True)
        ]
