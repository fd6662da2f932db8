#!/usr/bin/env python3
"""What it costs to pass HTTP and WebSockets on, beside nginx `proxy_pass` in the same run.

    benches/passing.py [--rounds N] [--requests N] [--messages N] [--sockets N]     needs: nginx, target/release/fanwire

An origin (nginx, for HTTP; this process, for WebSockets) answers 1 kB. Both proxies are on CPU 0 with one worker thread, in
turn (A B A B); the CPU is that of all their threads by /proc/PID/task/*/schedstat, the memory private by smaps_rollup.
"""

import argparse
import asyncio
import base64
import glob
import hashlib
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BODY = "x" * 1024
IN_FLIGHT = 16


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(port):
    end = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def nginx(folder, port, location):
    """An nginx of one worker; with `daemon off` its master is this child."""
    folder.mkdir()
    paths = "".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid; error_log {folder}/log warn; worker_processes 1; worker_rlimit_nofile 20000;"
        "events { worker_connections 19000; } http { access_log off; tcp_nodelay on; keepalive_requests 100000000;"
        f"{paths} {location} }}".replace("PORT", str(port))
    )
    command = ["nginx", "-c", folder / "nginx.conf", "-p", folder, "-g", "daemon off;"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(port)
    return process


class Nginx:
    name = "nginx"

    def __init__(self, folder, http, sockets):
        self.port = free_port()
        origins = "".join(
            f"upstream {name} {{ server 127.0.0.1:{port}; keepalive 64; keepalive_requests 100000000; }}"
            for name, port in (("http_origin", http), ("ws_origin", sockets))
        )
        location = (
            origins + "server { listen 127.0.0.1:PORT backlog=4096; proxy_http_version 1.1; proxy_set_header Host $host;"
            "location /socket { proxy_pass http://ws_origin; proxy_set_header Upgrade $http_upgrade;"
            'proxy_set_header Connection "upgrade"; proxy_read_timeout 300s; }'
            'location / { proxy_pass http://http_origin; proxy_set_header Connection ""; } }'
        )
        self.process = nginx(folder / f"nginx-{self.port}", self.port, location)

    def pids(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def close(self):
        self.process.terminate()
        self.process.wait(20)


class Fanwire:
    name = "fanwire"

    def __init__(self, folder, http, sockets):
        file = folder / "fanwire.toml"
        route = '[[gateway.routes]]\nid = "{0}"\ndialect = "proxy"\npath = "{1}"\norigin = "{2}"\n'
        file.write_text(
            route.format("sockets", "/socket", f"ws://127.0.0.1:{sockets}")
            + route.format("http", "/**", f"http://127.0.0.1:{http}")
        )
        binary = ROOT / "target/release/fanwire"
        command = ["taskset", "-c", "0", binary, "--http", "127.0.0.1:0", "--mqtt", "off", "--config", file]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.port = int(re.search(r"http=127\.0\.0\.1:(\d+)", self.process.stdout.readline())[1])

    def pids(self):
        return [self.process.pid]

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()


def cpu_ns(server):
    files = [path for pid in server.pids() for path in glob.glob(f"/proc/{pid}/task/*/schedstat")]
    return sum(int(pathlib.Path(path).read_text().split()[0]) for path in files)


def private_kb(server):
    lines = [line for pid in server.pids() for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


async def head_of(reader):
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin1")


async def echo(reader, writer):
    """A WebSocket that gives back what it gets, frame by frame as bytes: masked as they came, which nobody here minds."""
    key = re.search(r"(?i)sec-websocket-key: *(\S+)", await head_of(reader))[1]
    accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + base64.b64encode(accept) + b"\r\n\r\n"
    )
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except (ConnectionError, asyncio.CancelledError):
        pass
    writer.close()


async def requests(server, count):
    async def one(many):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(many):
            writer.write(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await head_of(reader)
            assert " 200 " in head.split("\r\n")[0], head
            size = re.search(r"(?i)content-length: *(\d+)", head)
            assert size and len(await reader.readexactly(int(size[1]))) == len(BODY), head
        writer.close()

    await asyncio.gather(*(one(count // IN_FLIGHT) for _ in range(IN_FLIGHT)))


async def shake_hands(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        "GET /socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = await head_of(reader)
    assert " 101 " in head.split("\r\n")[0], head
    return reader, writer


# A masked text frame of 1 kB; its mask is zeros.
FRAME = b"\x81\xfe\x04\x00\x00\x00\x00\x00" + BODY.encode()


async def messages(sockets, count):
    async def one(reader, writer):
        for _ in range(count // len(sockets)):
            writer.write(FRAME)
            assert await reader.readexactly(len(FRAME)) == FRAME

    await asyncio.gather(*(one(*socket) for socket in sockets))


async def measured(server, count, work):
    await work(max(count // 10, IN_FLIGHT))
    before, began = cpu_ns(server), time.monotonic()
    await work(count)
    return (cpu_ns(server) - before) / count / 1000, count / (time.monotonic() - began)


async def round_of(kind, folder, http, origin_port, options):
    server = kind(folder, http, origin_port)
    try:
        os.system(f"for p in {' '.join(map(str, server.pids()))}; do taskset -acp 0 $p >/dev/null; done")
        http_cost, http_rate = await measured(server, options.requests, lambda count: requests(server, count))
        few = [await shake_hands(server) for _ in range(IN_FLIGHT)]
        ws_cost, ws_rate = await measured(server, options.messages, lambda count: messages(few, count))
        before = private_kb(server)
        many = [await shake_hands(server) for _ in range(options.sockets)]
        await asyncio.sleep(6)
        kept = (private_kb(server) - before) * 1024 / options.sockets
        for _, writer in few + many:
            writer.transport.abort()
        print(
            f"{server.name:8} {http_cost:6.1f} us/request {http_rate:7.0f}/s   {ws_cost:6.1f} us/message {ws_rate:7.0f}/s"
            f"   {kept:7.0f} bytes/socket",
            flush=True,
        )
        return http_cost, ws_cost, kept
    finally:
        server.close()


async def main(options):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fanwire-passing-"))
    port = free_port()
    origin = nginx(folder / "origin", port, f'server {{ listen 127.0.0.1:PORT; location / {{ return 200 "{BODY}"; }} }}')
    sockets = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=4096)
    try:
        os.sched_setaffinity(0, {1} if (os.cpu_count() or 1) > 1 else {0})
        rows = {Nginx: [], Fanwire: []}
        for _ in range(options.rounds):
            for kind, row in rows.items():
                row.append(await round_of(kind, folder, port, sockets.sockets[0].getsockname()[1], options))
        ratios = [
            statistics.median(ours[at] / theirs[at] for ours, theirs in zip(rows[Fanwire], rows[Nginx])) for at in range(3)
        ]
        print("fanwire / nginx: {:.2f} HTTP, {:.2f} WebSocket, {:.2f} memory".format(*ratios))
    finally:
        sockets.close()
        origin.terminate()
        origin.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--sockets", type=int, default=1_000)
    asyncio.run(main(parser.parse_args()))
