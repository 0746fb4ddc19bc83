"""The two proofs of Edusign: the app's HMAC over the body, and the token in a school webhook's URL."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.core.errors import PayloadError
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import Encoding, decode, matching_secret, matching_text
from bridge.core.source import Inbound
from connectors.edusign.stringify import stringify


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Whether one proof holds; `words` say how it was made or, where it fails, are the slug of the refusal."""

    holds: bool
    words: str


def signature_proof(inbound: Inbound, settings: Settings) -> Proof:
    """`x-edusign-hmac` is the HMAC of the body with the app's Client Secret.

    Only ever a stored secret is used. The vendor's sample receiver takes `client_secret` from the request's body where
    there is one (github.com/Edusign/app-boilerplate, src/middlewares/hmacValidator.ts), so anybody could sign.
    """
    options = settings.options
    if not settings.secrets:
        return Proof(holds=False, words="no_secret")
    name = options["signature_header"].lower()
    given = inbound.headers.get(name, "")
    if not given.strip():
        return Proof(holds=False, words="signature_missing")
    encodings: tuple[Encoding, ...] = ("hex", "base64") if options["encoding"] == "auto" else (options["encoding"],)
    algorithm = options["algorithm"]
    lengths = {"sha1": 20, "sha256": 32, "sha512": 64}
    for encoding in encodings:
        if len(decode(given, encoding) or b"") != lengths[algorithm]:
            continue
        forms = {"": inbound.body, ", body re-serialised": _as_signed(inbound, settings)}
        for note, message in forms.items():
            found = matching_secret(settings.secrets, message, given, algorithm=algorithm, encoding=encoding)
            if found is not None:
                return Proof(holds=True, words=f"secret {found}, hmac-{algorithm} {encoding} in header {name}{note}")
    return Proof(holds=False, words="signature_mismatch")


def token_proof(inbound: Inbound, settings: Settings) -> Proof:
    """A school's webhook is an URL with `?token=…`, and nothing is signed (github.com/Edusign/moodle-mod_edusign)."""
    options = settings.options
    if not options["url_token"]:
        return Proof(holds=False, words="no_secret")
    given = inbound.query.get(options["token_parameter"], "")
    if not given:
        return Proof(holds=False, words="token_missing")
    if matching_text([options["url_token"]], given) is None:
        return Proof(holds=False, words="token_mismatch")
    return Proof(holds=True, words=f"token in the URL's {options['token_parameter']}")


def _as_signed(inbound: Inbound, settings: Settings) -> bytes:
    """The body as the platform printed it before something on the way laid it out anew.

    This parses before anything is proven. It is bounded: the hub caps a body's size, Payload.parse its depth; parsing
    and printing are linear, nothing is kept, and the outcome is only fed to the same HMAC.
    """
    if not settings.options["canonicalise_fallback"]:
        return inbound.body
    try:
        return stringify(Payload.parse(inbound.body).value)
    except PayloadError:
        return inbound.body
