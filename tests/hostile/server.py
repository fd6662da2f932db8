"""The server that is tried: where it listens, what it holds, what it costs."""

import os
import pathlib
import re
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


class Server:
    """A running server, by its process and its addresses."""

    def __init__(self, pid, http, mqtt, child=None):
        self.pid, self.http, self.mqtt, self.child = pid, http, mqtt, child

    @classmethod
    def start(cls, arguments=()):
        """The release binary, or $FANWIRE, on free ports of the loopback address."""
        binary = os.environ.get("FANWIRE", ROOT / "target/release/fanwire")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FANWIRE_")}
        child = subprocess.Popen(
            [binary, "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )
        found = dict(re.findall(r"(http|mqtt)=(\S+)", child.stdout.readline()))
        return cls(child.pid, address(found["http"]), address(found["mqtt"]), child)

    def stop(self):
        if self.child:
            self.child.terminate()
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def is_alive(self):
        if self.child:
            return self.child.poll() is None
        return pathlib.Path(f"/proc/{self.pid}").exists()

    def private_bytes(self):
        """Memory that is this process' alone."""
        try:
            rows = pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        except OSError:
            return 0
        return sum(int(kib) * 1024 for kib in re.findall(r"^Private_\w+:\s+(\d+) kB", rows, re.M))

    def cpu_seconds(self):
        try:
            fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / TICKS


def address(written):
    host, port = written.rsplit(":", 1)
    return host.strip("[]"), int(port)


class Peak:
    """The most private memory while it is entered, looked at 20 times a second."""

    def __init__(self, server):
        self.server, self.before, self.peak = server, server.private_bytes(), 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        self.peak = self.before
        self.thread.start()
        return self

    def watch(self):
        while not self.ended.wait(0.05):
            self.peak = max(self.peak, self.server.private_bytes())

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        self.peak = max(self.peak, self.server.private_bytes())

    def grown(self):
        return self.peak - self.before


def settle(server, seconds=20):
    """Waits until the server has nothing more to do than what honest traffic asks for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.is_alive():
        before = server.cpu_seconds()
        time.sleep(0.3)
        if server.cpu_seconds() - before < 0.06:
            return


def wait_until(condition, seconds):
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
