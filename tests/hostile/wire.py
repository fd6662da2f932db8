"""Bytes as a hostile peer would send them: HTTP/1.1, HTTP/2, WebSocket and MQTT by hand, so that what no client would
send can be sent. Every socket has a timeout."""

import base64
import os
import socket
import struct

PATIENCE = 10


def connect(address, source=None, patience=PATIENCE):
    """A TCP connection; `source` is the address of the loopback network it comes from."""
    stream = socket.create_connection(address, timeout=patience, source_address=(source, 0) if source else None)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def read_until_closed(stream, at_most=1 << 20):
    """What the peer still says, until it closes or falls silent."""
    got = b""
    try:
        while len(got) < at_most and (more := stream.recv(65536)):
            got += more
    except OSError:
        pass
    return got


# HTTP/1.1


class Answer:
    """Status, header fields by lower-case name, and body."""

    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    def __repr__(self):
        return f"{self.status} {self.body[:120]!r}"


def read_answer(stream):
    """One answer; `None` where the peer closes without one."""
    got = b""
    while b"\r\n\r\n" not in got:
        try:
            more = stream.recv(65536)
        except OSError:
            more = b""
        if not more:
            return None
        got += more
    head, body = got.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    length = int(fields.get("content-length", 0))
    while len(body) < length:
        try:
            more = stream.recv(65536)
        except OSError:
            break
        if not more:
            break
        body += more
    return Answer(int(lines[0].split(" ", 2)[1]), fields, body)


def head(method, target, fields=(), host="127.0.0.1", body=None):
    lines = [f"{method} {target} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


def ask(address, method, target, fields=(), host="127.0.0.1", body=None, source=None, patience=PATIENCE):
    """One request on a connection of its own; the answer, or `None`."""
    return ask_raw(address, head(method, target, fields, host, body), source, patience)


def ask_raw(address, raw, source=None, patience=PATIENCE):
    with connect(address, source, patience) as stream:
        try:
            stream.sendall(raw)
        except OSError:
            pass
        return read_answer(stream)


JSON = ("Content-Type", "application/json")


# HTTP/2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header field without indexing, without Huffman coding."""
    name, value = name.encode(), value.encode()
    assert len(name) < 127 and len(value) < 127
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def get(stream, path):
    """HEADERS of a GET that ends its stream."""
    block = b"\x82\x86" + literal(":path", path) + literal(":authority", "127.0.0.1")
    return frame(1, 0x5, stream, block)


# WebSocket


def open_websocket(address, path, protocol=None, source=None, extensions=None):
    """A socket after the opening handshake, or the answer that refused it."""
    stream = connect(address, source)
    fields = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", base64.b64encode(os.urandom(16)).decode()),
    ]
    if protocol:
        fields.append(("Sec-WebSocket-Protocol", protocol))
    if extensions:
        fields.append(("Sec-WebSocket-Extensions", extensions))
    stream.sendall(head("GET", path, fields))
    answer = read_answer(stream)
    return stream, answer


def client_frame(opcode, payload, length=None, first=0x80):
    """A masked frame; `length` is what its header announces."""
    length = len(payload) if length is None else length
    if length < 126:
        size = bytes([0x80 | length])
    elif length < 65536:
        size = b"\xfe" + struct.pack(">H", length)
    else:
        size = b"\xff" + struct.pack(">Q", length)
    # A mask of zeros leaves the payload as it is.
    return bytes([first | opcode]) + size + b"\0\0\0\0" + payload


# MQTT


def varint(number):
    out = b""
    while True:
        byte, number = number & 0x7F, number >> 7
        out += bytes([byte | (0x80 if number else 0)])
        if not number:
            return out


def text(string):
    raw = string if isinstance(string, bytes) else string.encode()
    return struct.pack(">H", len(raw)) + raw


def packet(first, body):
    return bytes([first]) + varint(len(body)) + body


def connect_packet(client_id, version=4, clean=True, expiry=None, keep_alive=60, user=None, password=None):
    flags = 2 if clean else 0
    tail = b""
    if user is not None:
        flags |= 0x80
        tail += text(user)
    if password is not None:
        flags |= 0x40
        tail += text(password)
    name = "MQIsdp" if version == 3 else "MQTT"
    body = text(name) + bytes([version, flags]) + struct.pack(">H", keep_alive)
    if version & 0x7F >= 5:
        properties = b"" if expiry is None else b"\x11" + struct.pack(">I", expiry)
        body += varint(len(properties)) + properties
    return packet(0x10, body + text(client_id) + tail)


def subscribe_packet(filters, qos=0, version=4, packet_id=1):
    body = struct.pack(">H", packet_id) + (b"\0" if version >= 5 else b"")
    return packet(0x82, body + b"".join(text(name) + bytes([qos]) for name in filters))


def publish_packet(topic, payload=b"", qos=0, version=4, packet_id=1, retain=False):
    body = text(topic) + (struct.pack(">H", packet_id) if qos else b"") + (b"\0" if version >= 5 else b"")
    return packet(0x30 | qos << 1 | retain, body + payload)


class Mqtt:
    """A client that has connected; `connack` is its reason code, `None` where it was closed."""

    def __init__(self, address, client_id, version=4, source=None, patience=PATIENCE, **options):
        self.version, self.rest = version, b""
        self.stream = connect(address, source, patience)
        self.stream.sendall(connect_packet(client_id, version, **options))
        got = self.read()
        self.connack = got[1][1] if got and got[0] >> 4 == 2 else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def read(self):
        """The next packet: first byte and body; `None` at the end."""
        while True:
            size, shift, at = 0, 0, 1
            while at < len(self.rest):
                byte = self.rest[at]
                size, shift, at = size | (byte & 0x7F) << shift, shift + 7, at + 1
                if byte < 0x80:
                    if len(self.rest) >= at + size:
                        got = self.rest[0], self.rest[at : at + size]
                        self.rest = self.rest[at + size :]
                        return got
                    break
            try:
                more = self.stream.recv(65536)
            except OSError:
                return None
            if not more:
                return None
            self.rest += more

    def wait_for(self, kind):
        """The next packet of a kind, its first byte shifted; others are passed over."""
        while got := self.read():
            if got[0] >> 4 == kind:
                return got[1]
        return None

    def subscribe(self, filters, qos=0, packet_id=1):
        """The reason codes of SUBACK; `None` where the connection was closed."""
        self.stream.sendall(subscribe_packet(filters, qos, self.version, packet_id))
        got = self.wait_for(9)
        if got is None:
            return None
        return list(got[2 + (1 + got[2] if self.version >= 5 else 0) :])

    def publish(self, topic, payload=b"x", packet_id=1, retain=False):
        """At QoS 1: the reason code of PUBACK (version 3: 0); `None` where the connection was closed."""
        self.stream.sendall(publish_packet(topic, payload, 1, self.version, packet_id, retain))
        got = self.wait_for(4)
        return None if got is None else got[2] if len(got) > 2 else 0

    def is_alive(self):
        try:
            self.stream.sendall(b"\xc0\0")
        except OSError:
            return False
        return self.wait_for(13) is not None
