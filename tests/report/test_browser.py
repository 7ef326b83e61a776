"""Pages in a real browser: headless Chromium, on a desk and on a phone, with axe-core looking for barriers."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_evolutions import RESULT
from small_runs import make_run
from small_sweeps import make_sweep, sweep_values

from bitcorn_ray import compute_features, write_report
from bitcorn_ray.market.simulate import simulate_bars

CHROMIUM = shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
KINDS = ["run", "sweep", "evolution", "cache", "source"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: install the system's package")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, module_monkeypatch):
    """A page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    cache = folder / f"cache_{'of_a_long_name_' * 4}"  # which no line of a phone holds
    module_monkeypatch.setenv("BITCORN_CACHE_DIR", str(cache))
    bars = simulate_bars(1_300, seed=2, gaps=0)
    columns = bars.columns()
    source = folder / "AAAUSDT_1h.parquet"
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns}), source)
    run = make_run(folder / "run", {"AAAUSDT": bars.take(slice(900))})
    swept, _, _ = make_sweep(sweep_values(source, folder / "sweep"))
    evolved = shutil.copytree(swept.storage.address, folder / "evolution")
    (evolved / "evolution.json").write_text(json.dumps(RESULT))
    compute_features(source, system="v2")
    places = {
        "run": (run, source),
        "sweep": (swept.storage.address,),
        "evolution": (evolved,),
        "cache": (cache,),
        "source": (source,),
    }
    for kind, place in places.items():
        assert write_report(*place, out=folder / f"{kind}.html").kind == kind
    return folder


@pytest.fixture(scope="module")
def module_monkeypatch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def opened(browser, path, width, scheme="light"):
    """A page that was scrolled through, and what its console said."""
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"file://{path}")
    shown = 0
    while shown < page.evaluate("document.body.scrollHeight"):
        page.evaluate(f"scrollTo(0, {shown})")
        page.wait_for_timeout(80)
        shown += 600
    page.wait_for_function("[...document.querySelectorAll('.figure')].every(each => each.querySelector('.main-svg'))")
    return page, said


@pytest.mark.parametrize("kind", KINDS)
def test_every_chart_is_drawn_without_a_complaint(browser, pages, kind):
    page, said = opened(browser, pages / f"{kind}.html", 1_120)
    assert said == []
    drawn = page.evaluate(
        "[...document.querySelectorAll('.figure')].map(each => "
        "each.querySelectorAll('.trace path, .bars path, .heatmaplayer image, .parcoords, .point').length)"
    )
    assert len(drawn) >= 2
    assert min(drawn) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_wider_than_a_phone(browser, pages, kind):
    page, said = opened(browser, pages / f"{kind}.html", 390)
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_there_are_no_serious_barriers(browser, pages, kind, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page, _ = opened(browser, pages / f"{kind}.html", 1_120, scheme)
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")] == []


def test_dark_is_dark_and_charts_follow(browser, pages):
    page, _ = opened(browser, pages / "run.html", 1_120, "dark")
    ink = page.evaluate("getComputedStyle(document.body).color")
    label = page.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
    assert label == ink == "rgb(230, 233, 237)"


@pytest.mark.parametrize("kind", KINDS)
def test_a_printed_page_has_all_charts_whole_and_on_white(browser, pages, kind):
    page = browser.new_context(viewport={"width": 1_280, "height": 900}, color_scheme="dark").new_page()
    page.goto(f"file://{pages / kind}.html")
    widths = "[...document.querySelectorAll('.main-svg')].map(each => each.getBoundingClientRect().width)"
    page.wait_for_function(f"{widths}.length > 0")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(
        "[...document.querySelectorAll('.figure')].every(each => each.querySelector('.main-svg') && each.offsetWidth)"
    )
    assert max(page.evaluate(widths)) <= 690
    assert page.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill") == "rgb(27, 31, 36)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("[...document.querySelectorAll('details')].every(each => each.open)")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.wait_for_function(f"Math.max(...{widths}) > 690")
    assert page.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill") == "rgb(230, 233, 237)"
