"""A run as JUnit XML, which CI services show."""

import re
from xml.etree import ElementTree as xml

from nbregress.run_store import RunStore

FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """Drop the characters that XML 1.0 does not allow."""
    return FORBIDDEN.sub("", text)


def text(store: RunStore) -> str:
    """Return ``junit.xml``: one test case a notebook."""
    rows = store.rows
    bad = [row for row in rows if row.status in ("failed", "drifted")]
    suite = xml.Element(
        "testsuite",
        name=f"notebooks.{store.plan.profile}",
        tests=str(len(rows)),
        failures=str(len(bad)),
        skipped=str(sum(row.status == "stopped" for row in rows)),
        time=str(round(sum(row.seconds for row in rows), 1)),
    )
    for row in rows:
        case = xml.SubElement(
            suite, "testcase", classname="notebooks", name=row.notebook, time=str(row.seconds)
        )
        if row in bad:
            failure = xml.SubElement(case, "failure", type=row.status, message=clean(row.reason))
            failure.text = clean("\n".join([*row.drifts, row.traceback]) or row.reason)
        elif row.status == "stopped":
            xml.SubElement(case, "skipped", message=row.reason)
    xml.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(suite, encoding="unicode")
