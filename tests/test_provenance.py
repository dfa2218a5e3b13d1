"""Where a result came from."""

import subprocess

import pytest

from lsce.machine import paths, provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    for folder in ("lsce", "data/recorded", "figures"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text("one")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    provenance.commit.cache_clear()
    yield tmp_path
    provenance.commit.cache_clear()


@pytest.mark.parametrize(
    ("changed", "dirty"),
    [(None, False), ("data/recorded/file", False), ("figures/file", False), ("lsce/file", True)],
)
def test_what_a_recorder_writes_does_not_make_the_code_another(checkout, changed, dirty):
    if changed is not None:
        (checkout / changed).write_text("two")
    commit, _, suffix = provenance.commit().partition("-")
    assert len(commit) == 12 and suffix == ("dirty" if dirty else "")


def test_outside_a_checkout_the_environment_says_it(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("LSCE_COMMIT", "abc")
    provenance.commit.cache_clear()
    assert provenance.commit() == "abc"
    provenance.commit.cache_clear()


def test_one_processor_with_and_without_its_instructions_are_two_devices(monkeypatch):
    monkeypatch.setattr(provenance, "_processor", lambda: "A Processor")
    names = []
    for instructions in (None, "AMX"):
        monkeypatch.setattr(provenance, "fast_bfloat16", lambda found=instructions: found)
        names.append(provenance.device_name.__wrapped__("cpu"))
    assert names == ["A Processor", "A Processor, AMX"]
