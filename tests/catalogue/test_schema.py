import json
from pathlib import Path

import pytest

from deephpc.catalogue.document import Document, parse_document
from deephpc.catalogue.schema import check_schema, shape_of
from tests.catalogue.samples import V1, V2

RECORDED = Path(__file__).parent.parent / "recorded" / "ai4-metadata-2.4.2-verdicts.jsonl"


def test_our_verdicts_are_those_of_the_published_schemas() -> None:
    cases = [json.loads(line) for line in RECORDED.read_text().splitlines()[1:]]
    assert len(cases) >= 200
    assert {case["valid"] for case in cases} == {True, False}
    for case in cases:
        findings = list(check_schema(Document(case["document"])))
        assert (shape_of(case["document"]), not findings) == (case["schema"], case["valid"]), (case, findings)


def test_the_schema_is_told_by_shape_and_not_by_what_the_file_says() -> None:
    assert shape_of({"metadata_version": "1.4.0", "links": {}, "tasks": []}) == "2"
    assert shape_of({"metadata_version": "2.0.0", "sources": {}, "keywords": []}) == "1"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("tasks:\n  - Computer Vision", "tasks:\n  - Vision", 15, "'Vision' is none of: Computer Vision"),
        ("cpu: 8", "cpu: '8'", 23, "should be a whole number, 0 or more, not '8'"),
        ("title: Leaf counter", "title: [x]", 2, "should be text"),
        ("  - botany", "  - botany\n  - botany", 14, "'botany' is listed twice"),
        ("metadata_version: 2.0.0", "metadata_version: two", 1, "is not a version"),
        ("  updated: '2024-02-01'\n", "", 6, "is missing"),
        ("tags:", "keywords: []\ntags:", 12, "belongs to version 1"),
    ],
)
def test_an_error_names_line_and_value(old: str, new: str, line: int, message: str) -> None:
    assert old in V2
    findings = list(check_schema(parse_document(V2.replace(old, new), "ai4-metadata.yml")))
    assert [(finding.line, message in finding.message) for finding in findings] == [(line, True)], findings


def test_good_files_of_both_versions_have_no_errors() -> None:
    assert list(check_schema(parse_document(V2, "ai4-metadata.yml"))) == []
    assert list(check_schema(parse_document(V1, "metadata.json"))) == []


@pytest.mark.parametrize("text", ["", "- a", "text", "3"])
def test_what_is_no_table_is_one_error(text: str) -> None:
    assert [finding.level for finding in check_schema(parse_document(text, "x.yml"))] == ["error"]
