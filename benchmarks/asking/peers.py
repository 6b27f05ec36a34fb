"""One timed pass of another tool over the fake provider, run by the Python of that tool's own environment.

    PYTHON benchmarks/asking/peers.py NAME URL REQUESTS AT_ONCE

Each is given what it documents for speed: no limits of its own, so many requests at once as the others. Prints
seconds of wall and of processor time.
"""

import os
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    name, url, number, at_once = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    run = {"distilabel": distilabel, "curator": curator}[name](url, at_once)
    run([f"warm {index}" for index in range(20)])
    prompts = [f"question {index}: what is two and two, and why? " * 3 for index in range(number)]
    began, worked = time.perf_counter(), time.process_time()
    answered = run(prompts)
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    assert answered == number, f"{answered} of {number} were answered"
    print(f"SECONDS {seconds} {cpu}")


def distilabel(url: str, at_once: int):
    """Its client alone, in batches that are gathered: less than its pipeline does, which also keeps and writes."""
    from distilabel.models import OpenAILLM

    llm = OpenAILLM(model="fake", base_url=url, api_key="x")
    llm.load()

    def run(prompts: list[str]) -> int:
        rows = [[{"role": "user", "content": prompt}] for prompt in prompts]
        done = 0
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            done += sum(
                bool(out["generations"][0])
                for out in llm.generate_outputs(inputs=part, max_new_tokens=64, temperature=0.0)
            )
        return done

    return run


def curator(url: str, at_once: int):
    """The whole tool: it keeps each answer in a file, as the call layer does."""
    import litellm

    # its tokenizer would be fetched from the network; litellm brings the same file
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(litellm.__file__).parent / "litellm_core_utils" / "tokenizers")
    os.environ |= {"TELEMETRY_ENABLED": "0", "CURATOR_CACHE_DIR": tempfile.mkdtemp(), "OPENAI_API_KEY": "x"}
    from bespokelabs import curator as tool

    class Asked(tool.LLM):
        def prompt(self, row: dict) -> str:
            return row["prompt"]

        def parse(self, row: dict, response: str) -> dict:
            return {"prompt": row["prompt"], "answer": response}

    limits = {"max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**9, "max_concurrent_requests": at_once}
    llm = Asked(
        model_name="fake",
        backend="openai",
        generation_params={"max_tokens": 64, "temperature": 0},
        backend_params={"base_url": url, "api_key": "x", **limits},
    )

    def run(prompts: list[str]) -> int:
        answers = llm([{"prompt": prompt} for prompt in prompts])
        return len(getattr(answers, "dataset", answers))

    return run


if __name__ == "__main__":
    main()
