"""The documentation does what it says, leads somewhere, and is complete."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import django
import msgspec
import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import DjangoHelpFormatter
from django.db import models

from s3cache import checks, conf, exceptions, options, project_checks, signals
from s3cache.db.base import DatabaseWrapper
from s3cache.endpoints import urls as endpoints
from s3cache.facade import Facade
from s3cache.log import catalog, entry, head, keys
from s3cache.managers import S3QuerySet
from s3cache.models import S3Model
from s3cache.records.form import seal_record
from s3cache.records.keys import STATE
from s3cache.records.writing import State
from s3cache.results.watching import Why
from s3cache.stores import probe
from tests import uncovered
from tests.docs.pages import DOCS, ROOT, Page, page, pages
from tests.docs.person import Person
from tests.docs.project import Project, commands
from tests.docs.python import Python
from tests.s3_server import S3Server

PAGES = pages()
BUCKET = "my-shop"

# These begin with an empty project; the others where the tutorial ends.
FROM_NOTHING = {
    "README.md",
    "docs/how-to/existing-project.md",
    "docs/how-to/move-model.md",
    "docs/how-to/only-database.md",
}


def name_of(one: Any) -> str:
    return str(one.name)


# What is shown, works


def is_runnable(one: Page) -> bool:
    return any(
        block.language in {"python", "pycon"}
        or any(words.startswith("python manage.py") for words in commands(block))
        for block in one.blocks
    )


# The tutorial is followed to the letter, by a test of its own.
RUNNABLE = [one for one in PAGES if is_runnable(one) and one.name != "docs/tutorial.md"]


@pytest.fixture(scope="session")
def environment(s3_server: S3Server) -> dict[str, str]:
    """Where boto3 finds a bucket and credentials."""
    return {
        "AWS_ENDPOINT_URL_S3": s3_server.address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture
def empty_bucket(s3_server: S3Server) -> None:
    """The bucket of the pages, with nothing in it."""
    s3_server.create_bucket(BUCKET)
    session = boto3.Session("test", "test", region_name="us-east-1")
    bucket = session.resource("s3", endpoint_url=s3_server.address).Bucket(BUCKET)
    bucket.objects.all().delete()


@pytest.fixture(scope="session")
def python() -> Iterator[Python]:
    """What runs the programs of pages."""
    started = Python(uncovered.environment())
    yield started
    started.close()


@pytest.fixture(scope="session")
def empty(
    tmp_path_factory: pytest.TempPathFactory,
    environment: dict[str, str],
    python: Python,
) -> Project:
    """An empty project."""
    directory = tmp_path_factory.mktemp("empty") / "project"
    made = Project(directory, {**uncovered.environment(), **environment}, python)
    made.begin()
    return made


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, empty: Project) -> Project:
    """The project that the tutorial comes to, with empty tables."""
    made = empty.copy_to(tmp_path_factory.mktemp("shop") / "project")
    made.follow(page("tutorial.md"), only_files=True)
    made.run("python manage.py makemigrations shop")
    made.run("python manage.py migrate --verbosity 0")
    return made


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("empty_bucket")
@pytest.mark.parametrize("one", RUNNABLE, ids=name_of)
def test_what_a_page_shows_works(
    one: Page, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    start: Project = request.getfixturevalue(
        "empty" if one.name in FROM_NOTHING else "shop"
    )
    start.copy_to(tmp_path / "project").follow(one)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("empty_bucket")
def test_the_tutorial_on_a_fresh_machine(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    directory = tmp_path / "shop"
    directory.mkdir()
    person = Person(directory, environment)
    person.follow(page("tutorial.md"), visit=("/products/EU/", "/admin/login/"))
    assert json.loads(person.visited["/products/EU/"]) == {
        "products": [
            {"name": "Kettle", "price": "24.90", "stock": 1},
            {"name": "Toaster", "price": "39.00", "stock": 7},
        ]
    }
    assert "csrfmiddlewaretoken" in person.visited["/admin/login/"]
    assert person.seen["ls bucket/_log | tail -n 1"].strip().isdecimal()
    assert "Superuser created" in person.seen["python manage.py createsuperuser"]


def test_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    extras = (ROOT / "pyproject.toml").read_text()
    for one in PAGES:
        for block in one.blocks:
            assert block.language, f"{one.name}:{block.line}: a block of what?"
            for command in commands(block):
                words = shlex.split(command, comments=True)
                where = f"{one.name}:{block.line}: {command}"
                if words[0] == "make":
                    assert re.search(rf"^{words[1]}:", makefile, re.M), where
                elif words[:2] == ["python", "manage.py"]:
                    assert words[2] in {*get_commands(), "startapp"}, where
                elif words[:2] == ["python", "-m"] and "." in words[2]:
                    assert (ROOT / words[2].replace(".", "/")).exists(), where
                elif words[:2] == ["pip", "install"]:
                    for extra in re.findall(r"\[(\w+)\]", command):
                        assert f"\n{extra} = [" in extras, where


@pytest.mark.timeout(300)
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603  (this Python, with fixed arguments)
        [
            *(sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going"),
            *("--quiet", "-b", "html", str(DOCS), str(tmp_path)),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Links lead somewhere


@pytest.mark.parametrize("one", PAGES, ids=name_of)
def test_links_lead_somewhere(one: Page) -> None:
    for link in one.links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = Page((one.path.parent / path).resolve() if path else one.path)
        assert target.path.is_file(), f"{one.name}: {link}"
        assert not anchor or anchor in target.anchors, f"{one.name}: {link}"


def test_every_page_is_in_the_index() -> None:
    listed = {
        f"docs/{line.strip()}.md"
        for block in page("index.md").blocks
        for line in block.text.splitlines()
        if line.strip() and not line.startswith(":")
    }
    assert listed == {one.name for one in PAGES} - {"README.md", "docs/index.md"}


def test_headings_are_not_said_twice() -> None:
    for one in PAGES:
        assert len({*one.anchors}) == len(one.anchors), one.name


def test_the_readme_is_short() -> None:
    assert 60 <= len((ROOT / "README.md").read_text().splitlines()) <= 150


# All that there is, is documented


def documented(name: str, *, column: int = 0) -> set[str]:
    """The names in backticks in a column of a page's tables."""
    return {
        found
        for row in page(name).rows()
        if len(row) > column
        for found in re.findall(r"`([^`]+)`", row[column])
    }


def default_of(name: str, option: str) -> str:
    """What the second column of a page says of an option."""
    for row in page(name).rows():
        if row[0] == f"`{option}`":
            return row[1].strip("`")
    raise AssertionError(f"{name} does not list {option}")


def shown(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "required"
    return f'"{value}"' if isinstance(value, str) else repr(value)


@pytest.mark.parametrize("field", dataclasses.fields(conf.Settings), ids=name_of)
def test_settings_are_documented(field: Any) -> None:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = dict(field.default_factory())
    said = default_of("reference/settings.md", field.name.upper())
    assert said == shown(default)


@pytest.mark.parametrize("field", dataclasses.fields(conf.DatabaseOptions), ids=name_of)
def test_options_of_databases_are_documented(field: Any) -> None:
    assert default_of("reference/settings.md", field.name) == shown(field.default)


@pytest.mark.parametrize("field", dataclasses.fields(options.S3Options), ids=name_of)
def test_options_of_models_are_documented(field: Any) -> None:
    default = field.default
    if default is dataclasses.MISSING:
        default = dict(field.default_factory())
    assert default_of("reference/models.md", field.name) == shown(default)


def test_no_setting_is_documented_that_there_is_not() -> None:
    known = {one.name.upper() for one in dataclasses.fields(conf.Settings)}
    known |= {one.name for one in dataclasses.fields(conf.DatabaseOptions)}
    said = {
        row[0].strip("`")
        for row in page("reference/settings.md").rows()
        if len(row) == 3 and row[0].startswith("`")
    }
    assert said == known


OWN_COMMANDS = sorted(name for name, app in get_commands().items() if app == "s3cache")


@pytest.mark.parametrize("name", OWN_COMMANDS)
def test_commands_are_documented(name: str) -> None:
    text = page("reference/commands.md").text
    assert f"\n## {name}\n" in text
    section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    if elsewhere := re.search(r"\[How to use it\]\(\.\./([^)#]+)", section):
        section = page(elsewhere[1]).text
    parser = load_command_class("s3cache", name).create_parser("manage.py", name)
    everywhere = {"--database", "--json", *DjangoHelpFormatter.show_last}
    for action in parser._actions:
        for option in action.option_strings:
            if option.startswith("--") and option not in everywhere | {"--help"}:
                assert f"`{option}" in section, option


def test_endpoints_are_documented() -> None:
    headings = " ".join(page("reference/endpoints.md").headings)
    for pattern in endpoints.urlpatterns:
        assert f"{str(pattern.pattern).partition('<')[0]}" in headings


def test_methods_of_the_facade_are_documented() -> None:
    headings = " ".join(page("reference/facade.md").headings)
    text = page("reference/facade.md").text
    own = {
        name
        for name in dir(Facade)
        if not name.startswith("_") and callable(getattr(Facade, name))
    }
    for name in own - {f"a{other}" for other in own}:
        shown = rf"`{name}\(|\.{name}\("
        assert re.search(rf"\b{name}\b", headings) or re.search(shown, text), name


def test_checks_are_documented() -> None:
    source = inspect.getsource(checks) + inspect.getsource(project_checks)
    ids = set(re.findall(r'id="(s3cache\.[EWI]\d+)"', source))
    headings = page("reference/checks.md").headings
    assert {heading for heading in headings if heading.startswith("s3cache.")} == ids
    assert ids == set(re.findall(r"s3cache\.[EWI]\d+", checks.__doc__ or ""))


def test_exceptions_are_documented() -> None:
    headings = {*page("reference/exceptions.md").headings}
    assert headings >= {*exceptions.__all__}


def test_signals_are_documented() -> None:
    assert {*page("reference/signals.md").headings} >= {*signals.__all__}
    arguments = documented("reference/signals.md")
    assert arguments >= {"sender", "using", "table", "pks", "position", "local"}


def test_methods_of_querysets_are_documented() -> None:
    own = {
        name
        for name in vars(S3QuerySet)
        if not name.startswith("_") and not hasattr(models.QuerySet, name)
    }
    headings = {re.sub(r"\W.*", "", one) for one in headings_of("querysets")}
    assert headings >= own


def headings_of(name: str) -> list[str]:
    return [one.replace("`", "") for one in page(f"reference/{name}.md").headings]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("conditional", "middleware"),
        ("exceptions", "exceptions"),
        ("managers", "querysets"),
        ("middleware", "middleware"),
        ("models", "models"),
        ("routers", "models"),
        ("signals", "signals"),
        ("stores", "connections"),
        ("transactions", "transactions"),
        ("uuids", "models"),
    ],
)
def test_public_names_are_documented(module: str, name: str) -> None:
    imported = importlib.import_module(f"s3cache.{module}")
    text = page(f"reference/{name}.md").text
    for public in imported.__all__:
        assert re.search(rf"`(s3cache\.)?([\w.]+\.)?{public}\b", text) or (
            public in headings_of(name)
        ), f"{module}.{public} is not on {name}.md"


@pytest.mark.parametrize(
    "module",
    ["exceptions", "managers", "models", "routers", "signals", "transactions", "uuids"],
)
def test_all_is_complete(module: str) -> None:
    imported = importlib.import_module(f"s3cache.{module}")
    defined = {
        name
        for name, value in vars(imported).items()
        if inspect.isclass(value) or inspect.isfunction(value)
        if value.__module__ == imported.__name__ and not name.startswith("_")
    }
    assert defined - {"S3ModelBase"} <= {*imported.__all__}


def test_attributes_of_a_connection_are_documented() -> None:
    said = documented("reference/connections.md")
    mine = {"catch_up()", "commit_outcome(token)", "is_s3cache", "position"}
    mine |= {"rebuild_replica()", "replica", "store"}
    assert said >= mine
    for name in mine:
        assert hasattr(DatabaseWrapper, name.partition("(")[0])


def test_save_if_unchanged_is_documented() -> None:
    assert "if_unchanged" in inspect.signature(S3Model.save).parameters
    assert "if_unchanged" in page("reference/models.md").text


@pytest.mark.parametrize("why", Why)
def test_reasons_of_reads_are_documented(why: Why) -> None:
    assert [f"`{why.name}`", str(why)] in page("explanation/results.md").rows()


def test_loggers_are_documented() -> None:
    used = {
        name
        for path in (ROOT / "s3cache").rglob("*.py")
        for name in re.findall(r'getLogger\("([^"]+)"\)', path.read_text())
    }
    assert documented("reference/connections.md") >= used


def test_the_layout_of_a_bucket_is_documented() -> None:
    said = documented("reference/bucket.md")
    assert said >= {
        keys.HEAD,
        f"{keys.LOG}<n>",
        f"{keys.BLOBS}<n>-<token>",
        f"{keys.CATALOGS}<n>-<token>",
        f"{keys.PACKS}<n>-<token>",
        "<table>/rows/<pk>.json",
        STATE,
        f"{probe.PREFIX}...",
    }


@pytest.mark.parametrize(
    "struct",
    [entry._Header, entry.Entry, entry.Rows, entry.Statement, entry.Sequences],
    ids=lambda struct: struct.__name__,
)
def test_the_format_of_entries_is_documented(struct: Any) -> None:
    said = documented("reference/entries.md")
    assert said >= {*struct.__struct_fields__}


@pytest.mark.parametrize(
    "struct",
    [head.Head, catalog.Catalog, catalog.Pack, catalog.Segment, State],
    ids=lambda struct: struct.__name__,
)
def test_the_formats_of_other_objects_are_documented(struct: Any) -> None:
    assert documented("reference/bucket.md") >= {*struct.__struct_fields__}


def test_the_fields_of_a_record_are_documented() -> None:
    content = {"model": "m", "pk": 1, "fields": {}, "columns": {"c": 1}}
    sealed = seal_record(content, key="t/rows/1.json", database="db", entry=1)
    (record,) = json.loads(sealed)
    assert documented("reference/bucket.md") >= record["s3cache"].keys()


def test_the_entry_that_is_shown_is_one() -> None:
    one = page("reference/entries.md")
    objects = [block.text for block in one.blocks if block.language == "json"]
    read = entry.unseal(objects[0].rstrip().encode(), key="_log/000000000003")
    assert read.number == 3
    assert {type(change) for change in read.changes} >= {entry.Rows, entry.Sequences}
    shown_head, shown_record = [
        block.text
        for block in page("reference/bucket.md").blocks
        if block.language == "json"
    ]
    (record,) = json.loads(shown_record)
    assert record.keys() == {"model", "pk", "fields", "s3cache"}
    assert msgspec.json.decode(shown_head.encode(), type=head.Head).format == 1


def test_figures_of_the_entry_format_are_those_of_the_code() -> None:
    text = page("reference/entries.md").text
    assert f"format {entry.FORMAT}" in text
    assert f"{entry.COMPRESS_ABOVE // 1024} KiB" in text
    assert f"{entry.BLOB_ABOVE // 1024**2} MiB" in text
    assert f"{entry.MAX_BODY // 1024**3} GiB" in text


# What is said to be tested, is


def names_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


@pytest.mark.parametrize("one", PAGES, ids=name_of)
def test_tests_that_are_named_exist(one: Page) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", one.text):
        assert (ROOT / path).is_file(), f"{one.name}: {path}"
        assert not name or name in names_in(ROOT / path), f"{one.name}: {path}::{name}"


def features() -> dict[int, str]:
    """The rows of the page of features by their numbers, in its order."""
    text = page("features.md").text
    _, *found = re.split(r"^\*\*(?=\d+\.)", text, flags=re.M)
    return {int(row.partition(".")[0]): row for row in found}


def test_all_features_are_listed() -> None:
    assert [*features()] == [*range(1, 56)]


@pytest.mark.parametrize(("number", "row"), features().items())
def test_a_feature_has_tests_or_is_missing(number: int, row: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row)
    assert named or "- Missing: " in row
    for path, name in named:
        assert Path(path).name.startswith("test_"), path
        assert name.startswith("test_") or not name, name
        assert any(one.startswith("test_") for one in names_in(ROOT / path)), path


@pytest.mark.parametrize(
    "words",
    [
        ["which driver"],
        ["which ttl"],
        ["when", "not cache"],
        ["hit rate", "low"],
        ["memory"],
        ["old data"],
        ["not invalidated"],
        ["keys"],
        ["hot"],
    ],
    ids=" ".join,
)
def test_questions_that_people_ask_have_an_answer(words: list[str]) -> None:
    headings = [one.lower() for one in page("how-to/questions.md").headings]
    assert any(all(word in one for word in words) for one in headings)


def test_supported_versions_are_said() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.11"' in project
    assert "django>=5.2" in project
    assert django.VERSION >= (5, 2)
    for one in (ROOT / "README.md", DOCS / "limits.md"):
        assert "Python 3.11" in one.read_text()
        assert "Django 5.2" in one.read_text()
