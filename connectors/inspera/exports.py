"""The exports that Inspera makes when they are ordered: ordered, asked for until they are done, and fetched.

Order, status and file as clients use them (github.com/ToolsCollectiveR/insperaNokut, R/get_users.r: `jobId` and
`callbackUrl`, which it asks with its token). That a test's submissions and its event log are ordered under the test and
then asked for by `jobId` is documented (https://inspera.atlassian.net/wiki/spaces/KB/pages/185434233/Submissions+API
and .../2520547581), as two calls each; the method of the order and the place of the status are not printed. So the
method is a setting, and the status is looked for where the answer points, with all other exports, and under the test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.core.errors import PayloadError, SourceRefused, SourceUnavailable
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.inspera.nouns import is_address
from connectors.inspera.results import identifier

ORDER_SECONDS: Final = 14400
"""How long an order is remembered, usually: as long as its event waits for it. An address that has died meanwhile (they
live for an hour at most, which is documented) is refused, and then the file is ordered anew."""

_OWN_PATH: Final = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9_.:-]*)+/?(\?[A-Za-z0-9_=&.-]*)?")
_ATTEMPTS: Final = 3
_POLL_SECONDS: Final = 10.0
"""A client asks every 5 seconds. The event's age says nothing: it may have waited long before its file was ordered."""


class NotYet(SourceUnavailable):
    """An export is being made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to export. `name` tells it from other orders of the same: one for each time that it has to be fresh. It is
    remembered for `keep` seconds, which is how old a file may be that is read. One ordered under a test may have its
    status there too."""

    path: str
    name: str
    keep: float = ORDER_SECONDS
    body: Mapping[str, Any] = field(default_factory=dict)
    method: str = "POST"
    under_test: bool = False


def all_results(run: str, name: str) -> Order:
    """All candidates' results of a test."""
    body = {"resourceType": "AllResults", "parameters": {"assessmentRunId": number(run)}}
    return Order(path="/v1/fileExport/order", name=name, body=body)


def placed(api: SourceApi, order: Order, attempt: int = 1) -> Payload | None:
    """The platform's answer to an order, remembered, so that the next try asks for the same job; None for a 404.

    What is behind # never goes on the wire: it keeps apart what is remembered for two orders of the same file, and for
    a job that failed.
    """
    path = f"{order.path}#{order.name}.{attempt}"
    if order.method == "GET":
        return api.get(path, keep=order.keep)
    return api.post(path, dict(order.body), keep=order.keep)


def made(api: SourceApi, order: Order) -> bool:
    """Whether the file can be fetched; raises as `exported` does. Fetches nothing."""
    return next(_addresses(api, order), None) is not None


def exported(api: SourceApi, order: Order) -> Payload | None:
    """The file, or None when what is to be exported is not there.

    Raises NotYet while the file is being made, SourceUnavailable, and PayloadError.
    """
    for url in _addresses(api, order):
        try:
            # Signed by itself: a storage service refuses it together with our Authorization, and none is sent there.
            file = api.get(url)
        except SourceRefused:
            continue  # it died with the token that it was signed under
        if file is not None:
            return file
    return None


def _addresses(api: SourceApi, order: Order) -> Iterator[str]:
    """The signed address of each attempt whose job is done; nothing when what is to be exported is not there."""
    for attempt in range(1, _ATTEMPTS + 1):
        ordered = placed(api, order, attempt)
        if ordered is None:
            return
        status = _status(api, order, ordered)
        if status is None or _failed(status):
            continue  # a job that is not known, or no more, or that failed: another order may do
        url = status.at("exportInfo", "signedResponseUrl").maybe_text()
        if url is None:
            # The words for "not yet" are not documented: whatever has no address is not done.
            raise NotYet("export is being made", retry_after=_POLL_SECONDS)
        if not is_address(url):
            raise PayloadError(status.at("exportInfo", "signedResponseUrl").path, "an address")
        yield url
    raise SourceUnavailable("the platform failed three times to make the export", retry_after=300)


def number(identity: str) -> int | str:
    """An id as the platform writes it in JSON: a number, if it is one."""
    return int(identity) if identity.isascii() and identity.isdigit() else identity


def _failed(status: Payload) -> bool:
    return (status.at("status").maybe_text() or "").lower().startswith(("fail", "error"))


def _status(api: SourceApi, order: Order, ordered: Payload) -> Payload | None:
    """What has become of a job; None where nobody knows it. `callbackUrl` is asked with our credentials if it is one of
    the tenant's own API, and no other address ever is."""
    answer = ordered.first("result") if ordered.at("result").present else ordered
    base = str((api.settings.api or {}).get("base_url", "")).rstrip("/")
    address = answer.at("callbackUrl").maybe_text() or ""
    path = address.removeprefix(base)
    if base and path != address and _OWN_PATH.fullmatch(path):
        return api.get(path)
    job = _job(answer)
    places = [f"/v1/fileExport/status/{job}"]
    if order.under_test:
        places += [f"{order.path}/{job}", f"{order.path}?jobId={job}"]
    return next((found for place in places if (found := api.get(place)) is not None), None)


def _job(answer: Payload) -> str:
    """The job's id, else the last step of `callbackUrl`."""
    found = answer.first("jobId", "id")
    if found.present:
        return identifier(found)
    callback = answer.at("callbackUrl")
    path = callback.text().partition("?")[0].rstrip("/")
    return identifier(Payload(path.rpartition("/")[2], callback.path))
