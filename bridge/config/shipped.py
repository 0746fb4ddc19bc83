"""Where the mappings are that come with the package."""

from __future__ import annotations

from pathlib import Path

import bridge


def shipped_mappings() -> Path:
    """The folder of shipped mappings: inside an installed package, or at the top of a checkout."""
    package = Path(bridge.__file__).parent
    installed = package / "shipped" / "mappings"
    return installed if installed.is_dir() else package.parent / "mappings"
