"""Webhooks against the reference library, the PyPI package `standardwebhooks`."""

import http.server
import os
import pathlib
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.request

from standardwebhooks.webhooks import Webhook

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = os.environ.get("FW_TEST_BINARY", ROOT / "target/release/fanwire")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Backend(http.server.BaseHTTPRequestHandler):
    """Says no to the channel `no`, and keeps what is signed."""

    protocol_version = "HTTP/1.1"
    verified, refused = [], []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            event = Webhook(SECRET).verify(body, {name.lower(): value for name, value in self.headers.items()})
            Backend.verified.append(event)
            status = 403 if event["data"].get("channel") == "no" else 200
        except Exception as error:
            Backend.refused.append((error, body))
            status = 401
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Webhooks(unittest.TestCase):
    def test_what_is_signed_is_verified_and_a_no_is_a_no(self):
        backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        threading.Thread(target=backend.serve_forever, daemon=True).start()
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(
                f'[[gateway.webhooks]]\nid = "a"\nurl = "http://127.0.0.1:{backend.server_port}/"\n'
                f'secret = "{SECRET}"\nevents = ["publish", "broker.started"]\n'
            )
            file.flush()
            arguments = [BINARY, "--http", "127.0.0.1:0", "--mqtt", "off", "--config", file.name]
            server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            try:
                address = server.stdout.readline().split("http=")[1].split()[0]
                publish = lambda channel: urllib.request.urlopen(
                    urllib.request.Request(f"http://{address}/v1/publish/{channel}", b"x"), timeout=10
                )
                with publish("yes") as answer:
                    self.assertEqual(answer.status, 200)
                with self.assertRaises(urllib.error.HTTPError) as refused:
                    publish("no")
                self.assertEqual(refused.exception.code, 403)
                deadline = time.monotonic() + 10
                while len(Backend.verified) < 3 and time.monotonic() < deadline:
                    time.sleep(0.05)
            finally:
                server.terminate()
                server.wait(10)
                backend.shutdown()
        self.assertEqual(Backend.refused, [])
        self.assertEqual(sorted(event["type"] for event in Backend.verified), ["broker.started", "publish", "publish"])


if __name__ == "__main__":
    unittest.main()
