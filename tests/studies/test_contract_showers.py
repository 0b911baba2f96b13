"""Smoke runs of the studies of showers, in a file of their own for a process of its own."""

import pytest

from experiments.__main__ import studies
from tests.studies.test_contract import of_showers, resumes_and_is_drawn_again


@pytest.mark.study
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(filter(of_showers, studies())))
def test_a_smoke_run_resumes_and_is_drawn_again(name, command, smoke, tmp_path, monkeypatch):
    resumes_and_is_drawn_again(name, command, smoke, tmp_path, monkeypatch)
