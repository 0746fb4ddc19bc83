"""E-mail over SMTP: the message as RFC 5322 has it; see bridge/outbound/mail.py for the conversation with the server.

- SMTP knows no repeats. The Message-ID is made of the message's key, so that receivers may notice one; few do.
- Answering machines answer whatever does not say that a machine wrote it: Auto-Submitted (RFC 3834) is for most,
  X-Auto-Response-Suppress for Exchange, Precedence for the old ones.
- A line break in a header is the beginning of another header: text from an event that has one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Any, Final

from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Message, Request

_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")

# Quoted-printable or base64: 8BITMIME is an extension that a server need not have.
_POLICY: Final = SMTP.clone(cte_type="7bit")


def prepare(message: Message, settings: Settings) -> Request:
    """The mail and its envelope. Raises TargetError."""
    options, params = settings.options, message.params
    sender = _mailbox(options["from"], "from")
    recipients = _recipients(params.get("to") or options.get("to") or (), options)
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = sender
    mail["To"] = [Address(addr_spec=recipient) for recipient in recipients]
    if options.get("reply_to"):
        mail["Reply-To"] = _mailbox(options["reply_to"], "reply_to")
    mail["Subject"] = _line(params["subject"], "subject")
    mail["Date"] = format_datetime(message.sent_at)
    mail["Message-ID"] = f"<{message.key}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    mail["Precedence"] = "bulk"
    try:
        mail.set_content(params["text"])
        if params.get("html"):
            mail.add_alternative(params["html"], subtype="html")
            mail.set_boundary(f"={message.key}=")
        body = mail.as_bytes()
    except UnicodeError:
        raise TargetError("text: expected what UTF-8 can hold") from None
    return Request(
        method="MAIL",
        url=options["url"],
        headers={"Mail-From": sender.addr_spec, "Rcpt-To": ",".join(recipients)},
        body=body,
    )


def _recipients(given: str | Iterable[str], options: Mapping[str, Any]) -> list[str]:
    addresses = [_addr_spec(entry, "to") for entry in ([given] if isinstance(given, str) else given)]
    found = list(dict.fromkeys(addresses))
    if not found:
        raise TargetError("to: expected an address, in the mapping or in the target's settings")
    if len(found) > options.get("most_recipients", len(found)):
        raise TargetError("to: more addresses than most_recipients")
    domains = options.get("domains")
    if domains and not {address.rpartition("@")[2].lower() for address in found} <= set(map(str.lower, domains)):
        raise TargetError("to: an address outside of the setting domains")
    return found


def _mailbox(text: str, where: str) -> Address:
    """`Name <name@example.org>`, or the address alone."""
    name, address = parseaddr(_line(text, where))
    return Address(display_name=name, addr_spec=_addr_spec(address, where))


def _addr_spec(text: str, where: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise TargetError(f"{where}: expected an address of ASCII characters, as in name@example.org")
    return text


def _line(text: str, where: str) -> str:
    if _CONTROL.search(text):
        raise TargetError(f"{where}: expected one line without control characters")
    return text
