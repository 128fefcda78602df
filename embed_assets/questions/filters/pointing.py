"""Questions that only make sense to somebody who has the chunk before them.

`What does this section say about fees?` or `What is shown in Figure 3?` could be asked of every
chunk, so they teach a model nothing about the one they were written for. The rules look for a
*pointer*: a noun for text (text, passage, document, figure …) in a phrase in which a reader speaks
of what lies before them: `according to the document`, `mentioned in the text`, `the table above`.
The noun alone says nothing: people also ask how to print the document. So does a name: `Section 7
of the Clean Air Act` or `the warranty document` can be looked up. Where in doubt a question passes.

English, German, French and Spanish; questions in other languages pass.

Of 1,915 questions that a language model wrote for contracts and manuals, 69 are found; read by eye,
68 do point (`according to the document`, mostly) and one doesn't (`the datasheet that removed QP
from Table 1`). Many of the 68 would serve without the phrase, which is why dropping them need not
help. Of 1,445 questions and claims that people wrote for search, or for this project's sample
corpus, none is found. The other three languages were tried on made-up questions only.
"""

import re

# English. A pointer ends its noun phrase: 'the document editor' or 'the table of contents' is no
# pointer, so that what may follow is listed.
_TEXT = r"(?:text|passage|excerpt|extract|snippet|paragraph|section|chapter|context|document)s?"
_PICTURE = r"(?:tables?|figures?|diagrams?|images?|pictures?|charts?|graphs?|illustrations?)"
_WORK = r"(?:article|manual|guide|handbook|paper|study|report|example|author)s?"
_THING = rf"(?:{_TEXT}|{_PICTURE}|{_WORK})"
_END = (
    r"(?=\s*(?:$|[?!.,;:)\]\"”»–—]|-\s|(?:above|below|provided|given|here|and|or|but|as|if|when|"
    r"what|who|how|why|which|where|is|are|was|were|does|do|did|has|have|can|could|may|must|shall|"
    r"should|will|would|to|about|regarding)\b))"
)
_READ = (
    r"(?:mentioned|listed|described|stated|provided|given|specified|discussed|outlined|shown|"
    r"defined|named|referenced|presented|depicted|illustrated|cited|explained|indicated|noted|"
    r"covered|detailed|identified|summari[sz]ed|contained|introduced|highlighted|set (?:out|forth))"
)
_BEFORE_US = r"(?:given|provided|following|above|above-mentioned|aforementioned|accompanying)"
_SAY = (
    r"(?:say|mention|state|describe|discuss|explain|suggest|indicate|recommend|list|refer|claim|"
    r"argue|outline|specify|define|highlight|emphasi[sz]e|imply|reveal|illustrate|depict|cover|"
    r"show|mean|address|convey|tell)"
)
_SAYS = (
    r"(?:says|mentions|states|describes|discusses|explains|suggests|indicates|argues|claims|"
    r"refers|recommends|specifies|emphasi[sz]es|implies|illustrates|depicts)"
)
_AUTHORS_DO = (
    rf"(?:{_SAY}|use|propose|evaluate|compare|present|introduce|find|conclude|report|collect|"
    r"believe|think|make|employ|train|test)"
)
_ENGLISH = (
    rf"\b(?:according to|based on|as per|per|given) (?:the|this|that|these) (?:{_BEFORE_US} )?"
    rf"(?:{_THING}|page|list){_END}",
    r"\b(?:according to|based on|given|from) (?:the|this) (?:"
    rf"information {_READ}|{_BEFORE_US} information){_END}",
    rf"\b{_READ} (?:in|by|on|within|throughout|under) (?:the|this|that|these) "
    rf"(?:{_BEFORE_US} )?{_THING}{_END}",
    rf"\b{_READ} (?:above|below|here|earlier)(?=\s*(?:$|[?!.,;:)]|and\b|is\b|are\b|in\b))",
    rf"\bthe {_BEFORE_US} (?:{_TEXT}|{_PICTURE}|article|list|example)s?{_END}",
    rf"\bthe (?:{_TEXT}|{_PICTURE}|article|list|example) (?:above|below|provided|given)"
    rf"(?=\s*(?:$|[?!.,;:)]|(?:is|are|does|do|{_SAY}|{_SAYS})\b))",
    rf"\bthis (?:passage|excerpt|extract|snippet|paragraph|section|chapter)(?:{_END}| {_SAY}\b)",
    rf"\b(?:in|of|by|from|throughout|within) (?:this|these) (?:{_TEXT}|{_PICTURE}|{_WORK}){_END}",
    rf"\b(?:does|did|do) (?:the|this|these) (?:{_TEXT}|{_PICTURE}|article|paper|study) {_SAY}\b",
    rf"\b(?:the|this) (?:{_TEXT}|{_PICTURE}|article|paper|study) {_SAYS}\b",
    r"\bdoes (?:the|this) (?:text|passage|excerpt|document|section|paragraph|article) "
    r"(?:include|contain|provide)\b",
    rf"\b(?:does|did|do) the authors? {_AUTHORS_DO}\b",
    rf"\bthe author {_SAYS}\b",
    r"\b(?:purpose|(?:main|key|central|overall) (?:topic|theme|idea|point|purpose|subject|focus|"
    r"message|argument)|theme) of (?:the|this) (?:"
    rf"{_TEXT}|article|page|paper|study|report){_END}",
    r"\bwhat is the title of (?:the|this) (?:text|passage|document|section|chapter|article)" + _END,
    r"\b(?:which|what|all|any|none|one|each) of the (?:above|following)"
    r"(?=\s*(?:$|[?!.,;:)]|is\b|are\b|was\b|does\b|do\b|can\b|best\b))",
    r"\b(?:in|on|from|by|per|to|of|see|does|do|is|using|under|with|and) (?:fig\.|figs?|figures?|"
    rf"tables?) ?\d+(?:[.-]\d+)?[a-z]?(?:(?!: \w){_END}|(?= (?:{_SAY}|"
    r"represent|display)\b))",
    r"^(?:fig\.|figure|table) ?\d+(?:[.-]\d+)?[a-z]? (?:shows?|illustrates?|depicts?|lists?)\b",
)

# In these three languages what narrows a noun is joined by a preposition, so that this may not
# follow.
_DE_THING = (
    r"(?:text|abschnitt|absatz|dokument|kapitel|auszug|artikel|textstelle|passage|kontext)s?"
)
_DE_PICTURE = r"(?:abbildung|tabelle|grafik|diagramm|bild|liste|skizze)"
_DE_READ = (
    r"(?:erwähnt|genannt|beschrieben|aufgeführt|angegeben|gezeigt|dargestellt|aufgelistet|erklärt|"
    r"erläutert|definiert|behandelt|abgebildet|empfohlen)(?:e[nrsm]?)?"
)
_DE_END = r"(?![-\w])(?!\s+(?:de[sr]|zu[rm]?|von|vom|\d+|„|\")(?:\s|\b))"
_GERMAN = (
    rf"\b(?:laut|gemäß|nach) (?:de[mr]|diese[mr]) (?:\w+(?:en|em) )?(?:{_DE_THING}|{_DE_PICTURE}|"
    rf"autor(?:in|en)?){_DE_END}",
    rf"\b(?:laut|gemäß) (?:text|abschnitt|dokument|autor|abbildung|tabelle){_DE_END}",
    rf"\b(?:dem|diesem) {_DE_THING} (?:zufolge|nach)\b",
    rf"\b(?:im|in (?:dem|der|diesem|dieser)) (?:\w+en )?(?:{_DE_THING}|{_DE_PICTURE}) {_DE_READ}\b",
    rf"\b(?:in|aus|von) diese[mr] (?:{_DE_THING}|{_DE_PICTURE}){_DE_END}",
    rf"\b(?:obige|folgende|vorliegende|gegebene|nachstehende|untenstehende)[nrsm]? (?:{_DE_THING}|"
    rf"{_DE_PICTURE}){_DE_END}",
    r"\b(?:oben|unten|hier) (?:" + _DE_READ + r"|stehend\w*)\b",
    rf"\b(?:sagt|erklärt|beschreibt|erwähnt|behandelt|besagt|zeigt|schreibt|meint) (?:de[rn]|das|"
    rf"die|diese[rs]?) (?:{_DE_THING}|{_DE_PICTURE}|autor(?:in|en)?){_DE_END}",
    r"\b(?:in|auf|aus|laut|zeigt|gemäß) (?:der )?(?:abb\.|abbildung|tabelle|tab\.) ?\d+"
    r"(?!\s*(?:de[sr]|von)\b)",
)

_FR_THING = (
    r"(?:textes?|passages?|documents?|extraits?|paragraphes?|sections?|chapitres?|articles?|"
    r"contexte)"
)
_FR_PICTURE = r"(?:figures?|tableaux?|images?|graphiques?|schémas?|listes?|diagrammes?)"
_FR_READ = (
    r"(?:mentionné|décrit|cité|indiqué|présenté|énuméré|illustré|expliqué|défini|donné|montré|"
    r"représenté|précisé|abordé|évoqué)e?s?"
)
_FR_END = r"(?![-\w])(?!\s+(?:de|du|des|d['’]|\d|intitulé))"
_FRENCH = (
    rf"\b(?:selon|d['’]après) (?:l[ea] |l['’]|les |ce |cet |cette )(?:{_FR_THING}|{_FR_PICTURE}|"
    rf"auteure?s?){_FR_END}",
    rf"\b{_FR_READ} (?:dans|par|sur) (?:l[ea] |l['’]|ce |cet |cette )(?:{_FR_THING}|{_FR_PICTURE})"
    rf"{_FR_END}",
    rf"\b{_FR_READ} (?:ci-dessus|ci-dessous|ici|plus haut|plus bas)\b",
    rf"\b(?:dans|de|par) (?:ce|cet|cette|ces) (?:{_FR_THING}|{_FR_PICTURE}){_FR_END}",
    rf"\b(?:{_FR_THING}|{_FR_PICTURE}) (?:ci-dessus|ci-dessous|suivante?|fournie?|donnée?)\b",
    rf"\bque (?:dit|montre|décrit|explique|mentionne|signifie) (?:l[ea] |l['’]|ce |cet |cette )"
    rf"(?:{_FR_THING}|{_FR_PICTURE}|auteure?){_FR_END}",
    r"\b(?:dans|sur|selon|de|montre|voir) (?:la |le )?(?:figure|fig\.|tableau) ?\d+"
    r"(?!\s*(?:de|du|des)\b)",
)

_ES_THING = (
    r"(?:textos?|pasajes?|documentos?|extractos?|fragmentos?|párrafos?|secci(?:ón|ones)|"
    r"capítulos?|artículos?|contexto)"
)
_ES_PICTURE = r"(?:figuras?|tablas?|imagen|imágenes|gráficos?|diagramas?|listas?|cuadros?)"
_ES_READ = (
    r"(?:mencionad|descrit|citad|indicad|presentad|enumerad|mostrad|explicad|definid|señalad|"
    r"listad|detallad)[oa]s?|(?:menciona|describe|indica|muestra|explica|enumera)n?"
)
_ES_END = r"(?![-\w])(?!\s+(?:de|del|\d|titulad[oa]))"
_SPANISH = (
    rf"\b(?:según|de acuerdo con|conforme a) (?:el|la|los|las|este|esta) (?:{_ES_THING}|"
    rf"{_ES_PICTURE}|autor(?:a|es)?){_ES_END}",
    rf"\b(?:{_ES_READ}) (?:en|por) (?:el|la|este|esta) (?:{_ES_THING}|{_ES_PICTURE}){_ES_END}",
    rf"\b(?:{_ES_READ}) (?:arriba|abajo|aquí|anteriormente|a continuación)\b",
    rf"\b(?:en|de|por) (?:este|esta|estos|estas) (?:{_ES_THING}|{_ES_PICTURE}){_ES_END}",
    rf"\b(?:{_ES_THING}|{_ES_PICTURE}) (?:anterior|siguiente|proporcionad[oa]|dad[oa])\b",
    rf"\b(?:siguiente|presente) (?:{_ES_THING}|{_ES_PICTURE}){_ES_END}",
    rf"\bqué (?:dice|muestra|describe|explica|menciona|indica) (?:el|la|este|esta) (?:{_ES_THING}|"
    rf"{_ES_PICTURE}|autor){_ES_END}",
    r"\b(?:en|de|según|muestra|ver) (?:la |el )?(?:figura|fig\.|tabla|cuadro) ?\d+"
    r"(?!\s*(?:de|del)\b)",
)

_POINTERS = re.compile(
    "|".join(f"(?:{rule})" for rule in (*_ENGLISH, *_GERMAN, *_FRENCH, *_SPANISH)), re.IGNORECASE
)


def points_at_text(question: str) -> bool:
    """Whether a question speaks of a text or figure as of one that lies before the reader."""
    return _POINTERS.search(" ".join(question.split())) is not None
