"""TF-IDF vectors of texts as arrays, so that headwater chooses examples where there is no model to read them.

    python examples/words_as_vectors.py corpus.jsonl questions.jsonl
    headwater ingest corpus.npz --store words --method vectors
    headwater select words --queries questions.npz --method vectors --count 1000 -o chosen.jsonl

The words of the first file are known, the 4,096 most frequent; each file becomes an .npz beside it. All is in memory here; of a
larger corpus, write the same arrays part by part to a Zarr group.
"""

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

WORDS = 4096


def texts(file: Path) -> list[str]:
    """The field `text` of every line, or else prompt and completion."""
    with file.open(encoding="utf-8") as opened:
        records = [json.loads(line) for line in opened if line.strip()]
    return [one["text"] if "text" in one else f"{one['prompt']}\n{one['completion']}" for one in records]


def main(corpus: str, *others: str) -> None:
    """Fit on the first, transform all."""
    words = TfidfVectorizer(sublinear_tf=True, max_features=WORDS, dtype=np.float32).fit(texts(Path(corpus)))
    for file in map(Path, (corpus, *others)):
        found = texts(file)
        np.savez(file.with_suffix(".npz"), vectors=words.transform(found).toarray(), text=np.array(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
