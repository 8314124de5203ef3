"""HTTP as engines and proxies speak it, and as broken ones do."""

import asyncio

import pytest

from ml_platform.serving.engine_wire import Wire, WireError

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Queue-Ms: 1.5\r\n\r\nhello"


class Server:
    """Answers each request on a connection with the next of `answers`; b"" closes it without a word."""

    def __init__(self, *answers):
        self.answers, self.requests, self.connections, self.gone = list(answers), [], 0, asyncio.Event()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.wire = Wire(f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/below", {"x-fixed": "1"})
        return self

    async def __aexit__(self, *_):
        self.wire.close()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head + await reader.readexactly(2))
                answer = self.answers.pop(0)
                if answer is None:
                    await reader.read()
                    break
                writer.write(answer)
                await writer.drain()
                if not answer.endswith(b"hello") and not answer.endswith(b"0\r\n\r\n"):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()
            writer.close()

    async def post(self):
        return await self.wire.post("/ask", b"{}", "x-own: 2\r\n")


def trial(work, *answers):
    async def run():
        async with Server(*answers) as server:
            return await work(server)

    return asyncio.run(asyncio.wait_for(run(), 20.0))


def test_one_connection_serves_one_call_after_the_other():
    async def work(server):
        return [await server.post() for _ in range(3)], server.connections, server.requests

    answers, connections, requests = trial(work, WHOLE, WHOLE, WHOLE)

    assert answers == [(200, {"content-length": "5", "x-queue-ms": "1.5"}, b"hello")] * 3
    assert connections == 1
    assert requests[0].startswith(b"POST /below/ask HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nx-fixed: 1\r\nx-own: 2\r\ncontent-length: 2\r\n\r\n{}" in requests[0]


def test_chunks_are_put_together():
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"

    async def work(server):
        return (await server.post())[2], (await server.post())[2], server.connections

    assert trial(work, chunked, chunked) == (b"hello", b"hello", 1)


def test_a_kept_connection_that_the_server_closed_is_replaced():
    async def work(server):
        return [(await server.post())[2] for _ in range(2)], server.connections

    assert trial(work, WHOLE, b"", WHOLE) == ([b"hello", b"hello"], 2)


def test_a_connection_that_is_to_be_closed_is_not_kept():
    closing = WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    async def work(server):
        return [(await server.post())[0] for _ in range(2)], server.connections

    assert trial(work, closing, WHOLE) == ([200, 200], 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\ncontent-length: minus\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\n\r\nno length",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe",
        b"HTTP/1.1 abc\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_whole_answer_is_an_error(answer):
    async def work(server):
        with pytest.raises(WireError):
            await server.post()

    trial(work, answer)


def test_whoever_stops_waiting_closes_the_connection():
    async def work(server):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await server.post()
        await server.gone.wait()

    trial(work, None)


def test_nobody_there_is_an_error():
    async def run():
        with pytest.raises(WireError):
            await Wire("http://127.0.0.1:9", {}).post("/", b"")

    asyncio.run(run())
