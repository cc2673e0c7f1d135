"""What is said of a user's class that fails: where and how, without its messages.

A message of user code may quote an input or hold a secret. It is kept as the cause, for the log.
"""

from collections.abc import Callable
from threading import current_thread, main_thread
from typing import TypeVar

from app.engines.rows import RowsRefusedError
from app.errors import EngineError, ServiceError

R = TypeVar("R")


class UserCodeError(EngineError):
    """The class can't be served; the message is one line for the operator."""


class UserCallError(RowsRefusedError):
    """A call of the class failed, or answered what can't be sent."""


def place_of(failure: BaseException, file: str) -> str:
    """Return where an exception was raised: the last line of that file that led to it."""
    traceback, place = failure.__traceback__, ""
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == file:
            place = f" at line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def during_load(what: str, call: Callable[[], R], *, file: str) -> R:
    """Call user code while a model loads; whatever it raises becomes one line.

    Messages of Python's own about imports and syntax are repeated, others may hold a secret.

    Raises:
        UserCodeError: says what raised which exception where.

    """
    try:
        return call()
    except BaseException as failure:  # sys.exit() must not end the service
        # A person's Ctrl-C comes to the main thread, as in `app models check`; in another one it
        # is the class's own, and would end a service with all its models.
        if isinstance(failure, KeyboardInterrupt) and current_thread() is main_thread():
            raise
        line = f"{what} raises {type(failure).__name__}{place_of(failure, file)}"
        if isinstance(failure, SyntaxError):
            line = f"{what} raises {type(failure).__name__} at line {failure.lineno}: {failure.msg}"
        elif isinstance(failure, ImportError):
            line += f": {failure.msg}"
        elif isinstance(failure, UserCallError | ServiceError):  # of a model that it calls
            line += f": {failure}"
        raise UserCodeError(f"{line}; the log has its traceback") from failure


def of_call(what: str, failure: BaseException, *, file: str) -> UserCallError:
    """Return what stands in the place of the answer of a call that raised."""
    error = UserCallError(f"{what} raised {type(failure).__name__}{place_of(failure, file)}")
    error.__cause__ = failure
    return error
