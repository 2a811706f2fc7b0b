"""The reference page is as the docstrings are, and has every public name."""

from __future__ import annotations

import api_page
import headwater as hw


def test_the_page_is_made_from_the_docstrings_as_they_are():
    assert api_page.PAGE.read_text("utf-8") == api_page.page(), "make tree writes it again"


def test_every_public_name_is_on_the_page():
    page = api_page.page()
    assert all(f"hw.{name}" in page for name in (*hw.__all__, "open"))
    assert set(api_page.CLASSES) | set(api_page.FUNCTIONS) | {"evaluate", "HeadwaterError"} == {*hw.__all__, "open"}
