"""Files beside the documents that say something of the project."""

from __future__ import annotations

import re
import tomllib

import yaml

from .pages import ROOT


def test_every_hook_before_a_commit_is_a_target_of_the_makefile() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [each["repo"] for each in config["repos"]] == ["local"], "nothing is fetched"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    for hook in config["repos"][0]["hooks"]:
        command, target = hook["entry"].split()
        assert command == "make"
        assert target in targets
        assert hook["language"] == "system"


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert citation["references"][0]["doi"] in (ROOT / "README.md").read_text(encoding="utf-8")
