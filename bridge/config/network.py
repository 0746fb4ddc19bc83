"""What bridge.yaml says about outgoing calls: addresses that would be refused are refused here, before any call.

Names are not looked up: a file must not be right today and wrong tomorrow because of somebody's DNS. What a name leads
to is judged when a connection is opened.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge.config.documents import Document, Steps
from bridge.config.schema import bridge_schema, source_schema, target_schema
from bridge.core.errors import Problem
from bridge.core.manifest import SourceConnector, TargetConnector
from bridge.flow.network import NetworkPolicy, Proxy, Refused, Transport, check_destination, check_mail_server


def network_problems(
    document: Document,
    value: Mapping[str, Any],
    folder: Path,
    sources: Mapping[str, SourceConnector],
    targets: Mapping[str, TargetConnector],
) -> Iterator[Problem]:
    """Addresses that no call could go to as things are allowed, and TLS files that cannot be used.

    `value` must have the right shape; relative paths begin at `folder`.
    """
    network = value.get("network", {})
    policy = policy_of(network)
    for steps, schema, entry in _parts(value, sources, targets):
        for place, url in called(schema, entry, steps):
            if (refusal := refused(url, policy)) is not None:
                message = f"calls to this address would be refused: it {refusal.reason}"
                yield document.problem(place, message, refusal.hint)
        yield from _unusable_files(document, steps, entry, folder)


def policy_of(network: Mapping[str, Any]) -> NetworkPolicy:
    """The permissions in the section `network`."""
    return NetworkPolicy(
        allow_hosts=frozenset(network.get("allow_hosts", ())), allow_private=network.get("allow_private", False)
    )


def refused(url: str, policy: NetworkPolicy) -> Refused | None:
    """Why no call could go to a URL, as far as the URL tells."""
    try:
        if url.startswith(("smtp://", "smtps://")):
            check_mail_server(url, policy)
        else:
            check_destination(url, policy)
    except Refused as refusal:
        return refusal
    return None


def transport_of(entry: Mapping[str, Any], network: Mapping[str, Any], folder: Path) -> Transport:
    """The road of one source or target: its own settings, null among them, and else those of `network`."""
    proxy, bundle, client = (
        entry[key] if key in entry else network.get(key) for key in ("proxy", "ca_bundle", "client_certificate")
    )
    key = client.get("key") if client else None
    return Transport(
        proxy=Proxy(url=proxy["url"], username=proxy.get("username"), password=proxy.get("password"))
        if proxy
        else None,
        ca_bundle=folder / bundle if bundle else None,
        certificate=folder / client["certificate"] if client else None,
        key=folder / key if key else None,
    )


def called(schema: Mapping[str, Any], value: Any, steps: Steps) -> Iterator[tuple[Steps, str]]:
    """Every setting inside a value that is an address to call, with the way to it.

    That is one whose schema says `x-url: true`, `format: uri` or a pattern of http(s) addresses, or that is called
    `url` or `…_url`; `x-url: false` says that it is none.
    """
    return _called([schema], value, steps)


def _called(schemas: Sequence[Mapping[str, Any]], value: Any, steps: Steps) -> Iterator[tuple[Steps, str]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        about = [inner for schema in schemas for inner in _inside(schema, key)]
        if not isinstance(entry, str):
            yield from _called(about, entry, (*steps, key))
        elif _is_called(key, about):
            yield (*steps, key), entry


def _inside(schema: Mapping[str, Any], key: str | int) -> Iterator[Mapping[str, Any]]:
    """What a schema, or any of its branches, says about a key or about the entries of a list."""
    found = schema.get("items") if isinstance(key, int) else schema.get("properties", {}).get(key)
    if isinstance(found, Mapping):
        yield found
    for branch in (*schema.get("oneOf", ()), *schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from _inside(branch, key)


def _is_called(key: str | int, about: Sequence[Mapping[str, Any]]) -> bool:
    said = [schema["x-url"] for schema in about if "x-url" in schema]
    if said:
        return any(said)
    named = isinstance(key, str) and (key == "url" or key.endswith("_url"))
    return any(
        named or schema.get("format") == "uri" or str(schema.get("pattern", "")).startswith(("^https?:", "^https:"))
        for schema in about
    )


def _parts(
    value: Mapping[str, Any], sources: Mapping[str, SourceConnector], targets: Mapping[str, TargetConnector]
) -> Iterator[tuple[Steps, Mapping[str, Any], Mapping[str, Any]]]:
    """The section `network` and all sources and targets, each with its schema."""
    yield ("network",), bridge_schema()["properties"]["network"], value.get("network", {})
    for name, entry in value["sources"].items():
        yield ("sources", name), source_schema(sources[entry["connector"]]), entry
    for name, entry in value.get("targets", {}).items():
        yield ("targets", name), target_schema(targets[entry["connector"]]), entry


def _unusable_files(document: Document, steps: Steps, entry: Mapping[str, Any], folder: Path) -> Iterator[Problem]:
    files = transport_of(entry, {}, folder)
    if files.ca_bundle is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=files.ca_bundle)
        except OSError as error:
            hint = "certificates of authorities as PEM, one after the other"
            yield document.problem((*steps, "ca_bundle"), _why(error), hint)
    if files.certificate is not None:
        try:
            # An empty passphrase, so that nobody is asked for one.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(files.certificate, files.key, password=bytes)
        except OSError as error:
            hint = "certificate and key as PEM, the key without a passphrase and belonging to the certificate"
            yield document.problem((*steps, "client_certificate"), _why(error), hint)


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "the file does not hold what is needed"
    return f"the file cannot be read: {error.strerror}"
