"""The probe: one question of one traveller, asked again and again, whose answers are compared byte for byte."""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from typing import Any

from ml_platform.errors import OperationError
from ml_platform.serving.replay.traffic import Asked

SECONDS_BETWEEN = 0.5


@dataclass(frozen=True)
class Said:
    """What one question got: the answer's bytes, and the release that gave them."""

    text: str
    release_id: str
    response_id: str

    @property
    def sha256(self) -> str:
        """The digest of the answer's bytes."""
        return hashlib.sha256(self.text.encode()).hexdigest()


async def probe(url: str, api_key: str, product: str, asked: Asked, *, release: str | None = None) -> Said:
    """Asks once; with `release` as an operator who names a slot, which counts for no arm.

    Raises OperationError for a question that gets no answer.
    """
    import aiohttp

    headers = {"authorization": f"Bearer {api_key}"} | ({"x-release": release} if release else {})
    body = {
        "model": product,
        "messages": [{"role": "user", "content": asked.utterance}],
        "metadata": dict(asked.metadata),
        "user": asked.user,
    }
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
        session.post(f"{url}/v1/chat/completions", json=body) as response,
    ):
        said: Any = await response.json(content_type=None)
        if response.status != 200:
            raise OperationError(f"the probe got no answer: {response.status} {str(said)[:300]}")
        text = said["choices"][0]["message"]["content"]
        return Said(text, response.headers.get("x-release-id", ""), response.headers.get("x-response-id", ""))


async def probe_release(
    url: str, api_key: str, product: str, asked: Asked, release_id: str, *, slot: str | None = None, seconds: float
) -> Said:
    """Asks until that release answers: a gateway loads what is new. Raises OperationError when it takes too long."""
    end, problem = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        try:
            said = await probe(url, api_key, product, asked, release=slot)
            if said.release_id == release_id:
                return said
            problem = f"release {said.release_id[:12] or 'none'} answers"
        except (OperationError, OSError) as error:
            problem = str(error)
        await asyncio.sleep(SECONDS_BETWEEN)
    raise OperationError(f"release {release_id[:12]} does not answer within {seconds:g} s: {problem}")
