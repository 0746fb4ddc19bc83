"""A Brightspace site and its authorisation server: refresh tokens that are good once, credits, grades with comments.

docs.valence.desire2learn.com; community.d2l.com, articles 1191, 1195 and 1196. What happens when an old refresh token
comes again is not documented; here the whole family is revoked, as RFC 9700 section 4.14.2 asks.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

CLIENT: Final = "client-1"
SECRET: Final = "client-secret"
FIRST_REFRESH_TOKEN: Final = "refresh-0"
SERVICE_USER: Final = "service-user-1"
_FORBIDDEN_IN_NAMES: Final = set('/"*<>+=|,%')
_FIELDS: Final = {1: "PointsNumerator", 2: "Pass", 3: "Value", 4: "Text"}
_ROUTE: Final = re.compile(r"/d2l/api/(?P<product>lp|le)/(?P<version>[^/]+)/(?P<rest>.*)")
_GRADES: Final = re.compile(r"(?P<course>\d+)/grades/(?:(?P<item>\d+)(?:/values/(?P<user>\d+))?)?")
_ENROLMENT: Final = re.compile(r"enrollments/users/(?P<user>\d+)/orgUnits/(?P<course>\d+)")


@cache
def service_key() -> RSAPrivateKey:
    """The service user's key, whose public half the site has from its key set."""
    return generate_private_key(public_exponent=65537, key_size=2048)


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
        self._refresh: str | None = FIRST_REFRESH_TOKEN
        self._refreshed = 0
        self._tokens: set[str] = set()
        self._assertions: set[str] = set()

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
            return self._token(call)
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
            problem = {"type": "about:blank", "title": refused.message, "status": refused.status}
            return ApiReply(status=refused.status, json=problem, headers=headers)
        if document is None:
            return ApiReply(text="", headers=headers)
        return ApiReply(json=document, headers=headers)

    def _token(self, call: ApiCall) -> ApiReply:
        refused = ApiReply(status=400, json={"error": "invalid_grant"})
        if call.form.get("grant_type") == "client_credentials":
            if not self._asserted(call):
                return ApiReply(status=400, json={"error": "invalid_client"})
            return ApiReply(json=self._granted())
        known = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if call.headers.get("authorization") != known:
            return ApiReply(status=400, json={"error": "invalid_client"})
        if self._refresh is None or call.form.get("refresh_token") != self._refresh:
            self._refresh = None
            self._tokens.clear()
            return refused
        self._refreshed += 1
        self._refresh = f"refresh-{self._refreshed}"
        return ApiReply(json={**self._granted(), "refresh_token": self._refresh})

    def _granted(self) -> Json:
        token = f"token-{len(self._tokens) + 1}-{self._refreshed}"
        self._tokens.add(token)
        return {"access_token": token, "token_type": "Bearer", "expires_in": 3600}

    def _asserted(self, call: ApiCall) -> bool:
        try:
            claims = jwt.decode(
                call.form["client_assertion"],
                service_key().public_key(),
                algorithms=["RS256"],
                audience=f"http://{call.headers['host']}{call.path}",
                options={"require": ["iss", "sub", "aud", "exp", "jti"]},
            )
        except (jwt.PyJWTError, KeyError):
            return False
        fresh = claims["jti"] not in self._assertions
        self._assertions.add(claims["jti"])
        return bool(fresh and claims["iss"] == claims["sub"] == SERVICE_USER)

    def _served(self, call: ApiCall) -> Any:
        if call.headers.get("authorization", "").removeprefix("Bearer ") not in self._tokens:
            raise Refused(401, "Unauthorized")
        route = _ROUTE.fullmatch(call.path)
        if route is None or route["version"] not in self.versions[route["product"]]:
            raise Refused(404, "Not Found")
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
        return [user for user in self.users.values() if user["OrgDefinedId"] == query.get("orgDefinedId")]

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
        return self.values[key]

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
        if field is None or field not in body:
            raise Refused(400, "Bad Request")
        texts = {name: _rich(body[name]) for name in ("Comments", "PrivateComments")}
        self.values[key] = {"GradeObjectType": body["GradeObjectType"], field: body[field], **texts}


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
        "auth": {
            "kind": "oauth2_refresh_token",
            "token_url": f"{url}/core/connect/token",
            "client_id": CLIENT,
            "client_secret": SECRET,
            "refresh_token": FIRST_REFRESH_TOKEN,
        },
    }


def service_user_settings(url: str) -> Json:
    """The same for a service user."""
    pem = service_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    auth = {
        "kind": "oauth2_client_assertion",
        "token_url": f"{url}/core/connect/token",
        "client_id": SERVICE_USER,
        "private_key": pem,
    }
    return settings(url) | {"auth": auth}
