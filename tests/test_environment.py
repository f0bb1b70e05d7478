"""Which torch the set-up takes on which machine, without installing any."""

from pathlib import Path

import pytest

from helpers import load_script


@pytest.fixture
def environment(monkeypatch):
    "The set-up script, on a Linux machine without torch whose package indexes answer as a test says."
    module = load_script("environment")
    monkeypatch.setattr(module, "PYTHON", Path("/nowhere/python"))
    monkeypatch.setattr(module.subprocess, "run", lambda *words, **options: type("Empty", (), {"stdout": ""}))
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module, "sees_gpu", lambda: False)
    monkeypatch.delenv("TORCH_INDEX_URL", raising=False)
    module.calls = []

    def answers(*good):
        def done(*command, **options):
            module.calls.append(" ".join(map(str, command)))
            return any(part in module.calls[-1] for part in good)

        monkeypatch.setattr(module, "done", done)

    module.answers = answers
    return module


def test_pip_settings_come_first_without_a_gpu(environment):
    environment.answers("torch==1.2.3+cpu")
    environment.install_torch("uv", "1.2.3")
    assert len(environment.calls) == 1 and "--no-deps" in environment.calls[0]


def test_uv_is_asked_for_a_cpu_build_next(environment, capsys):
    environment.answers("--torch-backend cpu")
    environment.install_torch("uv", "1.2.3")
    assert len(environment.calls) == 2 and "NOTE" not in capsys.readouterr().out


def test_cuda_is_never_taken_silently(environment, capsys):
    environment.answers("--constraint requirements.txt torch==1.2.3")
    environment.install_torch("uv", "1.2.3")
    assert len(environment.calls) == 3 and "no CPU build of torch==1.2.3 was to be had" in capsys.readouterr().out


def test_a_gpu_or_another_system_takes_the_default_build(environment, monkeypatch):
    environment.answers("torch==1.2.3")
    monkeypatch.setattr(environment, "sees_gpu", lambda: True)
    environment.install_torch("uv", "1.2.3")
    monkeypatch.setattr(environment, "sees_gpu", lambda: False)
    monkeypatch.setattr(environment.sys, "platform", "darwin")
    environment.install_torch("uv", "1.2.3")
    assert len(environment.calls) == 2
    assert not any("+cpu" in call or "torch-backend" in call for call in environment.calls)


def test_a_named_index_is_the_only_one(environment, monkeypatch):
    monkeypatch.setenv("TORCH_INDEX_URL", "https://example.invalid/torch")
    environment.answers("--index-url https://example.invalid/torch torch==1.2.3")
    environment.install_torch("uv", "1.2.3")
    assert len(environment.calls) == 1
    environment.answers()
    with pytest.raises(SystemExit, match="this command failed"):
        environment.install_torch("uv", "1.2.3")


def test_an_old_python_is_told_so(environment, monkeypatch):
    monkeypatch.setattr(environment.sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit, match="Python 3.11 or newer is needed"):
        environment.main()
