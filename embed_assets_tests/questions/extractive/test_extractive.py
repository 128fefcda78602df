"""What the extractive questions promise, on text as the chunker delivers it."""

import hashlib
import re
from collections.abc import Sequence

import polars as pl
import pytest

from embed_assets.questions.extractive.kinds import definition_questions, keyword_questions
from embed_assets.questions.extractive.mix import MIX, SCHEMA, Mix, extractive_questions
from embed_assets.questions.extractive.passages import read_passage, split_sentences, strip_markup
from embed_assets.words import count_words

MANY: Mix = {"keywords": (keyword_questions, 2), "definition": (definition_questions, 9)}

HOUSING = """# H5 Service Manual
## 3.1 Opening the housing

Only a **Warden II** or above may open the pike. A pike that was closed on a hot quay and lowered
into cold brine holds a *partial vacuum*, and one that has leaked may hold pressure. The vent plug
is a steel screw with a rubber ring[^1]. See [the drawing](figures/pike_(open).png) and `P3.Vent`.

1. Rinse the pike with fresh water and dry it; a drop of brine on the seal face ruins the ring.
2. Turn the vent plug half a turn, wait until the hissing stops, then remove it.
"""
LEAK_TEST = """## 3.2 Leak test

Hang the closed pike at 5 m for fifteen minutes and read the _Housing_ page of the purser: the
humidity inside must stay below 20 % and must not rise by more than 3 points.

| Depth | Time | Greatest rise |
|---|---|---|
| Shallow basin | 15 min | 3 points |
| Pressure vessel | **40 min** | 1 point |
"""
GLOSSARY = """## Words of the trade

| Term | Meaning |
|:---|:---|
| Ghost layer | A salinity step that is reported where there is none |
| Comb skew | One tine of the comb drifts away from tine 0 |

- **Weir stutter**: the rate of the cell jumps because its valve does not seat.
- The marrow buoy is the float that keeps the rig over one spot.
- Note: all of these words stand in the index at the end of the book.
"""
BATTERY = """## Battery

The purser holds a lithium iron phosphate battery, which gives steady voltage almost to the end.
At four hours left the purser finishes the cast in hand and starts no more.
"""
MANUAL = [
    (HOUSING, "H5 Service Manual > 3 Housing > 3.1 Opening the housing"),
    (LEAK_TEST, "H5 Service Manual > 3 Housing > 3.2 Leak test"),
    (GLOSSARY, "H5 Service Manual > Words of the trade"),
    (BATTERY, "H5 Service Manual > Battery"),
]
GERMAN = [
    (
        "## Druckgehäuse\n\nDas Gehäuse besteht aus einem Titanrohr mit einer Wandstärke von 4 mm. "
        "Vor dem Öffnen muss die Entlüftungsschraube gelöst werden, weil sonst ein Unterdruck "
        "bestehen kann.",
        "Druckgehäuse",
    ),
    (
        "## Wartung\n\nDie Dichtungsringe werden bei jeder Öffnung ersetzt. Ein dünner Film des "
        "grünen Fettes genügt.\n\n- **Messkamm**: elf Zinken aus Platin, welche den Salzgehalt "
        "messen.",
        "Wartung",
    ),
]
CHINESE = [
    (
        "## 心脏瓣膜\n\n心脏瓣膜是心房与心室之间的薄膜结构。它保证血液只向一个方向流动。"
        "瓣膜狭窄会导致心脏负荷增加，需要手术治疗。",
        "心脏瓣膜",
    ),
    ("## 血压\n\n血压是血液在血管内流动时作用于血管壁的压力。高血压患者应当减少盐的摄入。", "血压"),
]
HINDI = [
    (
        "## बैटरी\n\nबैटरी को पूरी तरह चार्ज होने में दो घंटे लगते हैं। "
        "ठंड में चार्ज करने से बैटरी का जीवन कम हो जाता है।",
        "बैटरी",
    )
]
ARABIC = [
    (
        "## البطارية\n\nتستغرق عملية شحن البطارية حوالي ساعتين في درجة حرارة الغرفة. "
        "لا تستخدم الجهاز أثناء الشحن، لأن ذلك يقصر عمر البطارية.",
        "البطارية",
    )
]


def document(texts: Sequence[tuple[str, str | None]], document_id: str = "h5") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "document_id": document_id,
            "chunk_index": index,
            "chunk_id": hashlib.md5(text.encode()).hexdigest(),
            "chunk_text": text,
            "heading_path": path,
            "file_name": f"{document_id}.pdf",
        }
        for index, (text, path) in enumerate(texts)
    )


def ask(texts: Sequence[tuple[str, str | None]], kind: str, about: str) -> list[str]:
    """The questions of one kind about the chunk with this text."""
    chunk_id = hashlib.md5(about.encode()).hexdigest()
    questions = extractive_questions(document(texts), MANY)
    return questions.filter(kind=kind, chunk_id=chunk_id)["question"].to_list()


def test_the_table_of_questions_has_its_columns_and_every_kind():
    questions = extractive_questions(document(MANUAL), MANY)
    assert dict(questions.schema) == SCHEMA
    assert set(questions["kind"]) == set(MANY)
    assert set(questions["chunk_id"]) == set(document(MANUAL)["chunk_id"])


def test_a_chunk_gets_at_most_what_the_mix_says():
    questions = extractive_questions(document(MANUAL))
    counts = questions.group_by("chunk_id", "kind").len()
    assert all(count <= MIX[kind][1] for _, kind, count in counts.iter_rows())
    assert set(questions["kind"]) == set(MIX)


def test_another_mix_asks_its_own_kinds():
    quotes: Mix = {"quote": (lambda passage, _: list(passage.sentences), 2)}
    questions = extractive_questions(document(MANUAL), quotes)
    assert questions["kind"].to_list() == ["quote"] * 7
    assert questions["question"][1].startswith("A pike that was closed on a hot quay")


def test_the_same_chunks_in_any_order_give_the_same_questions():
    chunks = document(MANUAL)
    expected = extractive_questions(chunks)
    assert extractive_questions(chunks).equals(expected)
    assert extractive_questions(chunks.reverse()).equals(expected)


def test_a_documents_questions_do_not_depend_on_the_other_documents():
    manual, german = document(MANUAL), document(GERMAN, "anleitung")
    twin = document(MANUAL[:2], "twin")
    together = extractive_questions(pl.concat([manual, german, twin]))
    for alone in (manual, german, twin):
        document_id = alone["document_id"][0]
        assert together.filter(document_id=document_id).equals(extractive_questions(alone))


def test_no_two_questions_of_a_document_are_equal():
    texts = [*MANUAL, (BATTERY + "\nCharge it every week in winter.", MANUAL[3][1]), *GERMAN]
    questions = extractive_questions(document(texts), MANY)["question"].str.to_lowercase()
    assert questions.n_unique() == len(questions)


def test_a_question_of_two_chunks_is_asked_of_neither():
    shared = "The vent plug is a steel screw with a rubber ring."
    one, two = f"{shared} The weir is a ceramic valve.", f"{shared} The comb is a row of tines."
    texts = [(one, "Cell > The weir"), (two, "Cell > The comb")]
    assert ask(texts, "definition", one) == ["What is the weir?"]
    assert ask(texts, "definition", two) == ["What is the comb?"]


def test_a_text_that_stands_twice_in_a_document_is_asked_about_once():
    once, twice = document(MANUAL), document([*MANUAL, MANUAL[0]])
    assert extractive_questions(twice).equals(extractive_questions(once))


def test_keywords_are_the_chunks_own_terms_in_the_order_of_the_text():
    (query, *_) = ask(MANUAL, "keywords", BATTERY)
    words = query.split()
    assert 2 <= len(words) <= 4
    assert "Battery" in words or "battery" in words
    assert not {"the", "which", "to"} & set(words)
    positions = [BATTERY.index(word) for word in words]
    assert positions == sorted(positions)


def test_definitions_are_found_in_sentences_lists_and_glossaries():
    asked = ask(MANUAL, "definition", GLOSSARY)
    assert asked == [
        "What is the marrow buoy?",
        "What is Weir stutter?",
        "What is Ghost layer?",
        "What is Comb skew?",
    ]
    assert ask(MANUAL, "definition", HOUSING) == ["What is the vent plug?"]


def test_what_only_looks_like_a_definition_is_none():
    text = (
        "It is a matter of taste. There is a rule for this. The reason is a simple one, and that "
        "is the end of it. These are the rules. The salient feature of the flow is a shock. "
        "The result is the same.\n\n- Warning: never open the pike in the rain.\n"
        "- 30 June: the last day on which the old contract can be ended."
    )
    assert ask([(text, "Contract")], "definition", text) == []


def test_an_acronym_is_asked_for_where_it_is_spelled_out():
    text = "We train with the inverse cloze task (ICT) and score by hand (CPU time was short)."
    assert ask([(text, "Training")], "definition", text) == ["What does ICT stand for?"]


def test_a_table_is_asked_by_row_and_column():
    asked = ask(MANUAL, "definition", LEAK_TEST)
    assert asked == ["Shallow basin, Time", "Pressure vessel, Greatest rise"]
    rest = LEAK_TEST[LEAK_TEST.index("| Shallow") :]  # a chunk that begins inside a table
    assert ask([(rest, "Leak test")], "definition", rest) == []


def test_no_question_holds_markup_or_is_a_single_word():
    marked = (
        "<br>**==> picture [351 x 120] intentionally omitted <==**\n\n```\nprint(depth)\n```\n"
        "> The **depth** of the _floor_ is $d_{max}$ below \\*zero\\*, as [one](http://a.b/c_d) "
        "reads in `cast_file.cst` &amp; on the ~~old~~ display [12, 13]<sup>2</sup>.\n\n---\n"
    )
    texts = [*MANUAL, (marked, "**Depth** of the _floor_")]
    questions = extractive_questions(document(texts), MANY)["question"].to_list()
    assert not [q for q in questions if re.search(r"[*`|#<>{}\\]|\]\(|_\w+_|picture|&amp;", q)]
    assert all(count_words(q) >= 2 for q in questions)
    assert (
        "The depth of the floor is d max below zero, as one reads in cast_file.cst & on the old "
        "display" in read_passage("id", marked, None).sentences
    )


def test_chunks_with_next_to_no_text_are_not_asked_about():
    tiny = ["", "   ", "7", "# Appendix", "Page 5 of 9", "---", "| |\n|---|", "![](a.png)"]
    assert extractive_questions(document([(text, "Appendix") for text in tiny])).is_empty()


def test_no_chunks_give_no_questions_but_the_columns():
    questions = extractive_questions(document(MANUAL).clear())
    assert questions.is_empty()
    assert dict(questions.schema) == SCHEMA


@pytest.mark.parametrize(
    ("texts", "sentence", "term"),
    [
        (
            GERMAN,
            "Das Gehäuse besteht aus einem Titanrohr mit einer Wandstärke von 4 mm",
            "Titanrohr",
        ),
        (CHINESE, "心脏瓣膜是心房与心室之间的薄膜结构", "心脏瓣膜"),
        (HINDI, "बैटरी को पूरी तरह चार्ज होने में दो घंटे लगते हैं", "बैटरी"),
        (ARABIC, "تستغرق عملية شحن البطارية حوالي ساعتين في درجة حرارة الغرفة", "البطارية"),
    ],
    ids=["German", "Chinese", "Hindi", "Arabic"],
)
def test_other_languages_are_read_by_the_sentence_and_give_keywords_without_english(
    texts: list[tuple[str, str]], sentence: str, term: str
):
    questions = extractive_questions(document(texts), MANY)
    about_first = questions.filter(pl.col("chunk_id") == document(texts)["chunk_id"][0])
    assert sentence in read_passage("id", *texts[0]).sentences
    assert term in about_first.filter(kind="keywords")["question"][0].split()
    assert not questions["question"].str.contains(r"(?i)\b(?:what|how|the)\b").any()


def test_a_german_definition_is_asked_as_the_bare_term_under_its_heading():
    assert ask(GERMAN, "definition", GERMAN[1][0]) == ["Messkamm, Wartung"]


@pytest.mark.parametrize("path", [None, "", "Handbuch > 3.2 Wartung:"])
def test_a_heading_is_the_last_of_the_path_or_of_the_text_without_its_number(path: str | None):
    text = GERMAN[1][0].replace("## ", "# Handbuch\n\n## 3.2 ")
    assert ask([(text, path)], "definition", text) == ["Messkamm, Wartung"]


def test_sentences_end_where_a_reader_would_end_them():
    assert split_sentences(
        "Use approx. 5 g, e.g. of KS-4. See Fig. 3! Is 3.5 N·m enough? Yes."
    ) == [
        "Use approx. 5 g, e.g. of KS-4",
        "See Fig. 3!",
        "Is 3.5 N·m enough?",
        "Yes",
    ]
    assert split_sentences("the flow is steady . the wake is not .") == [
        "the flow is steady",
        "the wake is not",
    ]
    assert split_sentences("血压是压力。它可以测量。") == ["血压是压力", "它可以测量"]


def test_names_with_underscores_stars_in_formulas_and_currency_survive_the_markup():
    assert strip_markup("set `batch_size` to __32__, cost $5 or $6") == (
        "set batch_size to 32, cost $5 or $6"
    )


def test_a_wrapped_paragraph_is_one_block_and_each_list_item_its_own():
    passage = read_passage("id", "One line\nand the next.\n\n- first item\n  goes on\n- second", "")
    assert passage.blocks == ("One line and the next.", "first item goes on", "second")
