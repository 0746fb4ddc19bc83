"""A Brightspace site: courses, people, credits, and grades with comments.

docs.valence.desire2learn.com; community.d2l.com, articles 1191 and 1195.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply
from connectors.brightspace.simulated_login import Logins, application, scope_for, service_user

_FORBIDDEN_IN_NAMES: Final = set('/"*<>+=|,%')
_FIELDS: Final = {1: "PointsNumerator", 2: "Pass", 3: "Value", 4: "Text"}
_KINDS: Final = {"Numeric": 1, "PassFail": 2, "SelectBox": 3, "Text": 4}
_ROUTE: Final = re.compile(r"/d2l/api/(?P<product>lp|le)/(?P<version>[^/]+)/(?P<rest>.*)")
_GRADES: Final = re.compile(r"(?P<course>\d+)/grades/(?:(?P<item>\d+)(?:/values/(?P<user>\d+))?)?")
_ENROLMENT: Final = re.compile(r"enrollments/users/(?P<user>\d+)/orgUnits/(?P<course>\d+)")


class Refused(Exception):
    """An answer that is no 2xx."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message


class Brightspace:
    """`credits` are what is left of this minute's, ten a call; `retry_after` is how long a 429 asks to wait."""

    def __init__(self) -> None:
        self.credits = 50_000
        self.retry_after = 20
        self.versions = {"lp": ["1.53"], "le": ["1.80", "1.92"]}
        self.courses = {6606: "DM507-2026"}
        self.roles = {109, 110}
        self.users = {
            201: {"UserId": 201, "OrgDefinedId": "S-100", "UserName": "ada", "ExternalEmail": "ada@example.test"},
            202: {"UserId": 202, "OrgDefinedId": "S-101", "UserName": "grace", "ExternalEmail": "grace@example.test"},
            203: {"UserId": 203, "OrgDefinedId": "S-102", "UserName": "alan", "ExternalEmail": "alan@example.test"},
        }
        self.items: dict[int, Json] = {
            301: {"Id": 301, "Name": "Algorithms 2026", "GradeType": "Numeric", "MaxPoints": 100},
            302: {"Id": 302, "Name": "Passed", "GradeType": "PassFail", "MaxPoints": 1},
            303: {"Id": 303, "Name": "Letter", "GradeType": "SelectBox", "MaxPoints": 1},
        }
        self.values: dict[tuple[int, int], Json] = {}
        self._enrolments: dict[tuple[int, int], int] = {}
        self._logins = Logins()

    def effects(self) -> Json:
        """Enrolments (course/number: role), grade items by name, grades by item and number."""
        number = {user: entry["OrgDefinedId"] for user, entry in self.users.items()}
        return {
            "enrolments": {f"{course}/{number[user]}": role for (course, user), role in self._enrolments.items()},
            "items": [dict(item) for item in self.items.values()],
            "grades": {
                f"{self.items[item]['Name']}/{number[user]}": dict(value) for (item, user), value in self.values.items()
            },
        }

    def answer(self, call: ApiCall) -> ApiReply:
        if call.path == "/core/connect/token":
            return self._logins.token(call)
        if call.path == "/d2l/api/versions/":
            return ApiReply(json=[{"ProductCode": code, "SupportedVersions": v} for code, v in self.versions.items()])
        if self.credits < 10:
            return ApiReply(status=429, text="", headers={"Retry-After": str(self.retry_after)})
        self.credits -= 10
        headers = {
            "X-Request-Cost": "10",
            "X-Rate-Limit-Remaining": str(self.credits),
            "X-Rate-Limit-Reset": str(self.retry_after),
        }
        try:
            document = self._served(call)
        except Refused as refused:
            problem: Json = {"type": "about:blank", "title": refused.message, "status": refused.status}
            if refused.status == 404:  # community.d2l.com, article 1592
                problem = {"Errors": [{"Message": "Resource Not Found"}]}
            return ApiReply(status=refused.status, json=problem, headers=headers)
        if document is None:
            return ApiReply(text="", headers=headers)
        return ApiReply(json=document, headers=headers)

    def _served(self, call: ApiCall) -> Any:
        scopes = self._logins.scopes_of(call)
        if scopes is None:
            raise Refused(401, "Unauthorized")
        route = _ROUTE.fullmatch(call.path)
        if route is None or route["version"] not in self.versions[route["product"]]:
            raise Refused(404, "Not Found")
        if scope_for(call.method, f"{route['product']}/{route['rest']}") not in scopes:
            raise Refused(403, "Insufficient scope")
        if route["product"] == "le":
            return self._grades(call, route["rest"])
        if route["rest"] == "users/":
            return self._asked(call.query)
        if route["rest"] == "orgstructure/":
            wanted = call.query.get("exactOrgUnitCode")
            items = [{"Identifier": str(n), "Code": code} for n, code in self.courses.items() if code == wanted]
            return {"PagingInfo": {"HasMoreItems": False}, "Items": items}
        if route["rest"] == "enrollments/" and call.method == "POST":
            return self._enrolled(call.json)
        found = _ENROLMENT.fullmatch(route["rest"])
        if found is None or call.method != "DELETE":
            raise Refused(404, "Not Found")
        if self._enrolments.pop((int(found["course"]), int(found["user"])), None) is None:
            raise Refused(404, "Not Found")
        return None

    def _asked(self, query: Mapping[str, str]) -> Any:
        if "userName" in query:
            found = [user for user in self.users.values() if user["UserName"] == query["userName"]]
            if not found:
                raise Refused(404, "Not Found")
            return found[0]
        people = [user for user in self.users.values() if user["OrgDefinedId"] == query.get("orgDefinedId")]
        if not people:
            raise Refused(404, "Not Found")
        return people

    def _enrolled(self, body: Json) -> Any:
        known = body["OrgUnitId"] in self.courses and body["UserId"] in self.users and body["RoleId"] in self.roles
        if not known:
            raise Refused(404, "Not Found")
        self._enrolments[body["OrgUnitId"], body["UserId"]] = body["RoleId"]
        return {**body, "IsCascading": False}

    def _grades(self, call: ApiCall, rest: str) -> Any:
        found = _GRADES.fullmatch(rest)
        if found is None or int(found["course"]) not in self.courses:
            raise Refused(404, "Not Found")
        if found["item"] is None:
            return self._new_item(call.json) if call.method == "POST" else list(self.items.values())
        item = self.items.get(int(found["item"]))
        if item is None:
            raise Refused(404, "Not Found")
        if found["user"] is None:
            return item
        key = (item["Id"], int(found["user"]))
        if key[1] not in self.users:
            raise Refused(404, "Not Found")
        if call.method == "PUT":
            return self._written(key, call.json)
        if key not in self.values:
            raise Refused(404, "Not Found")
        return _shown(self.values[key], item)

    def _new_item(self, body: Json) -> Json:
        name = body["Name"]
        if not name or len(name) > 128 or _FORBIDDEN_IN_NAMES & set(name) or not body.get("MaxPoints"):
            raise Refused(400, "Bad Request")
        if any(item["Name"] == name for item in self.items.values()):
            raise Refused(400, "Name must be unique")
        number = 301 + len(self.items)
        self.items[number] = {**body, "Id": number}
        return self.items[number]

    def _written(self, key: tuple[int, int], body: Json) -> None:
        comments = [body.get(name) for name in ("Comments", "PrivateComments")]
        if not all(isinstance(comment, dict) and "Content" in comment and "Type" in comment for comment in comments):
            raise Refused(400, "Comments and PrivateComments are mandatory")
        field = _FIELDS.get(body.get("GradeObjectType", 0))
        if field is None or field not in body or _KINDS[self.items[key[0]]["GradeType"]] != body["GradeObjectType"]:
            raise Refused(400, "Bad Request")
        texts = {name: _rich(body[name]) for name in ("Comments", "PrivateComments")}
        self.values[key] = {"GradeObjectType": body["GradeObjectType"], field: body[field], **texts}


def _shown(value: Json, item: Json) -> Json:
    """A GradeValue, which has other fields than what was written (res/grade.html)."""
    kind = value["GradeObjectType"]
    given = value[_FIELDS[kind]]
    shown = {
        "DisplayedGrade": "" if given is None else str(given),
        "GradeObjectIdentifier": str(item["Id"]),
        "GradeObjectName": item["Name"],
        "GradeObjectType": kind,
        "GradeObjectTypeName": item["GradeType"],
        "Comments": value["Comments"],
        "PrivateComments": value["PrivateComments"],
    }
    if kind == 4:
        return shown
    points = given if kind == 1 or given is None else item["MaxPoints"] if given else 0
    return {**shown, "PointsNumerator": points, "PointsDenominator": item["MaxPoints"]}


def _rich(given: Json) -> Json:
    """A RichText of a RichTextInput."""
    if given["Type"] == "Html":
        return {"Text": re.sub(r"<[^>]*>", "", given["Content"]), "Html": given["Content"]}
    return {"Text": given["Content"], "Html": ""}


def target() -> Brightspace:
    """A site with one course, its grade items, and three people."""
    return Brightspace()


def settings(url: str) -> Json:
    """An application that has been authorised once."""
    return {
        "connector": "brightspace",
        "base_url": url,
        "roles": {"learner": 110, "instructor": 109},
        "auth": application(f"{url}/core/connect/token"),
    }


def service_user_settings(url: str) -> Json:
    """The same for a service user."""
    return settings(url) | {"auth": service_user(f"{url}/core/connect/token")}
