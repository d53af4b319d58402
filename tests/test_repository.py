"""Files around the code: workflows, the address of the repository, and the citation."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import pugd_optax
from tests.mutants import EXPERIMENTS, LIBRARY

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


RAN: list[int] = []


@pytest.mark.xdist_group("repository")
@pytest.mark.parametrize("part", range(3))
def test_a_group_of_tests_is_run_by_one_worker(part, request):
    """With `--dist loadgroup`, one worker runs a whole group; otherwise each would build the documentation."""
    RAN.append(part)
    parts = [item for item in request.session.items if item.name.startswith(request.node.originalname)]
    if getattr(request.config.option, "loadgroup", False) and request.node is parts[-1]:
        assert len(RAN) == len(parts)


def test_there_are_workflows():
    assert [path.stem for path in WORKFLOWS] == ["ci", "release"]


@each_workflow
def test_actions_are_pinned_by_commit(path):
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())
    assert used
    for action, version in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action)
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", version)


@each_workflow
def test_a_workflow_may_do_no_more_than_it_says(path):
    """Workflows have read permission only; publishing may also request an identity token."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert workflow["concurrency"]["group"]
    asked = [job["permissions"] for job in workflow["jobs"].values() if "permissions" in job]
    assert all(job in ({"contents": "read"}, {"id-token": "write"}) for job in asked)
    for job in workflow["jobs"].values():
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@each_workflow
def test_no_command_is_made_of_what_others_wrote(path):
    """No `run` command contains an expression, so tags and branch names reach the shell only as variables."""
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        assert [step["run"] for step in job["steps"] if "${{" in step.get("run", "")] == []


def test_every_python_and_the_oldest_tested_and_newest_versions_are_tried():
    matrix = yaml.safe_load(WORKFLOWS[0].read_text())["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert {job["python"] for job in matrix} == {"3.11", "3.12", "3.13", "3.14"}
    assert {job["jax"] for job in matrix} == {"oldest", "tested", "newest"}
    assert f">={matrix[0]['python']}" == PROJECT["requires-python"]
    assert {path.stem for path in (ROOT / ".github").glob("*.txt")} == {"oldest", "oldest_core", "tested"}


def test_continuous_integration_runs_every_test_and_make_test_all_but_the_slow_ones():
    """CI and `make test-all` run every test; `make test` skips the slow ones."""
    targets = dict(re.findall(r"^(test(?:-all)?): .*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets["test"].endswith("-n 2 --dist loadgroup -m 'not slow'")
    assert targets["test-all"] == "$(BIN)/python -m pytest -n 2 --dist loadgroup"
    jobs = yaml.safe_load(WORKFLOWS[0].read_text())["jobs"]
    assert jobs["test"]["steps"][-1]["run"] == "make test-all"
    assert (ROOT / ".ci" / "run").read_text().endswith("\nmake test-all\n")


def test_there_is_a_way_to_report_a_vulnerability():
    assert f"{PROJECT['urls']['Repository']}/security/advisories/new" in (ROOT / ".github" / "SECURITY.md").read_text()


def test_citation_and_project_agree():
    assert CITATION["version"] == pugd_optax.__version__
    assert CITATION["repository-code"] == PROJECT["urls"]["Repository"]
    assert all(url.startswith(PROJECT["urls"]["Repository"]) for url in PROJECT["urls"].values())


def test_the_changelog_has_a_section_for_what_comes_or_came():
    assert re.search(
        rf"^## \[(Unreleased|{re.escape(pugd_optax.__version__)})\]", (ROOT / "CHANGELOG.md").read_text(), re.M
    )


def test_every_mutant_is_one_edit_and_names_its_tests():
    """Every mutant edits one place and names existing tests; running them takes too long for the suite."""
    listed = LIBRARY + EXPERIMENTS
    assert len(set(listed)) == len(listed) >= 60
    for mutant in listed:
        assert (ROOT / mutant.file).read_text().count(mutant.old) == 1, mutant
        path, _, function = mutant.test.partition("::")
        assert (ROOT / path).exists(), mutant
        assert not function or f"def {function}(" in (ROOT / path).read_text(), mutant


@pytest.fixture
def copy(tmp_path):
    """A repository with copies of the files that contain the address."""
    for name in ("pyproject.toml", "README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    for name in (".github", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def set_address(root, to):
    script = [sys.executable, ".github/set_address.py", to]
    return subprocess.run(script, cwd=root, capture_output=True, text=True)


def texts(root):
    return {p: p.read_text() for p in root.rglob("*") if p.is_file() and ".git" not in p.relative_to(root).parts}


def test_one_command_sets_the_address(copy):
    old = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    before = texts(copy)
    assert sum(old in text for text in before.values()) > 8
    for new in ("someone/gradients", "other/pugd_optax"):
        assert set_address(copy, new).returncode == 0
        after = texts(copy)
        assert after == {path: text.replace(old, new) for path, text in before.items()}
    assert set_address(copy, old).returncode == 0
    assert texts(copy) == before


@pytest.mark.parametrize("to", ["", "someone", "https://github.com/someone/x", "a/b; rm"])
def test_what_is_no_address_is_refused_in_one_line(copy, to):
    ran = set_address(copy, to)
    assert ran.returncode == 1
    assert re.fullmatch(r"error: .* is no address\. Fix: make address TO=account/repository\.\n", ran.stderr)
