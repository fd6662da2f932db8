#!/usr/bin/env python3
"""What TLS costs: memory of an idle connection, and CPU of a delivery, of Fanwire and, if it is there, of mosquitto.

    benches/tls/measure.py [BINARY] [--connections 1000] [--messages 200] [--payload 64]

MQTT subscribers of one topic, in one process; the server's CPU is read from /proc, so that the clients' own cost, which
is far higher here, does not count. Certificates are made by openssl."""

import argparse, os, pathlib, selectors, shutil, socket, ssl, subprocess, sys, tempfile, time

TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid):
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) * 1024


def packet(kind, body):
    length, size = b"", len(body)
    while True:
        size, digit = divmod(size, 128)
        length += bytes([digit | (0x80 if size else 0)])
        if not size:
            return bytes([kind]) + length + body


def text(value):
    return len(value).to_bytes(2, "big") + value


class Subscriber:
    def __init__(self, port, context, name):
        self.socket = socket.create_connection(("localhost", port))
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.socket.sendall(packet(0x10, text(b"MQTT") + b"\x04\x02\x00\x00" + text(name)))
        self.read(4)
        self.socket.sendall(packet(0x82, b"\x00\x01" + text(b"bench") + b"\x00"))
        self.read(5)

    def read(self, count):
        while count:
            got = len(self.socket.recv(count))
            assert got, "the server closed"
            count -= got


def measure(name, pid, port, context, args):
    before = memory(pid)
    began, cpu_before = time.monotonic(), cpu(pid)
    readers = [Subscriber(port, context, b"r%d" % number) for number in range(args.connections)]
    took, handshake = time.monotonic() - began, (cpu(pid) - cpu_before) / args.connections
    time.sleep(2)
    idle = (memory(pid) - before) / args.connections
    selector = selectors.DefaultSelector()
    message = packet(0x30, text(b"bench") + b"x" * args.payload)
    for reader in readers:
        reader.socket.setblocking(False)
        reader.left = args.messages * len(message)
        selector.register(reader.socket, selectors.EVENT_READ, reader)
    publisher = Subscriber(port, context, b"publisher")
    publisher.socket.sendall(packet(0xA2, b"\x00\x02" + text(b"bench")))
    publisher.read(4)
    start, left, sent = cpu(pid), len(readers), 0
    while left:
        # One at a time: each is a delivery of its own to each reader, no burst.
        if sent < args.messages and all(reader.left <= (args.messages - sent) * len(message) for reader in readers):
            publisher.socket.sendall(message)
            sent += 1
        for key, _ in selector.select(1):
            reader = key.data
            try:
                while True:
                    got = len(reader.socket.recv(65536))
                    assert got, "the server closed"
                    reader.left -= got
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            left -= reader.left == 0
    delivery = (cpu(pid) - start) / (args.messages * len(readers))
    print(f"| {name} | {args.connections} | {idle:,.0f} | {delivery * 1e6:.2f} | {handshake * 1e6:,.0f} | {took:.1f} |", flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", default="target/release/fanwire")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--payload", type=int, default=64)
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fanwire-tls-"))
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, stderr=subprocess.DEVNULL)
    context = ssl.create_default_context(cafile=cert)
    print("| server | connections | bytes of an idle one | µs of CPU for a delivery | µs of CPU to connect | s to connect all |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for secured in (False, True):
        plain, inside = free_port(), free_port()
        config = folder / "fanwire.toml"
        config.write_text(f'[tls]\ncert_file = "{cert}"\nkey_file = "{key}"\n[http]\naddress = "off"\n'
                          f'[mqtt]\naddress = "127.0.0.1:{plain}"\ntls_address = "127.0.0.1:{inside}"\n')
        server = subprocess.Popen([args.binary, "--config", config], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        server.stdout.readline()
        chosen = (inside, context) if secured else (plain, None)
        measure("Fanwire, TLS" if secured else "Fanwire", server.pid, *chosen, args)
        server.kill()
        mosquitto = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        if not mosquitto:
            continue
        port = free_port()
        tls = f"certfile {cert}\nkeyfile {key}\n" if secured else ""
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nuser root\n{tls}")
        server = subprocess.Popen([mosquitto, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
        measure("mosquitto, TLS" if secured else "mosquitto", server.pid, port, context if secured else None, args)
        server.kill()
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
