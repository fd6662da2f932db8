"""boto3's `iot-data` against the real server: only the endpoint is another one."""

import base64
import json
import queue
import threading
import unittest

import boto3
import paho.mqtt.client as paho
from botocore.config import Config
from botocore.exceptions import ClientError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from test_clients import PATIENCE, ROOT, start

KEY, SECRET = "AKIDFANWIRECHECK", "a secret for tests"


def client(http, key=KEY, secret=SECRET, region="us-east-1"):
    return boto3.client(
        "iot-data",
        region_name=region,
        endpoint_url=http,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}, read_timeout=PATIENCE),
    )


class Aws(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server, cls.http, cls.mqtt = start("--config", ROOT / "tests/clients/aws.toml")
        cls.iot = client(cls.http)

    @classmethod
    def tearDownClass(cls):
        cls.server.kill()
        cls.server.wait()
        cls.server.stdout.close()

    def paho(self, name, session=0, will=None, manual_ack=False):
        mqtt = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5, manual_ack=manual_ack
        )
        mqtt.got, connected, subscribed = queue.Queue(), threading.Event(), threading.Event()
        mqtt.gone = threading.Event()
        mqtt.on_message = lambda _, __, message: mqtt.got.put(message)
        mqtt.on_connect = lambda *_: connected.set()
        mqtt.on_subscribe = lambda *_: subscribed.set()
        mqtt.on_disconnect = lambda *_: mqtt.gone.set()
        if will:
            mqtt.will_set(*will)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = session
        mqtt.connect(*self.mqtt, keepalive=40, properties=properties)
        mqtt.loop_start()
        self.assertTrue(connected.wait(PATIENCE))
        self.addCleanup(lambda: (mqtt.disconnect(), mqtt.loop_stop()))

        def subscribe(*filters):
            subscribed.clear()
            mqtt.subscribe(list(filters))
            self.assertTrue(subscribed.wait(PATIENCE))

        return mqtt, subscribe

    def test_a_publish_reaches_mqtt_with_its_properties(self):
        mqtt, subscribe = self.paho("reader")
        subscribe(("a/#", 1))
        answer = self.iot.publish(
            topic="a/b c",
            qos=1,
            payload=b"\x00hello",
            contentType="text/plain",
            responseTopic="r/é",
            messageExpiry=60,
            userProperties=json.dumps([{"k": "v"}, {"k": "é"}]),
            payloadFormatIndicator="UTF8_DATA",
            correlationData=base64.b64encode(b"\xff7").decode(),
        )
        self.assertEqual(answer["ResponseMetadata"]["HTTPStatusCode"], 200)
        self.assertTrue(answer["ResponseMetadata"]["RequestId"])
        message = mqtt.got.get(timeout=PATIENCE)
        self.assertEqual((message.topic, message.payload, message.qos), ("a/b c", b"\x00hello", 1))
        properties = message.properties
        self.assertEqual(properties.UserProperty, [("k", "v"), ("k", "é")])
        self.assertEqual((properties.ContentType, properties.ResponseTopic), ("text/plain", "r/é"))
        self.assertEqual((properties.CorrelationData, properties.PayloadFormatIndicator), (b"\xff7", 1))
        self.assertLessEqual(properties.MessageExpiryInterval, 60)
        self.iot.publish(topic="a/x", payload=b"0")
        self.assertEqual(mqtt.got.get(timeout=PATIENCE).qos, 0)

    def test_retained_messages_are_listed_shown_and_forgotten(self):
        topics = [f"kept/{number}" for number in range(5)]
        for topic in topics:
            self.iot.publish(topic=topic, qos=1, retain=True, payload=topic.encode(), userProperties='[{"a":"b"}]')
        one = self.iot.get_retained_message(topic="kept/3")
        self.assertEqual((one["topic"], one["payload"], one["qos"]), ("kept/3", b"kept/3", 1))
        self.assertEqual(json.loads(one["userProperties"]), [{"a": "b"}])
        self.assertGreater(one["lastModifiedTime"], 1_700_000_000_000)
        pages = list(self.iot.get_paginator("list_retained_messages").paginate(PaginationConfig={"PageSize": 2}))
        listed = [entry for page in pages for entry in page["retainedTopics"]]
        found = [entry["topic"] for entry in listed if entry["topic"].startswith("kept/")]
        self.assertEqual(found, topics)
        self.assertGreaterEqual(len(pages), 3)
        self.assertEqual({entry["payloadSize"] for entry in listed if entry["topic"] in topics}, {6})
        self.iot.publish(topic="kept/3", qos=1, retain=True, payload=b"")
        with self.assertRaises(self.iot.exceptions.ResourceNotFoundException):
            self.iot.get_retained_message(topic="kept/3")

    def test_connections_are_told_of_by_their_client_identifier(self):
        mqtt, subscribe = self.paho("me/you", session=600)
        subscribe(("t/+", 1), ("$share/g/u/#", 0))
        one = self.iot.get_connection(clientId="me/you", includeSocketInformation=True)
        self.assertEqual((one["connected"], one["clientId"], one["cleanSession"]), (True, "me/you", False))
        self.assertEqual((one["keepAliveDuration"], one["sessionExpiry"]), (40, 600))
        self.assertEqual((one["sourceIp"], one["targetIp"], one["targetPort"]), ("127.0.0.1", *self.mqtt))
        self.assertEqual(one["sourcePort"], mqtt.socket().getsockname()[1])
        self.assertNotIn("sourceIp", self.iot.get_connection(clientId="me/you"))
        held = self.iot.list_subscriptions(clientId="me/you", maxResults=1)
        self.assertEqual(held["subscriptions"], [{"topicFilter": "t/+", "qos": 1}])
        held = self.iot.list_subscriptions(clientId="me/you", nextToken=held["nextToken"])
        self.assertEqual(held["subscriptions"], [{"topicFilter": "$share/g/u/#", "qos": 0}])
        self.assertNotIn("nextToken", held)
        mqtt.disconnect()
        self.assertTrue(mqtt.gone.wait(PATIENCE))
        gone = self.until(lambda: self.iot.get_connection(clientId="me/you"), lambda found: not found["connected"])
        self.assertEqual(gone["disconnectReason"], "CLIENT_INITIATED_DISCONNECT")
        self.assertEqual(len(self.iot.list_subscriptions(clientId="me/you")["subscriptions"]), 2)
        with self.assertRaises(self.iot.exceptions.ResourceNotFoundException):
            self.iot.get_connection(clientId="nobody")

    def until(self, ask, holds):
        for _ in range(1_000):
            found = ask()
            if holds(found):
                return found
        self.fail(f"still {found}")

    def test_a_direct_message_is_confirmed_by_the_client_alone(self):
        mqtt, _ = self.paho("direct", manual_ack=True)
        done = queue.Queue()

        def send(**options):
            try:
                answer = self.iot.send_direct_message(clientId="direct", topic="to/you", payload=b"hi", **options)
                done.put(answer["message"])
            except ClientError as error:
                done.put(error.response["Error"]["Code"])

        sender = threading.Thread(target=send, kwargs={"confirmation": True, "timeout": 10})
        sender.start()
        message = mqtt.got.get(timeout=PATIENCE)
        self.assertEqual((message.topic, message.payload, message.qos), ("to/you", b"hi", 1))
        self.assertTrue(done.empty(), "nothing is confirmed yet")
        mqtt.ack(message.mid, message.qos)
        self.assertEqual(done.get(timeout=PATIENCE), "OK")
        sender.join()
        send(confirmation=True, timeout=1)
        self.assertEqual(done.get(), "GatewayTimeoutException")
        send()
        self.assertEqual(done.get(), "OK")
        self.assertEqual([mqtt.got.get(timeout=PATIENCE).qos for _ in range(2)], [1, 0])
        with self.assertRaises(self.iot.exceptions.ResourceNotFoundException):
            self.iot.send_direct_message(clientId="nobody", topic="t", payload=b"")

    def test_a_closed_connection_leaves_its_will_unless_it_is_told_not_to(self):
        reader, subscribe = self.paho("heir")
        subscribe(("last/#", 0))
        for prevent in (True, False):
            mqtt, _ = self.paho("dying", session=600, will=("last/word", f"{prevent}"))
            self.iot.delete_connection(clientId="dying", cleanSession=True, preventWillMessage=prevent)
            self.assertTrue(mqtt.gone.wait(PATIENCE))
            mqtt.loop_stop()
        self.assertEqual(reader.got.get(timeout=PATIENCE).payload, b"False")
        gone = self.until(lambda: self.iot.get_connection(clientId="dying"), lambda found: not found["connected"])
        self.assertEqual((gone["disconnectReason"], gone["cleanSession"]), ("API_INITIATED_DISCONNECT", True))
        with self.assertRaises(self.iot.exceptions.ResourceNotFoundException):
            self.iot.delete_connection(clientId="dying")

    def test_lives_are_told_in_order_and_nobody_can_forge_them(self):
        watcher, subscribe = self.paho("watcher")
        subscribe(("$aws/events/+/+/watched", 1))
        mqtt, own = self.paho("watched")
        own(("t/#", 0))
        forged = mqtt.publish("$aws/events/presence/disconnected/watched", b"{}", qos=1)
        forged.wait_for_publish(PATIENCE)
        mqtt.disconnect()
        told = [watcher.got.get(timeout=PATIENCE) for _ in range(3)]
        kinds = [message.topic.split("/")[3] for message in told]
        self.assertEqual(kinds, ["connected", "subscribed", "disconnected"])
        came, subscribed, left = (json.loads(message.payload) for message in told)
        self.assertEqual((came["clientId"], came["eventType"], came["ipAddress"]), ("watched", "connected", "127.0.0.1"))
        self.assertEqual(came["versionNumber"], left["versionNumber"])
        self.assertEqual(came["sessionIdentifier"], left["sessionIdentifier"])
        self.assertEqual(subscribed["topics"], ["t/#"])
        self.assertTrue(left["clientInitiatedDisconnect"])
        self.assertEqual(left["disconnectReason"], "CLIENT_INITIATED_DISCONNECT")

    def test_what_is_wrong_is_an_exception_of_its_name(self):
        wrong = client(self.http, secret="not the secret")
        with self.assertRaises(ClientError) as raised:
            wrong.publish(topic="a", payload=b"x")
        self.assertEqual(raised.exception.response["Error"]["Code"], "InvalidSignatureException")
        self.assertEqual(raised.exception.response["ResponseMetadata"]["HTTPStatusCode"], 403)
        for other, code in [
            (client(self.http, key="NOBODY"), "UnrecognizedClientException"),
            (client(self.http, region="eu-west-1"), "InvalidSignatureException"),
            (client(self.http, key="AKIDFANWIREREADS", secret="another one"), "ForbiddenException"),
        ]:
            with self.assertRaises(ClientError) as raised:
                other.publish(topic="a", payload=b"x")
            self.assertEqual(raised.exception.response["Error"]["Code"], code)
        iot, refused = self.iot, self.iot.exceptions
        with self.assertRaises(refused.InvalidRequestException):
            iot.publish(topic="a/#", payload=b"x")
        with self.assertRaises(refused.InvalidRequestException):
            iot.publish(topic="a", userProperties="{}")
        with self.assertRaises(refused.ForbiddenException):
            iot.send_direct_message(clientId="c", topic="$aws/x", payload=b"")
        with self.assertRaises(refused.InvalidRequestException):
            iot.get_connection(clientId="$c")
        with self.assertRaises(ClientError) as raised:
            iot.publish(topic="a", payload=b"x" * (5 << 20))
        self.assertEqual(raised.exception.response["Error"]["Code"], "RequestEntityTooLargeException")

    def test_a_key_reads_what_its_rights_say(self):
        self.iot.publish(topic="public/a", retain=True, payload=b"x")
        self.iot.publish(topic="private/a", retain=True, payload=b"x")
        reader = client(self.http, key="AKIDFANWIREREADS", secret="another one")
        self.assertEqual(reader.get_retained_message(topic="public/a")["payload"], b"x")
        with self.assertRaises(ClientError):
            reader.get_retained_message(topic="private/a")
        topics = [entry["topic"] for entry in reader.list_retained_messages()["retainedTopics"]]
        self.assertEqual(topics, ["public/a"])
        with self.assertRaises(reader.exceptions.ForbiddenException):
            reader.get_connection(clientId="c")

    def test_a_shadow_is_changed_by_boto3_and_by_its_device(self):
        device, subscribe = self.paho("lamp")
        subscribe(("$aws/things/lamp/shadow/update/delta", 1))
        update = {"state": {"desired": {"on": True, "level": 1.10}}, "clientToken": "t"}
        answer = self.iot.update_thing_shadow(thingName="lamp", payload=json.dumps(update).encode())
        accepted = json.loads(answer["payload"].read())
        self.assertEqual((accepted["state"], accepted["version"]), (update["state"], 1))
        self.assertEqual(accepted["clientToken"], "t")
        delta = json.loads(device.got.get(timeout=PATIENCE).payload)
        self.assertEqual((delta["state"], delta["version"]), ({"on": True, "level": 1.1}, 1))
        report = {"state": {"reported": {"on": True, "level": 1.1}}}
        device.publish("$aws/things/lamp/shadow/update", json.dumps(report), qos=1).wait_for_publish(PATIENCE)
        shown = json.loads(self.iot.get_thing_shadow(thingName="lamp")["payload"].read())
        self.assertEqual((shown["version"], shown["state"]["reported"]), (2, report["state"]["reported"]))
        with self.assertRaises(self.iot.exceptions.ConflictException):
            self.iot.update_thing_shadow(thingName="lamp", payload=b'{"state":{},"version":1}')
        with self.assertRaises(self.iot.exceptions.ResourceNotFoundException):
            self.iot.get_thing_shadow(thingName="lamp", shadowName="none")
        self.iot.update_thing_shadow(thingName="lamp", shadowName="s", payload=b'{"state":{"desired":{"a":1}}}')
        self.assertEqual(self.iot.list_named_shadows_for_thing(thingName="lamp")["results"], ["s"])
        gone = json.loads(self.iot.delete_thing_shadow(thingName="lamp")["payload"].read())
        self.assertEqual(gone["version"], 2)


if __name__ == "__main__":
    unittest.main()
