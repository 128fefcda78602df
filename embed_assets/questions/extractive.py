"""Questions taken from the chunks themselves: no language model, no network, the same every time.

Four kinds, each after a published way of making (query, passage) pairs without labels:

- `heading`: the section's heading, with the heading above it or the chunk's own terms where it
  would fit several chunks. (Title to passage: the author's own label of the text.)
- `keywords`: the chunk's most salient terms (tf-idf in its document), as typed into a search box.
- `definition`: `What is X?` where the chunk says what X is, in a sentence, a list or a table row.
- `sentence`: a sentence of the chunk without its markup. (Inverse cloze task: Lee, Chang &
  Toutanova, ACL 2019, where the sentence stays in its passage in one case of ten; independent
  cropping: Izacard et al., Contriever, TMLR 2022, where both crops may share text, as here.)

A question that several chunks of a document would answer alike is noise for a contrastive loss,
which takes the other chunk as a negative: it is dropped from all of them. What counts as salient is
counted in each document alone, so that a document's questions don't change when others arrive.

Which of them to ask was decided on people's questions: all-MiniLM-L6-v2 at 128 tokens, batches of
32, rate 6e-5, seed 0, each once; NDCG@10 before and after, with the standard error of the change
over the questions. `all three` are keywords, definitions and sentences; `share` is that of the
tuned weights, the rest being the base's:

    set        mix                pairs  epochs  share  384 dimensions         128 dimensions
    scifact    all three          1,024  1       1      .713 .686  -.028±.006  .651 .621  -.030±.007
    scifact    all three          1,024  1       0.5    .713 .706  -.008±.004  .651 .650  -.001±.005
    scifact    keywords           1,024  1       1      .713 .710  -.003±.005  .651 .652  +.001±.007
    scifact    keywords           1,024  1       0.5    .713 .724  +.011±.004  .651 .662  +.011±.005
    cranfield  all three          1,024  1       1      .516 .517   .000±.009  .470 .467  -.004±.009
    cranfield  all three          1,024  1       0.5    .516 .525  +.009±.006  .470 .479  +.009±.006
    cranfield  keywords           1,024  1       1      .516 .512  -.004±.009  .470 .485  +.014±.009
    cranfield  keywords           1,024  1       0.5    .516 .527  +.011±.006  .470 .494  +.023±.007
    sample     all three            738  2       1      .421 .507  +.086±.026  .365 .385  +.020±.027
    sample     all three            738  2       0.5    .421 .519  +.098±.022  .365 .405  +.040±.020
    sample     keywords:2+def.      738  2       0.5    .421 .514  +.093±.021  .365 .412  +.046±.022
    sample     keywords+def.       401  2       1      .421 .516  +.095±.024  .365 .421  +.056±.025
    sample     keywords+def.       401  2       0.5    .421 .497  +.075±.017  .365 .420  +.054±.020

    python benchmarks/extractive_mix.py --sets SET --mixes MIX --pairs PAIRS --epochs EPOCHS
        --lr 6e-5 --blend 1 0.5 [--chunks 2000]

`scifact` has claims that scientists checked, against 2,000 of its abstracts; `cranfield` 1,400
abstracts and 225 queries of researchers; `sample` is this repository's corpus, cut at its headings
(337 chunks), with 111 questions written for it in its users' words. Sentences lie in their chunks
word for word; where they are among the questions scifact loses, and no set gains clearly: they are
left out. Headings are too: at 2e-5, on `sample`, whose chunks begin with them, 256 pairs
of them lowered NDCG@10 (-.019±.016). More rates are in `docs/results.md`. The mixes were
compared on these same questions, so the best is flattered a little.
"""

import html
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, groupby
from typing import Literal

import polars as pl

VERSION = "extractive-2"
"""Part of what identifies a question: raise it when the rules below change what is asked."""

Kind = Literal["heading", "keywords", "definition", "sentence"]

MIX: Mapping[Kind, int] = {"keywords": 1, "definition": 1}
"""How many questions of each kind a chunk gets at most. Chosen by the figures above."""

SCHEMA = {
    "chunk_id": pl.String,
    "document_id": pl.String,
    "question": pl.String,
    "answer": pl.String,
    "kind": pl.String,
}

SHORTEST_CHUNK = 6  # words: a page number or a lone heading answers nothing
SHORTEST_SENTENCE, LONGEST_SENTENCE = 5, 30  # words
TERMS_PER_QUERY = 4
LONGEST_TERM = 5  # words that a defined term may have

# Words are runs of anything but space, punctuation and symbols. (Python's \w breaks the words of
# Hindi, Thai and others at each vowel sign.)
_SPACES_AND_SIGNS = (
    r"\s\x00-\x1f!-/:-@\[-`{-~\u00a1-\u00b4\u00b6-\u00bf\u00d7\u00f7\u0964\u0965\u060c\u061b\u061f"
    r"\u2010-\u206f\u2190-\u22ff\u2500-\u27bf\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff65"
)
_WORD = re.compile(rf"[^{_SPACES_AND_SIGNS}]+(?:[-'’./][^{_SPACES_AND_SIGNS}]+)*")
# Chinese, Japanese, Thai, Lao, Burmese and Khmer put no spaces between words. There a run of one
# script, in Chinese without the most common characters, is likely a word or two.
_HAN, _KATAKANA = r"\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff", r"\u30a0-\u30ff"
_HIRAGANA, _THAI_TO_KHMER = r"\u3040-\u309f", r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_UNSPACED = re.compile(f"[{_HAN}{_KATAKANA}{_HIRAGANA}{_THAI_TO_KHMER}]")
_RUN_OF_ONE_SCRIPT = re.compile(
    f"[{_KATAKANA}]+|(?:(?![的了是在和与及或等之为以而并有不这那个们也都就被把对向会它])[{_HAN}])+"
    rf"|[{_THAI_TO_KHMER}]+|[^\W{_HAN}{_KATAKANA}{_HIRAGANA}{_THAI_TO_KHMER}]+"
)
_LONGEST_RUN = 12  # characters: beyond, it is a clause
_CHARACTERS_PER_UNSPACED_WORD = 2


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text))


_ENGLISH = _words("the of and to with that this are from for be by is on or as at it")
_STOP_WORDS = _ENGLISH | _words(
    """
    a about above after again all also although always an any because been before being below
    between both but can could did do does doing done down during each either else ever every few
    further get give given gives had has have he hence her here his how however i if in into its
    itself just less like made make makes many may me might more most much must my neither no nor
    not now off once one only other otherwise our out over own per rather same see several shall
    she should since so some such take than their them then there therefore these they those
    through thus too two under until up upon us use used using very via was we well were what
    when where whether which while who whom whose why will within without would yet you your
    """
)
_POINTS_ELSEWHERE = _words(
    """
    it this that these those they he she we there here such both its their his her however
    therefore thus hence then also but and or so
    """
)
_WITHIN_TERMS = _words("a an at by for from in of on over the to under up with without")
_LABELS = _words(
    """
    note notes warning caution danger important tip tips example examples figure fig table step
    source sources see references answer question solution remedy contents abstract keywords
    appendix section chapter page date caption author authors email tel phone fax http https
    """
)
_SAYS_NOTHING = _words(
    """
    aim answer aspect case difference effect fact feature features finding findings following goal
    idea issue main number objective observation point principal problem property purpose question
    reason result results rest tool way
    """
)


def extractive_questions(chunks: pl.DataFrame, mix: Mapping[Kind, int] = MIX) -> pl.DataFrame:
    """Questions for each chunk of one or more documents, by kind.

    Args:
        chunks: document_id, chunk_index, chunk_id, chunk_text (markdown), heading_path. Rows in any
            order; a text that stands twice in a document counts once.
        mix: how many questions of each kind a chunk gets at most.

    Returns:
        chunk_id, document_id, question, answer (always null), kind; by document and chunk. A chunk
        with too little text has none.

    Raises:
        ValueError: mix names a kind that does not exist.

    """
    if unknown := set(mix) - set(CANDIDATES):
        raise ValueError(f"mix: no kind {sorted(unknown)}. Kinds: {', '.join(CANDIDATES)}.")
    documents = chunks.sort("document_id", "chunk_index").partition_by(
        "document_id", maintain_order=True
    )
    rows = chain.from_iterable(_questions_of_document(document, mix) for document in documents)
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def _questions_of_document(
    document: pl.DataFrame, mix: Mapping[Kind, int]
) -> Iterable[tuple[str, str, str, None, str]]:
    """One row per question."""
    columns = document.unique("chunk_id", keep="first", maintain_order=True).select(
        "chunk_id", "chunk_text", "heading_path"
    )
    passages = [read_passage(*row) for row in columns.iter_rows()]
    passages = [p for p in passages if sum(map(count_words, p.texts)) >= SHORTEST_CHUNK]
    salience = Salience.of(passages)
    candidates: list[dict[Kind, list[str]]] = [
        {kind: _presentable(CANDIDATES[kind](passage, salience)) for kind in mix}
        for passage in passages
    ]
    chunks_with = Counter(
        key for kinds in candidates for key in {_key(q) for q in chain(*kinds.values())}
    )
    document_id: str = document["document_id"][0]
    for passage, kinds in zip(passages, candidates, strict=True):
        asked: set[str] = set()
        for kind, questions in kinds.items():
            fresh = [q for q in questions if chunks_with[_key(q)] == 1 and _key(q) not in asked]
            for question in fresh[: mix[kind]]:
                asked.add(_key(question))
                yield passage.chunk_id, document_id, question, None, kind


def _presentable(questions: Iterable[str]) -> list[str]:
    """Tidy, each once, none of a single word."""
    tidy = (_tidy(question) for question in questions)
    return [q for q in {_key(q): q for q in reversed(list(tidy))}.values() if count_words(q) > 1][
        ::-1
    ]


def _tidy(question: str) -> str:
    question = re.sub(r"\s+([.,;:!?)])", r"\1", " ".join(question.split()))
    return question.strip(" .,;:-–—·•。।").strip("\"“”'‘’") if question else question


def _key(question: str) -> str:
    """What makes two questions equal: their words, without case, signs and English articles."""
    words = (word.casefold() for word in _WORD.findall(question))
    return " ".join(word for word in words if word not in ("a", "an", "the"))


# What a chunk holds


@dataclass(frozen=True)
class Table:
    """A pipe table: its header (empty where the chunk begins after it) and rows, without markup."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def is_glossary(self) -> bool:
        """Two columns, the second of which mostly holds explanations."""
        explained = [len(row) == 2 and count_words(row[1]) >= 4 for row in self.rows]
        return 2 * sum(explained) > len(explained)


@dataclass(frozen=True)
class Passage:
    """A chunk without its markup."""

    chunk_id: str
    headings: tuple[str, ...]
    blocks: tuple[str, ...]
    labels: tuple[str, ...]
    tables: tuple[Table, ...]

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Sentences of the running text and the list items, in order."""
        return tuple(chain.from_iterable(map(split_sentences, self.blocks)))

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All of its text but the headings."""
        cells = (chain(table.header, *table.rows) for table in self.tables)
        return self.blocks + tuple(chain.from_iterable(cells))

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """Its words as written, in order; from scripts without spaces, likely words."""
        return tuple(chain.from_iterable(map(split_terms, self.texts)))

    @cached_property
    def is_english(self) -> bool:
        """Whether at least one word in twelve is a common little word of English."""
        words = [word.casefold() for word in chain.from_iterable(map(_WORD.findall, self.texts))]
        return 12 * sum(word in _ENGLISH for word in words) >= len(words) > 0


_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*$")
_LIST_ITEM = re.compile(r"^\s*(?:[-*+•▪◦●]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+")
_EMPHASISED_LABEL = re.compile(
    r"^(?P<sign>[*_]{1,3})(?P<term>[^*_:]+)(?::(?P=sign)|(?P=sign)(?:\s\([^()]*\))?(?::|\s[–—-]))\s+\S"
)
_LABEL_OF_ITEM = re.compile(
    r"^(?P<term>[^,;:()]+?)(?:\s\([^()]*\))?(?::[*_]*|[*_]*\s[–—-])\s+\S+(?:\s\S+){3}"
)
_NO_TEXT = re.compile(  # rules, code fences, what pymupdf4llm writes in place of a picture
    r"^(?:(?:[-*_=]\s*){3,}|(?:```|~~~).*|.{0,8}==>.*<==.{0,8}|"
    r"\W*(?:Start|End) of picture text\W*)$"
)


def read_passage(chunk_id: str, chunk_text: str, heading_path: str | None) -> Passage:
    """The headings, blocks of text (paragraphs, list items) and tables of a chunk of markdown."""
    own_headings, blocks, labels, tables = [], [], [], []
    lines = ["" if _NO_TEXT.match(line.strip()) else line for line in chunk_text.splitlines()]
    for shape, group in groupby(_mark_blocks(lines), key=lambda pair: pair[0]):
        content = [line for _, line in group]
        if shape[0] == "heading":
            own_headings.append(strip_markup(content[0]))
        elif shape[0] == "table":
            tables.append(_read_table(content))
        elif shape[0] in ("text", "item"):
            block = " ".join(content)
            blocks.append(strip_markup(block))
            pattern = _LABEL_OF_ITEM if shape[0] == "item" else _EMPHASISED_LABEL
            labels += [strip_markup(label["term"]) for label in [pattern.match(block)] if label]
    path = [strip_markup(heading) for heading in (heading_path or "").split(" > ")]
    headings = [_strip_number(heading) for heading in path if heading] or [
        _strip_number(heading) for heading in own_headings
    ]
    return Passage(
        chunk_id,
        tuple(filter(None, headings)),
        tuple(filter(None, blocks)),
        tuple(filter(None, labels)),
        tuple(tables),
    )


def _mark_blocks(lines: Sequence[str]) -> Iterable[tuple[tuple[str, int], str]]:
    """Each line without the sign of its shape, with the shape and number of its block."""
    number, previous = 0, ""
    for line in lines:
        line = re.sub(r"^\s*(?:>\s?)+", "", line)
        if heading := _HEADING.match(line):
            shape, line, begins = "heading", heading[1], True
        elif line.count("|") >= 2 or (previous == "table" and "|" in line):
            shape, begins = "table", previous != "table"
        elif not line.strip():
            shape, begins = "blank", False
        else:
            item = _LIST_ITEM.match(line)
            begins = item is not None or previous not in ("text", "item")
            shape = ("item" if item else "text") if begins else previous
            line = line[item.end() :] if item else line
        number += begins
        previous = shape
        yield (shape, number), line.strip()


def _read_table(lines: Sequence[str]) -> Table:
    rule = next((i for i, line in enumerate(lines) if _is_table_rule(line)), None)
    rows = [_cells(line) for line in lines if not _is_table_rule(line)]
    rows = [row for row in rows if any(row)]
    if rule is None or rule == 0 or not rows:
        return Table((), tuple(rows))
    return Table(rows[0], tuple(rows[1:]))


def _is_table_rule(line: str) -> bool:
    """`|---|:--:|`, between the header and the rows."""
    return "-" in line and set(line) <= set(" \t|:-")


def _cells(line: str) -> tuple[str, ...]:
    return tuple(strip_markup(cell) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|")))


_MARKUP: Sequence[tuple[re.Pattern[str], str]] = [
    (re.compile(r"<!--.*?-->|<(sup|sub)>[\s\d,*†‡§_∗]*</\1>", re.S), ""),  # footnote marks
    (re.compile(r"</?[a-zA-Z][^<>]*>"), " "),
    (re.compile(r"!?\[([^\]]*)\]\([^()]*(?:\([^()]*\)[^()]*)*\)"), r"\1"),  # images and links
    (re.compile(r"\[\^?[\d,\s–-]+\]"), ""),  # citations
    (re.compile(r"\$([^$\n]*[\\^_][^$\n]*)\$"), r"\1"),  # inline formulas
    (re.compile(r"(?<!\\)\\[a-zA-Z]+\s?"), " "),  # LaTeX commands
    (re.compile(r"\\([^\w\s])"), r"\1"),  # escapes
    (re.compile(r"`+"), ""),
    (re.compile(r"~~|\*+|(?<![^\W_])_+|_+(?![^\W_])"), ""),  # emphasis; not snake_case
    (re.compile(r"[|#{}<>^\\\x00-\x1f\x7f]"), " "),
]


def strip_markup(markdown: str) -> str:
    """The text of some markdown within a line: no emphasis, links, tags, citations or formulas."""
    text = html.unescape(markdown)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def _strip_number(heading: str) -> str:
    """`3.1 Methods` and `Chapter 3: Methods` are headed Methods."""
    number = r"(?:\d+(?:[.-]\d+)*|[A-Z](?:\.\d+)+|[A-Z](?=[.):]))[.):]?"
    pattern = rf"^(?:(?:chapter|section|appendix|part)\s+)?{number}\s+"
    return re.sub(pattern, "", heading, flags=re.I).rstrip(" .:;,") or heading


_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|cf|vs|etc|al|fig|figs|eq|eqs|sec|ref|refs|no|nos|vol|pp?|approx|ca|"
    r"dr|mr|mrs|ms|prof|st|inc|ltd|co|corp|bzw|z\.b|d\.h|usw|nr|abb|n|[A-Z])\.$",
    re.I,
)
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"”’»)]*\s+|(?<=[。！？।॥؟])\s*")


def split_sentences(text: str) -> list[str]:
    """Sentences of a block of text, without their full stops.

    A stop before a small letter ends no sentence (`approx. five`), unless it stands apart, as in
    old corpora (`available . the flow`).
    """
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        so_far, rest = text[start : end.start()], text[end.end() :]
        apart = so_far.endswith((" .", " ?", " !"))
        if not apart and (rest[:1].islower() or _ABBREVIATION.search(so_far)):
            continue
        sentences.append(so_far)
        start = end.end()
    return [_tidy(sentence) for sentence in [*sentences, text[start:]] if _tidy(sentence)]


def count_words(text: str) -> int:
    """Words of a text; where a script has no spaces, two characters count as one."""
    return sum(
        max(1, len(word) // _CHARACTERS_PER_UNSPACED_WORD) if _UNSPACED.search(word) else 1
        for word in _WORD.findall(text)
    )


def split_terms(text: str) -> list[str]:
    """Words that may be terms; of a script without spaces, runs that are likely words."""
    return list(chain.from_iterable(map(_terms_of_word, _WORD.findall(text))))


def _terms_of_word(word: str) -> list[str]:
    if not _UNSPACED.search(word):
        return [word]
    runs: list[str] = _RUN_OF_ONE_SCRIPT.findall(word)
    return [run for run in runs if 2 <= len(run) <= _LONGEST_RUN]


# What is salient


@lru_cache(100_000)
def _fold(term: str) -> str:
    """One form for `Casts`, `cast` and `cast's`."""
    folded = re.sub(r"['’]s?$", "", term.casefold())
    return folded[:-1] if len(folded) > 4 and folded.endswith("s") else folded


@lru_cache(100_000)
def _may_be_term(folded: str) -> bool:
    long_enough = len(folded) > 2 or _UNSPACED.search(folded) or _has_digit_and_letter(folded)
    has_letter = any(character.isalpha() for character in folded)
    return bool(long_enough and has_letter and folded not in _STOP_WORDS)


def _has_digit_and_letter(text: str) -> bool:
    return any(c.isdigit() for c in text) and any(c.isalpha() for c in text)


@dataclass(frozen=True)
class Salience:
    """How much a term says about a chunk, by the chunks of one document.

    tf-idf (Spärck Jones 1972), times a term's length up to eight letters: in a document of few
    chunks the frequencies alone can't tell little words from terms.
    """

    chunks: int
    chunks_with: Mapping[str, int]

    @classmethod
    def of(cls, passages: Sequence[Passage]) -> "Salience":
        """Count in how many passages each term occurs."""
        folded = chain.from_iterable(set(map(_fold, passage.terms)) for passage in passages)
        return cls(len(passages), Counter(folded))

    def weigh(self, terms: Sequence[str]) -> dict[str, float]:
        """The weight of each folded term among these, where it may be a term at all.

        A word that a longer document has only once counts half: it is more often a turn of phrase
        than a term.
        """
        counts = Counter(filter(_may_be_term, map(_fold, terms)))
        return {term: self._trust(term, n) * self.rarity(term) for term, n in counts.items()}

    def _trust(self, folded: str, count: int) -> float:
        once = count == 1 and self.chunks_with.get(folded, 1) == 1 and self.chunks >= 5
        return 0.5 if once and not _has_digit_and_letter(folded) else count

    def rarity(self, folded: str) -> float:
        """Inverse document frequency (the documents are chunks), times the length."""
        length = 8 if _has_digit_and_letter(folded) or _UNSPACED.search(folded) else len(folded)
        return math.log((1 + self.chunks) / self.chunks_with.get(folded, 1)) * min(length, 8)


def salient_terms(passage: Passage, salience: Salience) -> list[str]:
    """A passage's terms as first written, best first. Those of its heading count twice."""
    headed = set(map(_fold, split_terms(" ".join(passage.headings[-1:]))))
    weights = {
        term: weight * (2 if term in headed else 1)
        for term, weight in salience.weigh(passage.terms).items()
    }
    written = {_fold(term): term for term in reversed(passage.terms)}
    return [written[term] for term in sorted(weights, key=lambda term: (-weights[term], term))]


# The candidates of each kind, best first


def heading_questions(passage: Passage, salience: Salience) -> list[str]:
    """The heading as a query; then with the one above it; then with the chunk's own terms.

    The later forms are for headings that say little (`Overview`) or stand over several chunks.
    """
    if not passage.headings:
        return []
    heading = passage.headings[-1]
    says_enough = sum(map(_may_be_term, map(_fold, split_terms(heading)))) > 1
    above = f"{passage.headings[-2]}: {heading}" if len(passage.headings) > 1 else heading
    known = set(map(_fold, split_terms(above)))
    terms = [term for term in salient_terms(passage, salience) if _fold(term) not in known][:2]
    alone = [_ask_about_heading(heading, passage.is_english)] if says_enough else []
    narrowed = f"{heading if says_enough else above}: {' '.join(_as_written(terms, passage))}"
    return [*alone, above, narrowed] if terms else [*alone, above]


def _ask_about_heading(heading: str, is_english: bool) -> str:
    """`How do you go about opening the housing?`; other headings stay as they are."""
    if not is_english or heading.isupper():
        return heading
    if re.match(r"(?:how|what|why|when|where|who|which|can|do|does|is|are) ", heading, re.I):
        return heading if heading.endswith("?") else f"{heading}?"
    if re.match(r"\w{2,}ing (?:the|an?|your|its|this|these) ", heading, re.I):
        return f"How do you go about {heading[0].lower()}{heading[1:]}?"
    return heading


def keyword_questions(passage: Passage, salience: Salience) -> list[str]:
    """The most salient terms, a few per query, in the order in which the text has them."""
    terms = salient_terms(passage, salience)[: 3 * TERMS_PER_QUERY]
    starts = range(0, len(terms), TERMS_PER_QUERY)
    return [" ".join(_as_written(terms[i : i + TERMS_PER_QUERY], passage)) for i in starts]


def _as_written(terms: Sequence[str], passage: Passage) -> list[str]:
    return sorted(terms, key=passage.terms.index)


_IS_A = re.compile(
    r"^(?P<term>(?:(?:an?|the)\s)?[^,;:()]+?)\s(?:\([^()]{1,40}\)\s)?(?P<verb>is|are)\s"
    r"(?:an?|the|any|one of|defined as|called|known as)\s",
    re.I,
)
_MEANS = re.compile(r"^(?P<term>[^,;:()]+?)\s(?:means|refers to|stands for|denotes)\s", re.I)
_ACRONYM = re.compile(r"\((?P<short>[A-Z][A-Z0-9]{1,5})s?\)")


def definition_questions(passage: Passage, salience: Salience) -> list[str]:
    """What the chunk says what it is: `What is X?`; in other languages X and its heading.

    After those, the rows of tables that are no glossaries, as `row, column` queries.
    """
    labels = (label for label in passage.labels if count_words(label) <= 3)
    in_glossaries = (row[0] for table in passage.tables if table.is_glossary for row in table.rows)
    defined = [
        *filter(None, map(_defined_by, passage.sentences)),
        *(Defined(term, "is") for term in chain(labels, in_glossaries)),
    ]
    heading = passage.headings[-1] if passage.headings else ""
    asked = [
        what.as_question() if passage.is_english else what.under(heading)
        for what in defined
        if _is_definable(what.term, passage)
    ]
    acronyms = _acronyms(passage) if passage.is_english else []
    return [*asked, *acronyms, *_row_queries(passage)]


@dataclass(frozen=True)
class Defined:
    """What a chunk defines, and whether it speaks of one or of several."""

    term: str
    verb: Literal["is", "are"]

    def as_question(self) -> str:
        """`What is the marrow buoy?`."""
        has_article = re.match(r"(?:an?|the)\s", self.term, re.I)
        term = self.term[0].lower() + self.term[1:] if has_article else self.term
        return f"What {self.verb} {term}?"

    def under(self, heading: str) -> str:
        """The bare term, with the heading, for languages other than English."""
        return (
            f"{self.term}, {heading}" if _key(heading) not in ("", _key(self.term)) else self.term
        )


def _defined_by(sentence: str) -> Defined | None:
    if is_a := _IS_A.match(sentence):
        return Defined(is_a["term"], "are" if is_a["verb"].lower() == "are" else "is")
    means = _MEANS.match(sentence)
    return Defined(means["term"], "is") if means else None


def _is_definable(term: str, passage: Passage) -> bool:
    """Whether a text may be the name of something; `the result` only where it is the heading's."""
    words = [word.casefold() for word in _WORD.findall(term)]
    article = words[0] if words[:1] in (["a"], ["an"], ["the"]) else ""
    core = words[1:] if article else words
    if not core or len(core) > LONGEST_TERM or core[0] in _STOP_WORDS or core[0][0].isdigit():
        return False
    if article == "the" and len(core) == 1:
        return _fold(core[0]) in map(_fold, split_terms(" ".join(passage.headings)))
    return (
        not (_LABELS | _SAYS_NOTHING).intersection(core)
        and not (_STOP_WORDS - _WITHIN_TERMS).intersection(core)
        and not re.search(r"[.!?]\s", term)
        and any(map(_may_be_term, map(_fold, split_terms(term))))
    )


def _acronyms(passage: Passage) -> Iterable[str]:
    """`What does ICT stand for?` where the words before `(ICT)` begin with its letters."""
    for block in passage.blocks:
        for match in _ACRONYM.finditer(block):
            words = _WORD.findall(block[: match.start()].replace("-", " "))
            initials = "".join(word[0] for word in words[-len(match["short"]) :])
            if initials.casefold() == match["short"].casefold():
                yield f"What does {match['short']} stand for?"


def _row_queries(passage: Passage) -> Iterable[str]:
    """`Greatest depth, H5`: a row's label and one column, another column in each row."""
    for table in passage.tables:
        if table.is_glossary or len(table.header) < 2:
            continue
        for number, row in enumerate(table.rows):
            column = 1 + number % (len(table.header) - 1)
            filled = column < len(row) and row[column] and table.header[column]
            if filled and any(map(_may_be_term, map(_fold, split_terms(row[0])))):
                yield f"{row[0]}, {table.header[column]}"


def sentence_questions(passage: Passage, salience: Salience) -> list[str]:
    """Sentences that stand on their own, the most telling first; else the rows of the tables."""
    sentences = [_crop(s) for s in passage.sentences if _is_prose(s)]
    telling = sorted(sentences, key=lambda s: _says_little(s, salience))
    return telling or [row for table in passage.tables for row in _rows_as_text(table)]


def _is_prose(sentence: str) -> bool:
    """Long enough, and mostly letters: no entry of a table of contents, no formula."""
    letters = sum(unicodedata.category(c)[0] in "LM" for c in sentence)  # M: vowel signs
    signs = sum(not c.isspace() for c in sentence)
    return count_words(sentence) >= SHORTEST_SENTENCE and 10 * letters >= 7 * signs


def _says_little(sentence: str, salience: Salience) -> tuple[bool, float]:
    """A sort key: first what needs no sentence before it, then by mean salience of its words."""
    words = split_terms(sentence)
    points_elsewhere = bool(words) and words[0].casefold() in _POINTS_ELSEWHERE
    weights = salience.weigh(words)
    return points_elsewhere, -sum(weights.values()) / max(1, len(words))


def _crop(sentence: str) -> str:
    """A sentence that is too long ends at its last comma that makes it short enough, or is cut."""
    if count_words(sentence) <= LONGEST_SENTENCE:
        return sentence
    ends = [match.start() for match in re.finditer(r"[,;:，；：、]\s*|\s[–—]\s", sentence)]
    fitting = [end for end in ends if count_words(sentence[:end]) <= LONGEST_SENTENCE]
    if fitting and count_words(sentence[: fitting[-1]]) >= LONGEST_SENTENCE // 2:
        return sentence[: fitting[-1]]
    words = [match.end() for match in _WORD.finditer(sentence)]
    if len(words) > LONGEST_SENTENCE:
        return sentence[: words[LONGEST_SENTENCE - 1]]
    return sentence[: LONGEST_SENTENCE * _CHARACTERS_PER_UNSPACED_WORD]


def _rows_as_text(table: Table) -> Iterable[str]:
    """`Mode: Auto, When it heats: Under 12 °C` for each row."""
    for row in table.rows:
        if table.header:
            pairs = zip(table.header, row, strict=False)
            text = ", ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell)
        else:
            text = ", ".join(filter(None, row))
        if count_words(text) >= SHORTEST_SENTENCE:
            yield _crop(text)


CANDIDATES: Mapping[Kind, Callable[[Passage, Salience], list[str]]] = {
    "heading": heading_questions,
    "keywords": keyword_questions,
    "definition": definition_questions,
    "sentence": sentence_questions,
}
"""For each kind, all it can ask about a passage, best first."""
