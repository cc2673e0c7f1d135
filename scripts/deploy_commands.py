"""Whether the commands of documents exist: AWS's with their options, and the stack's names."""

import re
from collections.abc import Iterator

import jmespath  # type: ignore[import-untyped]  # its types are a package of their own
from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader
from botocore.model import Shape

from scripts.deploy_tasks import Json, service_model

BLOCK = re.compile(r"(?ms)^```console\n(.*?)^```$")
COMMAND = re.compile(r"(?ms)\baws ([a-z0-9-]+) ([a-z-]+)(.*?)(?=\baws [a-z]|^\$ |\||\Z)")
OPTION = re.compile(r"(?<!\S)--([a-z-]+)")
QUERY = re.compile(r"""--query (?:'([^']+)'|"([^"]+)"|([\w.\[\]]+))""")
# Commands of deploy/aws.sh.
OUTPUT = re.compile(r"\boutput ([A-Z]\w+)")
PARAMETER = re.compile(r"\bparameter ([A-Z]\w+)")
DEPLOY = re.compile(r"\bdeploy ((?:[A-Z]\w+=\S+[\s\\]*)+)")
# Options that an option wants beside it, in any command.
WANTED = {
    # ECS otherwise heeds the load balancer at once, and kills a task while its models load.
    "load-balancers": "health-check-grace-period-seconds",
}
# The command line's own.
EVERYWHERE = {"cli-input-json", "output", "query"}
CUSTOM = {
    ("cloudformation", "deploy"): {
        *("capabilities", "parameter-overrides", "stack-name", "template-file"),
    },
    ("ecr", "get-login-password"): set(),
    ("logs", "tail"): {"filter-pattern", "follow", "format", "log-stream-names", "since"},
}


def find_in_commands(name: str, text: str, template: Json) -> Iterator[str]:
    """Return everything that a document or a script says and that isn't so, a sentence each.

    Args:
        name: of the file; of Markdown only blocks of a console are commands.
        text: its content.
        template: the stack's.

    """
    commands = "\n".join(BLOCK.findall(text)) if name.endswith(".md") else text
    for said in _find_in_text(text, commands, template):
        yield f"{name}: {said}"


def _find_in_text(text: str, commands: str, template: Json) -> Iterator[str]:
    for service, operation, rest in COMMAND.findall(commands):
        yield from _find_in_command(service, operation, rest)
    for name in {*OUTPUT.findall(text)} - template["Outputs"].keys():
        yield f"{name} is not an output of the stack"
    told = {*PARAMETER.findall(text)}
    for overrides in DEPLOY.findall(commands):
        told |= {each.partition("=")[0] for each in overrides.replace("\\", "").split()}
    for name in told - template["Parameters"].keys():
        yield f"{name} is not a parameter of the stack"


def _find_in_command(service: str, operation: str, rest: str) -> Iterator[str]:
    command = f"aws {service} {operation}"
    options = set(OPTION.findall(rest)) - EVERYWHERE
    if operation == "wait":
        waiter, _, rest = rest.strip().partition(" ")
        operation = _waited_operation(service, waiter)
        command += f" {waiter}"
    known = CUSTOM.get((service, operation))
    if known is None:
        known = _options(service, operation)
    if known is None:
        yield f"{command} doesn't exist"
        return
    for query in QUERY.findall(rest):
        for field in _fields("".join(query)) - _answered(service, operation):
            yield f"{command} answers nothing that is called {field}"
    for option in options - known:
        yield f"{command} has no option --{option}"
    for option, wanted in WANTED.items():
        if option in options and wanted not in options:
            yield f"{command} has --{option} without --{wanted}"


def _waited_operation(service: str, waiter: str) -> str:
    """Return the operation that a waiter repeats; "" where there is no such waiter."""
    described = Loader().load_service_model(service, "waiters-2")["waiters"]
    names = {_dashed(name): waits["operation"] for name, waits in described.items()}
    return _dashed(names[waiter]) if waiter in names else ""


def _options(service: str, operation: str) -> set[str] | None:
    """Return the options of a command; None where there is no such command."""
    try:
        model = service_model(service)
    except UnknownServiceError:
        return None
    names = {_dashed(name): name for name in model.operation_names}
    if operation not in names:
        return None
    shape = model.operation_model(names[operation]).input_shape
    return {_dashed(name) for name in shape.members} if shape else set()


def _fields(query: str) -> set[str]:
    """Return the names that a query looks for in an answer."""
    waiting, found = [jmespath.compile(query).parsed], set()
    while waiting:
        node = waiting.pop()
        if node["type"] == "field":
            found.add(node["value"])
        waiting += [child for child in node["children"] if isinstance(child, dict)]
    return found


def _answered(service: str, operation: str) -> set[str]:
    """Return every name in the answer of an operation, at whatever depth."""
    model = service_model(service)
    names = {_dashed(name): name for name in model.operation_names}
    waiting: list[Shape] = [model.operation_model(names[operation]).output_shape]
    seen, found = set(), set()
    while waiting:
        shape = waiting.pop()
        if shape.name in seen:
            continue
        seen.add(shape.name)
        if shape.type_name == "structure":
            found |= shape.members.keys()
            waiting += shape.members.values()
        elif shape.type_name == "list":
            waiting.append(shape.member)
    return found


def _dashed(name: str) -> str:
    return str(xform_name(name, "-"))
