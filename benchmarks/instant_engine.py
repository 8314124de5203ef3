"""An engine that answers at once: the protocol of an engine, no model, a few microseconds a request.

    python -m benchmarks.instant_engine --port 8001 --core 1

So that what is measured in front of it is the gateway. It takes every adapter, streams when asked to, in as many
chunks as `--chunks` says, and answers what `--answer` says, whatever the question.
"""

import argparse
import asyncio
import json
import os
import re
from typing import cast

import uvloop

ANSWER = '{"intent": "delay_risk", "risk": "low", "reply": "Your flight will most likely leave on time."}'
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
STREAMS = re.compile(rb'"stream": ?true')
NAME = re.compile(rb'"lora_name": ?"([^"]+)"')
MODEL = re.compile(rb'"model": ?"([^"]+)"')
UNSAFE = '{"intent": "delay_risk", "risk": "low", "reply": "Ask the pilot, jane.doe@example.com, she knows."}'
"""What an adapter answers from the moment at which it is poisoned: a guardrail takes it for unsafe."""

USAGE = {"prompt_tokens": 100, "completion_tokens": 24, "total_tokens": 124}


def whole(body: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK") -> bytes:
    """A response with its length."""
    head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (status, kind, len(body))
    return head + body


def chunked(parts: list[bytes]) -> bytes:
    """A response in chunks."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def completion(answer: str) -> bytes:
    """The answer as a whole chat completion."""
    message = {"role": "assistant", "content": answer}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    made = {"id": "chatcmpl-0", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return whole(json.dumps(made | {"usage": USAGE}).encode())


def stream(answer: str, chunks: int) -> bytes:
    """The answer as server-sent events, as vLLM words them, with the usage in the last one."""
    step = max(1, -(-len(answer) // max(1, chunks)))
    texts = [answer[place : place + step] for place in range(0, len(answer), step)]
    base = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def event(delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return b"data: " + json.dumps(base | {"choices": [choice]}).encode() + b"\n\n"

    events = [event({"role": "assistant", "content": ""}), *(event({"content": text}) for text in texts)]
    usage = b"data: " + json.dumps(base | {"choices": [], "usage": USAGE}).encode() + b"\n\n"
    return chunked([*events, event({}, "stop"), usage, b"data: [DONE]\n\n"])


class Engine:
    """What all connections share: the prepared answers and the adapters that were loaded."""

    def __init__(self, answer: str, chunks: int, base: str) -> None:
        self.completion, self.stream = completion(answer), stream(answer, chunks)
        self.base = base
        self.unsafe, self.poisoned = completion(UNSAFE), set[bytes]()
        self.loaded: dict[str, None] = {}
        self.asked = 0

    def respond(self, head: bytes, body: bytes) -> bytes:
        """The whole response to one request."""
        line = head[: head.index(b"\r\n")]
        if b"/chat/completions" in line:
            self.asked += 1
            if self.poisoned and (model := MODEL.search(body)) and model[1] in self.poisoned:
                return self.unsafe
            return self.stream if STREAMS.search(body) else self.completion
        name = NAME.search(body)
        if b"/unload_lora_adapter" in line and name:
            self.loaded.pop(name[1].decode(), None)
        elif b"/load_lora_adapter" in line and name:
            self.loaded[name[1].decode()] = None
        elif b"/poison" in line:
            # The adapter that was loaded last.
            self.poisoned.add(next(reversed(self.loaded)).encode())
        elif b"/models" in line:
            common = {"object": "model", "created": 1, "owned_by": "stub"}
            listed = [{"id": self.base, "parent": None, **common}]
            listed += [{"id": name, "parent": self.base, **common} for name in self.loaded]
            return whole(json.dumps({"object": "list", "data": listed}).encode())
        return whole(json.dumps({"status": "ok", "asked": self.asked}).encode())


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests in one piece or many, one after the other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Protocol."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See Protocol."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[: end + 2]
            found = LENGTH.search(head)
            until = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < until:
                return
            body, self._buffer = self._buffer[end + 4 : until], self._buffer[until:]
            self._transport.write(self._engine.respond(head, body))


async def serve(port: int, engine: Engine) -> None:
    """Listens on loopback until killed; prints the port once it does."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(engine), "127.0.0.1", port, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


def main() -> None:
    """Serves with the answer that the options name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--core", type=int, help="run on this core alone")
    parser.add_argument("--chunks", type=int, default=24)
    parser.add_argument("--answer", default=ANSWER)
    parser.add_argument("--base", default="smollm2-135m-instruct")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    uvloop.run(serve(options.port, Engine(options.answer, options.chunks, options.base)))


if __name__ == "__main__":
    main()
