"""Text that does harm where it is taken for more than text: in names, pages, questions."""

import re
from collections.abc import Mapping

ADDRESS = "https://evil.example"
"""Where hostile text leads; a page that shows it asks nothing of this address."""

SEQUENCES: Mapping[str, str] = {
    "colours": "\x1b[31;1mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "link of a terminal": f"\x1b]8;;{ADDRESS}\x1b\\click\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "screen": "\x1b[2J\x1b[H\x1bc",
    "C1": "\x9b31mred\x9d0;owned\x9c",
    "overwritten": "true\rfalse\x08\x7f",
    "bell and NUL": "\x07\x00",
    "turned around": "\u202egnp.exe\u2066\u2069",
    "forged lines": "first\nembed-assets: all is well\n2026-11-27 - INFO\u2028next\x85last",
    "up": "\x1b[A\x1b[A",
}
"""What a terminal obeys."""

MARKUP: Mapping[str, str] = {
    "script": f"<script src='{ADDRESS}/s.js'></script><script>hostile=1</script>",
    "picture": f"<img src=x onerror='hostile=1'><img src='{ADDRESS}/p.png'>",
    "frame": f"<iframe src='{ADDRESS}'></iframe><svg onload=hostile=1>",
    "closed": "</script></style></title></textarea>--><b>bold</b>",
    "attribute": "\"' onmouseover=hostile=1 x='",
    "link": "[click](javascript:hostile=1) <a href='javascript:hostile=1'>x</a>",
    "markdown picture": f"![x]({ADDRESS}/p.png) [![x]({ADDRESS}/q.png)]({ADDRESS})",
    "reference": f"[x][1]\n\n[1]: {ADDRESS}\n",
    "address": f"{ADDRESS}/auto <{ADDRESS}/angle> www.evil.example mailto:x@evil.example",
    "blocks": "# heading\n\n---\n\n```\ncode\n```\n\n> quote\n\n- item\n\n1. one",
    "table": "a | b\n--- | ---\n1 | 2",
    "emphasis": "*one* __two__ ~~three~~ `four` \\*five",
    "entities": "&lt;script&gt;hostile=1&lt;/script&gt; &#x3c;b&#x3e; &amp;",
    "mathtext": r"$\frac{1}{0}$ $$x$$ \(y\)",
    "mermaid": '"]; click a "javascript:hostile=1"; %%{init: {}}%%',
}
"""What a page or markdown obeys."""

FORMULAS: Mapping[str, str] = {
    "command": "=cmd|'/c calc'!A0",
    "hyperlink": f'=HYPERLINK("{ADDRESS}","x")',
    "plus": "+1+1",
    "minus": "-1+cmd|' /c calc'!A0",
    "function": "@SUM(1+1)",
    "tab": "\t=1+1",
    "return": "\r=1+1",
    "line": "\n=1+1",
    "wide": "\uff1d1+1",
    "quoted": "'=1+1",
    "list": "- an item of a list",
}
"""What a spreadsheet obeys."""

BARS: Mapping[str, str] = {
    f"bar after {count}": "x" + "\\" * count + f"| ![]({ADDRESS}/p.png) | y" for count in (1, 2, 3)
}
"""What renderers take for the end of a cell, or not."""

CODE: Mapping[str, str] = {
    "jinja": "{{ 7*7 }}{% for x in y %}{# z #}",
    "format": "{} {0} {name!r} %s %(x)s ${x}",
    "YAML": "x: [y, {z\n---\n- !!python/object/apply:os.system ['true']\n",
    "SQL": "'; DROP TABLE raw_pdfs; --",
    "pattern": r"(a+)+$ .* [ \1 (?P<",
    "shell": "$(touch hostile) `touch hostile` ; rm -rf x",
    "path": "../../etc/passwd",
    "long word": "W" * 5000,
    "JSON": '"}, {"x": "\\u0000',
}
"""What other programs obey."""

HOSTILE: Mapping[str, str] = SEQUENCES | MARKUP | BARS | FORMULAS | CODE

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What no terminal may see, but for line breaks and tabs."""


def file_name(text: str) -> str:
    """A name of a file that holds as much of a text as a name can."""
    usable = text.lstrip(".").replace("/", "\u2215").replace("\x00", "")
    return usable.encode()[:200].decode(errors="ignore") + ".pdf"
