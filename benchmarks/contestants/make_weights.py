"""Turns the GGUF file into a folder that transformers serves: safetensors, tokenizer, template.

Usage: make_weights.py GGUF FOLDER. Takes about 15 s.
"""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

gguf, folder = Path(sys.argv[1]), Path(sys.argv[2])
given = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
tokenizer = AutoTokenizer.from_pretrained(**given)
read = AutoModelForCausalLM.from_pretrained(**given)
config = read.config
# Loaded as it is, the folder would be taken for quantised weights.
if hasattr(config, "quantization_config"):
    del config.quantization_config
model = LlamaForCausalLM(config)
model.load_state_dict(read.state_dict())
model.save_pretrained(folder)
tokenizer.save_pretrained(folder)
if not tokenizer.chat_template:
    sys.exit("the GGUF file has no chat template")
