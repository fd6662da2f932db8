#!/usr/bin/env python3
"""Thousands of connections over a restart: how they come back, and what the others feel of it.

    benches/restart.py                                  # 10,000 connections, target/release/fanwire
    benches/restart.py --connections 1000 --server target/debug/fanwire

A third each speaks SSE (resumes by Last-Event-ID after the `retry:` it was given), MQTT 5.0 (comes back after one to
five seconds at random once it is told 0x8B, after twice as long, at random, with each failure) and Bayeux over WebSocket
(heeds the advice; after a failure it waits a second longer each time, as CometD does). They are spread over processes and over addresses 127.0.0.x. A publisher sends numbered messages to all
channels, again and again until each is taken. Then the server gets SIGTERM, and the moment it has ended another one
is started on the same ports, as a supervisor would.

Each message that was taken is looked for at each client that was subscribed. It ends with 1 if one is missing or comes
twice, or if somebody does not come back.
"""

import argparse
import asyncio
import collections
import json
import multiprocessing
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time

NUMBERED = re.compile(rb'"m (\d+) (\d+) (\d+)"')
RAMP_PER_SECOND = 500
MAX_WAIT = 60


def now():
    return time.monotonic()


class Client(asyncio.Protocol):
    """What all have in common: lives one after another, and what was heard in them."""

    def __init__(self, fleet, number, channel):
        self.fleet, self.number, self.channel = fleet, number, channel
        self.address = f"127.0.0.{2 + number % 100}"
        self.heard, self.times, self.gaps, self.attempts = collections.Counter(), [], 0, 0
        self.up_at = self.transport = None
        self.delay = 1.0
        self.reset()

    def reset(self):
        self.buffer = b""

    async def open(self):
        self.attempts += 1
        self.reset()
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: self, "127.0.0.1", self.port(), local_addr=(self.address, 0))
        except OSError:
            self.again(self.wait_after_failure())

    def again(self, wait):
        if not self.fleet.over:
            asyncio.get_running_loop().call_later(wait, lambda: asyncio.ensure_future(self.open()))

    def connection_made(self, transport):
        self.transport = transport
        self.begin()

    def connection_lost(self, _):
        self.transport = None
        if self.up_at is not None:
            self.times.append((self.up_at, now()))
            self.up_at = None
        self.again(self.wait())

    def up(self):
        if self.up_at is None:
            self.up_at, self.delay = now(), 1.0

    def hear(self, bytes_):
        for channel, number, sent in NUMBERED.findall(bytes_):
            if int(channel) == self.channel:
                self.heard[int(number)] += 1
                # What came later by its id was not late: its reader was away.
                if self.up_at is not None and int(sent) > self.up_at * 1e6:
                    self.fleet.latency(int(sent))

    def data_received(self, data):
        self.buffer += data
        self.read()

    def wait_after_failure(self):
        self.delay = min(self.delay * 2, MAX_WAIT)
        return random.uniform(self.delay / 2, self.delay)

    def report(self):
        times = self.times + ([(self.up_at, None)] if self.up_at is not None else [])
        return [self.kind, self.channel, dict(self.heard), times, self.gaps, self.attempts]


class Sse(Client):
    kind, retry, last = "sse", 3.0, None

    def port(self):
        return self.fleet.http

    def begin(self):
        last = f"Last-Event-ID: {self.last}\r\n" if self.last else ""
        self.transport.write(
            f"GET /sse/r/{self.channel} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{last}\r\n".encode()
        )

    def read(self):
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self.hear(line)
            elif line.startswith(b"id:"):
                self.last = line[3:].strip().decode()
                self.up()
            elif line.startswith(b"retry:"):
                self.retry = int(line[6:]) / 1000
            elif line.startswith(b"event: gap"):
                self.gaps += 1
            elif line.startswith(b": ok") or line.startswith(b":"):
                # The opening; a refusal has a `retry:` and ends.
                if b"no room" not in line and b"shutting" not in line:
                    self.up()

    def wait(self):
        return self.retry

    wait_after_failure = wait


class Mqtt(Client):
    kind = "mqtt"

    def port(self):
        return self.fleet.mqtt

    def begin(self):
        name = f"c{self.number}".encode()
        body = b"\x00\x04MQTT\x05\x02\x00\x00\x00" + struct.pack(">H", len(name)) + name
        topic = f"r/{self.channel}".encode()
        subscribe = b"\x00\x01\x00" + struct.pack(">H", len(topic)) + topic + b"\x00"
        self.transport.write(bytes([0x10, len(body)]) + body + bytes([0x82, len(subscribe)]) + subscribe)

    def read(self):
        while len(self.buffer) >= 2:
            length, at, shift = 0, 1, 0
            while at < len(self.buffer):
                length |= (self.buffer[at] & 0x7F) << shift
                at, shift = at + 1, shift + 7
                if not self.buffer[at - 1] & 0x80:
                    break
            if len(self.buffer) < at + length:
                return
            kind, body = self.buffer[0] & 0xF0, self.buffer[at : at + length]
            self.buffer = self.buffer[at + length :]
            if kind == 0x30:
                self.hear(body)
            elif kind == 0x90:
                self.up()

    def wait(self):
        return random.uniform(1, 5)


class Bayeux(Client):
    kind, interval, failures = "bayeux", None, 0

    def reset(self):
        super().reset()
        self.opened, self.session, self.sent = False, None, 0

    def port(self):
        return self.fleet.http

    def begin(self):
        self.transport.write(
            b"GET /cometd HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def say(self, *messages):
        text = json.dumps(messages).encode()
        head = bytes([0x81, 0x80 | len(text)]) if len(text) < 126 else b"\x81\xfe" + struct.pack(">H", len(text))
        self.transport.write(head + b"\0\0\0\0" + text)

    def connect(self):
        self.sent += 1
        return {"channel": "/meta/connect", "clientId": self.session, "connectionType": "websocket", "id": str(self.sent)}

    def read(self):
        if not self.opened:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head:
                return self.transport.close()
            self.opened, self.buffer = True, rest
            kinds = {"version": "1.0", "supportedConnectionTypes": ["websocket"]}
            self.say({"channel": "/meta/handshake", "id": "h", **kinds})
        while len(self.buffer) >= 2:
            length, at = self.buffer[1] & 0x7F, 2
            if length == 126:
                length, at = int.from_bytes(self.buffer[2:4], "big"), 4
            if len(self.buffer) < at + length:
                return
            kind, payload = self.buffer[0] & 15, self.buffer[at : at + length]
            self.buffer = self.buffer[at + length :]
            if kind == 1:
                for message in json.loads(payload):
                    self.take(message)
            elif kind == 9:
                self.transport.write(bytes([0x8A, 0x80 | len(payload)]) + b"\0\0\0\0" + payload)
            elif kind == 8 and self.transport:
                self.transport.close()

    def take(self, message):
        channel, advice = message["channel"], message.get("advice", {})
        if channel == "/meta/handshake" and message.get("successful"):
            self.session = message["clientId"]
            subscribe = {"channel": "/meta/subscribe", "clientId": self.session, "subscription": f"/r/{self.channel}"}
            self.say({**subscribe, "id": "s"}, self.connect())
        elif channel == "/meta/subscribe" and message.get("successful"):
            self.up()
        elif channel == "/meta/connect" and message.get("successful") and advice.get("reconnect", "retry") == "retry":
            self.say(self.connect())
        elif channel == "/meta/connect":
            self.interval = advice.get("interval", 0) / 1000
            self.transport.close()
        elif channel.startswith("/r/"):
            self.hear(json.dumps(message["data"]).encode())

    def up(self):
        super().up()
        self.failures = 0

    def wait(self):
        wait, self.interval = self.interval, None
        return self.wait_after_failure() if wait is None else wait

    def wait_after_failure(self):
        # CometD's own: a second more each time.
        self.failures += 1
        return min(self.failures, MAX_WAIT)


class Fleet:
    """The clients of one process."""

    def __init__(self, http, mqtt, numbers, channels, over):
        self.http, self.mqtt, self.over = http, mqtt, False
        self.latencies = collections.defaultdict(list)
        kinds = [Sse, Mqtt, Bayeux]
        self.clients = [kinds[number % 3](self, number, number // 3 % channels) for number in numbers]
        self.event = over

    def latency(self, sent):
        micros = time.monotonic_ns() // 1000 - sent
        self.latencies[sent // 1_000_000].append(micros)

    async def run(self, pipe, pace):
        for client in self.clients:
            asyncio.ensure_future(client.open())
            await asyncio.sleep(pace)
        told = False
        while not self.event.is_set():
            if not told and all(client.up_at is not None for client in self.clients):
                told = pipe.send("up") or True
            await asyncio.sleep(0.1)
        self.over = True
        pipe.send(([client.report() for client in self.clients], dict(self.latencies)))


def worker(pipe, over, http, mqtt, numbers, channels, pace):
    asyncio.run(Fleet(http, mqtt, numbers, channels, over).run(pipe, pace))


class Publisher:
    """Numbered messages on every channel in turn; each is sent until it is taken."""

    def __init__(self, http, channels, rate):
        self.http, self.channels, self.rate = http, channels, rate
        self.taken = [[] for _ in range(channels)]
        self.stream, self.over = None, False

    async def run(self):
        count, due = 0, now()
        while not self.over:
            channel = count % self.channels
            number = count // self.channels
            while not await self.publish(channel, number):
                if self.over:
                    return
                await asyncio.sleep(0.02)
            count += 1
            due = max(due + 1 / self.rate, now() - 1)
            await asyncio.sleep(max(0, due - now()))

    async def publish(self, channel, number):
        try:
            if self.stream is None:
                self.stream = await asyncio.open_connection("127.0.0.1", self.http)
            reader, writer = self.stream
            began = now()
            body = f'"m {channel} {number} {time.monotonic_ns() // 1000}"'
            writer.write(
                f"POST /v1/publish/r/{channel} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head)[1])
            await reader.readexactly(length)
            if b" 200 " in head.split(b"\r\n")[0]:
                self.taken[channel].append((number, began, now()))
                return True
        except (OSError, asyncio.IncompleteReadError):
            if self.stream:
                self.stream[1].close()
            self.stream = None
        return False


def start(arguments):
    flags = ["--http", f"127.0.0.1:{arguments.http}", "--mqtt", f"127.0.0.1:{arguments.mqtt}"]
    # No line for each client: this is not what is measured.
    quiet = {"FANWIRE_LOGGING_LEVEL": "info,fanwire::clients=off,fanwire::refused=off"}
    environment = {**os.environ, **quiet, **arguments.environment}
    server = subprocess.Popen([arguments.server, *flags], stdout=subprocess.PIPE, env=environment)
    server.stdout.readline()
    return server


async def received(pipes):
    return [await asyncio.get_running_loop().run_in_executor(None, pipe.recv) for pipe in pipes]


async def measure(arguments):
    server = start(arguments)
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    pipes, workers = [], []
    for part in range(arguments.processes):
        ours, theirs = context.Pipe()
        numbers = range(part, arguments.connections, arguments.processes)
        pace = arguments.processes / RAMP_PER_SECOND
        given = (theirs, over, arguments.http, arguments.mqtt, numbers, arguments.channels, pace)
        workers.append(context.Process(target=worker, args=given, daemon=True))
        workers[-1].start()
        pipes.append(ours)
    await received(pipes)
    print("all are there", file=sys.stderr)
    publisher = Publisher(arguments.http, arguments.channels, arguments.rate)
    publishing = asyncio.ensure_future(publisher.run())
    await asyncio.sleep(arguments.before)

    told = now()
    server.send_signal(signal.SIGTERM)
    await asyncio.get_running_loop().run_in_executor(None, server.wait)
    ended = now()
    code, server = server.returncode, start(arguments)
    started = now()
    await asyncio.sleep(arguments.after)
    publisher.over = True
    await publishing
    # For what is on its way.
    await asyncio.sleep(5)
    over.set()
    parts = await received(pipes)
    server.kill()
    server.wait()
    reports = [report for part, _ in parts for report in part]
    latencies = collections.defaultdict(list)
    for _, part in parts:
        for second, values in part.items():
            latencies[second].extend(values)
    return told, ended, started, code, publisher.taken, reports, latencies


def quantile(values, part):
    values = sorted(values)
    return values[min(int(len(values) * part), len(values) - 1)] if values else float("nan")


def show(arguments, told, ended, started, code, taken, reports, latencies):
    print(f"{len(reports)} connections, {arguments.channels} channels, {arguments.rate} messages a second")
    print(f"SIGTERM at 0; the old one ended with {code} after {ended - told:.1f} s, the new one listens at {started - told:.2f} s")
    failed = code != 0
    print("kind      n   left: first  median    last   back: first  median     p99    last   attempts  away: median  p99")
    for kind in ("sse", "mqtt", "bayeux"):
        ours = [report for report in reports if report[0] == kind]
        left = [times[0][1] - told for *_, times, _, _ in ours if times and times[0][1]]
        back = [times[-1][0] - told for *_, times, _, _ in ours if len(times) > 1 and times[-1][1] is None]
        away = [times[-1][0] - times[0][1] for *_, times, _, _ in ours if len(times) > 1 and times[0][1]]
        tries = sum(report[5] - 1 for report in ours) / max(len(ours), 1)
        failed |= len(back) != len(ours)
        if back:
            print(
                f"{kind:7}{len(ours):5}   {min(left):11.2f} {quantile(left, .5):7.2f} {max(left):7.2f}"
                f"   {min(back):11.2f} {quantile(back, .5):7.2f} {quantile(back, .99):7.2f} {max(back):7.2f}"
                f"   {tries:8.2f}  {quantile(away, .5):12.2f} {quantile(away, .99):4.1f}"
            )
        if len(back) != len(ours):
            print(f"  {len(ours) - len(back)} of them did not come back")
    back = collections.Counter(
        int((times[-1][0] - told) * 10) for *_, times, _, _ in reports if len(times) > 1
    )
    worst = max(back.values(), default=0)
    print(f"most in 100 ms: {worst}; by second after SIGTERM:")
    by_second = collections.Counter()
    for tenth, count in back.items():
        by_second[tenth // 10] += count
    base = int(told)
    # What is in one line of the table: who came back then, and how messages that were sent then arrived.
    print("second   back   deliveries   p50 ms   p99 ms   max ms")
    for second in range(-int(arguments.before), int(arguments.after + ended - told) + 1):
        values = latencies.get(base + second, [])
        if values or by_second[second]:
            p50, p99, most = (quantile(values, part) / 1000 for part in (0.5, 0.99, 1))
            print(f"{second:6} {by_second[second]:6} {len(values):12} {p50:8.2f} {p99:8.2f} {most:8.2f}")
    lost = twice = missed = replayed = gaps = expected = 0
    for kind, channel, heard, times, gap, _ in reports:
        gaps += gap > 0
        twice += sum(count - 1 for count in heard.values() if count > 1)
        for number, began, answered in taken[channel]:
            if any(up < began and (down is None or answered < down) for up, down in times):
                expected += 1
                lost += number not in heard
            else:
                missed += number not in heard
                replayed += number in heard
    failed |= lost > 0 or twice > 0
    print(f"of {expected} that were due while subscribed {lost} were lost, {twice} came twice")
    print(f"of what was published while its reader was away {replayed} came all the same (by Last-Event-ID), {missed} did not")
    print(f"told of a gap: {gaps} of {sum(report[0] == 'sse' for report in reports)} event streams")
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="target/release/fanwire")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--channels", type=int, default=100)
    parser.add_argument("--rate", type=float, default=20, help="messages a second over all channels")
    parser.add_argument("--before", type=float, default=10, help="seconds until SIGTERM once all are there")
    parser.add_argument("--after", type=float, default=20, help="seconds from then on that the new server is watched")
    parser.add_argument("--http", type=int, default=18080)
    parser.add_argument("--mqtt", type=int, default=11883)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="FANWIRE_KEY of the server")
    arguments = parser.parse_args()
    arguments.environment = {f"FANWIRE_{key}": value for key, value in (one.split("=", 1) for one in arguments.set)}
    sys.exit(show(arguments, *asyncio.run(measure(arguments))))


if __name__ == "__main__":
    main()
