"""What several files beside the code say of the project is the same in all of them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GUIDES)
def test_guides_link_to_files_that_exist(name: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", text(name))
    for target in targets:
        assert (ROOT / target).is_file(), f"{name} links to {target}"


@pytest.mark.parametrize("name", [*GUIDES, "CITATION.cff", ".github/ISSUE_TEMPLATE/config.yml", "pyproject.toml"])
def test_the_project_has_one_address(name: str) -> None:
    for address in re.findall(r"https://github\.com/underfire\S*", text(name)):
        assert address.startswith(PROJECT["urls"]["Source"])


def test_the_citation_is_of_this_version() -> None:
    citation = text("CITATION.cff")
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation


def test_pre_commit_formats_with_the_pinned_ruff() -> None:
    (pinned,) = re.findall(r"^ruff==(\S+)$", text("constraints.txt"), re.MULTILINE)
    assert f"ruff-pre-commit\n    rev: v{pinned}\n" in text(".pre-commit-config.yaml")


def test_the_workflow_tries_the_lowest_torch_and_every_python() -> None:
    workflow = text(".github/workflows/ci.yml")
    (lowest,) = (name.removeprefix("torch>=") for name in PROJECT["dependencies"] if name.startswith("torch>="))
    assert f"LOWEST_TORCH=torch=={lowest}.0\n" in workflow
    declared = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    (tried,) = re.findall(r"python: \[(.+)\]", workflow)
    assert re.findall(r"3\.\d+", tried) == declared


def test_reasons_for_lowest_versions_are_of_versions_that_are_declared() -> None:
    _, _, section = text("docs/reference/dependencies.md").partition("## Lowest versions\n")
    told = re.findall(r"^\* `(\S+)`:", section, re.MULTILINE)
    assert told
    assert set(told) <= set(PROJECT["dependencies"])
