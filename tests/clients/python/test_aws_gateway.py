"""boto3's `apigatewaymanagementapi` against the real server, with a function as the runtime emulator of Lambda calls it."""

import asyncio
import http.server
import json
import queue
import tempfile
import threading
import unittest
from pathlib import Path

import aiohttp
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from test_clients import PATIENCE, start

KEY, SECRET = "AKIDFANWIRECHECK", "a secret for tests"


def function(events):
    """A chat: who says something hears it from the answer, and every event is put into the queue."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            events.put(event)
            answer = {"statusCode": 200}
            if event["requestContext"]["eventType"] == "MESSAGE":
                answer["body"] = "heard " + event["body"]
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def management(http, secret=SECRET):
    return boto3.client(
        "apigatewaymanagementapi",
        region_name="us-east-1",
        endpoint_url=f"{http}/dev",
        aws_access_key_id=KEY,
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}, read_timeout=PATIENCE),
    )


class Gateway(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.events = queue.Queue()
        cls.function = function(cls.events)
        url = f"http://127.0.0.1:{cls.function.server_port}/2015-03-31/functions/chat/invocations"
        cls.folder = tempfile.TemporaryDirectory()
        config = Path(cls.folder.name) / "gateway.toml"
        config.write_text(f"""
            [[aws.keys]]
            access_key = "{KEY}"
            secret = "{SECRET}"
            gateways = ["chat"]
            [[gateway.aws]]
            name = "chat"
            path = "/dev"
            route_selection = "$request.body.action"
            integrations.main = {{ kind = "lambda", url = "{url}" }}
            routes."$connect" = {{ integration = "main" }}
            routes."$disconnect" = {{ integration = "main" }}
            routes."$default" = {{ integration = "main", response = true }}
        """)
        cls.server, cls.http, _ = start("--config", config)

    @classmethod
    def tearDownClass(cls):
        cls.server.kill()
        cls.server.wait()
        cls.server.stdout.close()
        cls.function.shutdown()
        cls.function.server_close()
        cls.folder.cleanup()

    def event(self, kind):
        event = self.events.get(timeout=PATIENCE)
        self.assertEqual(event["requestContext"]["eventType"], kind)
        return event

    def test_a_connection_is_posted_to_looked_at_and_closed(self):
        asyncio.run(self.life())

    async def life(self):
        api = management(self.http)
        call = asyncio.to_thread
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.http}/dev?room=1") as socket:
            connect = await call(self.event, "CONNECT")
            self.assertEqual(connect["queryStringParameters"], {"room": "1"})
            connection = connect["requestContext"]["connectionId"]
            await socket.send_str("hello")
            message = await call(self.event, "MESSAGE")
            self.assertEqual((message["body"], message["requestContext"]["routeKey"]), ("hello", "$default"))
            self.assertEqual(await socket.receive_str(timeout=PATIENCE), "heard hello")
            for number in range(20):
                await call(api.post_to_connection, ConnectionId=connection, Data=f"post {number}".encode())
            for number in range(20):
                self.assertEqual(await socket.receive_str(timeout=PATIENCE), f"post {number}")
            shown = await call(api.get_connection, ConnectionId=connection)
            self.assertEqual(shown["Identity"]["SourceIp"], "127.0.0.1")
            self.assertGreaterEqual(shown["LastActiveAt"], shown["ConnectedAt"])
            with self.assertRaises(ClientError) as wrong:
                await call(management(self.http, "another").get_connection, ConnectionId=connection)
            self.assertEqual(wrong.exception.response["Error"]["Code"], "InvalidSignatureException")
            with self.assertRaises(api.exceptions.PayloadTooLargeException):
                await call(api.post_to_connection, ConnectionId=connection, Data=b"x" * (128 * 1024 + 1))
            await call(api.delete_connection, ConnectionId=connection)
            closed = await socket.receive(timeout=PATIENCE)
            self.assertEqual((closed.type, closed.data), (aiohttp.WSMsgType.CLOSE, 1000))
        gone = await call(self.event, "DISCONNECT")
        self.assertEqual(gone["requestContext"]["connectionId"], connection)
        for ask in (api.get_connection, api.delete_connection):
            with self.assertRaises(api.exceptions.GoneException):
                await call(ask, ConnectionId=connection)
        with self.assertRaises(api.exceptions.GoneException):
            await call(api.post_to_connection, ConnectionId=connection, Data=b"x")


if __name__ == "__main__":
    unittest.main()
