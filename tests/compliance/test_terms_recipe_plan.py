"""From a recipe to a plan: access paths, what a recipe and a card state, and that ordinary work needs no paper."""

from datetime import date

import pytest

from stillhouse.compliance.gates import decide, decide_rows
from stillhouse.compliance.recipe_plan import access_of, card_licence, plan_of
from stillhouse.errors import RecipeError

TODAY = date(2026, 11, 21)
POCKET = {"name": "main", "backend": "pocket"}
PURPOSES = ["research", "internal", "commercial_product", "open_release"]


def plan(*teachers, seeds=({"path": "seeds.jsonl"},), student=None, **use):
    return plan_of(
        use={"purpose": "research", "distributes": [], **use},
        teachers=list(teachers),
        seeds=list(seeds),
        student=student or {"model": "pocket"},
    )


def codes(*teachers, **more):
    return set(decide(plan(*teachers, **more), today=TODAY).codes)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_the_pocket_models_and_own_data_are_permitted_for_every_purpose(purpose):
    decision = decide(plan(POCKET, purpose=purpose), today=TODAY)
    assert decision.verdict == "permit"
    assert decision.codes == ("OWN_RIGHTS_DECLARED",)
    assert "without terms" in decision.reasons[0].text


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("licence", ["apache-2.0", "mit", "bsd-3-clause"])
def test_a_local_checkpoint_under_a_plain_licence_needs_no_acknowledgment(purpose, licence):
    named = {"name": "main", "backend": "transformers", "model": "models/own-7b", "terms": {"record": licence}}
    student = {"model": "models/small", "terms": {"record": licence}}
    decision = decide(plan(named, student=student, purpose=purpose), today=TODAY)
    shipped = purpose == "open_release"  # a copy of the licence goes with the weights
    assert decision.verdict == ("permit-with-obligations" if shipped else "permit")


def test_a_model_card_is_read_and_to_be_confirmed(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    assert card_licence(tmp_path) == "apache-2.0"
    assert card_licence(tmp_path / "none") is None
    teacher = {
        "name": "main",
        "backend": "transformers",
        "model": str(tmp_path),
        "card_licence": card_licence(tmp_path),
    }
    decision = decide(plan(teacher), today=TODAY)
    assert decision.verdict == "permit-with-obligations"
    (reason,) = [r for r in decision.reasons if r.code == "CONFIRM_SOURCE"]
    assert reason.quote == "license: apache-2.0"
    assert reason.origin == "card"


@pytest.mark.parametrize(
    "text", ["# no front matter", "---\nlicense: [a\n---\n", "---\nlicense: [mit, other]\n---\n", "---\n- x\n---\n"]
)
def test_a_card_that_states_nothing_readable_states_nothing(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert card_licence(tmp_path) is None


@pytest.mark.parametrize("stated", ["llama3", "cc-by-nc-4.0", "my own licence", "other", "gpl-3.0"])
def test_a_card_without_a_plain_open_licence_is_no_record(stated):
    teacher = {"name": "main", "backend": "transformers", "model": "models/x", "card_licence": stated}
    assert codes(teacher) == {"NO_RECORD", "OWN_RIGHTS_DECLARED"}


def test_a_card_does_not_displace_a_record():
    teacher = {"name": "m", "backend": "vllm", "model": "meta-llama/Meta-Llama-3-8B", "card_licence": "mit"}
    assert "PROHIBITED_CLAUSE" in codes(teacher)


def test_a_recipe_does_not_displace_a_record():
    teacher = {"name": "m", "backend": "vllm", "model": "meta-llama/Meta-Llama-3-8B", "terms": {"record": "mit"}}
    assert "PROHIBITED_CLAUSE" in codes(teacher)


def test_a_recipe_resolves_weights_that_nobody_read():
    smol = {"name": "m", "backend": "transformers", "model": "HuggingFaceTB/SmolLM2-1.7B"}
    assert "TERMS_UNREAD" in codes(smol)
    assert "TERMS_UNREAD" not in codes({**smol, "terms": {"record": "apache-2.0"}})


def test_a_record_named_for_a_local_folder_brings_all_it_says():
    local = {
        "name": "m",
        "backend": "transformers",
        "model": "models/llama",
        "terms": {"record": "meta.llama3@2024-04-18"},
    }
    assert "PROHIBITED_CLAUSE" in codes(local)
    base = {"model": "models/llama3-8b", "terms": {"record": "meta.llama3@2024-04-18"}}
    assert "SAME_FAMILY_ONLY" in codes(local, student=base)


def test_licences_in_an_expression_all_count_and_a_choice_takes_the_lighter():
    seeds = [{"path": "a.jsonl", "terms": {"record": "MIT AND CC-BY-NC-4.0"}}]
    assert "NONCOMMERCIAL" in codes(POCKET, seeds=seeds)
    seeds = [{"path": "a.jsonl", "terms": {"record": "CC-BY-NC-4.0 OR MIT"}}]
    assert codes(POCKET, seeds=seeds) == set()
    both = [{"path": "a.jsonl", "terms": {"record": "MIT"}}, {"path": "b.jsonl", "terms": {"record": "MIT"}}]
    assert codes(POCKET, seeds=both, distributes=["dataset"]) == {"LICENCE_COPY"}


def test_a_data_set_of_the_hub_is_no_declaration_of_ones_own():
    assert codes(POCKET, seeds=[{"dataset": "acme/rows"}]) == {"NO_RECORD:dataset"}
    assert codes(POCKET, seeds=[{"dataset": "openai/gsm8k"}]) == set()


@pytest.mark.parametrize(
    ("backend", "url", "access"),
    [
        ("transformers", None, "weights"),
        ("openai", None, "api:openai"),
        ("openai", "https://api.openai.com/v1", "api:openai"),
        ("openai", "https://me.openai.azure.com/openai", "api:azure"),
        ("openai", "http://127.0.0.1:8000/v1", "weights"),
        ("openai", "http://localhost:11434/v1", "weights"),
        ("openai", "http://[::1]:8000/v1", "weights"),
        ("openai", "http://192.168.1.7/v1", "weights"),
        ("openai", "http://gpu-box:8000/v1", "weights"),
        ("openai", "https://openrouter.ai/api/v1", "api:openrouter"),
        ("openai", "https://api.together.xyz/v1", "api:together"),
        ("openai", "https://eu-west4-aiplatform.googleapis.com/v1", "api:vertex"),
        ("openai", "https://llm.acme.com/v1", "api:unknown"),
        ("openai", "https://api.openai.com.evil.example/v1", "api:unknown"),
        ("anthropic", None, "api:anthropic"),
        ("vllm_offline", None, "weights"),
        ("vllm", None, "weights"),
        ("vllm", "http://10.0.0.5:8000/v1", "weights"),
        ("vllm", "https://llm.acme.com/v1", "api:unknown"),
    ],
)
def test_the_address_decides_the_access_path(backend, url, access):
    assert access_of(backend, url) == access


def test_services_name_their_models_with_the_vendor_first():
    hosted = {"name": "m", "backend": "openai", "model": "gpt-5.1"}
    assert plan(hosted).teachers[0].model == "openai/gpt-5.1"
    assert "COMPETE_UNDECLARED" in codes(hosted)


def test_a_remote_server_nobody_knows_has_no_record_until_the_recipe_says():
    remote = {"name": "m", "backend": "openai", "model": "qwen", "base_url": "https://llm.acme.com/v1"}
    assert "NO_RECORD" in codes(remote)
    assert codes({**remote, "terms": {"record": "apache-2.0"}}) == {"OWN_RIGHTS_DECLARED"}


def test_recorded_answers_keep_the_way_they_were_obtained():
    palm = {"name": "m", "backend": "recorded", "model": "palm-540b", "terms": {"record": "google.palm"}}
    assert plan(palm).teachers[0].access == "api:google"
    assert "TERMS_UNREAD" in codes(palm)
    llama = {"name": "m", "backend": "recorded", "model": "meta-llama/Meta-Llama-3-8B-Instruct"}
    assert "PROHIBITED_CLAUSE" in codes(llama)
    gpt4 = {"name": "m", "backend": "recorded", "model": "gpt-4", "terms": {"access": "api:openai"}}
    assert "COMPETE_UNDECLARED" in codes(gpt4)
    # the licence of a repository that answers lie in is not that of the service they came from
    for model, code in (("google/palm-540b", "TERMS_UNREAD"), ("openai/gpt-4", "COMPETE_UNDECLARED")):
        published = {"name": "m", "backend": "recorded", "model": model, "terms": {"record": "apache-2.0"}}
        assert code in codes(published)
    unknown = {"name": "m", "backend": "recorded", "path": "answers.jsonl"}
    assert "NO_RECORD" in codes(unknown)
    own = {**unknown, "terms": {"own_rights": "written by our support team"}}
    assert codes(own) == {"OWN_RIGHTS_DECLARED"}


def test_a_student_of_an_earlier_run_brings_its_teachers_data_and_weights():
    first = plan(
        {"name": "m", "backend": "transformers", "model": "meta-llama/Llama-3.3-70B-Instruct"},
        seeds=[{"dataset": "HuggingFaceH4/no_robots"}],
        student={"model": "Qwen/Qwen2.5-3B"},
    )
    critic = {"name": "critic", "backend": "run", "path": "runs/critic", "plan": first.as_dict()}
    second = plan(critic, purpose="commercial_product")
    assert {t.model for t in second.teachers} == {"meta-llama/Llama-3.3-70B-Instruct", "Qwen/Qwen2.5-3B"}
    found = set(decide(second, today=TODAY).codes)
    assert {"NAME_PREFIX:Llama", "NC_VS_USE"} <= found
    assert {t.model for t in second.by_name["critic"]} == {t.model for t in second.teachers}


def test_what_a_recipe_stated_comes_along_with_a_run():
    first = plan({"name": "m", "backend": "transformers", "model": "models/x", "terms": {"record": "mit"}})
    second = plan({"name": "c", "backend": "run", "plan": first.as_dict()})
    assert decide(second, today=TODAY).verdict == "permit"


def test_a_plan_has_one_hash_wherever_the_recipe_lies(tmp_path):
    def hashed(folder):
        own = {"name": "m", "backend": "transformers", "model": str(folder / "models/x"), "terms": {"record": "mit"}}
        return plan_of(
            use={"purpose": "research"},
            teachers=[own],
            seeds=[{"path": str(folder / "seeds.jsonl")}],
            student={"model": "pocket"},
            folder=folder,
        )

    here, there = hashed(tmp_path / "here"), hashed(tmp_path / "there")
    assert here.sha256 == there.sha256
    assert here.datasets[0].id == "seeds.jsonl"
    assert decide(here, today=TODAY).verdict == "permit"


def test_the_student_as_its_own_teacher_is_its_starting_weights():
    itself = {"name": "student", "backend": "student"}
    base = {"model": "meta-llama/Meta-Llama-3-8B"}
    assert "SAME_FAMILY_ONLY" in codes(itself, student=base)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("causal_lm", "general_llm"),
        ("classifier", "classifier"),
        ("encoder", "embedding"),
        ("reward", "reward_model"),
        (None, "general_llm"),
    ],
)
def test_the_students_kind_follows_the_recipe(kind, expected):
    assert plan(POCKET, student={"model": "pocket", "kind": kind}).use.student_kind == expected
    given = plan(POCKET, student={"model": "pocket", "kind": kind}, student_kind="task_llm")
    assert given.use.student_kind == "task_llm"


def test_a_run_is_judged_on_its_own_day_or_later():
    hosted = {"name": "m", "backend": "openai", "model": "deepseek-chat", "base_url": "https://api.deepseek.com"}
    back_dated = plan(hosted, purpose="open_release", as_of="2026-09-01")
    assert "STALE_RECORD" in decide(back_dated, today=TODAY).codes


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: plan_of(use=None, teachers=[], seeds=[], student={"model": "pocket"}), "use: missing"),
        (lambda: plan(POCKET, gate="publish"), "use.gate: unknown"),
        (lambda: plan(POCKET, student={"model": None}), "student.model: missing"),
        (lambda: plan(POCKET, student={"model": "pocket", "kind": "poet"}), "student.kind: unknown 'poet'"),
        (lambda: plan({"name": "m", "backend": "openai"}), "teachers.m.model: missing"),
        (lambda: plan({**POCKET, "terms": "mit"}), "teachers.main.terms: write"),
        (lambda: plan({**POCKET, "terms": {"licence": "mit"}}), "teachers.main.terms.licence: unknown"),
        (lambda: plan({**POCKET, "terms": {"record": "mit", "own_rights": "x"}}), "exclude each other"),
        (lambda: plan({**POCKET, "terms": {"record": "MIT AND"}}), "is not a licence expression"),
        (lambda: plan({**POCKET, "terms": {"record": "GPL-3.0-only"}}), "nor a plain licence with a row"),
        (lambda: plan({**POCKET, "terms": {"record": "data.gsm8k"}}), "is about a dataset"),
        (
            lambda: plan({**POCKET, "terms": {"record": "meta.lama3@2024-04-18"}}),
            "did you mean 'meta.llama3@2024-04-18'",
        ),
    ],
)
def test_mistakes_in_a_recipe_are_one_sentence(make, said):
    with pytest.raises(RecipeError) as e:
        make()
    assert said in str(e.value)
    assert e.value.exit_code == 2


def test_a_student_that_goes_on_stands_under_what_taught_its_start(tmp_path):
    """R32, R40: a chain's later part: base and teachers of the earlier run are the plan's; so are its data sets and its rules."""
    first = plan(
        {"name": "main", "backend": "openai", "model": "gpt-4.1", "method": "train_on_outputs"},
        seeds=({"path": "first.jsonl"},), student={"model": "pocket"},
    )  # fmt: skip
    then = plan(
        {"name": "mild", "backend": "pocket", "method": "train_on_outputs"},
        student={"model": str(tmp_path / "student"), "plan": first.as_dict()},
    )
    assert {teacher.model for teacher in then.teachers} == {"openai/gpt-4.1", "stillhouse/pocket-teacher"}
    assert {row.id for row in then.datasets} == {"first.jsonl", "seeds.jsonl"}
    assert then.student_base == first.student_base
    told = [decide(each, today=TODAY) for each in (first, then)]
    assert set(told[1].codes) >= set(told[0].codes)
    # at the train gate rows name the new teacher only: those of the start stay all the same
    alone = plan({"name": "mild", "backend": "pocket", "method": "train_on_outputs"})
    stayed, mild = decide_rows(then, {"mild"}, today=TODAY), decide_rows(alone, {"mild"}, today=TODAY)
    assert set(stayed.codes) > set(mild.codes)


def test_who_taught_a_reward_model_judges_what_it_rewards(tmp_path):
    """R32, R35, R62: the teachers of the reward model's run are in the plan, as judges, at the train gate too."""
    first = plan(
        {"name": "main", "backend": "openai", "model": "gpt-4.1", "method": "train_on_outputs"},
        student={"model": "pocket"},
    )
    model = {"name": "reward model x", "backend": "run", "path": str(tmp_path), "plan": first.as_dict(), "judges": True}
    then = plan({"name": "mild", "backend": "pocket", "method": "train_on_outputs"}, model)
    told = {(teacher.model, teacher.method) for teacher in then.teachers}
    assert {("openai/gpt-4.1", "judge_or_reward"), ("stillhouse/pocket-student", "judge_or_reward")} <= told
    alone = plan({"name": "mild", "backend": "pocket", "method": "train_on_outputs"})
    both, mild = decide_rows(then, {"mild"}, today=TODAY), decide_rows(alone, {"mild"}, today=TODAY)
    assert set(both.codes) > set(mild.codes)
