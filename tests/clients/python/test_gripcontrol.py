"""Publishing with the PyPI packages `gripcontrol` and `pubcontrol`, as backends of Pushpin and Fanout do it."""

import base64
import http.client
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from gripcontrol import GripPubControl, HttpResponseFormat, HttpStreamFormat, WebSocketMessageFormat, parse_grip_uri
from pubcontrol import Item, PubControl

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = os.environ.get("FW_TEST_BINARY", ROOT / "target/release/fanwire")
KEY = base64.b64encode(b"a secret of both sides, of 32 bytes").decode()


class Events:
    """An event stream, one event after the other."""

    def __init__(self, address, channel):
        self.connection = http.client.HTTPConnection(address, timeout=20)
        self.connection.request("GET", f"/sse/{channel}?format=raw")
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.status

    def close(self):
        self.answer.close()
        self.connection.close()

    def next(self):
        event, data = None, []
        while True:
            line = self.answer.readline().decode().rstrip("\n")
            if line.startswith("event:"):
                event = line[6:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif line == "" and data:
                return event, "\n".join(data)


class GripControl(unittest.TestCase):
    def setUp(self):
        file = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.addCleanup(file.close)
        file.write(
            f'[[gateway.grip.control_keys]]\niss = "app"\nkey = "base64:{KEY}"\nchannels = ["news/**"]\n'
            '[[anonymous.allow]]\nactions = ["subscribe"]\nchannels = ["**"]\n'
        )
        file.flush()
        arguments = [BINARY, "--http", "127.0.0.1:0", "--mqtt", "off", "--config", file.name]
        self.server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(self.server.stdout.close)
        self.addCleanup(self.server.wait)
        self.addCleanup(self.server.kill)
        self.address = self.server.stdout.readline().split("http=")[1].split()[0]

    def config(self, key=KEY):
        """As it comes of GRIP_URL, and no other way."""
        config = parse_grip_uri(f"http://{self.address}/grip?iss=app&key=base64:{key}")
        self.assertEqual(config["control_iss"], "app")
        return config

    def test_every_format_is_published_and_read_by_anybody(self):
        events = Events(self.address, "news/1")
        self.addCleanup(events.close)
        grip = GripPubControl(self.config())
        grip.publish_http_stream("news/1", "event: price\ndata: 7\n\n", blocking=True)
        self.assertEqual(events.next(), ("price", "7"))
        grip.publish_http_response("news/1", HttpResponseFormat(code=200, body='{"n":1}'), blocking=True)
        self.assertEqual(events.next()[1], '{"n":1}')
        item = Item([WebSocketMessageFormat("to sockets"), HttpStreamFormat("to streams\n")], id="2", prev_id="1")
        grip.publish("news/1", item, blocking=True)
        self.assertEqual(events.next()[1], "to sockets")
        # The same id is the same item.
        grip.publish("news/1", item, blocking=True)
        grip.publish("news/1", Item(HttpStreamFormat("behind it"), id="3", prev_id="2"), blocking=True)
        self.assertEqual(events.next()[1], "behind it")

    def test_what_is_published_without_waiting_comes_once_and_in_order(self):
        events = Events(self.address, "news/2")
        self.addCleanup(events.close)
        done = []
        grip = GripPubControl(self.config())
        for number in range(200):
            item = Item(HttpStreamFormat(json.dumps(number)), id=str(number + 1), prev_id=str(number))
            grip.publish("news/2", item, callback=lambda result, error: done.append((result, error)))
        grip.finish()
        self.assertEqual(done, [(True, None)] * 200)
        self.assertEqual([json.loads(events.next()[1]) for _ in range(200)], list(range(200)))

    def test_pubcontrol_alone_publishes_too_and_a_wrong_key_is_told(self):
        events = Events(self.address, "news/3")
        self.addCleanup(events.close)
        config = self.config()
        plain = {"uri": config["control_uri"], "iss": config["control_iss"], "key": config["key"]}
        PubControl(plain).publish("news/3", Item(HttpStreamFormat("hello")), blocking=True)
        self.assertEqual(events.next()[1], "hello")
        wrong = self.config(base64.b64encode(b"another one, of as many bytes too").decode())
        for config, channel in [(wrong, "news/3"), (self.config(), "elsewhere")]:
            with self.assertRaises(ValueError):
                GripPubControl(config).publish_http_stream(channel, "no", blocking=True)


if __name__ == "__main__":
    unittest.main()
