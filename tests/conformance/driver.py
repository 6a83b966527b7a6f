"""What the conformance suite starts as the client: hands its server's URL to the test that runs the gateway, and waits for it.

`python driver.py PORT URL`; the scenario and what the client must know are in the environment. Ends with 1 when the test says so.
"""

import json
import os
import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    names = ("MCP_CONFORMANCE_SCENARIO", "MCP_CONFORMANCE_CONTEXT")
    asked = {"url": sys.argv[2], **{name: os.environ.get(name) for name in names}}
    connection.sendall(json.dumps(asked).encode() + b"\n")
    sys.exit(connection.recv(1) != b"1")
