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
    "test_held_schemas",
    "test_openai_clients",
    "test_schema_pydantic",
)
GROUPS = dict.fromkeys(TIME, "time") | dict.fromkeys(LLAMA, "llama")


class ByModule(LoadScopeScheduling):  # type: ignore[misc]  # as above
    """Gives each worker whole groups of modules, the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return GROUPS.get(PurePath(module).stem, module)
