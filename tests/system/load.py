"""A closed loop of keep-alive connections that POST /predict; run as a process of its own.

Usage: python load.py PORT CONNECTIONS SECONDS. Prints requests done and statuses seen as JSON.
"""

import asyncio
import json
import sys
import time
from collections import Counter

TEXTS = [
    "Great value.",
    "It broke after a week, and nobody answers my mails about it.",
    "A film that stays with you for days, in which nothing is said twice. " * 3,
]


def request(text: str) -> bytes:
    body = json.dumps({"text": text}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + body


async def connection(port: int, until: float, seen: Counter[str], offset: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = offset
    while time.monotonic() < until:
        writer.write(request(TEXTS[number % len(TEXTS)]))
        number += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        seen[head.split()[1].decode()] += 1
    writer.close()


async def main(port: int, connections: int, seconds: float) -> None:
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    await asyncio.gather(*(connection(port, until, seen, n) for n in range(connections)))
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
