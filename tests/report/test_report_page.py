"""The page in a headless browser without a network: charts, filters, phone width, dark mode and accessibility."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_fixtures import Records, config

from mapnet_cli.report.stage import build

playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python isn't installed")
# A browser is no Python package, and `make test` must not need root. Without one, test_report_stage.py checks the
# page's HTML, data and files.
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH (Debian: apt-get install chromium)")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report with every kind of table and chart but minimal pairs and variances."""
    records = Records(tmp_path_factory.mktemp("page"), config(tasks=("RTE", "SST-2"), baselines=True, seeds=(1, 2, 3)))
    records.manifest()
    words = [("the", 0.05, False), ("computer", 0.6, True), ("computes", 0.35, True)]
    rates = {"kind": {"function": [1, 10], "content": [3, 10]}}
    for task in ("RTE", "SST-2"):
        records.task(task)
        records.baseline(task, majority={"accuracy": 0.5}, bag_of_words={"accuracy": 0.62})
    for shift, method in enumerate(("bert", "mapnet")):
        for step in (4, 10):
            records.checkpoint(method, 1, step, validation={"validation_loss_single": 6.0 - step / 10 - shift})
            records.masks(method, 1, step, [words], rates=rates)
            for task in ("RTE", "SST-2"):
                for seed in (1, 2, 3):
                    records.run(method, step, seed, 0.5 + 0.01 * (step + seed * shift), task=task)
    return build(records.lineage).files["index.html"].as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


def opened(browser: playwright.Browser, url: str, **options: object) -> playwright.Page:
    """Opens the page without a network and waits for its last chart; errors and requests fail the test."""
    page = browser.new_context(offline=True, **options).new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(url, timeout=300_000)
    page.wait_for_function(
        "[...document.querySelectorAll('.panel')].every((panel) => panel.querySelector('svg'))", timeout=300_000
    )
    assert problems == []
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_and_has_no_accessibility_violations(
    browser: playwright.Browser, url: str, width: int, scheme: str
) -> None:
    page = opened(browser, url, viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".panel svg").count() == 3 + 6 + 1
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_tables_sort_and_filter_by_keyboard_and_methods_are_hidden_everywhere(
    browser: playwright.Browser, url: str
) -> None:
    page = opened(browser, url)
    rows = page.locator("#table-table3 tbody tr:visible")
    assert rows.count() == 2 + 2, "the last checkpoints and the baselines"
    table = page.locator("#table-table3")
    table.get_by_label("Steps").select_option("all")
    assert rows.count() == 4 + 2
    table.get_by_label("Task").select_option("RTE")
    assert table.get_by_role("button", name="RTE").is_visible()
    assert not table.get_by_role("button", name="SST-2").is_visible()
    assert not rows.first.locator("td:last-child").is_visible(), "SST-2's cells"
    table.get_by_label("Task").select_option("all")
    assert table.get_by_role("button", name="SST-2").is_visible()
    page.get_by_role("button", name="RTE").first.focus()
    page.keyboard.press("Enter")
    assert rows.first.locator("th").inner_text() == "MAP-Net"
    assert page.locator("#table-table3 th[aria-sort=descending]").inner_text().startswith("RTE")
    points = page.locator("#chart-figure3 .panel").first.locator(".mark-symbol path")
    before = points.count()
    page.get_by_label("BERT", exact=True).uncheck()
    page.wait_for_function(
        f"document.querySelectorAll('#chart-figure3 .panel:nth-child(2) .mark-symbol path').length < {before}"
    )
    assert rows.count() == 2 + 2


def test_details_open_the_signature_and_the_data_of_a_chart(
    browser: playwright.Browser, url: str, tmp_path: Path
) -> None:
    page = opened(browser, url)
    page.locator("#tasks summary").click()
    assert page.locator("#tasks details.data tbody tr").count() > 4
    page.locator("#table-table3 .signed a").click()
    assert page.locator("#signature .signature").is_visible()
    word = page.locator("b.w[tabindex]").first
    word.focus()
    assert "probability" in (word.get_attribute("data-tip") or "")
    page.emulate_media(media="print")
    page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").stat().st_size > 10_000
