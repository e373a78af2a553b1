"""Hundreds of specs that would reach what is not theirs, by every way in: refused, with the key named, and nothing of them kept or run."""
import json

import pytest
from hostile_specs import IMAGE, SPECS
from orca import Cluster


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as c:
        yield c


def said(answer):
    text = answer.text
    assert not any(ord(ch) < 32 and ch not in "\n" for ch in text), f"a control character in {text!r}"
    return answer.json()


def test_there_are_enough_of_them():
    assert len(SPECS) >= 500


def test_a_deploy_refuses_each(cluster):
    through, unnamed = [], []
    for label, spec, key in SPECS:
        answer = cluster.api("POST", "/api/v1/deploy", {"services": [spec]})
        body = said(answer)
        if answer.status not in (400, 403, 422):
            through.append(label)
        elif key not in json.dumps(body) and "\\u0000" not in json.dumps(spec):  # a NUL is refused as JSON already, by line and column
            unnamed.append((label, key, json.dumps(body)[:200]))
    assert not through, f"{len(through)} got through: {through}"
    assert not unnamed, f"{len(unnamed)} without the key: {unnamed[:20]}"
    assert cluster.api("GET", "/api/v1/status").json()["services"] == []


def test_nor_may_a_dry_run_or_a_good_one_beside_it_help(cluster):
    good = {"name": "good", "project": "shop", "image": IMAGE}
    for label, spec, _ in SPECS[::7]:
        assert cluster.api("POST", "/api/v1/deploy?dry_run=true", {"services": [spec]}).status in (400, 403, 422), label
        assert cluster.api("POST", "/api/v1/deploy", {"services": [good, spec]}).status in (400, 403, 422), label
    assert cluster.api("GET", "/api/v1/status").json()["services"] == []
    assert cluster.containers() == []
