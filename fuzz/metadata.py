"""JSON lines; CSV where the first byte is odd."""

import atheris

with atheris.instrument_imports(include=["wscl_embed"]):
    from wscl_embed.dataset import load_dataset
from fuzz.harness import fuzz

SEEDS = [
    b'0{"file_name": "a.png", "tags": ["x"], "n": 1.5}\n{"file_name": "b.png", "x": {"y": [null, true]}}\n',
    b'0{"file_name": "a", "id": 1, "n": NaN}\r\n\n{"file_name": "b", "id": 2, "split": "test"}',
    b'1file_name,id,tags\na.png,1,"x, y"\nb.png,2,"two\nlines"\n',
    b"1\xef\xbb\xbffile_name,n\na,\n",
]


def target(path):
    content = path.read_bytes()
    place = path.with_name("metadata.csv" if content[:1] and content[0] % 2 else "metadata.jsonl")
    for other in (path.with_name("metadata.csv"), path.with_name("metadata.jsonl")):
        other.unlink(missing_ok=True)
    place.write_bytes(content[1:])
    load_dataset(place)


if __name__ == "__main__":
    fuzz(target, SEEDS, "input")
