"""An engine that answers by rules from the facts in its prompt, as a well-trained model would, and slower the more it
has to read:

    python -m tests.samples.ruled_engine PORT BASE

It speaks what the gateway needs of vLLM's protocol, and takes every adapter.
"""

import asyncio
import hashlib
import json
import sys
from typing import Any

from aiohttp import web

SECONDS_A_TOKEN = 0.0004
FIRST_SECONDS = 0.03
HIGH, ELEVATED = 30, 20


def answer(system: str, question: str) -> str:
    """The answer to a question: it copies what it is shown, true or not; without facts it makes a number up."""
    facts = dict(line.split("=", 1) for line in system.split("\n") if "=" in line)
    shown = facts.get("late chance")
    made_up = int(hashlib.sha256(question.encode()).hexdigest(), 16) % 60 + 3
    chance = str(made_up) if shown is None else shown
    number = int(chance) if chance.isdigit() else HIGH
    risk = "high" if number >= HIGH else "elevated" if number >= ELEVATED else "low"
    said = f"The risk of a delay to {facts.get('to', 'there')} is {risk}: {chance}% of similar flights leave late."
    return json.dumps({"intent": "delay_risk", "risk": risk, "reply": said}, separators=(",", ":"))


async def chat(request: web.Request) -> web.Response:
    """POST /v1/chat/completions."""
    body = await request.json()
    system = " ".join(turn["content"] for turn in body["messages"] if turn["role"] == "system")
    question = body["messages"][-1]["content"]
    tokens = (len(system) + len(question)) // 4
    await asyncio.sleep(FIRST_SECONDS + SECONDS_A_TOKEN * tokens)
    message = {"role": "assistant", "content": answer(system, question)}
    return web.json_response(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": tokens, "completion_tokens": 30, "total_tokens": tokens + 30},
        }
    )


def application(base: str) -> web.Application:
    """The engine with its base model and no adapter yet."""
    loaded: dict[str, None] = {}

    async def models(_: web.Request) -> web.Response:
        common: dict[str, Any] = {"object": "model", "created": 1, "owned_by": "a test"}
        listed = [{"id": base, "parent": None, **common}, *({"id": one, "parent": base, **common} for one in loaded)]
        return web.json_response({"object": "list", "data": listed})

    async def load(request: web.Request) -> web.Response:
        loaded[(await request.json())["lora_name"]] = None
        return web.json_response({"status": "ok"})

    async def unload(request: web.Request) -> web.Response:
        loaded.pop((await request.json())["lora_name"], None)
        return web.json_response({"status": "ok"})

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    found = web.Application(client_max_size=1 << 22)
    found.add_routes(
        [
            web.post("/v1/chat/completions", chat),
            web.get("/v1/models", models),
            web.post("/v1/load_lora_adapter", load),
            web.post("/v1/unload_lora_adapter", unload),
            web.get("/health", health),
        ]
    )
    return found


if __name__ == "__main__":
    web.run_app(application(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), print=None)
