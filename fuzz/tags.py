"""The hashtags of a record, in one string or a list (split at NUL)."""

import atheris

with atheris.instrument_imports(include=["wscl_embed.terms", "wscl_adapters"]):
    import pyarrow as pa

    from wscl_adapters.tag_table import read_tags
    from wscl_embed.terms import normalise_term, words
from fuzz.harness import fuzz

SEEDS = [
    "#sun #Beach,summer#sun",
    "caf\u00e9\0cafe\u0301",
    "\u200fשמש 👩\u200d👩\u200d👧 #️⃣ ❤️",
    "赤いカメラと海 ＣＡＦＥ ß ﬁ",
]


def target(path):
    text = path.read_bytes().decode("utf-8", "replace")
    tags = read_tags(pa.chunked_array([[text, None]])).tags + read_tags(pa.chunked_array([[text.split("\0")]])).tags
    for tag in tags:
        assert normalise_term(tag) == tag != ""
    for word in words(text):
        assert word.strip() == word


if __name__ == "__main__":
    fuzz(target, [seed.encode() for seed in SEEDS], "tags")
