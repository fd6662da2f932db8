"""An origin, servers in front of it, and readers, for the tests of GRIP."""

import http.client
import http.server
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = os.environ.get("FW_TEST_BINARY", ROOT / "target/release/fanwire")
# Where Debian's package of Pushpin is unpacked, if it is not installed.
PUSHPIN_ROOT = os.environ.get("FW_TEST_PUSHPIN_ROOT", "")
PATIENCE = 20


def until(what, is_so):
    """Waits for something that should happen."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError(f"{what} in time")
        time.sleep(0.01)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Origin:
    """A backend: `answer(method, path, query, headers, body)` gives a status, pairs of header fields, and a body."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            def do(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query))
                status, fields, said = answer(self.command, url.path, query, self.headers, body)
                self.send_response(status)
                for name, value in fields:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST = do

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Fanwire:
    """A server with one route to the origin."""

    name = "fanwire"

    def __init__(self, origin, more="", arguments=()):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.file.write(
            '[[gateway.routes]]\nid = "live"\ndialect = "grip"\npath = "/**"\n'
            f'origin = "http://127.0.0.1:{origin.port}"\n{more}'
        )
        self.file.flush()
        command = [BINARY, "--http", "127.0.0.1:0", "--mqtt", "off", "--config", self.file.name, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.address = self.process.stdout.readline().split("http=")[1].split()[0]
        self.control = f"{self.address}/grip"

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.file.close()


class Pushpin:
    """Debian's, the same way."""

    name = "pushpin"

    @staticmethod
    def is_there():
        return bool(PUSHPIN_ROOT) or shutil.which("pushpin") is not None

    def __init__(self, origin):
        self.address, self.control = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.folder = tempfile.TemporaryDirectory(prefix="pp")
        environment = dict(os.environ, TMPDIR=self.folder.name, PUSHPIN_ROUTE=f"127.0.0.1:{origin.port},over_http")
        if PUSHPIN_ROOT:
            environment["PUSHPIN_ROOT"] = PUSHPIN_ROOT
        script = ROOT / "benches/peers/pushpin.sh"
        command = ["sh", script, self.address, self.control, "127.0.0.1:0", "tcp", "none"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        for address in (self.address, self.control):
            host, port = address.split(":")
            until("pushpin", lambda: connects(host, int(port)))
        until("pushpin's handler", self.holds)

    def holds(self):
        """Whether its parts reach each other: before that it listens, and answers with a 500, with an end or not at all."""
        host, port = self.address.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=1)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status != 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        self.folder.cleanup()


def connects(host, port):
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError:
        return False


def publish(server, *items):
    """Publishes items, in one request."""
    address, _, path = server.control.partition("/")
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    body = json.dumps({"items": items})
    connection.request("POST", f"/{path}/publish/".replace("//", "/"), body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert answer.status == 200, (answer.status, said)


class Stream:
    """A body that does not end, piece by piece."""

    def __init__(self, server, path, **headers):
        self.connection = http.client.HTTPConnection(server.address, timeout=PATIENCE)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("GET", path, headers=fields)
        self.answer = self.connection.getresponse()

    def event(self):
        """The next event of Server-Sent Events as (name, id, data); `None` at the end."""
        name, last_id, data = None, None, []
        while True:
            line = self.answer.readline().decode()
            if not line:
                return None
            line = line.rstrip("\n")
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if line == "" and data:
                return name, last_id, "\n".join(data)
            if field == "event":
                name = value
            elif field == "id":
                last_id = value
            elif field == "data":
                data.append(value)

    def close(self):
        self.answer.close()
        self.connection.close()
