"""How `django-eventstream` uses a proxy of GRIP, by an origin that answers as it does; what a publisher sends arrives, once
and in order. Debian's Pushpin is in the same tests where it is there, for what it can do."""

import asyncio
import json
import tempfile
import threading
import time
import unittest

import aiohttp

from grip_support import Fanwire, Origin, Pushpin, Stream, publish, until

PREFIX = "events-"


class EventStream:
    """What such a backend keeps, and how it answers: events by channel, each with a number."""

    def __init__(self):
        self.events = []
        self.asked = []
        self.first = 1
        self.stale = 0

    def add(self, text, name="message"):
        self.events.append((len(self.events) + 1, name, text))
        return len(self.events)

    def item(self, number, skip=()):
        """The item by which an event is published: its id is filled in for each client."""
        _, name, text = self.events[number - 1]
        item = {
            "channel": f"{PREFIX}news",
            "id": str(number),
            "prev-id": str(number - 1),
            "formats": {
                "http-stream": {
                    "content": f"event: {name}\nid: %I\ndata: {json.dumps(text)}\n\n",
                    "content-filters": ["build-id"],
                }
            },
        }
        if skip:
            item["meta"] = {"skip_users": ",".join(skip)}
        return item

    def answer(self, method, path, query, headers, body):
        is_next = query.get("link") == "next"
        self.asked.append((is_next, headers.get("Grip-Last"), headers.get("Last-Event-ID"), headers.get("Grip-Sig")))
        last, is_reset = len(self.events), False
        if is_next:
            last = int(headers["Grip-Last"].split("last-id=")[1])
        elif headers.get("Last-Event-ID"):
            last = int(headers["Last-Event-ID"].removeprefix("news:"))
            if last + 1 < self.first:
                is_reset, last = True, len(self.events)
        # A backend of which another process has published meanwhile.
        known = len(self.events) - self.stale
        said = "" if is_next else ":" + " " * 2048 + "\n\nevent: stream-open\ndata:\n\n"
        if is_reset:
            said += f'event: stream-reset\nid: news:{last}\ndata: {{"channels": ["news"]}}\n\n'
        for number, name, text in self.events[last:known]:
            said += f"event: {name}\nid: news:{number}\ndata: {json.dumps(text)}\n\n"
        channel = f"{PREFIX}news; prev-id={max(last, known)}; filter=skip-users; filter=build-id"
        fields = [
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-cache"),
            ("Grip-Hold", "stream"),
            ("Grip-Channel", channel),
            ("Grip-Keep-Alive", "event: keep-alive\\ndata:\\n\\n; format=cstring; timeout=20"),
            ("Grip-Link", "</events/?channel=news&link=next>; rel=next; timeout=3600"),
            ("Grip-Set-Meta", f'id_format="news:%({PREFIX}news)s", user="{query.get("user", "")}"'),
        ]
        return 200, fields, said.encode()


class Flows(unittest.TestCase):
    """Against one server; the other one below."""

    @classmethod
    def setUpClass(cls):
        cls.backend = EventStream()
        cls.origin = Origin(lambda *request: cls.backend.answer(*request))
        cls.server = cls.make(cls.origin)

    @classmethod
    def tearDownClass(cls):
        cls.server.close()
        cls.origin.close()

    make = Fanwire

    def setUp(self):
        self.backend.stale = 0

    def stream(self, path="/events/?channel=news", **headers):
        stream = Stream(self.server, path, **headers)
        self.addCleanup(stream.close)
        self.assertEqual(stream.answer.status, 200)
        self.assertFalse([name for name, _ in stream.answer.getheaders() if name.lower().startswith("grip-")])
        self.assertEqual(stream.event(), ("stream-open", None, ""))
        return stream

    def send(self, text, **more):
        number = self.backend.add(text)
        publish(self.server, self.backend.item(number, **more))
        return "message", f"news:{number}", json.dumps(text)

    def test_1_events_come_with_ids_that_are_filled_in_and_a_client_goes_on_behind_its_last(self):
        stream = self.stream()
        sent = [self.send(f"first {at}") for at in range(5)]
        self.assertEqual([stream.event() for _ in sent], sent)
        stream.close()
        missed = [self.send(f"missed {at}") for at in range(5)]
        stream = self.stream(Last_Event_ID=sent[-1][1])
        live = [self.send("live")]
        self.assertEqual([stream.event() for _ in missed + live], missed + live)

    def test_2_who_is_to_be_left_out_is(self):
        ann, bob = self.stream("/events/?channel=news&user=ann"), self.stream("/events/?channel=news&user=bob")
        kept = self.send("not for ann", skip=("ann", "eve"))
        after = self.send("for all")
        self.assertEqual([bob.event(), bob.event()], [kept, after])
        self.assertEqual(ann.event(), after)

    def test_3_a_client_that_was_away_for_too_long_is_told_to_begin_anew(self):
        self.send("old")
        self.backend.first = len(self.backend.events) + 1
        self.send("newer")
        self.backend.first = len(self.backend.events)
        stream = self.stream(Last_Event_ID="news:0")
        name, last_id, data = stream.event()
        self.assertEqual((name, json.loads(data)), ("stream-reset", {"channels": ["news"]}))
        self.assertEqual(last_id, f"news:{len(self.backend.events)}")
        live = self.send("live")
        self.assertEqual(stream.event(), live)

    def test_4_a_hint_has_the_backend_asked_by_the_link_behind_what_the_client_has(self):
        stream = self.stream()
        sent = self.send("before")
        self.assertEqual(stream.event(), sent)
        # It is in the database, and was never published.
        number = self.backend.add("only there")
        asked = len(self.backend.asked)
        publish(self.server, {"channel": f"{PREFIX}news", "formats": {"http-stream": {"action": "hint"}}})
        self.assertEqual(stream.event(), ("message", f"news:{number}", '"only there"'))
        until("a request to the link", lambda: len(self.backend.asked) > asked)
        is_next, last, _, _ = self.backend.asked[asked]
        self.assertTrue(is_next)
        self.assertIn(f"{PREFIX}news; last-id={number - 1}", last)
        live = self.send("live")
        self.assertEqual(stream.event(), live)


class FlowsOfFanwire(Flows):
    """What Pushpin does not do."""

    def test_5_what_a_backend_does_not_know_of_yet_comes_from_the_log(self):
        stream = self.stream()
        sent = [self.send(f"logged {at}") for at in range(20)]
        self.assertEqual([stream.event() for _ in sent], sent)
        stream.close()
        missed = [self.send(f"missed {at}") for at in range(20)]
        asked = len(self.backend.asked)
        self.backend.stale = 20
        stream = self.stream(Last_Event_ID=sent[-1][1])
        self.assertEqual([stream.event() for _ in missed], missed)
        self.assertEqual(len(self.backend.asked), asked + 1, "no link is needed for that")

    def test_6_a_signature_is_on_every_request_where_there_is_a_key(self):
        server = Fanwire(self.origin, 'sig_key = "base64:c2VjcmV0"\n')
        self.addCleanup(server.close)
        asked = len(self.backend.asked)
        Stream(server, "/events/?channel=news").close()
        self.assertTrue(self.backend.asked[asked][3])


@unittest.skipUnless(Pushpin.is_there(), "pushpin is not installed")
class FlowsOfPushpin(Flows):
    make = Pushpin


# It is there for its children.
del Flows


def events_of(text, *controls):
    """An answer that opens a WebSocket."""
    out = [b"OPEN\r\n"]
    for control in controls:
        content = b"c:" + json.dumps(control).encode()
        out.append(b"TEXT %x\r\n%s\r\n" % (len(content), content))
    return b"".join(out)


def answer_of_reader(method, path, query, headers, body):
    """Holds streams on `loss`, and puts WebSockets on it; echoes what they say."""
    if headers.get("Content-Type") != "application/websocket-events":
        fields = [("Grip-Hold", "stream"), ("Grip-Channel", "loss"), ("Content-Type", "text/plain")]
        return 200, fields, b"open\n"
    fields = [("Content-Type", "application/websocket-events"), ("Sec-WebSocket-Extensions", "grip")]
    if body.startswith(b"OPEN"):
        return 200, fields, events_of(body, {"type": "subscribe", "channel": "loss"})
    out = []
    while body:
        head, _, body = body.partition(b"\r\n")
        name, _, size = head.partition(b" ")
        content, body = (body[: int(size, 16)], body[int(size, 16) + 2 :]) if size else (b"", body)
        if name == b"TEXT":
            out.append(b"TEXT %x\r\nm:%s\r\n" % (len(content) + 2, content))
        elif name == b"CLOSE":
            out.append(b"CLOSE %x\r\n%s\r\n" % (len(content), content) if content else b"CLOSE\r\n")
    return 200, fields, b"".join(out)


class NothingIsLost(unittest.TestCase):
    """One reader, and more than Pushpin bears: 300 × 4 kB, one each 10 ms; 1,500 in batches; 1,000 for a WebSocket."""

    def setUp(self):
        origin = Origin(answer_of_reader)
        self.addCleanup(origin.close)
        self.server = Fanwire(origin)
        self.addCleanup(self.server.close)

    def numbers(self, stream, count):
        return [int(stream.answer.readline().split(b" ")[0]) for _ in range(count)]

    def test_items_of_4_kb_each_10_ms_and_batches(self):
        stream = Stream(self.server, "/stream")
        self.addCleanup(stream.close)
        self.assertEqual(stream.answer.readline(), b"open\n")
        large = "x" * 4000

        def item(number, text):
            prev = {"prev-id": str(number - 1)} if number else {}
            content = {"http-stream": {"content": f"{number} {text}\n"}, "ws-message": {"content": f"{number} {text}"}}
            return {"channel": "loss", "id": str(number), "formats": content, **prev}

        def send():
            for number in range(300):
                publish(self.server, item(number, large))
                time.sleep(0.01)
            for first in range(300, 1800, 100):
                publish(self.server, *(item(number, "b") for number in range(first, first + 100)))

        sending = threading.Thread(target=send)
        sending.start()
        self.assertEqual(self.numbers(stream, 1800), list(range(1800)))
        sending.join()

    def test_messages_published_to_a_websocket_and_echoed_by_its_origin(self):
        async def read():
            async with aiohttp.ClientSession() as session:
                async with session.ws_connect(f"http://{self.server.address}/socket") as socket:
                    await socket.send_str("hello")
                    assert await socket.receive_str(timeout=20) == "hello"
                    items = [{"channel": "loss", "formats": {"ws-message": {"content": str(n)}}} for n in range(1000)]
                    sending = asyncio.gather(asyncio.to_thread(lambda: [publish(self.server, item) for item in items]))
                    heard = [int(await socket.receive_str(timeout=20)) for _ in range(1000)]
                    await sending
                    for number in range(1000):
                        await socket.send_str(str(number))
                    echoed = [int(await socket.receive_str(timeout=20)) for _ in range(1000)]
                    await socket.close(code=4000)
                    return heard, echoed, socket.close_code

        heard, echoed, code = asyncio.run(read())
        self.assertEqual(heard, list(range(1000)))
        self.assertEqual(echoed, list(range(1000)))
        self.assertEqual(code, 4000)


class OnTheDisk(unittest.TestCase):
    """Holds on channels that a store keeps."""

    def test_a_hold_goes_on_behind_its_item_after_the_server_was_killed(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        last = None

        def answer(method, path, query, headers, body):
            channel = "loss" if last is None else f"loss; prev-id={last}"
            mode = "response" if path == "/response" else "stream"
            return 200, [("Grip-Hold", mode), ("Grip-Channel", channel), ("Content-Type", "text/plain")], b"open\n"

        origin = Origin(answer)
        self.addCleanup(origin.close)
        arguments = ["--data", folder.name]

        def item(number):
            prev = {"prev-id": str(number - 1)} if number else {}
            formats = {"http-stream": {"content": f"{number}\n"}, "http-response": {"body": f"response {number}"}}
            return {"channel": "loss", "id": str(number), "formats": formats, **prev}

        server = Fanwire(origin, arguments=arguments)
        stream = Stream(server, "/stream")
        self.assertEqual(stream.answer.readline(), b"open\n")
        for number in range(100):
            publish(server, item(number))
        self.assertEqual([int(stream.answer.readline()) for _ in range(100)], list(range(100)))
        stream.close()
        server.close()
        # It was not asked to stop. A client comes back that has the first fifty.
        server = Fanwire(origin, arguments=arguments)
        self.addCleanup(server.close)
        last = 49
        stream = Stream(server, "/stream")
        self.addCleanup(stream.close)
        self.assertEqual(stream.answer.readline(), b"open\n")
        response = Stream(server, "/response")
        self.assertEqual((response.answer.status, response.answer.read()), (200, b"response 50"))
        # What it has had is known still: a repeat is none.
        publish(server, item(99))
        publish(server, *(item(number) for number in range(100, 200)))
        self.assertEqual([int(stream.answer.readline()) for _ in range(150)], list(range(50, 200)))


if __name__ == "__main__":
    unittest.main()
