"""What goes on beside every probe: a publisher by HTTP, a subscriber by MQTT at QoS 1 and one by SSE, that must get all
of it, once and in order."""

import threading
import time

from wire import JSON, Answer, Mqtt, connect, head, read_answer

PACE_S = 0.05


class Honest:
    """Publishes a number every 50 ms until it is ended."""

    def __init__(self, server):
        self.server = server
        self.ended = threading.Event()
        self.sent, self.refused = 0, []
        self.by_mqtt, self.by_sse = [], []
        self.mqtt = Mqtt(server.mqtt, "honest", source="127.0.0.99", patience=60)
        self.mqtt.subscribe(["honest"], qos=1)
        self.sse = connect(server.http, "127.0.0.99", patience=60)
        self.sse.sendall(head("GET", "/sse/honest"))
        self.threads = [
            threading.Thread(target=run, daemon=True) for run in (self.publish, self.read_mqtt, self.read_sse)
        ]
        # The stream is live once its head is there.
        self.opening = self.sse.recv(65536)
        for thread in self.threads:
            thread.start()

    def publish(self):
        stream = connect(self.server.http, "127.0.0.99", patience=60)
        while not self.ended.wait(PACE_S):
            try:
                stream.sendall(head("POST", "/v1/publish/honest", [JSON], body=str(self.sent + 1).encode()))
                answer = read_answer(stream)
            except OSError as error:
                answer = error
            if isinstance(answer, Answer) and answer.status == 200:
                self.sent += 1
                continue
            self.refused.append(answer)
            if not self.server.is_alive():
                return
            try:
                stream = connect(self.server.http, "127.0.0.99", patience=60)
            except OSError:
                pass

    def read_mqtt(self):
        while (got := self.mqtt.read()) is not None:
            first, body = got
            if first >> 4 == 3:
                size = 2 + int.from_bytes(body[:2])
                self.by_mqtt.append(int(body[size + 2 :]))
                self.mqtt.stream.sendall(b"\x40\x02" + body[size : size + 2])

    def read_sse(self):
        rest = self.opening
        while True:
            *lines, rest = rest.split(b"\n")
            self.by_sse += [int(line[5:]) for line in lines if line.startswith(b"data:")]
            try:
                more = self.sse.recv(65536)
            except OSError:
                more = b""
            if not more:
                return
            rest += more

    def faults(self):
        """What went wrong so far, once what was sent had time to arrive."""
        sent = self.sent
        end = time.monotonic() + 10
        while time.monotonic() < end and (len(self.by_mqtt) < sent or len(self.by_sse) < sent):
            time.sleep(0.02)
        faults = [f"a publish was answered {answer}" for answer in self.refused]
        for name, got in (("MQTT", self.by_mqtt), ("SSE", self.by_sse)):
            if got[:sent] != list(range(1, sent + 1)):
                faults.append(f"{len(got)} of {sent} came by {name}, or not once and in order")
        self.refused = []
        return faults

    def end(self):
        self.ended.set()
        self.threads[0].join(10)
        faults = self.faults()
        self.mqtt.stream.close()
        self.sse.close()
        return faults
