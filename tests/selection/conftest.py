import pytest

from stillhouse.records import Example, Seed, user


@pytest.fixture
def example():  # type: ignore[no-untyped-def]
    """`example("prompt", "response", "reference")`."""

    def make(prompt: str, response: str, reference: str | None = None, **columns: object) -> Example:
        seed = Seed(f"seed of {prompt}", user(prompt), reference, columns)
        return seed.answered(response, asked=seed.prompt, teacher="t")

    return make
