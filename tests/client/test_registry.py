"""The registry from the shell: descriptions, moves of aliases, long lists."""

import functools
import json

import pytest

from spnode_client import Client, Conflict, NotFound
from tests.client.conftest import Answer
from tests.client.test_command_line import run

MODEL = {
    **{"name": "m", "description": "old [/]", "tags": {"a": "1", "b": "2"}},
    **{"aliases": {"champion": 2}, "latest": 3, "versions": []},
}
MOVE = {
    **{"alias": "champion", "number": None, "previous": 2, "moved_by": "key:k"},
    **{"reason": "deleted", "moved_at": "2026-01-02T03:04:05Z"},
}


def answered(*bodies):
    return [Answer(200, json.dumps(each).encode()) for each in bodies]


def test_a_description_is_shown_and_changed_with_single_tags(server):
    server.answers += answered(MODEL)
    shown = run("models", "describe", "m", SPNODE_URL=server.url)
    assert [each.split(maxsplit=1) for each in shown.stdout.splitlines()] == [
        ["model", "m"],
        ["description", "old [/]"],
        ["tags", "a=1, b=2"],
        ["aliases", "champion 2"],
        ["latest", "3"],
    ]
    given = ("--description", "new", "--tag", "a=", "--tag", "c=x=y", "--json")
    seen, other, made = answered(MODEL, {**MODEL, "tags": {"b": "3"}}, {**MODEL})
    seen.headers["etag"], other.headers["etag"] = '"1"', '"2"'
    made.body = json.dumps({**MODEL, "description": "new"}).encode()
    # Somebody else changed another tag in between.
    refused = Answer(412, b'{"code": "precondition_failed", "detail": "moved"}')
    refused.headers["content-type"] = "application/problem+json"
    server.answers += [seen, refused, other, made]
    done = run("models", "describe", "m", *given, SPNODE_URL=server.url)
    assert json.loads(done.stdout)["description"] == "new"
    asked = server.asked[-1]
    assert (asked.method, asked.path) == ("PATCH", "/v1/models/m")
    body = {"description": "new", "tags": {"b": "3", "c": "x=y"}}
    assert json.loads(asked.body) == body
    assert asked.headers["if-match"] == '"2"'


def test_gates_are_overridden_with_a_reason(server):
    server.answers += [Answer(404, b"{}"), *answered({"alias": "champion"})]
    given = ("champion", "3", "--override", "a trial", "--json")
    done = run("models", "alias", "m", *given, SPNODE_URL=server.url)
    assert done.returncode == 0, done.stderr
    body = {"version": 3, "override": "a trial"}
    assert json.loads(server.asked[-1].body) == body


def test_what_is_not_given_is_not_sent(server):
    server.answers += answered(MODEL)
    with Client(server.url) as client:
        assert client.models.describe("m", tags={})["name"] == "m"
    assert json.loads(server.asked[0].body) == {"tags": {}}


@pytest.mark.parametrize("tag", ["a", "=b"])
def test_a_tag_that_is_none_is_wrong_usage(tag):
    done = run("models", "describe", "m", "--tag", tag, SPNODE_KEY="spn_x")
    assert (done.returncode, "expected key=value" in done.stderr) == (2, True)


def test_the_moves_of_an_alias_are_listed(server):
    server.answers += answered({"data": [MOVE], "next": None}) * 2
    done = run("models", "history", "m", "champion", SPNODE_URL=server.url)
    last = done.stdout.splitlines()[-1]
    assert last.split() == ["2026-01-02", "03:04:05Z", "2", "key:k", "deleted"]
    done = run("models", "history", "m", "champion", "--json", SPNODE_URL=server.url)
    assert json.loads(done.stdout) == [MOVE]
    assert server.asked[0].path == "/v1/models/m/aliases/champion/history"


def test_an_alias_is_deleted_wherever_it_points(server):
    server.answers.append(Answer(204, b""))
    done = run("models", "unalias", "m", "old", "--json", SPNODE_URL=server.url)
    assert json.loads(done.stdout) == {"deleted": "m@old"}
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("DELETE", "/v1/models/m/aliases/old")
    assert asked.headers["if-match"] == "*"


def test_a_long_list_says_where_it_goes_on(server):
    server.answers += answered({"data": [MODEL], "next": "abc"})
    done = run("models", "list", "--limit", "1", "--json", SPNODE_URL=server.url)
    assert [each["name"] for each in json.loads(done.stdout)] == ["m"]
    assert "there are more: --after abc, or --all" in done.stderr
    server.answers += answered({"data": [], "next": None})
    done = run("jobs", "list", "--after", "abc", "--json", SPNODE_URL=server.url)
    assert (json.loads(done.stdout), done.stderr) == ([], "")
    assert server.asked[-1].path == "/v1/jobs?limit=20&after=abc"


def test_all_of_a_list_is_fetched_page_by_page(server):
    pages = [{"data": [MODEL], "next": "abc"}, {"data": [MODEL], "next": None}]
    server.answers += answered(*pages)
    done = run("models", "list", "--all", "--json", SPNODE_URL=server.url)
    assert (len(json.loads(done.stdout)), done.stderr) == (2, "")
    asked = [each.path for each in server.asked]
    assert asked == ["/v1/models?limit=100", "/v1/models?limit=100&after=abc"]


def test_versions_are_listed_page_by_page_with_their_errors(server):
    each = {"model": "m", "size_bytes": 1, "created_at": "2026-01-02T03:04:05Z"}
    pages = [
        {
            "data": [{**each, "number": n, "normalised_rmse": n / 4}],
            "next": n - 1 or None,
        }
        for n in (2, 1)
    ]
    server.answers += answered(MODEL, *pages)
    done = run("models", "versions", "m", "--all", "--json", SPNODE_URL=server.url)
    found = json.loads(done.stdout)
    said = [(v["number"], v["aliases"], v["normalised_rmse"]) for v in found]
    assert said == [(2, ["champion"], 0.5), (1, [], 0.25)]
    asked = [each.path for each in server.asked[1:]]
    path = "/v1/models/m/versions?limit=100"
    assert asked == [path, f"{path}&after=1"]


ACT = {
    **{"created_at": "2026-01-02T03:04:05Z", "caller": "key:k", "method": "DELETE"},
    **{"path": "/v1/models/m", "status": 204, "request_id": "r", "made": None},
}


def test_what_was_done_is_read_page_by_page(server):
    server.answers += answered({"data": [ACT], "next": "abc"})
    done = run("keys", "audit", "k", "--limit", "1", SPNODE_URL=server.url)
    assert "there are more: --after abc, or --all" in done.stderr
    said = done.stdout.splitlines()[-1].split()
    assert said[:2] == ["2026-01-02", "03:04:05Z"]
    assert said[2:5] == ["key:k", "DELETE", ACT["path"]]
    pages = [{"data": [ACT], "next": next_one} for next_one in ("def", None)]
    server.answers += answered(*pages)
    given = ("--all", "--after", "abc", "--json")
    done = run("keys", "audit", *given, SPNODE_URL=server.url)
    assert (json.loads(done.stdout), done.stderr) == ([ACT, ACT], "")
    assert [each.path for each in server.asked] == [
        "/v1/audit?limit=1&caller=key%3Ak",
        "/v1/audit?limit=100&after=abc",
        "/v1/audit?limit=100&after=def",
    ]


def test_times_of_keys_are_told_to_the_second(server):
    key = {"id": "01kc", "name": "n", "scopes": ["read"], "project": "default"}
    key |= {"created_at": "2026-01-02T03:04:05.678901Z", "expires_at": None}
    server.answers += answered({"data": [key], "next": None})
    done = run("keys", "list", SPNODE_URL=server.url)
    row = done.stdout.splitlines()[-1]
    assert row.split() == ["01kc", "n", "read", "default", "2026-01-02", "03:04:05Z"]


def test_all_of_each_list_is_there_in_python(server):
    version = {"model": "m", "number": 2, "digest": "d"}
    job, dataset = {"id": "job_1", "state": "queued"}, {"id": "ds_1"}
    with Client(server.url) as client:
        for ask, item, path in (
            (client.models.list, MODEL, "models"),
            (
                functools.partial(client.models.versions, "m"),
                version,
                "models/m/versions",
            ),
            (client.datasets.list, dataset, "datasets"),
            (client.jobs.list, job, "jobs"),
            (client.keys.audit, ACT, "audit"),
        ):
            pages = [{"data": [item], "next": next_one} for next_one in ("abc", None)]
            server.answers += answered(*pages)
            assert len(ask(limit=None)) == 2
            server.answers += answered(pages[0])
            (found,) = ask(limit=1, after="abc")
            assert getattr(found, "record", found) == item
            first, second, last = [each.path for each in server.asked[-3:]]
            assert first == f"/v1/{path}?limit=100"
            assert second == f"/v1/{path}?limit=100&after=abc"
            assert last == f"/v1/{path}?limit=1&after=abc"


LOST = Answer(break_after=-1)
GONE = Answer(404, b'{"code": "not_found", "detail": "there is none"}')
EXISTS = Answer(428, b'{"code": "precondition_required", "detail": "it exists"}')
MOVED = Answer(412, b'{"code": "precondition_failed", "detail": "it has moved"}')


def alias_at(number: int) -> Answer:
    where = {"model": "m", "alias": "champion", "number": number}
    return Answer(200, json.dumps(where).encode(), {"etag": f'"{number}"'})


@pytest.mark.parametrize("doubt", [LOST, Answer(503, b"{}")])
def test_what_an_earlier_try_did_is_done(server, doubt):
    with Client(server.url) as client:
        server.answers += [doubt, GONE]
        client.models.delete_version("m/2")
        server.answers += [doubt, GONE]
        client.models.delete_alias("m", "old")
        server.answers += [doubt, GONE]
        client.datasets.delete("ds_1")
        server.answers += [alias_at(1), doubt, MOVED, alias_at(2)]
        assert client.models.set_alias("m", "champion", 2)["number"] == 2
        server.answers += [GONE, doubt, EXISTS, alias_at(2)]
        assert client.models.set_alias("m", "champion", 2)["number"] == 2


def test_what_nothing_did_is_refused(server):
    with Client(server.url) as client:
        server.answers += [GONE]
        with pytest.raises(NotFound):
            client.models.delete_version("m/2")
        server.answers += [Answer(429, b"{}"), GONE]
        with pytest.raises(NotFound):
            client.datasets.delete("ds_1")
        server.answers += [alias_at(1), MOVED]
        with pytest.raises(Conflict, match="it has moved"):
            client.models.set_alias("m", "champion", 2)
        # Another one moved it, and ours was not done.
        server.answers += [alias_at(1), LOST, MOVED, alias_at(3)]
        with pytest.raises(Conflict, match="it has moved"):
            client.models.set_alias("m", "champion", 2)
