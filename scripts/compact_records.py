"""Write the records below a reports folder in their compact form, in place.

    python scripts/compact_records.py [REPORTS]

Every metrics.json is read, written anew beside its list of videos (fima.evaluation.core.record_format), and replaced
only where what comes back equals what was there to the last bit; recipes lose their white space alone. A second call
finds nothing to do.
"""

import json
import sys
import tempfile
from pathlib import Path

from fima.evaluation.core.record_format import LISTS, is_packed, keep_list, lists_folder, pack_videos
from fima.evaluation.core.record_format import read_metrics, write_metrics
from fima.training.checkpoint import write_text

TOP = Path(__file__).resolve().parent.parent


def size(reports):
    "Bytes of the records of the runs, and of the lists of videos."
    files = [file for kind in ("runs", LISTS) for file in (reports / kind).rglob("*.json")]
    return sum(file.stat().st_size for file in files)


def compacted(file, old):
    "What the file should hold; its list of videos is written. ValueError where anything would be lost."
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place) / "metrics.json"
        write_metrics(scratch, old)
        if json.dumps(read_metrics(scratch)) != json.dumps(old):
            raise ValueError(f"{file} would lose something, so it stays")
        if isinstance(old.get("videos"), dict):
            keep_list(lists_folder(file.parent), pack_videos(old["videos"]).shared)
        return scratch.read_text()


def compact(reports):
    "Rewrite what is plain or longer than it has to be; say how much that was."
    files = sorted(file for name in ("metrics.json", "recipe.json") for file in (reports / "runs").rglob(name))
    before, changed = size(reports), 0
    for file in files:
        text, old = file.read_text(), read_metrics(file)
        new, videos = compacted(file, old), json.loads(text).get("videos")
        plain = isinstance(videos, dict) and not is_packed(videos)
        if plain or len(new) < len(text):
            write_text(file, new)
            changed += 1
    print(f"{changed} of {len(files)} files rewritten; {before:,} bytes before, {size(reports):,} bytes after")


if __name__ == "__main__":
    compact(Path(sys.argv[1] if len(sys.argv) > 1 else TOP / "reports").resolve())
