"""LTI 1.3 Advantage: Assignment and Grade Services 2.0."""
