"""The simulated tenant's exports: ordered, made while they are asked for, and fetched from a storage.

Paths and shapes as clients use them (seen in clients, undocumented); the words of the status are one guess.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply
from connectors.inspera.simulated_bodies import DELIVERED
from connectors.inspera.simulated_world import World, log_document, result_document, submissions_document


@dataclass(slots=True, kw_only=True)
class Job:
    """An export that was ordered. `signature` is what its address is good with just now."""

    id: str
    what: str
    run: int
    user: int | None = None
    asked: int = 0
    failed: bool = False
    signature: str = ""


@dataclass(slots=True)
class Exports:
    """The exports of a tenant; whoever asks holds the tenant's lock.

    `pending` is how often an export is "not yet", `failing` how many of the next ones fail. The pages print neither the
    `method` of an order under a test nor where its status is: with all others, or `under_test`, by path or by query.
    """

    world: World
    pending: int = 1
    failing: int = 0
    method: str = "POST"
    under_test: str | None = None
    _jobs: dict[str, Job] = field(default_factory=dict)

    def order(self, call: ApiCall, steps: tuple[str, ...]) -> ApiReply:
        """`POST /v1/fileExport/order` for results, `POST /v1/test/{testId}/events|submissions` for the others."""
        asked: Json = call.json if isinstance(call.json, dict) else {}
        what, user = steps[-1], None
        run = number(steps[-2])
        if what == "order":
            parameters = asked.get("parameters")
            parameters = parameters if isinstance(parameters, dict) else {}
            what, run, user = "results", number(str(parameters.get("assessmentRunId", ""))), parameters.get("userId")
        if run not in self.world.tests:
            return found(None)
        # Numbers, as clients have them: github.com/ToolsCollectiveR/insperaNokut asks for job 1936953499.
        job = Job(id=str(1_900_000_000 + len(self._jobs)), what=what, run=run, user=user)
        self._jobs[job.id] = job
        if steps[1] == "test" and self.under_test:
            return ApiReply(json={"jobId": int(job.id)})
        callback = f"{_root(call)}/api/v1/fileExport/status/{job.id}"
        return ApiReply(json={"jobId": int(job.id), "callbackUrl": callback})

    def test_export(self, call: ApiCall, steps: tuple[str, ...], query: dict[str, str]) -> ApiReply:
        """`/v1/test/{testId}/events|submissions`: an order, or, if that is where it is, its status."""
        by_path = len(steps) == 5 and self.under_test == "path"
        by_query = len(steps) == 4 and self.under_test == "query" and "jobId" in query
        if call.method == "GET" and (by_path or by_query):
            return self.status(steps[4] if by_path else query["jobId"], call, under_test=True)
        if len(steps) != 4:
            return found(None)
        if call.method != self.method:
            return ApiReply(status=405, json={"error": "Method not allowed"})
        return self.order(call, steps)

    def status(self, number: str, call: ApiCall, *, under_test: bool = False) -> ApiReply:
        """`GET /v1/fileExport/status/{jobId}`."""
        job = self._jobs.get(number)
        if job is None or under_test != (job.what != "results" and self.under_test is not None):
            return found(None)
        job.asked += 1
        if job.asked <= self.pending:
            return ApiReply(json={"status": "pending", "progress": 100 * job.asked // (self.pending + 1)})
        if self.failing > 0 and job.asked == self.pending + 1:
            self.failing -= 1
            job.failed = True
        if job.failed:
            return ApiReply(json={"status": "failed", "progress": 100})
        job.signature = job.signature or hashed(self.world.seed, job.id)
        url = f"{_root(call)}/storage/{job.id}?X-Amz-Expires=3600&X-Amz-Signature={job.signature}"
        return ApiReply(json={"status": "success", "progress": 100, "exportInfo": {"signedResponseUrl": url}})

    def expire(self) -> None:
        """As if an hour had passed: no address that was given is good any more, and the jobs give no other."""
        for job in self._jobs.values():
            job.signature = "expired"

    def download(self, number: str, query: dict[str, str], call: ApiCall) -> ApiReply:
        """A storage service: the address is the credential, and two credentials are one too many."""
        if "authorization" in call.headers:
            return _storage_error(400, "InvalidArgument")
        job = self._jobs.get(number)
        good = job is not None and job.signature != "expired" and query.get("X-Amz-Signature") == job.signature
        if job is None or not good or "X-Amz-Expires" not in query:
            return _storage_error(403, "AccessDenied")
        return ApiReply(json=self._file(job))

    def _file(self, job: Job) -> Json:
        test, users = self.world.tests[job.run], self.world.users
        if job.what == "submissions":
            return submissions_document(test, users)
        if job.what == "events":
            return log_document(test, DELIVERED)
        who = [user for user in test.candidates if job.user in (None, user)]
        return {"candidates": [result_document(test, user, users[user]) for user in who]}


def found(document: Json | None) -> ApiReply:
    """A document, or a 404 for none; the data API's error bodies are not documented."""
    if document is None:
        return ApiReply(status=404, json={"error": "Not found", "description": "No such object"})
    return ApiReply(json=document)


def number(text: str) -> int:
    """A number of a path; -1 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1


def hashed(*parts: object) -> str:
    """A text that looks like chance and is the same for the same parts."""
    return hashlib.sha256("|".join(map(str, ("inspera", *parts))).encode()).hexdigest()[:32]


def _storage_error(status: int, code: str) -> ApiReply:
    text = f"<Error><Code>{code}</Code></Error>"
    return ApiReply(status=status, text=text, headers={"Content-Type": "application/xml"})


def _root(call: ApiCall) -> str:
    """Our own address as the caller wrote it."""
    host = call.headers.get("host", "inspera.example.test")
    return f"http://{host}{call.headers.get('x-forwarded-prefix', '').rstrip('/')}"
