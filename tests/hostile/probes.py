"""The probes, by what they try to break. Each is a function of a server that asserts what must hold; its first line is
what the report calls it. `grows_mib` is how much more private memory the server may hold while it runs."""

import gzip
import json
import os
import re
import struct
import threading
import time

from server import MIB, settle, wait_until
from wire import (
    JSON, PREFACE, Mqtt, ask, ask_raw, client_frame, connect, connect_packet, frame, get, head, open_websocket, packet,
    publish_packet, read_answer, read_until_closed, subscribe_packet, text,
)

PROBES = []


def probe(grows_mib=48):
    def enter(function):
        PROBES.append((function, grows_mib))
        return function

    return enter


def is_refusal(answer, *statuses):
    return answer is not None and answer.status in statuses


def metric(server, name):
    """The sample of this name at /metrics, which is to have no labels."""
    answer = ask(server.http, "GET", "/metrics", patience=30)
    assert answer is not None and answer.status == 200, answer
    sample = re.search(rf"^{name} (\S+)$", answer.body.decode(), re.M)
    assert sample, f"there is no {name}"
    return float(sample[1])


def opened(count, make):
    """Many sockets, closed at the end."""
    return Sockets(make(number) for number in range(count))


class Sockets(list):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        for stream in self:
            stream.close()


def source(number):
    """An address of its own for each thousand, so that one address is not what is tried."""
    return f"127.0.1.{1 + number // 1000}"


# Memory that is announced and never used. First, so that nothing an earlier probe left free hides what it takes


@probe(40)
def announce_bodies_and_send_two_bytes(server):
    def make(number):
        stream = connect(server.http, source(number))
        path, length = (("/v1/publish", 16_777_216), ("/cometd", 16_777_216), ("/v1/publish/b", 4_194_304))[number % 3]
        stream.sendall(head("POST", path, [JSON, ("Content-Length", str(length))]) + b"[{")
        return stream

    with opened(1500, make):
        settle(server)


@probe(32)
def announce_packets_and_send_half_a_connect(server):
    def make(number):
        stream = connect(server.mqtt, source(number))
        whole = connect_packet("x" * 200)
        # It announces half a megabyte, the most before CONNACK.
        stream.sendall(b"\x10\xff\xff\x1f" + whole[2:60])
        return stream

    with opened(500, make):
        settle(server)


@probe(32)
def announce_frames_and_send_two_bytes(server):
    def make(number):
        stream, answer = open_websocket(server.http, "/cometd", source=source(number))
        assert is_refusal(answer, 101), answer
        stream.sendall(client_frame(1, b"[{", 4_000_000))
        return stream

    with opened(300, make):
        settle(server)


@probe(600)
def unfinished_bodies_are_held_within_the_budget(server):
    """300 bodies of 4 MB, each but its last byte: 1.2 GB are offered."""
    chunk = b"x" * 65536

    def make(number):
        stream = connect(server.http, source(number), patience=2)
        try:
            stream.sendall(head("POST", "/v1/publish/b", [("Content-Length", "4000001")]))
            for _ in range(61):
                stream.sendall(chunk)
        except OSError:
            pass
        return stream

    with opened(300, make):
        settle(server)


@probe(64)
def inflate_a_gibibyte(server):
    bomb = gzip.compress(gzip.compress(b"\0" * (256 * MIB), 9), 9)
    plain = gzip.compress(b"\0" * (256 * MIB), 9)
    for body in (plain, bomb):
        answer = ask(server.http, "POST", "/v1/publish/z", [("Content-Encoding", "gzip")], body=body)
        assert answer is not None and answer.status in (200, 400, 413, 415), answer
        if body is plain:
            assert answer.status in (413, 415), answer
    stream, answer = open_websocket(server.http, "/cometd", extensions="permessage-deflate")
    assert is_refusal(answer, 101), answer
    with stream:
        import zlib

        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = deflate.compress(b" " * (64 * MIB)) + deflate.flush(zlib.Z_SYNC_FLUSH)
        stream.sendall(client_frame(1, data[:-4], first=0xC0))
        said = read_until_closed(stream)
        assert said and said[0] & 0x0F == 8, f"no close frame: {said[:20]!r}"


# Depth


@probe()
def subscribe_to_seven_thousand_levels(server):
    for version in (3, 4, 5):
        for name in ("/".join(["+"] * 7000), "$share/g/" + "/".join(["+"] * 7000), "/".join(["a"] * 7000) + "/#"):
            with Mqtt(server.mqtt, f"deep{version}", version) as client:
                codes = client.subscribe([name])
                assert codes is None or min(codes) >= 0x80, f"version {version}: SUBACK {codes}"
                assert codes is None or client.is_alive(), "the connection is dead"


@probe()
def publish_retained_to_fifteen_thousand_levels_and_clear_it(server):
    deep = "/".join(["d"] * 15000)
    for version in (4, 5):
        for payload in (b"x", b""):
            with Mqtt(server.mqtt, "deeper", version) as client:
                code = client.publish(deep, payload, retain=True)
                assert code is None or version == 4 or code >= 0x80, f"PUBACK {code}"
    body = json.dumps({"channel": deep, "data": 1, "retain": True}).encode()
    answer = ask(server.http, "POST", "/v1/publish", [JSON], body=body)
    assert is_refusal(answer, 400), answer


@probe()
def follow_eight_thousand_levels(server):
    target = "/sse" + "/*" * 8000
    answer = ask(server.http, "GET", target)
    assert is_refusal(answer, 400, 414, 431), answer
    for path in ("/v1/history" + "/a" * 5000, "/v1/retained" + "/a" * 5000, "/v1/presence" + "/a" * 5000):
        answer = ask(server.http, "GET", path)
        assert is_refusal(answer, 400, 404, 405, 414, 431), answer


@probe(64)
def nest_json_a_hundred_thousand_deep(server):
    nested = b"[" * 100_000 + b"]" * 100_000
    objects = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    for deep in (nested, objects):
        for path, body, fields in (
            ("/v1/publish", b'{"channel":"n","data":' + deep + b"}", [JSON]),
            ("/v1/publish", deep, [JSON]),
            ("/v1/events", deep, [("Content-Type", "application/cloudevents+json")]),
            ("/cometd", deep, [JSON]),
            ("/cometd", b'[{"channel":"/n","data":' + deep + b"}]", [JSON]),
        ):
            answer = ask(server.http, "POST", path, fields, body=body)
            assert answer is not None and (answer.status >= 400 or b'"successful":false' in answer.body or b'"errors":1' in answer.body), (path, answer)


@probe()
def ten_thousand_filters_of_a_hundred_levels_beside_one_publish(server):
    levels = ["c"] * 100
    filters = []
    for first in range(100):
        for second in range(first + 1, 100):
            name = levels.copy()
            name[first] = name[second] = "+"
            filters.append("/".join(name))
    channel = "/".join(levels)
    with Mqtt(server.mqtt, "wide", 5) as client:
        for at in range(0, len(filters), 500):
            codes = client.subscribe(filters[at : at + 500], packet_id=1 + at)
            assert codes is not None, "the connection was closed"
        before = server.cpu_seconds()
        for _ in range(20):
            answer = ask(server.http, "POST", "/v1/publish", [JSON],
                         body=json.dumps({"channel": channel, "data": 1}).encode())
            assert answer is not None and answer.status in (200, 400), answer
        spent = server.cpu_seconds() - before
        assert spent < 1.0, f"20 publishes cost {spent:.2f} s of CPU"


# Work that is ordered for the price of a packet


@probe(160)
def subscribe_four_times_to_twenty_thousand_retained_messages(server):
    with Mqtt(server.mqtt, "keeper", 4) as keeper:
        for at in range(0, 20_000, 500):
            keeper.stream.sendall(b"".join(
                publish_packet(f"kept/{number % 40}/{number}", b"x" * 20, retain=True)
                for number in range(at, at + 500)
            ))
        assert keeper.is_alive()
    filters = ["#"] * 7000
    clients = [Mqtt(server.mqtt, f"greedy{number}", 4, patience=30) for number in range(4)]
    before = server.cpu_seconds()
    for client in clients:
        client.stream.sendall(subscribe_packet(filters))
    time.sleep(5)
    for client in clients:
        client.stream.close()
    settle(server)
    at_rest = server.cpu_seconds()
    time.sleep(1)
    assert server.cpu_seconds() - at_rest < 0.5, "the work goes on for clients that are gone"
    with Mqtt(server.mqtt, "keeper", 4) as keeper:
        for at in range(0, 20_000, 500):
            keeper.stream.sendall(b"".join(
                publish_packet(f"kept/{number % 40}/{number}", b"", retain=True) for number in range(at, at + 500)
            ))
        assert keeper.is_alive()
    assert at_rest - before < 20


@probe(160)
def silent_streams_from_the_beginning_of_the_log(server):
    lines = b'{"channel":"long","data":1}\n' * 20_000
    for _ in range(10):
        publish_lines(server, lines)

    def make(number):
        stream = connect(server.http, source(number))
        stream.sendall(head("GET", "/sse/long?last_event_id=earliest"))
        return stream

    with opened(500, make):
        settle(server)


@probe()
def retained_names_that_weigh_more_than_their_length(server):
    with Mqtt(server.mqtt, "heavy", 5) as client:
        for number in range(150):
            name = f"w{number}/" + "/".join(["y"] * 6000)
            code = client.publish(name, b"x", packet_id=1 + number, retain=True)
            assert code is None or code >= 0x80, f"PUBACK {code}"
            if code is None:
                break


@probe()
def three_thousand_tiny_packets_in_one_write(server):
    with Mqtt(server.mqtt, "burst", 4) as client:
        client.stream.sendall(b"\xc0\0" * 3000 + publish_packet("burst", b"x") * 3000 + b"\xc0\0")
        count = 0
        while count < 3001 and (got := client.read()):
            count += got[0] >> 4 == 13
        assert count == 3001, f"{count} of 3,001 PINGRESP"


@probe(96)
def a_batch_of_a_hundred_thousand_messages(server):
    body = b"[" + b",".join([b'{"channel":"/a"}'] * 100_000) + b"]"
    answer = ask(server.http, "POST", "/cometd", [JSON], body=body, patience=30)
    assert answer is not None, "closed without an answer"
    answer = ask(server.http, "POST", "/v1/publish", [JSON], body=body.replace(b"/a", b"a"), patience=30)
    assert is_refusal(answer, 400, 413), answer


# Spinning


@probe()
def two_thousand_half_prefaces_cost_nothing(server):
    def make(number):
        stream = connect(server.http, source(number))
        stream.sendall(b"PR")
        return stream

    with opened(2000, make):
        time.sleep(0.5)
        before = server.cpu_seconds()
        time.sleep(2)
        spent = server.cpu_seconds() - before
        assert spent < 0.4, f"{spent:.2f} s of CPU in 2 s"


# HTTP/2


@probe(450)
def streams_without_window(server):
    """Event streams, which share what they wait for, and pages of history, which do not: 300 of 4 MB each. Each connection may
    keep 64 MiB of them (http.max_stalled_bytes), once it was looked at, and all together 256 (http.max_stalled_total_bytes)."""
    before = server.private_bytes()
    payload = b"x" * 65536
    for _ in range(60):
        answer = ask(server.http, "POST", "/v1/publish/h2", body=payload, patience=30)
        assert answer is not None and answer.status in (200, 429), answer

    def make(_):
        stream = connect(server.http, patience=30)
        stream.sendall(PREFACE + frame(4, 0, 0, struct.pack(">HI", 4, 0)))
        paths = ["/sse/h2"] * 300 + ["/v1/history/h2?limit=100"] * 75
        stream.sendall(b"".join(get(1 + 2 * number, path) for number, path in enumerate(paths)))
        return stream

    with opened(4, make):
        time.sleep(0.5)
        for _ in range(10):
            answer = ask(server.http, "POST", "/v1/publish/h2", body=payload, patience=30)
            assert answer is not None and answer.status in (200, 429), answer
        settle(server)
        # Looked at four times a second, by a server that shares two cores with all of this.
        assert wait_until(lambda: metric(server, "fanwire_http2_waiting_bytes") <= 256 * MIB, 10), "more waits than may"
        counted = metric(server, "fanwire_http2_waiting_bytes") / MIB
        assert counted > 64, f"only {counted:.0f} MiB of what waits are counted"
        # With what the allocator needs around it and gives back with delay.
        assert wait_until(lambda: server.private_bytes() - before < 350 * MIB, 10), (
            f"{(server.private_bytes() - before) / MIB:.0f} MiB are held"
        )


@probe()
def ten_thousand_streams_opened_and_reset(server):
    with connect(server.http) as stream:
        stream.sendall(PREFACE + frame(4, 0, 0))
        try:
            for number in range(10_000):
                stream.sendall(get(1 + 2 * number, "/v1/channels") + frame(3, 0, 1 + 2 * number, b"\0\0\0\x08"))
        except OSError:
            pass


# HTTP/1.1 forms


@probe()
def forms_that_two_servers_read_differently(server):
    body = b"0\r\n\r\n"
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    forms = {
        "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
        "two Hosts": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.2\r\n\r\n",
        "length and chunks": b"POST /v1/publish/s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + body + smuggled,
        "two lengths": b"POST /v1/publish/s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab" + smuggled,
        "a signed length": b"POST /v1/publish/s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: +2\r\n\r\nab" + smuggled,
        "an unknown coding": b"POST /v1/publish/s HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked, cow\r\n\r\n" + body + smuggled,
        "a space before the colon": b"POST /v1/publish/s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length : 2\r\n\r\nab",
        "a folded field": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\r\n b\r\n\r\n",
    }
    for name, raw in forms.items():
        with connect(server.http) as stream:
            stream.sendall(raw)
            said = read_until_closed(stream) if name != "a folded field" else b""
            if name == "a folded field":
                answer = read_answer(stream)
                assert answer is None or answer.status in (200, 400), (name, answer)
                continue
            assert said == b"" or said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), (name, said[:80])
            assert len(re.findall(rb"(?m)^HTTP/1\.1 \d", said)) <= 1, (name, said)


@probe()
def every_refusal_says_why(server):
    answer = ask(server.http, "GET", "/v1/channels?prefix=" + "a" * 40_000, [("Origin", "http://localhost:5173")])
    assert is_refusal(answer, 414, 431), answer
    assert answer.fields.get("content-type") == "application/problem+json", answer.fields
    assert json.loads(answer.body)["code"], answer


# Pages


@probe()
def a_page_from_elsewhere_gets_nothing(server):
    foreign = ("Origin", "https://evil.example")
    for method, path, body in (
        ("POST", "/v1/publish/p", b"x"), ("GET", "/v1/channels", None), ("GET", "/sse/p", None), ("GET", "/metrics", None),
        ("POST", "/cometd", b"[]"),
    ):
        answer = ask(server.http, method, path, [foreign, ("Content-Type", "text/plain")], body=body)
        assert is_refusal(answer, 400, 403) and answer.status == 403, (method, path, answer)
        assert "access-control-allow-origin" not in answer.fields, (path, answer.fields)
    for path, protocol in (("/mqtt", "mqtt"), ("/cometd", None)):
        stream = connect(server.http)
        with stream:
            fields = [
                ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="), foreign,
            ] + ([("Sec-WebSocket-Protocol", protocol)] if protocol else [])
            stream.sendall(head("GET", path, fields))
            assert is_refusal(read_answer(stream), 403), path
    preflight = [
        foreign, ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Private-Network", "true"),
    ]
    answer = ask(server.http, "OPTIONS", "/v1/publish/p", preflight)
    assert answer is not None and "access-control-allow-private-network" not in answer.fields, answer.fields
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example"):
        answer = ask(server.http, "GET", "/v1/channels", host=host)
        assert is_refusal(answer, 403, 421), (host, answer)
    for near in ("http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:3000"):
        answer = ask(server.http, "POST", "/v1/publish/p", [("Origin", near)], body=b"x")
        assert answer is not None and answer.status == 200, (near, answer)
        assert answer.fields.get("access-control-allow-origin") == near, answer.fields


# What one can fill for all


@probe(96)
def a_hundred_thousand_idempotency_keys(server):
    def fill(part):
        with connect(server.http, "127.0.2.1", patience=60) as stream:
            for at in range(0, 35_000, 500):
                lines = b"".join(
                    b'{"channel":"i","data":1,"key":"k%d-%d"}\n' % (part, number)
                    for number in range(at, at + 500)
                )
                stream.sendall(head("POST", "/v1/publish", [("Content-Type", "application/x-ndjson")], body=lines))
                if read_answer_to_the_end(stream) is None:
                    return

    threads = [threading.Thread(target=fill, args=(part,), daemon=True) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    answer = ask(server.http, "POST", "/v1/publish/i", [("Idempotency-Key", "mine")], body=b"1", source="127.0.2.2")
    assert answer is not None and answer.status == 200, answer


def publish_lines(server, lines):
    """Publishes NDJSON. Its answer is read to the end: who hangs up before publishes no more."""
    with connect(server.http, patience=60) as stream:
        stream.sendall(head("POST", "/v1/publish", [("Content-Type", "application/x-ndjson")], body=lines))
        start = read_answer_to_the_end(stream)
    assert start is not None and b" 200 " in start, start


def read_answer_to_the_end(stream):
    """The head of an answer that may be chunked; `None` if it does not end."""
    got = b""
    while True:
        if b"\r\n\r\n" in got:
            start, body = got.split(b"\r\n\r\n", 1)
            if b"chunked" not in start.lower():
                length = int(start.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                if len(body) >= length:
                    return start
            elif body.endswith(b"0\r\n\r\n"):
                return start
        try:
            more = stream.recv(1 << 20)
        except OSError:
            return None
        if not more:
            return None
        got += more


@probe(96)
def thirty_thousand_sessions_of_one_address(server):
    refused = 0
    for at in range(0, 30_000, 250):
        with Sockets(connect(server.mqtt, "127.0.3.1") for _ in range(250)) as streams:
            for number, stream in enumerate(streams, at):
                stream.sendall(connect_packet(f"s{number}", 5, clean=False, expiry=0xFFFFFFFF))
            for stream in streams:
                got = stream.recv(64)
                refused += len(got) < 4 or got[3] >= 0x80
        if refused > 500:
            break
    assert refused, "no bound on the sessions of one address"
    with Mqtt(server.mqtt, "somebody-else", 5, source="127.0.3.2", expiry=60) as client:
        assert client.connack == 0, f"CONNACK {client.connack} for another address"


@probe(96)
def storms_of_connections(server):
    for address, hello in ((server.http, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), (server.mqtt, connect_packet(""))):
        for _ in range(4):
            with opened(500, lambda number: connect(address, source(number))) as streams:
                for stream in streams:
                    stream.sendall(hello)
                for stream in streams[::5]:
                    assert stream.recv(64), "closed without an answer"


# Clients of the field


@probe()
def old_and_unknown_protocol_levels(server):
    for level in (0x83, 0x84):
        name = "MQIsdp" if level == 0x83 else "MQTT"
        body = text(name) + bytes([level, 2, 0, 60]) + text("bridge%d" % level)
        with connect(server.mqtt) as stream:
            stream.sendall(packet(0x10, body))
            assert stream.recv(4) == b"\x20\x02\x00\x00", f"level {level:#x}"
    with connect(server.mqtt) as stream:
        stream.sendall(packet(0x10, text("MQTT") + bytes([9, 2, 0, 60]) + text("x")))
        said = read_until_closed(stream)
        assert said[:1] == b"\x20" and said[3] in (0x01, 0x84), said


@probe()
def control_characters_and_non_characters_in_names(server):
    for name in ("a\u0001b", "a\u007fb", "a\u0085b", "a\ufdd0b", "a\uffffb", "a\U0001ffffb"):
        with Mqtt(server.mqtt, "strange", 5) as client:
            code = client.publish(name)
            assert code is None or code >= 0x80, f"PUBACK {code} for {name!r}"
        body = json.dumps({"channel": name, "data": 1}).encode()
        answer = ask(server.http, "POST", "/v1/publish", [JSON], body=body)
        assert is_refusal(answer, 400), (name, answer)


@probe()
def random_bytes_on_every_port(server):
    for address in (server.http, server.mqtt):
        for size in (1, 7, 100, 5000):
            with connect(address, patience=1) as stream:
                try:
                    stream.sendall(os.urandom(size))
                    stream.recv(1024)
                except OSError:
                    pass


@probe(200)
def two_hundred_readers_that_never_read(server):
    def make(number):
        stream = connect(server.http, source(number))
        stream.sendall(head("GET", "/sse/silent"))
        return stream

    with opened(200, make):
        time.sleep(0.3)
        for _ in range(60):
            answer = ask(server.http, "POST", "/v1/publish/silent", body=b"x" * 32768)
            assert answer is not None and answer.status in (200, 429), answer
