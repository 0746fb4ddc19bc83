"""What is asked of Inspera's API to complete an event."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from bridge.core.contracts import SourceApi
from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.events import Enrichment, Event, child_id
from bridge.core.nouns import Assessment, Data, Person, Submission
from bridge.core.payload import Payload
from connectors.inspera.nouns import is_address
from connectors.inspera.results import FinalGrade, assessment, final_grades, identifier, person, published


def with_names(event: Event, api: SourceApi) -> list[Event]:
    """The event with its person and its test. Raises SourceUnavailable and PayloadError."""
    run, who = _own_id(event.data.assessment), event.data.person
    test = _test(run, api)
    user = _user(_own_id(who), api) if who is not None and who.key else None
    if test is None and user is None and api.now - event.recordedtime < timedelta(seconds=30):
        raise SourceUnavailable("the API does not know the test yet")
    complete = test is not None and (user is not None or who is None or not who.key or not _reads_users(api))
    if who is not None and user is not None:
        who = person(_own_id(who), options=api.settings.options, details=user, role=who.role)
    level: Enrichment = "full" if complete else "missing" if test is None and user is None else "partial"
    data = replace(event.data, person=who, assessment=assessment(run, test))
    return [replace(event, data=data, enrichment=level, observedat=api.now)]


def with_grades(event: Event, api: SourceApi) -> list[Event]:
    """The confirmation and one `grade.published` per graded candidate. Raises SourceUnavailable and PayloadError."""
    run = _own_id(event.data.assessment)
    export = _all_results(event, run, api)
    test = _test(run, api)
    data = replace(event.data, assessment=assessment(run, test))
    if export is None:
        return [replace(event, data=data, enrichment="missing", observedat=api.now)]
    grades, unreadable = final_grades(export)
    # Confirmed, and yet nobody has a grade, or some could not be read: somebody should look.
    complete = test is not None and bool(grades) and not unreadable
    parent = replace(event, data=data, enrichment="full" if complete else "partial", observedat=api.now)
    return [parent, *(_child(parent, grade, test, run, api) for grade in grades)]


def _child(parent: Event, grade: FinalGrade, test: Payload | None, confirmed: str, api: SourceApi) -> Event:
    run = grade.run or confirmed
    user = _user(grade.user, api)
    paper = f"{run}.{grade.user}"
    exam = assessment(run, test if run == confirmed else None)
    exam = replace(
        exam,
        title=grade.title or exam.title,
        starts_at=exam.starts_at or grade.starts_at,
        ends_at=exam.ends_at or grade.ends_at,
    )
    learner = person(
        grade.user,
        options=api.settings.options,
        details=user,
        candidate=grade.candidate,
        external=grade.external,
        role="learner",
    )
    return replace(
        parent,
        id=child_id(parent.id, paper),
        type="grade.published",
        subject=f"submission/{paper}",
        causationid=parent.id,
        enrichment="partial" if user is None and _reads_users(api) else "full",
        data=Data(
            person=learner,
            actor=parent.data.actor,
            assessment=exam,
            submission=Submission(key=f"inspera:{paper}"),
            grade=published(grade, api.settings.options, parent.time),
        ),
    )


def _all_results(event: Event, run: str, api: SourceApi) -> Payload | None:
    """The file with all results of a test, or None when the test is not there. Raises SourceUnavailable meanwhile.

    Order, status and file: seen in clients, undocumented; the id's key and the words for "not yet" are unknown.
    """
    order = {"resourceType": "AllResults", "parameters": {"assessmentRunId": int(run) if run.isdigit() else run}}
    age = api.now - event.recordedtime
    for attempt in range(1, 4):
        # An order's answer is remembered, so that the next try asks for the same job. What is behind # never goes on
        # the wire: it keeps apart what is remembered for two confirmations of one test, and for a job that failed.
        ordered = api.post(f"/v1/fileExport/order#{event.id}.{attempt}", order, keep=3000)
        if ordered is None:
            if age < timedelta(seconds=30):
                raise SourceUnavailable("the API does not know the test yet")
            return None
        status = api.get(f"/v1/fileExport/status/{_job(ordered)}")
        word = "" if status is None else (status.at("status").maybe_text() or "").lower()
        if word.startswith(("fail", "error")):
            continue
        url = None if status is None else status.at("exportInfo", "signedResponseUrl").maybe_text()
        if status is None or url is None:
            # A client asks every 5 seconds, 30 times; after that less often will do.
            raise SourceUnavailable("export is being made", retry_after=5 if age < timedelta(seconds=150) else 60)
        if not is_address(url):
            raise PayloadError(status.at("exportInfo", "signedResponseUrl").path, "an address")
        export = api.get(url)  # signed by itself: a storage service refuses it together with our Authorization
        if export is None:
            raise SourceUnavailable("the export is not at its signed address")
        return export
    raise SourceUnavailable("the platform failed three times to make the export", retry_after=300)


def _job(ordered: Payload) -> str:
    """The job's id, else the last step of `callbackUrl`: that address itself is never asked with our credentials."""
    answer = ordered.first("result") if ordered.at("result").present else ordered
    number = answer.first("jobId", "id")
    if number.present:
        return identifier(number)
    callback = answer.at("callbackUrl")
    path = callback.text().partition("?")[0].rstrip("/")
    return identifier(Payload(path.rpartition("/")[2], callback.path))


def _test(run: str, api: SourceApi) -> Payload | None:
    return api.get(f"/v1/test/{run}", keep=600)


def _user(user: str, api: SourceApi) -> Payload | None:
    return api.get(f"/v1/users/{user}", keep=3600) if _reads_users(api) else None


def _reads_users(api: SourceApi) -> bool:
    # Reading users takes a User Administrator, which an integration that works with ids alone does not need.
    return bool(api.settings.api and api.settings.api["read_users"])


def _own_id(noun: Person | Assessment | None) -> str:
    return (noun.key or "" if noun else "").removeprefix("inspera:")
