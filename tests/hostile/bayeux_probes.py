"""The probes of Bayeux, beside those of every front."""

import json
import time

from probes import opened, probe, publish_lines, source
from server import settle
from wire import JSON, ask, client_frame, open_websocket, read_until_closed

FORM = ("Content-Type", "application/x-www-form-urlencoded")


class Session:
    """A long-polling session with the replay extension, that has connected once."""

    def __init__(self, server, number=0):
        self.server, self.source, self.cookie, self.id = server, source(number), None, None
        reply = self.send({"channel": "/meta/handshake", "supportedConnectionTypes": ["long-polling"],
                           "ext": {"replay": True}})
        self.id = reply[-1]["clientId"]
        self.connect()

    def post(self, body, kind=JSON):
        cookie = [("Cookie", self.cookie)] if self.cookie else []
        answer = ask(self.server.http, "POST", "/cometd", [kind, *cookie], body=body, source=self.source, patience=60)
        assert answer is not None, "closed without an answer"
        if "set-cookie" in answer.fields:
            self.cookie = answer.fields["set-cookie"].split(";")[0]
        return answer

    def send(self, message):
        answer = self.post(json.dumps({"clientId": self.id, **message}).encode())
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def connect(self):
        return self.send({"channel": "/meta/connect", "advice": {"timeout": 0}})

    def subscribe(self, names, replay=None):
        message = {"channel": "/meta/subscribe", "subscription": names}
        if replay is not None:
            message["ext"] = {"replay": replay}
        return self.send(message)[-1]

    def is_alive(self):
        return self.connect()[-1]["successful"]


def fill(server, channel, count, size=0):
    """Messages for the log."""
    line = json.dumps({"channel": channel, "data": "x" * size}) + "\n"
    for _ in range(count // 10_000):
        publish_lines(server, (line * 10_000).encode())


@probe(96)
def bayeux_lists_that_are_longer_than_any_bound(server):
    session = Session(server)
    names = ["/a"] * 500_000
    assert "too_many" in session.subscribe(names)["error"]
    types = {"channel": "/meta/handshake", "supportedConnectionTypes": ["x"] * 500_000}
    assert session.send(types)[-1]["error"].startswith("301:")
    assert session.post(b"message={}&" * 500_000, FORM).status == 413
    assert session.post(b"[" + b"{}," * 4_000_000).status == 413
    assert session.is_alive()


@probe()
def bayeux_fields_twice_and_positions_of_nobody(server):
    session = Session(server)
    for field in ("channel", "clientId", "subscription", "ext"):
        body = f'{{"channel":"/a","clientId":"{session.id}","{field}":"/a","{field}":"/b"}}'.encode()
        reply = json.loads(session.post(body).body)[-1]
        assert reply["successful"] is False and "field_repeated" in reply["error"], reply
    for position in (0, 1, 5, 2**53 - 1, 2**63 - 1, "k3-18", -3):
        reply = session.subscribe("/honest", {"/honest": position})
        assert reply.get("error", "").startswith("400::The replayId "), (position, reply)


@probe(96)
def bayeux_two_thousand_replays_of_one_session(server):
    fill(server, "long", 20_000)
    session = Session(server)
    names = [f"/replays/{number}" for number in range(2000)] + ["/**", "/long"]
    assert session.subscribe(names, dict.fromkeys(names, -2))["successful"]
    settle(server)
    before = server.cpu_seconds()
    time.sleep(2)
    spent = server.cpu_seconds() - before
    assert spent < 1, f"{spent:.2f} s of CPU in 2 s, for a client that is away"
    assert session.is_alive()


@probe(160)
def bayeux_silent_replays_from_the_beginning_of_the_log(server):
    fill(server, "long", 40_000, 200)
    for number in range(300):
        reply = Session(server, number).subscribe("/long", {"/long": -2})
        assert reply["successful"], reply
    settle(server)


@probe(64)
def bayeux_sockets_without_a_session_are_closed(server):
    with opened(300, lambda number: open_websocket(server.http, "/cometd", source=source(number))[0]) as sockets:
        # One says something, but does not shake hands.
        sockets[0].sendall(client_frame(1, b'[{"channel":"/a","data":1}]'))
        time.sleep(12)
        for stream in sockets:
            stream.settimeout(3)
            said = read_until_closed(stream)
            assert b"\x88" in said and b"\x03\xf0" in said, said[-40:]


@probe(96)
def bayeux_a_session_that_does_not_come_for_its_events(server):
    session = Session(server)
    assert session.subscribe("/burst")["successful"]
    fill(server, "burst", 20_000)
    # Until all of them wait for it.
    settle(server)
    told = session.connect()
    assert told[-1]["successful"] and len(told) == 20_001, len(told)
    fill(server, "burst", 60_000)
    reply = session.connect()[-1]
    # On a slow machine its time may be over, too.
    assert reply.get("error", "").startswith("402:"), reply
    assert reply["advice"]["reconnect"] == "handshake"
