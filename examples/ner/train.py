import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

# Where weights of yours would come in: another folder, or source = "hf:org/name@revision" in
# models.toml, and this file isn't needed.
FOLDER = Path(__file__).parent / "people"
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
FIRST = "Ada Grace Alan Mary Max Emmy Niels Lise Paul Marie Kurt Rosa Carl Sofia Hugo Nora".split()
LAST = "Lovelace Hopper Turing Curie Planck Noether Bohr Meitner Dirac Braun Lang Berg".split()
PLACES = ["London", "Paris", "New York", "Rome", "Oslo", "Vienna", "San Marino", "Berlin", "Kyoto"]
SENTENCES = [
    "{P} lived in {L} .", "In {L} , {P} met {P} .", "{P} and {P} went from {L} to {L} .",
    "The train to {L} was late .", "We saw {P} yesterday .", "{P} works for a bank in {L} .",
    "She was born in {L} and died in {L} .", "Yesterday it rained in {L} .", "I think {P} is right .",
]  # fmt: skip


def word(names, unknown=0.3):
    """A name from the list, or made-up letters: the place in the sentence tells what it is."""
    if random.random() > unknown:
        return random.choice(names)
    return "".join(random.choices("abcdefghilmnoprstu", k=random.randint(4, 8))).capitalize()


def sentence():
    words, labels = [], []
    for part in random.choice(SENTENCES).split():
        kind = {"{P}": "PER", "{L}": "LOC"}.get(part)
        if kind is None:
            words, labels = [*words, part], [*labels, "O"]
            continue
        name = (
            [word(FIRST), word(LAST)][: random.randint(1, 2)]
            if kind == "PER"
            else word(PLACES).split()
        )
        words += name
        labels += [f"{'I' if n else 'B'}-{kind}" for n in range(len(name))]
    return words, labels


def make_tokenizer(texts):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    return BertTokenizerFast(tokenizer_object=tokenizer, do_lower_case=False, model_max_length=128)


def train(steps=250):
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a model gains nothing from more
    examples = [sentence() for _ in range(3000)]
    tokenizer = make_tokenizer(" ".join(words) for words, _ in examples)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=128, id2label=dict(enumerate(LABELS)),
        label2id={label: n for n, label in enumerate(LABELS)},
    )  # fmt: skip
    model = BertForTokenClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        batch = random.choices(examples, k=16)
        inputs = tokenizer(
            [words for words, _ in batch],
            is_split_into_words=True,
            padding=True,
            return_tensors="pt",
        )
        # The first piece of a word has its label; -100 isn't counted.
        rows = []
        for number, (_, labels) in enumerate(batch):
            ids = inputs.word_ids(number)
            rows.append(
                [-100 if w is None or w == before else LABELS.index(labels[w])
                 for w, before in zip(ids, [None, *ids], strict=False)]
            )  # fmt: skip
        loss = model(**inputs, labels=torch.tensor(rows)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(FOLDER)
    tokenizer.save_pretrained(FOLDER)
    return loss.item()


if __name__ == "__main__":
    print(f"loss {train():.3f}")
