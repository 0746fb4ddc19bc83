"""`campusbridge check`: everything that can be known to be wrong before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.config.configuration import read_configuration
from bridge.config.mappings import loader, mapping_files, read_mapping
from bridge.config.values import Configuration
from bridge.core.errors import Problem
from bridge.core.manifest import SourceConnector, TargetConnector


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingReport:
    """One mapping file: how many tests it holds, and what is wrong with it, its failed tests included."""

    name: str
    file: Path
    tests: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All of a bridge.yaml and its mappings. `mappings` is empty when bridge.yaml itself cannot be used."""

    configuration: Configuration | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
    mappings: tuple[MappingReport, ...] = ()

    @property
    def all_problems(self) -> tuple[Problem, ...]:
        return self.problems + tuple(problem for mapping in self.mappings for problem in mapping.problems)

    @property
    def ok(self) -> bool:
        return not self.all_problems


def check(
    path: Path,
    *,
    sources: Mapping[str, SourceConnector],
    targets: Mapping[str, TargetConnector],
    environ: Mapping[str, str] | None = None,
) -> CheckReport:
    """Every problem of a bridge.yaml, of each mapping in its folder, and of the tests inside the mappings."""
    reading = read_configuration(path, sources=sources, targets=targets, environ=environ)
    if reading.configuration is None:
        return CheckReport(configuration=None, problems=reading.problems, warnings=reading.warnings)
    configuration = reading.configuration
    load = loader(configuration, sources, targets)
    warnings = list(reading.warnings)
    problems: list[Problem] = []
    files: dict[str, Path] = {}
    folder = str(configuration.mappings)
    try:
        files = mapping_files(configuration.mappings)
    except FileNotFoundError:
        message = "there is no such folder: events are kept, and nothing is delivered"
        warnings.append(Problem(file=folder, line=None, where="mappings", message=message))
    except OSError as error:
        message = f"the folder cannot be read: {error.strerror}"
        problems.append(Problem(file=folder, line=None, where="mappings", message=message))
    loaded = {name: read_mapping(name, file, load)[0] for name, file in files.items()}
    if reading.document is not None and all(entry.mapping is not None for entry in loaded.values()):
        used = {entry.mapping.target for entry in loaded.values() if entry.mapping is not None}
        for name in configuration.targets.keys() - used if files else ():
            warnings.append(reading.document.problem(("targets", name), "no mapping delivers to this target"))
    return CheckReport(
        configuration=configuration,
        problems=tuple(problems),
        warnings=tuple(warnings),
        mappings=tuple(
            MappingReport(name=name, file=files[name], tests=entry.tests, problems=entry.problems)
            for name, entry in loaded.items()
        ),
    )
