"""Servers of NATS, and nodes."""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGEST_S = 60


def until(what, holds, seconds=LONGEST_S):
    """Until it holds; how long that took."""
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > seconds:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - start


def nats_program():
    """`NATS_SERVER`, else that of the virtual environment, else that of the machine."""
    places = [os.environ.get("NATS_SERVER"), ROOT / ".cache/venv/bin/nats-server", shutil.which("nats-server"),
              "/usr/sbin/nats-server"]
    return next((str(place) for place in places if place and os.path.exists(place)), None)


class Part:
    """A process at its place."""

    child = None

    def signal(self, number):
        # The command that enters a namespace becomes the program, so this is its own process.
        os.kill(self.child.pid, number)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def pause(self):
        self.signal(signal.SIGSTOP)

    def go_on(self):
        self.signal(signal.SIGCONT)

    def stop(self):
        """As an operator does."""
        self.child.terminate()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def end(self):
        if self.child and self.child.poll() is None:
            self.child.kill()
            self.child.wait()


class NatsServer(Part):
    """One of several, with JetStream, each write on the disk before it is answered."""

    def __init__(self, program, place, name, folder):
        self.program, self.place, self.name, self.folder = program, place, name, folder
        self.client, self.route, self.monitor = place.port(), place.port(), place.port()
        self.url = f"nats://{place.between}:{self.client}"

    def start(self, routes):
        os.makedirs(self.folder, exist_ok=True)
        config = os.path.join(self.folder, "nats.conf")
        with open(config, "w") as file:
            file.write(
                f'server_name: {self.name}\nlisten: "{self.place.between}:{self.client}"\n'
                f'http: "{self.place.clients}:{self.monitor}"\n'
                f'jetstream {{ store_dir: "{self.folder}/js", sync_interval: always, max_mem: 64M, max_file: 1G }}\n'
                f'cluster {{ name: fan, listen: "{self.place.between}:{self.route}", '
                f'routes: [{", ".join(json.dumps(route) for route in routes)}] }}\n'
                'ping_interval: "2s"\nping_max: 2\n')
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.child = subprocess.Popen([*self.place.prefix, self.program, "-c", config], stdout=log, stderr=log)

    def address(self):
        return f"nats://{self.place.between}:{self.route}"

    def is_healthy(self):
        try:
            return ask((self.place.clients, self.monitor), "GET", "/healthz", timeout=2)[0] == 200
        except OSError:
            return False


class Node(Part):
    """The binary that is tried."""

    def __init__(self, program, place, name, folder, servers, settings):
        self.program, self.place, self.name, self.folder = program, place, name, folder
        os.makedirs(folder, exist_ok=True)
        self.config = os.path.join(folder, "fanwire.toml")
        http_port, mqtt_port = place.port(), place.port()
        self.http, self.mqtt = (place.clients, http_port), (place.clients, mqtt_port)
        with open(self.config, "w") as file:
            file.write(f'{settings[0]}\n[cluster]\nnode = "{name}"\nservers = {json.dumps(servers)}\n{settings[1]}')

    def start(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FANWIRE_")}
        http_, mqtt = (f"{host}:{port}" for host, port in (self.http, self.mqtt))
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.child = subprocess.Popen(
                [*self.place.prefix, self.program, "--config", self.config, "--allow-anonymous",
                 "--http", http_, "--mqtt", mqtt],
                stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        line = self.child.stdout.readline()
        if not line.startswith("listening"):
            raise RuntimeError(f"{self.name} did not start: {line!r}, see {self.folder}/log")

    def log(self):
        return pathlib.Path(self.folder, "log").read_text(errors="replace")

    def server(self):
        """What the server of NATS is called that this node is connected to."""
        return re.findall(r"connected to NATS.* server=\"?([^\" ]+)", self.log())[-1]

    def is_ready(self):
        try:
            return ask(self.http, "GET", "/readyz", timeout=2)[0] == 200
        except OSError:
            return False

    def metric(self, name):
        """The sum of a metric's samples."""
        page = ask(self.http, "GET", "/metrics")[1].decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.M))


def ask(address, method, target, body=None, headers=None, timeout=10):
    """Status, body and headers of an answer."""
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


class Cluster:
    """So many servers of NATS and nodes, all running; ends with its block."""

    def __init__(self, network, binary, nats, settings=("", ""), servers=3, nodes=3, folder=None):
        self.network, self.binary, self.nats = network, binary, nats
        self.folder = tempfile.mkdtemp(prefix="fanwire-nodes-")
        self.disks = folder or (lambda number: os.path.join(self.folder, f"nats{number}"))
        self.settings = settings
        self.servers, self.nodes = [], []
        self.keep = False
        try:
            for number in range(servers):
                self.servers.append(self.server(number))
            for server in self.servers:
                server.start(self.routes(server))
            for server in self.servers:
                until(f"{server.name} is healthy", server.is_healthy)
            for number in range(nodes):
                self.nodes.append(self.node(number, binary))
                self.nodes[-1].start()
            until("all nodes know each other", self.is_whole)
        except BaseException:
            self.keep = True
            self.close()
            raise

    def server(self, number):
        return NatsServer(self.nats, self.network.place(), f"nats{number + 1}", self.disks(number))

    def node(self, number, binary):
        # Each has its nearest server first.
        urls = [server.url for server in self.servers]
        turned = urls[number % len(urls):] + urls[:number % len(urls)]
        return Node(binary, self.network.place(), f"n{number + 1}",
                    os.path.join(self.folder, f"node{number}"), turned, self.settings)

    def routes(self, server):
        return [other.address() for other in self.servers if other is not server]

    def is_whole(self):
        """Every node is ready and knows all others."""
        try:
            return all(node.is_ready() and node.metric("fanwire_cluster_nodes") == len(self.nodes)
                       for node in self.nodes)
        except OSError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.keep |= kind is not None
        self.close()

    def close(self):
        for part in self.nodes + self.servers:
            part.end()
        if self.keep:
            print(f"     logs are in {self.folder}", flush=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
