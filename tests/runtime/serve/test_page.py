"""The web page in a real headless browser, against a real server. EDGEWREN_SCREENSHOTS=DIR keeps pictures."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser, server, request):
    """The page, which must neither complain nor ask another server for anything."""
    context = browser.new_context(viewport={"width": 1000, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    complaints, foreign = [], []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "request", lambda r: foreign.append(r.url) if not r.url.startswith((server.url, "data:", "blob:")) else None
    )
    opened.goto(server.url)
    yield opened
    picture(opened, request.node.name.partition("[")[0].removeprefix("test_"))
    context.close()
    assert not complaints
    assert not foreign


def picture(page, name):
    folder = os.environ.get("EDGEWREN_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"serve-{name}.png", full_page=True)


def test_pasted_texts_get_labels_scores_and_a_chart(page):
    page.fill("#texts", "good vote\nbad tax\n\nthe senate bill <b>not bold</b>\n")
    page.click("#go")
    page.wait_for_selector("#rows tr")
    assert page.locator("#rows tr").count() == 3
    assert page.locator("#heading").inner_text() == "3 texts"
    assert set(page.locator("#rows td:first-child").all_inner_texts()) <= {"neutral", "partisan"}
    assert page.locator("#rows tr:nth-child(3) td:nth-child(3)").inner_text() == "the senate bill <b>not bold</b>"
    assert page.locator("#histogram svg rect").count() > 0
    assert "neutral" in page.locator("#shares").inner_text()


def test_a_dropped_csv_comes_back_with_its_columns_and_scores(page, tmp_path):
    rows = [[str(9007199254740993 + number), f'text "{number}", with\na line'] for number in range(600)]
    source = tmp_path / "tweets.csv"
    with source.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["id", "text"], *rows])
    page.set_input_files("#file", source)
    page.wait_for_selector("#results:not([hidden])", timeout=60_000)
    assert page.locator("#heading").inner_text() == "600 texts"
    assert "first 200 of 600" in page.locator("#more").inner_text()
    with page.expect_download() as download:
        page.click("#download")
    with Path(download.value.path()).open(encoding="utf-8", newline="") as stream:
        got = list(csv.DictReader(stream))
    assert [[row["id"], row["text"]] for row in got] == rows
    assert all(0.5 <= float(row["score"]) <= 1 for row in got)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'id,text\n1,"no end', "closing quote is missing"),
        (b"id,text\n1,\xff\n", "not UTF-8"),
        (b"id,text\n", "no rows"),
        (b"a,b\n1,2\n", "Choose the column"),
    ],
)
def test_files_that_cannot_be_read_are_said(page, tmp_path, content, said):
    source = tmp_path / "bad.csv"
    source.write_bytes(content)
    page.set_input_files("#file", source)
    page.wait_for_function("document.getElementById('status').textContent !== ''")
    assert said in page.locator("#status").inner_text()


def test_the_description_is_readable_in_a_browser(page, server):
    page.goto(server.url + "/docs")
    assert "POST /predict" in page.locator("main").inner_text()
