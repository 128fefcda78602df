import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import polars as pl
import pymupdf
import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from embed_assets.comparison.promotion import Condition, Promotion
from embed_assets.comparison.report import Example, Fact, Report, Retrieved, render_report
from embed_assets.comparison.sources import (
    MOST_DOCUMENTS,
    MOST_QUESTIONS,
    Asked,
    Passage,
    Source,
    Sources,
)
from embed_assets.evaluation.significance import SIGNIFICANCE_SCHEMA
from embed_assets.resources.redaction import Traces, redact_file
from embed_assets.wording import printable
from embed_assets_tests.hostile import HOSTILE as HOSTILE_TEXTS

HOSTILE = (
    "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    "{{7*7}}{% raw %}'\"\u2028<!--<script>"
)
CONDITION = Condition("x", "clearly better", "0.44 → 0.55, -0.013 … +0.110", "0", True, "")
CURVE = pl.DataFrame(
    {
        "part": ["half of the pairs", "all pairs"],
        "pairs": [1500, 3000],
        "documents": [12, 12],
        "alone": [0.508, 0.522],
        "hybrid": [0.583, 0.585],
        "difference": [0.014, None],
        "low": [-0.005, None],
        "high": [0.032, None],
        "resampled": ["documents", None],
    }
)
"""As `curve_points` gives it."""
WEIGHTS = pl.DataFrame({"weight": ["0.5", "0.6", "chosen"], "score": [0.5, 0.6125, 0.59]})
"""Some of the columns of hybrid_weights."""
LONG = "## Torque\n\nTighten the flange bolts in a cross pattern. " + "word " * 200 + "The end."


VOID = {"meta", "input", "br", "hr", "img", "link"}


class Page(HTMLParser):
    """What a browser would see: elements, attributes, the text, and the scripts.

    within: the text of all elements of a class (`.name`) or an id (`#name`).
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.within: dict[str, str] = {}
        self._open: list[tuple[str, set[str]]] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._within: str | None = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            known = dict(attrs)
            names = {f"#{known['id']}"} if known.get("id") else set()
            names |= {f".{name}" for name in (known.get("class") or "").split()}
            self._open.append((tag, names))
            for name in names:
                self.within.setdefault(name, "")
        self._within = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._within = None
        while self._open and self._open.pop()[0] != tag:
            pass
        if tag in ("th", "td", "dt", "dd", "span", "code", "li", "p"):
            self._say(" ")

    def handle_data(self, data):
        if self._within == "script":
            self.scripts[-1] += data
        elif self._within != "style":
            self._say(data)

    def _say(self, data: str) -> None:
        self.text += data
        for name in {name for _, names in self._open for name in names}:
            self.within[name] += data

    def values(self, attribute: str) -> list[str | None]:
        return [value for name, value in self.attributes if name == attribute]

    @property
    def lines(self) -> str:
        return re.sub(r"\s+", " ", self.text)


def example(question: str, base_rank: int | None, tuned_rank: int | None, text: str) -> Example:
    right = Retrieved("c-bolts", "manual.pdf", 41, 42, text, relevant=True)
    wrong = Retrieved("c-damage", "guide.pdf", 3, 3, "Check for transport damage.", relevant=False)
    return Example(
        "q-bolts", question, "test_labelled", base_rank, tuned_rank, (wrong,), (right, wrong)
    )


def sources(text: str) -> Sources:
    """Two documents that share a chunk."""
    shared = Passage("c-bolts", text, "Flanges > Torque", 41, 42, ())
    asked = (
        Asked("q-bolts", "How tight should the bolts be?", "test_labelled", None, 1),
        Asked("q-learned", "flange bolts pattern", "train", None, None),
    )
    first = Source(
        *("manual-1", "manuals/manual.pdf", "ab" * 32, 1, 1, 0.0, 1.0),
        passages=(replace(shared, questions=asked),),
    )
    other = Asked("q-copy", "cross pattern", "train", None, None)
    second = Source(
        *("copy-2", "manuals/copy.pdf", "cd" * 32, 1, 0, None, None),
        passages=(replace(shared, questions=(other,), page_start=None, page_end=None),),
    )
    return Sources((first, second), 2, 3)


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
    of_base = significance.filter(dimension=384).rename({"base": "score"})
    return Report(
        title="Version 7 against its base",
        created_at=datetime(2026, 11, 22, 9, 14, tzinfo=UTC),
        headline_split="test_labelled",
        verdict="The tuned model is better: NDCG@10 rises from 0.440 to 0.550.",
        promotion=Promotion("7", True, "Version 7 was made the champion of manuals.", (CONDITION,)),
        facts=[Fact("Training", links={"Dagster run": "http://127.0.0.1:3000/runs/1"})],
        notes=["The training questions were written by a machine."],
        scores=scores,
        quality_kept=quality_kept,
        significance=significance,
        realism=pl.DataFrame({"written by": ["rules"], "what for": ["tests"], "by BM25": ["97 %"]}),
        against=of_base.with_columns(model=pl.lit("base")),
        hybrid=of_base.clear().with_columns(model=pl.lit("")),
        weights=WEIGHTS,
        hybrid_weight="Hybrid search does better with EMBED_ASSETS_DENSE_WEIGHT=0.6 than with 0.5.",
        curve=CURVE,
        would_help_most="More documents would help most: +0.014 (95 %: -0.005 to +0.032).",
        reservations=[],
        won=[example("How tight should the bolts be?", None, 1, LONG)],
        lost=[],
        lineage=[Fact("Base model", "all-MiniLM-L6-v2"), Fact("Documents", "61")],
        settings={"epochs": "2"},
        sources=sources(LONG),
        document_pages={"manual-1": "http://127.0.0.1:3000/assets/synthetic_questions"},
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
        promotion=Promotion(HOSTILE, False, HOSTILE, (replace(CONDITION, figure=HOSTILE),)),
        facts=[Fact(HOSTILE, HOSTILE, {HOSTILE: "http://x/"})],
        notes=[HOSTILE],
        scores=spoilt(report.scores),
        quality_kept=spoilt(report.quality_kept),
        significance=spoilt(report.significance),
        against=spoilt(report.against),
        lineage=[Fact(HOSTILE, HOSTILE)],
        settings={HOSTILE: HOSTILE},
        sources=sources(HOSTILE),
        won=[example(HOSTILE, 3, 1, HOSTILE + LONG)],
        lost=[replace(example(HOSTILE, 1, 9, HOSTILE), split=HOSTILE)],
    )


def test_the_page_says_what_would_help_most_and_by_which_figures(report):
    page = Page(render_report(report))
    assert "95 %: −0.005 to +0.032" in page.lines
    assert "half of the pairs 1,500 12 0.508 0.583 +0.014 −0.005 to +0.032" in page.lines
    assert "all pairs 3,000 12 0.522 0.585 –" in page.lines
    assert "#curve" in page.values("href")
    alone = report.curve.with_columns(hybrid=pl.lit(None, pl.Float64))
    assert (
        "half of the pairs 1,500 12 0.508 –"
        in Page(render_report(replace(report, curve=alone))).lines
    )
    without = Page(render_report(replace(report, curve=report.curve.clear())))
    assert "What would help most" not in without.text
    assert "#curve" not in without.values("href")


def test_the_page_says_which_weight_does_best_in_hybrid_search(report):
    said, shown = report.hybrid_weight, "Tuned + bm25 0.500 0.613 0.590"
    assert said not in Page(render_report(report)).text, "without hybrid search there is none"
    fused = replace(report, hybrid=report.against.with_columns(model=pl.lit("base + bm25")))
    page = Page(render_report(fused))
    assert said in page.lines
    assert shown in page.lines
    assert "Weight 0.5 0.6 chosen" in page.lines
    without = Page(render_report(replace(fused, weights=WEIGHTS.clear(), hybrid_weight="")))
    assert "By the weight" not in without.text
    assert "In hybrid search" in without.text


def test_the_page_says_what_the_questions_are_like(report):
    text = " ".join(Page(render_report(report)).lines.split())
    assert "What the questions are like" in text
    assert "Written by What for By BM25 rules tests 97 %" in text


def test_the_page_says_the_verdict_then_the_figures_then_the_rest(report):
    text = Page(render_report(report)).lines
    contents = [
        "Version 7 against its base",
        "22 November 2026, 09:14 UTC",
        "The tuned model is better: NDCG@10 rises from 0.440 to 0.550.",
        "NDCG@10 0.440 → 0.550 , a difference of +0.110 points (95 % interval −0.013 to +0.110)",
        "relative to the base model +25.0 %",
        "At 384 dimensions, on 1,120 questions on 18 documents",
        "Version 7 was made the champion of manuals.",
        "clearly better: yes (0.44 → 0.55, −0.013 … +0.110; wanted: 0)",
        "Key figures: people's questions",
        "1,120 questions on 18 documents",
        "384 0.440 0.550 +0.110 −0.013 to +0.110 +25.0 % < 0.001 better 100.0 % 0.0 %",
        "p of 0.02 at most, and the questions are about 7 documents at least",
        "Held-out documents test_unseen_documents",
        "Questions on documents of which nothing trains.",
        "Charts and all metrics",
        "Every metric",
        "accuracy@1",
        "ndcg@10",
        "map@100",
        "How tight should the bolts be?",
        "base not found → tuned rank 1",
        "guide.pdf , page 3",
        "manual.pdf , pages 41–42 chunk ✓ relevant",
        "No question was lost.",
        "Base model all-MiniLM-L6-v2",
        "manuals/manual.pdf 1 1 0.000 1.000 +1.000 abababababab",
        "Training Dagster run",
        "The training questions were written by a machine.",
    ]
    at = 0
    for content in contents:
        content = content.replace(" , ", ", ").replace("0.550 ,", "0.550,")
        assert content in text[at:], content
        at = text.index(content, at)


@pytest.mark.parametrize(
    ("verdict", "colour"),
    [("better", ".good"), ("worse", ".bad"), ("no clear difference", None)],
)
def test_the_box_of_the_verdict_has_its_colour_and_reservations_stand_in_one_of_their_own(
    report, verdict, colour
):
    judged = replace(
        report,
        significance=report.significance.with_columns(verdict=pl.lit(verdict)),
        reservations=["bm25 beats the fine-tuned model."],
        promotion=replace(report.promotion, promoted=False),
    )
    html = render_report(judged)
    page = Page(html)
    [box] = re.findall(r'<section class="box verdict ([^"]*)"', html)

    assert box == (colour or ".even").removeprefix(".")
    assert "bm25 beats" not in page.within[".verdict"]
    assert page.within[".reservations"].split() == [
        *("What", "speaks", "against", "it", "bm25", "beats", "the", "fine-tuned", "model."),
    ]


@pytest.mark.parametrize(
    ("low", "p_value", "verdict", "said"),
    [
        (0.02, 0.25, "no clear difference", "no clear difference p > 0.02"),
        (-0.01, 0.001, "no clear difference", "no clear difference 0 in interval"),
        (0.02, 0.001, "too few to tell", "too few to tell 18 documents"),
        (0.02, 0.001, "better", "better 100.0 %"),
    ],
)
def test_a_verdict_that_is_none_says_which_of_its_conditions_fails(
    report, low, p_value, verdict, said
):
    rows = report.significance.with_columns(
        low=pl.lit(low), p_value=pl.lit(p_value), verdict=pl.lit(verdict)
    )
    assert said in Page(render_report(replace(report, significance=rows))).lines


def test_the_headline_split_comes_first_and_validation_last(report):
    html = render_report(replace(report, headline_split="test_unseen_documents"))

    assert re.findall(r'aria-label="Every metric of (\w+)"', html) == [
        "test_unseen_documents",
        "test_labelled",
        "test_seen_documents",
        "validation",
    ]


def test_a_long_chunk_is_shortened_and_can_be_read_whole_without_the_marks_of_markdown(report):
    page = Page(render_report(report))

    assert "Torque: Tighten the flange bolts in a cross pattern. word" in page.lines
    assert re.search(r"word … Show less", page.lines)
    assert page.within[".full"].rstrip().endswith("The end.")
    assert "Torque" in page.within[".heading"]
    assert "##" not in page.text


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
    for split in ("test_labelled", "validation"):
        assert f"{split} base 384 {row} bm25 – {row}" in page.lines
    assert HOSTILE in page.text
    assert "img" not in page.tags
    assert page.text.index("bm25 beats the fine-tuned") < page.text.index("Key figures")
    drawn = json.loads(page.scripts[0])[0]["wide"][0]
    models = {row["model"] for rows in drawn["datasets"].values() for row in rows if "model" in row}
    assert models == {"tuned", "base", "bm25", HOSTILE}


def test_without_baselines_there_is_no_table_of_them(report):
    text = Page(render_report(report)).text
    assert "Beside other models" not in text
    assert "In hybrid search" not in text


def test_hybrid_search_has_a_table_of_its_own_on_every_split(report):
    models = ("base + bm25", "tuned")
    hybrid = pl.concat(report.against.with_columns(model=pl.lit(model)) for model in models)
    page = Page(render_report(replace(report, hybrid=hybrid)))
    row = "0.440 0.550 +0.110 −0.013 to +0.110 < 0.001 better"
    for split in ("test_labelled", "validation"):
        assert f"{split} base + bm25 384 {row} tuned 384 {row}" in page.lines
    assert page.text.count("In hybrid search") == 2


def test_what_is_missing_is_a_dash_and_not_an_error(report):
    bare = replace(
        report,
        scores=report.scores.with_columns(base=0.0, difference_percent=pl.lit(None, pl.Float64)),
        quality_kept=report.quality_kept.with_columns(kept=pl.lit(None, pl.Float64)),
        won=[],
    )
    text = Page(render_report(bare)).lines

    assert "384 0.000 0.550 +0.110 −0.013 to +0.110 – < 0.001 better – 0.0 %" in text
    assert "None" not in text
    assert "nan" not in text


def test_an_interval_over_questions_says_so(report):
    significance = report.significance.with_columns(resampled=pl.lit("questions"))
    text = Page(render_report(replace(report, significance=significance))).lines

    assert "−0.013 to +0.110 over questions" in text
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
    assert page.values("src") == []
    addresses = {value for value in page.values("href") if value and not value.startswith("#")}
    assert addresses == {
        "http://127.0.0.1:3000/runs/1",
        "http://127.0.0.1:3000/assets/synthetic_questions",
    }
    assert page.values("rel") == ["noopener"] * 2
    assert "link" not in page.tags
    assert not re.search(r"@import|url\(", html[html.index("<style>") : html.index("</style>")])


def test_the_page_of_a_large_version_stays_below_three_megabytes(report):
    text = f"**Long** {'words of a chunk ' * 100}"
    documents = [
        Source(
            *(f"document-{d}", f"a/folder/of/manuals/document-{d}.pdf", "ab" * 32, 9, 0, 0.5, 0.5),
            passages=tuple(
                Passage(
                    *(f"c-{d}-{n}", text, "A part of it > and a smaller one", n, n),
                    questions=(Asked(f"q-{d}-{n}", "what is asked " * 9, "validation", 11, 12),),
                )
                for n in range(MOST_QUESTIONS // MOST_DOCUMENTS + 1)
            ),
        )
        for d in range(MOST_DOCUMENTS)
    ]
    large = replace(report, sources=Sources(tuple(documents), 9_000, 900_000))
    assert large.sources.questions >= MOST_QUESTIONS
    assert len(render_report(large).encode()) < 3_000_000


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


def test_a_chunk_becomes_no_link_no_picture_and_no_element_of_its_own(report):
    text = (
        "## A <b>heading</b>\n\n[press](http://evil/) ![seen](http://evil/x.png) <http://evil/> "
        "<script>x</script>\n\n| a | b |\n| - | - |\n| c<br>d | *e* |\n\n" + "word " * 100
    )
    usual = Page(render_report(report))
    page = Page(render_report(replace(report, won=[example("Why?", 1, 2, text)])))

    assert not {"img", "b"} & set(page.tags)
    assert len(page.scripts) == len(usual.scripts)
    assert "http://evil/" not in page.values("href")
    shown = " ".join(page.within[".full"].split())
    assert shown.startswith("A <b>heading</b> press seen http://evil/ <script>x</script> a b c d e")
    assert page.tags.count("em") == 1
    assert page.tags.count("table") == usual.tags.count("table") + 1


def test_every_link_within_the_page_leads_to_a_place_of_its_own(report):
    page = Page(render_report(report))
    places = [value for value in page.values("id") if value]
    links = {value[1:] for value in page.values("href") if value and value.startswith("#")}

    assert len(places) == len(set(places))
    assert links <= set(places)


def test_a_question_leads_to_its_chunk_and_document_and_these_to_their_questions(report):
    html = render_report(report)
    page = Page(html)
    [question] = re.findall(r'<a href="#([^"]*)">Where it comes from: its', html)
    chunks = set(re.findall(r'<a href="#([^"]*)">chunk</a>', html))
    [document] = re.findall(r'<a href="#([^"]*)"><bdi>manuals/manual.pdf', html)

    assert page.within[f"#{question}"].split("\n")[0].startswith("How tight should the bolts be?")
    [chunk] = [f"#{chunk}" for chunk in chunks]
    for inner, outer in ((f"#{question}", chunk), (chunk, f"#{document}")):
        assert page.within[inner].strip() in page.within[outer]
    assert "flange bolts pattern" in page.within[chunk]
    assert "Chunk, pages 41–42: Flanges > Torque" in page.within[f"#{document}"]
    assert "page unknown" in page.within[".document"]
    assert "ab" * 32 in page.within[f"#{document}"]


def test_what_is_left_out_is_counted(report):
    known = report.sources
    assert "Shown are" not in Page(render_report(report)).text
    more = replace(report, sources=replace(known, all_documents=1_400, all_questions=20_000))
    said = "Shown are 2 of 1,400 documents and 3 of 20,000 questions; the version's pairs.parquet"
    assert said in Page(render_report(more)).lines


@pytest.mark.parametrize(
    "traces",
    [
        Traces({"manuals/copy.pdf": "gone-1", "copy.pdf": "gone-1"}),
        Traces({}, ["Tighten the flange bolts in a cross pattern. word word"]),
        Traces({}, ["How tight should the bolts be?"]),
    ],
)
def test_a_report_that_tells_of_a_forgotten_document_is_removed(report, tmp_path, traces):
    page = tmp_path / "comparison-v7.html"
    page.write_text(render_report(replace(report, won=[])), encoding="utf-8")
    other = Traces({"other.pdf": "gone-2"}, ["What other documents say of quite other things here"])

    assert not redact_file(page, other)
    assert redact_file(page, traces)
    assert not page.exists()


def test_hostile_text_in_the_charts_data_stays_data(hostile):
    html = render_report(hostile)
    data = Page(html).scripts[0]

    subtitle = f"1,120 questions of {HOSTILE}"
    for width in ("wide", "narrow"):
        assert {chart["title"]["subtitle"] for chart in json.loads(data)[0][width]} == {subtitle}
    assert not set("<>&\u2028") & set(data)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Headless Chromium that can reach nothing but files."""
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
    path = folder / "report.html"
    path.write_text(render_report(report), encoding="utf-8")
    browser.get(path.as_uri())
    WebDriverWait(browser, 30).until(lambda browser: svgs_shown(browser) == 5)


def test_a_browser_draws_the_charts_of_the_split_that_is_chosen(browser, report, tmp_path):
    open_page(browser, report, tmp_path)
    chart = browser.find_element("css selector", ".chart")
    assert "1,120 questions that people wrote" in chart.text

    browser.find_element("css selector", "input[name=split]").send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(browser, 30).until(lambda browser: svgs_shown(browser) == 4)
    shown = [card.text for card in browser.find_elements("css selector", ".chart") if card.text]

    assert len(shown) == 4
    assert all("1,120 questions on held-out documents" in text for text in shown)
    assert browser.get_log("browser") == []


def test_a_browser_runs_nothing_of_hostile_text_and_fetches_nothing(browser, hostile, tmp_path):
    open_page(browser, hostile, tmp_path)

    assert browser.title.startswith("</script><script>")
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []


def test_a_browser_shows_every_hostile_text_and_obeys_none(browser, report, tmp_path):
    texts = "\n\n".join(HOSTILE_TEXTS.values())
    names = [printable(text) for text in HOSTILE_TEXTS.values()]
    [first, second] = sources(texts).documents
    documents = [
        replace(first, document_id=f"d-{number}", path=name, passages=())
        for number, name in enumerate(HOSTILE_TEXTS.values())
    ]
    told = replace(
        report,
        title=texts,
        verdict=texts,
        reservations=list(HOSTILE_TEXTS.values()),
        notes=list(HOSTILE_TEXTS.values()),
        facts=[Fact(text, text) for text in HOSTILE_TEXTS.values()],
        settings=dict(zip(names, names, strict=True)),
        sources=Sources((first, second, *documents), 2, 3),
        won=[
            *(example(text, 3, 1, text) for text in HOSTILE_TEXTS.values()),
            example(texts, 3, 1, texts),
        ],
    )
    open_page(browser, told, tmp_path)
    browser.execute_script(
        "document.querySelectorAll('details').forEach((d) => { d.open = true; })"
    )

    assert browser.execute_script("return window.hostile") is None
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    leads = "return [...document.querySelectorAll('[href],[src]')].map((e) => e.href || e.src)"
    assert not [place for place in browser.execute_script(leads) if "evil" in place]
    assert browser.get_log("browser") == []


@pytest.fixture
def sized(browser) -> Iterator[Callable[[int, str], None]]:
    """Gives the page a width in pixels and a colour scheme; afterwards it is as it was."""

    def size(width: int, scheme: str) -> None:
        scheme_asked = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme_asked]})
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700},
        )

    yield size
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


BEYOND_THE_EDGE = """
return [...document.querySelectorAll("body *")]
  .filter((element) => !element.parentElement.closest(".scroll, .full, svg"))
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
  .map((element) => element.outerHTML.slice(0, 80));
"""
SCROLLED = """
return [...document.querySelectorAll(".scroll")]
  .filter((table) => table.checkVisibility() && table.scrollWidth > table.clientWidth)
  .map((table) => getComputedStyle(table, "::before").content);
"""


@pytest.fixture
def wide_names(report: Report) -> Report:
    """A report with names that have no place to break, and everything unfolded that can be."""
    long = "a" * 200
    [first, second] = report.sources.documents
    return replace(
        report,
        title=f"{report.title} {long}",
        sources=replace(report.sources, documents=(replace(first, path=long), second)),
        facts=[Fact(long, long, {long: f"http://127.0.0.1/{long}"})],
        reservations=[long],
        won=[example(long, 3, 1, f"{long} {LONG}\n\n| a | b |\n| - | - |\n| {long} | {long} |")],
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1500])
def test_a_browser_shows_nothing_beyond_the_edge_and_says_which_tables_go_on(
    browser, sized, wide_names, tmp_path, width, scheme
):
    sized(width, scheme)
    open_page(browser, wide_names, tmp_path)
    browser.execute_script(
        "document.querySelectorAll('details').forEach((d) => { d.open = true; })"
    )

    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(BEYOND_THE_EDGE) == []
    WebDriverWait(browser, 30).until(
        lambda browser: all("goes on" in said for said in browser.execute_script(SCROLLED))
    )
    assert bool(browser.execute_script(SCROLLED)) == (width < 1500)
    charts = browser.find_elements("css selector", ".chart svg.marks")
    assert all(
        chart.size["width"] > 0.7 * min(width, 960) - 40 for chart in charts if chart.is_displayed()
    )


@pytest.mark.parametrize(("width", "height"), [(8.27, 11.69), (8.5, 11.0)], ids=["A4", "Letter"])
def test_a_print_has_every_column_and_chart_within_its_margins_and_examples_unfolded(
    browser, sized, report, tmp_path, width, height
):
    sized(1200, "dark")
    shown = replace(report, won=[*report.won, example("Which comes second?", 2, 1, LONG)])
    open_page(browser, shown, tmp_path)
    printed = browser.execute_cdp_cmd(
        "Page.printToPDF",
        {"paperWidth": width, "paperHeight": height, "preferCSSPageSize": True},
    )
    document = pymupdf.open(stream=base64.b64decode(printed["data"]))
    pages = [document[number] for number in range(document.page_count)]
    text = " ".join("".join(str(page.get_text()) for page in pages).split())

    for said in ("Storage saved", "Verdict", "sha256", "map@100", "Every model at its full size"):
        assert said in text
    assert text.count("tuned rank 1") >= 2
    assert text.count("Check for transport damage.") == 4  # in both examples, on both sides
    assert "http://127.0.0.1:3000/runs/1" in text.replace(" ", "")
    for page in pages:
        assert page.rect.width == pytest.approx(72 * width, abs=1.5)
        margins = pymupdf.Rect(28, 28, page.rect.width - 28, page.rect.height - 28)
        for place in (*page.get_text("blocks"), *(d["rect"] for d in page.get_drawings())):
            drawn = (
                pymupdf.Rect(place[:4]) & page.rect if len(place) == 4 else pymupdf.Rect(place[:4])
            )
            assert drawn.is_empty or drawn in margins or drawn == page.rect
    assert browser.execute_script("return document.querySelectorAll('details[open]').length") == 1


def test_a_browser_that_is_led_to_a_question_unfolds_its_document(browser, report, tmp_path):
    open_page(browser, report, tmp_path)
    link = browser.find_element("css selector", ".whence a")
    browser.execute_script("arguments[0].click()", link)
    place = browser.find_element("css selector", ":target")

    assert place.is_displayed()
    assert place.text.startswith("How tight should the bolts be?")


def test_a_browser_finds_a_document_by_what_it_was_asked(browser, report, tmp_path):
    open_page(browser, report, tmp_path)
    field = browser.find_element("css selector", "#filter")
    documents = browser.find_elements("css selector", ".document")

    field.send_keys("CROSS PATTERN")
    assert [d.is_displayed() for d in documents] == [True, True]
    field.clear()
    field.send_keys("learned nothing of it")
    assert [d.is_displayed() for d in documents] == [False, False]
    field.clear()
    field.send_keys("manual.pdf")
    assert [d.is_displayed() for d in documents] == [True, False]
