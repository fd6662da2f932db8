"""Publishes from Python with requests, once, however often it has to try; and reads an event stream.

    python publish.py http://127.0.0.1:8080 chat/room1 '{"text": "hello"}'
"""

import json
import sys
import urllib.parse
import uuid

import requests
import requests.adapters
import urllib3.util


def session(token=None):
    """A session that tries again, after Retry-After, when the server is busy or the connection breaks."""
    retry = urllib3.util.Retry(
        total=5,
        backoff_factor=0.2,
        backoff_jitter=0.2,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
    )
    client = requests.Session()
    client.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
    client.mount("https://", requests.adapters.HTTPAdapter(max_retries=retry))
    if token:
        client.headers["Authorization"] = f"Bearer {token}"
    return client


def publish(client, url, channel, data, key=None):
    """Publishes as JSON and returns the receipt. With the same key it is published once, whoever tries again."""
    answer = client.post(
        f"{url}/v1/publish/{urllib.parse.quote(channel)}",
        json=data,
        headers={"Idempotency-Key": key or str(uuid.uuid4())},
        timeout=10,
    )
    if not answer.ok:
        problem = answer.json()
        raise requests.HTTPError(f"{problem['status']} {problem['code']}: {problem['detail']}", response=answer)
    return answer.json()


def events(client, url, *filters, last_event_id=None):
    """Yields the envelopes of a stream. Resume with the last one's "id" when it ends."""
    headers = {"Accept": "text/event-stream"}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    query = [("channel", one) for one in filters] + [("format", "json")]
    # Keep-alives come every 15 s, so a minute of silence is a dead connection.
    with client.get(f"{url}/sse", params=query, headers=headers, stream=True, timeout=(10, 60)) as answer:
        answer.raise_for_status()
        line, data = bytearray(), []
        # A byte at a time, out of its buffer: requests would otherwise wait until a piece is full.
        for byte in answer.iter_content(chunk_size=1):
            if byte != b"\n":
                line += byte
                continue
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield json.loads(b"\n".join(data))
                data = []
            line = bytearray()


if __name__ == "__main__":
    print(json.dumps(publish(session(), sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))
