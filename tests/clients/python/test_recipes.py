"""examples/recipes/publish.py: what the documentation tells people to copy, run as it stands."""

import http.server
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import unittest
import urllib.request

import requests

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = os.environ.get("FW_TEST_BINARY", ROOT / "target/release/fanwire")
RECIPE = ROOT / "examples/recipes/publish.py"

spec = importlib.util.spec_from_file_location("recipe", RECIPE)
recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe)


class Moody(http.server.BaseHTTPRequestHandler):
    """Busy, then loses the answer of a publish that was taken, then works."""

    real, tries = "", 0

    def do_POST(self):
        Moody.tries += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if Moody.tries == 1:
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        headers = {name: self.headers[name] for name in ("Content-Type", "Idempotency-Key")}
        with urllib.request.urlopen(urllib.request.Request(self.real + self.path, body, headers)) as answer:
            receipt = answer.read()
        if Moody.tries == 2:
            self.connection.close()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(receipt)))
        self.end_headers()
        self.wfile.write(receipt)

    def log_message(self, *_):
        pass


class Recipes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = subprocess.Popen(
            [BINARY, "--http", "127.0.0.1:0", "--mqtt", "off"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        cls.http = "http://" + re.fullmatch(r"listening http=(\S+)\n", cls.server.stdout.readline()).group(1)

    @classmethod
    def tearDownClass(cls):
        cls.server.kill()
        cls.server.wait()
        cls.server.stdout.close()

    def test_a_publish_is_taken_once_though_an_answer_is_lost(self):
        Moody.real = self.http
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Moody) as front:
            threading.Thread(target=front.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{front.server_port}"
            receipt = recipe.publish(recipe.session(), url, "python/once é", {"n": 1})
            front.shutdown()
        self.assertEqual((receipt["channel"], receipt["duplicate"], Moody.tries), ("python/once é", True, 3))
        history = requests.get(f"{self.http}/v1/history/python/once é", timeout=10).json()
        self.assertEqual([message["data"] for message in history["messages"]], [{"n": 1}])

    def test_a_refusal_says_why(self):
        with self.assertRaisesRegex(requests.HTTPError, "400 invalid_channel: "):
            recipe.publish(recipe.session(), self.http, "python/*/x", 1)

    def test_a_stream_is_read_and_resumed(self):
        client = recipe.session("a token that nobody asks for")
        first = recipe.publish(client, self.http, "python/stream/a", {"text": "two\nlines"})
        stream = recipe.events(client, self.http, "python/stream/*", "python/other", last_event_id="earliest")
        self.assertEqual(next(stream)["data"], {"text": "two\nlines"})
        recipe.publish(client, self.http, "python/other", "x" * 100_000)
        self.assertEqual(next(stream)["data"], "x" * 100_000)
        stream.close()
        again = recipe.events(client, self.http, "python/stream/*", "python/other", last_event_id=first["id"])
        self.assertEqual(next(again)["channel"], "python/other")
        again.close()

    def test_the_command_prints_the_receipt(self):
        command = [sys.executable, RECIPE, self.http, "python/command", '{"text": "hello"}']
        receipt = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)
        self.assertEqual((receipt["channel"], receipt["duplicate"]), ("python/command", False))


if __name__ == "__main__":
    unittest.main()
