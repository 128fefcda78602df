"""What a word is, in scripts with and without spaces."""

import pytest

from embed_assets.words import (
    count_words,
    normalised_words,
    search_words,
    split_terms,
    split_words,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't open it (yet): 3.1 m²!", ["Don", "t", "open", "it", "yet", "3", "1", "m²"]),
        ("**_Warden_** ab_cd", ["Warden", "ab", "cd"]),
        ("हिन्दी में लिखें", ["हिन्दी", "में", "लिखें"]),
        ("می‌خواهم بروم", ["می‌خواهم", "بروم"]),
        ("Cafe\u0301 crème", ["Cafe\u0301", "crème"]),
        ("한국어 단어", ["한국어", "단어"]),
        ("水は100℃で沸く。", ["水", "は", "100", "で", "沸", "く"]),
        ("น้ำเดือด", ["น้", "ำ", "เ", "ดื", "อ", "ด"]),
        ("… — * _", []),
    ],
)
def test_words_are_letters_and_figures_with_their_marks(text, words):
    assert split_words(text) == words


def test_compared_words_have_no_case_and_one_form_of_each_letter():
    assert normalised_words("The ﬁrst STRASSE, straße ｱ") == [
        "the",
        "first",
        "strasse",
        "strasse",
        "ア",
    ]


def test_what_may_stand_in_a_word_or_not_does_not_count_where_texts_are_compared():
    alike = [
        ("بِسْمِ", "بسم"),  # vowel points
        ("مـحـمد", "محمد"),  # stretched
        ("\ufee3\ufea4\ufee4\ufeaa", "محمد"),  # presentation forms
        ("שָׁלוֹם", "שלום"),
        ("می\u200cخواهم", "میخواهم"),
        ("كتابي", "کتابی"),  # letters of Arabic and of Persian
        ("Wartungs\u00adplan", "wartungsplan"),
        ("cafe\u0301", "café"),
        ("Straße", "STRASSE"),
        ("İSTANBUL", "istanbul"),
        ("ISPARTA", "ısparta"),
        ("\u200fשלום\u200e", "שלום"),
    ]
    for one, other in alike:
        assert normalised_words(one) == normalised_words(other) != []


def test_searched_words_are_of_two_letters_or_more_and_an_underscore_is_one():
    assert search_words("A pump's snake_case, m² and a") == ["pump", "snake_case", "m2", "and"]


def test_what_has_no_spaces_is_searched_by_characters_and_their_pairs():
    assert search_words("水泵 H5型") == ["水", "泵", "水泵", "h5", "型"]
    assert search_words("检查 油\n位")[-3:] == ["检查", "查油", "油位"]  # over the end of a line
    assert search_words("한국어는") == ["한국어는", "한국", "국어", "어는"]
    assert search_words("ดิน") == ["ดิ", "น", "ดิน"]


def test_terms_and_counts_go_by_words_as_they_are_written():
    assert split_terms("don't use node.js at 5 kg/m³") == [
        "don't", "use", "node.js", "at", "5", "kg/m",
    ]  # fmt: skip
    assert count_words("don't use node.js") == 3
    assert count_words("水泵漏水") == 2
