"""One selection as a step of distilabel's pipeline, run by the Python of an environment that has it.

    PYTHON benchmarks/selecting/distilabel_steps.py minhash|novelty|ngrams TEXTS.json HELD_OUT.json

Near-duplicates are distilabel's own step. It has none for novelty or for overlap with an evaluation set: these are the steps
a user would write, with rouge-score against the pool (as the released Self-Instruct does) and with sets of word runs.
Prints the wall and processor seconds of `pipeline.run` alone, with its children, and which rows were dropped.
"""

import json
import re
import resource
import sys
import time
from pathlib import Path

from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, MinHashDedup, Step, StepInput

RUN = 10
TEXTS, HELD_OUT = sys.argv[2:4]


class Kept(Step):
    """A step that says of each row whether it stays."""

    @property
    def inputs(self):
        return ["text"]

    @property
    def outputs(self):
        return ["keep"]

    def process(self, inputs: StepInput):
        for row in inputs:
            row["keep"] = self.stays(row["text"])
        yield inputs


class Novel(Kept):
    def load(self):
        super().load()
        from rouge_score import rouge_scorer

        self._scored = rouge_scorer._score_lcs
        self._cut = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)._tokenizer.tokenize
        self._pool = []

    def stays(self, text):
        tokens = self._cut(text)
        if any(self._scored(tokens, other).fmeasure > 0.7 for other in self._pool):
            return False
        self._pool.append(tokens)
        return True


class Uncontaminated(Kept):
    def load(self):
        super().load()
        held = json.loads(Path(HELD_OUT).read_text(encoding="utf-8"))
        self._runs = {run for text in held for run in runs(text)}

    def stays(self, text):
        return self._runs.isdisjoint(runs(text))


def runs(text):
    words = re.findall(r"\w+", text.lower())
    return zip(*(words[start:] for start in range(RUN)))


def main():
    name = sys.argv[1]
    rows = [{"text": text} for text in json.loads(Path(TEXTS).read_text(encoding="utf-8"))]
    with Pipeline(name=name) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=1000)
        if name == "minhash":
            step = MinHashDedup(tokenizer="ngrams", n=5, threshold=0.8, num_perm=128, input_batch_size=1000)
        else:
            step = {"novelty": Novel, "ngrams": Uncontaminated}[name](input_batch_size=1000)
        load >> step
    began, worked = time.perf_counter(), spent()
    found = pipeline.run(use_cache=False)["default"]["train"]
    wall, cpu = time.perf_counter() - began, spent() - worked
    kept = found["keep_row_after_minhash_filtering" if name == "minhash" else "keep"]
    texts = found["text"]
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "dropped": [t for t, stays in zip(texts, kept) if not stays]}))


def spent():
    told = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in told)


if __name__ == "__main__":
    main()
