"""What arrives of what is published by GRIP at one fast reader, and what becomes of a burst: our server and Debian's Pushpin.

    FW_TEST_BINARY=... python grip_loss.py [fanwire] [pushpin] ...        each in its turn; needs aiohttp

300 items of 4 kB, one each 10 ms; 1,500 in batches of 100; 1,000 to a WebSocket; 300 clients at once, of an origin that takes
50 ms; how often an origin is asked that hangs up.
"""

import asyncio
import collections
import sys
import threading
import time

import aiohttp

from grip_support import Fanwire, Origin, Pushpin, Stream, publish
from test_grip_flows import answer_of_reader

QUIET = 6


class Answers:
    """Holds and opens what is to be held and opened, takes its time, or hangs up."""

    def __init__(self):
        self.hung_up = 0

    def __call__(self, method, path, query, headers, body):
        if path == "/slow":
            time.sleep(0.05)
            return 200, [], b"ok"
        if path == "/hang-up":
            self.hung_up += 1
            raise ConnectionError
        return answer_of_reader(method, path, query, headers, body)


def of_stream(server, count, send):
    """How many numbers arrive, and whether each is larger than the one before."""
    stream, heard = Stream(server, "/stream"), []

    def read():
        try:
            while line := stream.answer.readline():
                heard.append(line.split(b" ")[0])
        except OSError:
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    time.sleep(1)
    heard.clear()
    send()
    end = time.monotonic() + QUIET
    while len(heard) < count and time.monotonic() < end:
        time.sleep(0.05)
    numbers, is_open = [int(number) for number in heard if number.isdigit()], reader.is_alive()
    # Its reader is not waited for.
    stream.connection.sock and stream.connection.sock.close()
    return f"{len(numbers)} of {count}, in order: {numbers == sorted(set(numbers))}, open at the end: {is_open}"


def item(number, text, name="http-stream"):
    return {"channel": "loss", "formats": {name: {"content": f"{number} {text}\n"}}}


def slowly(server):
    for number in range(300):
        publish(server, item(number, "x" * 4000))
        time.sleep(0.01)


def in_batches(server):
    for first in range(0, 1500, 100):
        publish(server, *(item(number, "b") for number in range(first, first + 100)))


async def of_socket(server):
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://{server.address}/socket") as socket:
        def send():
            for number in range(1000):
                publish(server, item(number, "w", "ws-message"))

        sending, numbers = asyncio.create_task(asyncio.to_thread(send)), []
        try:
            while len(numbers) < 1000:
                numbers.append(int((await socket.receive_str(timeout=QUIET)).split()[0]))
        except (asyncio.TimeoutError, TypeError):
            pass
        await sending
        return f"{len(numbers)} of 1000, in order: {numbers == sorted(set(numbers))}"


async def of_burst(server):
    async def one(session):
        async with session.get(f"http://{server.address}/slow") as answer:
            return answer.status

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        got = await asyncio.gather(*(one(session) for _ in range(300)), return_exceptions=True)
    return dict(collections.Counter(str(status) if isinstance(status, int) else type(status).__name__ for status in got))


async def of_hanging_up(server, answers):
    async with aiohttp.ClientSession() as session, session.get(f"http://{server.address}/hang-up") as answer:
        await asyncio.sleep(1)
        return f"the client gets {answer.status}, the origin was asked {answers.hung_up} times"


def main():
    for name in sys.argv[1:] or ["fanwire", "pushpin"]:
        answers = Answers()
        origin = Origin(answers)
        server = {"fanwire": Fanwire, "pushpin": Pushpin}[name](origin)
        # Pushpin takes connections before it answers.
        time.sleep(2)
        try:
            print(f"{name}: 300 x 4 kB, one each 10 ms: {of_stream(server, 300, lambda: slowly(server))}", flush=True)
            print(f"{name}: 1,500 in batches: {of_stream(server, 1500, lambda: in_batches(server))}", flush=True)
            print(f"{name}: 1,000 to a WebSocket: {asyncio.run(of_socket(server))}", flush=True)
            print(f"{name}: 300 at once: {asyncio.run(of_burst(server))}", flush=True)
            print(f"{name}: an origin that hangs up: {asyncio.run(of_hanging_up(server, answers))}", flush=True)
        finally:
            server.close()
            origin.close()


if __name__ == "__main__":
    main()
