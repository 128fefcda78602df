"""A language is told by its little words, or not at all."""

import pytest

from embed_assets.languages import LITTLE_WORDS, language_of, languages_of
from embed_assets.words import search_words


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The pump is on the left of the valve.", "english"),
        ("Die Pumpe ist links von der Klappe.", "german"),
        ("La pompe est à gauche de la vanne et du filtre.", "french"),
        ("Pumpen er ikke til at se af den, og det er efter planen.", "danish"),
        ("Pumpen er ikke til å se av den, og det er etter planen.", "norwegian"),
        ("Насос не работает на воде, если это лёд.", "russian"),
        ("Η αντλία είναι στο δωμάτιο και δεν λειτουργεί με το νερό.", "greek"),
        ("यह पंप पानी के लिए है और इस में तेल नहीं है।", "hindi"),
    ],
)
def test_a_running_text_has_the_language_of_its_little_words(text, language):
    assert language_of(search_words(text)) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bruce.com hart.com lock.com home.com",
        "FC-100 | 12 | 30",
        "水泵漏水时先关阀门。",
        "Pumpe",
    ],
)
def test_names_figures_and_unknown_scripts_have_no_language(text):
    assert language_of(search_words(text)) is None


def test_what_tells_no_language_takes_that_of_most_others():
    german, english = (
        ["die", "pumpe", "ist", "nicht", "an"],
        ["the", "pump", "is", "on", "the", "left"],
    )
    assert languages_of([german, [], german, english]) == ["german", "german", "german", "english"]
    assert languages_of([["pump"]]) == ["english"]


def test_every_language_has_a_stemmer():
    import Stemmer

    assert set(LITTLE_WORDS) <= set(Stemmer.algorithms())
