"""JUnit XML: against a schema, and through a parser that is not ours."""

from __future__ import annotations

import pytest
from cases import NET, checks, every, hostile, net, reports, scans

from ckptaudit import audit
from ckptaudit.report import render
from ckptaudit.report.junit import render_junit

junitparser = pytest.importorskip("junitparser")
xmlschema = pytest.importorskip("xmlschema")

# The part of the grammar of Jenkins (junit-10.xsd of its xunit plugin) that a report without times may use.
SCHEMA = """
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:complexType name="result" mixed="true">
    <xs:attribute name="type" type="xs:string"/>
    <xs:attribute name="message" type="xs:string"/>
  </xs:complexType>
  <xs:attributeGroup name="counts">
    <xs:attribute name="name" type="xs:string" use="required"/>
    <xs:attribute name="tests" type="xs:nonNegativeInteger" use="required"/>
    <xs:attribute name="failures" type="xs:nonNegativeInteger" use="required"/>
    <xs:attribute name="errors" type="xs:nonNegativeInteger" use="required"/>
  </xs:attributeGroup>
  <xs:element name="testcase">
    <xs:complexType>
      <xs:choice minOccurs="0" maxOccurs="unbounded">
        <xs:element name="error" type="result"/>
        <xs:element name="failure" type="result"/>
        <xs:element name="system-out" type="xs:string"/>
      </xs:choice>
      <xs:attribute name="name" type="xs:string" use="required"/>
      <xs:attribute name="classname" type="xs:string" use="required"/>
    </xs:complexType>
  </xs:element>
  <xs:element name="testsuite">
    <xs:complexType>
      <xs:sequence><xs:element ref="testcase" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
      <xs:attributeGroup ref="counts"/>
    </xs:complexType>
  </xs:element>
  <xs:element name="testsuites">
    <xs:complexType>
      <xs:sequence><xs:element ref="testsuite" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
      <xs:attributeGroup ref="counts"/>
    </xs:complexType>
  </xs:element>
</xs:schema>
"""


@pytest.fixture(scope="module")
def schema():
    return xmlschema.XMLSchema(SCHEMA)


def suites(report):
    return list(junitparser.JUnitXml.fromstring(render(report, "junit").encode()))


def outcome(case):
    """Return passed, failure or error, with type and message."""
    found = [one for one in case.result if isinstance(one, (junitparser.Failure, junitparser.Error))]
    return ("passed", None, None) if not found else (type(found[0]).__name__.lower(), found[0].type, found[0].message)


@pytest.mark.parametrize("name", every())
def test_documents_follow_the_schema_and_count_right(name, schema):
    text = render(every()[name], "junit")
    assert text.isascii()
    schema.validate(text)
    document = junitparser.JUnitXml.fromstring(text.encode())
    stated = (document.tests, document.failures, document.errors)
    document.update_statistics()
    assert stated == (document.tests, document.failures, document.errors)


def test_the_schema_refuses(schema):
    assert not schema.is_valid('<testsuites name="x" tests="1" failures="0"/>')


@pytest.mark.parametrize("name", every())
def test_it_fails_where_the_command_does(name):
    report = every()[name]
    cases = [outcome(case)[0] for suite in suites(report) for case in suite]
    assert ("failure" in cases or "error" in cases) == (report.exit_status != 0)
    assert ("error" in cases) == (report.exit_status == 2)


def test_a_test_per_contract_up_to_the_one_that_was_asked_for():
    (suite,) = suites(reports()["kept"])
    names = ["open", "partial", "strict"]
    assert [case.name for case in suite] == [f"manifest -> manifest: {name}" for name in names]
    assert {case.classname for case in suite} == {"ckptaudit.diff"}
    assert [outcome(case)[0] for case in suite] == ["passed"] * 3


def test_the_names_do_not_depend_on_the_outcome():
    names = [
        [case.name for case in suite]
        for name in ("kept", "broken", "mapped", "warned")
        for suite in suites(reports()[name])
    ]
    assert all(one == names[0] for one in names)


def test_the_weakest_broken_contract_has_the_findings_and_the_stronger_ones_fail_with_it():
    report = audit.diff(net(NET), net({**NET, "fc.weight": (7, 4), "old": (1,)}), contract="exact")
    (suite,) = suites(report)
    assert [outcome(case)[:2] for case in suite] == [
        ("passed", None),
        ("failure", "CKPT201 shape-mismatch"),
        ("failure", "CKPT102 unexpected-key"),
        ("failure", "contract"),
    ]
    assert outcome(list(suite)[3])[2] == "the weaker contract partial is broken"
    (failure,) = list(suite)[1].result
    assert "- fc.weight: checkpoint (7, 4), model (10, 4)" in failure.text


def test_what_could_not_be_checked_is_an_error():
    (suite,) = suites(reports()["unchecked"])
    assert [outcome(case)[0] for case in suite] == ["passed"] * 4 + ["error"]
    assert outcome(list(suite)[4])[1].startswith("CKPT905")


def test_warnings_and_accepted_findings_are_output():
    (suite,) = suites(reports()["warned"])
    assert list(suite)[-1].system_out.startswith("warning CKPT301 dtype-narrowed: ")
    (suite,) = suites(reports()["accepted"])
    assert list(suite)[-1].system_out.startswith("accepted CKPT201 shape-mismatch: ")


def test_a_scan_has_a_suite_per_file():
    report = scans()["rules"]
    found = {suite.name: [outcome(case)[0] for case in suite] for suite in suites(report)}
    expected = {"safe": "passed", "unsafe": "failure", "malformed": "failure", "incomplete": "error"}
    assert found == {file.path: [expected[file.verdict]] for file in report.files}


def test_several_reports_in_one_document(schema):
    text = render_junit([reports()["kept"], scans()["rules"]])
    schema.validate(text)
    assert len(list(junitparser.JUnitXml.fromstring(text.encode()))) == 1 + len(scans()["rules"].files)


def test_names_survive(schema):
    text = render(hostile(), "junit")
    schema.validate(text)
    (suite,) = junitparser.JUnitXml.fromstring(text.encode())
    said = "".join(one.text for case in suite for one in case.result)
    for part in ("</script><script>alert(1)</script>", "]]> & &amp; ]]", r"\x00\x1b[31mred\x07", "ключ.вес"):
        assert part in said


TARGETS = [("two", ""), ("three", "a.pth"), ("three", "net.json ->")]


def test_a_check_whose_files_are_not_there_has_passed_nothing():
    found = {suite.name: [outcome(case)[0] for case in suite] for suite in suites(checks()["missing"])}
    two, three, kept = ([v for k, v in found.items() if k.startswith(start) and end in k] for start, end in TARGETS)
    assert two == three == [["error"] * 3]
    assert kept == [["passed"] * 3]


def test_the_reason_of_an_accept_is_output():
    suite = suites(checks()["accepted"])[0]
    assert [outcome(case)[0] for case in suite] == ["passed"] * 3
    assert list(suite)[-1].system_out.endswith("(a new head @octocat)")
