"""Whether the commands of deploy/README.md exist: AWS's with their options, the stack's names."""

import re
from collections.abc import Iterator

from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader

from scripts.deploy_tasks import Json, service_model

BLOCK = re.compile(r"(?ms)^```console\n(.*?)^```$")
COMMAND = re.compile(r"(?ms)\baws ([a-z0-9-]+) ([a-z-]+)(.*?)(?=\baws [a-z]|^\$ |\||\Z)")
OPTION = re.compile(r"(?<!\S)--([a-z-]+)")
OUTPUT = re.compile(r"\boutput ([A-Z]\w+)")
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
    ("logs", "tail"): {"since"},
}


def find_in_commands(readme: str, template: Json) -> Iterator[str]:
    """Return everything that the README says and that isn't so, a sentence each."""
    text = "\n".join(BLOCK.findall(readme))
    for service, operation, rest in COMMAND.findall(text):
        yield from _find_in_command(service, operation, rest)
    for name in {*OUTPUT.findall(readme)} - template["Outputs"].keys():
        yield f"README.md: {name} is not an output of the stack"
    for overrides in DEPLOY.findall(text):
        for name in {each.partition("=")[0] for each in overrides.replace("\\", "").split()}:
            if name not in template["Parameters"]:
                yield f"README.md: {name} is not a parameter of the stack"


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
        yield f"README.md: {command} doesn't exist"
        return
    for option in options - known:
        yield f"README.md: {command} has no option --{option}"
    for option, wanted in WANTED.items():
        if option in options and wanted not in options:
            yield f"README.md: {command} has --{option} without --{wanted}"


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


def _dashed(name: str) -> str:
    return str(xform_name(name, "-"))
