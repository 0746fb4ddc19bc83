"""The connectors: one line each. mypy checks every module against its protocol."""

from __future__ import annotations

from typing import Final

from bridge.core.contracts import Simulator, Source, Target
from connectors.cloudevents import target as cloudevents
from connectors.edusign import simulator as edusign_simulator
from connectors.edusign import source as edusign
from connectors.http import target as http
from connectors.inspera import simulator as inspera_simulator
from connectors.inspera import source as inspera
from connectors.webhook import target as webhook
from connectors.wise import simulator as wise_simulator
from connectors.wise import source as wise
from connectors.wiseflow import simulator as wiseflow_simulator
from connectors.wiseflow import source as wiseflow

SOURCES: Final[dict[str, tuple[Source, Simulator]]] = {
    "edusign": (edusign, edusign_simulator),
    "inspera": (inspera, inspera_simulator),
    "wise": (wise, wise_simulator),
    "wiseflow": (wiseflow, wiseflow_simulator),
}

TARGETS: Final[dict[str, Target]] = {
    "cloudevents": cloudevents,
    "http": http,
    "webhook": webhook,
}

DECLARED_TARGETS: Final = ("make", "n8n", "pabbly", "power_automate", "zapier")
"""Targets made of their manifests alone."""
