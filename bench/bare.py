"""What the bridge is measured against: the least that a Flask application can do with a signed webhook.

It checks the same HMAC-SHA-256 over the raw body and parses the JSON; it keeps nothing and forgets everything.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os

from flask import Flask, Response, request

_SECRET = os.environ.get("BENCH_SECRET", "").encode()

app = Flask(__name__, static_folder=None)


@app.post("/hooks/<source>")
def receive(source: str) -> Response:
    """200 for a genuine call, 401 for any other."""
    body = request.get_data(cache=False)
    wanted = base64.b64encode(hmac.digest(_SECRET, body, hashlib.sha256)).decode()
    if not hmac.compare_digest(wanted, request.headers.get("Signature", "")):
        return Response('{"status": "refused"}', 401, content_type="application/json")
    document = json.loads(body)
    answer = json.dumps({"status": "accepted", "id": document["id"], "source": source})
    return Response(answer, 200, content_type="application/json")
