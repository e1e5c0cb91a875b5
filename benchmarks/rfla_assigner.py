"""How many times faster the label assigner is than its definition in loops, on the same boxes and priors.

Two loop forms: one pair of box and prior at a time in plain Python, as the definition reads; and whole rows
of similarities with a loop over boxes and their k best values. All give equal assignments. One
thread; rounds alternate between the forms. Target: at least 20 times the first.
"""

import argparse
import heapq
import math
import statistics
import time

import torch
from mmengine.structures import InstanceData

from busflow.models.rfla import SIMILARITIES, HierarchicalAssigner

TOPK, SHRINK, AMBIGUOUS = (3, 1), 0.9, 0.8


def random_boxes(n: int, generator: torch.Generator) -> torch.Tensor:
    corners = torch.rand(n, 2, generator=generator, dtype=torch.float64) * 500
    sides = 10 + torch.rand(n, 2, generator=generator, dtype=torch.float64) * 100
    return torch.cat([corners, corners + sides], 1)


def shrink(boxes: torch.Tensor) -> torch.Tensor:
    centre, half = (boxes[:, 2:] + boxes[:, :2]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * SHRINK
    return torch.cat([centre - half, centre + half], 1)


def gaussians(boxes: torch.Tensor) -> list[tuple[float, ...]]:
    return [
        ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1 + 1e-6, y2 - y1 + 1e-6) for x1, y1, x2, y2 in boxes.tolist()
    ]


def pair_by_pair(priors: torch.Tensor, truth: torch.Tensor) -> list[int]:
    stages = []
    for candidates, k in zip((priors, shrink(priors)), TOPK, strict=True):
        fields = gaussians(candidates)
        rows = []
        for xg, yg, wg, hg in gaussians(truth):
            row = []
            for xp, yp, wp, hp in fields:
                offset = 4 * (xp - xg) ** 2 / wg**2 + 4 * (yp - yg) ** 2 / hg**2
                sides = wp**2 / wg**2 + hp**2 / hg**2 + math.log(wg**2 / wp**2) + math.log(hg**2 / hp**2)
                row.append(1 / (1 + (offset + sides - 2) / 2))
            rows.append(row)
        stage = [-1 if max(column) >= AMBIGUOUS else 0 for column in zip(*rows, strict=True)]
        best = [0.0] * len(fields)
        for i, row in enumerate(rows):
            for value in heapq.nlargest(k, row):
                for j, similarity in enumerate(row):
                    if similarity == value and similarity > best[j]:
                        stage[j], best[j] = i + 1, similarity
        stages.append(stage)
    return [first if first > 0 else second for first, second in zip(*stages, strict=True)]


def row_by_row(priors: torch.Tensor, truth: torch.Tensor) -> list[int]:
    stages = []
    for candidates, k in zip((priors, shrink(priors)), TOPK, strict=True):
        similarity = SIMILARITIES["kl"](truth, candidates)
        stage = torch.where(similarity.max(0).values >= AMBIGUOUS, -1, 0)
        best = torch.zeros_like(similarity[0])
        for i, row in enumerate(similarity):
            for value in row.topk(k).values:
                claimed = (row == value) & (row > best)
                stage[claimed], best[claimed] = i + 1, value
        stages.append(stage)
    return torch.where(stages[0] > 0, stages[0], stages[1]).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, default=100)
    parser.add_argument("--priors", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    truth, priors = random_boxes(args.boxes, generator), random_boxes(args.priors, generator)
    labels = torch.zeros(len(truth), dtype=torch.long)
    assigner = HierarchicalAssigner(topk=TOPK, shrink=SHRINK)

    def vectorised(priors: torch.Tensor, truth: torch.Tensor) -> list[int]:
        result = assigner.assign(InstanceData(priors=priors), InstanceData(bboxes=truth, labels=labels))
        return result.gt_inds.tolist()

    seconds = {form: [] for form in (vectorised, row_by_row, pair_by_pair)}
    expected = vectorised(priors, truth)
    for _ in range(args.rounds):
        for form, times in seconds.items():
            start = time.perf_counter()
            assigned = form(priors, truth)
            times.append(time.perf_counter() - start)
            assert assigned == expected, f"{form.__name__} assigns otherwise"
    positives = sum(value > 0 for value in expected)
    print(f"{args.boxes} boxes x {args.priors} priors, {positives} positives, equal in all forms")
    for form, times in seconds.items():
        ratios = [loop / fast for loop, fast in zip(times, seconds[vectorised], strict=True)]
        milliseconds = statistics.median(times) * 1000
        print(f"{form.__name__}: {milliseconds:.0f} ms, ÷ vectorised {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
