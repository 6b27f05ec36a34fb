"""Numbers held against a Counter and a dictionary, and the memory that each of them takes."""

import random
import tracemalloc
from collections import Counter
from pathlib import Path

from stillhouse import seeds
from stillhouse.compliance.lineage import rows_by_teachers
from stillhouse.numbers import Numbers
from stillhouse.records import Example, Origin, content_id, user
from stillhouse.store import Writer


def test_another_counts_as_a_counter_does_past_every_width() -> None:
    numbers, counter, draw = Numbers(), Counter(), random.Random(0)
    names = [content_id(i) for i in range(3000)]
    for _ in range(20_000):
        name = draw.choice(names)
        counter[name] += 1
        assert numbers.another(name) == counter[name]
    assert [numbers.another("often") for _ in range(70_000)] == list(range(1, 70_001))
    assert {name: numbers[name] for name in names} == {name: counter[name] for name in names}
    assert (numbers["never"], len(numbers)) == (0, len(counter) + 1)


def test_a_number_is_the_last_one_given() -> None:
    numbers, plain = Numbers(), {}
    for i in range(5000):
        name, number = str(i % 1700), (1, 65_534, 65_535, 1 << 40)[i % 4]
        numbers[name] = plain[name] = number
    assert {name: numbers[name] for name in plain} == plain


def test_names_take_at_most_20_bytes_each() -> None:
    names = [content_id(i) for i in range(20_000)]
    tracemalloc.start()
    numbers = Numbers()
    for name in names:
        numbers.another(name)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 20 * len(names) + 20_000


def test_reading_seeds_and_tracing_teachers_hold_few_bytes_a_row(tmp_path: Path) -> None:
    """The lists of ids that both once kept took 260 bytes a row of a whole run."""
    rows = 8_000
    with Writer(tmp_path / "questions.jsonl") as questions:
        for i in range(rows):
            questions.write_row({"prompt": f"question {i}"})
    steps = [tmp_path / "run" / "knowledge" / "answers" / name for name in ("01-asked", "02-kept", "03-kept")]
    for step in steps:
        with Writer(step / "out.jsonl") as out:
            for i in range(rows):
                out.write(Example(f"{i:016x}", user("q"), "a", origin=Origin((f"s{i}",), "t")))
    tracemalloc.start()
    assert sum(1 for _ in seeds.file(path=tmp_path / "questions.jsonl")) == rows
    _, reading = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    assert rows_by_teachers(tmp_path / "run") == {"answers": Counter({frozenset({"t"}): rows})}
    _, tracing = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reading < 45 * rows + 600_000, "while the table grows, the one before is held too"
    assert tracing - before < 45 * rows + 600_000
