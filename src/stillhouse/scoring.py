"""A trained model that judges at work: reward models and rerankers, classifiers, and writers by how likely they find a text."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.quiet import quiet
from stillhouse.records import Prompt
from stillhouse.render import Rendered, encodes, reading_of, types_texts


class Scorer:
    """A model folder with a scoring head. Raises RecipeError where it is none."""

    def __init__(self, path: str | Path, batch_size: int = 16):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = _folder(path)
        try:
            with quiet():
                self.tokenizer = AutoTokenizer.from_pretrained(folder)
                self.model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RecipeError(f"{path}: no scoring model can be loaded from it: {reason}") from error
        if self.model.config.is_encoder_decoder:
            raise RecipeError(
                f"{path}: {type(self.model).__name__} is an encoder-decoder, whose scores are not read here"
            )
        self.reading = reading_of(self.model)
        self.batch_size = batch_size

    @property
    def labels(self) -> list[str]:
        """The classes of a classifier, in the order of its logits."""
        return [self.model.config.id2label[at] for at in range(self.model.config.num_labels)]

    def scores(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
        """One number for each prompt with its answer."""
        found = self.rendered(pairs)
        return [values[0] for values in self._said([each.ids for each in found], [each.start for each in found])]

    def rendered(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Rendered]:
        """The pairs as it reads them."""
        return [self.reading.whole(self.tokenizer, *pair) for pair in pairs]

    def along(self, rows: Sequence[Rendered], places: Sequence[Sequence[int]]) -> list[list[float]]:
        """What the head says at some tokens of each response, counted from its first. Raises RecipeError for an encoder."""
        if encodes(self.model):
            raise RecipeError(
                f"{type(self.model).__name__} reads all of an answer at once and scores no step of it; take a decoder"
            )
        at = [[row.start + place for place in each] for row, each in zip(rows, places, strict=True)]
        return [[values[0] for values in each] for each in self._at([row.ids for row in rows], at)]

    def classes(self, prompts: Sequence[Prompt]) -> list[str]:
        """The likeliest class of each prompt."""
        found = self._said([self.reading.prompt(self.tokenizer, prompt) for prompt in prompts], None)
        return [self.labels[max(range(len(values)), key=values.__getitem__)] for values in found]

    def _said(self, rows: Sequence[Sequence[int]], starts: Sequence[int] | None) -> list[list[float]]:
        """What the head says of each row; `starts` is where the second text of each pair begins."""
        import torch

        if not encodes(self.model):
            return [values[0] for values in self._at(rows, [[len(row) - 1] for row in rows])]
        found: list[list[float]] = []
        for first in range(0, len(rows), self.batch_size):
            part = [torch.tensor(row) for row in rows[first : first + self.batch_size]]
            ids_BT = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            size_B = torch.tensor([len(row) for row in part])
            with torch.inference_mode():
                found += self._of_encoder(ids_BT, size_B, starts and starts[first : first + self.batch_size]).tolist()
        return found

    def _at(self, rows: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> list[list[list[float]]]:
        """What a decoder's head says at the places of each row."""
        import torch

        found: list[list[list[float]]] = []
        for first in range(0, len(rows), self.batch_size):
            part = [torch.tensor(row) for row in rows[first : first + self.batch_size]]
            ids_BT = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            with torch.inference_mode():
                # causal: what stands behind a row's last token changes nothing before it
                states = self.model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
                for row, at in enumerate(places[first : first + self.batch_size]):
                    found.append(self.model.score(states[row, list(at)]).float().tolist())
        return found

    def _of_encoder(self, ids_BT: Any, size_B: Any, starts: Sequence[int] | None) -> Any:
        import torch

        if starts is None or not types_texts(self.tokenizer):
            return scores_of_rows(self.model, ids_BT, size_B).float()
        place_T = torch.arange(ids_BT.shape[1])
        second_BT = (place_T >= torch.tensor(starts)[:, None]) & (place_T < size_B[:, None])
        return scores_of_rows(self.model, ids_BT, size_B, second_BT).float()


def opened(path: str | Path, batch_size: int) -> Scorer:
    """The scorer of a folder, read once for all the windows of a training that it rewards."""
    files = sorted(each for each in _folder(path).glob("*.*") if each.suffix in (".json", ".safetensors", ".bin"))
    return _opened(str(path), batch_size, tuple(each.stat().st_mtime_ns for each in files))


def _folder(path: str | Path) -> Path:
    """A model's folder, or that of the student of a run."""
    folder = Path(path)
    return folder / "student" if (folder / "student" / "config.json").is_file() else folder


@lru_cache(maxsize=2)
def _opened(path: str, batch_size: int, changed: tuple[int, ...]) -> Scorer:
    return Scorer(path, batch_size)


class Likelihood:
    """A model folder that writes, as a judge: an answer is worth its log-probability, its end included, in nats."""

    def __init__(self, path: str | Path, batch_size: int = 32):
        from stillhouse.teachers.transformers import Teacher

        self.model = Teacher(model=path, batch_size=batch_size)

    def scores(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
        """One number for each prompt with its answer."""
        from stillhouse.teachers.forced import forced

        model, tokenizer = self.model.module(), self.model.tokenizer()
        found = [reading_of(model).whole(tokenizer, *pair) for pair in pairs]
        return list(forced(model, tokenizer, found, _told))


def _told(row: Rendered, logits_TV: Any, _: Any) -> float:
    import torch

    target_T1 = torch.tensor(row.response, device=logits_TV.device)[:, None]
    return float(logits_TV.double().log_softmax(-1).gather(-1, target_T1).sum())


def scores_of_rows(model: Any, ids_RC: Any, size_R: Any, second_RC: Any = None) -> Any:
    """scores_RL of an encoder that reads the first `size_R` tokens of each row; `second_RC` marks those of another type.

    R rows of C tokens, L numbers of the head.
    """
    import torch

    told = {"attention_mask": (torch.arange(ids_RC.shape[1], device=ids_RC.device) < size_R[:, None]).long()}
    if second_RC is not None:
        told["token_type_ids"] = second_RC.long()
    return model(input_ids=ids_RC, **told).logits
