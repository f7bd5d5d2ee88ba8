"""The report in a real browser: what it shows, what it asks for, and that nothing in it runs."""

import pytest
from support import browsing
from support.report_material import head_of, hostile, images, texts

import hf_midrange as hm
from hf_midrange import columns


pytestmark = pytest.mark.skipif(browsing.missing() is not None, reason=str(browsing.missing()))

FAST = [("hostile", "phone", "dark"), ("pictures", "desk", "light")]
"""The others are slow: the check of contrasts looks at every word."""


@pytest.fixture(scope="module")
def browser():
    with browsing.browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of pictures, of texts and of hostile rows, as files."""
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for name, ds in (("pictures", images()), ("texts", texts()), ("hostile", hostile())):
        findings = hm.associate(ds)
        curated = hm.curate(ds, findings, strategy="group")
        head = hm.retrain_head(curated, head_of(curated))
        made[name] = hm.report(curated, findings, head=head).save(folder / name)
    return made


CASES = [
    pytest.param(name, width, scheme, marks=[] if (name, width, scheme) in FAST else pytest.mark.slow)
    for name in ("pictures", "texts", "hostile")
    for width in browsing.WIDTHS
    for scheme in browsing.SCHEMES
]


@pytest.mark.parametrize(("name", "width", "scheme"), CASES)
def test_quiet_readable_and_accessible_at_every_width_and_scheme(browser, pages, name, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    pixels = browsing.WIDTHS[width]
    with browsing.opened(browser, pages[name], pixels, scheme) as seen:
        page = seen.page
        assert page.evaluate("document.documentElement.scrollWidth") <= pixels
        assert page.locator("img:not([alt]), img[alt='']").count() == 0
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert page.evaluate("document.scripts.length") == 0
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (colour == "rgb(255, 255, 255)") == (scheme == "light")
        assert seen.console == []
        assert [url for url in seen.requests if not url.startswith(("data:", pages[name].as_uri()))] == []
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        told = Axe().run(page, options=browsing.RULES).response
        assert [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in told["violations"]] == []
        assert "color-contrast" in {each["id"] for each in told["passes"]}


def test_injected_markup_does_not_run(browser, pages):
    with browsing.opened(browser, pages["hostile"]) as seen:
        page = seen.page
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        page.wait_for_timeout(300)
        assert page.title().startswith("hf_midrange report")
        assert page.locator("script, iframe, object, embed, form, svg[onload], [onerror]").count() == 0
        assert page.locator("a:not([href^='#'])").count() == 0
        assert "<script>document.title" in page.inner_text("main")
        assert page.locator("h1").is_visible()  # injected style sheets hide nothing


def test_the_policy_stops_what_would_slip_through(browser, pages, tmp_path):
    """If escaping failed somewhere, the page's own policy still lets nothing run or load."""
    attack = "<script>document.title='owned'</script><img src='https://example.com/x.png'>"
    slipped = tmp_path / "slipped.html"
    slipped.write_text(pages["pictures"].read_text().replace("<main>", f"<main>{attack}", 1))
    with browsing.opened(browser, slipped) as seen:
        seen.page.wait_for_timeout(300)
        assert seen.page.title() != "owned"
        assert any("Content Security Policy" in line for line in seen.console)


def test_a_reader_gets_from_a_word_to_its_meaning_and_to_the_figures(browser, pages):
    with browsing.opened(browser, pages["texts"], 360) as seen:
        page = seen.page
        assert page.locator("#shortcut-1 mark").first.inner_text() == "Film"
        assert not page.locator("#words").is_visible()
        page.locator("#shortcut-1 a.badge").first.click()
        assert page.locator("#words").is_visible()
        page.locator("#shortcut-1 summary").first.click()
        assert page.locator("#shortcut-1 svg[role=img]").is_visible()


@pytest.mark.parametrize("name", ["pictures", "texts", "hostile"])
def test_the_page_is_four_screens_on_a_desktop_and_eight_on_a_phone(browser, pages, name):
    for width, screens in ((1280, 4), (390, 8)):
        with browsing.opened(browser, pages[name], width) as seen:
            assert seen.page.evaluate("document.documentElement.scrollHeight") <= screens * 844


def test_print_opens_what_is_folded(browser, pages, tmp_path):
    with browsing.opened(browser, pages["pictures"], 800) as seen:
        page = seen.page
        hidden = page.locator("#range table").first
        assert not hidden.is_visible()
        page.emulate_media(media="print")
        assert hidden.is_visible()
        page.pdf(path=tmp_path / "page.pdf", format="A4")
        assert (tmp_path / "page.pdf").stat().st_size > 10_000


def test_the_notebook_summary_is_quiet_too(browser, tmp_path):
    ds = hostile()
    made = hm.report(ds, hm.associate(ds))
    file = tmp_path / "cell.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><title>cell</title>{made._repr_html_()}")
    with browsing.opened(browser, file) as seen:
        seen.page.wait_for_timeout(200)
        assert seen.page.title() == "cell"
        assert seen.console == []
        assert columns.class_label(ds.features).names[0] in seen.page.inner_text("body")
