"""Fixtures of the training tests; what they are made of is in train_helpers."""

import gc
import sys
from pathlib import Path

import pytest
import torch

from stillhouse.train.student import Student

sys.path.insert(0, str(Path(__file__).parent))
from train_helpers import WhiteBox, believe, make_examples, make_model, make_tokenizer

# the library collects garbage at the start of each training; a hundred of them need not look at every imported module
gc.freeze()


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def student(tokenizer):
    return Student(make_model(tokenizer), tokenizer)


@pytest.fixture
def teacher(tokenizer):
    return WhiteBox(make_model(tokenizer, seed=1), tokenizer)


@pytest.fixture
def tools():
    """The makers above, for tests that need another of something."""
    from types import SimpleNamespace

    return SimpleNamespace(
        tokenizer=make_tokenizer, model=make_model, examples=make_examples, believe=believe, white_box=WhiteBox
    )
