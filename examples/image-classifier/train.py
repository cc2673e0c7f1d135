from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn import datasets
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification

FOLDER = Path(__file__).parent / "digits"
HELD_OUT = 300


def images():
    digits = datasets.load_digits()
    pixels = (digits.images * 255 / 16).astype(np.uint8)
    return [Image.fromarray(image).convert("RGB") for image in pixels], torch.tensor(digits.target)


def train(epochs=12):
    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1]}
    config = ResNetConfig(
        **sizes,
        layer_type="basic",
        downsample_in_first_stage=False,
        id2label=dict(enumerate("0123456789")),
    )
    model = ResNetForImageClassification(config)
    processor = ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=1.0)
    pictures, labels = images()
    pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels) - HELD_OUT).split(64):
            loss = model(pixel_values=pixels[batch], labels=labels[batch]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.inference_mode():
        found = model(pixel_values=pixels[-HELD_OUT:]).logits.argmax(-1)
    model.save_pretrained(FOLDER)
    processor.save_pretrained(FOLDER)
    pictures[-1].save(FOLDER / "digit.png")
    return (found == labels[-HELD_OUT:]).float().mean().item()


if __name__ == "__main__":
    print(f"{train():.1%} of {HELD_OUT} digits that it wasn't trained on are right")
