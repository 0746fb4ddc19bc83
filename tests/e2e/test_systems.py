"""From signed webhooks to what a real kind of system holds in the end, while it misbehaves and workers are killed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from watching import Make, ask, eventually, killed, reborn, wait_for, write_mapping

from bridge.config.shipped import shipped_mappings
from bridge.ledger.tables import events, messages
from bridge.main import registry
from bridge.testing.campus import Campus, Day
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_faults import Fault

pytestmark = pytest.mark.e2e

MAPPINGS = ("people-to-hubspot", "grades-to-hubspot", "revoked-grades-to-hubspot", "certificates-to-hubspot")

HOLDERS = {
    "version": 1,
    "description": "Who got a certificate, as a contact: its note waits for one",
    "events": ["certificate.issued"],
    "target": "hubspot",
    "operation": "upsert_contact",
    "with": {"key": "{{ event.data.person.key }}", "properties": {"email": "{{ event.data.person.email }}"}},
}


def test_a_crm_ends_with_the_truth_and_one_note_per_certificate(make_campus: Make, tmp_path: Path) -> None:
    folder = tmp_path / "mappings"
    folder.mkdir()
    for name in MAPPINGS:
        shutil.copy(shipped_mappings() / f"{name}.yaml", folder)
    write_mapping(folder, "holders-to-hubspot", HOLDERS)
    simulator = registry().targets["hubspot"].simulator
    assert simulator is not None
    with SimulatedTargetServer(simulator) as crm:
        crm.fail(Fault(name="drop", share=0.08), Fault(name="status", share=0.08))
        campus = make_campus(
            "wise",
            "wiseflow",
            mappings=folder,
            targets={"hubspot": crm.settings()},
            settings={"retry": {"first_delay_seconds": 1, "max_delay_seconds": 3}},
        )
        campus.start_bridge()
        senders = campus.senders(Day(calls=300, rate=60.0))
        for sender in senders.values():
            sender.start()
        for name in ("worker-1", "worker-2"):
            before = campus.pids()[name]
            killed(campus, name)
            eventually(lambda name=name, before=before: reborn(campus, name, before), seconds=20, about="it is back")
        for _ in range(20):
            assert ask(campus.signed("wise", kind="CertificateIssuedEvent")).status == 200
        wait_for(senders.values(), seconds=60)
        crm.fail()
        assert campus.finished(60), campus.run("deliveries", "list").stdout
        _compare(campus, crm.effects())


def _compare(campus: Campus, held: Any) -> None:
    with campus.ledger.read() as connection:
        sent = connection.execute(
            select(messages.c.mapping, messages.c.status, messages.c.reason, messages.c.params, events.c.time_ms)
            .join(events, events.c.id == messages.c.event_id)
            .order_by(events.c.time_ms)
        ).all()
    assert {row.status for row in sent} <= {"delivered", "superseded"}, {row.reason for row in sent}
    contacts = held["records"]["contacts"].values()
    keys = Counter(contact["bridge_person_key"] for contact in contacts if contact.get("bridge_person_key"))
    people = [json.loads(row.params) for row in sent if row.mapping in MAPPINGS[:2]]
    # Who has a contact under the same address already keeps it, with the key that it has.
    known = {contact.get("email") for contact in contacts if contact.get("bridge_person_key") == "wiseflow:1"}
    wanted = {person["key"] for person in people if person["properties"]["email"] not in known}
    assert len(wanted) > 20
    assert {key for key, count in keys.items() if count > 1} == set(), "nobody is there twice"
    assert wanted <= keys.keys()

    newest: dict[str, Any] = {}
    for row in sent:  # oldest first: what is true in the end stands last
        params = json.loads(row.params)
        if row.mapping == "grades-to-hubspot":
            newest[params["key"]] = params["properties"]["last_grade"]
        elif row.mapping == "revoked-grades-to-hubspot":
            newest[params["key"]] = None
    grades = {contact.get("bridge_person_key"): contact.get("last_grade") or None for contact in contacts}
    several = Counter(json.loads(row.params)["key"] for row in sent if "grades" in row.mapping)
    once = {key: grade for key, grade in newest.items() if several[key] == 1 and key in wanted}
    assert once
    assert {key: grades[key] for key in once} == once

    notes = held["records"].get("notes", {})
    certificates = sum(row.mapping == "certificates-to-hubspot" for row in sent)
    assert certificates > 5
    assert len(notes) == certificates
