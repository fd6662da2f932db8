"""Where the processes of a cluster stand: each in a network of its own, which can be cut off, where that is allowed."""

import itertools
import os
import shutil
import socket
import subprocess


def run(*command, check=True):
    return subprocess.run(command, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Loopback:
    """Everything on 127.0.0.1, at ports of its own; nothing can be cut off."""

    can_cut = False

    def place(self):
        return Place("127.0.0.1", "127.0.0.1", (), free_port)

    def close(self):
        pass


class Namespaces:
    """A network namespace for each process. Nodes have two addresses: one that clients see, and one towards NATS, which
    can be cut off without the other. Only root can."""

    can_cut = True
    # A network that was taken away is gone only some time later.
    made = itertools.count()

    @staticmethod
    def are_there():
        """Whether this machine lets us."""
        if os.geteuid() != 0 or not shutil.which("ip"):
            return False
        name = f"fwtry{os.getpid()}"
        made = run("ip", "netns", "add", name, check=False)
        linked = made and run("ip", "link", "add", name, "type", "bridge", check=False)
        run("ip", "link", "del", name, check=False)
        run("ip", "netns", "del", name, check=False)
        return linked

    def __init__(self):
        # Short: a name of an interface has at most 15 characters.
        self.id = f"f{os.getpid() % 100_000}{chr(97 + next(self.made) % 26)}"
        self.subnet = 64 + os.getpid() % 128
        self.numbers = itertools.count(11)
        self.names = []
        # The switch towards NATS stands apart, so that this machine's own network stays as it is; that for clients is here.
        self.hub = f"{self.id}hub"
        self.names.append(self.hub)
        run("ip", "netns", "add", self.hub)
        self.inside("link", "add", "between", "type", "bridge")
        self.inside("link", "set", "between", "up")
        run("ip", "link", "add", f"{self.id}c", "type", "bridge")
        run("ip", "addr", "add", f"10.{self.subnet}.1.1/24", "dev", f"{self.id}c")
        run("ip", "link", "set", f"{self.id}c", "up")

    def inside(self, *command):
        run("ip", "-n", self.hub, *command)

    def place(self):
        number = next(self.numbers)
        name = f"{self.id}n{number}"
        self.names.append(name)
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        clients, between = f"10.{self.subnet}.1.{number}", f"10.{self.subnet}.2.{number}"
        run("ip", "link", "add", f"{self.id}c{number}", "type", "veth", "peer", "name", "clients", "netns", name)
        run("ip", "link", "set", f"{self.id}c{number}", "master", f"{self.id}c", "up")
        run("ip", "-n", self.hub, "link", "add", f"b{number}", "type", "veth", "peer", "name", "between", "netns", name)
        self.inside("link", "set", f"b{number}", "master", "between", "up")
        for device, address in (("clients", clients), ("between", between)):
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", device)
            run("ip", "-n", name, "link", "set", device, "up")
        return Place(between, clients, ("ip", "netns", "exec", name), itertools.count(4_222).__next__,
                     lambda state: self.inside("link", "set", f"b{number}", state))

    def close(self):
        run("ip", "link", "del", f"{self.id}c", check=False)
        for name in self.names:
            run("ip", "netns", "del", name, check=False)


class Place:
    """Where a process listens towards NATS and towards clients, and how it is started there."""

    def __init__(self, between, clients, prefix, port, link=None):
        self.between, self.clients, self.prefix, self.port, self.link = between, clients, prefix, port, link

    def cut(self):
        self.link("down")

    def heal(self):
        self.link("up")
