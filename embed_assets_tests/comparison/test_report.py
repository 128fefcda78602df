import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from embed_assets.comparison.report import Example, Report, Retrieved, render_report
from embed_assets.evaluation.significance import SIGNIFICANCE_SCHEMA

HOSTILE = (
    "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    "{{7*7}}{% raw %}'\"\u2028<!--<script>"
)
LONG = "## Torque\n\nTighten the flange bolts in a cross pattern. " + "word " * 200 + "The end."


class Page(HTMLParser):
    """What a browser would see: elements, attributes, the text, and the scripts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._within: str | None = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._within = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._within = None
        if tag in ("th", "td", "dt", "dd", "span"):
            self.text += " "

    def handle_data(self, data):
        if self._within == "script":
            self.scripts[-1] += data
        elif self._within != "style":
            self.text += data

    def values(self, attribute: str) -> list[str | None]:
        return [value for name, value in self.attributes if name == attribute]

    @property
    def lines(self) -> str:
        return re.sub(r"\s+", " ", self.text)


def example(question: str, base_rank: int | None, tuned_rank: int | None, text: str) -> Example:
    right = Retrieved("manual.pdf", 41, 42, text, relevant=True)
    wrong = Retrieved("guide.pdf", 3, 3, "Check for transport damage.", relevant=False)
    return Example(question, "test_labelled", base_rank, tuned_rank, (wrong,), (right, wrong))


@pytest.fixture
def report(scores, quality_kept) -> Report:
    ndcg = scores.filter(metric="ndcg")
    significance = ndcg.select(
        "split",
        "dimension",
        "base",
        "tuned",
        questions=pl.lit(1120, pl.Int64),
        documents=pl.lit(18, pl.Int64),
        difference=pl.col("tuned") - pl.col("base"),
        low=pl.lit(-0.0131),
        high=pl.lit(0.1102),
        p_value=pl.lit(0.00012),
        verdict=pl.lit("better"),
        resampled=pl.lit("documents"),
    ).select(SIGNIFICANCE_SCHEMA.names())
    return Report(
        title="Version 7 against its base",
        created_at=datetime(2026, 11, 22, 9, 14, tzinfo=UTC),
        headline_split="test_labelled",
        verdict="The tuned model is better: NDCG@10 rises from 0.440 to 0.550.",
        facts={"Base model": "all-MiniLM-L6-v2", "Documents": "61"},
        notes=["The training questions were written by a machine."],
        scores=scores,
        quality_kept=quality_kept,
        significance=significance,
        against=pl.DataFrame(),
        reservations=[],
        won=[example("How tight should the bolts be?", None, 1, LONG)],
        lost=[],
    )


@pytest.fixture
def hostile(report: Report) -> Report:
    def spoilt(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.col("split").replace("test_labelled", HOSTILE))

    return replace(
        report,
        title=HOSTILE,
        headline_split=HOSTILE,
        verdict=HOSTILE,
        facts={HOSTILE: HOSTILE},
        notes=[HOSTILE],
        scores=spoilt(report.scores),
        quality_kept=spoilt(report.quality_kept),
        significance=spoilt(report.significance),
        won=[example(HOSTILE, 3, 1, HOSTILE + LONG)],
        lost=[replace(example(HOSTILE, 1, 9, HOSTILE), split=HOSTILE)],
    )


def test_the_page_says_the_verdict_then_the_figures_then_the_rest(report):
    text = Page(render_report(report)).lines
    contents = [
        "Version 7 against its base",
        "22 November 2026, 09:14 UTC",
        "The tuned model is better: NDCG@10 rises from 0.440 to 0.550.",
        "NDCG@10 0.440 → 0.550 (+25.0%) at 384 dimensions, test_labelled",
        "Key figures: test_labelled",
        "1,120 questions on 18 documents",
        "384 0.440 0.550 +25.0% −0.013 to +0.110 < 0.001 better 100.0% 0.0%",
        "Questions on documents that were held out whole.",
        "Charts and all metrics",
        "Every metric of test_labelled",
        "accuracy@1",
        "ndcg@10",
        "map@100",
        "How tight should the bolts be?",
        "base not found → tuned rank 1",
        "guide.pdf, page 3",
        "manual.pdf, pages 41–42 ✓ relevant",
        "No question was lost.",
        "Base model all-MiniLM-L6-v2",
        "The training questions were written by a machine.",
    ]
    at = 0
    for content in contents:
        assert content in text[at:], content
        at = text.index(content, at)


def test_the_headline_split_comes_first_and_validation_last(report):
    text = Page(render_report(replace(report, headline_split="test_unseen_documents"))).text
    splits = re.findall(r"Every metric of (\w+)", text)

    assert list(dict.fromkeys(splits)) == [
        "test_unseen_documents",
        "test_labelled",
        "test_seen_documents",
        "validation",
    ]


def test_a_long_chunk_is_shortened_and_can_be_read_whole(report):
    page = Page(render_report(report))

    assert LONG in page.text
    assert "## Torque Tighten the flange bolts in a cross pattern. word" in page.text
    assert re.search(r"word … Show less", page.text)


def test_baselines_stand_beside_base_and_tuned_on_every_split(report):
    against = pl.concat(
        report.significance.filter(dimension=384)
        .rename({"base": "score"})
        .with_columns(model=pl.lit(model), dimension=pl.lit(size))
        for model, size in (("base", 384), ("bm25", 0), (HOSTILE, 32))
    )
    told = replace(
        report, against=against, reservations=["bm25 beats the fine-tuned model on all questions."]
    )
    page = Page(render_report(told))

    row = "0.440 0.550 +0.110 −0.013 to +0.110 < 0.001 better"
    assert f"test_labelled bm25 – {row}" in page.lines
    assert f"validation base 384 {row}" in page.lines
    assert HOSTILE in page.text
    assert "img" not in page.tags
    assert page.text.index("bm25 beats the fine-tuned") < page.text.index("Key figures")
    assert page.lines.index("test_labelled bm25") < page.lines.index("test_unseen_documents bm25")


def test_without_baselines_there_is_no_table_of_them(report):
    assert "Baselines" not in Page(render_report(report)).text


def test_what_is_missing_is_a_dash_and_not_an_error(report):
    bare = replace(
        report,
        scores=report.scores.with_columns(base=0.0, difference_percent=pl.lit(None, pl.Float64)),
        quality_kept=report.quality_kept.with_columns(kept=pl.lit(None, pl.Float64)),
        won=[],
    )
    text = Page(render_report(bare)).lines

    assert "384 0.000 0.550 – −0.013 to +0.110 < 0.001 better – 0.0%" in text
    assert "None" not in text
    assert "nan" not in text


def test_an_interval_over_questions_says_so(report):
    significance = report.significance.with_columns(resampled=pl.lit("questions"))
    text = Page(render_report(replace(report, significance=significance))).lines

    assert "−0.013 to +0.110 (over questions)" in text
    assert "over other questions on the same document" in text


def test_a_headline_split_without_scores_is_refused(report):
    with pytest.raises(ValueError, match="headline split 'test' has no scores; these have: test_l"):
        render_report(replace(report, headline_split="test"))


def test_the_same_report_renders_to_the_same_page(report):
    assert render_report(report) == render_report(report)


def test_the_page_is_one_file_with_the_chart_library_in_it_once(report):
    html = render_report(report)
    page = Page(html)

    assert html.count("window.vegaEmbed=") == 1
    assert len(html.encode()) < 3_000_000
    assert page.values("src") == []
    assert set(page.values("href")) == {"#notes"}
    assert "link" not in page.tags
    assert not re.search(r"@import|url\(", html[html.index("<style>") : html.index("</style>")])


def test_the_policy_allows_the_two_scripts_of_the_page_and_no_connection(report):
    page = Page(render_report(report))
    policy = next(value for value in page.values("content") if value and "default-src" in value)

    assert policy.startswith("default-src 'none';")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    hashes = {
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in page.scripts[1:]
    }
    assert len(hashes) == 2
    assert allowed == hashes


def test_headings_go_down_one_level_at_a_time(report):
    levels = [int(tag[1]) for tag in Page(render_report(report)).tags if re.fullmatch(r"h\d", tag)]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_hostile_text_stays_text(report, hostile):
    usual, page = Page(render_report(report)), Page(render_report(hostile))

    assert "img" not in page.tags
    assert len(page.scripts) == len(usual.scripts) == 3
    assert page.scripts[1:] == usual.scripts[1:]
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) > 10
    assert "49" not in page.lines.replace("0.49", "")


def test_hostile_text_in_the_charts_data_stays_data(hostile):
    html = render_report(hostile)
    data = Page(html).scripts[0]

    assert json.loads(data)[0][0]["title"]["subtitle"] == f"{HOSTILE}, 1,120 questions"
    assert not set("<>&\u2028") & set(data)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Headless Chromium that can reach nothing but files."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
        "window-size=1200,1600",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


def svgs_shown(browser) -> int:
    return len(
        [
            svg
            for svg in browser.find_elements("css selector", ".chart svg.marks")
            if svg.is_displayed()
        ]
    )


def open_page(browser, report: Report, folder: Path) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    path = folder / "report.html"
    path.write_text(render_report(report), encoding="utf-8")
    browser.get(path.as_uri())
    WebDriverWait(browser, 30).until(lambda browser: svgs_shown(browser) == 3)


def test_a_browser_draws_the_charts_of_the_split_that_is_chosen(browser, report, tmp_path):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    open_page(browser, report, tmp_path)
    assert "test_labelled, 1,120 questions" in browser.find_element("css selector", ".chart").text

    browser.find_element("css selector", "input[name=split]").send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(browser, 30).until(lambda browser: svgs_shown(browser) == 3)
    shown = [card.text for card in browser.find_elements("css selector", ".chart") if card.text]

    assert len(shown) == 3
    assert all("test_unseen_documents, 1,120 questions" in text for text in shown)
    assert browser.get_log("browser") == []


def test_a_browser_runs_nothing_of_hostile_text_and_fetches_nothing(browser, hostile, tmp_path):
    open_page(browser, hostile, tmp_path)

    assert browser.title.startswith("</script><script>")
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []
