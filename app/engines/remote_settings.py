"""What the clients of remote models share: where they connect to, and what a request carries."""

from urllib.parse import urlsplit

from app.engines.chat_base import ChatOptions
from app.errors import EngineError

# A server that runs accepts in one round trip; TCP tries again after 1 s, then 3.
CONNECT_TIMEOUT_S = 5.0
OPENAI = "openai"
OPENAI_URL = "https://api.openai.com/v1"
# Self-hosted servers often need no key; OpenAI's client insists on having one.
NO_KEY = "none"
# What a request has to carry. OpenAI's client would add what it finds in the environment
# (OPENAI_ORG_ID, OPENAI_PROJECT_ID, OPENAI_CUSTOM_HEADERS), and a description of this machine.
SENT_HEADERS = frozenset(
    {
        "accept",
        "connection",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    }
)


def read_source(source: str) -> tuple[str, str]:
    """Return the provider, as LangChain spells it, and the model.

    Raises:
        EngineError: it isn't `provider:model`.

    """
    provider, _, model = source.partition(":")
    provider = provider.replace("-", "_").lower()  # as LangChain does
    if not provider or not model:
        raise EngineError("the source of a remote model is provider:model, as openai:gpt-4o-mini")
    return provider, model


def check_settings(chat: ChatOptions) -> None:
    """Refuse what would only fail, or leak too much, with the first request.

    Raises:
        EngineError: says what.

    """
    if chat.api_key is not None and not (chat.api_key.isascii() and chat.api_key.isprintable()):
        raise EngineError("the API key is not one line of ASCII")
    if chat.base_url is None:
        return
    try:
        url = urlsplit(chat.base_url)
        is_usable = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError:  # a port that is no number
        is_usable = False
    if not is_usable or "@" in url.netloc:
        raise EngineError("base_url must be http://host:port/path or https://…, without a password")


def check_key(chat: ChatOptions) -> None:
    """Refuse to ask OpenAI itself without a key.

    Raises:
        EngineError: there is none.

    """
    if chat.base_url is None and chat.api_key is None:
        raise EngineError("OpenAI wants a key: name the variable that holds it in api_key_env")
