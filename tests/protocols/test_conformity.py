"""The program that runs UM-Bridge's own suite, with a suite that is made up."""

import textwrap

import pytest

from tests.protocols.conformity import SUITE, is_broken, page, run_suite, told


@pytest.fixture
def suite(tmp_path):
    """One test that passes and one that fails, with the options of UM-Bridge's."""
    file = tmp_path / SUITE
    file.parent.mkdir(parents=True)
    (file.parent / "conftest.py").write_text(
        textwrap.dedent("""\
            def pytest_addoption(parser):
                parser.addoption("--model_url")
                parser.addoption("--input_value")
        """)
    )
    file.write_text(
        textwrap.dedent("""\
            import requests

            def models(request):
                url = request.config.option.model_url
                return requests.get(f"{url}/Info").json()["models"]

            def test_one(request):
                assert models(request) == ["plain@latest"]

            def test_other(request):
                assert models(request) == ["another"]
        """)
    )
    return file


def test_what_failed_is_counted_and_told(service, suite):
    found = run_suite(suite, f"{service.signed}/umbridge/plain@latest")
    assert told(found) == "1 passed, 1 failed"
    assert is_broken(found)
    assert "| here | 1 passed, 1 failed |" in page({"here": found}, "abc", "def")


def test_no_tests_are_no_success(service, suite):
    suite.write_text("")
    found = run_suite(suite, f"{service.signed}/umbridge/plain@latest")
    assert told(found) == "no tests"
    assert is_broken(found)
