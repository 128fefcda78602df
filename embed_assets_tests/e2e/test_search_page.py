"""A person at the search page: searches, compares, opens a PDF, marks what answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from embed_assets.search.server.access import Access
from embed_assets.search.server.feedback import read_votes
from embed_assets.search.server.limits import Limits
from embed_assets.search.server.listening import Listening, listen
from embed_assets.search.server.serving import Serving
from embed_assets_tests.search.server.made_up import Following, MadeUp

KEY = "a-key-of-some-length"
TIMEOUT = 60  # seconds; the machine may be busy


@contextmanager
def page(votes: Path, key: str = "") -> Iterator[str]:
    serving = Serving(Following(MadeUp()), Access(key), Limits(), votes)
    with Listening(serving, listen("127.0.0.1", 0)) as server:
        yield server.url


def wait(browser: WebDriver, script: str) -> Any:
    """What a script returns, once that is true."""
    return WebDriverWait(browser, TIMEOUT).until(lambda _: browser.execute_script(script))


def said(browser: WebDriver, text: str) -> None:
    wait(browser, f"return document.getElementById('said').textContent.includes({text!r})")


def texts(browser: WebDriver, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, selector)]


def choose(browser: WebDriver, name: str, value: str) -> None:
    browser.find_element(By.CSS_SELECTOR, f"#{name} option[value='{value}']").click()


def test_a_person_searches_by_keyboard_compares_and_marks(browser: WebDriver, tmp_path: Path):
    votes = tmp_path / "feedback.jsonl"
    with page(votes) as url:
        browser.set_window_size(1200, 900)
        browser.get(url)
        wait(browser, "return document.getElementById('served').textContent.includes('v1')")
        assert browser.switch_to.active_element.get_attribute("id") == "query"
        browser.switch_to.active_element.send_keys("the valve", Keys.ENTER)
        said(browser, "3 results")

        assert texts(browser, "li .where a") == ["pump <1>.pdf"] * 3
        assert texts(browser, "li .where span") == ["page 1", "page 2", "page 3"]
        assert "The <b>pump</b> hums & leaks." in texts(browser, "li .text")[1]
        assert browser.find_elements(By.CSS_SELECTOR, "#found b") == []
        first, *_, last = texts(browser, "li .why")
        assert first == "score 0.500 · meaning: rank 1, cosine 0.400 · words: rank 2"
        assert last.endswith("hardly relevant")

        choose(browser, "model", "champion and base")
        said(browser, "3 and 3 results")
        assert texts(browser, "h2") == ["champion: v1", "base"]
        tops = [part.rect["y"] for part in browser.find_elements(By.TAG_NAME, "section")]
        assert tops[0] == tops[1]

        browser.find_element(By.CSS_SELECTOR, "button.yes").send_keys(Keys.ENTER)
        said(browser, "pump <1>.pdf answers")
        browser.find_element(By.CSS_SELECTOR, "button.no").send_keys(Keys.SPACE)
        said(browser, "does not answer")
        pressed = browser.find_elements(By.CSS_SELECTOR, "[aria-pressed='true']")
        assert [button.get_attribute("class") for button in pressed] == ["small no"]
        [vote] = read_votes(votes)
        assert (vote["query"], vote["chunk_id"], vote["relevant"]) == ("the valve", "c0", False)

        pressed[0].send_keys("/")
        assert browser.switch_to.active_element.get_attribute("id") == "query"
        browser.refresh()
        said(browser, "3 and 3 results")  # the address holds the search
        assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_on_a_phone_the_columns_stand_one_under_the_other(browser: WebDriver, tmp_path: Path):
    with page(tmp_path / "feedback.jsonl") as url:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
        )
        browser.get(f"{url}/#q=the+valve&model=champion+and+base&mode=lexical")
        said(browser, "3 and 3 results")

        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
        first, second = browser.find_elements(By.TAG_NAME, "section")
        assert first.rect["x"] == second.rect["x"]
        assert second.rect["y"] > first.rect["y"] + first.rect["height"]
        assert "lexical]" in texts(browser, "li .text")[0]


def test_a_server_with_a_key_asks_for_it_once(browser: WebDriver, tmp_path: Path):
    with page(tmp_path / "feedback.jsonl", KEY) as url:
        browser.get(f"{url}/#q=the+valve")
        said(browser, "asks for a key")
        for key, answer in (("another-key", "refused that key"), (KEY, "3 results")):
            assert browser.switch_to.active_element.get_attribute("id") == "key"
            browser.switch_to.active_element.send_keys(key, Keys.ENTER)
            said(browser, answer)
        assert KEY not in browser.current_url
        browser.refresh()
        said(browser, "3 results")
        link = browser.find_element(By.CSS_SELECTOR, "li .where a").get_attribute("href")
        status = browser.execute_async_script(
            "fetch(arguments[0]).then((r) => arguments[1](r.headers.get('content-type')))", link
        )
        assert status == "application/pdf"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(browser: WebDriver, tmp_path: Path, scheme: str):
    with page(tmp_path / "feedback.jsonl") as url:
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        browser.get(f"{url}/#q=the+valve")
        said(browser, "3 results")
        ground = luminance(colour(browser, "body", "background-color"))

        for selector in ("body", "li .where a", "li .why", ".doubtful", "label"):
            ink = luminance(colour(browser, selector, "color"))
            bright, low = max(ground, ink), min(ground, ink)
            assert (bright + 0.05) / (low + 0.05) >= 4.5, selector  # WCAG 2.2, AA
        assert (ground > 0.5) == (scheme == "light")


def colour(browser: WebDriver, selector: str, name: str) -> list[int]:
    value = browser.find_element(By.CSS_SELECTOR, selector).value_of_css_property(name)
    return [int(part) for part in value.partition("(")[2].rstrip(")").split(",")[:3]]


def luminance(rgb: list[int]) -> float:
    parts = [part / 255 for part in rgb]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
