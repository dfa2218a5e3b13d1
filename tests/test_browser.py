import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")

pytest_plugins = ["report_fixtures"]
pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# Contrast of an element's text with what is painted behind it, as WCAG defines it.
CONTRAST = """e => {
    const luminance = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const clear = p => /rgba\\(.*, 0\\)/.test(getComputedStyle(p).backgroundColor);
    let behind = e;
    while (clear(behind)) behind = behind.parentElement;
    const text = luminance(getComputedStyle(e).color);
    const ground = luminance(getComputedStyle(behind).backgroundColor);
    return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "playwright.Browser") -> Iterator["playwright.Page"]:
    """A page in a fresh profile; afterwards: nothing complained, nothing came from elsewhere."""
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda m: m.type in {"error", "warning"} and complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda r: complaints.append(f"{r.failure}: {r.url}"))
    page.on("request", lambda request: requests.append(request.url))
    yield page
    context.close()
    assert not complaints
    assert requests
    assert not [url for url in requests if not url.startswith(("file:", "data:"))]


def open_page(page: "playwright.Page", site: Path, name: str) -> None:
    page.goto((site / name).as_uri(), wait_until="networkidle")
    if page.locator(".math").count():
        page.wait_for_function("document.querySelectorAll('mjx-container').length > 0")


def test_every_page_opens_and_fits_a_phone(page, report):
    site = report / "build" / "html"
    page.set_viewport_size(PHONE)
    names = {path.name for path in site.glob("*.html")} - {"genindex.html"}
    assert {"index.html", "02_epsilon_study.html", "api.html"} <= names
    for name in sorted(names):
        open_page(page, site, name)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        escaped = page.evaluate(
            """[...document.querySelectorAll('.bd-article *')].filter(e => {
                if (!e.checkVisibility() || e.getBoundingClientRect().right <= innerWidth + 1)
                    return false;
                for (let p = e.parentElement; p; p = p.parentElement)
                    if (getComputedStyle(p).overflowX !== 'visible')
                        return p.matches('.bd-main, body');
                return true;
            }).map(e => e.outerHTML.slice(0, 200))"""
        )
        assert not escaped, name


def test_math_is_typeset(page, site):
    open_page(page, site, "01_sample_loss.html")
    assert page.locator("mjx-container").count() == page.locator(".math").count() >= 2
    assert page.locator("mjx-merror").count() == 0
    assert page.evaluate("document.fonts.check('16px MJXTEX-I')")


def test_search_finds_a_word_of_a_notebook(page, site):
    page.goto((site / "search.html").as_uri())
    field = page.locator(".bd-search-container input[name=q], .bd-article input[name=q]").first
    field.fill("wombat")
    field.press("Enter")
    hit = page.locator("ul.search li a")
    hit.first.wait_for()
    assert hit.all_inner_texts() == ["Sample loss"]
    hit.first.click()
    page.wait_for_url("**/01_sample_loss.html*")


def test_pages_link_to_each_other(page, site):
    open_page(page, site, "index.html")
    page.locator(".bd-article").get_by_role("link", name="Sample study").click()
    page.wait_for_url("**/02_sample_study.html")
    page.get_by_role("link", name="Fig. 1").click()
    page.wait_for_url("**/01_sample_loss.html#fig-sample")
    assert page.locator("#fig-sample img").evaluate("e => e.naturalWidth") > 0
    page.get_by_role("link", name="2019").click()
    page.wait_for_url("**/bibliography.html#*")


def test_theme_switches_and_figures_stay_legible(page, site):
    open_page(page, site, "01_sample_loss.html")
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    page.get_by_role("button", name="Color mode").click()
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(theme) == "dark"
    style = page.locator("#fig-sample img").evaluate(
        "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).filter]"
    )
    assert style == ["rgb(255, 255, 255)", "none"]
    tables = page.locator("div.cell_output table")
    assert tables.count() == 2
    for head in tables.locator("thead th:last-child").all():
        assert head.evaluate(CONTRAST) >= 7
    page.reload()
    assert page.evaluate(theme) == "dark"


def test_code_is_folded_until_asked_for(page, site):
    open_page(page, site, "01_sample_loss.html")
    code = page.locator("div.cell_input pre", has_text="subplots")
    assert not code.is_visible()
    page.locator("details", has=code).locator("summary").click()
    assert code.is_visible()
