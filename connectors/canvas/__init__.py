"""Canvas LMS: enrolments, people, grades and comments over its REST API."""
