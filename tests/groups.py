"""Which tests share a worker: those of a module, so that what they share is made once."""

from pathlib import PurePath

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # no types there

# Modules that measure time, or freeze servers: no two of them run beside each other.
TIME = (
    "test_chat_leaving",
    "test_db",
    "test_db_away",
    "test_keys",
    "test_limits",
    "test_limits_away",
    "test_loadtest",
    "test_predictions",
)
# Two of llama.cpp beside each other spin on the same cores and take many times as long.
LLAMA = (
    "test_default_models",
    "test_examples",
    "test_generators",
    "test_gguf_conformance",
    "test_gguf_texts",
    "test_held_schemas",
    "test_openai_clients",
    "test_schema_pydantic",
    "test_tools_smollm",
)
# Of few tests that take long each: begun before those of many quick ones, or one worker would be at
# them alone in the end.
LONG = (
    "test_conformance",
    "test_openvino",
    "test_prompts",
    "test_sentence_transformers",
    "test_packing",
    "test_storm",
    "test_doctor",
    "test_doctor_trial",
    "test_worker",
    "test_refused",
    "test_notifier",
    "test_embedded",
    "test_folder_tokenizer",
    "test_heads",
    "test_server",
    "test_document_vectors",
)
GROUPS = dict.fromkeys(TIME, "time") | dict.fromkeys(LLAMA, "llama")


class ByModule(LoadScopeScheduling):  # type: ignore[misc]  # as above
    """Gives each worker whole groups of modules: the largest, then the long ones, then the rest."""

    def schedule(self) -> None:
        super().schedule()
        of_modules = {PurePath(scope).stem: scope for scope in self.workqueue}
        for module in reversed(LONG):
            if module in of_modules:
                self.workqueue.move_to_end(of_modules[module], last=False)

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return GROUPS.get(PurePath(module).stem, module)
