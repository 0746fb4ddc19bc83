"""First stage: prove that a request is genuine, and decide what has to be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bridge.core.manifest import SourceConnector
from bridge.core.settings import Settings
from bridge.core.source import Challenge, Inbound, Verified

_NEVER_KEPT = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})


def verify(connector: SourceConnector, inbound: Inbound, settings: Settings) -> Verified | Challenge:
    """What the connector says of the raw request. Raises NotGenuine; nothing is parsed before this returns.

    From what is kept, headers and query values that hold a secret are taken out.
    """
    result = connector.code.verify(inbound, settings)
    if isinstance(result, Challenge):
        return replace(result, keep=_without_secrets(result.keep, settings)) if result.keep else result
    return _without_secrets(result, settings)


def _without_secrets(verified: Verified, settings: Settings) -> Verified:
    secrets = [secret for secret in settings.secrets if secret]
    token = settings.options.get("url_token")
    if isinstance(token, str) and token:
        secrets.append(token)

    def harmless(values: Mapping[str, str]) -> dict[str, str]:
        return {
            name: value
            for name, value in values.items()
            if name not in _NEVER_KEPT and not any(secret in value for secret in secrets)
        }

    inbound = verified.inbound
    headers, query = harmless(inbound.headers), harmless(inbound.query)
    if len(headers) == len(inbound.headers) and len(query) == len(inbound.query):
        return verified
    return replace(verified, inbound=replace(inbound, headers=headers, query=query))
