"""Names for files and folders, from any text."""

from __future__ import annotations

import hashlib
import re
import unicodedata

MAX_CHARACTERS = 60
MAX_BYTES = 120  # file systems stop at 255; the timestamp and suffixes need room


def safe_name(text: str) -> str:
    """One short path component that any file system takes: letters and digits of any script and ``-_.@+=``.

    Everything else becomes ``_``. Long names are cut, and names of which nothing is left (an emoji) are replaced, with
    a hash of the text, so that different texts keep different names. Empty text stays empty.
    """
    text = unicodedata.normalize("NFC", text.strip())
    name = re.sub(r"([^\w.@+=-]|_)+", "_", text).strip("._")
    if len(name) <= MAX_CHARACTERS and len(name.encode()) <= MAX_BYTES and (name or not text):
        return name
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    room = len(digest) + 1  # so that a cut name is short itself, and stays as it is
    cut = name[: MAX_CHARACTERS - room].encode("utf-8", "ignore")[: MAX_BYTES - room].decode("utf-8", "ignore")
    cut = cut.rstrip("._")
    return f"{cut}-{digest}" if cut else digest
