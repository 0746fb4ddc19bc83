"""What no schema can say about a bridge.yaml: keys that contradict each other, and what is allowed but looks wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from bridge.config.documents import Document, Steps
from bridge.config.network import policy_of, refused
from bridge.config.references import Resolved
from bridge.config.schema import secret_names
from bridge.config.validation import with_defaults
from bridge.core.errors import Problem
from bridge.core.manifest import SourceConnector, TargetConnector

_MAX_PORT: Final = 65535
_TELLING: Final = re.compile(r"auth|cookie|key|passw|secret|token", re.IGNORECASE)


def unsound(document: Document, value: Mapping[str, Any], sources: Mapping[str, SourceConnector]) -> Iterator[Problem]:
    """Contradictions in a document that its schemas let pass."""
    storage = value.get("storage", {})
    if value.get("accept") == "ledger" and storage.get("database", "sqlite:").startswith("sqlite:"):
        hint = "set storage.database to postgresql://…, or accept to journal"
        yield document.problem(("accept",), "ledger needs PostgreSQL", hint)
    for key in ("database", "redis"):
        if not _readable(storage.get(key, "")):
            yield document.problem(("storage", key), "not a URL", "special characters in a password are %-encoded")
    if int(value.get("web", {}).get("bind", ":0").rpartition(":")[2]) > _MAX_PORT:
        yield document.problem(("web", "bind"), f"expected a port up to {_MAX_PORT}")
    general = value.get("retry", {})
    places: list[tuple[Steps, Mapping[str, Any]]] = [(("retry",), general)]
    for name, target in value.get("targets", {}).items():
        if "retry" in target:
            places.append((("targets", name, "retry"), {**general, **target["retry"]}))
    for steps, retry in places:
        if retry.get("first_delay_seconds", 5) > retry.get("max_delay_seconds", 3600):
            yield document.problem(steps, "first_delay_seconds is longer than max_delay_seconds")
    for name, entry in value["sources"].items():
        yield from _unproven(document, name, entry, sources[entry["connector"]])


def _unproven(document: Document, name: str, entry: Mapping[str, Any], connector: SourceConnector) -> Iterator[Problem]:
    """A source that could prove nothing genuine: no secret, or no token where a token is the proof."""
    steps: Steps = ("sources", name)
    given = {key: entry[key] for key in connector.manifest.options["properties"] if key in entry}
    options = with_defaults(connector.manifest.options, given)
    mode = options.get("mode")
    if mode in ("url_token", "both") and not options.get("url_token"):
        place = (*steps, "mode")
        yield document.problem(
            place, f"the mode {mode} needs a url_token", "url_token: ${NAME}, at least 16 characters"
        )
    if not entry.get("secrets") and mode != "url_token":
        hint = f'secrets: ["${{{name.upper().replace("-", "_")}_SECRET}}"]'
        yield document.problem(steps, "a source needs at least one secret", hint)
    for position, secret in enumerate(entry.get("secrets", ())):
        if not secret.strip():
            yield document.problem((*steps, "secrets", position), "a secret must not be empty")


def doubts(
    document: Document,
    resolved: Resolved,
    sources: Mapping[str, SourceConnector],
    targets: Mapping[str, TargetConnector],
) -> list[Problem]:
    """Warnings: the bridge starts with these, but somebody should look."""
    found: list[Problem] = []
    for steps, text in _secret_places(resolved.value, sources, targets):
        if steps not in resolved.referred:
            hint = "put it into an environment variable and write ${NAME}, or into a file and write ${file:/path}"
            found.append(document.problem(steps, "a secret is written out in this file", hint))
        if text != text.strip():
            found.append(document.problem(steps, "a secret begins or ends with a blank"))
    policy = policy_of(resolved.value.get("network", {}))
    for steps, text in _texts(resolved.value):
        if steps[0] in ("sources", "targets") and text.startswith(("http://", "https://")):
            refusal = refused(text, policy)
            if refusal is not None:
                message = f"if this is an address to call, calls will be refused: it {refusal.reason}"
                found.append(document.problem(steps, message, refusal.hint))
    return found


def _secret_places(
    value: Mapping[str, Any], sources: Mapping[str, SourceConnector], targets: Mapping[str, TargetConnector]
) -> Iterator[tuple[Steps, str]]:
    """Every text that is a secret by its place, and URLs of storage that hold a password."""
    for name, entry in value["sources"].items():
        manifest = sources[entry["connector"]].manifest
        for position, secret in enumerate(entry.get("secrets", ())):
            yield ("sources", name, "secrets", position), secret
        yield from _marked(("sources", name), entry, manifest.options)
        if manifest.api is not None:
            yield from _marked(("sources", name, "api"), entry.get("api", {}), manifest.api)
    for name, entry in value.get("targets", {}).items():
        yield from _marked(("targets", name), entry, targets[entry["connector"]].manifest.options)
    proxies = [((*steps, "proxy"), entry.get("proxy")) for steps, entry in _with_roads(value)]
    for steps, proxy in proxies:
        if proxy and proxy.get("password"):
            yield (*steps, "password"), proxy["password"]
    for key, url in value.get("storage", {}).items():
        if "://" in url and urlsplit(url).password:
            yield ("storage", key), url


def _with_roads(value: Mapping[str, Any]) -> Iterator[tuple[Steps, Mapping[str, Any]]]:
    yield ("network",), value.get("network", {})
    for section in ("sources", "targets"):
        for name, entry in value.get(section, {}).items():
            yield (section, name), entry


def _marked(steps: Steps, entry: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[Steps, str]]:
    """The texts of settings that their schema marks `secret: true`.

    Of a setting that holds several things, those count that are marked themselves; of free keys (headers, say) those
    whose name tells.
    """
    for key, about in schema.get("properties", {}).items():
        if about.get("secret") is not True or key not in entry:
            continue
        inner = secret_names(about)
        for place, text in _texts(entry[key], (*steps, key)):
            name = str(place[-1])
            if not isinstance(entry[key], dict) or (name in inner if inner else _TELLING.search(name)):
                yield place, text


def _texts(value: Any, steps: Steps = ()) -> Iterator[tuple[Steps, str]]:
    """Every text inside a value, with the way to it."""
    if isinstance(value, str):
        yield steps, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _texts(entry, (*steps, key))
    elif isinstance(value, list):
        for position, entry in enumerate(value):
            yield from _texts(entry, (*steps, position))


def _readable(url: str) -> bool:
    try:
        port = urlsplit(url).port
    except ValueError:
        return False
    return port is None or port > 0
