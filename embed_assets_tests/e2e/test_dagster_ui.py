"""A person with a browser: five PDFs become a model, and Dagster and MLflow show it."""

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from embed_assets.resources.pages import graph_path, launchpad_path

HOST = "127.0.0.1"
STAGES = ("documents", "questions", "pairs", "evaluation", "training", "comparison")
PAGE_TIMEOUT, RUN_TIMEOUT, STOP_TIMEOUT = 60, 240, 90  # seconds; the machine may be busy
STILL_RENDERING = (
    StaleElementReferenceException,
    ElementClickInterceptedException,
    ElementNotInteractableException,
)


@dataclass(frozen=True)
class Screen:
    """What a person sees in the browser: texts and things to press, waited for."""

    driver: WebDriver

    def open(self, address: str) -> None:
        self.driver.get(address)

    def see(self, *texts: str, timeout: float = PAGE_TIMEOUT) -> WebElement:
        """The first element that shows just one of these texts."""
        own = " or ".join(f"normalize-space()='{text}'" for text in texts)
        return self.find(f"//*[not(*)][{own}]", timeout)

    def press(self, what: str, within: str = "//body") -> None:
        """Press a button or a link by its words."""
        self.press_on(f"{within}//*[self::a or self::button][normalize-space()='{what}']")

    def press_on(self, xpath: str) -> None:
        def press(_: WebDriver) -> bool:
            self.find(xpath).click()
            return True

        self._wait(PAGE_TIMEOUT).until(press, f"can't press {xpath}")

    def find(self, xpath: str, timeout: float = PAGE_TIMEOUT) -> WebElement:
        def displayed(driver: WebDriver) -> WebElement | Literal[False]:
            for element in driver.find_elements(By.XPATH, xpath):
                if element.is_displayed():
                    return element
            return False

        return self._wait(timeout).until(displayed, f"not on the page: {xpath}")

    def wait_until(self, holds: Callable[[], object], what: str) -> None:
        self._wait(PAGE_TIMEOUT).until(lambda _: holds(), what)

    def _wait(self, timeout: float) -> WebDriverWait:
        return WebDriverWait(self.driver, timeout, ignored_exceptions=STILL_RENDERING)


def test_a_model_is_trained_and_judged_in_the_browser(
    browser: WebDriver,
    tmp_path: Path,
    five_pdfs: Callable[[Path], Path],
    command: str,
    environment: Mapping[str, str],
    free_port: Callable[[], int],
):
    screen, home = Screen(browser), tmp_path / "home"
    where = ["--pdfs", str(five_pdfs(tmp_path / "pdfs")), "--home", str(home)]
    ingest(command, where, environment, tmp_path)

    with (
        servers(command, where, environment, tmp_path, free_port) as (dagster, mlflow),
        failures_shown(browser, tmp_path, home),
    ):
        see_every_asset_in_the_lineage(screen, dagster)
        parse_one_document_again(screen, dagster)
        train(screen, dagster)
        mlflow_run = read_the_verdict(screen, dagster, home)
        find_the_experiment(screen, mlflow, mlflow_run)


def ingest(command: str, where: list[str], environment: Mapping[str, str], cwd: Path) -> None:
    done = subprocess.run(
        [command, "ingest", *where], env=environment, cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "5 documents, 5 of them with text" in done.stdout


@contextmanager
def servers(
    command: str,
    where: list[str],
    environment: Mapping[str, str],
    cwd: Path,
    free_port: Callable[[], int],
) -> Iterator[tuple[str, str]]:
    """`embed-assets ui`: gives both addresses; Ctrl-C must end it and all that it started."""
    ports = (free_port(), free_port())
    options = [*where, "--port", str(ports[0]), "--mlflow-port", str(ports[1])]
    # Ctrl-C is ignored in what pytest starts where it was itself started in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (cwd / "ui.err").open("w") as stderr:
        process = subprocess.Popen(
            [command, "ui", *options],
            env=environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        addresses = read_addresses(process, cwd)
        dagster, mlflow = (f"http://{HOST}:{port}" for port in ports)
        assert addresses.keys() == {"Dagster", "MLflow", "Graph", "Start"}
        assert addresses["Dagster"] == dagster
        assert addresses["Graph"] == f"{dagster}{graph_path()}"
        assert addresses["Start"] == f"{dagster}{launchpad_path('everything')}"
        assert addresses["MLflow"].startswith(f"{mlflow}/#/experiments/")
        yield dagster, mlflow
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        survivors = stop(process, children)
    assert process.returncode == 0, (cwd / "ui.err").read_text()
    assert not survivors
    assert [port for port in ports if is_open(port)] == []


def read_addresses(process: subprocess.Popen[str], cwd: Path) -> dict[str, str]:
    """Addresses by server, from the lines that it prints once both are up."""
    assert process.stdout is not None
    addresses = {}
    for line in process.stdout:
        if line.startswith("Ctrl-C"):
            return addresses
        if match := re.fullmatch(r"(\w+) +(http\S+)\n", line):
            addresses[match[1]] = match[2]
    raise AssertionError(f"embed-assets ui ended: {(cwd / 'ui.err').read_text()}")


def stop(process: subprocess.Popen[str], children: list[psutil.Process]) -> list[str]:
    """Press Ctrl-C twice; give the command lines of children that outlive it, which are killed."""
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)  # as the impatient do, and make
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    psutil.wait_procs(children, timeout=5)
    survivors = []
    for child in children:
        try:
            if child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                survivors.append(" ".join(child.cmdline()))
                child.kill()
        except psutil.NoSuchProcess:
            continue
    return survivors


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@contextmanager
def failures_shown(browser: WebDriver, folder: Path, home: Path) -> Iterator[None]:
    """What goes wrong comes with a screenshot and the ends of the servers' logs."""
    try:
        yield
    except BaseException as error:
        picture = folder / "failure.png"
        browser.save_screenshot(str(picture))
        error.add_note(f"{browser.current_url}, see {picture}")
        for name in ("dagster", "mlflow"):
            log = home / f"{name}-server.log"
            lines = log.read_text(errors="replace").splitlines()
            error.add_note("\n".join([f"The end of {log}:", *lines[-40:]]))
        raise


def see_every_asset_in_the_lineage(screen: Screen, dagster: str) -> None:
    """The address that `ui` prints opens the graph with its groups open."""
    screen.open(f"{dagster}{graph_path()}")
    screen.see("Global asset lineage")
    for stage in STAGES:
        screen.see(stage)
    for name in ("raw_pdfs", "chunks", "training_pairs", "finetuned_model"):
        screen.see(name)


def parse_one_document_again(screen: Screen, dagster: str) -> None:
    screen.open(f"{dagster}/assets/parsed_markdown?view=partitions")
    screen.press_on("//*[not(*)][starts-with(text(), 'canal-lock-manual-')]")
    screen.see("Materialized")
    assert "Canal Lock Manual" in screen.find(f"{row_of('preview')}/td[2]").text
    screen.press("chunks", within=row_of("same_document"))
    screen.wait_until(
        lambda: "/assets/chunks?view=partitions&partition=canal" in screen.driver.current_url,
        "the same document's chunks",
    )
    screen.see("Materialized")
    screen.driver.back()
    screen.see("Materialized")
    screen.press("Materialize…")
    screen.press("Launch 1 run")
    wait_for_success(screen)


def train(screen: Screen, dagster: str) -> None:
    screen.open(f"{dagster}/jobs")
    screen.press("train")
    screen.press("Materialize all")
    wait_for_success(screen)


def wait_for_success(screen: Screen) -> None:
    """Follow the message that says that a run was launched, and stay until the run has ended."""
    screen.press("View")
    screen.wait_until(lambda: "/runs/" in screen.driver.current_url, "the run's page opens")
    ended = screen.see("Success", "Failure", "Canceled", timeout=RUN_TIMEOUT)
    assert ended.text == "Success"


def read_the_verdict(screen: Screen, dagster: str, home: Path) -> str:
    """The id of the MLflow run that the comparison links to."""
    screen.open(f"{dagster}/assets/comparison")
    assert value_of(screen, "result").text.startswith("v1 ")
    chart = screen.find(f"{row_of('chart')}//img")  # without a click
    screen.wait_until(lambda: chart.get_property("naturalWidth"), "the chart is drawn")
    verdict = value_of(screen, "verdict").text
    assert "4 questions that people wrote: NDCG@10" in verdict
    assert (home / value_of(screen, "report_file").text).is_file()
    # The table is there before its links are rendered.
    link = screen.find(f"{row_of('mlflow_run')}/td[3]//a").get_attribute("href")
    run_id = value_of(screen, "mlflow_run_id").text
    report = screen.find(f"{row_of('report')}/td[3]//a").get_attribute("href")
    assert report is not None
    assert f"{run_id}/artifacts/comparison-v1.html" in report
    assert link is not None
    assert run_id in link
    return run_id


def row_of(name: str) -> str:
    """XPath of an entry in an asset's table of metadata."""
    return f"//tr[td[1][normalize-space()='{name}']]"


def value_of(screen: Screen, name: str) -> WebElement:
    """The value of an entry in an asset's table of metadata."""
    return screen.find(f"{row_of(name)}/td[3]")


def find_the_experiment(screen: Screen, mlflow: str, run_id: str) -> None:
    screen.open(f"{mlflow}/#/experiments")
    link = screen.find("//a[normalize-space()='embed-assets']").get_attribute("href")
    screen.open(f"{link}/runs/{run_id}")
    screen.find("//*[not(*)][starts-with(normalize-space(), 'comparison v1 ')]")
    screen.see("Finished")
