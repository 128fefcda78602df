"""Languages that have a stemmer, and which of them a text is written in.

A language is told by its commonest little words, of which every running text is full: that needs
no model, gives the same answer every time, and errs on the side of not knowing. Lists of names,
figures and code have no language.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

ENGLISH = "english"
LEAST_SHARE = 1 / 12
"""Of a text's words of two letters or more, those that must be little words of its language."""
LEAST_DIFFERENT = 2
"""Little words of its language that a text must have."""
LOOKED_AT = 500
"""Words of a text that are looked at, from its beginning."""

LITTLE_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "arabic": "في من على إلى الى أن هذا هذه التي الذي عن مع لا ما هو هي كل أو ثم قد بعد كان",
        "armenian": "է որ են մի համար հետ չի այս եւ կամ էր նրա նաև",
        "basque": "eta da ez bat du dira ere edo izan hau dute baina zen dela",
        "catalan": (
            "el la els les de del dels que en un una per amb no és al als aquest aquesta o però"
        ),
        "czech": "na se je že do pro od po při nebo jsou není které který jako by ale jeho také",
        "danish": "og at det som en et er på for med ikke af til den de har om kan ved eller efter",
        "dutch": (
            "de het een van en is niet op met voor zijn dat te wordt door aan ook bij worden deze "
            "of"
        ),
        "english": (
            "the of and to in that is for it with as are on this be by from or at was not which"
        ),
        "estonian": "ja on ei see et kui ka või oma ning mis aga kas siis seda ole",
        "finnish": (
            "ja on ei se että joka kun tai mutta ovat ole sekä myös voi oli niin kuin jos sen"
        ),
        "french": (
            "le la les de des du et est une un dans que pour par sur avec pas au aux ce cette "
            "sont ou qui"
        ),
        "german": (
            "der die und das ist nicht ein eine mit von zu den im auf für dem des sich auch "
            "werden wird bei oder als"
        ),
        "greek": "και το να της του τα με στο για είναι που από την των δεν θα τη τον στην σε",
        "hindi": "के का में की है से और को पर यह एक हैं ने नहीं भी या कि इस",
        "hungarian": "az és hogy nem is egy van meg ha vagy csak de mint el ki ez kell",
        "indonesian": (
            "yang dan di untuk dengan dari ini pada tidak adalah dalam akan atau oleh itu ke"
        ),
        "irish": "an na agus ar is ní le go don ag bhí atá sé nach leis",
        "italian": (
            "il lo la gli le di del della dei che un una per con non è in da al nel sono si alla"
        ),
        "lithuanian": "ir yra kad ne su iš tai bet kaip ar arba nuo apie buvo jei per",
        "nepali": "छ र को मा ले गर्न पनि हो लागि यो भएको छन् तर",
        "norwegian": (
            "og at det som en et er på for med ikke av til den de har om kan ved eller etter"
        ),
        "persian": "در به از که این را با است برای آن یک می های شود باید هر",
        "polish": "na się nie do to jest że od po dla przez przy oraz lub jak są ale nad",
        "portuguese": (
            "os as de do da dos das que em um uma para com não no na se por ao mais como é"
        ),
        "romanian": "și de la în cu un pe nu este care din pentru se sau ale cel mai prin sunt să",
        "russian": "не на что по для как это из от или при если но его он так их до только",
        "serbian": "је да на се са за од што не који су или као али",
        "spanish": "el la los las de del que en es un una por con para no se al lo como su más",
        "swedish": (
            "och att det som en ett är på för med inte av till den de har om kan vid eller efter"
        ),
        "tamil": "ஒரு மற்றும் இந்த என்று அது இது உள்ள வேண்டும் அல்லது என",
        "turkish": (
            "ve bir bu için ile de da olarak olan gibi daha çok veya ancak ise değil en kadar"
        ),
    }.items()
}
"""By language, under Snowball's names: words of two letters or more."""


def language_of(words: Sequence[str]) -> str | None:
    """Language of a text by its words in lower case; None where they don't tell.

    Two languages that share as many (Danish and Norwegian) don't tell either.
    """
    looked_at = words[:LOOKED_AT]
    counts = Counter(word for word in looked_at if word in _KNOWN)
    found = {
        language: sum(counts[word] for word in present)
        for language, known in LITTLE_WORDS.items()
        if len(present := known & counts.keys()) >= LEAST_DIFFERENT
    }
    most = max(found.values(), default=0)
    best = [language for language, count in found.items() if count == most]
    return best[0] if len(best) == 1 and most >= LEAST_SHARE * len(looked_at) else None


_KNOWN = frozenset[str]().union(*LITTLE_WORDS.values())


def languages_of(texts: Iterable[Sequence[str]]) -> list[str]:
    """Language of each text; where its words don't tell, that of most others, else English."""
    told = [language_of(words) for words in texts]
    counts = Counter(filter(None, told))
    most = min(counts, key=lambda language: (-counts[language], language), default=ENGLISH)
    return [language or most for language in told]
