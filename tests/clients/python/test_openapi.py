"""schemathesis against the real server: what it is sent and what it answers is what /v1/openapi.json says."""

import os
import pathlib
import re
import subprocess
import sys
import unittest

import requests

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = os.environ.get("FW_TEST_BINARY", ROOT / "target/release/fanwire")
# Cases per operation and phase; more in a soak.
EXAMPLES = os.environ.get("FW_TEST_EXAMPLES", "15")
# The same cases each time, unless another one is given.
SEED = os.environ.get("FW_TEST_SEED", "1")


class OpenApi(unittest.TestCase):
    def setUp(self):
        self.server = subprocess.Popen(
            [BINARY, "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # Held requests need not be held for long.
            env={**os.environ, "FANWIRE_API_MAX_WAIT": "200ms"},
        )
        self.addCleanup(self.server.stdout.close)
        self.addCleanup(self.server.wait)
        self.addCleanup(self.server.kill)
        line = self.server.stdout.readline()
        self.http = "http://" + re.fullmatch(r"listening http=(\S+) mqtt=\S+\n", line)[1]

    def test_the_api_is_as_it_is_described(self):
        # Somebody is there, so that not every connection is gone.
        streams = [requests.get(f"{self.http}/sse/%23", stream=True, timeout=30) for _ in range(3)]
        for stream in streams:
            self.addCleanup(stream.close)
        here = pathlib.Path(__file__).parent
        command = [pathlib.Path(sys.executable).with_name("st"), "--config-file", here / "schemathesis.toml"]
        command += ["run", f"{self.http}/v1/openapi.json", "--no-color", "--warnings", "off", "--workers", "1", "--seed", SEED]
        command += ["--max-examples", EXAMPLES, "--generation-database", "none", "--request-timeout", "30"]
        command += ["--suppress-health-check", "all"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=here)
        self.assertEqual(run.returncode, 0, run.stdout[-8_000:] + run.stderr[-2_000:])
        self.assertIsNone(self.server.poll(), "the server lives")


if __name__ == "__main__":
    unittest.main()
