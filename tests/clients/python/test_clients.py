"""The stock Python clients against the real server: paho-mqtt, aiocometd, requests with sseclient, httpx-sse."""

import asyncio
import json
import logging
import os
import pathlib
import queue
import re
import subprocess
import threading
import time
import unittest
from http import client as http_client

import aiocometd_noloop as aiocometd
import httpx
import httpx_sse
import paho.mqtt.client as paho
import requests
import sseclient

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = os.environ.get("FW_TEST_BINARY", ROOT / "target/release/fanwire")
PATIENCE = 10

# aiocometd tells of every connect that its own closing cuts off.
logging.disable(logging.CRITICAL)


def start(*arguments):
    """A server, and where its HTTP and its MQTT listen."""
    server = subprocess.Popen(
        [BINARY, "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    line = server.stdout.readline()
    http, host, port = re.fullmatch(r"listening http=(\S+) mqtt=(\S+):(\d+)\n", line).groups()
    return server, f"http://{http}", (host, int(port))


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server, cls.http, cls.mqtt = start("--config", ROOT / "tests/clients/fetch_events.toml")

    @classmethod
    def tearDownClass(cls):
        cls.server.kill()
        cls.server.wait()
        cls.server.stdout.close()

    def publish(self, channel, message):
        answer = requests.post(f"{self.http}/v1/publish/{channel}", json=message, timeout=PATIENCE)
        self.assertEqual(answer.status_code, 200, answer.text)
        return answer.json()

    def paho(self, version, transport="tcp", **options):
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=version, transport=transport, **options)
        client.got, subscribed = queue.Queue(), threading.Event()
        client.on_message = lambda _, __, message: client.got.put(message)
        client.on_subscribe = lambda *_: subscribed.set()
        host, port = self.mqtt
        if transport == "websockets":
            client.ws_set_options(path="/mqtt")
            port = int(self.http.rsplit(":", 1)[1])
        client.connect(host, port)
        client.loop_start()
        self.addCleanup(lambda: (client.disconnect(), client.loop_stop()))

        def subscribe(topic, qos):
            subscribed.clear()
            client.subscribe(topic, qos)
            self.assertTrue(subscribed.wait(PATIENCE))

        return client, subscribe

    def test_paho_receives_what_http_publishes(self):
        for version in (paho.MQTTv311, paho.MQTTv5):
            for transport in ("tcp", "websockets"):
                with self.subTest(version=version, transport=transport):
                    client, subscribe = self.paho(version, transport)
                    subscribe("python/+", 1)
                    self.publish("python/a", {"n": 1})
                    message = client.got.get(timeout=PATIENCE)
                    self.assertEqual((message.topic, json.loads(message.payload), message.qos), ("python/a", {"n": 1}, 1))

    def test_paho_publishes_at_every_qos_to_an_event_stream(self):
        with requests.get(f"{self.http}/sse/python/qos", stream=True, timeout=PATIENCE) as answer:
            events = sseclient.SSEClient(answer).events()
            client, _ = self.paho(paho.MQTTv5)
            for qos in (0, 1, 2):
                client.publish("python/qos", f"qos {qos}", qos).wait_for_publish(PATIENCE)
                self.assertEqual(next(events).data, f"qos {qos}")

    def test_every_way_of_reading_delivers_an_event_as_it_comes(self):
        ways = {
            "requests, pieces": lambda answer: answer.iter_content(chunk_size=None),
            "requests, lines": lambda answer: (line + b"\n" for line in answer.iter_lines()),
            "urllib3": lambda answer: answer.raw.stream(4096),
        }
        for way, read in ways.items():
            with self.subTest(way=way), requests.get(f"{self.http}/sse/python/ways", stream=True, timeout=PATIENCE) as answer:
                events = sseclient.SSEClient(read(answer)).events()
                for n in range(3):
                    sent = self.publish("python/ways", n)
                    event = next(events)
                    self.assertEqual((event.data, event.id), (str(n), sent["id"]))

    def test_httpx_sse_sees_messages_and_nothing_else(self):
        self.publish("python/httpx", "before")
        with httpx.Client(timeout=PATIENCE) as client, httpx_sse.connect_sse(client, "GET", f"{self.http}/sse/python/httpx") as source:
            # Longer than some keep-alives.
            time.sleep(1)
            sent = [self.publish("python/httpx", n) for n in range(2)]
            events = source.iter_sse()
            got = [next(events)]
            time.sleep(1)
            got.append(next(events))
            self.assertEqual([(event.id, event.data) for event in got], [(one["id"], str(n)) for n, one in enumerate(sent)])

    def test_a_stream_of_a_server_that_is_killed_is_not_whole(self):
        server, http, _ = start()
        try:
            connection = http_client.HTTPConnection(http.removeprefix("http://"), timeout=PATIENCE)
            connection.request("GET", "/sse/python/killed")
            answer = connection.getresponse()
            self.assertTrue(answer.readline().startswith(b"id: "))
        finally:
            server.kill()
            server.wait()
            server.stdout.close()
        with self.assertRaises(http_client.IncompleteRead):
            answer.read()

    def test_paho_hears_a_megabyte_of_itself_in_every_version_and_quality(self):
        payload = os.urandom(1 << 20)
        for version in (paho.MQTTv31, paho.MQTTv311, paho.MQTTv5):
            for transport in ("tcp", "websockets"):
                with self.subTest(version=version, transport=transport):
                    client, subscribe = self.paho(version, transport)
                    topic = f"python/large/{version}/{transport}"
                    subscribe(topic, 2)
                    for qos in (0, 1, 2):
                        client.publish(topic, payload, qos)
                        message = client.got.get(timeout=PATIENCE)
                        self.assertEqual((message.qos, message.payload == payload), (qos, True))

    def test_paho_finds_what_came_while_it_was_away(self):
        for transport in ("tcp", "websockets"):
            with self.subTest(transport=transport):
                topic = f"python/away/{transport}"
                first, subscribe = self.paho(paho.MQTTv311, transport, client_id=topic, clean_session=False)
                subscribe(topic, 2)
                first.disconnect()
                first.loop_stop()
                self.publish(topic, "while away")
                again, _ = self.paho(paho.MQTTv311, transport, client_id=topic, clean_session=False)
                message = again.got.get(timeout=PATIENCE)
                self.assertEqual(json.loads(message.payload), "while away")

    def test_aiocometd_over_both_transports(self):
        kinds = aiocometd.ConnectionType
        for kind in (kinds.WEBSOCKET, kinds.LONG_POLLING):
            with self.subTest(kind=kind):
                asyncio.run(asyncio.wait_for(self.cometd(kind), 30))

    async def cometd(self, kind):
        # By name: its HTTP library keeps no cookies of servers that are named by number, and the session is bound to one.
        address = self.http.replace("127.0.0.1", "localhost")
        async with aiocometd.Client(f"{address}/cometd", kind) as client:
            await client.subscribe("/python/cometd")
            await client.publish("/python/cometd", {"from": "bayeux"})
            message = await client.receive()
            self.assertEqual(message["data"], {"from": "bayeux"})
            await asyncio.to_thread(self.publish, "python/cometd", {"from": "http"})
            message = await client.receive()
            self.assertEqual((message["channel"], message["data"]), ("/python/cometd", {"from": "http"}))

    def test_requests_publishes_once_however_often_it_tries(self):
        address = f"{self.http}/v1/publish/python/once"
        tries = [requests.post(address, data=b"x", headers={"Idempotency-Key": "k1"}, timeout=PATIENCE).json() for _ in range(3)]
        self.assertEqual(len({one["id"] for one in tries}), 1)
        self.assertEqual([one["duplicate"] for one in tries], [False, True, True])


if __name__ == "__main__":
    unittest.main()
