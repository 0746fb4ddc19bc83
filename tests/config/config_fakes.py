"""Two small connectors of no real platform, so that configuration is tested apart from any."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from bridge.config.connectors import target_connector
from bridge.core.errors import NotGenuine
from bridge.core.events import Event, Json
from bridge.core.manifest import SourceConnector, TargetConnector, source_manifest
from bridge.core.settings import Settings
from bridge.core.simulation import SendingRule, SimulatedPlatform
from bridge.core.source import ApiAccess, Challenge, Inbound, Notice, SourceApi, Verified

EXAM_SOURCE: Json = {
    "proof": "HMAC over the raw body",
    "dedupe": {"rule": "raw body", "reason": "there is no id"},
    "enrich_deadline_seconds": 600,
    "options": {
        "mode": {"description": "How it proves", "enum": ["hmac", "url_token"], "default": "hmac"},
        "url_token": {"description": "Token in the URL", "type": ["string", "null"], "default": None, "secret": True},
        "window_seconds": {"description": "How long", "type": "number", "minimum": 0, "default": 2},
        "aliases": {
            "description": "Other names",
            "type": "object",
            "additionalProperties": {"type": "string"},
            "default": {},
        },
        "limits": {
            "description": "Bounds",
            "type": "object",
            "default": {},
            "additionalProperties": False,
            "properties": {"pages": {"description": "Pages", "type": "integer", "default": 10}},
        },
    },
    "api": {
        "base_url": {
            "description": "Where the API is",
            "type": "string",
            "format": "uri",
            "default": "https://api.exam.example",
        },
        "client_id": {"description": "Who asks", "type": "string"},
        "client_secret": {"description": "The client's secret", "type": "string", "secret": True},
    },
    "api_required": ["client_id", "client_secret"],
    "kinds": {
        "graded": {
            "about": "A grade",
            "types": ["grade.published"],
            "calls": [{"call": "GET /grade", "fills": ["data.grade.value"], "failing": "missing", "absent": "missing"}],
        }
    },
}

CRM_MANIFEST = """\
name: crm
title: A CRM
about: Keeps contacts
target:
  required: [url]
  options:
    url: {description: Where the CRM is, type: string, format: uri}
    token: {description: Its token, type: string, secret: true}
    region: {description: Where it is kept, enum: [eu, us], default: eu}
  concurrency: 3
  operations:
    upsert_contact:
      about: Make or change a contact
      idempotent: true
      params:
        type: object
        required: [key]
        additionalProperties: false
        properties:
          key: {description: The person, type: string, minLength: 1}
          properties: {description: What to keep, type: object, additionalProperties: {type: [string, number, "null"]}}
          score: {description: Points, type: number}
          list: {description: Which list, enum: [students, staff]}
    delete_contact:
      about: Remove a contact
      idempotent: true
      destructive: true
      params:
        type: object
        required: [key]
        additionalProperties: false
        properties: {key: {description: The person, type: string}}
"""


class ExamCode:
    """Satisfies `Source`; nothing of it is called while a configuration is read."""

    def verify(self, inbound: Inbound, settings: Settings) -> Verified | Challenge:
        raise NotGenuine("never")

    def parse(self, verified: Verified, settings: Settings) -> Iterable[Notice]:
        return ()

    def normalise(self, notice: Notice, settings: Settings) -> Event:
        raise NotImplementedError

    def access(self, settings: Settings) -> ApiAccess | None:
        return None

    def enrich(self, event: Event, api: SourceApi) -> Iterable[Event]:
        return (event,)


class ExamSimulator:
    RULE = SendingRule(success=range(200, 300), timeout=1, retries=())

    def platform(self, seed: int = 1, people: int = 200) -> SimulatedPlatform:
        raise NotImplementedError

    def settings(self, secret: str, api_url: str) -> Json:
        return {"connector": "exam", "secrets": [secret]}


def connectors(folder: Path) -> tuple[dict[str, SourceConnector], dict[str, TargetConnector]]:
    """The source `exam`, with one fixture `graded` of two events, and the target `crm`, below a folder."""
    fixtures = folder / "exam" / "fixtures"
    fixtures.mkdir(parents=True, exist_ok=True)
    (fixtures / "graded.json").write_text(json.dumps({"events": [], "enriched": [event("1"), event("2")]}), "utf-8")
    (folder / "crm").mkdir(exist_ok=True)
    (folder / "crm" / "manifest.yaml").write_text(CRM_MANIFEST, "utf-8")
    exam = SourceConnector(
        name="exam",
        title="Exam",
        about="Exams",
        folder=folder / "exam",
        manifest=source_manifest(EXAM_SOURCE),
        code=ExamCode(),
        simulator=ExamSimulator(),
    )
    return {"exam": exam}, {"crm": target_connector(folder / "crm", None)}


def event(person: str) -> Json:
    """A canonical grade of one person, as the wire has it."""
    moment = "2026-06-05T09:30:00.000Z"
    nouns = ("actor", "course", "assessment", "submission", "session", "attendance", "enrolment", "payment", "artifact")
    return {
        "specversion": "1.0",
        "id": f"00000000-0000-5000-8000-00000000000{person}",
        "source": "urn:edu:exam:t1",
        "type": "edu.grade.published.v1",
        "subject": "submission/9",
        "time": moment,
        "datacontenttype": "application/json",
        "dataschema": "https://bridge.example/schemas/edu-event/1.json",
        "tenant": "exams",
        "sourceevent": "graded",
        "recordedtime": moment,
        "timequality": "source",
        "enrichment": "full",
        "data": {
            **dict.fromkeys((*nouns, "group", "change", "raw")),
            "person": {
                "key": f"exam:{person}",
                "role": "learner",
                "email": f"p{person}@example.test",
                "givenName": None,
                "familyName": None,
                "identifiers": [],
            },
            "grade": {
                "value": "10",
                "label": "10",
                "scale": None,
                "scoreGiven": 10.0,
                "scoreMaximum": 12.0,
                "passed": True,
                "kind": "final",
                "status": "published",
                "publishedAt": moment,
            },
        },
    }


DEADLINE = timedelta(seconds=600)
