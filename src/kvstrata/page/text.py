"""What nodes say, made fit for HTML and XML."""

from __future__ import annotations

import re
from html import escape

# All that XML 1.0 has no way to write; of surrogates, Python can't write them either.
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def fit(text: str) -> str:
    """Return the text with every character that XML cannot hold as a replacement character."""
    return _UNFIT.sub("\ufffd", text)


def safe(text: str) -> str:
    """Return the text as it may stand in an element or in a quoted attribute."""
    return escape(fit(text), quote=True)
