"""Who publishes and who listens while something goes wrong, and what they say of it afterwards."""

import base64
import http.client
import json
import socket
import threading
import time

from parts import ask

# What a publisher waits for one answer. A refusal has come by then.
PATIENCE_S = 25

# From just before disks lose their power until the servers on them are gone. They live on for a moment, and may say that
# what they have just written is on the disk when it is not: that nobody hears whose machine has lost its power, too.
without_power = threading.Event()


class Publisher(threading.Thread):
    """Publishes one message after the other on a channel of its own, at one node, until it is told to stop. What is not
    acknowledged of a durable channel is said again under the same key."""

    def __init__(self, node, namespace, number, pace, durable):
        super().__init__(daemon=True)
        self.node, self.channel, self.pace, self.durable = node, f"{namespace}/{number}", pace, durable
        self.acknowledged, self.refused, self.longest, self.sent = [], {}, 0.0, 0
        self.ended = threading.Event()

    def run(self):
        connection = None
        while not self.ended.is_set():
            self.sent += 1
            text = f"{self.channel} {self.sent}"
            start = time.monotonic()
            while True:
                headers = {"idempotency-key": text} if self.durable else {}
                try:
                    connection = connection or http.client.HTTPConnection(*self.node.http, timeout=PATIENCE_S)
                    connection.request("POST", f"/v1/publish/{self.channel}", text, headers)
                    answer = connection.getresponse()
                    body = answer.read()
                    if without_power.is_set():
                        raise OSError("there is no power")
                    if answer.status == 200:
                        self.acknowledged.append(self.sent)
                        break
                    self.refuse(str(answer.status))
                    if answer.status == 503 and not answer.headers.get("retry-after"):
                        self.refuse("503 without retry-after")
                    if answer.status not in (429, 503, 504):
                        self.refuse(f"{answer.status} {body[:100]!r}")
                except (OSError, http.client.HTTPException) as error:
                    connection = None
                    self.refuse(type(error).__name__)
                # A message that is not durable, and was not answered, is gone.
                if not self.durable or self.ended.is_set():
                    break
                time.sleep(0.2)
            self.longest = max(self.longest, time.monotonic() - start)
            time.sleep(self.pace)

    def refuse(self, why):
        self.refused[why] = self.refused.get(why, 0) + 1


class Reader(threading.Thread):
    """An EventSource on one node, which goes on from its last id after each end."""

    def __init__(self, node, filter_):
        super().__init__(daemon=True)
        self.node, self.filter = node, filter_
        self.received, self.last_id, self.gaps, self.opened = [], None, [], 0
        self.ended, self.there, self.stream = threading.Event(), threading.Event(), None

    def run(self):
        while not self.ended.is_set():
            try:
                self.read()
            except (OSError, http.client.HTTPException, ValueError):
                pass
            self.there.clear()
            time.sleep(0.1)

    def read(self):
        connection = http.client.HTTPConnection(*self.node.http, timeout=40)
        headers = {"accept": "text/event-stream"}
        if self.last_id:
            headers["last-event-id"] = self.last_id
        connection.request("GET", f"/sse/{self.filter}?format=raw", headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            connection.close()
            return
        self.opened += 1
        self.there.set()
        self.stream = answer
        event = {}
        while not self.ended.is_set():
            line = answer.readline()
            if not line:
                break
            line = line.decode().rstrip("\r\n")
            if line:
                name, _, value = line.partition(":")
                event[name] = value.removeprefix(" ")
                continue
            if event.get("id"):
                self.last_id = event["id"]
            if event.get("event", "message") == "message" and "data" in event:
                self.received.append(event["data"])
            elif event.get("event"):
                self.gaps.append((event["event"], event.get("data")))
            event = {}
        connection.close()

    def move(self, node):
        """To another node: it is the next one that is asked when this stream ends."""
        self.node = node

    def stop(self):
        self.ended.set()


class Traffic:
    """Publishers and readers at every node of a cluster, over a memory namespace and, where it has one, a durable one."""

    def __init__(self, cluster, durable, pace=0.01):
        self.cluster, self.durable = cluster, durable
        names = ["chat"] + ["orders"] * durable
        self.publishers = [Publisher(node, name, number, pace, name == "orders")
                           for name in names for number, node in enumerate(cluster.nodes)]
        self.readers = [Reader(node, f"{name}/*") for name in names for node in cluster.nodes]

    def __enter__(self):
        for reader in self.readers:
            reader.start()
        for reader in self.readers:
            if not reader.there.wait(10):
                raise TimeoutError("a reader has no stream")
        for publisher in self.publishers:
            publisher.start()
        return self

    def __exit__(self, *_):
        for thread in self.publishers + self.readers:
            thread.ended.set()

    def stop(self):
        """No more is published; until all who publish have their last answer."""
        for publisher in self.publishers:
            publisher.ended.set()
        for publisher in self.publishers:
            publisher.join(PATIENCE_S + 10)

    def settle(self, seconds=20):
        """Until nobody receives anything any more."""
        end, before = time.monotonic() + seconds, None
        while time.monotonic() < end:
            now = [len(reader.received) for reader in self.readers]
            if now == before and all(reader.there.is_set() for reader in self.readers):
                return
            before = now
            time.sleep(1)

    def of(self, namespace):
        return [publisher for publisher in self.publishers if publisher.channel.startswith(namespace)]

    def heard(self, reader, publisher):
        """The numbers of a publisher's messages, as they came."""
        return [int(text.rsplit(" ", 1)[1]) for text in reader.received if text.startswith(publisher.channel + " ")]

    def report(self, namespace, nodes):
        """Of all acknowledged messages of publishers and readers at these nodes: lost, twice, out of order."""
        lost = twice = late = 0
        for reader in self.readers:
            if not reader.filter.startswith(namespace) or reader.node not in nodes:
                continue
            for publisher in self.of(namespace):
                if publisher.node not in nodes:
                    continue
                heard = self.heard(reader, publisher)
                lost += len(set(publisher.acknowledged) - set(heard))
                twice += len(heard) - len(set(heard))
                late += sum(a > b for a, b in zip(heard, heard[1:]))
        acknowledged = sum(len(publisher.acknowledged) for publisher in self.of(namespace))
        refused = {}
        for publisher in self.of(namespace):
            for why, count in publisher.refused.items():
                refused[why] = refused.get(why, 0) + count
        gaps = sum(len(reader.gaps) for reader in self.readers if reader.filter.startswith(namespace))
        return {"acknowledged": acknowledged, "lost": lost, "twice": twice, "late": late, "gaps": gaps,
                "refused": refused, "longest": max(publisher.longest for publisher in self.of(namespace))}

    def stored(self, node):
        """What is wrong with what is stored of the durable channels, as one node tells it: a line each."""
        wrong = []
        for publisher in self.of("orders"):
            there = [int(text.rsplit(" ", 1)[1]) for _, text in history(node.http, publisher.channel)]
            lost = set(publisher.acknowledged) - set(there)
            if lost:
                wrong.append(f"{node.name}: {len(lost)} acknowledged of {publisher.channel} are not stored")
            if there != sorted(set(there)):
                wrong.append(f"{node.name}: {publisher.channel} is stored twice or out of order")
        return wrong


def history(address, channel):
    """All that is kept of a channel: ids and payloads."""
    found, after = [], ""
    while True:
        status, body, _ = ask(address, "GET", f"/v1/history/{channel}?limit=1000{after}")
        if status != 200:
            raise OSError(f"history: {status} {body[:200]!r}")
        page = json.loads(body)
        for message in page["messages"]:
            text = message.get("data", message.get("text"))
            if text is None:
                text = base64.b64decode(message["base64"]).decode()
            found.append((message["id"], text))
        if len(page["messages"]) < 1000:
            return found
        after = "&after=" + found[-1][0]


class Connection:
    """One connection of an MQTT 5 client, which says nothing after its CONNECT."""

    def __init__(self, node, client):
        self.socket = socket.create_connection(node.mqtt, timeout=10)
        name = client.encode()
        # A session that outlives it.
        body = b"\0\4MQTT\5\0\0\0\5\x11\0\0\1\0" + len(name).to_bytes(2, "big") + name
        self.socket.sendall(bytes([0x10, len(body)]) + body)
        self.received = b""

    def end(self, seconds):
        """What ended it: the reason of its DISCONNECT, `closed`, or none if it is there after so many seconds."""
        self.socket.settimeout(max(seconds, 0.01))
        try:
            while more := self.socket.recv(4096):
                self.received += more
        except TimeoutError:
            return None
        except OSError:
            pass
        at = self.received.rfind(b"\xe0")
        return f"{self.received[at + 2]:#x}" if at >= 0 and len(self.received) > at + 2 else "closed"


class Session:
    """A session of an MQTT 5 client that is subscribed to `topic` at QoS 1 and acknowledges what comes. It is resumed at
    whichever node its client connects to. `again` are messages that had come before, which QoS 1 allows."""

    def __init__(self, client, topic="orders/sessions"):
        self.topic = topic.encode()
        self.client, self.received, self.again, self.socket, self.reader = client, [], 0, None, None

    def connect(self, node, is_new, patience=60):
        """Until it is let in."""
        end = time.monotonic() + patience
        while True:
            try:
                return self.try_to_connect(node, is_new)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def try_to_connect(self, node, is_new):
        self.close()
        self.socket = socket.create_connection(node.mqtt, timeout=30)
        name = self.client.encode()
        body = b"\0\4MQTT\5\0\0\0\5\x11\0\0\1\0" + len(name).to_bytes(2, "big") + name
        self.socket.sendall(bytes([0x10, len(body)]) + body)
        head, answer = self.packet()
        if head != 0x20 or answer[1] != 0:
            raise ConnectionError(f"CONNACK {answer[1:2].hex()}")
        if (answer[0] == 0) != is_new:
            raise AssertionError(f"{self.client} finds {'a' if is_new else 'no'} session")
        if is_new:
            self.socket.sendall(bytes([0x82, 6 + len(self.topic), 0, 1, 0, 0, len(self.topic)]) + self.topic + b"\1")
            self.packet()
        self.socket.settimeout(None)
        self.reader = threading.Thread(target=self.read, args=(self.socket,), daemon=True)
        self.reader.start()

    def packet(self):
        head, length, shift = self.exactly(1)[0], 0, 0
        while True:
            byte = self.exactly(1)[0]
            length, shift = length | (byte & 127) << shift, shift + 7
            if byte < 128:
                return head, self.exactly(length)

    def exactly(self, count):
        got = b""
        while len(got) < count:
            more = self.socket.recv(count - len(got))
            if not more:
                raise ConnectionError("closed")
            got += more
        return got

    def read(self, own):
        try:
            while own is self.socket:
                head, body = self.packet()
                if head >> 4 != 3:
                    continue
                at = 2 + int.from_bytes(body[:2], "big")
                number = int(body[at + 3 + body[at + 2]:])
                if number in self.received:
                    self.again += 1
                else:
                    self.received.append(number)
                own.sendall(b"\x40\2" + body[at:at + 2])
        except (OSError, ValueError, AttributeError):
            pass

    def close(self):
        if self.socket:
            try:
                self.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.socket.close()
        if self.reader:
            self.reader.join(5)
        self.socket = self.reader = None


def reaches_all(cluster):
    """How long it takes until what each node publishes on a memory channel reaches a reader at each other one."""
    start = time.monotonic()
    readers = [Reader(node, "probe/*") for node in cluster.nodes]
    for reader in readers:
        reader.start()
    try:
        number = 0
        while time.monotonic() - start < 60:
            number += 1
            for index, node in enumerate(cluster.nodes):
                try:
                    ask(node.http, "POST", f"/v1/publish/probe/{index}", f"{index} {number}", timeout=2)
                except OSError:
                    pass
            time.sleep(0.3)
            wanted = {f"{index} {number}" for index in range(len(cluster.nodes))}
            if all(wanted <= set(reader.received) for reader in readers):
                return time.monotonic() - start
        raise TimeoutError("what is published does not reach all nodes after 60 s")
    finally:
        for reader in readers:
            reader.stop()
