"""A report in a real headless browser: light, dark and on paper, and it loads nothing, whatever slipped into it."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading

import pytest
from PIL import Image

from edgewren_train.reporting.comparison import Candidate, ComparisonFacts
from edgewren_train.reporting.page import comparison_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no browser here (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A comparison's report: all of the frame, and two charts."""
    figures = [{"value": 0.7 + step, "low": 0.68 + step, "high": 0.72 + step} for step in (0.05, 0.0)]
    names = ("wide encoder", "small <encoder>")
    facts = ComparisonFacts(
        title="Two encoders",
        how="100 texts",
        candidates=[
            Candidate(n, f, f, 100.0 * (i + 1), 90.0) for i, (n, f) in enumerate(zip(names, figures, strict=True))
        ],
        tests=[("wide minus small", "+0.050 [+0.010, +0.090]", "p = 0.010")],
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(comparison_report(facts).html, encoding="utf-8")
    return path


def browse(folder, page, *options):
    """Open a page; the browser's own calls home are switched off, so that only the page could make any."""
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    result = subprocess.run(
        [*command, *quiet, "--window-size=1000,1400", *options, page.as_uri()],
        capture_output=True, text=True, timeout=120, cwd=folder,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def brightness(path):
    """Mean brightness of the upper left corner, which is paper, and whether anything is drawn at all."""
    with Image.open(path) as image:
        grey = image.convert("L")
        low, high = grey.getextrema()
        corner = grey.crop((0, 0, 20, 20))
        return sum(corner.tobytes()) / 400, high - low


def test_page_follows_light_and_dark(page, tmp_path):
    browse(tmp_path, page, "--screenshot=light.png")
    browse(tmp_path, page, "--blink-settings=preferredColorScheme=0", "--screenshot=dark.png")
    light, contrast = brightness(tmp_path / "light.png")
    dark, dark_contrast = brightness(tmp_path / "dark.png")
    assert light > 240
    assert dark < 40
    assert min(contrast, dark_contrast) > 150


def test_page_is_rendered_whole_and_prints(page, tmp_path):
    dom = browse(tmp_path, page, "--dump-dom")
    assert dom.count("<svg") == 2
    assert "small &lt;encoder&gt;" in dom
    assert "Made by edgewren" in dom
    browse(tmp_path, page, "--no-pdf-header-footer", "--print-to-pdf=page.pdf")
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert 1 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page/") + pdf.count(b"/Type /Page ") <= 3


@pytest.fixture
def server():
    """A local server that remembers what it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def test_policy_stops_what_slips_into_the_page(page, tmp_path, server):
    address, asked = server
    html = page.read_text(encoding="utf-8")
    slipped = f'<img src="{address}/img"><script src="{address}/js"></script><link rel=stylesheet href="{address}/css">'
    tainted = html.replace("</header>", f"{slipped}</header>")
    assert tainted != html
    (tmp_path / "tainted.html").write_text(tainted, encoding="utf-8")
    browse(tmp_path, tmp_path / "tainted.html", "--screenshot=tainted.png")
    assert asked == []
    # The control: without the policy, the same page does ask.
    (tmp_path / "open.html").write_text(tainted.replace("Content-Security-Policy", "X-Nothing"), encoding="utf-8")
    browse(tmp_path, tmp_path / "open.html", "--screenshot=open.png")
    assert {"/img", "/js", "/css"} <= set(asked)
