"""What each recipe of the survey makes of its own seeds: the point of its row, seen in the records that a student learns from."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_recipes import kept, trained

from stillhouse.elicit.reflecting import KINDS
from stillhouse.recipe import load_recipe
from stillhouse.records import Example, Ranking

Made = Callable[..., dict[str, list[Any]]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """`made("skills/...")`: what the recipe keeps with a scripted teacher, by branch."""
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    return lambda name, limit=3, **paths: kept(name, tmp_path, limit, **paths)


def weights(name: str) -> dict[str, float]:
    return {entry.on: entry.weight for entry in load_recipe(name).recipe.train[0].objectives}


def said(records: list[Any]) -> str:
    return "\n".join(message.content for one in records for message in one.prompt)


def test_a_pool_of_instructions_grows(made: Made) -> None:
    """R01 (Self-Instruct), SK01: new instructions, their answers, and the seeds they were shown as parents."""
    (found,) = made("skills/context_following/self_instruct", None).values()
    assert {text for one in found for text in [one.prompt[-1].content]} <= {
        "Explain how rivers find the sea.", "Write a note to a baker.", "Name three cold towns.",
    }  # fmt: skip


def test_topics_branch_and_stay_with_the_rows(made: Made) -> None:
    """R03 (LaMini), R09 (UltraChat's world sector): a tree of topics whose path every row keeps."""
    (found,) = made("skills/context_following/topics", 1).values()
    assert {one.columns["topic"] for one in found} == {"Nature > Beginnings"}  # dangers: asked the same


def test_the_student_learns_under_the_message_that_asked_to_explain(made: Made) -> None:
    """R05 (Orca), SK01: the system message is part of what is learnt."""
    found = made("skills/context_following/explanations")
    assert all(
        one.prompt[0].role == "system" and one.prompt == one.asked for branch in found.values() for one in branch
    )


def test_the_strategy_is_erased(made: Made) -> None:
    """R06 (Orca 2), SK04: the teacher was told how to go about it, the student is not."""
    (found,) = made("skills/context_following/strategies").values()
    assert all(one.asked[0].role == "system" and one.asked[0] != one.prompt[0] for one in found)


def test_answer_critique_and_revision_are_one_text(made: Made) -> None:
    """R14 (SelFee), SK04: the student learns to revise."""
    (found,) = made("skills/context_following/self_feedback").values()
    assert all("\n\nCritique:" in one.response and "\n\nRevision:" in one.response for one in found)


def test_textbooks_are_read_and_exercises_solved(made: Made) -> None:
    """R11 (phi): plain text without a prompt; then signature and docstring, of which the body is learnt."""
    found = made("skills/nlp/textbooks")
    assert all(one.prompt == () and "section" in one.response for one in found["sections"])
    assert [one.response.strip() for one in found["exercises"]] == ["return 2 * n"]
    assert len(load_recipe("skills/nlp/textbooks").recipe.train) == 2


def test_of_several_teachers_answers_the_central_one_is_learnt(made: Made) -> None:
    """R30 (Ensemble-Instruct), O3: one answer for each prompt, of the teacher that the others come nearest to."""
    (found,) = made("skills/context_following/ensemble").values()
    assert len({one.prompt for one in found}) == len(found) == 3
    assert {one.origin.teacher for one in found} <= {"one", "two", "three"}


def test_queries_find_their_documents_among_hard_negatives(made: Made) -> None:
    """J9, R55 (InPars), SK11: an encoder learns the document of each query against what BM25 finds beside it."""
    (found,) = made("skills/nlp/retriever", None).values()
    assert found and all(one.scores[0] == 1.0 and len(one.responses) == len(one.scores) > 1 for one in found)
    recipe = load_recipe("skills/nlp/retriever").recipe
    assert (recipe.student.kind, recipe.train[0].objectives[0].do) == ("encoder", "embedding.in_batch")


def test_the_student_samples_in_rounds(made: Made) -> None:
    """R21 (ReST-EM), J5: the base learns from all that was right in every round, its own answers among it."""
    recipe = load_recipe("skills/nlp/grow_and_improve").recipe
    assert (recipe.rounds.most, recipe.rounds.learn, recipe.train[0].init) == (3, "all", "base")
    found = made("skills/nlp/grow_and_improve")
    assert all("The answer is" in one.response for branch in found.values() for one in branch)


def test_problems_are_turned_round(made: Made) -> None:
    """R23 (MetaMath): four ways to more of the same problems; the known answer is told and a number asked for."""
    found = made("skills/nlp/asked_backwards")
    assert all(found.values())
    assert all(" x " in f" {said([one])} " for one in found["backward"] + found["restated"])


def test_steps_are_lessons_of_a_critic(made: Made) -> None:
    """R24 (WizardMath): a solution up to a step, and whether that step is right."""
    (found,) = made("skills/nlp/checked_steps").values()
    assert {one.response for one in found} == {"right", "wrong"}


def test_acts_that_reached_their_goal(made: Made) -> None:
    """R50 (FireAct, AgentTuning), SK08: thought and action are learnt, what the world said is read; a fifth of the loss."""
    found = made("skills/agent/trajectories", None)
    assert all(one.response.startswith("Thought: ") and "Observation" not in one.response for one in found["acts"])
    assert len(found["acts"]) == 7
    assert not any("lighthouse?" in said([one]) for one in found["acts"])  # its episode failed
    assert weights("skills/agent/trajectories") == {"acts": 0.2, "general": 0.8}


def test_a_good_and_a_bad_answer_without_a_judge(made: Made) -> None:
    """R34 (RLCD), SK05: neither affix is in the prompt of the pair."""
    (found,) = made("skills/alignment/contrast").values()
    assert all("(" not in one.prompt[-1].content for one in found)
    assert all(one.responses[1] == "Do as you like." for one in found)


def test_principles_revise_and_engrave(made: Made) -> None:
    """R32 (Constitutional AI), R40 (Self-Align), SK06: the rules are nowhere in what is learnt."""
    (revised,) = made("skills/alignment/constitution").values()
    assert {one.response for one in revised} == {"Done: answer number 0."}
    assert "harm" not in said(revised)


def test_the_same_prompts_get_new_answers(made: Made) -> None:
    """R02 (LLaMA-GPT4): x is kept, y is the new teacher's; the old answer is a parent and not a target."""
    (found,) = made("skills/context_following/relabelled").values()
    assert all(one.response.startswith("main: You asked") and one.response != one.reference for one in found)


def test_code_tasks_evolve_by_the_operators_of_code(made: Made) -> None:
    """R04 (WizardCoder): each task rewritten by one of five operators; the originals stay in."""
    (found,) = made("skills/nlp/evolved_code", 2).values()
    assert {one.columns.get("generation") for one in found} >= {None, 1}
    assert {str(one.columns["operator"])[:5] for one in found if "operator" in one.columns} == {"code_"}


def test_shared_conversations_teach_the_assistants_turns_only(made: Made) -> None:
    """R07 (Vicuna), SK02: later turns are learnt under the earlier ones; who can be found is left out."""
    (found,) = made("skills/context_following/shared_conversations", None).values()
    assert {len(one.prompt) for one in found} == {1, 3}
    assert all(one.prompt[-1].role == "user" for one in found)
    assert len(found) == 9
    assert "@" not in said(found)


def test_role_pairs_reach_both_sides_of_the_talk(made: Made) -> None:
    """R10 (CAMEL): the row's two roles, and requests made for them."""
    (found,) = made("skills/context_following/role_play", None).values()
    systems = Counter(one.prompt[0].content.split(".")[0] for one in found)
    assert systems.keys() >= {"You are a bookkeeper", "You are a cook"}
    assert {one.columns["person"] for one in found} == {"a baker", "a village teacher", "a sailor"}


def test_the_source_of_an_answer_is_a_prefix_and_a_weight(made: Made) -> None:
    """R16 (OpenChat): the student learns which prefix brings the better answers; the weaker ones count a tenth."""
    found = made("skills/context_following/conditioned")
    assert all(one.prompt[-1].content.startswith("Expert:\n\n") for one in found["strong"])
    assert all(one.prompt[-1].content.startswith("Amateur:\n\n") for one in found["weak"])
    assert weights("skills/context_following/conditioned") == {"strong": 1.0, "weak": 0.1}


def test_search_results_and_a_verdict_about_them(made: Made) -> None:
    """R17 (SAIL), SK03: some questions come without results."""
    (found,) = made("skills/context_following/search_augmented", None).values()
    assert all(one.response.startswith(("Passage ", "No passage helps. ")) for one in found)
    sizes = Counter(len(one.columns["passages"]) for one in found)
    assert len(sizes) >= 3
    assert sum(one.response.startswith("Passage ") for one in found) >= 2
    assert all(("Passage 1: " in one.prompt[-1].content) == bool(one.columns["passages"]) for one in found)


def test_correct_reasoning_finds_the_passages(made: Made) -> None:
    """R18 (KARD): the response is the reasoning again, under what it found."""
    (found,) = made("skills/context_following/retrieved_rationales", None).values()
    first = next(one for one in found if one.prompt[-1].content.endswith("When was the mill by the river built?"))
    assert first.response == "That makes it. The answer is 1820."
    assert "Passage 1: The mill by the river was built in 1820" in first.prompt[-1].content


def test_a_critic_and_the_generator_that_uses_it(made: Made) -> None:
    """R19 (Self-RAG), K3: four kinds of verdicts, learnt under the very codebooks that the generator's data asks with."""
    critic = made("skills/context_following/critic")
    assert {branch: {one.response for one in rows} for branch, rows in critic.items()} == {
        "retrieve": {"Yes"}, "relevance": {"Relevant"}, "support": {"Fully"}, "utility": {"5"},
    }  # fmt: skip
    assert all("Answer: " in one.prompt[-1].content for one in critic["support"])
    assert all("Classify the text" in one.prompt[-1].content for rows in critic.values() for one in rows)
    branches = load_recipe("skills/context_following/critic").recipe.knowledge
    assert {name: branch.elicit[-1].knobs["labels"] for name, branch in branches.items()} == KINDS


def test_the_generator_gives_the_critics_verdict_itself(made: Made) -> None:
    """R19, K3: it asks for passages, marks each sentence, and ends with the answer's use; passages are never learnt."""
    (found,) = made("skills/context_following/self_rag").values()
    first, last = found[0], next(one for one in found if "[Utility:5]" in one.response)
    assert first.response == "[Retrieval]"
    assert last.prompt[-1].content.startswith("<paragraph>") and "[Fully supported]" in last.response
    assert not any("<paragraph>" in one.response for one in found)
    recipe = load_recipe("skills/context_following/self_rag").recipe
    assert (recipe.teachers["critic"].backend, recipe.teachers["critic"].knobs["path"][-11:]) == ("run", "runs/critic")


def test_two_kinds_of_solution_are_two_tasks(made: Made) -> None:
    """R22 (Mixed Distillation): programs are kept if they print the answer, and asked for in the student's prompt."""
    found = made("skills/nlp/rationales_and_programs")
    assert all("The answer is" in one.response for one in found["written"])
    assert all(one.response.startswith("```python") for one in found["programmed"])
    assert all("Python program" in one.prompt[-1].content for one in found["programmed"])


def test_a_grid_of_generators_is_the_judge(made: Made) -> None:
    """R35 (ALMoST): the careful one first, whatever was said."""
    (found,) = made("skills/alignment/ranked_by_rule").values()
    assert all(isinstance(one, Ranking) for one in found)
    assert [text.split(":")[0] for text in found[0].responses] == ["careful", "hasty", "careless"]
    assert found[0].scores == (3.0, 2.0, 1.0)


def test_neighbours_criticise_and_an_observer_rates(made: Made) -> None:
    """R41 (SANDBOX): answers before and after advice, with the ratings of an observer; the best are learnt."""
    found = made("skills/alignment/society")
    assert all(one.scores[0] > one.scores[-1] for one in found["realigned"])
    assert all(one.responses[0].startswith("Done after advice") for one in found["realigned"])
    assert all(len(one.columns["neighbours"]) == 2 for one in found["realigned"])
    assert {one.response for one in found["imitated"]} == {one.responses[0] for one in found["realigned"]}
    (objective,) = load_recipe("skills/alignment/society").recipe.train[1].objectives
    assert (objective.do, objective.knobs["scale"]) == ("ranking.stable_alignment", 7)


def test_the_best_refinement_is_learnt(made: Made) -> None:
    """R44 (ILF): of several answers of the student, each refined by feedback, one a prompt."""
    (found,) = made("skills/alignment/language_feedback").values()
    assert len({one.prompt for one in found}) == len(found) == 3
    assert {one.columns["score"] for one in found} == {5.0}  # the highest that the script gives
    assert all(one.response == "Done: answer number 1." for one in found)


def test_requests_for_an_api_do_not_name_it(made: Made) -> None:
    """R47 (Gorilla): the call is the label, half of the requests see documentation, and calls are compared as trees."""
    (found,) = made("skills/agent/api_calls", None).values()
    documented = ["API 1: " in one.prompt[-1].content for one in found]
    assert 0 < sum(documented) < len(documented)
    assert all("(" in one.response and one.response not in one.prompt[-1].content.split("\n\n")[-1] for one in found)


def test_a_call_where_one_fits_and_none_where_none_does(made: Made) -> None:
    """R49 (GPT4Tools), SK07: what calls wrongly, or calls where nothing fits, is dropped."""
    (found,) = made("skills/agent/tool_calls", None).values()
    assert Counter(one.response for one in found)["No tool fits."] == 1  # the other time the script sets a timer
    assert '{"name": "set_timer", "arguments": {"minutes": 12}}' in {one.response for one in found}
    assert (
        found[0].prompt[-1].content.startswith("Tools:\nset_timer(minutes: integer)\nlight_on(room: string)\nRequest: ")
    )


def test_a_model_plays_the_tool(made: Made) -> None:
    """R49 (ToolAlpaca): the tool's description reaches the simulator and the assistant."""
    (found,) = made("skills/agent/simulated_tools").values()
    assert all("returns" in one.prompt[0].content for one in found)
    assert max(len(one.prompt) for one in found) > 3


def test_summaries_are_short_and_not_copied(made: Made) -> None:
    """R54 (InheritSumm, Genie), SK10."""
    (found,) = made("skills/nlp/summaries", None).values()
    assert all(20 <= len(one.response) <= 240 and one.response not in one.prompt[-1].content for one in found)


def test_an_order_is_kept_for_the_relevance_it_gains(made: Made) -> None:
    """R56 (RankVicuna), SK11: one order for all lists, right for some of them."""
    (found,) = made("skills/nlp/listwise", None).values()
    assert {one.reference for one in found} == {"1 3 0"}
    assert "[1] The school" in found[0].prompt[-1].content


def test_the_rewriters_first_training(made: Made) -> None:
    """R57 (Rewrite-Retrieve-Read): the student sees the question and not the instruction."""
    (found,) = made("skills/nlp/rewritten_queries").values()
    assert all("search engine" not in one.prompt[-1].content for one in found)
    assert {one.response for one in found} == {"who needs to know about this place"}


def test_preferences_in_words_and_as_a_choice(made: Made) -> None:
    """R58 (ONCE, InstructRec), SK12."""
    found = made("skills/nlp/recommendations")
    assert all("what does this person like" in one.prompt[-1].content for one in found["preferences"])
    assert [one.reference for one in found["choices"]] == ["(A)", "(B)", "(C)"]


def test_each_pair_is_judged_in_both_orders(made: Made) -> None:
    """R59 (PandaLM), SK13: as many A as B, whatever the votes."""
    found = made("skills/nlp/judge", None)
    verdicts = Counter(one.response for branch in found.values() for one in branch)
    assert verdicts == {"A": 4, "B": 4}


def test_no_score_is_rarer_than_another(made: Made) -> None:
    """R59 (Prometheus): answers are written for each score of a rubric."""
    (found,) = made("skills/nlp/rubric_answers", None).values()
    assert {one.response for one in found} <= set("12345")
    assert all(one.prompt[-1].content.startswith("Judge this answer") for one in found)


def test_a_failing_program_is_mended_until_the_tests_pass(made: Made) -> None:
    """R60 (PERsD), SK14: the student's attempt is kept beside what mended it."""
    (found,) = made("skills/nlp/code_repair", 2).values()
    assert [one.response.split("(")[0][-10:] for one in found] == ["def double"]
    assert found[0].columns["was"].startswith("You asked")


def test_a_program_passes_tests_that_the_teacher_wrote(made: Made) -> None:
    """R60 (Code Llama), SK14: the tests are the reference; the student is not shown them."""
    (found,) = made("skills/nlp/tested_code", 2).values()
    assert [one.response for one in found] == [
        f"```python\ndef {name}(x):\n    return x\n```" for name in ("double", "last")
    ]
    assert all("assert" in str(one.reference) and "assert" not in said([one]) for one in found)


def test_cleaner_code_still_passes(made: Made) -> None:
    """R60 (Code Clean), SK14: each accepted step is counted, and the old program is kept beside the new one."""
    (found,) = made("skills/nlp/cleaned_code", 2).values()
    assert all(one.columns["was"] in one.response and one.columns["accepted"] == [1, 2, 3] for one in found)


def test_what_a_program_prints_is_read_and_not_learnt(made: Made) -> None:
    """R22 (ToRA): thought, program, output, answer; outputs stand in prompts only."""
    (found,) = made("skills/nlp/interleaved_tools", 2).values()
    assert {one.columns["turn"] for one in found} == {1, 2}
    assert all("The program printed" not in one.response for one in found)
    (last, *_) = [one for one in found if one.columns["turn"] == 2]
    assert last.prompt[-1].content == f"The program printed:\n{last.reference}"
    assert "Where a calculation helps" not in said(found)


def test_pictures_are_told_in_words(made: Made) -> None:
    """R61 (LLaVA, LRV), SK15: three kinds of answers and what is not there; captions are never spoken of."""
    found = made("skills/multimodal/captioned", None)
    assert found.keys() == {"conversation", "detail", "reasoning", "absent"}
    assert all(one.columns["image"].endswith(".jpg") for branch in found.values() for one in branch)
    assert "apple at 0.1, 0.6, 0.3, 0.8" in found["detail"][0].prompt[-1].content
    assert all("caption" not in one.response for branch in found.values() for one in branch)
    assert weights("skills/multimodal/captioned")["reasoning"] > weights("skills/multimodal/captioned")["detail"]


def test_real_answers_stand_beside_distilled_ones(made: Made) -> None:
    """R62 (HuatuoGPT), V2: as they are, polished, and as a talk of two roles."""
    found = made("verticals/medical/consultations", None)
    assert all(one.response == one.reference for one in found["real"])
    assert all(isinstance(one, Example) and one.response != one.reference for one in found["polished"])
    assert all("You are a doctor" in one.prompt[0].content for one in found["talks"])


def test_law_is_shaped_as_a_syllogism_and_rests_on_statutes(made: Made) -> None:
    """R63 (DISC-LawLLM), V1: the shape is asked of the teacher only; the statute stays in the student's prompt."""
    found = made("verticals/law/consultations", None)
    assert "major premise" not in said(found["syllogisms"])
    assert all("major premise" in one.asked[0].content for one in found["syllogisms"])
    tree = next(one for one in found["with_statutes"] if "fence" in one.prompt[-1].content)
    assert "Statute 1: Section 12" in tree.prompt[-1].content


def test_reports_are_asked_about_and_read_plainly(made: Made) -> None:
    """R64 (XuanYuan), V3: questions rest on the table, and as much of the text itself is mixed in."""
    found = made("verticals/finance/reports", None)
    assert all(
        "Bread | 120 | 100" in said([one]) or "Fares" in said([one]) for one in found["self_qa"] + found["known"]
    )
    assert [one.reference for one in found["known"]][:2] == ["165", "20"]
    assert all(one.prompt == () for one in found["plain"])


def test_failed_reasoning_is_tried_again_with_the_answer_shown(made: Made) -> None:
    """R65 (SciGLM), V4: three tries; neither the failed attempt nor the answer that was shown is learnt."""
    (found,) = made("verticals/science/exam_questions").values()
    assert all("The right answer is" not in said([one]) for one in found)
    assert {one.columns["tries"] for one in found} <= {1, 2, 3}


def test_what_was_read_is_inspected(made: Made) -> None:
    """R65 (DARWIN, OceanGPT), V4: the inspector's score decides."""
    (found,) = made("verticals/science/papers").values()
    assert all(one.columns["score"] >= 4 for one in found)


def test_triples_become_questions(made: Made) -> None:
    """R66 (DISC-MedLLM), V2: the graph is meta-information; the student answers without it."""
    (found,) = made("verticals/medical/knowledge_graph").values()
    assert all(one.prompt[-1].content == "When did it happen?" for one in found)
    assert any("scurvy: is caused by: lack of vitamin C." in one.asked[-1].content for one in found)


def test_a_tutor_and_operations(made: Made) -> None:
    """R66 (EduChat, Owl), V5."""
    (lessons,) = made("verticals/misc/tutoring").values()
    assert all("never give the whole solution" in one.prompt[0].content for one in lessons)


def test_operations_grow_their_own_tasks(made: Made) -> None:
    """R66 (Owl), V5: self-instruct in one field."""
    (tasks,) = made("verticals/misc/operations", None).values()
    assert len(tasks) >= 2
    assert all(one.response.startswith("main: ") for one in tasks)


def test_one_request_out_of_two(made: Made) -> None:
    """SK01 (Instruction Fusion): the scripted fusion is one and the same, so that one of twenty is novel."""
    (found,) = made("skills/context_following/fused", None).values()
    assert [one.prompt[-1].content[:21] for one in found] == ["Plan a day by the sea"]


def test_a_question_learns_to_rank_as_its_reasoning_does(made: Made) -> None:
    """R18 (KARD's reranker), J9: passages scored by the reasoning, learnt under the question alone by a ranking head."""
    (found,) = made("skills/context_following/reranker").values()
    assert found
    assert all(isinstance(one, Ranking) and list(one.scores) == sorted(one.scores, reverse=True) for one in found)
    assert all("mill" in one.responses[0] for one in found if "mill" in one.prompt[0].content)
    recipe = load_recipe("skills/context_following/reranker").recipe
    assert (recipe.student.kind, recipe.train[0].objectives[0].do) == ("reranker", "ranking.listnet")


def test_the_best_of_four_ranked_answers_is_learnt(made: Made) -> None:
    """R08 (Baize's SDF): the student's own answers, the teacher's order, one target for each prompt."""
    (found,) = made("skills/context_following/best_of_ranked").values()
    assert len({one.prompt for one in found}) == len(found) == 3
    assert all(isinstance(one, Example) and one.origin.teacher for one in found)
    assert load_recipe("skills/context_following/best_of_ranked").recipe.student.lora


def test_both_sides_are_heard_and_one_is_learnt(made: Made) -> None:
    """R45 (DEBATunE), SK04: topic and stance are all the student is told; what was said before is a column."""
    (found,) = made("skills/alignment/debate", 2).values()
    assert [one.columns["stance"] for one in found] == ["for", "against"] * 2
    for one in found:
        sides = [text.partition(":")[0] for text in one.columns["debate"]]
        other = "against" if one.columns["stance"] == "for" else "for"
        assert sides == [one.columns["stance"], other] * 2
        assert one.prompt[0].content.startswith(f"Write a statement {one.columns['stance']} this: ")
        assert "closing statement" not in one.prompt[0].content
        assert len(one.origin.keys) == 5


def test_hard_examples_are_sought_in_three_rounds() -> None:
    """R12 (Lion): what was made in one round is imitated, and judged with the student it made, in the next."""
    recipe = load_recipe("skills/context_following/hard_examples").recipe
    assert (recipe.rounds.most, recipe.rounds.learn, recipe.knowledge["harder"].carry) == (3, "all", "pool")
    asked = [(entry.do, entry.teacher) for entry in recipe.knowledge["harder"].elicit]
    assert asked[2:4] == [("labeling.answer", "student"), ("feedback.hard", "main")]


@pytest.mark.parametrize("name", ["reranker", "best_of_ranked"])
def test_it_trains_to_the_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R18, R08: a ranking head, and a fresh adapter, on what the recipe made."""
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    run = trained(f"skills/context_following/{name}", tmp_path)
    assert (run.student / "config.json").is_file()


def test_request_and_answer_are_both_rewritten() -> None:
    """R13 (Reflection-Tuning): the pair first, then the answer alone, each held against what it replaced."""
    branch = load_recipe("skills/context_following/reflection").recipe.knowledge["revised"]
    assert [entry.do for entry in branch.elicit] == [
        "labeling.answer", "feedback.reflect", "accepting.request", "feedback.revise", "accepting.answer",
    ]  # fmt: skip
