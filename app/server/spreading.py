"""Which of the processes that listen on one address get its new connections.

Linux spreads them over the sockets of an address (SO_REUSEPORT). A small program
(SO_ATTACH_REUSEPORT_CBPF in socket(7)) tells it over which: those of processes that are ready. The
socket of a process that has ended stays open in the first process, so what waits there is served by
its successor.
"""

import ctypes
import logging
import socket
from collections.abc import Sequence

log = logging.getLogger(__name__)

SO_ATTACH_REUSEPORT_CBPF = 51  # asm-generic/socket.h
LOAD_ABSOLUTE, MODULO, JUMP_IF_EQUAL, RETURN = 0x20, 0x94, 0x15, 0x06  # linux/bpf_common.h
RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM of linux/filter.h


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("code", ctypes.POINTER(_Instruction)))


def spread(sockets: Sequence[socket.socket], chosen: Sequence[int]) -> None:
    """Let new connections of an address go to some of its sockets, at random.

    Where the kernel can't, they go to all of them.

    Args:
        sockets: all of one address, in the order in which they began to listen.
        chosen: which of them, by their places; not empty.

    """
    steps = [(LOAD_ABSOLUTE, 0, 0, RANDOM), (MODULO, 0, 0, len(chosen))]
    for number, place in enumerate(chosen):
        steps += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, place)]
    steps.append((RETURN, 0, 0, chosen[0]))
    code = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), code)
    try:
        sockets[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, bytes(program))
    except OSError as failure:
        log.warning("connections_not_steered", extra={"error": failure.strerror})
