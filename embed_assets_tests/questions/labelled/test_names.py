"""Which documents a file's name means."""

import unicodedata

import pytest

from embed_assets.questions.labelled.names import FileNames

PATHS = {
    "kessel": unicodedata.normalize("NFD", "Prüfbericht Kessel.pdf"),
    "top": "REPORT.PDF",
    "deep": "a/b/REPORT.PDF",
    "lease": "2024/lease.pdf",
    "Lease": "2023/Lease.pdf",
}


@pytest.mark.parametrize(
    ("name", "documents"),
    [
        ("Prüfbericht Kessel.pdf", ["kessel"]),
        (unicodedata.normalize("NFD", "prüfbericht kessel"), ["kessel"]),
        ("REPORT.PDF", ["top", "deep"]),
        ("./REPORT.PDF", ["top"]),
        ("a\\b\\REPORT.PDF", ["deep"]),
        ("b/report.pdf", ["deep"]),
        ("C:\\pdfs\\2024\\lease.pdf", ["lease"]),
        ("/home/me/pdfs/a/b/REPORT.PDF", ["deep"]),
        ("Lease", ["Lease"]),
        ("LEASE.PDF", []),
        ("2022/lease.pdf", []),
        ("./lease.pdf", []),
        ("lease.docx", []),
        ("", []),
        (None, []),
    ],
)
def test_a_name_is_matched_whatever_its_form_and_never_with_a_file_of_another_folder(
    name: str | None, documents: list[str]
):
    assert FileNames(PATHS).named(name) == documents


def test_a_name_that_could_be_several_is_none_and_says_which():
    names = FileNames(PATHS)
    assert names.could_be("LEASE.pdf") == ["2024/lease.pdf", "2023/Lease.pdf"]
    assert "LEASE.pdf" in names
    assert names.could_be("REPORT.PDF") == []
    assert names.could_be("nowhere.pdf") == []
    assert "nowhere.pdf" not in names


def test_the_case_as_it_stands_goes_before_any_other():
    names = FileNames({"small": "x/report.pdf", "large": "y/REPORT.PDF"})
    assert names.named("report.pdf") == ["small"]
    assert names.named("y/report.pdf") == ["large"]
    assert names.named("report") == ["small"]
