"""The results that were sent agree with themselves, and the page is made of them."""

import json
import runpy

import jsonschema
import pytest
import yaml
from support.pages import ROOT, read

from trainer_ext.reproduction.document import disagreements, schema

FILES = sorted((ROOT / "docs" / "reproductions").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_result_that_was_sent(file):
    found = json.loads(file.read_text())
    jsonschema.validate(found, schema())
    assert disagreements(found) == []
    assert found["embedded"] == (found["model"] == "embedded") == file.name.startswith("embedded-")


def test_the_page_is_what_the_generator_writes():
    page = read("docs/reproductions.md")
    assert runpy.run_path(ROOT / "docs" / "write_reproductions.py")["rewritten"](page) == page


def test_nothing_but_results_is_there():
    assert [path for path in (ROOT / "docs" / "reproductions").iterdir() if path not in FILES] == []


def test_the_embedded_model_shows_every_outcome():
    shown = {json.loads(file.read_text())["outcome"] for file in FILES if file.name.startswith("embedded-")}
    assert shown == {"PASS", "FAIL", "INCONCLUSIVE"}


def test_results_of_other_models_have_a_table_of_their_own():
    written = runpy.run_path(ROOT / "docs" / "write_reproductions.py")
    assert written["results"]({}, embedded=False) == "None yet."
    found = json.loads(FILES[0].read_text())
    sent = {"sd15.json": {**found, "model": "owner/a|b", "embedded": False}, FILES[0].name: found}
    rows = written["results"](sent, embedded=False).splitlines()
    assert len(rows) == 3
    assert f"[{found['outcome']}](reproductions/sd15.json)" in rows[2]
    assert rows[2].replace("owner/a&#124;b", "").count("|") == rows[0].count("|")


def test_the_form_for_issues_can_be_read():
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "reproduction.yml").read_text())
    assert [field["id"] for field in form["body"] if "id" in field] == ["result", "command", "notes"]
