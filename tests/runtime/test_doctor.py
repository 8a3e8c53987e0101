"""`edgewren doctor` tells the truth about this machine, and what to do where something is missing."""

from __future__ import annotations

import json

import pytest

from edgewren import diagnosis
from edgewren.cli.main import main
from edgewren.errors import MissingDependencyError, UsageError


def test_doctor_reports_what_really_loads(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "provider     CPUExecutionProvider loads" in out
    assert "telemetry    off" in out
    assert "granted" in out


def test_doctor_json_is_one_document(capsys):
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["providers"]["CPUExecutionProvider"] == "loads"
    assert document["cores_granted"] >= 1
    assert document["packages"]["numpy"]
    assert "pyarrow" in document["extras"]["parquet"]
    assert document["problems"] == []


def test_missing_onnxruntime_is_a_problem_with_a_remedy(monkeypatch, capsys):
    def missing():
        raise MissingDependencyError("onnxruntime cannot be imported. Install one of: pip install 'edgewren[cpu]'")

    monkeypatch.setattr(diagnosis, "import_onnxruntime", missing)
    monkeypatch.setattr(diagnosis, "installed_onnxruntimes", dict)
    assert main(["doctor"]) == 2
    out = capsys.readouterr().out
    assert "NOT INSTALLED" in out
    assert "PROBLEM      onnxruntime cannot be imported. Install one of" in out


def test_two_onnxruntimes_are_a_problem_with_a_remedy(monkeypatch):
    monkeypatch.setattr(
        diagnosis, "installed_onnxruntimes", lambda: {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"}
    )
    (problem,) = diagnosis.diagnose().problems
    assert "pip uninstall onnxruntime onnxruntime-gpu" in problem


def test_a_provider_that_fails_to_start_is_not_said_to_load():
    class Session:
        def __init__(self, *_, providers):
            if providers == ["TensorrtExecutionProvider"]:
                raise RuntimeError("libnvinfer.so.10:\ncannot open")

        def get_providers(self):
            return ["CPUExecutionProvider"]

    class Fake:
        class SessionOptions:
            pass

        InferenceSession = Session

        @staticmethod
        def get_available_providers():
            return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    assert diagnosis._providers(Fake) == {
        "TensorrtExecutionProvider": "does not load: libnvinfer.so.10: cannot open",
        "CUDAExecutionProvider": "does not load: its libraries are missing",
        "CPUExecutionProvider": "loads",
    }


def test_flags_of_arm_are_told(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd aes atomics asimddp i8mm\nCPU part\t: 0xd49\n")
    assert diagnosis._cpu(cpuinfo)[1] == ("asimddp", "i8mm")


def test_a_copy_that_is_not_installed_is_diagnosed_without_extras(monkeypatch, capsys):
    def not_installed(name):
        raise diagnosis.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(diagnosis.metadata, "requires", not_installed)
    assert main(["doctor"]) == 0
    assert "extra " not in capsys.readouterr().out


def test_the_identity_model_is_sound():
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(diagnosis._IDENTITY_MODEL)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Identity"]


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEWREN_CACHE", str(tmp_path))
    assert diagnosis.diagnose().cache_folder == str(tmp_path)


def test_without_a_home_the_cache_folder_is_unknown(monkeypatch, capsys):
    for name in ("HOME", "XDG_CACHE_HOME", "EDGEWREN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user that no list of users knows
    assert main(["doctor"]) == 0
    assert "cache        unknown" in capsys.readouterr().out
    with pytest.raises(UsageError, match="EDGEWREN_CACHE=FOLDER"):
        diagnosis.cache_folder()
