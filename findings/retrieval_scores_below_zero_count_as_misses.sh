#!/usr/bin/env bash
# torchmetrics' RetrievalMAP, RetrievalMRR, RetrievalRecall and RetrievalPrecision throw away every hit whose score is not above zero, while
# RetrievalHitRate, RetrievalNormalizedDCG and RetrievalRPrecision keep it. Cosine similarities and negated distances, by which clips
# are retrieved, lie there.
# Expected of measures of a ranking: only the order counts, so that adding one to all scores changes nothing. Seen with torchmetrics 1.9.0:
# for a right clip that is ranked first, the first four are 1, 1, 1 and 0.25 with scores above zero and all 0 with the same scores less one.
# Exits with 0 while this is so; with 1 once the behaviour has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6

cat > retrieve.py <<'PROGRAM'
import torch
import torchmetrics
from torchmetrics import retrieval

CHANGED = ("RetrievalMAP", "RetrievalMRR", "RetrievalRecall", "RetrievalPrecision")
KEPT = ("RetrievalHitRate", "RetrievalNormalizedDCG", "RetrievalRPrecision")
relevant = torch.tensor([True, False, False, False])
query = torch.zeros(4, dtype=torch.long)
above = torch.tensor([0.9, 0.6, 0.4, 0.2])


def measure(name, scores):
    metric = getattr(retrieval, name)()
    metric.update(scores, relevant, indexes=query)
    return round(float(metric.compute()), 3)


print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__)
pairs = {name: (measure(name, above), measure(name, above - 1)) for name in CHANGED + KEPT}
for name, pair in pairs.items():
    print(f"{name:24s} scores above zero: {pair[0]}, the same less one: {pair[1]}")
as_described = [pairs[name] for name in CHANGED] == [(1, 0), (1, 0), (1, 0), (0.25, 0)]
as_described = as_described and all(pairs[name] == (1, 1) for name in KEPT)
raise SystemExit(0 if as_described else "the sign of the scores plays another part now")
PROGRAM
venv/bin/python -W ignore retrieve.py
