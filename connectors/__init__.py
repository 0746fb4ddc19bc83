"""The connectors: one line each. mypy checks every module against its protocol."""

from __future__ import annotations

from typing import Final

from bridge.core.simulation import Simulator, TargetSimulator
from bridge.core.source import Source
from bridge.core.target import Target
from connectors.blackboard import simulator as blackboard_simulator
from connectors.blackboard import target as blackboard
from connectors.brightspace import simulator as brightspace_simulator
from connectors.brightspace import target as brightspace
from connectors.caliper import simulator as caliper_simulator
from connectors.caliper import target as caliper
from connectors.canvas import simulator as canvas_simulator
from connectors.canvas import target as canvas
from connectors.cloudevents import simulator as cloudevents_simulator
from connectors.cloudevents import target as cloudevents
from connectors.dataverse import simulator as dataverse_simulator
from connectors.dataverse import target as dataverse
from connectors.edusign import simulator as edusign_simulator
from connectors.edusign import source as edusign
from connectors.email import target as email
from connectors.http import simulator as http_simulator
from connectors.http import target as http
from connectors.hubspot import simulator as hubspot_simulator
from connectors.hubspot import target as hubspot
from connectors.inspera import simulator as inspera_simulator
from connectors.inspera import source as inspera
from connectors.lti_ags import simulator as lti_ags_simulator
from connectors.lti_ags import target as lti_ags
from connectors.make import simulator as make_simulator
from connectors.moodle import simulator as moodle_simulator
from connectors.moodle import target as moodle
from connectors.n8n import simulator as n8n_simulator
from connectors.oneroster import simulator as oneroster_simulator
from connectors.pabbly import simulator as pabbly_simulator
from connectors.pipedrive import simulator as pipedrive_simulator
from connectors.pipedrive import target as pipedrive
from connectors.power_automate import simulator as power_automate_simulator
from connectors.salesforce import simulator as salesforce_simulator
from connectors.salesforce import target as salesforce
from connectors.slack import simulator as slack_simulator
from connectors.teams import simulator as teams_simulator
from connectors.teams import target as teams
from connectors.webhook import simulator as webhook_simulator
from connectors.webhook import target as webhook
from connectors.wise import simulator as wise_simulator
from connectors.wise import source as wise
from connectors.wiseflow import simulator as wiseflow_simulator
from connectors.wiseflow import source as wiseflow
from connectors.xapi import simulator as xapi_simulator
from connectors.xapi import target as xapi
from connectors.zapier import simulator as zapier_simulator
from connectors.zoho import simulator as zoho_simulator
from connectors.zoho import target as zoho

SOURCES: Final[dict[str, tuple[Source, Simulator]]] = {
    "edusign": (edusign, edusign_simulator),
    "inspera": (inspera, inspera_simulator),
    "wise": (wise, wise_simulator),
    "wiseflow": (wiseflow, wiseflow_simulator),
}

TARGETS: Final[dict[str, tuple[Target | None, TargetSimulator | None]]] = {
    "canvas": (canvas, canvas_simulator),
    "blackboard": (blackboard, blackboard_simulator),
    "brightspace": (brightspace, brightspace_simulator),
    "caliper": (caliper, caliper_simulator),
    "cloudevents": (cloudevents, cloudevents_simulator),
    "dataverse": (dataverse, dataverse_simulator),
    "email": (email, None),
    "http": (http, http_simulator),
    "hubspot": (hubspot, hubspot_simulator),
    "lti_ags": (lti_ags, lti_ags_simulator),
    "make": (None, make_simulator),
    "moodle": (moodle, moodle_simulator),
    "n8n": (None, n8n_simulator),
    "oneroster": (None, oneroster_simulator),
    "pabbly": (None, pabbly_simulator),
    "pipedrive": (pipedrive, pipedrive_simulator),
    "power_automate": (None, power_automate_simulator),
    "salesforce": (salesforce, salesforce_simulator),
    "slack": (None, slack_simulator),
    "teams": (teams, teams_simulator),
    "webhook": (webhook, webhook_simulator),
    "xapi": (xapi, xapi_simulator),
    "zapier": (None, zapier_simulator),
    "zoho": (zoho, zoho_simulator),
}
"""Those without code are made of their manifests alone."""
