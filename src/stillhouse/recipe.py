"""YAML -> Recipe (architecture, section 4). A recipe names functions and gives them values; it holds no expressions."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stillhouse.errors import RecipeError, nearest
from stillhouse.plain import changed, merged, read_yaml
from stillhouse.records import content_id
from stillhouse.teachers.asking.budget import Budget, budget_of

RECIPES = Path(__file__).parent / "recipes"
# names that a recipe may give in the place of a teacher's
REFERENCE = "reference"  # of an objective: the student as it was before training
STUDENT = "student"  # the student as the round begins; the base student in the first
BASE_STUDENT = "base_student"  # the student before any training, in every round


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetEntry(_Strict):
    """What a run, a teacher or a stage may use before it stops (exit code 6): `{usd: 5, hours: 2}`, or a text such as `5usd`,
    `2Mtok`, `1000requests`, `2h`, `5usd hard`. `soft` may overshoot by a little, `hard` sets worst cases aside.
    """

    usd: float | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    requests: int | None = Field(default=None, gt=0)
    hours: float | None = Field(default=None, gt=0)
    mode: Literal["soft", "hard"] = "soft"

    def at(self, place: str) -> Budget:
        """`place` is where it stands in the recipe."""
        return Budget(self.usd, self.tokens, self.requests, self.hours, self.mode, place)


def _budget(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = budget_of(value)
    except RecipeError as error:
        raise ValueError(str(error).partition(": ")[2]) from None
    return {**found.limits(), "mode": found.mode}


LimitedBy = Annotated[BudgetEntry | None, BeforeValidator(_budget, json_schema_input_type=str | BudgetEntry | None)]


class Entry(BaseModel):
    """`{do: name, knob: value, ...}`: what is not declared by a subclass is a knob, checked against the signature."""

    model_config = ConfigDict(extra="allow", frozen=True)
    do: str

    @property
    def knobs(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class SeedsEntry(Entry):
    """Where a branch starts; `terms` says what governs these seeds."""

    terms: dict[str, Any] | None = None


class ElicitEntry(Entry):
    """What a teacher is asked. Several teachers share the rows by `route`: all, round_robin, or a column that names one.

    `budget` is for this entry alone, over all rounds.
    """

    teacher: str | list[str] | None = None
    route: str = "all"
    sampling: dict[str, Any] = Field(default_factory=dict)
    budget: LimitedBy = None


class SelectEntry(Entry):
    """Which rows are kept.

    `against: random` adds an arm trained on as many rows drawn by chance; `drawn` marks that arm's own entry.
    """

    against: Literal["random"] | None = None
    drawn: bool = False


class ObjectiveEntry(Entry):
    """One summand of the loss: learns from the branch `on`; `teacher` gives its logits beside the student."""

    on: str
    weight: float = 1.0
    teacher: str | list[str] | None = None  # `reference`: the student as the phase's reference has it
    weight_column: str | None = None
    layers: tuple[int, int] = (-1, -1)  # of student and teacher, for objectives on hidden states or attention
    score_column: str = "score"  # how good an answer is, where it stands alone
    route: str | None = None  # fusion.routed: the column that names each row's teacher
    relations: Literal["queries", "keys", "values"] = "queries"  # similarity.attention_relations
    align: Literal["bytes", "count"] = "bytes"  # positions of a teacher with another tokenizer: by text, or counted

    @property
    def teachers(self) -> list[str]:
        return [self.teacher] if isinstance(self.teacher, str) else list(self.teacher or [])


class EvaluateEntry(Entry):
    """A held-out task; entries of one function are told apart by `name`."""

    name: str | None = None
    teacher: str | None = None  # ask this teacher the same questions, as the line to reach
    may_lose: float | None = Field(default=None, ge=0)  # a gate: the most a student may lose here against the base
    on_loss: Literal["report", "fail"] = "report"

    @property
    def label(self) -> str:
        return self.name or self.do.rpartition(":")[2]


class TeacherEntry(BaseModel):
    """`backend`, `sampling`, `budget` and `terms` are the recipe's; everything else is a knob of the backend."""

    model_config = ConfigDict(extra="allow", frozen=True)
    backend: str
    sampling: dict[str, Any] = Field(default_factory=dict)
    budget: LimitedBy = None
    terms: dict[str, Any] | None = None

    @property
    def knobs(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Branch(_Strict):
    """Seeds, what teachers make of them, and which of it is kept (Eq. 1); `keep: N` wants N rows, topped up with more seeds.

    `carry` says what a later round starts from: the seeds again, the pool (the seeds and all rows kept so far), or the last
    round's rows.
    """

    seeds: SeedsEntry
    elicit: list[ElicitEntry] = Field(default_factory=list)
    select: list[SelectEntry] = Field(default_factory=list)
    keep: int | None = Field(default=None, gt=0)
    attempts: int | None = Field(default=None, gt=0)  # the most seeds that `keep` may use
    carry: Literal["seeds", "pool", "last"] = "seeds"


class RewardEntry(Entry):
    """What judges the student's answers: an elicitor that writes a number into `column`, asked of `teacher`."""

    teacher: str | None = None
    sampling: dict[str, Any] = Field(default_factory=dict)
    column: str = "score"


class AdaptiveEntry(_Strict):
    """Every `every` steps the loss on `examples` held-out rows; the share grows by `step` where it rose by `tolerance`."""

    examples: int = Field(default=32, gt=0)
    every: int = Field(default=50, gt=0)
    step: float = Field(default=0.1, gt=0, le=1)
    tolerance: float = 0.1


class RolloutsEntry(_Strict):
    """The student answers the prompts of the branch `on` during training; `fraction` of the records, the rest keeps its own."""

    on: str
    fraction: float = Field(default=1.0, ge=0, le=1)
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=64, gt=0)
    batch_size: int = Field(default=64, gt=0)
    samples: int = Field(default=1, gt=0)
    reward: dict[str, Any] | None = None  # a grader: {do: math.equal}; or a judge: {do: feedback.rate, teacher: main}
    beside: bool = False  # keep the record's own answer beside the student's
    teacher: str | None = None  # takes part in sampling, by one of the two that follow
    teacher_share: float = Field(default=0.0, ge=0, lt=1)  # of each token's distribution (MiniLLM: 0.2)
    top_k: int = Field(default=0, ge=0)  # the teacher redraws what is not among its likeliest (speculative)
    replay: int = Field(default=0, ge=0)  # own answers kept to come back (DistiLLM: 1000)
    epochs: int = Field(default=1, gt=0)  # steps that learn from the answers of one window (PPO: 4)
    adaptive: AdaptiveEntry | None = None  # the share of own answers grows with the loss on held-out rows (DistiLLM)


class Phase(_Strict):
    """A weighted sum of objectives (Eq. 2) and its `transformers.TrainingArguments`."""

    init: Literal["previous", "base"] = "previous"
    reference: Literal["previous", "base"] = "base"
    objectives: list[ObjectiveEntry] = Field(min_length=1)
    rollouts: RolloutsEntry | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    packing: bool = True
    max_length: int | None = Field(default=None, gt=0)


class StopEntry(_Strict):
    """When a run ends its rounds early; rows are looked at before they are trained on.

    `accepted`: the least share of a round's slots that is kept. `distinct`: the least share of the first round's variety
    (distinct word pairs). `length`: the largest factor, up or down, by which texts may change from the first round's.
    `gain`: the least gain on held-out validation items over the round before; off unless given.
    """

    accepted: float = Field(default=0.05, ge=0, le=1)
    distinct: float = Field(default=0.5, ge=0, le=1)
    length: float = Field(default=2.0, ge=1)
    gain: float | None = None


class RoundsEntry(_Strict):
    """`most` rounds of knowledge and training; `learn` from the `last` round's rows or from `all` rows kept so far."""

    most: int = Field(gt=0)
    learn: Literal["last", "all"] = "last"
    stop: StopEntry = StopEntry()


class QuantiseEntry(_Strict):
    """How many bits weights, activations, and cached keys and values are rounded to on the way forward."""

    bits: int = Field(ge=2, le=16)
    scale: Literal["largest", "ternary", "learned"] = "largest"  # of weights; ternary has 2 bits
    activations: int | None = Field(default=None, ge=2, le=16)
    cache: int | None = Field(default=None, ge=2, le=16)


class ExpertsEntry(_Strict):
    """A mixture of adapters (saved as a Mixtral): so many on each feed-forward layer, of which a gate gives each token `top`."""

    number: int = Field(default=4, ge=2)
    top: int = Field(default=2, gt=0)
    rank: int = Field(default=16, gt=0)


class PruneEntry(_Strict):
    """The sizes that are left, by what matters on the first `examples` rows of the branch `on`."""

    on: str
    examples: int = Field(default=64, gt=0)
    layers: int | None = Field(default=None, gt=0)
    hidden: int | None = Field(default=None, gt=0)
    intermediate: int | None = Field(default=None, gt=0)
    heads: int | None = Field(default=None, gt=0)  # of keys and values, with their queries

    @property
    def sizes(self) -> dict[str, int]:
        told = {name: getattr(self, name) for name in ("layers", "hidden", "intermediate", "heads")}
        return {name: size for name, size in told.items() if size is not None}


class StudentEntry(_Strict):
    """The model that learns: a folder, a hub name, or `pocket`; `lora` trains an adapter instead of all weights."""

    model: str
    kind: Literal["causal_lm", "seq2seq", "classifier", "encoder", "reranker", "reward"] = "causal_lm"
    lora: dict[str, Any] | None = None
    labels: list[str] = Field(default_factory=list)  # the classes of kind classifier
    pooling: Literal["mean", "cls", "last"] | None = (
        None  # kind encoder; by default what its folder says, else the mean
    )
    quantise: QuantiseEntry | None = None  # learns to be rounded
    experts: ExpertsEntry | None = None  # learns a mixture of adapters
    prune: PruneEntry | None = None  # is cut out of the larger `model` first
    dtype: str = "float32"
    terms: dict[str, Any] | None = None


class Use(_Strict):
    """What the student is for: what the terms are checked against."""

    model_config = ConfigDict(extra="allow", frozen=True)
    purpose: str = "research"
    distributes: list[str] = Field(default_factory=list)


class ScreeningEntry(_Strict):
    """What screening does: a credential stops the run or loses its row; personal data in a prompt for somebody else's
    server is replaced, loses its row, or is sent where the provider's terms say that it does not train on it.
    """

    secrets: Literal["stop", "drop"] = "stop"
    egress: Literal["redact", "drop", "send"] = "redact"


def _phases(value: Any) -> Any:
    return [value] if isinstance(value, Mapping) else value


def _rounds(value: Any) -> Any:
    return {"most": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Recipe(_Strict):
    """A whole recipe (architecture, section 4)."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    use: Use | None = None
    teachers: dict[str, TeacherEntry] = Field(default_factory=dict)
    knowledge: dict[str, Branch] = Field(min_length=1)
    student: StudentEntry | None = None
    train: Annotated[list[Phase], BeforeValidator(_phases)] = Field(default_factory=list)
    evaluate: list[EvaluateEntry] = Field(default_factory=list)
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    repeats: int = Field(default=1, gt=0)
    rounds: Annotated[RoundsEntry, BeforeValidator(_rounds, json_schema_input_type=int | RoundsEntry)] = RoundsEntry(
        most=1
    )
    final: str | None = None
    budget: LimitedBy = None
    store: str | None = None
    seed: int = 0
    acknowledgments: list[Any] = Field(default_factory=list)
    screening: ScreeningEntry = ScreeningEntry()


class Loaded(BaseModel):
    """A recipe with the folder that relative paths in it start from, and the plain data it was made of."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    recipe: Recipe
    folder: Path
    data: dict[str, Any]

    def arms(self) -> dict[str, "Recipe"]:
        """Each arm as a whole recipe: the file with the arm's part laid over it. Without `arms:`, the file itself as `main`."""
        plain = {key: value for key, value in self.data.items() if key != "arms"}
        parts = {name: merged(plain, part) for name, part in self.recipe.arms.items()} or {"main": plain}
        for name, part in list(parts.items()):
            if (drawn := _drawn(part)) != part:
                parts[f"{name}-random"] = drawn
        return {name: build(part, f"arms.{name}") for name, part in parts.items()}


def _drawn(part: dict[str, Any]) -> dict[str, Any]:
    """The same arm with every selector that stands `against: random` replaced by a draw of as many rows."""
    out = deepcopy(part)
    for branch in (out.get("knowledge") or {}).values():
        for entry in (branch.get("select") or []) if isinstance(branch, Mapping) else []:
            if isinstance(entry, dict) and entry.get("against") == "random":
                entry["drawn"] = True
    return out


def load_recipe(
    source: str | Path | Mapping[str, Any], changes: Sequence[str] = (), *, folder: Path | None = None
) -> Loaded:
    """Reads a recipe from a file, from the shipped ones by name, or from plain data; `changes` are `a.b=value` strings.

    Raises `RecipeError`: the first thing that is wrong, where, and what to write instead.
    """
    if isinstance(source, Mapping):
        data, folder = deepcopy(dict(source)), folder or Path.cwd()
    else:
        path = find_recipe(source)
        data, folder = read_yaml(path), path.parent.resolve()
    for change in changes:
        data = changed(data, change)
    # as in an arm, null leaves a part of the recipe out: --set train=null
    data = resolved_paths({key: value for key, value in data.items() if value is not None}, folder)
    return Loaded(recipe=build(data, "recipe"), folder=folder, data=data)


def find_recipe(source: str | Path) -> Path:
    """A file, or the name of a shipped recipe (`demo`, `skills/context_following/...`)."""
    path = Path(source)
    if path.is_file():
        return path
    known = shipped_recipes()
    if str(source) in known:
        return known[str(source)]
    raise RecipeError(
        f"no recipe file {str(source)!r} and no shipped recipe of that name; {nearest(str(source), known)}"
    )


def shipped_recipes() -> dict[str, Path]:
    paths = sorted(RECIPES.rglob("*.yaml"))
    named = {str(path.relative_to(RECIPES).with_suffix("")): path for path in paths}
    return {name.removesuffix("/recipe"): path for name, path in named.items()}


def build(data: Mapping[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(_first_problem(error, data, where)) from None


def _first_problem(error: ValidationError, data: Mapping[str, Any], where: str) -> str:
    problems = error.errors()
    # a misspelt key is the reason for the missing one
    problem = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    place = ".".join(str(part) for part in problem["loc"]) or where
    if problem["type"] == "extra_forbidden":
        parent, key = problem["loc"][:-1], str(problem["loc"][-1])
        return f"{place}: unknown key; {nearest(key, _known_keys(parent))}"
    if problem["type"] == "missing":
        return f"{place}: missing; this key is required"
    return f"{place}: {problem['msg'][0].lower()}{problem['msg'][1:]} (got {str(problem.get('input'))[:80]!r})"


def _known_keys(parent: tuple[int | str, ...]) -> list[str]:
    homes: dict[str, type[BaseModel]] = {"knowledge": Branch, "train": Phase, "student": StudentEntry}
    if not parent:
        return list(Recipe.model_fields)
    inner: dict[str, type[BaseModel]] = {
        "rollouts": RolloutsEntry, "rounds": RoundsEntry, "stop": StopEntry, "budget": BudgetEntry,
    }  # fmt: skip
    if str(parent[-1]) in inner:
        return list(inner[str(parent[-1])].model_fields)
    return list(homes[str(parent[0])].model_fields) if str(parent[0]) in homes else []


def resolved_paths(value: Any, folder: Path, key: str = "") -> Any:
    """Every knob called `path` (or ending in `_path`) is relative to the recipe; a student or teacher folder beside it too."""
    if isinstance(value, Mapping):
        return {name: resolved_paths(each, folder, str(name)) for name, each in value.items()}
    if isinstance(value, list):
        return [resolved_paths(each, folder, key) for each in value]
    if isinstance(value, str) and (key == "path" or key.endswith("_path")):
        return str((folder / Path(value).expanduser()).resolve())
    if isinstance(value, str) and key == "model" and (folder / value / "config.json").is_file():
        return str((folder / value).resolve())
    return value


def fingerprint(data: Any) -> str:
    return content_id(data)
