"""Tiny seeded image models of many architectures, saved as folders, and transformers' answers."""

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from pictures import picture
from PIL import Image
from tiny import seeded

from app.engines.base import EngineRequest, FloatArray, OpenVinoOptions, Task

LABELS = ("cat", "dog", "fox")
SIDE = 32  # of the images that the models take
# Of the logits between images: so that scores differ, and the third digit of a half precision isn't
# blown up into a second one of the score.
SPREAD = 0.25
FIXED = {"size": {"height": SIDE, "width": SIDE}}
CROPPED = {"size": {"shortest_edge": 40}, "crop_size": {"height": SIDE, "width": SIDE}}
LARGER = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}
TRANSFORMER: Mapping[str, Any] = {
    "image_size": SIDE,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.2,
}
STAGES: Mapping[str, Any] = {
    "hidden_sizes": [8, 16, 16, 32],
    "depths": [1, 1, 1, 1],
    "initializer_range": 0.3,
}
SWIN: Mapping[str, Any] = {
    "image_size": SIDE,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
    "initializer_range": 0.3,
}


TEXT = {
    "text_config": {
        "vocab_size": 32,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 32,
    }
}


@dataclass(frozen=True, slots=True)
class ImageArchitecture:
    """How the model and the image processor of one are made.

    Args:
        processor: the class of transformers, without `ImageProcessor`.
        fields: of the model's configuration.
        preparation: fields of the processor.
        takes_pixels: whether the model does; those that don't aren't served.

    """

    processor: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    preparation: Mapping[str, Any] = field(default_factory=lambda: FIXED)
    takes_pixels: bool = True


def _vision(**fields: Any) -> dict[str, Any]:
    return {"vision_config": dict(TRANSFORMER) | fields}


# By the beginning of the names of their classes.
ARCHITECTURES: Mapping[str, ImageArchitecture] = {
    "Beit": ImageArchitecture("Beit", {**TRANSFORMER, "use_mask_token": False}),
    "Bit": ImageArchitecture(
        "Bit", {"embedding_size": 16, "num_groups": 4, **STAGES}, CROPPED
    ),
    "CLIP": ImageArchitecture("CLIP", {**_vision(), **TEXT, "projection_dim": 16}, CROPPED),
    "ConvNext": ImageArchitecture("ConvNext", STAGES, {"size": {"shortest_edge": SIDE}}),
    "ConvNextV2": ImageArchitecture("ConvNext", STAGES, {"size": {"shortest_edge": SIDE}}),
    "Cvt": ImageArchitecture(
        "ConvNext",
        {"embed_dim": [8, 16, 32], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
        {"size": {"shortest_edge": SIDE}},
    ),
    "Data2VecVision": ImageArchitecture("Beit", TRANSFORMER),
    "DeiT": ImageArchitecture("DeiT", TRANSFORMER, CROPPED | FIXED),
    "Dinov2": ImageArchitecture("Bit", TRANSFORMER, CROPPED),
    "Dinov2WithRegisters": ImageArchitecture("Bit", TRANSFORMER, CROPPED),
    "EfficientNet": ImageArchitecture(
        "EfficientNet",
        {"image_size": SIDE, "width_coefficient": 0.25, "depth_coefficient": 0.2,
         "hidden_dim": 320},
    ),
    "FocalNet": ImageArchitecture(
        "Bit",
        {"image_size": SIDE, "embed_dim": 16, "hidden_sizes": [16, 32], "depths": [1, 1],
         "focal_levels": [1, 1], "focal_windows": [3, 3]},
        CROPPED,
    ),
    "HGNetV2": ImageArchitecture("HGNetV2"),
    "Hiera": ImageArchitecture(
        "Bit",
        {"image_size": [64, 64], "embed_dim": 16, "num_heads": [1, 2, 4], "depths": [1, 1, 1],
         "masked_unit_size": [4, 4], "num_query_pool": 2, "initializer_range": 0.2},
        LARGER,
    ),
    "IJepa": ImageArchitecture("ViT", TRANSFORMER),
    "ImageGPT": ImageArchitecture(
        "ImageGPT",
        {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 9, "n_positions": 1024},
        {"clusters": [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], **FIXED},
        takes_pixels=False,
    ),
    "Levit": ImageArchitecture(
        "Levit",
        {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2],
         "depths": [1, 1, 1], "key_dim": [8, 8, 8]},
        LARGER,
    ),
    "MobileNetV1": ImageArchitecture(
        "MobileNetV1", {"image_size": SIDE, "depth_multiplier": 0.25}, CROPPED
    ),
    "MobileNetV2": ImageArchitecture(
        "MobileNetV2", {"image_size": SIDE, "depth_multiplier": 0.25}, CROPPED
    ),
    "MobileViT": ImageArchitecture(
        "MobileViT",
        {"image_size": 64, "hidden_sizes": [16, 24, 32],
         "neck_hidden_sizes": [8, 8, 16, 24, 32, 40, 64]},
        LARGER,
    ),
    "MobileViTV2": ImageArchitecture(
        "MobileViT",
        {"image_size": 64, "width_multiplier": 0.25},
        LARGER,
    ),
    "PPLCNet": ImageArchitecture("PPLCNet", takes_pixels=False),
    "PoolFormer": ImageArchitecture(
        "PoolFormer", {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}, CROPPED
    ),
    "Pvt": ImageArchitecture(
        "Pvt",
        {"image_size": SIDE, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1],
         "num_attention_heads": [1, 2, 2, 4]},
    ),
    "PvtV2": ImageArchitecture(
        "Pvt",
        {"image_size": SIDE, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1],
         "num_attention_heads": [1, 2, 2, 4]},
    ),
    "RegNet": ImageArchitecture(
        "ConvNext",
        {"embedding_size": 8, **STAGES, "groups_width": 8},
        {"size": {"shortest_edge": SIDE}},
    ),
    "ResNet": ImageArchitecture(
        "ConvNext", {"embedding_size": 8, **STAGES}, {"size": {"shortest_edge": SIDE}}
    ),
    "Segformer": ImageArchitecture(
        "Segformer",
        {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1],
         "num_attention_heads": [1, 2, 2, 4]},
    ),
    "Siglip": ImageArchitecture("Siglip", {**_vision(), **TEXT}),
    "Siglip2": ImageArchitecture(
        "Siglip2", _vision(num_patches=16), {"patch_size": 8}, takes_pixels=False
    ),
    "Swin": ImageArchitecture("ViT", SWIN),
    "Swinv2": ImageArchitecture("ViT", SWIN),
    "TextNet": ImageArchitecture("TextNet", takes_pixels=False),
    "ViT": ImageArchitecture("ViT", TRANSFORMER),
    "ViTMSN": ImageArchitecture("ViT", TRANSFORMER),
}  # fmt: skip


def write(
    folder: Path, name: str = "ViT", *, ending: str = "ForImageClassification", **fields: Any
) -> Path:
    """Write a folder with a model and its image processor, as transformers does."""
    architecture = ARCHITECTURES[name]
    labels = {"id2label": dict(enumerate(LABELS)), "num_labels": len(LABELS)}
    given = dict(architecture.fields) | ({} if "num_labels" in fields else labels) | fields
    model = seeded(f"{name}{ending}", f"{name}Config", **given)
    kind = f"{architecture.processor}ImageProcessor"
    made = getattr(transformers, f"{kind}Pil", None)  # None: there is one of torchvision alone
    processor = made(**architecture.preparation) if made else None
    if ending == "ForImageClassification" and architecture.takes_pixels:
        _spread(model, processor or transformers.ViTImageProcessorPil(**FIXED))
    model.save_pretrained(folder)
    if processor is None:
        described = {"image_processor_type": kind, **architecture.preparation}
        (folder / "preprocessor_config.json").write_text(json.dumps(described))
    else:
        processor.save_pretrained(folder)
    return folder


def _spread(model: Any, processor: Any) -> None:
    """Scale what the head answers: scores differ between images, and no label always wins."""
    images = [picture(seed=seed, cells=cells) for seed in range(4) for cells in (2, 5, 9)]
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    torch.manual_seed(9)
    with torch.no_grad():
        for layer in model.modules():  # with their own small ones little is left behind many
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                torch.nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
        for layer in norms:  # as if it were trained
            layer.momentum = 1.0
            layer.train()
        model(pixel_values=pixels)
        model.eval()
        logits = model(pixel_values=pixels).logits
        heads = [
            layer
            for layer in model.modules()
            if isinstance(layer, torch.nn.Linear) and layer.out_features == model.config.num_labels
        ]
        for head in heads:
            scale = SPREAD / logits.std(dim=0).mean()
            head.weight.mul_(scale)
            if head.bias is not None:
                head.bias.copy_((head.bias - logits.mean(dim=0)) * scale)


def request_for(folder: Path, **fields: Any) -> EngineRequest:
    """Return the request for an image classifier on the CPU."""
    given: dict[str, Any] = {"name": "tiny", "task": Task.IMAGE_CLASSIFICATION, "engine": "torch"}
    options = OpenVinoOptions(cache=folder.parent / "converted", cores=2, calls=2)
    return EngineRequest(**given | fields, folder=folder, openvino=options, device="cpu")


def pipeline_rows(folder: Path, files: Iterable[bytes]) -> FloatArray:
    """Return what transformers' own pipeline answers, image by image."""
    pipe = transformers.pipeline("image-classification", str(folder), device="cpu")
    labels = pipe.model.config.id2label.values()
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about palettes
        for file in files:
            answer = pipe(Image.open(BytesIO(file)), top_k=len(labels))
            scores = {one["label"]: one["score"] for one in answer}
            rows.append([scores[label] for label in labels])
    return np.array(rows, dtype=np.float32)
