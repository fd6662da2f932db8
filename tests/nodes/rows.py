"""What goes wrong with a cluster, a row each, and what must hold then."""

import os
import threading
import time

import disk
from clients import PATIENCE_S, Connection, Session, Traffic, reaches_all, without_power
from parts import Cluster, ask, until

# How long a fault lasts, where it lasts.
FAULT_S = 7

# What a configuration says beside `[cluster]`, and in it: the servers of NATS have room for so much.
DURABLE = ('[[namespaces]]\nname = "orders"\ndurability = "always"\n', 'max_bytes = "256 MiB"\n')

ROWS = []


def row(must_hold, cut=False, power=False, short=False):
    """A row of the matrix: `cut` wants network namespaces, `power` a disk of its own; `short` is for every day."""
    def add(function):
        ROWS.append(Row(function, must_hold, cut, power, short))
        return function
    return add


class Row:
    def __init__(self, function, must_hold, cut, power, short):
        self.function, self.must_hold = function, must_hold
        self.name = function.__name__
        self.cut, self.power, self.short = cut, power, short


class Wrong(list):
    """What did not hold, a line each, and what was measured."""

    def __init__(self):
        super().__init__()
        self.figures = {}

    def unless(self, holds, line):
        if not holds:
            self.append(line)


class Rig:
    """What a row is given: how to make a cluster, and the fault to try on it."""

    def __init__(self, network, binary, older, nats, durable):
        self.network, self.binary, self.older, self.nats, self.durable = network, binary, older, nats, durable

    def cluster(self, binary=None, **more):
        return Cluster(self.network, binary or self.binary, self.nats, DURABLE if self.durable else ("", ""), **more)

    def under(self, fault, heal_s=20, untouched=(), **more):
        """Traffic at all nodes while the fault comes and goes; what is wrong afterwards. Nothing acknowledged of a durable
        channel may be lost, twice or out of order, at whoever listened at whichever node. Of a memory channel nothing is
        twice or out of order, nothing is lost between the nodes that the fault leaves untouched (`elsewhere`: those of
        other servers than the first), and soon all reaches all again."""
        wrong = Wrong()
        with self.cluster(**more) as cluster, Traffic(cluster, self.durable) as traffic:
            time.sleep(2)
            if untouched == "elsewhere":
                # Which server a node takes of those that it is given is its own affair.
                untouched = [number for number, node in enumerate(cluster.nodes) if node.server() != cluster.servers[0].name]
            fault(cluster, traffic, wrong)
            wrong.figures["healed_s"] = round(reaches_all(cluster), 1)
            wrong.unless(wrong.figures["healed_s"] <= heal_s, f"all reaches all only after {wrong.figures['healed_s']} s")
            time.sleep(1)
            traffic.stop()
            traffic.settle()
            memory = traffic.report("chat", cluster.nodes)
            wrong.figures["memory"] = f"{memory['lost']} of {memory['acknowledged']} × {len(cluster.nodes)} not there"
            wrong.unless(memory["twice"] == 0, f"memory: {memory['twice']} came twice")
            wrong.unless(memory["late"] == 0, f"memory: {memory['late']} came out of order")
            wrong.unless(memory["acknowledged"], "memory: nothing was acknowledged")
            between = traffic.report("chat", [cluster.nodes[number] for number in untouched])["lost"] if untouched else 0
            wrong.unless(between == 0, f"memory: {between} lost between nodes that had nothing to do with it")
            if self.durable:
                durable = traffic.report("orders", cluster.nodes)
                wrong.figures["durable"] = (f"{durable['lost']} of {durable['acknowledged']} × {len(cluster.nodes)} lost, "
                                            f"longest {durable['longest']:.1f} s, refused {durable['refused']}")
                for what in ("lost", "twice", "late", "gaps"):
                    wrong.unless(durable[what] == 0, f"durable: {durable[what]} {what}")
                wrong.unless(durable["acknowledged"], "durable: nothing was acknowledged")
                for why in durable["refused"]:
                    known = why in ("429", "503", "504") or why.endswith("Error") or why == "BadStatusLine" \
                        or why == "RemoteDisconnected" or why == "TimeoutError"
                    wrong.unless(known, f"durable: refused with {why}")
                for node in cluster.nodes:
                    wrong.extend(traffic.stored(node))
            cluster.keep = bool(wrong)
        return wrong


def is_refusing(node):
    """Whether a durable publish is refused as it should be: 503 and when to come back."""
    status, _, headers = ask(node.http, "POST", "/v1/publish/orders/refused", "x", timeout=PATIENCE_S)
    return status == 503 and headers.get("retry-after", "").isdigit()


# Nodes.

@row("its clients go on at the next start, and the others did not notice", short=True)
def node_is_killed(rig):
    def fault(cluster, _traffic, _wrong):
        cluster.nodes[1].kill()
        time.sleep(FAULT_S)
        cluster.nodes[1].start()
        until("the node is ready again", cluster.nodes[1].is_ready)
    return rig.under(fault, untouched=(0, 2))


@row("what it missed of durable channels it reads from the stream; the others go on")
def node_is_paused(rig):
    def fault(cluster, _traffic, _wrong):
        cluster.nodes[1].pause()
        time.sleep(FAULT_S)
        cluster.nodes[1].go_on()
        until("the node is ready again", cluster.nodes[1].is_ready)
    return rig.under(fault, untouched=(0, 2))


@row("not ready within 8 s, durable publishes refused, memory channels go on there; all is filled in afterwards", cut=True)
def node_is_cut_off(rig):
    def fault(cluster, traffic, wrong):
        node = cluster.nodes[1]
        node.place.cut()
        wrong.figures["not_ready_s"] = round(until("it says that it is cut off", lambda: not node.is_ready(), 15), 1)
        wrong.unless(wrong.figures["not_ready_s"] <= 8, "it said only late that it is cut off")
        reader = next(reader for reader in traffic.readers if reader.node is node and reader.filter == "chat/*")
        status = ask(node.http, "POST", "/v1/publish/chat/alone", "chat/alone 1")[0]
        wrong.unless(status == 200, f"a memory channel answers {status}")
        until("its own clients reach each other", lambda: "chat/alone 1" in reader.received, 5)
        if rig.durable:
            wrong.unless(is_refusing(node), "a durable publish is not refused with 503 and Retry-After")
        time.sleep(FAULT_S)
        node.place.heal()
        wrong.figures["ready_s"] = round(until("the node is ready again", node.is_ready), 1)
    return rig.under(fault, untouched=(0, 2))


@row("each is back before the next one ends; who is subscribed elsewhere misses nothing durable", short=True)
def nodes_are_restarted_one_after_the_other(rig):
    def fault(cluster, _traffic, _wrong):
        for node in cluster.nodes:
            node.stop()
            node.start()
            until("all nodes know each other", cluster.is_whole)
    return rig.under(fault)


@row("two versions side by side, the older one being of the commit before, one node after the other")
def nodes_are_upgraded(rig):
    if not rig.older:
        return None

    def fault(cluster, _traffic, _wrong):
        for node in cluster.nodes:
            node.stop()
            node.program = rig.binary
            node.start()
            until("all nodes know each other", cluster.is_whole)
            reaches_all(cluster)
    # The older one may know no durable channels.
    memory = Rig(rig.network, rig.binary, rig.older, rig.nats, False)
    return memory.under(fault, binary=rig.older)


# Servers of NATS.

@row("its nodes go to another one", short=True)
def server_is_killed(rig):
    def fault(cluster, _traffic, _wrong):
        server = cluster.servers[0]
        server.kill()
        time.sleep(FAULT_S)
        server.start(cluster.routes(server))
        until("the server is healthy again", server.is_healthy)
    return rig.under(fault, untouched="elsewhere")


@row("its nodes go to another one, within some seconds")
def server_is_paused(rig):
    def fault(cluster, _traffic, _wrong):
        cluster.servers[0].pause()
        time.sleep(FAULT_S)
        cluster.servers[0].go_on()
        until("the server is healthy again", cluster.servers[0].is_healthy)
    return rig.under(fault, heal_s=30, untouched="elsewhere")


@row("its nodes go to another one, within some seconds", cut=True)
def server_is_cut_off(rig):
    def fault(cluster, _traffic, _wrong):
        cluster.servers[0].place.cut()
        time.sleep(FAULT_S)
        cluster.servers[0].place.heal()
        until("the server is healthy again", cluster.servers[0].is_healthy)
    return rig.under(fault, heal_s=30, untouched="elsewhere")


@row("each server is back before the next one ends")
def servers_are_restarted_one_after_the_other(rig):
    def fault(cluster, _traffic, _wrong):
        for server in cluster.servers:
            server.stop()
            time.sleep(1)
            server.start(cluster.routes(server))
            until("the server is healthy again", server.is_healthy)
            time.sleep(2)
    return rig.under(fault, heal_s=30)


@row("a fourth server comes, and the first one leaves")
def servers_are_exchanged(rig):
    def fault(cluster, _traffic, _wrong):
        new = cluster.server(len(cluster.servers))
        cluster.servers.append(new)
        new.start(cluster.routes(new))
        until("the new server is healthy", new.is_healthy)
        time.sleep(2)
        cluster.servers.pop(0).stop()
        time.sleep(FAULT_S)
    return rig.under(fault, heal_s=30)


@row("no node is ready, memory channels go on at each, durable publishes are refused; all is back by itself")
def all_servers_are_killed(rig):
    def fault(cluster, _traffic, wrong):
        for server in cluster.servers:
            server.kill()
        for node in cluster.nodes:
            until("it says that it is alone", lambda node=node: not node.is_ready(), 15)
            status = ask(node.http, "POST", "/v1/publish/chat/alone", "chat/alone 1")[0]
            wrong.unless(status == 200, f"a memory channel answers {status}")
        if rig.durable:
            wrong.unless(is_refusing(cluster.nodes[0]), "a durable publish is not refused with 503 and Retry-After")
        time.sleep(FAULT_S)
        for server in cluster.servers:
            server.start(cluster.routes(server))
        for server in cluster.servers:
            until("the server is healthy again", server.is_healthy)
    return rig.under(fault, heal_s=30)


@row("no node is ready within 8 s, nothing durable is acknowledged, memory channels go on at each", short=True)
def all_servers_are_paused(rig):
    def fault(cluster, _traffic, wrong):
        for server in cluster.servers:
            server.pause()
        wrong.figures["not_ready_s"] = round(max(
            until("it says that it is alone", lambda node=node: not node.is_ready(), 15) for node in cluster.nodes), 1)
        wrong.unless(wrong.figures["not_ready_s"] <= 8, "a node said only late that it is alone")
        status = ask(cluster.nodes[0].http, "POST", "/v1/publish/chat/alone", "chat/alone 1")[0]
        wrong.unless(status == 200, f"a memory channel answers {status}")
        if rig.durable:
            wrong.unless(is_refusing(cluster.nodes[0]), "a durable publish is not refused with 503 and Retry-After")
        time.sleep(FAULT_S)
        for server in cluster.servers:
            server.go_on()
        for server in cluster.servers:
            until("the server is healthy again", server.is_healthy)
    return rig.under(fault, heal_s=30)


@row("nothing acknowledged of a durable channel is lost (`sync_interval: always`)", power=True)
def all_servers_lose_power(rig):
    disks = [disk.Disk() for _ in range(3)]

    def fault(cluster, _traffic, _wrong):
        without_power.set()
        for one in disks:
            one.lose_power()
        for server in cluster.servers:
            server.kill()
        without_power.clear()
        for one in disks:
            one.detach()
        for one in disks:
            one.attach()
        for server in cluster.servers:
            server.start(cluster.routes(server))
        for server in cluster.servers:
            until("the server is healthy again", server.is_healthy)
    try:
        return rig.under(fault, heal_s=30, folder=lambda number: os.path.join(disks[number].mount, "nats"))
    finally:
        for one in disks:
            one.remove()


# Others.

@row("a reader that stops hurts nobody, and nothing durable is missing when it goes on")
def reader_is_slow(rig):
    def fault(cluster, traffic, _wrong):
        stop = threading.Event()

        def flood():
            while not stop.is_set():
                try:
                    ask(cluster.nodes[0].http, "POST", "/v1/publish/flood/1", "x" * 60_000, timeout=5)
                except OSError:
                    pass
        threads = [threading.Thread(target=flood, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        cluster.nodes[2].pause()
        time.sleep(FAULT_S)
        cluster.nodes[2].go_on()
        stop.set()
        for thread in threads:
            thread.join(10)
        until("the node is ready again", cluster.nodes[2].is_ready)
    return rig.under(fault, heal_s=30)


@row("a client is connected once: whoever comes later on whichever node has it, and the others are told", short=True)
def one_client_comes_to_all_nodes(rig):
    wrong = Wrong()
    with rig.cluster() as cluster:
        connections, told = [], {}

        def come(number):
            connections.append(Connection(cluster.nodes[number % len(cluster.nodes)], "everywhere"))
        for count in (3, 30, 100):
            threads = [threading.Thread(target=come, args=(number,)) for number in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            end = time.monotonic() + 5
            there = []
            for connection in connections:
                reason = connection.end(end - time.monotonic())
                if reason is None:
                    there.append(connection)
                else:
                    told[reason] = told.get(reason, 0) + 1
            wrong.unless(len(there) == 1, f"of {count} that came at once {len(there)} are there")
            connections[:] = there
        wrong.figures["told"] = told
        wrong.unless(set(told) <= {"0x8e", "closed"}, f"told {told}")
        cluster.keep = bool(wrong)
    return wrong


@row("clients find their sessions elsewhere, with all that they have missed, in its order", short=True)
def sessions_move_from_a_killed_node(rig):
    if not rig.durable:
        return None
    return with_sessions(rig, lambda node: node.kill(), lambda node: node.start())


@row("the same, and the node that goes on has no session of theirs any more")
def sessions_move_from_a_paused_node(rig):
    if not rig.durable:
        return None
    return with_sessions(rig, lambda node: node.pause(), lambda node: node.go_on())


@row("each message is one member's, on whichever node; what the node that dies had not done is the others'", short=True)
def share_survives_a_killed_node(rig):
    if not rig.durable:
        return None
    wrong = Wrong()
    with rig.cluster() as cluster:
        members = [Session(f"member-{number}", "$share/workers/orders/sessions") for number in range(12)]
        for number, member in enumerate(members):
            member.connect(cluster.nodes[number % 3], is_new=True)
        acknowledged, stop, publisher = publish_numbers(cluster.nodes[0])
        time.sleep(3)
        before = [number for member in members for number in list(member.received)]
        wrong.unless(len(before) == len(set(before)), "a message came twice while nothing was wrong")
        wrong.unless(all(member.received for member in members), "a member has nothing")
        cluster.nodes[1].kill()
        time.sleep(FAULT_S)
        cluster.nodes[1].start()
        until("the node is ready again", cluster.nodes[1].is_ready)
        for member in members[1::3]:
            member.connect(cluster.nodes[1], is_new=False)
        time.sleep(2)
        stop.set()
        publisher.join(PATIENCE_S)

        def missing():
            return set(acknowledged) - {number for member in members for number in list(member.received)}
        # JetStream waits for so long for a node that says nothing.
        start = time.monotonic()
        while missing() and time.monotonic() < start + 40:
            time.sleep(0.2)
        wrong.figures["whole_after_s"] = round(time.monotonic() - start, 1)
        wrong.unless(not missing(), f"{len(missing())} are missing, such as {sorted(missing())[:3]}")
        received = sum(len(member.received) + member.again for member in members)
        wrong.figures["acknowledged"] = len(acknowledged)
        wrong.figures["again"] = received - len({number for member in members for number in member.received})
        for member in members:
            member.close()
        wrong.unless(acknowledged, "nothing was acknowledged")
        cluster.keep = bool(wrong)
    return wrong


def publish_numbers(node):
    """Publishes numbers in their order at a node until it is stopped: those that are acknowledged, how to stop it, and the
    thread."""
    acknowledged, stop = [], threading.Event()

    def publish():
        number = 0
        while not stop.is_set():
            number += 1
            while not stop.is_set():
                try:
                    headers = {"idempotency-key": f"sessions {number}"}
                    status = ask(node.http, "POST", "/v1/publish/orders/sessions", str(number),
                                 headers=headers, timeout=PATIENCE_S)[0]
                    if status == 200:
                        acknowledged.append(number)
                        break
                except OSError:
                    pass
                time.sleep(0.2)
            time.sleep(0.02)
    publisher = threading.Thread(target=publish, daemon=True)
    publisher.start()
    return acknowledged, stop, publisher


def with_sessions(rig, fault, heal):
    """MQTT sessions of a node with which something goes wrong, while somebody publishes elsewhere; their clients go to another
    node, and come back."""
    wrong = Wrong()
    with rig.cluster() as cluster:
        sessions = [Session(f"session-{number}") for number in range(20)]
        for session in sessions:
            session.connect(cluster.nodes[1], is_new=True)
        acknowledged, stop, publisher = publish_numbers(cluster.nodes[0])
        time.sleep(2)
        fault(cluster.nodes[1])
        start = time.monotonic()
        for session in sessions:
            session.connect(cluster.nodes[2], is_new=False)
        wrong.figures["moved_s"] = round(time.monotonic() - start, 1)
        time.sleep(FAULT_S)
        heal(cluster.nodes[1])
        until("the node is ready again", cluster.nodes[1].is_ready)
        time.sleep(1)
        for session in sessions:
            session.connect(cluster.nodes[1], is_new=False)
        time.sleep(1)
        stop.set()
        publisher.join(PATIENCE_S)
        end = time.monotonic() + 20
        while time.monotonic() < end and any(len(one.received) < len(acknowledged) for one in sessions):
            time.sleep(0.2)
        for session in sessions:
            session.close()
            missing = set(acknowledged) - set(session.received)
            wrong.unless(not missing, f"{session.client}: {len(missing)} are missing, such as {sorted(missing)[:3]}")
            wrong.unless(session.received == sorted(session.received), f"{session.client}: out of order")
        wrong.figures["acknowledged"] = len(acknowledged)
        wrong.figures["again"] = max(session.again for session in sessions)
        wrong.unless(acknowledged, "nothing was acknowledged")
        cluster.keep = bool(wrong)
    return wrong
