"""A certificate authority of its own for tests, made with the openssl command."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


class Authority:
    """An authority in a folder; `bundle` is what those have who believe it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bundle = folder / "ca.pem"
        _openssl(folder, "req", "-x509", *_KEY, "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")

    def issue(self, name: str, *, days: int = 2, file: str | None = None) -> tuple[Path, Path]:
        """Files of a certificate for a name, and its key; negative days give one that is over."""
        stem = file or name
        _openssl(self._folder, "req", *_KEY, "-keyout", f"{stem}.key", "-out", f"{stem}.csr", "-subj", f"/CN={name}")
        (self._folder / f"{stem}.ext").write_text(f"subjectAltName=DNS:{name}\n")
        _openssl(
            self._folder, "x509", "-req", "-in", f"{stem}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", str(days), "-extfile", f"{stem}.ext", "-out", f"{stem}.pem",
        )  # fmt: skip
        return self._folder / f"{stem}.pem", self._folder / f"{stem}.key"

    def server(self, certificate: tuple[Path, Path], *, wants_client: bool = False) -> ssl.SSLContext:
        """What a server with a certificate needs; one that wants the client's believes this authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cafile=self.bundle)
        return context
