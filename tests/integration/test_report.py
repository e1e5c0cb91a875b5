"""The pages of tables in a browser: alone, and inside a report of Snakemake."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from busflow.tables.page import link_pages, write_page
from busflow.tables.table import Table, write
from studies import snakemake

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver"),
]
SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1366,900"
)
TRICKY = "</script><b>Nano</b>"
NOTICE = "DEMO: no meaning"
WORKFLOW = """
rule all:
    input: "results/tables/scores.html", "results/audit/ledger.html"
rule page:
    output: report("results/{room}/{name}.html", category="Pages", labels={"page": "{name}"})
    shell: "cp made/{wildcards.room}/{wildcards.name}.html {output}"
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for switch in [*SWITCHES.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"]:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The folder of two pages: scores of three models under two protocols, and a ledger that links there."""
    folder = tmp_path_factory.mktemp("report") / "made"
    scores = pd.DataFrame(
        {
            "Protocol": ["Paper protocol"] * 3 + ["Grouped protocol"] * 3,
            "Model": ["Atto", TRICKY, "Tiny"] * 2,
            "n": ["1,000", "20", "300", "9", "n/a (n=0)", "10"],
        }
    )
    ledger = pd.DataFrame(
        {
            "Id": ["T1.a", "T1.b", "T1.c"],
            "Why": ["short", "the needle in the hay " * 20, "short"],
            "Verdict": ["reproduced", "contradicted", "reproduced"],
        }
    )
    for name, shown, links in (
        ("tables/scores", scores, ()),
        ("audit/ledger", ledger, ("tables/scores.html",) * 3),
    ):
        paths = [folder / f"{name}.{kind}" for kind in ("csv", "md", "html")]
        table = Table(f"Title of {name}", shown, shown, ["A note."], links)
        write(table, *paths[:2], NOTICE)
        write_page(table, paths[2], paths[0], NOTICE)
    return folder


def wait(browser, condition):
    return WebDriverWait(browser, 60).until(lambda _: condition())


def one(browser, selector):
    return wait(browser, lambda: next(iter(browser.find_elements(By.CSS_SELECTOR, selector)), None))


def open_page(browser, path: Path) -> None:
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what came before is no concern of this page
    browser.get(path.as_uri())
    one(browser, "body.ready")


def column(browser, title: str) -> list[str]:
    titles = [each.text for each in browser.find_elements(By.CSS_SELECTOR, "thead th")]
    cells = f"tbody tr > :nth-child({titles.index(title) + 1})"
    return [each.text for each in browser.find_elements(By.CSS_SELECTOR, cells)]


# What lies in the page, beside it, or in the browser itself, which opens a page of its own first.
OWN = ("file:", "data:", "blob:", "chrome:", "chrome-untrusted:")


def assert_quiet(browser) -> None:
    """No error, and nothing asked of a network."""
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert urls and [url for url in urls if not url.startswith(OWN)] == []


def test_a_table_is_sorted_by_its_numbers_and_back(browser, pages):
    open_page(browser, pages / "tables/scores.html")
    before = column(browser, "n")
    head = browser.find_element(By.XPATH, "//thead//th[.//*[text()='n']]")
    head.click()
    assert column(browser, "n") == ["1,000", "300", "20", "10", "9", "n/a (n=0)"]
    head.click()
    assert column(browser, "n")[-3:] == ["20", "300", "1,000"]
    head.click()
    assert column(browser, "n") == before
    assert_quiet(browser)


def test_a_table_is_filtered_by_protocol_and_model_and_searched(browser, pages):
    open_page(browser, pages / "tables/scores.html")
    Select(one(browser, "select[aria-label=Protocol]")).select_by_visible_text("Grouped protocol")
    assert column(browser, "n") == ["9", "n/a (n=0)", "10"]
    model = Select(one(browser, "select[aria-label=Model]"))
    model.select_by_visible_text(TRICKY)  # a label is text to the filter too
    assert column(browser, "Model") == [TRICKY] and one(browser, ".dt-info").text == "1 of 6 rows"
    model.select_by_index(0)
    one(browser, "input[type=search]").send_keys("tiny")
    assert column(browser, "n") == ["10"]
    assert_quiet(browser)


def test_the_notice_stands_above_and_the_notes_below(browser, pages):
    open_page(browser, pages / "tables/scores.html")
    tops = [one(browser, selector).location["y"] for selector in ("h1", ".notice", "table", "footer li")]
    assert tops == sorted(tops) and one(browser, ".notice").text == NOTICE


def test_the_ledger_folds_long_cells_and_shows_verdicts_in_colour(browser, pages):
    open_page(browser, pages / "audit/ledger.html")
    row = browser.find_elements(By.CSS_SELECTOR, "tbody tr")[1]
    folded = row.size["height"]
    row.find_element(By.CSS_SELECTOR, "td.long").click()
    assert row.size["height"] > 2 * folded
    row.find_element(By.CSS_SELECTOR, "td.long").click()
    assert row.size["height"] == folded
    verdicts = browser.find_elements(By.CSS_SELECTOR, "[data-verdict]")
    colours = [each.value_of_css_property("background-color") for each in verdicts]
    assert colours[0] == colours[2] != colours[1]
    Select(one(browser, "select[aria-label=Verdict]")).select_by_visible_text("contradicted")
    assert column(browser, "Id") == ["T1.b"]
    Select(one(browser, "select[aria-label=Verdict]")).select_by_index(0)
    one(browser, "input[type=search]").send_keys("needle")  # what is folded is found
    assert column(browser, "Id") == ["T1.b"]
    assert_quiet(browser)


def test_a_claim_opens_its_table_beside_the_ledger(browser, pages):
    open_page(browser, pages / "audit/ledger.html")
    browser.find_element(By.LINK_TEXT, "T1.a").click()
    assert wait(browser, lambda: browser.current_url).endswith("made/tables/scores.html")


def test_a_claim_opens_its_table_inside_the_report(browser, pages):
    folder = pages.parent
    (folder / "Snakefile").write_text(WORKFLOW)
    options = ("--snakefile", "Snakefile", "--workflow-profile", "none", "--cores", 1, "--quiet", "all")
    snakemake(*options, cwd=folder)
    snakemake("--report", "report.html", *options, cwd=folder)
    link_pages(folder / "report.html")
    shutil.rmtree(folder / "results")  # the report is one file
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get((folder / "report.html").as_uri())
    wait(browser, lambda: browser.find_element(By.XPATH, "//a[.//span[text()='Results']]")).click()
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "td a"))[0].click()
    browser.switch_to.frame(one(browser, "iframe"))
    assert one(browser, "body.ready h1").text == "Title of audit/ledger"
    one(browser, "tbody a").click()
    browser.switch_to.default_content()
    wait(browser, lambda: "scores.html" in one(browser, "iframe").get_attribute("src")[:80])
    browser.switch_to.frame(one(browser, "iframe"))
    assert one(browser, "body.ready h1").text == "Title of tables/scores"
    assert TRICKY in column(browser, "Model")
    browser.switch_to.default_content()
    assert_quiet(browser)
