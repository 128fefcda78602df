"""Labelled questions follow the PDFs that moved, and leave with those that were forgotten.

A row may name a file as it was called before.
"""

from dataclasses import replace

from embed_assets.documents.forgotten import read_forgotten
from embed_assets.questions.labelled.files import LabelledQuestion, read_labelled
from embed_assets.questions.labelled.names import FileNames, composed
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings


def read_moved(settings: Settings, warehouse: Warehouse) -> list[LabelledQuestion]:
    """People's questions, those that name a file by a former path with the path that it has now.

    A name that a document has today means that document. Those that name one that was forgotten are
    left out.
    """
    labelled = read_labelled(settings.labelled_files, settings.labelled_purpose)
    if not labelled:
        return []
    names = FileNames(warehouse.paths())
    forgotten = FileNames({path: path for path in read_forgotten(warehouse).paths})
    questions = [
        question
        for question in labelled
        if question.file_name in names or question.file_name not in forgotten
    ]
    moved = warehouse.read(
        "SELECT f.path, r.path FROM former_paths f JOIN raw_pdfs r USING (document_id) ORDER BY ALL"
    )
    if moved.is_empty():
        return questions
    now: dict[str, str] = {}
    for before, path in moved.iter_rows():
        for name in (before, f"./{before}", before.rpartition("/")[2]):
            if not names.exactly(name):
                now.setdefault(composed(name), f"./{path}")
    return [
        replace(question, file_name=now.get(composed(question.file_name), question.file_name))
        if question.file_name
        else question
        for question in questions
    ]
