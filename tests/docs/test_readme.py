"""README's two commands stand where CI looks for them."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.parametrize("name", ["run-command", "test-command"])
def test_the_readme_has_the_command_that_ci_runs(name: str) -> None:
    found = re.findall(rf"^<!-- {name} -->\n+```\w*\n(.+?)\n```$", README.read_text(), re.M | re.S)
    # One command line: in several, a failing one could be followed by one that passes.
    assert [command.replace("\\\n", "").count("\n") for command in found] == [0]
