"""Several requests in one, as OData has it: `multipart/mixed` with a whole HTTP message in each part.

learn.microsoft.com, "Execute batch operations using the Web API". Rows stand by themselves here, in no change set, so
that one which fails takes no other with it; answers come in the order of the requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from bridge.core.target import Answer, Request

A_BATCH: Final[Mapping[str, Any]] = {"status": 200, "body_regex": r"\A--", "as": "ok"}
"""The rule for an answer that has parts."""

_BOUNDARY: Final = re.compile(r'boundary="?([^";]+)')
_STATUS: Final = re.compile(rb"HTTP/1\.\d (\d{3})\b[^\r\n]*")


def joined(requests: Sequence[Request], boundary: str) -> tuple[str, bytes]:
    """The content type and the body of a batch. No line of JSON begins with two hyphens: any boundary does."""
    lines: list[bytes] = []
    for request in requests:
        headers = {name: value for name, value in request.headers.items() if not name.lower().startswith("odata-")}
        lines += [
            f"--{boundary}".encode(),
            b"Content-Type: application/http",
            b"Content-Transfer-Encoding: binary",
            b"",
            f"{request.method} {urlsplit(request.url)._replace(scheme='', netloc='').geturl()} HTTP/1.1".encode(),
            *(f"{name}: {value}".encode() for name, value in headers.items()),
            b"",
            request.body,
        ]
    lines += [f"--{boundary}--".encode(), b""]
    return f'multipart/mixed; boundary="{boundary}"', b"\r\n".join(lines)


def parts_of(answer: Answer) -> list[Answer]:
    """The answers in a batch's answer, as far as they are whole."""
    boundary = _BOUNDARY.search(answer.headers.get("content-type", ""))
    if boundary is None:
        return []
    # Before the first mark there is nothing, and after the last one nothing or half a part.
    sections = answer.body.split(b"--" + boundary[1].encode())[1:-1]
    return [part for section in sections if (part := _part(section)) is not None]


def _part(section: bytes) -> Answer | None:
    """The HTTP message that stands behind the part's own headers."""
    message = section.partition(b"\r\n\r\n")[2]
    head, _, body = message.partition(b"\r\n\r\n")
    first, _, rest = head.partition(b"\r\n")
    status = _STATUS.match(first)
    if status is None:
        return None
    pairs = (line.partition(":") for line in rest.decode("latin-1").split("\r\n"))
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Answer(status=int(status[1]), headers=headers, body=body.strip())
