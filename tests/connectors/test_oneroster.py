"""OneRoster's simulated gradebook takes what the binding's schemas take, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.core.simulation import ApiCall
from connectors.oneroster import simulator

_RESULT: dict[str, Any] = {
    "sourcedId": "r-1",
    "status": "active",
    "dateLastModified": "2026-06-05T09:30:00.000Z",
    "lineItem": {"href": "https://sis.example.org/lineItems/exam-1", "sourcedId": "exam-1", "type": "lineItem"},
    "student": {"href": "https://sis.example.org/users/S-100", "sourcedId": "S-100", "type": "user"},
    "scoreStatus": "fully graded",
    "scoreDate": "2026-06-05",
}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 201),
        ({"score": 83.5, "scoreStatus": "ext:provisional"}, 201),
        ({"class": {"href": "https://sis.example.org/classes/c", "sourcedId": "c", "type": "class"}}, 201),
        ({"class": {"href": "https://sis.example.org/classes/c", "sourcedId": "c", "type": "org"}}, 422),
        ({"class": "c"}, 422),
        ({"score": "83.5"}, 422),
        ({"scoreStatus": "fullygraded"}, 422),
        ({"scoreDate": "2026-06-05T09:30:00.000Z"}, 422),
        ({"dateLastModified": "2026-06-05"}, 422),
        ({"points": 1}, 422),
        ({"sourcedId": "r-2"}, 422),
    ],
)
def test_a_result_is_of_the_bindings_shape_or_refused(change: dict[str, Any], status: int) -> None:
    call = ApiCall(
        method="PUT",
        path="/ims/oneroster/gradebook/v1p2/results/r-1",
        query={},
        headers={"authorization": "Bearer oneroster-token", "content-type": "application/json"},
        json={"result": {**_RESULT, **change}},
        form={},
    )
    assert simulator.target().answer(call).status == status
