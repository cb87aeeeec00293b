"""The workflows of .github: what they name exists, they have few rights, and no input reaches a shell unchecked."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
WRITES = {"publish": {"pages", "id-token", "contents"}}  # the rights beyond reading that a workflow may ask for


def read(name: str) -> dict[str, Any]:
    """A workflow; the key `on`, which YAML takes for true, under its name."""
    flow = yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8"))
    flow["on"] = flow.pop(True)
    return flow


def steps_of(flow: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for job, body in flow["jobs"].items():
        for step in body["steps"]:
            yield job, step


def shell_of(flow: dict[str, Any]) -> list[str]:
    return [step["run"] for _, step in steps_of(flow) if "run" in step]


# --- guards: a function that returns one line for every problem --------------------------------------------------------


def required_keys(_: str, flow: dict[str, Any]) -> list[str]:
    problems = [f"no {key}" for key in ("name", "on", "permissions", "concurrency", "jobs") if not flow.get(key)]
    for job, body in flow["jobs"].items():
        problems += [f"job {job} has no {key}" for key in ("runs-on", "steps", "timeout-minutes") if not body.get(key)]
    return problems


def no_expression_in_a_shell(_: str, flow: dict[str, Any]) -> list[str]:
    """GitHub pastes `${{ … }}` into the script before the shell reads it: what somebody typed would be run."""
    return [f"an expression in a script: {found}" for run in shell_of(flow) for found in re.findall(r"\$\{\{.*?\}\}", run)]


def few_rights(name: str, flow: dict[str, Any]) -> list[str]:
    problems = []
    for where, rights in [("", flow["permissions"]), *((job, body.get("permissions", {})) for job, body in flow["jobs"].items())]:
        if not isinstance(rights, dict):
            problems.append(f"{where or 'the workflow'} asks for {rights}")
            continue
        wanted = {right for right, level in rights.items() if level == "write"}
        problems += [f"{where or 'the workflow'} may write {right}" for right in sorted(wanted - WRITES.get(name, set()))]
        problems += [f"the whole workflow may write {right}" for right in sorted(wanted) if not where]
    return problems


def pinned_actions(_: str, flow: dict[str, Any]) -> list[str]:
    """Actions of GitHub's own, at a major version."""
    used = [step["uses"] for _, step in steps_of(flow) if "uses" in step]
    return [f"{action} is no actions/…@vN" for action in used if not re.fullmatch(r"actions/[a-z-]+@v\d+", action)]


def no_credentials_left(_: str, flow: dict[str, Any]) -> list[str]:
    checkouts = [step for _, step in steps_of(flow) if step.get("uses", "").startswith("actions/checkout@")]
    return ["a checkout leaves its token behind"] * sum(
        step.get("with", {}).get("persist-credentials") is not False for step in checkouts
    )


def shell_is_bash(_: str, flow: dict[str, Any]) -> list[str]:
    problems = ["a pipe may fail unseen: set defaults.run.shell to bash"] * (flow.get("defaults") != {"run": {"shell": "bash"}})
    checked = [subprocess.run(["bash", "-n"], input=run, capture_output=True, text=True) for run in shell_of(flow)]
    return problems + [result.stderr for result in checked if result.returncode]


def named_things_exist(_: str, flow: dict[str, Any]) -> list[str]:
    """Targets of make, files of the repository, and modules' folders that scripts and keys name."""
    problems = []
    for run in shell_of(flow):
        code = re.sub(r"<<'TEXT'\n.*?^TEXT$", "", run, flags=re.DOTALL | re.MULTILINE)
        targets = re.findall(r"(?:^|[`;&|]\s*)\s*make ([a-z]+)", run, re.MULTILINE)
        problems += [f"there is no `make {target}`" for target in targets if target not in TARGETS]
        paths = re.findall(r"(?<![\w$/\"{.-])((?:\.ci|book|data|tests|helpers)/[\w./-]*\w)", code)
        made = {"data/results/parts"}  # by the workflow itself, before
        problems += [f"there is no {path}" for path in paths if path not in made and not (ROOT / path).exists()]
    files = [step.get("with", {}).get("cache-dependency-path", "") for _, step in steps_of(flow)]
    problems += [f"there is no {path}" for text in files for path in text.split() if not (ROOT / path).is_file()]
    return problems


def python_of_the_project(_: str, flow: dict[str, Any]) -> list[str]:
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    wanted = needs.removeprefix(">=")
    found = [str(step["with"]["python-version"]) for _, step in steps_of(flow) if "python-version" in step.get("with", {})]
    found += [version for run in shell_of(flow) for version in re.findall(r"PYTHON=python(\S+)", run)]
    return [f"Python {version}; pyproject.toml says {needs}" for version in found if version != wanted]


GUARDS = [required_keys, no_expression_in_a_shell, few_rights, pinned_actions, no_credentials_left, shell_is_bash]
GUARDS += [named_things_exist, python_of_the_project]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow(name, guard):
    assert guard(name, read(name)) == []


def first_step(flow, key):
    return next(step for _, step in steps_of(flow) if key in step)


BAD = [
    (required_keys, lambda flow: flow.pop("permissions")),
    (required_keys, lambda flow: flow.pop("concurrency")),
    (required_keys, lambda flow: flow["jobs"]["test"].pop("timeout-minutes")),
    (no_expression_in_a_shell, lambda flow: first_step(flow, "run").update(run="echo ${{ github.event.issue.title }}")),
    (no_expression_in_a_shell, lambda flow: first_step(flow, "run").update(run="make run CHAPTER=${{ inputs.chapter }}")),
    (few_rights, lambda flow: flow.update(permissions="write-all")),
    (few_rights, lambda flow: flow["permissions"].update(contents="write")),
    (few_rights, lambda flow: flow["jobs"]["test"].update(permissions={"pages": "write"})),
    (pinned_actions, lambda flow: first_step(flow, "uses").update(uses="actions/checkout@main")),
    (pinned_actions, lambda flow: first_step(flow, "uses").update(uses="somebody/checkout@v4")),
    (no_credentials_left, lambda flow: first_step(flow, "uses").pop("with")),
    (shell_is_bash, lambda flow: first_step(flow, "run").update(run="if true; then echo")),
    (shell_is_bash, lambda flow: flow.pop("defaults")),
    (named_things_exist, lambda flow: first_step(flow, "run").update(run="make everything")),
    (named_things_exist, lambda flow: first_step(flow, "run").update(run="python book/absent.py")),
    (named_things_exist, lambda flow: first_step(flow, "run").update(run="bash .ci/walk")),
    (python_of_the_project, lambda flow: first_step(flow, "run").update(run="make install PYTHON=python3.9")),
]


@pytest.mark.parametrize(("guard", "spoil"), BAD, ids=[f"{guard.__name__}-{n}" for n, (guard, _) in enumerate(BAD)])
def test_guard_objects_to_a_bad_workflow(guard, spoil):
    flow = copy.deepcopy(read("test"))
    spoil(flow)
    assert guard("test", flow)


# --- what each is for --------------------------------------------------------------------------------------------------


def test_there_are_three():
    assert set(WORKFLOWS) == {"test", "publish", "gpu"}


def test_tests_run_on_pushes_and_pull_requests_and_keep_the_pages():
    flow = read("test")
    assert flow["on"]["push"] == {"branches": ["main"]} and "pull_request" in flow["on"]
    assert "bash .ci/run" in shell_of(flow) and any("install --with-deps chromium" in run for run in shell_of(flow))
    (kept,) = [step for _, step in steps_of(flow) if step.get("uses", "").startswith("actions/upload-artifact")]
    assert kept["if"] == "always()" and "_build/html" in kept["with"]["path"]
    assert any(step.get("if") == "failure()" and "GITHUB_STEP_SUMMARY" in step["run"] for _, step in steps_of(flow))


def test_pages_come_from_main_after_its_tests_only():
    flow = read("publish")
    assert flow["on"] == {"workflow_run": {"workflows": [read("test")["name"]], "types": ["completed"], "branches": ["main"]}}
    build, deploy = flow["jobs"]["build"], flow["jobs"]["deploy"]
    assert build["if"].split(" && ") == [
        f"github.event.workflow_run.{k} == '{v}'" for k, v in (("conclusion", "success"), ("event", "push"))
    ]
    assert build["steps"][0]["with"]["ref"] == "${{ github.event.workflow_run.head_sha }}"
    assert deploy["needs"] == "build" and deploy["environment"]["name"] == "github-pages"


def test_neither_tests_nor_pages_go_without_the_live_pages_runtime():
    """Its absence is a warning to a reader who builds the book, and an error here."""
    (step,) = [step for _, step in steps_of(read("publish")) if step.get("run") == "make book"]
    assert step["env"] == {"SEEING_WHY_REQUIRE_RUNTIME": "1"}
    assert re.search(r"^export .*\bSEEING_WHY_REQUIRE_RUNTIME=1$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)


def test_only_the_branch_of_runnable_notebooks_is_written():
    """`contents: write` is for one job, which checks nothing out and pushes to `run`, the branch that Colab's buttons open."""
    jobs = read("publish")["jobs"]
    assert [job for job, body in jobs.items() if body.get("permissions", {}).get("contents") == "write"] == ["notebooks"]
    assert not any(step.get("uses", "").startswith("actions/checkout") for step in jobs["notebooks"]["steps"])
    pushes = [line.strip() for run in shell_of(read("publish")) for line in run.splitlines() if "git push" in line]
    assert len(pushes) == 1 and pushes[0].endswith(" run")
    assert 'BRANCH = "run"' in (ROOT / "book/_ext/reading.py").read_text(encoding="utf-8")


def test_the_gpu_run_offers_what_there_is_and_pushes_nothing():
    flow = read("gpu")
    inputs = flow["on"]["workflow_dispatch"]["inputs"]
    chapters = [path.stem for path in sorted((ROOT / "book/profiles/paper").glob("*.yaml"))]
    assert inputs["chapter"]["options"] == ["all", *chapters]
    assert set(inputs["profile"]["options"]) == {path.name for path in (ROOT / "book/profiles").iterdir()}
    assert flow["on"]["schedule"] and flow["concurrency"] == {"group": "gpu", "cancel-in-progress": False}
    assert "gpu" in flow["jobs"]["run"]["runs-on"]
    assert not any(re.search(r"git (push|commit)|\bgh\b", run) for run in shell_of(flow))


def gpu_step(tmp_path: Path, **given: str) -> tuple[int, str]:
    """Run the step that starts the chapter, with a `make` that only writes down what it was called with."""
    (run,) = [run for run in shell_of(read("gpu")) if "make run" in run]
    (tmp_path / "make").write_text('#!/bin/bash\nprintf "%s\\n" "$@" >called\n', encoding="utf-8")
    (tmp_path / "make").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CHAPTER": "all", "PROFILE": "paper", "PARAMETERS": ""} | given
    result = subprocess.run(["bash", "-eo", "pipefail", "-c", run], cwd=tmp_path, env=environment, capture_output=True, text=True)
    called = tmp_path / "called"
    return result.returncode, called.read_text(encoding="utf-8") if called.is_file() else result.stderr


def test_parameters_reach_the_run(tmp_path):
    code, called = gpu_step(tmp_path, PARAMETERS="N_IMAGES=500 DEVICE=cuda:1")
    assert code == 0
    arguments = "ARGS=-p RESULTS ../data/results -p N_IMAGES 500 -p DEVICE cuda:1"
    assert called.splitlines() == ["run", "CHAPTER=all", "PROFILE=paper", arguments]


@pytest.mark.parametrize(
    "bad", ["N=1; touch x", "N=$(id)", "N=`id`", "N=1|sh", "N=1&", "N='1'", "N=1\ntouch x", "N_IMAGES", "=3", "N=${HOME}"]
)
def test_an_input_that_could_be_a_command_is_refused(tmp_path, bad):
    code, said = gpu_step(tmp_path, PARAMETERS=bad)
    assert code != 0 and ("only letters" in said or "NAME=value" in said)
    if "=" in bad[1:]:
        assert gpu_step(tmp_path, CHAPTER=bad)[0] != 0
