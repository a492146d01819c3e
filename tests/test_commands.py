"""What all commands have in common, whatever they are for."""

from __future__ import annotations

import io
import json
import pkgutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from django.core.management import load_command_class

from s3cache.management import commands
from tests.db.test_reads import store_down
from tests.engine import Host, MakeHost, bucket, host, hosts, tables
from tests.library.models import Author

__all__ = ["bucket", "host", "hosts", "tables"]

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

COMMANDS = [module.name for module in pkgutil.iter_modules(commands.__path__)]

each_command = pytest.mark.parametrize("name", COMMANDS)

#: What a command needs, so that it has something to do.
ARGUMENTS = {"s3cache_restore": ["--location", "{tmp_path}"]}

#: Those that are there to show something, whatever the verbosity.
SHOW = {"s3cache_log", "s3cache_stats"}

#: Those that need no store: what they are about is on this host.
NEED_NO_STORE = {"s3cache_clear", "s3cache_flush", "s3cache_stats"}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Any) -> Run:
    """Runs a command as ``manage.py`` does: exit status, stdout and stderr."""

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        needed = [
            one.format(tmp_path=tmp_path / "new") for one in ARGUMENTS.get(name, [])
        ]
        command = load_command_class("s3cache", name)
        argv = ["manage.py", name, *needed, *arguments]
        out, err = io.StringIO(), io.StringIO()
        status: Any = 0
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.MonkeyPatch.context() as patch,
        ):
            # It would close the connection, and so the replica of the host.
            patch.setattr("django.db.connections.close_all", bool)
            patch.setattr(command, "stdout", type(command.stdout)(out))
            patch.setattr(command, "stderr", type(command.stderr)(err))
            try:
                command.run_from_argv(argv)
            except SystemExit as error:
                status = error.code
        return status, out.getvalue(), err.getvalue()

    return run


@each_command
def test_it_says_json_and_nothing_else(host: Host, run: Run, name: str) -> None:
    Author.objects.create(name="Ann")
    status, out, _ = run(name, "--json", "--database", "default")
    assert status == 0
    assert json.loads(out) is not None
    assert len(out.splitlines()) == 1


@each_command
def test_it_is_silent(host: Host, run: Run, name: str) -> None:
    Author.objects.create(name="Ann")
    status, out, err = run(name, "--verbosity", "0")
    assert (status, err) == (0, "")
    assert bool(out) == (name in SHOW)


@each_command
def test_a_database_that_there_is_not(host: Host, run: Run, name: str) -> None:
    assert run(name, "--database", "other") == (
        1,
        "",
        "CommandError: 'other' is no database that lives in a bucket: there are "
        "'default'.\n",
    )


@each_command
def test_wrong_arguments(host: Host, run: Run, name: str) -> None:
    status, out, err = run(name, "--nonsense")
    assert (status, out) == (2, "")
    assert "unrecognized arguments: --nonsense" in err


@each_command
@pytest.mark.parametrize("wrong", [{"LIFETIME": 1}, {"CACHE": "nowhere"}])
def test_settings_that_are_wrong(
    host: Host, run: Run, name: str, wrong: dict[str, object], settings: Any
) -> None:
    """Not all need what is wrong; who does says so in a line."""
    settings.S3CACHE = wrong
    status, _, err = run(name, "--verbosity", "0")
    assert status in (0, 1)
    if status:
        (line,) = err.strip().splitlines()
        assert line.startswith("CommandError: ")
        assert "S3CACHE" in line or "'nowhere'" in line


@each_command
def test_the_store_is_down(hosts: MakeHost, run: Run, name: str) -> None:
    cut_off = hosts("cut off", max_age=0.0, stale_if_error=0.0)
    cut_off.catch_up()
    with cut_off, store_down():
        status, out, err = run(name, "--verbosity", "0")
    if name in NEED_NO_STORE:
        assert (status, err) == (0, "")
    elif name == "s3cache_doctor":  # which is there to say so
        assert (status, err) == (1, "CommandError: Something has to be done.\n")
        assert "default" in out
    else:
        assert (status, out) == (1, "")
        assert err.startswith("CommandError: default: ")


@each_command
def test_the_store_is_down_before_there_is_a_replica(
    hosts: MakeHost, run: Run, name: str
) -> None:
    with hosts("new"), store_down():
        status, _, err = run(name, "--verbosity", "0")
    if name in NEED_NO_STORE - {"s3cache_stats"}:
        assert (status, err) == (0, "")
    else:
        assert status == 1
        assert err.startswith("CommandError: ")


@each_command
def test_no_such_storage(
    host: Host, run: Run, name: str, settings: Any, hosts: MakeHost
) -> None:
    with hosts("nowhere", storage="nowhere"):
        status, out, err = run(name, "--verbosity", "0")
    if name == "s3cache_clear":  # looks into caches alone, if nobody names models
        assert (status, err) == (0, "")
        return
    assert (status, out) == (1, "")
    assert err.startswith("CommandError: default: ")
    assert "'nowhere'" in err


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("s3cache_clear", ["--partition", "by_region"], "--partition takes one model."),
        ("s3cache_doctor", ["--hosts", "0"], "--hosts is 0, but must be at least 1."),
        ("s3cache_log", ["--limit", "0"], "--limit is 0, but must be above 0."),
        ("s3cache_log", ["--at", "1"], "--at needs the table and the primary key"),
        ("s3cache_log", ["shop.Car"], "No installed app with label 'shop'."),
        ("s3cache_stats", ["--watch", "0"], "--watch is 0, but must be above 0."),
        ("s3cache_stats", ["--watch", "nan"], "--watch is nan, but must be above 0."),
        ("s3cache_stats", ["--watch", "inf"], "--watch is inf, but must be above 0."),
        ("s3cache_warm", ["--workers", "0"], "--sample must be 0 or more, and"),
    ],
)
def test_arguments_that_make_no_sense(
    host: Host, run: Run, name: str, arguments: list[str], message: str
) -> None:
    status, out, err = run(name, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith(f"CommandError: {message}")


def test_resetting_is_said_in_json_too(host: Host, run: Run) -> None:
    assert run("s3cache_stats", "--reset", "--json") == (0, '{"reset": true}\n', "")
