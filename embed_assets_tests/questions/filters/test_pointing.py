"""Questions that make sense only to somebody who has the chunk before them."""

import pytest

from embed_assets.questions.filters.pointing import points_at_text

POINTING = [
    "What does this section say about fees?",
    "According to the text, who may sign?",
    "Who is the CEO as mentioned in the document?",
    "How many patents are listed in the document, and where?",
    "What is the main topic of the passage?",
    "What does the document above describe?",
    "Which value is given in the following table?",
    "What is shown in Figure 3?",
    "Does Table 2 show a higher yield?",
    "Which steps are needed, as shown above?",
    "Based on the given context, what is the limit?",
    "Based on the information provided, who pays?",
    "Which method is mentioned here?",
    "What do the authors propose for long texts?",
    "According to the author, why did prices rise?",
    "Which of the following is a noble gas?",
    "Does the document include a section on warranty?",
    "What safety signs are used in this manual?",
    "Was sagt der Text über die Gebühren?",
    "Welche Frist wird im Text genannt?",
    "Laut dem Dokument: wer haftet?",
    "Welche Werte zeigt die folgende Tabelle?",
    "Was ist in Abbildung 3 dargestellt?",
    "Was bedeutet die oben genannte Regel?",
    "Selon le texte, qui doit payer ?",
    "Quels outils sont mentionnés dans le document ?",
    "Que montre le tableau ci-dessus ?",
    "D’après l’auteur, pourquoi les prix montent-ils ?",
    "Quelle est la valeur dans la figure 3 ?",
    "Según el texto, ¿quién debe pagar?",
    "¿Qué herramientas se mencionan en el documento?",
    "¿Qué muestra la siguiente tabla?",
    "¿Qué se ve en la figura 3?",
    "¿Cuál es el plazo mencionado anteriormente?",
]

STANDING_ALONE = [
    "What is in Section 7 of the Clean Air Act?",
    "What does Section 11.1 require of the customer?",
    "How do I insert a table in the document editor?",
    "How do I print the document?",
    "How do I remove a device from the list?",
    "How do I delete a row from the table?",
    "How do I go through the apps listed on the page?",
    "How do I cut out parts of the image?",
    "Which figure skater won the title in 2018?",
    "How do I tie a figure 8 knot?",
    "What does 'Control' mean in the context of the agreement between Equifax and Certegy?",
    "How do I open the context menu?",
    "How can I translate text in a foreign language?",
    "What is the page number of the section on indemnification?",
    "Is there a clear space above the logo?",
    "What steps remove the cover above the meat drawer?",
    "What happens within thirty days following the closing date?",
    "Which following year is used for the budget?",
    "Who pays for the services provided by Cargill?",
    "Is a definition given in the document retention policy?",
    "Which fields are shown in the document editor?",
    "How do I go back to the previous page?",
    "Who signs the Protocol of Delivery document?",
    "What is the author of a pull request allowed to do?",
    "How many articles are listed in the table of contents of the transportation agreement?",
    "Does the page count include covers?",
    "Wie drucke ich das Dokument?",
    "Was steht in Abschnitt 7 des Bundes-Immissionsschutzgesetzes?",
    "Wie füge ich eine Tabelle in das Dokument ein?",
    "Welche Texttabelle unterstützt das Programm?",
    "Laut dem Text der Genfer Konvention: wer ist geschützt?",
    "Comment insérer un tableau dans le document ?",
    "Que dit la section 7 de la loi sur l'air ?",
    "Selon le texte de la convention de Genève, qui est protégé ?",
    "¿Cómo imprimo el documento?",
    "¿Qué dice la sección 7 de la Ley de Aire Limpio?",
    "Según el texto de la Convención de Ginebra, ¿quién está protegido?",
]


@pytest.mark.parametrize("question", POINTING)
def test_a_question_that_points_at_the_text_is_found(question):
    assert points_at_text(question)


@pytest.mark.parametrize("question", STANDING_ALONE)
def test_a_question_that_can_be_asked_by_anyone_passes(question):
    assert not points_at_text(question)


def test_a_pointer_is_found_across_a_line_break_and_in_capitals():
    assert points_at_text("WHAT DOES THIS\n  SECTION SAY ABOUT FEES?")
