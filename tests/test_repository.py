"""What GitHub and other programs read of the repository: workflow, forms, hooks, citation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.support.scripts import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*_*.yml"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def actionlint(*files: Path) -> subprocess.CompletedProcess[str]:
    # Without what it calls where it happens to be there.
    program = Path(sys.prefix) / "bin" / "actionlint"
    return subprocess.run(
        [program, "-shellcheck=", "-pyflakes=", *files], capture_output=True, text=True
    )


def test_actionlint_finds_nothing_in_the_workflows() -> None:
    assert WORKFLOWS
    done = actionlint(*WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "ci.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("matrix.python", "matrix.pithon"))
    done = actionlint(wrong)
    assert done.returncode == 1
    assert '"pithon" is not defined' in done.stdout


def steps(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_the_workflow_does_what_ci_run_does_on_supported_pythons(project: Any) -> None:
    workflow = load(ROOT / ".github" / "workflows" / "ci.yml")
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    supported = SpecifierSet(project["requires-python"])
    assert versions == ["3.11", "3.13"]
    assert all(supported.contains(version) for version in versions)
    assert "bash .ci/run" in [step.get("run") for step in workflow["jobs"]["test"]["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_names_its_actions_by_version(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert not [job for job in workflow["jobs"].values() if "permissions" in job]
    actions = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|[0-9a-f]{40})", action)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_has_what_github_wants(path: Path) -> None:
    form = load(path)
    assert {"name", "description", "body"} <= form.keys()
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names) > 0
    for field in fields:
        assert field["type"] in {"input", "textarea", "dropdown", "checkboxes"}
        assert field["attributes"]["label"]


def test_each_hook_runs_a_program_that_is_there() -> None:
    hooks = [
        hook
        for repository in load(ROOT / ".pre-commit-config.yaml")["repos"]
        if repository["repo"] == "local"
        for hook in repository["hooks"]
    ]
    assert "scripts/check" in [hook["entry"] for hook in hooks]
    for hook in hooks:
        assert os.access(ROOT / hook["entry"].split()[0], os.X_OK)


def test_the_citation_is_of_this_version_and_of_the_paper(project: Any) -> None:
    citation = load(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == project["name"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert "10.1109/ICCV.2017.74" in [work["doi"] for work in citation["references"]]


def test_the_security_policy_leads_to_what_is_there() -> None:
    links = re.findall(r"\]\((?!https:)([^)]+)\)", (ROOT / "SECURITY.md").read_text())
    assert "docs/security.md" in links
    for link in links:
        assert (ROOT / link).exists()
