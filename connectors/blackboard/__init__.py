"""Blackboard Learn: users, enrolments and grades over its REST API."""
