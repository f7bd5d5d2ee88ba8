"""The explorer in a real browser, from a real command: from unit to export, quiet, readable and inert."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from datasets import load_from_disk
from support import browsing
from support.report_material import hostile, images

import hf_midrange as hm
from hf_midrange.association import save_findings
from hf_midrange.association.findings import read_findings
from hf_midrange.explorer.index import Choice, Index
from hf_midrange.explorer.marks import edited, marks_in


pytestmark = pytest.mark.skipif(browsing.missing() is not None, reason=str(browsing.missing()))

WAIT = 60
"""Seconds that a server may take to start on a busy machine."""


@pytest.fixture(scope="module")
def browser():
    with browsing.browser() as started:
        yield started


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folders of curated rows and of their findings, by name."""
    folder, made = tmp_path_factory.mktemp("saved"), {}
    for name, ds in (("pictures", images(300)), ("hostile", hostile(300))):
        findings = hm.associate(ds)
        hm.curate(ds, findings, strategy="group").save_to_disk(folder / name)
        made[name] = folder / name, save_findings(findings, folder / f"{name}_findings")
    return made


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(command, port, folder, **environment):
    """Run a command that serves a page until it is interrupted; yield the address."""
    log = folder / "server.log"
    with log.open("w") as out:
        env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - it may be ignored in a background
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, env=env, preexec_fn=heard)
        try:
            yield _address(f"http://127.0.0.1:{port}", process, log)
            process.send_signal(signal.SIGINT)
            process.wait(10)
        finally:
            process.kill()
            process.wait()


def _address(url, process, log):
    """Return the address that the server prints, as soon as it does."""
    for _ in range(WAIT * 5):
        if printed := re.search(rf"{re.escape(url)}\S*", log.read_text()):
            return printed[0]
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    raise AssertionError(log.read_text())


@contextmanager
def explored(saved, name, folder):
    """Run `hf-midrange explore` on one of the saved sets."""
    port = free_port()
    rows, findings = saved[name]
    command = [sys.executable, "-m", "hf_midrange.commands.app", "explore", str(rows), "--findings", str(findings)]
    with serving([*command, "--output", "edited", "--port", str(port), "--no-browser"], port, folder) as url:
        yield url


@pytest.fixture(scope="module")
def pictures_url(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    with explored(saved, "pictures", folder) as url:
        yield url, folder


def shown(page):
    """Return the numbers of the rows on the page: members, strangers."""
    return page.evaluate(
        """[...document.querySelectorAll('.slots')].map(side => [...side.querySelectorAll('article.row')]
        .filter(row => row.offsetParent).map(row => Number(row.dataset.row)))"""
    )


def pages_of(index, choice):
    return [index.side(choice, members).rows.tolist() for members in (True, False)]


def until(page, expected, what=shown):
    """Wait until the page shows what is expected."""
    for _ in range(100):
        if what(page) == expected:
            return
        page.wait_for_timeout(100)
    assert what(page) == expected


def pick(page, name, option):
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def mark(page, row, word):
    slot = page.locator(".slot", has=page.locator(f"article[data-row='{row}']"))
    slot.get_by_role("radio", name=word, exact=True).check(force=True)


def test_from_unit_to_export(browser, saved, pictures_url):
    url, folder = pictures_url
    ds = load_from_disk(saved["pictures"][0])
    index = Index(ds, read_findings(saved["pictures"][1]))
    with browsing.visited(browser, url) as seen:
        page = seen.page
        page.wait_for_selector("article.row")
        confirmed = index.concepts.index("tags: tied")
        first = index.jumps()[0].choice
        assert (first.unit, first.concept, first.having) == (0, confirmed, "tie")
        until(page, pages_of(index, first))  # the shortcut is open at the start
        assert page.locator("#findings input").first.is_checked()

        pick(page, "unit", "class_1")
        second = Choice(unit=1, level=index.middle_of(1), concept=confirmed, having="tie")
        until(page, pages_of(index, second))
        page.locator("#level input[type=number]").fill("2.5")
        page.locator("#level input[type=number]").press("Enter")
        until(page, pages_of(index, Choice(unit=1, level=2.5, concept=confirmed, having="tie")))
        page.locator("#having").get_by_text("with it or without").click()
        until(page, pages_of(index, Choice(unit=1, level=2.5, concept=confirmed)))
        pick(page, "label", "class_2")
        until(page, pages_of(index, Choice(unit=1, level=2.5, concept=confirmed, label=2)))
        assert "No row here meets the filters" in page.inner_text("body")  # class_2 has no members of class_1
        page.get_by_role("button", name="Farther rows").click()
        third = pages_of(index, Choice(unit=1, level=2.5, concept=confirmed, label=2, page=1))
        until(page, third)

        marks = dict(zip(third[1], ("drop", "mislabelled", "keep"), strict=False))
        for row, word in marks.items():
            mark(page, row, word)
            page.get_by_text(f"row {row}: {word}").wait_for()
        page.locator("#findings input").first.check(force=True)  # elsewhere and back: marks stay
        until(page, pages_of(index, first))
        page.locator("#having").get_by_text("with it or without").click()
        page.locator("#among").get_by_text("marked by you").click()
        pick(page, "concept", "any")
        until(page, sorted(marks), lambda page: sorted(row for side in shown(page) for row in side))
        page.get_by_role("button", name="Write the edited data set").click()
        page.get_by_text("Wrote 300 rows").wait_for()
        assert [line for line in seen.console if not line.startswith("log")] == []
        assert seen.strays(url) == []
    made, expected = load_from_disk(folder / "edited"), edited(ds, marks)
    assert marks_in(made) == marks
    for name in ("keep", "weight", "reason", "label", "logits", "mark"):
        assert made[name][:] == expected[name][:]
    assert hm.curation_report(made) == hm.curation_report(ds)


@pytest.mark.parametrize(("width", "scheme"), [("desk", "light"), ("phone", "dark")])
def test_accessible_and_quiet(browser, pictures_url, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    url, _ = pictures_url
    with browsing.visited(browser, url, browsing.WIDTHS[width], scheme) as seen:
        page = seen.page
        page.wait_for_selector("article.row")
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= browsing.WIDTHS[width]
        assert page.locator("article img:not([alt]), article img[alt='']").count() == 0
        told = Axe().run(page, options=browsing.RULES).response
        assert [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in told["violations"]] == []
        assert seen.console == []
        assert seen.strays(url) == []


def test_hostile_rows_run_nothing(browser, saved, tmp_path):
    with explored(saved, "hostile", tmp_path) as url, browsing.visited(browser, url) as seen:
        page = seen.page
        page.wait_for_selector("article.row")
        for name in ("label", "concept", "unit"):
            page.locator(f"#{name} input").click()
            page.get_by_role("option").nth(2).click()
            page.wait_for_timeout(300)
        page.locator("#having").get_by_text("with it or without").click()
        page.wait_for_timeout(500)
        assert page.title() == "hf_midrange explorer"
        assert (
            page.locator("[onerror], .hm script, .hm iframe, .hm style, svg[onload], a[href^='javascript']").count()
            == 0
        )
        assert "document.title='owned'" in page.inner_text("body")
        assert [line for line in seen.console if line.startswith(("error", "dialog"))] == []
        assert seen.strays(url) == []


def in_space(port):
    """Return what a Space sets."""
    return {"SPACE_ID": "me/look", "SYSTEM": "spaces", "SPACE_HOST": "localhost", "GRADIO_SERVER_PORT": str(port)}


@pytest.mark.slow
def test_a_written_space_opens(browser, saved, tmp_path):
    rows, findings = saved["pictures"]
    command = [sys.executable, "-m", "hf_midrange.commands.app", "explore", str(rows), "--findings", str(findings)]
    subprocess.run([*command, "--space", "me/look", "--output", str(tmp_path / "space")], check=True)
    port = free_port()
    app = [sys.executable, str(tmp_path / "space" / "app.py")]
    with (
        serving(app, port, tmp_path, **in_space(port)) as url,
        browsing.visited(browser, url) as seen,
    ):
        seen.page.wait_for_selector("article.row")
        for name in ("Write the edited data set", "Publish privately"):
            assert seen.page.get_by_role("button", name=name).count() == 0


WATCHED = """
import sys
from pathlib import Path
asked = []
sys.addaudithook(lambda event, args: asked.append(args[1]) if event == "socket.connect" else None)
from datasets import load_from_disk
import hf_midrange as hm
from hf_midrange.association import load_findings
rows, findings, port = sys.argv[1:]
app = hm.explore(load_from_disk(rows), load_findings(findings), port=int(port), output_dir="out", block=False)
app.close()
print("asked", sorted({address[0] for address in asked if isinstance(address, tuple)} - {"127.0.0.1", "::1"}))
"""


@pytest.mark.slow
def test_the_server_asks_nobody_else(saved, tmp_path):
    words = [sys.executable, "-c", WATCHED, *map(str, saved["pictures"]), str(free_port())]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^asked \[\]$", done.stdout, flags=re.MULTILINE), done.stdout
