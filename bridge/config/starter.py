"""What `campusbridge init` writes: a bridge.yaml and a first mapping that explain themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from bridge.config.schema import editor_schema, mapping_schema
from bridge.core.manifest import SourceConnector, TargetConnector

FILES: Final = ("bridge.yaml", "mappings/first.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The files that `init` made, and those that were there already and were left as they are."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]


def write_starter(
    folder: Path, *, sources: Mapping[str, SourceConnector], targets: Mapping[str, TargetConnector]
) -> Written:
    """Write the starter files into a folder, which is made if need be. No file is ever overwritten.

    The two schemas that editors complete from are the exception: they follow the connectors that are installed.
    """
    written: list[Path] = []
    kept: list[Path] = []
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = resources.files("bridge.config").joinpath("starter_files", name).read_text("utf-8")
        try:
            with path.open("x", encoding="utf-8") as stream:
                stream.write(text)
        except FileExistsError:
            kept.append(path)
        else:
            written.append(path)
    written += write_schemas(folder, sources=sources, targets=targets)
    return Written(written=tuple(written), kept=tuple(kept))


def write_schemas(
    folder: Path, *, sources: Mapping[str, SourceConnector], targets: Mapping[str, TargetConnector]
) -> list[Path]:
    """Write `schemas/bridge.schema.json` and `schemas/mapping.schema.json`, which the first lines of the files name."""
    schemas = folder / "schemas"
    schemas.mkdir(parents=True, exist_ok=True)
    contents = {"bridge": editor_schema(sources, targets), "mapping": mapping_schema()}
    paths = []
    for name, schema in contents.items():
        path = schemas / f"{name}.schema.json"
        path.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", "utf-8")
        paths.append(path)
    return paths
