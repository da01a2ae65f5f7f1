"""The commands of `request`, from the first request to the audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]


def test_from_the_first_request_to_the_audit(invoke: Invoke) -> None:
    def done(*words: str, code: int = 0) -> str:
        result = invoke(*words)
        assert result.exit_code == code, result.output
        assert len(result.stderr.splitlines()) == (1 if code else 0)
        return result.output

    done("train", "--set", "epochs=1", "--device", "cpu", "--out", "base")
    made = ("request", "init", "--model", "base", "--method", "neggrad", "--device", "cpu", "--no-retrain")
    assert "No such option" in done(*made, code=2)  # --retrain none is the one way to say it
    made = (*made[:-1], "--retrain", "none", "--set", "epochs=1", "--set", "lr=0.0001")
    assert "Ledger: ledger" in done(*made)
    assert "holds a ledger already" in done(*made, code=1)
    Path("people.csv").write_text("index,user_id\n3,ann\n14,ann\n9999,bob\n")
    add = ("request", "add", "people.csv", "--id-column", "user_id", "--request-id", "R-17", "--received", "2026-05-31")
    assert "1 of 3 samples of 'people.csv' are not in the data 'digits': '9999'" in done(*add, code=1)
    text = done(*add, "--allow-missing")
    assert "Request R-17: 2 samples of 2 people, received 2026-05-31, due 2026-06-30." in text
    assert "Not in the data, and counted: 1, 9999" in text
    assert "it was in the ledger already" in " ".join(done(*add, "--allow-missing").split())
    assert "2 (+1 missing)" in done("request", "list")
    assert "1 pending, 0 served" in (text := done("request", "status")) and "days overdue" in text
    text = done("request", "run")
    assert "Served: R-17." in text and "Run folder: ledger/runs/" in text
    assert "Nothing is pending." in done("request", "run")
    assert "checks hold." in done("request", "verify")
    assert "served 20" in done("request", "list")
    lines = done("request", "export").splitlines()
    assert json.loads(lines[0])["entries"] == len(lines) - 1 == 4
    done("request", "export", "--out", "audit.jsonl")
    assert "checks hold." in done("request", "verify", "audit.jsonl")
    Path("audit.jsonl").write_text("\n".join(lines[:-1]))
    assert "checks fail: audit.jsonl is not what its own chain says" in done("request", "verify", "audit.jsonl", code=3)
    assert "3 clear ids deleted; 0 of pending requests stay." in done("request", "purge")
    assert "holds 2 of 2 forgotten samples" in done("request", "check", "--dataset", "digits", code=3)
    assert "lacks 1 request that" in done("request", "check", "--model", "base", code=3)
    run = next(Path("ledger/runs").iterdir())
    assert "nothing that was forgotten is back" in done("request", "check", "--model", str(run))
    assert "Private key: mine.key" in done("request", "keygen", "--out", "mine")
    signed = done("request", "export", "--sign-key", "mine.key").splitlines()
    assert "signature" in json.loads(signed[0])
    assert "it is not signed" in done("request", "verify", "--public-key", "mine.pub", code=3)
    assert "holds no ledger" in done("request", "list", "--ledger", "other", code=1)


def test_a_model_that_lost_too_much_ends_the_command_with_3(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (
        *("unlearn", "--method", "neggrad", "--set", "lr=0.0001", "--set", "epochs=1", "--set", "initial.epochs=1"),
        *("--retrain", "none", "--max-drop", "2", "--device", "cpu", "--out"),
    )
    result = invoke(*words, "kept")
    assert result.exit_code == 0, result.output
    release = json.loads(Path("kept/report.json").read_text())["release"]
    assert release["holds"] and release["samples"] == 359 - 36 and release["low"] <= release["drop"] <= release["high"]
    monkeypatch.setattr("pymixunlearn.experiments.unlearn.release.paired_difference", lambda *counts: (9.0, 5.0, 13.0))
    result = invoke(*words, "lost")
    assert result.exit_code == 3, result.output
    assert result.stderr.startswith("The model is not released: it lost +9.0 points of test accuracy on the classes")
    assert "and 2 are allowed; try a smaller lr" in result.stderr and len(result.stderr.splitlines()) == 1
    assert (Path("lost") / "model.safetensors").is_file()


def test_a_model_that_collapsed_ends_the_command_with_3(invoke: Invoke) -> None:
    words = ("unlearn", "--method", "neggrad", "--set", "lr=1e30", "--set", "initial.epochs=1", "--retrain", "none")
    result = invoke(*words, "--device", "cpu", "--out", "run")
    assert result.exit_code == 3, result.output
    assert result.stderr == (
        "The model collapsed by step 25 ('retain' was not finite) and went back to the initial model: nothing is "
        "forgotten; try a smaller lr.\n"
    )
    record = json.loads(Path("run/report.json").read_text())
    assert record["collapse"] == {"step": 25, "good_step": 0, "cause": "'retain' was not finite"}
    assert record["models"]["initial_sha256"] == record["models"]["unlearned_sha256"]
    assert "The model <b>collapsed</b> by step 25" in Path("run/report.html").read_text()
    assert invoke("verify", "run", "--hashes-only").exit_code == 0
