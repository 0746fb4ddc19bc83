"""`init`, `check`, `doctor`: from nothing to a bridge that is known to be right."""

from __future__ import annotations

import os
from pathlib import Path

import click
from redis.exceptions import RedisError

from bridge.cli.context import Context, as_json, pass_context
from bridge.cli.terminal import printable
from bridge.config.check import check as check_all
from bridge.config.starter import write_starter
from bridge.core.errors import Problem
from bridge.engine.assembly import journal_folder, redis_folder
from bridge.engine.redis_server import pinger
from bridge.ledger.alerts import open_alerts
from bridge.testing.target_cases import own_problems, tests_of, untested


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path())
@pass_context
def init(context: Context, folder: Path) -> None:
    """Write a commented bridge.yaml and a first mapping into a folder. Files that are there are left alone."""
    starter = write_starter(folder, sources=context.registry.sources, targets=context.registry.targets)
    for path in starter.written:
        click.echo(f"wrote {path}")
    for path in starter.kept:
        click.echo(f"left  {path} as it is")
    click.echo("\nNext: set the variables that bridge.yaml names, then `campusbridge check` and `campusbridge up`.")


@click.command()
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def check(context: Context, *, json_output: bool) -> None:
    """Find all that is wrong with bridge.yaml, the mappings and the connectors beside it, and run their tests."""
    report = check_all(
        context.file, sources=context.registry.sources, targets=context.registry.targets, environ=os.environ
    )
    own = context.own_connectors
    failed = {name: own_problems(entry) for name, entry in own.connectors.items()}
    problems = [*own.problems, *(problem for each in failed.values() for problem in each), *report.all_problems]
    warnings = [*(lack for entry in own.connectors.values() for lack in untested(entry)), *report.warnings]
    tests = sum(entry.tests for entry in report.mappings) + sum(map(tests_of, own.connectors.values()))
    if json_output:
        as_json(
            {
                "ok": not problems,
                "problems": [_document(problem) for problem in problems],
                "warnings": [_document(problem) for problem in warnings],
                "mappings": {entry.name: {"tests": entry.tests, "ok": not entry.problems} for entry in report.mappings},
                "connectors": {
                    name: {"tests": tests_of(entry), "ok": not failed[name]} for name, entry in own.connectors.items()
                },
            }
        )
    else:
        for warning in warnings:
            click.secho(f"warning: {warning}", fg="yellow", err=True)
        for problem in problems:
            click.secho(str(problem), fg="red", err=True)
        found = f"{len(report.mappings)} mappings" + (f", {len(own.connectors)} connectors" if own.connectors else "")
        if problems:
            click.secho(f"{len(problems)} problems.", fg="red", err=True)
        else:
            click.secho(f"{context.file}: fine. {found}, {tests} tests passed.", fg="green")
    if problems:
        raise click.exceptions.Exit(1)


@click.command()
@pass_context
def doctor(context: Context) -> None:
    """Look whether everything that the bridge needs is there: configuration, disk, database, Redis."""
    configuration = context.configuration
    findings = [("configuration", f"{context.file}: fine")]
    journal = journal_folder(configuration)
    try:
        journal.mkdir(parents=True, exist_ok=True)
        probe = journal / ".doctor"
        probe.write_bytes(b"x")
        probe.unlink()
        findings.append(("journal", f"{journal} can be written"))
    except OSError as error:
        findings.append(("journal", f"PROBLEM: {journal} cannot be written: {error.strerror}"))
    findings.append(("ledger", f"{context.ledger.engine.dialect.name}, up to date"))
    try:
        pinger(configuration.storage.redis, redis_folder(configuration))()
        findings.append(("redis", "answers"))
    except (RedisError, OSError) as error:
        embedded = configuration.storage.redis == "embedded"
        findings.append(("redis", "embedded, starts with the worker" if embedded else f"PROBLEM: {error}"))
    for name, source in configuration.sources.items():
        base = configuration.web.public_url or f"http://{configuration.web.host}:{configuration.web.port}"
        secrets = f"{len(source.settings.secrets)} secrets"
        findings.append((f"source {name}", f"{source.connector}, {secrets}; its webhook address: {base}/hooks/{name}"))
    findings += [(f"alert {entry.alert.about}", f"PROBLEM: {entry}") for entry in open_alerts(context.ledger)]
    for what, finding in findings:
        click.secho(printable(f"{what:<24} {finding}"), fg="red" if finding.startswith("PROBLEM") else None)
    if any(finding.startswith("PROBLEM") for _, finding in findings):
        raise click.exceptions.Exit(1)


def _document(problem: Problem) -> dict[str, object]:
    return {
        "file": problem.file,
        "line": problem.line,
        "where": problem.where,
        "message": problem.message,
        "hint": problem.hint,
    }
