"""What the end-to-end tests share: five PDFs, a model of a second's making, a browser."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate
from selenium import webdriver

from embed_assets_tests.e2e.project import Call, Project
from embed_assets_tests.tiny_model import make_tiny_model

DOCUMENTS = {
    "apiary-handbook.pdf": """
# Apiary Handbook

## Inspecting a hive in spring

Open the hive on a calm afternoon when the air is warmer than fifteen degrees. Blow two puffs of
smoke into the entrance and wait one minute before lifting the lid.

A healthy queen lays about fifteen hundred eggs a day, so look for brood in at least four
frames. If no eggs can be found, give the colony a frame of young larvae from a neighbour.

## Preventing swarms

A colony prepares to swarm when queen cells hang from the lower edge of the comb. Remove every
cell but one, or move the old queen with three frames into a nucleus box.

Crowding is the usual cause, so add a super before the bees cover the last frame. Clipping one
wing of the queen delays a swarm by a week but does not prevent it.

---

## Treating varroa mites

Count the mites that fall on a greased board during three days in August. More than ten mites a
day call for treatment with formic acid after the honey has been taken off.

Oxalic acid is trickled between the frames in December, when the colony has no brood. Never
treat while honey meant for sale is still on the hive.

## Feeding for winter

Each colony needs eighteen kilograms of stores to survive until the willow blooms. Feed a syrup
of three parts sugar to two parts water before the end of September.

Fondant is the emergency food of late winter, laid directly above the cluster. Syrup fed in
frost chills the bees and ferments in the comb.
""",
    "canal-lock-manual.pdf": """
# Canal Lock Manual

## Filling the chamber

Close the lower gates completely before any upper paddle is raised. Wind the ground paddles
halfway first, because a sudden inflow throws a short boat against the sill.

The chamber of Hartwell lock holds two hundred cubic metres and fills in six minutes. Open the
gates only when the levels are equal and the balance beam moves by hand.

## Leaving the lock in flood

When the river gauge shows more than one metre eighty, the lock is closed to all craft. The
keeper chains both lower gates ajar so that debris can pass without breaking the planks.

Moor below the weir stream and never to the landing stage of the lock. A red board on the bridge
announces the closure two kilometres upstream.

---

## Maintaining the gates

The oak mitre posts are inspected by divers every fifth winter. Leaks below a litre per second
are packed with ashes and sawdust from the upstream side.

Grease the heel collars each month with tallow, since mineral grease swells the leather. A gate
that drops more than twenty millimetres needs a new pintle bearing.

## Licences and tolls

Boats longer than twelve metres pay a double toll between Easter and October. The annual licence
covers every lock on the summit pound but not the tidal basin.

Hire craft must carry a windlass and the handcuff key that frees the paddle locks. The toll
office in Braunton accepts payment until nine in the evening.
""",
    "glacier-survey-report.pdf": """
# Glacier Survey Report

## Stakes and mass balance

Forty aluminium stakes were drilled eight metres into the ice of Kaldbreen in April. Their
exposed length in September gives the summer melt at each elevation.

The glacier lost one metre and a half of water equivalent, its largest loss since records began.
Only the stakes above eleven hundred metres gained snow that survived the summer.

## Radar thickness

A ground penetrating radar of twenty megahertz was towed behind a snowmobile along nine
profiles. The bed echo vanishes where meltwater fills the crevasses of the western tongue.

Maximum thickness was two hundred and sixty metres beneath the central flowline. Repeated
crossings agreed within four metres, which is better than the method promises.

---

## Velocity of the tongue

Two satellite receivers on tripods recorded the position of the tongue every thirty seconds. The
ice moved eleven centimetres a day in July and stopped almost entirely in November.

A burst of speed followed the rain of the third of August by seven hours. Water pressure at the
bed is the likely explanation of that acceleration.

## Hazards to the valley

An ice dammed lake of three million cubic metres formed beside the northern moraine. Sirens in
the valley sound as soon as its level falls by half a metre within an hour.

The footbridge at Storvik would be reached by a flood wave in forty minutes. Campers are asked
to pitch their tents above the old terminal moraine.
""",
    "telescope-mirror-guide.pdf": """
# Telescope Mirror Guide

## Rough grinding the blank

Start with carborundum of eighty grit and a tool of ceramic tiles set in plaster. Long strokes
with the mirror on top hollow the centre within five hours.

Measure the depth of the curve with a spherometer after every third wet. A mirror of two hundred
millimetres at focal ratio six needs a sagitta of two millimetres.

## Polishing with pitch

Pour the lap from pitch that dents under a thumbnail after ten seconds. Cerium oxide polishes
twice as fast as rouge, but it leaves a slightly rougher surface.

Press the mirror on the warm lap for twenty minutes so that the channels keep contact. Grey
patches at the edge vanish last and show under a laser pointer.

---

## Testing the figure

The Foucault tester compares light returned from each zone of the mirror with a razor blade. Let
the glass settle for three hours, because the warmth of a hand raises a visible hill.

A turned edge appears as a bright line outside the last zone of the mask. Parabolising takes
short strokes over the centre until the zonal readings match the table.

## Coating and washing

Aluminium is evaporated on the glass in a vacuum chamber and then covered with quartz. A fresh
coating reflects eighty nine percent of green light and lasts about ten years.

Wash the mirror with distilled water and two drops of dish soap, without any rubbing. Dust does
less harm to the image than careless cleaning does to the coating.
""",
    "wood-oven-baking.pdf": """
# Wood Oven Baking

## Heating the masonry

Burn dry beech for three hours until the soot on the dome turns white. Then rake out the embers,
close the door and let the heat even out for thirty minutes.

The hearth is ready for bread when flour thrown upon it browns in fifteen seconds. Pizza wants
four hundred degrees and is baked beside a living flame.

## Keeping a sourdough

Feed the starter with equal weights of rye flour and water every twelve hours. It is ripe when a
spoonful floats and the smell recalls yogurt rather than vinegar.

A neglected starter recovers after three feedings at twenty eight degrees. Pink streaks mean
spoilage, and then the whole jar must be thrown away.

---

## Shaping the loaves

Fold the dough four times during the first two hours of bulk fermentation. Tension on the skin
of the loaf decides whether it springs or spreads in the oven.

Baskets dusted with rice flour release even very wet loaves. Slash each loaf with a blade held
flat so that an ear can rise.

## Baking in falling heat

Large rye loaves go in first, wheat follows, and meringues dry overnight in the last warmth. A
loaf is done when its core reaches ninety six degrees on a probe.

Steam from a wet mop keeps the crust soft during the first ten minutes. Leave the door ajar at
the end if the crust is to stay crisp.
""",
}
QUESTIONS = [
    {
        "question": "How many kilograms of stores does each colony need to survive the winter?",
        "file_name": "apiary-handbook.pdf",
        "page": 2,
        "evidence_text": "Each colony needs eighteen kilograms of stores to survive until the "
        "willow blooms.",
    },
    {
        "question": "When the river rises, above which gauge reading is the lock closed to craft?",
        "file_name": "canal-lock-manual.pdf",
        "page": 1,
        "evidence_text": "When the river gauge shows more than one metre eighty, the lock is "
        "closed to all craft.",
    },
    {
        "question": "How many centimetres a day did the ice of the tongue move in July?",
        "file_name": "glacier-survey-report.pdf",
        "page": 2,
        "evidence_text": "The ice moved eleven centimetres a day in July and stopped almost "
        "entirely in November.",
    },
    {
        "question": "When is a starter of rye flour and water ripe, and what does it smell of?",
        "file_name": "wood-oven-baking.pdf",
        "page": 1,
        "evidence_text": "It is ripe when a spoonful floats and the smell recalls yogurt rather "
        "than vinegar.",
    },
]
STYLES = {"# ": "Heading1", "## ": "Heading2", "": "BodyText"}  # by mark
BROWSER_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,1100",
)


@pytest.fixture(scope="session")
def five_pdfs() -> Callable[[Path], Path]:
    """Writes five PDFs of two pages, and questions.jsonl, into a folder; gives the folder."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in DOCUMENTS.items():
            write_pdf(folder / name, text)
        rows = "\n".join(json.dumps(question) for question in QUESTIONS)
        (folder / "questions.jsonl").write_text(rows)
        return folder

    return write


def write_pdf(path: Path, text: str) -> None:
    """Set a text of headings (#, ##), paragraphs and page breaks (---); always the same bytes."""
    styles = getSampleStyleSheet()
    story = []
    for block in text.strip().split("\n\n"):
        mark = next(mark for mark in STYLES if block.startswith(mark))
        paragraph = Paragraph(block.removeprefix(mark), styles[STYLES[mark]])
        story.append(PageBreak() if block == "---" else paragraph)
    SimpleDocTemplate(str(path), invariant=1).build(story)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model that loads, trains and serves like a real one, in a second."""
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def environment(tiny_model: Path) -> dict[str, str]:
    """Environment of a command that knows nothing but the tiny model; extend a copy of it."""
    foreign = ("EMBED_ASSETS_", "DAGSTER_", "MLFLOW_", "PYTHONWARN")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    return {
        **inherited,
        "EMBED_ASSETS_MODEL": str(tiny_model),
        "EMBED_ASSETS_EPOCHS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def command() -> str:
    """Path of the installed `embed-assets`."""
    return str(Path(sys.executable).with_name("embed-assets"))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A headless Chromium with a profile of its own. Skips where there is none."""
    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in paths.items() if path is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    options = webdriver.ChromeOptions()
    options.binary_location = str(paths["chromium"])
    for option in (*BROWSER_OPTIONS, f"--user-data-dir={tmp_path / 'browser'}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(paths["chromedriver"])))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def trained(
    five_pdfs: Callable[[Path], Path],
    environment: dict[str, str],
    command: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Project, Call]:
    """A project after its first `run --json`. Tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("project")
    project = Project(command, environment, five_pdfs(folder / "pdfs"), folder / "home")
    call = project.call("run", "--json")
    assert call.status == 0, call.err
    return project, call
