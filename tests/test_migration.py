"""Whatever 0.1.0 promised still works: names, arguments, options, settings; docs/migration.md names what replaced them.

public-0.1.0.json lists what that version exported from its public packages, named in its docs, and took as options and
settings.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from mixunlearn_cli.main import main

from pymixunlearn import methods

ROOT = Path(__file__).parents[1]
PUBLIC = json.loads((ROOT / "tests" / "public-0.1.0.json").read_text())
TABLE = (ROOT / "docs" / "migration.md").read_text()
NAMES = sorted({f"{package}.{name}" for package, names in PUBLIC["names"].items() for name in names})


def find(path: str) -> Any:
    """Return the object of a dotted path; a name wins over a module, as for who imports it."""
    package, *parts = path.split(".")
    found = import_module(package)
    for part in parts:
        package = f"{package}.{part}"
        try:
            found = getattr(found, part)
        except AttributeError:
            found = import_module(package)
    return found


def section(title: str) -> str:
    _, _, rest = TABLE.partition(f"## {title}\n")
    return re.split(r"^## ", rest, flags=re.MULTILINE)[0]


def rows(title: str) -> list[tuple[str, ...]]:
    lines = [line for line in section(title).splitlines() if line.startswith("| ") and "---" not in line]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines if "| 0.1.0" not in line]


# A dotted path of the package, as the table writes them.
IMPORTS = [
    (old, new[0])
    for before, after in (row[:2] for row in rows("Imports"))
    for old in re.findall(r"`(pymixunlearn\.[\w.]+)`", before)
    if (new := re.findall(r"`(pymixunlearn\.[\w.]+)`", after))
]


@pytest.mark.parametrize(("old", "new"), IMPORTS)
def test_an_old_import_gives_the_new_object_with_a_warning(old: str, new: str) -> None:
    # In a process of its own: a module warns only when it is first imported.
    program = f"""
import warnings
from tests.test_migration import find
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    old = find({old!r})
assert old is find({new!r}), old
assert any(issubclass(found.category, DeprecationWarning) and {new!r} in str(found.message) for found in caught), caught
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [*NAMES, *PUBLIC["documented"]])
def test_a_public_name_is_still_there(name: str) -> None:
    assert find(name) is not None


def test_a_public_name_that_warns_stands_in_the_table() -> None:
    unlisted = []
    listed = [old for old, _ in IMPORTS]
    for name in NAMES:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            find(name)
        warned = [str(found.message) for found in caught if found.category is DeprecationWarning]
        if any(" is now " in text for text in warned) and not any(name.startswith(old) for old in listed):
            unlisted.append(name)
    assert unlisted == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", PUBLIC["members"])
def test_a_public_class_has_its_members(name: str) -> None:
    own = {
        member
        for base in find(name).__mro__
        if base.__module__.startswith("pymixunlearn")
        for member in (*vars(base), *getattr(base, "__annotations__", {}))
    }
    assert set(PUBLIC["members"][name]) - own == set()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", PUBLIC["parameters"])
def test_a_public_function_takes_its_arguments(name: str) -> None:
    parameters = inspect.signature(find(name)).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        assert set(PUBLIC["parameters"][name]) - set(parameters) == set()


@pytest.mark.parametrize("path", PUBLIC["options"])
def test_a_command_takes_its_options(path: str) -> None:
    command: click.Command = main
    for part in path.split():
        assert isinstance(command, click.Group)
        command = command.commands[part]
    if path == "bench report":  # it hands its arguments on
        return
    known = {text for option in command.params for text in (*option.opts, *option.secondary_opts)}
    assert set(PUBLIC["options"][path]) - known == set()


@pytest.mark.parametrize("name", PUBLIC["settings"])
def test_a_method_takes_its_settings(name: str) -> None:
    assert set(PUBLIC["settings"][name]) - set(methods.get(name).config_class.kinds()) == set()
