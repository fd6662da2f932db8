"""The rows of `scripts/instructions`: what is counted, and how one of them is counted."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

SUBSCRIBERS = 300
# Messages that go at once, and messages measured.
PACES = {"single": (1, 30), "burst": (16, 96)}
# As `fanwire-load` calls them.
PROTOCOLS = {
    "sse": "sse",
    "mqtt-qos0": "mqtt5",
    "mqtt-qos1": "mqtt5-qos1",
    "bayeux-ws": "bayeux-ws",
    "bayeux-lp": "bayeux-lp",
}
REQUESTS = 2_000
# A count that takes longer than this hangs.
LONGEST_S = 120

# In process; `benches/instructions/main.rs` has them.
IN_PROCESS = {
    "publish-log": "publish in process, recorded; one subscriber, its delivery not counted",
    "publish-no-log": "the same without a log",
    "publish-matched": "publish in process among 5,000 wildcard filters",
    "match": "finding the subscribers of a channel among 5,000 wildcard filters",
    "mqtt-decode": "PUBLISH of MQTT 5.0, 64 bytes",
    "mqtt-encode": "PUBLISH of MQTT 5.0, 64 bytes",
    "websocket-frame": "a masked frame of 64 bytes",
    "envelope": "a message of 64 bytes as JSON",
    "bayeux-batch": "a message of a Bayeux batch of 50 publishes, parsed, published and answered",
    "sse-event": "an event of 51 lines to one stream, published, encoded and read",
}


@dataclass
class Programs:
    """What is counted, and who drives it."""

    server: Path
    in_process: Path
    load: Path


@dataclass
class Row:
    name: str
    what: str

    def is_there(self, programs):
        program = programs.in_process if self.name in IN_PROCESS else programs.server
        return program is not None and program.exists()

    def count(self, programs, folder):
        """User instructions for one operation; callgrind's file stays in `folder`."""
        for old in folder.glob(f"{self.name}.out*"):
            old.unlink()
        out = folder / f"{self.name}.out"
        if self.name in IN_PROCESS:
            return count_in_process(programs, self.name, out)
        return count_server(programs, self.name, out)


def all_rows():
    deliveries = {
        f"{protocol}-{pace}": f"a delivery to one of {SUBSCRIBERS} subscribers, {window} at once"
        for protocol in PROTOCOLS
        for pace, (window, _) in PACES.items()
    }
    table = IN_PROCESS | {"http-publish": "POST /v1/publish, 64 bytes, nobody hears it"} | deliveries
    return [Row(name, what) for name, what in table.items()]


def count_in_process(programs, name, out):
    # Everything outside that one function is run, but not counted.
    counting = ["valgrind", "--tool=callgrind", "--toggle-collect=*counted_span*", f"--callgrind-out-file={out}"]
    operations = run([*counting, str(programs.in_process), name])
    return instructions(out) / int(operations)


def count_server(programs, name, out):
    """The real server, and the load generator counts with it: counting is on during the measured messages only."""
    protocol, _, pace = name.rpartition("-")
    dialect = PROTOCOLS.get(protocol, "sse")
    # The first address is the one that the load generator speaks to.
    ports = ("--mqtt {address} --http" if dialect.startswith("mqtt") else "--http {address} --mqtt") + " 127.0.0.1:{port2}"
    counting = f"valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file={out}"
    if pace in PACES:
        window, messages = PACES[pace]
        scenario = ["fanout", f"--subscribers={SUBSCRIBERS}", f"--messages={messages}", f"--warm-up={2 * window}"]
        scenario += [f"--window={window}", "--at-once"]
        if pace == "burst" and not dialect.startswith("mqtt"):
            # The others answer one publish before they take the next: a burst would be what the clock makes of it.
            scenario.append("--publisher=mqtt5")
    else:
        scenario = ["publish", "--channels=16", "--publishers=8", f"--messages={REQUESTS}"]
    report = run(
        [
            *[str(programs.load), *scenario, "--json", f"--time-limit={LONGEST_S}"],
            f"--target=counted:{dialect}={counting} {programs.server} {ports}",
            "--before=callgrind_control -i on {pid}",
            "--after=callgrind_control --dump {pid} && callgrind_control -i off {pid}",
        ]
    )
    figures = json.loads(report.splitlines()[-1])["targets"][0]["median"]
    return instructions(Path(f"{out}.1")) / (figures.get("deliveries") or figures["requests"])


def instructions(out):
    return int(re.search(r"^totals: (\d+)", out.read_text(), re.MULTILINE)[1])


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * LONGEST_S)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
